"""A prediction as a table and as a plot."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from hpcai500.predict.communication import Link
from hpcai500.predict.network import NetworkBand
from hpcai500.predict.prediction import Band, Check, Point, Prediction
from hpcai500.predict.step_model import NO_LIMIT
from hpcai500.report.plot import Line, log_log
from hpcai500.report.ranking.columns import percent
from hpcai500.report.width import padded_table
from hpcai500.text import counted, si

_TITLE = "PREDICTION, not a measurement; it never enters a ranking"


class _Column(NamedTuple):
    heading: str
    text: Callable[[Point], str]


def duration(sec: float) -> str:
    """`3d`, `5.2h`, `40ms`: in the unit that suits."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        if sec >= (2 * length if unit != "s" else 1):
            return f"{sec / length:.3g}{unit}"
    return f"{sec * 1e3:.3g}ms"


def half_band(band: Band) -> str:
    """`-8+12%`: how far the band reaches below and above."""
    return f"{100 * (band.low / band.likely - 1):+.0f}{100 * (band.high / band.likely - 1):+.0f}%"


_COLUMNS = (
    _Column("nodes", lambda p: f"{p.nodes:,}"),
    _Column("ranks", lambda p: f"{p.num_ranks:,}"),
    _Column("batch", lambda p: str(p.global_batch_size)),
    _Column("step", lambda p: duration(p.step_sec.likely)),
    _Column("compute", lambda p: duration(p.compute_sec)),
    _Column("exposed", lambda p: duration(p.exposed_sec) if p.exposed_sec else "0"),
    _Column("samples/s", lambda p: si(p.samples_per_sec.likely)),
    _Column("eff.", lambda p: percent(p.efficiency.likely, 0)),
    _Column("total", lambda p: duration(p.total_sec.likely)),
    _Column("FLOPS", lambda p: si(p.flops.likely)),
    _Column("VFLOPS", lambda p: ("<" if p.vflops_is_upper_bound else "") + si(p.vflops.likely)),
    _Column("band", lambda p: half_band(p.flops)),
)


def prediction_text(prediction: Prediction) -> str:
    """For a terminal, at most 100 columns wide."""
    rows = [[column.text(point) for column in _COLUMNS] for point in prediction.points]
    table = padded_table([column.heading for column in _COLUMNS], rows, is_right=True)
    return "\n".join([_TITLE, _heading(prediction), "", table, "", *_notes(prediction)])


def prediction_plot(prediction: Prediction) -> str:
    """FLOPS and VFLOPS over ranks, with the band of uncertainty, as SVG."""
    points = prediction.points
    first = points[0]
    ideal = first.flops.likely / first.efficiency.likely / first.num_ranks
    lines = [
        Line("FLOPS, with its band", *_curve(points, lambda point: point.flops)),
        Line("VFLOPS", [(p.num_ranks, p.vflops.likely) for p in points if not p.vflops_is_upper_bound]),
        Line(
            "VFLOPS, upper bound: the batch leaves the known range",
            [(p.num_ranks, p.vflops.likely) for p in points if p.vflops_is_upper_bound], is_dashed=True,
        ),
        Line(
            "perfect scaling of FLOPS", [(p.num_ranks, ideal * p.num_ranks) for p in points],
            is_dashed=True, has_markers=False,
        ),
    ]  # fmt: skip
    title = f"{prediction.title}, {prediction.problem}: prediction for {prediction.system}"
    measured = counted(prediction.calibrated_ranks, "measured rank")
    note = f"From {measured}; not a measurement. {prediction.accelerator}"
    return log_log(title, "ranks", "FLOPS", [line for line in lines if line.points], note=note)


def _curve(
    points: Sequence[Point], band_of: Callable[[Point], Band]
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    bands = [band_of(point) for point in points]
    return (
        [(point.num_ranks, band.likely) for point, band in zip(points, bands, strict=True)],
        [(band.low, band.high) for band in bands],
    )


def _heading(prediction: Prediction) -> str:
    return (
        f"{prediction.title}, {prediction.problem} problem on {prediction.system}: {prediction.backend} "
        f"{prediction.precision}, {counted(prediction.ranks_per_node, 'rank')} per node, {prediction.scaling} scaling"
    )


def _notes(prediction: Prediction) -> list[str]:
    notes = [
        "exposed: communication that the backward pass does not hide. band: lowest and highest FLOPS.",
        "eff.: speed per rank over that of one rank alone. <: at most; the batch is beyond those known to train.",
        f"from {duration(prediction.measured_step_sec)} per step measured on "
        f"{counted(prediction.calibrated_ranks, 'rank')}, spread {percent(prediction.spread, 1)}",
        *_network_notes(prediction.network),
    ]
    for note in dict.fromkeys(point.note for point in prediction.points if point.note):
        those = [f"{point.nodes:,}" for point in prediction.points if point.note == note]
        shown = f"{those[0]} to {those[-1]}" if len(those) > 1 else those[0]
        notes.append(f"{shown} node{'' if shown == '1' else 's'}: {note}")
    notes += [f"impossible: {reason}" for reason in prediction.impossible]
    notes += [_check(check) for check in prediction.checks]
    notes += [f"left out: {reason}" for reason in prediction.left_out]
    return notes + list(prediction.assumptions)


def _check(check: Check) -> str:
    size = f"{counted(check.nodes, 'node')}, {counted(check.num_ranks, 'rank')}"
    step = f"step {duration(check.predicted_sec)}, measured {duration(check.measured_sec)}"
    total = f"total {duration(check.predicted_total_sec)}, measured {duration(check.measured_total_sec)}"
    flops = f"FLOPS {si(check.predicted_flops)}, measured {si(check.measured_flops)}"
    if check.is_calibrated:
        return f"calibrated: {size}: {step}; {total}; {flops}"
    return f"check: {size}: {step}, error {check.error:+.1%}; {total}; {flops}"


def _network_notes(network: NetworkBand) -> list[str]:
    fast, likely, slow = network.fast, network.likely, network.slow

    def text(name: str, source: str, link: Link | None, slow: Link | None, fast: Link | None) -> str:
        if link is None or slow is None or fast is None:
            return f"link {name}: {source}"
        speeds = [number.bytes_per_sec / 1e9 for number in (link, slow, fast)]
        delays = [number.latency_sec * 1e6 for number in (link, fast, slow)]
        most = f"{speeds[2]:.3g}" if fast.bytes_per_sec < 0.99 * NO_LIMIT else "no limit"
        figures = (
            f"{speeds[0]:.3g} GB/s ({speeds[1]:.3g} to {most}), "
            f"{delays[0]:.3g} us ({delays[1]:.3g} to {delays[2]:.3g})"
        )
        return f"link {name}: {figures}: {source}"

    return [
        text("between nodes", network.between_source, likely.between, slow.between, fast.between),
        text("within a node", network.within_source, likely.within, slow.within, fast.within),
    ]
