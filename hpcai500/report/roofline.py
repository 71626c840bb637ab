"""A roofline as a table and as a plot."""

import textwrap

import tabulate

from hpcai500.micro.roofline_model import Ceilings, Roofline, RooflinePoint, roof
from hpcai500.report.plot import Line, log_log
from hpcai500.report.ranking.columns import number, percent, quantity

_WIDTH = 100


def roofline_text(found: Roofline) -> str:
    """At most 100 columns."""
    ceilings = found.ceilings
    lines = [f"{ceilings.host}: {ceilings.accelerator}, {ceilings.device}; ceilings: {ceilings.source}", ""]
    lines += [_ceilings_table(ceilings), ""]
    if found.points:
        lines += [_points_table(found), ""]
    for placed in found.points:
        sentence = f"{_name(placed)} ({placed.point.source}): {placed.sentence}."
        lines += textwrap.wrap(sentence, _WIDTH, subsequent_indent="  ")
    others = dict.fromkeys(placed.point.accelerator for placed in found.points)
    for other in (each for each in others if each not in ("", ceilings.accelerator)):
        note = (
            f"NOTE: some results are of {other}, the ceilings of {ceilings.accelerator}: measure the ceilings there."
        )
        lines += textwrap.wrap(note, _WIDTH, subsequent_indent="  ")
    lines += [
        "",
        "FLOPs/B: from unfused (traffic of every operator) to fused (of products and convolutions only).",
    ]
    lines += ["roof: the attainable FLOPS at that intensity. x2: a run of 2 ranks."]
    return "\n".join(lines)


def _ceilings_table(ceilings: Ceilings) -> str:
    rows = [
        (
            precision,
            quantity(ceilings.gemm.get(precision), "FLOPS") if precision in ceilings.gemm else "-",
            quantity(ceilings.convolution.get(precision), "FLOPS") if precision in ceilings.convolution else "-",
            number(ceilings.peak(precision) / ceilings.memory_bytes_per_sec, 3),
        )
        for precision in dict.fromkeys((*ceilings.gemm, *ceilings.convolution))
    ]
    table = tabulate.tabulate(rows, ("precision", "GEMM", "convolution", "ridge FLOPs/B"), tablefmt="simple")
    return f"{table}\nmemory     {quantity(ceilings.memory_bytes_per_sec, 'B/s')}"


def _points_table(found: Roofline) -> str:
    rows = [
        (
            _name(placed),
            quantity(placed.point.flops, "FLOPS"),
            f"{number(placed.point.low_intensity, 3)} to {number(placed.point.high_intensity, 3)}",
            _span(placed),
            percent(placed.point.flops / placed.peak_flops, 1),
        )
        for placed in found.points
    ]
    headings = ("workload", "achieved", "FLOPs/B", "roof", "of peak")
    return tabulate.tabulate(rows, headings, tablefmt="simple")


def _name(placed: RooflinePoint) -> str:
    ranks = placed.point.num_ranks
    return f"{placed.point.name} {placed.point.precision}" + (f" x{ranks}" if ranks > 1 else "")


def _span(placed: RooflinePoint) -> str:
    low, high = quantity(placed.low_roof_flops, "FLOPS"), quantity(placed.high_roof_flops, "FLOPS")
    return low if low == high else f"{low} to {high}"


def roofline_plot(found: Roofline) -> str:
    """SVG: a roof per precision of the points, each point a bar from its unfused to its fused intensity."""
    ceilings, bandwidth = found.ceilings, found.ceilings.memory_bytes_per_sec
    points = [placed.point for placed in found.points]
    precisions = list(dict.fromkeys(point.precision for point in points)) or list(ceilings.convolution)
    ridges = [ceilings.peak(precision) / bandwidth for precision in precisions]
    lowest = min([point.low_intensity for point in points] + ridges) / 3
    highest = max([point.high_intensity for point in points] + ridges) * 3
    lines = []
    for precision, ridge in zip(precisions, ridges, strict=True):
        peak = ceilings.peak(precision)
        corners = [(x, roof(x, peak, bandwidth)) for x in (lowest, ridge, highest)]
        lines.append(Line(f"{precision} roof: {quantity(peak, 'FLOPS')}", corners, has_markers=False))
        if peak > (gemm := ceilings.gemm.get(precision, peak)):
            level = [(gemm / bandwidth, gemm), (highest, gemm)]
            name = f"{precision} GEMM: {quantity(gemm, 'FLOPS')}"
            lines.append(Line(name, level, is_dashed=True, has_markers=False, shares_colour=True))
    for placed in found.points:
        bar = [(x, placed.point.flops) for x in (placed.point.low_intensity, placed.point.high_intensity)]
        lines.append(Line(f"{_name(placed)}: {quantity(placed.point.flops, 'FLOPS')}", bar))
    return log_log(
        f"Roofline of {ceilings.accelerator}",
        "Arithmetic intensity (FLOPs per byte)",
        "FLOPS of one device",
        lines,
        note=f"memory {quantity(bandwidth, 'B/s')}; a workload's bar reaches from unfused to fused traffic",
        legend_above=True,
    )
