"""Rules 5.1 to 5.4: the runs of one entry together."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from hpcai500.score.record.system import SystemRecord
from hpcai500.score.rules.evidence import Evidence
from hpcai500.score.rules.rule import CheckedSet, set_rule

NUM_RUNS = 5
"""Runs of one entry: MLPerf's number for ResNet and for detection."""
MOST_UNCONVERGED = 1


@set_rule(
    "5.1",
    "No seed occurs twice, and no run is given under two seeds: no two runs have the same qualities in the same "
    "times.",
    source="MLPerf training rules",
)
def runs_are_distinct(entry: CheckedSet) -> Iterator[str]:
    by_seed: dict[int, list[str]] = defaultdict(list)
    for evidence in entry.held:
        by_seed[evidence.spec.seed].append(evidence.folder.name)
    for seed, names in sorted(by_seed.items()):
        if len(names) > 1:
            yield f"{len(names)} runs have seed {seed}: {', '.join(names)}"
    by_rows: dict[tuple[tuple[float, str, str], ...], list[str]] = defaultdict(list)
    for evidence in entry.held:
        rows = tuple((row.quality, f"{row.train_sec:.5g}", f"{row.eval_sec:.5g}") for row in evidence.epochs)
        by_rows[rows].append(evidence.folder.name)
    for rows, names in by_rows.items():
        if rows and len(names) > 1:
            yield f"{len(names)} runs have the same qualities and times: {', '.join(names)}"


@set_rule(
    "5.2", f"An entry has at least {NUM_RUNS} runs.", source="MLPerf training rules: ResNet 5 runs, detection 5 runs"
)
def runs_are_enough(entry: CheckedSet) -> Iterator[str]:
    if entry.is_whole and entry.num_runs < NUM_RUNS:
        yield f"{entry.num_runs} of {NUM_RUNS} runs"


@set_rule("5.3", "At most one run did not reach the target.", source="MLPerf training rules")
def runs_converge(entry: CheckedSet) -> Iterator[str]:
    unconverged = [evidence.folder.name for evidence in entry.held if not evidence.converged]
    if len(unconverged) > MOST_UNCONVERGED:
        yield f"{len(unconverged)} runs did not reach the target: {', '.join(unconverged)}"


@set_rule(
    "5.4",
    "The runs of an entry share experiment, system, processor, accelerator, data set, Layer 5 and model.",
    source="HPC AI500; MLPerf",
)
def runs_are_alike(entry: CheckedSet) -> Iterator[str]:
    for name, values in _shared(entry.held).items():
        if len(values) > 1:
            yield f"the runs differ in {name}: {', '.join(sorted(values))}"


def _shared(held: Sequence[Evidence]) -> dict[str, set[str]]:
    """What must be equal in all runs of an entry, and the values found."""
    return {
        "experiment": {evidence.spec.experiment_digest[:16] for evidence in held},
        "system": {evidence.spec.system for evidence in held},
        "accelerator": {evidence.result.identity.accelerator for evidence in held},
        "processor": {_processors(evidence.system) for evidence in held},
        "data set": {str(evidence.dataset_digest) for evidence in held},
        "Layer 5": {str(evidence.system.frameworks()) for evidence in held},
        "model": {str(evidence.structure and evidence.structure.parameters_digest) for evidence in held},
    }


def _processors(system: SystemRecord) -> str:
    return " and ".join(sorted({str(kind.layers.get("1", {}).get("cpu_model")) for kind in system.kinds}))
