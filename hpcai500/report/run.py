"""One run as text, its curves as lines of blocks."""

from collections.abc import Sequence
from itertools import pairwise

from hpcai500.report.ranking.columns import number, percent, quantity
from hpcai500.score.record.result import Result, Time
from hpcai500.text import printable, si

_BLOCKS = "▁▂▃▄▅▆▇█"
_WIDEST = 60


def run_text(result: Result) -> str:
    """At most 100 columns, except for names; what the run lacks is left out or named as missing."""
    identity = result.identity
    lines = [
        f"{identity.title}, {identity.problem} problem, {identity.level} level, seed {identity.seed}: "
        f"{result.status}",
        f"  system    {identity.system}, {identity.world_size} x {identity.accelerator}, {identity.nodes} node(s), "
        f"{identity.backend}, {identity.precision}",
    ]
    if result.overrides:
        lines.append("  settings  " + ", ".join(f"{key}={value}" for key, value in result.overrides.items()))
    if result.unranked or result.failure:
        lines.append("  unranked  " + ", ".join((*result.unranked, *([result.failure] if result.failure else []))))
    lines += _score_lines(result)
    if result.time:
        lines.append(_time_line(result.time))
    lines += _wait_lines(result)
    lines += [
        f"  stopped   before epoch {stop.epoch}: {number(stop.down_sec)} s down, {number(stop.lost_sec)} s repeated"
        for stop in result.interruptions
    ]
    lines += _curve_lines(result)
    return "\n".join(printable(line) for line in lines)


def _score_lines(result: Result) -> list[str]:
    score, flops, energy = result.score, result.flops, result.energy
    lines = []
    if score and flops:
        lines.append(
            f"  VFLOPS    {si(score.vflops)} = {quantity(flops.flops, 'FLOPS')} * "
            f"({score.achieved_quality:.4g} / {score.target_quality:g}) ** {score.penalty_exponent}"
        )
        reached = "never reached"
        if score.epochs_to_quality:
            reached = f"reached in {score.epochs_to_quality} epochs, {number(score.time_to_quality_sec)} s"
        lines.append(
            f"  quality   {score.metric} {score.achieved_quality:.4g}, target {score.target_quality:g} {reached}"
        )
    if energy:
        watts = f", {quantity(score.vflops_per_watt, 'VFLOPS/W')}" if score and score.vflops_per_watt else ""
        known = f"{quantity(energy.joules, 'J')}{watts}" if energy.joules is not None else "not measured: "
        lines.append(f"  energy    {known}{', '.join(energy.missing) if energy.joules is None else ''}")
    return lines


def _time_line(time: Time) -> str:
    def part(seconds: float) -> str:
        return f"{number(seconds)} s ({percent(seconds / time.total_sec if time.total_sec else 0.0, 0)})"

    return (
        f"  time      {number(time.total_sec)} s: training {part(time.train_sec)}, evaluation {part(time.eval_sec)}; "
        f"start-up {number(time.init_sec)} s"
    )


def _wait_lines(result: Result) -> list[str]:
    """How long training waited for data; nothing if the record lacks it."""
    waits = [epoch.data_wait_sec for epoch in result.epochs]
    known = [wait for wait in waits if wait is not None]
    if not known or len(known) < len(waits):
        return []
    shares = [wait / (epoch.train_sec or 1.0) for wait, epoch in zip(known, result.epochs, strict=True)]
    training = sum(epoch.train_sec for epoch in result.epochs) or 1.0
    return [
        f"  input     training waited {number(sum(known))} s for data ({percent(sum(known) / training)}; "
        f"at most {percent(max(shares))} of an epoch)"
    ]


def _curve_lines(result: Result) -> list[str]:
    epochs = result.epochs
    if not epochs:
        return ["  no epoch has ended"]
    rates = [epoch.flops / (epoch.train_sec or 1.0) for epoch in epochs]
    curves = [
        ("loss", [epoch.train_loss for epoch in epochs], number, ""),
        ("quality", [epoch.quality for epoch in epochs], number, ""),
        ("FLOPS", rates, si, ", while training"),
    ]
    return [f"  {len(epochs)} of {result.num_epochs} epochs"] + [
        f"  {name:<8}  {sparkline(values)}  {text(values[0])} to {text(values[-1])}{note}"
        for name, values, text, note in curves
    ]


def sparkline(values: Sequence[float]) -> str:
    """One block per value, or per mean of neighbours if there are more than 60; from the lowest to the highest."""
    if len(values) > _WIDEST:
        edges = [round(step * len(values) / _WIDEST) for step in range(_WIDEST + 1)]
        values = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(values), max(values)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((value - low) * scale)] for value in values)
