"""Rules 3.1 to 3.5: all epochs, whole evaluations, the samples and FLOPs of what was trained."""

import json
import math
from collections.abc import Iterator

from hpcai500.errors import HpcAi500Error
from hpcai500.events.payloads import FlopsPerSample
from hpcai500.events.reader import Event, find
from hpcai500.events.typed import payloads
from hpcai500.events.vocabulary import Key
from hpcai500.files import read_json
from hpcai500.score.record.soundness import fault
from hpcai500.score.record.valid_flops import CONVENTION
from hpcai500.score.rules.evidence import Evidence, pairs
from hpcai500.score.rules.rule import CheckedRun, run_rule
from hpcai500.spec.metrics import kind_of

_MOST_PASSES = 3.5
"""Training FLOPs over those of a forward pass: one forward and two backward. The backward pass of fused attention
computes its scores again and needs two and a half. A higher count would include recomputation."""


@run_rule(
    "3.1",
    "All epochs of Layer 9 ran, in order. A run that stops at the target may end at the epoch that reached it.",
    source="HPC AI500 (training epochs belong to Layer 9)",
)
def all_epochs_ran(run: CheckedRun) -> Iterator[str]:
    evidence = run.evidence
    problem = evidence.spec.settings.problem
    numbers = [row.epoch_num for row in evidence.epochs]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"events.log: the epochs are {numbers}, not 1, 2, 3 and so on"
    stops = evidence.spec.stops_at_target
    reached = bool(evidence.epochs) and evidence.epochs[-1].quality >= problem.target_quality
    if len(numbers) != problem.num_epochs and not (stops and reached and len(numbers) < problem.num_epochs):
        yield f"events.log: {len(numbers)} of {problem.num_epochs} epochs"
    begun = {number for number, key in evidence.of_epoch if key == Key.EPOCH_START}
    if len(begun) > len(numbers):
        yield f"events.log: {len(begun)} epochs start, {len(numbers)} are reported"


@run_rule(
    "3.2",
    "Each epoch was evaluated on each sample once, and logs how many samples it evaluated. Its quality is that of "
    "its event, and a possible one. For a metric that counts right answers (`accuracy`, `top-1 accuracy`, "
    "`top-5 accuracy`), it is a whole number of them; a note names a metric that this version does not know. "
    "Predictions (which Extreme Weather keeps) are as many as were logged and name each sample once.",
    source="MLPerf training rules (whole evaluation set)",
)
def evaluations_are_whole(run: CheckedRun) -> Iterator[str]:
    evidence = run.evidence
    problem = evidence.spec.settings.problem
    counts_answers = kind_of(problem.metric) == "right answers"
    for report, (row, events) in zip(evidence.reports, pairs(evidence), strict=True):
        where = f"epoch {row.epoch_num}"
        if any(event.value != row.quality for event in events[Key.EVAL_ACCURACY]):
            yield f"{where}: quality {row.quality:g} is not that of its eval_accuracy"
        if not 0 <= row.quality <= 1:
            yield f"{where}: quality {row.quality:g} is not between 0 and 1"
        evaluated = report.metadata.num_samples
        if evaluated != problem.num_eval_samples and not (evaluated is None and evidence.reference is None):
            shown = "an unknown number" if evaluated is None else f"{evaluated:,}"
            yield f"{where}: {shown} of {problem.num_eval_samples:,} samples were evaluated"
        correct = row.quality * problem.num_eval_samples
        if counts_answers and not math.isclose(correct, round(correct), abs_tol=1e-4):
            yield f"{where}: {row.quality!r} is no whole number of right answers among {problem.num_eval_samples:,}"
    yield from _predictions(evidence)


def _predictions(evidence: Evidence) -> Iterator[str]:
    """Breaches in evaluation.json, if the workload keeps one."""
    path = evidence.folder / "evaluation.json"
    epochs = find(evidence.events, Key.EPOCH)
    logged = evidence.reports[-1].metadata.num_records if epochs and evidence.result.status == "success" else None
    required = _keeps_predictions(evidence)
    if required and logged is None and epochs:
        yield "events.log: the last epoch has no num_records, but this workload keeps its predictions"
    if not path.exists():
        if logged is not None and not _resumed_after(evidence, epochs[-1]):
            yield f"evaluation.json with the {logged!r} predictions of the last evaluation is missing"
        return
    try:
        records = read_json(path)
        num_records = len(records)
        indices = [record["index"] for record in records if isinstance(record, dict) and "index" in record]
    except HpcAi500Error as error:
        yield str(evidence.source.named(error))
        return
    except TypeError as error:
        yield f"evaluation.json: {error}"
        return
    if logged is not None and num_records != logged:
        yield f"evaluation.json holds {num_records:,} predictions, but {logged!r} were logged"
    expected = list(range(evidence.spec.settings.problem.num_eval_samples))
    if (indices or required) and sorted(indices, key=json.dumps) != sorted(expected, key=json.dumps):
        yield "evaluation.json does not name each sample of the evaluation set once"


def _keeps_predictions(evidence: Evidence) -> bool:
    reference, spec = evidence.reference, evidence.spec
    return bool(
        reference
        and reference.known
        and reference.known.keeps_predictions
        and spec.workload.code_digest == reference.code_digest
        and evidence.result.status == "success"
    )


def _resumed_after(evidence: Evidence, event: Event) -> bool:
    """Whether the run was resumed after `event`: predictions that were not yet written are then lost."""
    return any(resumed.time_ms >= event.time_ms for resumed in find(evidence.events, Key.RESUMED))


@run_rule(
    "3.3",
    "Each epoch trained as many whole global batches as the data set fills.",
    source="MLPerf training rules (each sample once an epoch); ours for the tail",
)
def epochs_train_whole_batches(run: CheckedRun) -> Iterator[str]:
    spec = run.evidence.spec
    expected = spec.steps_per_epoch * spec.settings.batch.global_batch_size
    for row in run.evidence.epochs:
        if row.num_samples != expected:
            yield f"epoch {row.epoch_num}: {row.num_samples:,} samples were trained, not {expected:,}"


@run_rule(
    "3.4",
    "FLOPs are the number of samples times the FLOPs of one sample, counted by the named convention. The FLOPs of "
    f"one sample are 1 to {_MOST_PASSES:g} times those of the layers' forward pass, which must be logged. (A "
    "backward pass needs twice the forward's FLOPs, that of fused attention 2.5 times.)",
    source="HPC AI500 (analytic FLOPs, MAC = 2); ours for the bound, which excludes recomputation",
)
def flops_follow_from_samples(run: CheckedRun) -> Iterator[str]:
    evidence = run.evidence
    counted = payloads(evidence.events, FlopsPerSample)
    if len(counted) != 1:
        return  # a breach of rule 1.5
    convention = counted[0].metadata.convention
    if convention != CONVENTION:
        yield f"events.log: FLOPs are counted by {convention!r}, not {CONVENTION!r}"
    per_sample = counted[0].value.mean
    for row in evidence.epochs:
        if not math.isclose(row.flops, row.num_samples * per_sample, rel_tol=1e-9):
            yield f"epoch {row.epoch_num}: {row.flops:g} FLOPs are not its samples times {per_sample:g}"
    structure = evidence.structure
    if structure is None:
        yield "events.log: no FLOPs of layers (hpcai500.model) to compare the FLOPs of a sample with"
    else:
        forward = sum(structure.layer_flops.values())
        if not forward * (1 - 1e-6) <= per_sample <= forward * _MOST_PASSES * (1 + 1e-6):
            yield (
                f"{per_sample:g} FLOPs per sample are not 1 to {_MOST_PASSES:g} times the {forward:g} of the layers' "
                "forward passes"
            )


@run_rule(
    "3.5",
    "The figures are possible and agree with each other: none is negative or beyond any machine, and energy names "
    "its source.",
    source="ours",
)
def figures_are_possible(run: CheckedRun) -> Iterator[str]:
    result = run.evidence.result
    if result.status == "success" and (reason := fault(result)):
        yield f"impossible figures: {reason}"
