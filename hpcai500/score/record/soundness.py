"""Whether a result's figures are possible: within bounds, printable, and free of contradictions."""

import math
from collections.abc import Iterator
from itertools import chain
from typing import Any

from hpcai500.score.record.limits import (
    LONGEST_TEXT,
    MOST_EXPONENT,
    MOST_FIGURE,
    MOST_INTEGER,
    MOST_OVERRIDES,
    MOST_RANKS,
    MOST_VFLOPS,
)
from hpcai500.score.record.result import Result
from hpcai500.score.record.valid_flops import valid_flops

_CLOSE = 1e-6
_CLOCK_SHARE, _CLOCK_SEC = 0.01, 1.0
"""Largest difference between the clocks of epochs and of the whole run."""

NOT_PRINTABLE = f"longer than {LONGEST_TEXT} characters, or not printable"


def fault(result: Result) -> str | None:
    """The contradiction in a finished result; None if there is none."""
    return bound_fault(result) or next(_contradictions(result), None)


def bound_fault(result: Result) -> str | None:
    """The first figure of a finished result that is out of bounds, or text that is not printable."""
    return identity_fault(result) or next(_out_of_bounds(result), None)


def identity_fault(result: Result) -> str | None:
    identity = result.identity
    for name, text in vars(identity).items():
        if isinstance(text, str) and not is_printable(text):
            return f"identity.{name}: {NOT_PRINTABLE}"
        if isinstance(text, int) and abs(text) >= MOST_INTEGER:
            return f"identity.{name}: out of range"
    if (
        min(identity.nodes, identity.world_size) < 1
        or identity.world_size > MOST_RANKS
        or not identity.system.strip()
    ):
        return "identity: nodes and world_size must be 1 or more, and system must not be empty"
    return None


def is_printable(text: str) -> bool:
    return len(text) <= LONGEST_TEXT and text.isprintable()


def _out_of_bounds(result: Result) -> Iterator[str]:
    if result.score is None or result.time is None or result.flops is None or not result.epochs:
        yield "no score, or no epochs that it could follow from"
        return
    yield from _text_faults(result)
    yield from _bound_faults(result)


def _contradictions(result: Result) -> Iterator[str]:
    yield from _score_faults(result)
    yield from _epoch_faults(result)
    yield from _time_faults(result)


def _text_faults(result: Result) -> Iterator[str]:
    assert result.score is not None
    if not is_printable(result.score.metric):
        yield f"score.metric: {NOT_PRINTABLE}"
    if len(result.overrides) > MOST_OVERRIDES:
        yield f"overrides: more than {MOST_OVERRIDES}"
    elif not all(is_printable(f"{key}={value}") for key, value in result.overrides.items()):
        yield f"overrides: {NOT_PRINTABLE}"


def _bound_faults(result: Result) -> Iterator[str]:
    score, time, flops = result.score, result.time, result.flops
    assert score is not None
    assert time is not None
    assert flops is not None
    if not 1 <= score.penalty_exponent <= MOST_EXPONENT:
        yield f"score.penalty_exponent: not from 1 to {MOST_EXPONENT}"
    parts = {"num_epochs", "time", "flops", "energy", "score", "interruptions", "epochs"}
    if not _is_bounded(result):
        for name, value in _numbers(result.model_dump(include=parts)):
            if not abs(value) < MOST_FIGURE:
                yield f"{name}: {_shown(value)} is out of range"
    positive = {
        "time.total_sec": time.total_sec, "flops.flops": flops.flops,
        "score.target_quality": score.target_quality, "score.time_to_quality_sec": score.time_to_quality_sec,
        "score.epochs_to_quality": score.epochs_to_quality,
    }  # fmt: skip
    for name, figure in positive.items():
        if figure is not None and figure <= 0:
            yield f"{name}: {_shown(figure)} is out of range"


def _is_bounded(result: Result) -> bool:
    """Whether all numbers are within bounds; fast, since there may be a million epochs and hardly ever a fault."""
    records = (result.time, result.flops, result.energy, result.score, *result.interruptions)
    values = chain.from_iterable(vars(record).values() for record in records if record)
    numbers = [value for value in values if isinstance(value, int | float)]
    # An epoch holds only numbers and nulls; zeros and nulls are within any bound.
    numbers += filter(None, chain.from_iterable(map(dict.values, map(vars, result.epochs))))
    numbers.append(result.num_epochs)
    return max(numbers) < MOST_FIGURE and min(numbers) > -MOST_FIGURE


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _numbers(inner, name)
    elif isinstance(value, int | float):
        yield name, value


def _shown(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) or abs(value) < MOST_FIGURE else "so large an integer"


def _score_faults(result: Result) -> Iterator[str]:
    score, time, flops, energy = result.score, result.time, result.flops, result.energy
    assert score is not None
    assert time is not None
    assert flops is not None
    if not 0 <= score.achieved_quality <= 1 or score.target_quality > 1:
        yield "score: qualities must lie between 0 and 1"
    ratio = score.achieved_quality / score.target_quality
    if ratio > 1 and math.log10(flops.flops) + MOST_EXPONENT * math.log10(ratio) > math.log10(MOST_VFLOPS):
        yield "score.target_quality: so low that VFLOPS overflow"
    expected = valid_flops(flops.flops, score.achieved_quality, score.target_quality, score.penalty_exponent)
    if not math.isclose(expected, score.vflops, rel_tol=_CLOSE):
        yield f"score.vflops: {score.vflops:g} is not FLOPS * (achieved / target) ** n, which is {expected:g}"
    if not math.isclose(flops.total / time.total_sec, flops.flops, rel_tol=_CLOSE):
        yield "flops.flops: not flops.total over time.total_sec"
    joules = energy.joules if energy else None
    if joules is not None and joules <= 0:
        yield "energy.joules: not above 0"
    watts = joules / time.total_sec if joules else None
    per_watt = score.vflops / watts if watts else None
    if score.vflops_per_watt is not None and (
        per_watt is None or not math.isclose(per_watt, score.vflops_per_watt, rel_tol=_CLOSE)
    ):
        yield "score.vflops_per_watt: not VFLOPS over energy.joules / time.total_sec"


def _epoch_faults(result: Result) -> Iterator[str]:
    score, epochs = result.score, result.epochs
    assert score is not None
    assert result.flops is not None
    if [epoch.epoch_num for epoch in epochs] != list(range(1, len(epochs) + 1)) or len(epochs) > result.num_epochs:
        yield f"epochs: not numbered from 1 to {result.num_epochs} at most"
    if not all(0 <= epoch.quality <= 1 for epoch in epochs):
        yield "epochs: qualities must lie between 0 and 1"
    if any(epoch.flops > 0 and epoch.train_sec <= 0 for epoch in epochs):
        yield "epochs: one trained in no time"
    if not math.isclose(epochs[-1].quality, score.achieved_quality, rel_tol=_CLOSE):
        yield "score.achieved_quality: not that of the last epoch"
    reached = next((epoch.epoch_num for epoch in epochs if epoch.quality >= score.target_quality), None)
    if reached != score.epochs_to_quality:
        yield f"score.epochs_to_quality: {score.epochs_to_quality}, but the epochs reach the target in {reached}"
    if (score.time_to_quality_sec is None) != (reached is None):
        yield "score.time_to_quality_sec: does not fit score.epochs_to_quality"
    if not math.isclose(math.fsum(epoch.flops for epoch in epochs), result.flops.total, rel_tol=_CLOSE):
        yield "flops.total: not the sum of the epochs'"


def _time_faults(result: Result) -> Iterator[str]:
    score, time, epochs = result.score, result.time, result.epochs
    assert score is not None
    assert time is not None
    times = [time.train_sec, time.eval_sec, time.init_sec, time.warm_up_sec]
    times += [sec for epoch in epochs for sec in (epoch.train_sec, epoch.eval_sec)]
    times += [sec for stop in result.interruptions for sec in (stop.down_sec, stop.lost_sec)]
    if min(times) < 0:
        yield "time: a part of it is negative"
    spent = [epoch.train_sec + epoch.eval_sec for epoch in epochs]
    slack = _CLOCK_SHARE * time.total_sec + _CLOCK_SEC
    if max(math.fsum(spent), time.train_sec + time.eval_sec) > time.total_sec + slack:
        yield "time.total_sec: less than its epochs took"
    if math.fsum(stop.down_sec + stop.lost_sec for stop in result.interruptions) > time.total_sec + slack:
        yield "time.total_sec: less than its interruptions took"
    to_quality = score.time_to_quality_sec
    if to_quality is not None and to_quality > time.total_sec * (1 + _CLOSE):
        yield "score.time_to_quality_sec: more than time.total_sec"
    if to_quality is not None and to_quality < math.fsum(spent[: score.epochs_to_quality]) - slack:
        yield "score.time_to_quality_sec: less than the epochs until then took"
