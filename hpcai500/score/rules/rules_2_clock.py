"""Rules 2.1 to 2.4: a run has one clock, and it agrees with everything else that was timed."""

from collections.abc import Iterator
from itertools import pairwise

from hpcai500.events import typed
from hpcai500.events.payloads import ONCE_AN_EPOCH, EpochEvent
from hpcai500.events.reader import Event, find, first
from hpcai500.events.vocabulary import Key
from hpcai500.score.rules.evidence import Evidence, pairs
from hpcai500.score.rules.rule import CheckedRun, run_rule

_SLACK_SEC, _SLACK = 0.5, 0.02
"""Tolerance between the loop's clock and the event next to it: a write to a shared file system, and rounding."""
_CLOCK_MS = 1_000
"""Tolerance between a program's clock and that of the process that ran it."""
_ORDER = (Key.EPOCH_START, Key.EPOCH_STOP, Key.EVAL_START, Key.EVAL_STOP)


@run_rule("2.1", "Time stamps never go backwards.", source="MLPerf logging")
def clock_never_goes_backwards(run: CheckedRun) -> Iterator[str]:
    for earlier, later in pairwise(run.evidence.events):
        if later.time_ms < earlier.time_ms:
            yield f"events.log: {later.key} is {(earlier.time_ms - later.time_ms) / 1e3:g} s before {earlier.key}"


@run_rule(
    "2.2",
    "`init_stop` comes before `run_start`. All epochs and evaluations lie between `run_start` and `run_stop`, one "
    "after the other.",
    source="MLPerf training rules: the clock runs from the first touch of the data, evaluation inside",
)
def events_are_in_order(run: CheckedRun) -> Iterator[str]:
    events = run.evidence.events
    start, stop = first(events, Key.RUN_START), first(events, Key.RUN_STOP)
    inside = (*ONCE_AN_EPOCH, Key.EPOCH)
    for event in events:
        if event.key in inside and start and not _between(start, event, stop):
            number = typed.parsed(event, EpochEvent).metadata.epoch_num
            yield f"events.log: {event.key} of epoch {number} lies outside the run"
    yield from _sequence(run.evidence)
    ready = first(events, Key.INIT_STOP)
    if ready and start and ready.time_ms > start.time_ms:
        yield "events.log: run_start comes before init_stop"
    begun = first(events, Key.INIT_START)
    if ready and begun and begun.time_ms > ready.time_ms:
        yield "events.log: init_stop comes before init_start"


def _between(start: Event, event: Event, stop: Event | None) -> bool:
    return start.time_ms <= event.time_ms and (stop is None or event.time_ms <= stop.time_ms)


def _sequence(evidence: Evidence) -> Iterator[str]:
    """One epoch after the other, each trained before it is evaluated."""
    at = {which: events[-1].time_ms for which, events in evidence.of_epoch.items()}
    known = [(number, key) for number in range(1, len(evidence.epochs) + 1) for key in _ORDER if (number, key) in at]
    for (before, earlier), (number, later) in pairwise(known):
        if at[number, later] < at[before, earlier]:
            yield f"events.log: {later} of epoch {number} comes before {earlier} of epoch {before}"


@run_rule(
    "2.3",
    f"Each epoch's seconds are those between its events, within {_SLACK_SEC:g} s and {100 * _SLACK:g} %.",
    source="ours: two clocks must agree",
)
def epoch_seconds_match_their_events(run: CheckedRun) -> Iterator[str]:
    resumed = find(run.evidence.events, Key.RESUMED)
    for row, events in pairs(run.evidence):
        if (row.data_wait_sec or 0) > row.train_sec * (1 + _SLACK) + _SLACK_SEC:
            yield f"epoch {row.epoch_num}: data_wait_sec is {row.data_wait_sec:g}, above train_sec, {row.train_sec:g}"
        if any(len(found) != 1 for found in events.values()):
            continue  # a breach of rule 1.5
        for name, seconds, first_key, last_key in (
            ("train_sec", row.train_sec, Key.EPOCH_START, Key.EPOCH_STOP),
            ("eval_sec", row.eval_sec, Key.EVAL_START, Key.EVAL_STOP),
        ):
            start, stop = events[first_key][0], events[last_key][0]
            between = (stop.time_ms - start.time_ms) / 1_000
            slack = _SLACK_SEC + _SLACK * between
            # Time that an interrupted run was down lies between the events, but is not in the seconds.
            interrupted = any(start.time_ms <= event.time_ms <= stop.time_ms for event in resumed)
            if seconds > between + slack or (seconds < between - slack and not interrupted):
                yield f"epoch {row.epoch_num}: {name} is {seconds:g} s, but its events are {between:g} s apart"


@run_rule(
    "2.4",
    "For a foreign program that `ingest --run` timed: its events lie within the time that it ran, within "
    f"{_CLOCK_MS / 1_000:g} s. The time from `run_start` to `run_stop` by its clock is that between their lines by "
    f"ours, within {_SLACK_SEC:g} s and {100 * _SLACK:g} %.",
    source="ours: a foreign clock could be wrong",
)
def foreign_clock_matches_ours(run: CheckedRun) -> Iterator[str]:
    events, timing = run.evidence.events, run.evidence.timing
    start, stop = first(events, Key.RUN_START), first(events, Key.RUN_STOP)
    if timing is None or start is None or stop is None:
        return
    outside = [
        event for event in events if not timing.started_ms - _CLOCK_MS <= event.time_ms <= timing.ended_ms + _CLOCK_MS
    ]
    if outside:
        yield f"events.log: {len(outside)} events are from before or after the program ran, first {outside[0].key}"
    if timing.run_start_ms is None or timing.run_stop_ms is None:
        yield "timing.json: the line of run_start or run_stop never came"
        return
    claimed = (stop.time_ms - start.time_ms) / 1_000
    passed = (timing.run_stop_ms - timing.run_start_ms) / 1_000
    if abs(claimed - passed) > _SLACK_SEC + _SLACK * max(claimed, passed):
        yield (
            f"{claimed:g} s from run_start to run_stop by the program's clock, but {passed:g} s between the two "
            "lines by ours (does it flush each line?)"
        )
