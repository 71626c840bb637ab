"""The rules that a result is held against, by the numbers of docs/levels-and-rules.md."""

from hpcai500.score.record.source import SourceName
from hpcai500.spec.models import Frozen

NUM_RUNS = 5
"""Runs of one entry: MLPerf's number for ResNet and for detection."""
MOST_UNCONVERGED = 1

RULES = {
    "1.1": "the files of a run are there and can be read",
    "1.2": "the files are those that the run left",
    "1.3": "all files tell of the same run",
    "1.4": "result.json follows from the other files",
    "1.5": "the log holds each key as often as it must",
    "1.6": "overrides explain every value that differs from workload.toml",
    "1.7": "the run is one that may be ranked",
    "2.1": "the clock never runs back",
    "2.2": "the run stands between its start and its stop",
    "2.3": "the seconds of the epochs are those between their events",
    "2.4": "a foreign program's clock is that of whoever ran it",
    "3.1": "all epochs ran, or the target was reached",
    "3.2": "each epoch was evaluated, on each sample once",
    "3.3": "each epoch trained whole global batches of the data set",
    "3.4": "FLOPs follow from samples and convention",
    "3.5": "the figures can be, and do not contradict each other",
    "4.1": "Layer 9 is the reference's",
    "4.2": "the data set is the reference's",
    "4.3": "Layer 7's code is the reference's (hardware level)",
    "4.4": "the model is the reference's, unless free level changed it",
    "4.5": "the fixed values of Layers 7 and 8 are the reference's (hardware and system level)",
    "4.6": "Layer 5 is the reference's (hardware level)",
    "4.7": "all nine layers are disclosed",
    "5.1": "seeds are distinct",
    "5.2": "there are enough runs",
    "5.3": "at most one run did not converge",
    "5.4": "the runs are of one experiment on one system",
}


class Breach(Frozen):
    rule: str
    """Its number."""
    run: SourceName
    """The run's folder; of a rule over several runs, the first one's."""
    message: str
