"""Rules 1.2 to 2.3: the files of a run belong together, are unaltered, and their clock is one."""

import math
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from hpcai500.errors import HpcAi500Error
from hpcai500.events import payloads, typed
from hpcai500.events.payloads import AT_LEAST_ONCE, ONCE_AN_EPOCH, EpochEvent
from hpcai500.events.reader import Event, find, first
from hpcai500.events.typed import Payload
from hpcai500.events.vocabulary import Key
from hpcai500.score.record.manifest import MANIFEST, altered
from hpcai500.score.rules.evidence import Evidence, Finding, pairs, stored_result
from hpcai500.score.rules.kind import CrossCheck, Kind

_SLACK_SEC, _SLACK = 0.5, 0.02
"""Between a clock read by the loop and the event beside it: a write to a shared file system, and rounding."""
_CLOCK_MS = 1_000
"""Between a program's clock and that of whoever ran it."""


def record_findings(evidence: Evidence, kind: Kind) -> Iterator[Finding]:
    yield from _unaltered(evidence)
    yield from _one_run(evidence, kind)
    yield from _result_follows(evidence)
    yield from _keys(evidence, kind.once)
    yield from kind.record_findings()
    yield from (("1.7", f"never ranked: {reason}") for reason in evidence.result.unranked)
    yield from _clock(evidence)
    yield from _seconds(evidence)
    yield from _timed(evidence)


def _unaltered(evidence: Evidence) -> Iterator[Finding]:
    if evidence.result.status != "success" and not (evidence.folder / MANIFEST).exists():
        return  # a run that did not end well seals nothing, and rule 1.7 says so
    try:
        yield from (("1.2", line) for line in altered(evidence.folder))
    except HpcAi500Error as error:
        yield "1.2", f"cannot be told: {evidence.source.named(error)}"


def _one_run(evidence: Evidence, kind: Kind) -> Iterator[Finding]:
    for name, logged, expected in (*_cross_checks(evidence), *kind.cross_checks()):
        if not same(logged, expected):
            yield "1.3", f"{name} is {shortened(logged)}, which run.json makes {shortened(expected)}"
    system, events = evidence.system, evidence.events
    held = {"structure": (system.layer(7).get("structure"), evidence.value(Key.MODEL))}
    held["data set"] = (system.layer(9).get("data"), evidence.value(Key.DATASET))
    for name, (captured, logged) in held.items():
        if first(events, Key.MODEL) and system.layers and captured != logged:
            yield "1.3", f"system.json's {name} is not that of events.log"


def _cross_checks(evidence: Evidence) -> Iterator[CrossCheck]:
    """What stands in the log or system.json, and what it must be by run.json, whoever trained the run."""
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


def logged_values(events: list[Event], form: type[Payload], expected: Any) -> Iterator[CrossCheck]:
    """Each value of one key in the log, or None if there is none, beside the one expected."""
    for found in [event.value for event in typed.payloads(events, form)] or [None]:
        yield f"events.log: {form.key.value}", found, expected


def shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def same(left: Any, right: Any) -> bool:
    """Equal, floats up to rounding."""
    if isinstance(left, float) and isinstance(right, int | float):
        return math.isclose(left, right, rel_tol=1e-9)
    return bool(left == right)


def _result_follows(evidence: Evidence) -> Iterator[Finding]:
    try:
        stored = stored_result(evidence.folder)
    except HpcAi500Error as error:
        yield "1.4", str(evidence.source.named(error))
        return
    derived = evidence.result.model_dump(mode="json")
    if not isinstance(stored, dict):
        yield "1.4", "result.json holds no record"
        return
    for key in sorted({*stored, *derived}):
        if _without_nulls(stored.get(key)) != _without_nulls(derived.get(key)):
            yield "1.4", f"result.json: {key} is not what the other files give; derive it again, or restore them"


def _without_nulls(value: Any) -> Any:
    """A record without the keys that say nothing, which an older one may lack."""
    if isinstance(value, dict):
        return {key: _without_nulls(held) for key, held in value.items() if held is not None}
    return [_without_nulls(held) for held in value] if isinstance(value, list) else value


def _keys(evidence: Evidence, once: tuple[Key, ...]) -> Iterator[Finding]:
    counts = Counter(event.key for event in evidence.events)
    for key in once:
        if counts[key] != 1:
            yield "1.5", f"events.log: {key.value} stands {counts[key]} times, not once"
    for key in AT_LEAST_ONCE:
        if not counts[key]:
            yield "1.5", f"events.log: {key.value} is missing"
    for row, events in pairs(evidence):
        for key, found in events.items():
            if len(found) != 1:
                yield "1.5", f"events.log: {key.value} of epoch {row.epoch_num} stands {len(found)} times, not once"


_ORDER = (Key.EPOCH_START, Key.EPOCH_STOP, Key.EVAL_START, Key.EVAL_STOP)


def _sequence(evidence: Evidence) -> Iterator[Finding]:
    """One epoch after the other, each trained before it is evaluated."""
    at = {place: events[-1].time_ms for place, events in evidence.of_epoch.items()}
    known = [(number, key) for number in range(1, len(evidence.epochs) + 1) for key in _ORDER if (number, key) in at]
    for (before, earlier), (number, later) in pairwise(known):
        if at[number, later] < at[before, earlier]:
            yield (
                "2.2",
                f"events.log: {later} of epoch {number} stands before {earlier} of epoch {before}",
            )


def _clock(evidence: Evidence) -> Iterator[Finding]:
    for earlier, later in pairwise(evidence.events):
        if later.time_ms < earlier.time_ms:
            yield (
                "2.1",
                f"events.log: {later.key} is {(earlier.time_ms - later.time_ms) / 1e3:g} s before {earlier.key}",
            )
    start, stop = first(evidence.events, Key.RUN_START), first(evidence.events, Key.RUN_STOP)
    inside = (*ONCE_AN_EPOCH, Key.EPOCH)
    for event in evidence.events:
        if event.key in inside and start and not _between(start, event, stop):
            number = typed.parsed(event, EpochEvent).metadata.epoch_num
            yield "2.2", f"events.log: {event.key} of epoch {number} lies outside the run"
    yield from _sequence(evidence)
    ready = first(evidence.events, Key.INIT_STOP)
    if ready and start and ready.time_ms > start.time_ms:
        yield "2.2", "events.log: run_start stands before init_stop"
    begun = first(evidence.events, Key.INIT_START)
    if ready and begun and begun.time_ms > ready.time_ms:
        yield "2.2", "events.log: init_stop stands before init_start"


def _timed(evidence: Evidence) -> Iterator[Finding]:
    """The program's clock beside that of whoever ran it."""
    timing, start, stop = evidence.timing, first(evidence.events, Key.RUN_START), first(evidence.events, Key.RUN_STOP)
    if timing is None or start is None or stop is None:
        return
    outside = [
        event
        for event in evidence.events
        if not timing.started_ms - _CLOCK_MS <= event.time_ms <= timing.ended_ms + _CLOCK_MS
    ]
    if outside:
        yield (
            "2.4",
            f"events.log: {len(outside)} events are from before or after the program ran, first {outside[0].key}",
        )
    if timing.run_start_ms is None or timing.run_stop_ms is None:
        yield "2.4", "timing.json: run_start or run_stop never came"
        return
    claimed = (stop.time_ms - start.time_ms) / 1_000
    passed = (timing.run_stop_ms - timing.run_start_ms) / 1_000
    if abs(claimed - passed) > _SLACK_SEC + _SLACK * max(claimed, passed):
        yield (
            "2.4",
            f"the program's clock says {claimed:g} s from run_start to run_stop, and {passed:g} s passed between the "
            "two lines (does it flush each?)",
        )


def _between(start: Event, event: Event, stop: Event | None) -> bool:
    return start.time_ms <= event.time_ms and (stop is None or event.time_ms <= stop.time_ms)


def _seconds(evidence: Evidence) -> Iterator[Finding]:
    """Down time inside an epoch is in its events and not in its seconds."""
    resumed = find(evidence.events, Key.RESUMED)
    for row, events in pairs(evidence):
        if (row.data_wait_sec or 0) > row.train_sec * (1 + _SLACK) + _SLACK_SEC:
            yield (
                "2.3",
                f"epoch {row.epoch_num}: data_wait_sec is {row.data_wait_sec:g}, of {row.train_sec:g} s in all",
            )
        if any(len(found) != 1 for found in events.values()):
            continue  # rule 1.5 says so
        for name, seconds, first_key, last_key in (
            ("train_sec", row.train_sec, Key.EPOCH_START, Key.EPOCH_STOP),
            ("eval_sec", row.eval_sec, Key.EVAL_START, Key.EVAL_STOP),
        ):
            start, stop = events[first_key][0], events[last_key][0]
            between = (stop.time_ms - start.time_ms) / 1_000
            slack = _SLACK_SEC + _SLACK * between
            interrupted = any(start.time_ms <= event.time_ms <= stop.time_ms for event in resumed)
            if seconds > between + slack or (seconds < between - slack and not interrupted):
                yield (
                    "2.3",
                    f"epoch {row.epoch_num}: {name} is {seconds:g} s, and {between:g} s lie between its events",
                )
