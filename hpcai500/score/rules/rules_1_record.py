"""Rules 1.1 to 1.7: the files of a run belong together, are unaltered, and describe a run that may be ranked."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from hpcai500.errors import HpcAi500Error
from hpcai500.events import payloads
from hpcai500.events.payloads import AT_LEAST_ONCE
from hpcai500.events.reader import first
from hpcai500.events.typed import Payload
from hpcai500.events.vocabulary import Key
from hpcai500.score.record.manifest import MANIFEST, altered
from hpcai500.score.rules.evidence import Evidence, pairs, stored_result
from hpcai500.score.rules.rule import CheckedRun, Unreadable, file_rule, run_rule
from hpcai500.score.rules.values import CrossCheck, logged_values, same, shortened
from hpcai500.spec.workload import MOST_FLOP_BATCHES


@file_rule(
    "1.1",
    "`run.json`, `events.log` and `system.json` exist and can be read.",
    source="ours: files that cannot be read prove nothing",
)
def files_can_be_read(run: Unreadable) -> Iterator[str]:
    yield run.reason


@run_rule(
    "1.2",
    "Every file has the SHA-256 that `manifest.json` recorded when the run ended.",
    source="ours; MLPerf reviews logs by hand",
)
def files_are_unaltered(run: CheckedRun) -> Iterator[str]:
    evidence = run.evidence
    if evidence.result.status != "success" and not (evidence.folder / MANIFEST).exists():
        return  # a failed run writes no manifest, and breaches rule 1.7
    try:
        yield from altered(evidence.folder)
    except HpcAi500Error as error:
        yield f"cannot be checked: {evidence.source.named(error)}"


@run_rule(
    "1.3",
    "All files describe the same run. Identity, seed, sizes and hyper-parameters in the log and in `system.json` are "
    "those of `run.json`, whose digest is computed again. The number of nodes and the Layer 6 of each are those that "
    "`run.json` asks for. One of the nodes has the torch that the log names.",
    source="MLPerf training rules (the log is the result); ours for the rest",
)
def files_describe_one_run(run: CheckedRun) -> Iterator[str]:
    evidence = run.evidence
    for name, found, expected in (*_cross_checks(evidence), *run.kind.cross_checks()):
        if not same(found, expected):
            yield f"{name} is {shortened(found)}; by run.json it is {shortened(expected)}"
    system, events = evidence.system, evidence.events
    held = {"structure": (system.layer(7).get("structure"), evidence.value(Key.MODEL))}
    held["data set"] = (system.layer(9).get("data"), evidence.value(Key.DATASET))
    for name, (captured, logged) in held.items():
        if first(events, Key.MODEL) and system.layers and captured != logged:
            yield f"system.json's {name} is not that of events.log"
    yield from run.kind.identity_faults()


def _cross_checks(evidence: Evidence) -> Iterator[CrossCheck]:
    """Values of the log or system.json that follow from run.json, whoever trained the run."""
    spec, settings, system = evidence.spec, evidence.spec.settings, evidence.system
    logged: tuple[tuple[type[Payload], Any], ...] = (
        (payloads.Seed, spec.seed),
        (payloads.SubmissionPlatform, spec.system),
        (payloads.SubmissionDivision, spec.level.division),
        (payloads.SubmissionBenchmark, spec.workload.benchmark),
        (payloads.TrainSamples, settings.problem.num_train_samples),
        (payloads.EvalSamples, settings.problem.num_eval_samples),
        (payloads.GlobalBatchSize, settings.batch.global_batch_size),
        (payloads.OptBaseLearningRate, spec.peak_learning_rate),
        (payloads.OptLearningRateWarmupEpochs, settings.schedule.warmup_epochs),
        (payloads.OptWeightDecay, settings.optimizer.weight_decay),
    )
    for form, value in logged:
        yield from logged_values(evidence.events, form, value)
    programming = {
        "world_size": spec.world_size,
        "precision": settings.execution.precision,
        "backend": spec.backend,
    }
    for group in system.nodes:
        held = group.layers.get("6", {})
        for name, expected in programming.items():
            yield f"system.json: Layer 6 of {', '.join(group.hosts)[:80]}, {name}", held.get(name), expected
    if system.layers:
        code_digest = system.layer(7).get("code_digest")
        yield "system.json: Layer 7, code_digest", code_digest, spec.workload.code_digest
        nine = {key: value for key, value in system.layer(9).items() if key != "data"}
        yield "system.json: Layer 9", nine, settings.problem.model_dump(mode="json")


@run_rule(
    "1.4",
    "`result.json` is what the other files give.",
    source="ours: a result must follow from its evidence",
)
def result_follows_from_the_files(run: CheckedRun) -> Iterator[str]:
    evidence = run.evidence
    try:
        stored = stored_result(evidence.folder)
    except HpcAi500Error as error:
        yield str(evidence.source.named(error))
        return
    derived = evidence.result.model_dump(mode="json")
    if not isinstance(stored, dict):
        yield "result.json holds no record"
        return
    for key in sorted({*stored, *derived}):
        if _without_nulls(stored.get(key)) != _without_nulls(derived.get(key)):
            yield f"result.json: {key} is not what the other files give; derive it again, or restore them"


def _without_nulls(value: Any) -> Any:
    """A record without keys that are null, which an older record may lack."""
    if isinstance(value, dict):
        return {key: _without_nulls(held) for key, held in value.items() if held is not None}
    return [_without_nulls(held) for held in value] if isinstance(value, list) else value


@run_rule(
    "1.5",
    "Official keys occur exactly once, at least once, or in pairs, as the log format requires.",
    source="MLPerf logging, compliance checker",
)
def keys_occur_as_required(run: CheckedRun) -> Iterator[str]:
    counts = Counter(event.key for event in run.evidence.events)
    for key in run.kind.once:
        if counts[key] != 1:
            yield f"events.log: {key.value} occurs {counts[key]} times, not once"
    for key in AT_LEAST_ONCE:
        if not counts[key]:
            yield f"events.log: {key.value} is missing"
    for row, events in pairs(run.evidence):
        for key, found in events.items():
            if len(found) != 1:
                yield f"events.log: {key.value} of epoch {row.epoch_num} occurs {len(found)} times, not once"


@run_rule(
    "1.6",
    "`overrides` lists exactly the values that differ from `workload.toml`.",
    source="HPC AI500 (changes are disclosed)",
)
def overrides_are_disclosed(run: CheckedRun) -> Iterator[str]:
    return run.kind.override_faults()


@run_rule(
    "1.7",
    "The run is not a trial, used no synthetic data, did not start from another run's checkpoint, and ended in "
    f"success. Before its clock started it read at most {MOST_FLOP_BATCHES} batches, to count FLOPs.",
    source="ours; MLPerf: training from scratch",
)
def may_be_ranked(run: CheckedRun) -> Iterator[str]:
    yield from (f"never ranked: {reason}" for reason in run.evidence.result.unranked)
    yield from run.kind.early_read_faults()
