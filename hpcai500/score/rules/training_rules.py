"""Rules 3.1 to 3.4: all epochs, whole evaluations, the samples and the FLOPs of what was trained."""

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
from hpcai500.score.rules.evidence import Evidence, Finding, pairs
from hpcai500.spec.metrics import kind_of

_MOST_PASSES = 3.5
"""Of the forward pass's FLOPs in a training step: one forward, two backward; of fused attention, whose backward pass
computes its scores again, two and a half. More would count recomputation."""


def training_findings(evidence: Evidence) -> Iterator[Finding]:
    yield from _epochs(evidence)
    yield from _evaluations(evidence)
    yield from _samples(evidence)
    yield from _flops(evidence)
    if evidence.result.status == "success" and (reason := fault(evidence.result)):
        yield "3.5", f"no run has such figures: {reason}"


def _epochs(evidence: Evidence) -> Iterator[Finding]:
    problem = evidence.spec.settings.problem
    numbers = [row.epoch_num for row in evidence.epochs]
    if numbers != list(range(1, len(numbers) + 1)):
        yield "3.1", f"events.log: the epochs are {numbers}, not 1, 2, 3 and so on"
    stops = evidence.spec.stops_at_target
    reached = bool(evidence.epochs) and evidence.epochs[-1].quality >= problem.target_quality
    if len(numbers) != problem.num_epochs and not (stops and reached and len(numbers) < problem.num_epochs):
        yield "3.1", f"events.log: {len(numbers)} of {problem.num_epochs} epochs"
    begun = {number for number, key in evidence.of_epoch if key == Key.EPOCH_START}
    if len(begun) > len(numbers):
        yield "3.1", f"events.log: {len(begun)} epochs begin, {len(numbers)} are reported"


def _evaluations(evidence: Evidence) -> Iterator[Finding]:
    problem = evidence.spec.settings.problem
    counts_answers = kind_of(problem.metric) == "right answers"
    for report, (row, events) in zip(evidence.reports, pairs(evidence), strict=True):
        where = f"epoch {row.epoch_num}"
        if any(event.value != row.quality for event in events[Key.EVAL_ACCURACY]):
            yield "3.2", f"{where}: quality {row.quality:g} is not that of its eval_accuracy"
        if not 0 <= row.quality <= 1:
            yield "3.2", f"{where}: quality {row.quality:g} is no fraction"
        evaluated = report.metadata.num_samples
        if evaluated != problem.num_eval_samples and not (evaluated is None and evidence.reference is None):
            shown = "an untold number" if evaluated is None else f"{evaluated:,}"
            yield "3.2", f"{where}: {shown} of {problem.num_eval_samples:,} samples were evaluated"
        correct = row.quality * problem.num_eval_samples
        if counts_answers and not math.isclose(correct, round(correct), abs_tol=1e-4):
            yield "3.2", f"{where}: no number of right answers among {problem.num_eval_samples:,} is {row.quality!r}"
    yield from _predictions(evidence)


def _predictions(evidence: Evidence) -> Iterator[Finding]:
    """evaluation.json, where a workload keeps one, names each sample of the evaluation set once."""
    path = evidence.folder / "evaluation.json"
    epochs = find(evidence.events, Key.EPOCH)
    logged = evidence.reports[-1].metadata.num_records if epochs and evidence.result.status == "success" else None
    required = _keeps_predictions(evidence)
    if required and logged is None and epochs:
        yield "3.2", "events.log: the last epoch has no num_records, and this workload keeps its predictions"
    if not path.exists():
        if logged is not None and not _resumed_after(evidence, epochs[-1]):
            yield "3.2", f"evaluation.json with the {logged!r} predictions of the last evaluation is missing"
        return
    try:
        records = read_json(path)
        num_records = len(records)
        indices = [record["index"] for record in records if isinstance(record, dict) and "index" in record]
    except HpcAi500Error as error:
        yield "3.2", str(evidence.source.named(error))
        return
    except TypeError as error:
        yield "3.2", f"evaluation.json: {error}"
        return
    if logged is not None and num_records != logged:
        yield "3.2", f"evaluation.json holds {num_records:,} predictions, and {logged!r} were logged"
    expected = list(range(evidence.spec.settings.problem.num_eval_samples))
    if (indices or required) and sorted(indices, key=json.dumps) != sorted(expected, key=json.dumps):
        yield "3.2", "evaluation.json does not name each sample of the evaluation set once"


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
    """Predictions that nobody had written yet when the run was stopped are lost."""
    return any(resumed.time_ms >= event.time_ms for resumed in find(evidence.events, Key.RESUMED))


def _samples(evidence: Evidence) -> Iterator[Finding]:
    spec = evidence.spec
    expected = spec.steps_per_epoch * spec.settings.batch.global_batch_size
    for row in evidence.epochs:
        if row.num_samples != expected:
            yield "3.3", f"epoch {row.epoch_num}: {row.num_samples:,} samples were trained, not {expected:,}"


def _flops(evidence: Evidence) -> Iterator[Finding]:
    counted = payloads(evidence.events, FlopsPerSample)
    if len(counted) != 1:
        return  # rule 1.5 says so
    convention = counted[0].metadata.convention
    if convention != CONVENTION:
        yield "3.4", f"events.log: FLOPs are counted by {convention!r}, not {CONVENTION!r}"
    per_sample = counted[0].value.mean
    for row in evidence.epochs:
        if not math.isclose(row.flops, row.num_samples * per_sample, rel_tol=1e-9):
            yield "3.4", f"epoch {row.epoch_num}: {row.flops:g} FLOPs are not its samples times {per_sample:g}"
    structure = evidence.structure
    if structure is None:
        yield "3.4", "events.log: no layers (hpcai500.model) that the count of FLOPs could be held against"
    else:
        forward = sum(structure.layer_flops.values())
        if not forward * (1 - 1e-6) <= per_sample <= forward * _MOST_PASSES * (1 + 1e-6):
            yield (
                "3.4",
                f"{per_sample:g} FLOPs a sample lie outside one to {_MOST_PASSES:g} times the {forward:g} of the "
                "layers' forward passes",
            )
