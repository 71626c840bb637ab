"""Rankings and repeatability as text: a terminal's table, Markdown."""

import re
from collections.abc import Iterable, Sequence

import tabulate

from hpcai500.report.ranking.columns import (
    columns,
    compliance,
    half_width,
    interruptions,
    interval,
    list_title,
    number,
    of_runs,
    percent,
    rank_text,
    ranked_by,
    reached,
    span,
)
from hpcai500.report.width import folded, padded_table, width
from hpcai500.score.ranking.published import PublishedRankedList
from hpcai500.score.ranking.ranking import By, Entry, RankedList
from hpcai500.score.ranking.repeatability import Figure, Repeatability
from hpcai500.score.ranking.scaling import ScalingSeries, Sensitivity
from hpcai500.score.record.reading import LeftOut
from hpcai500.text import counted, si

Row = Sequence[str]

HEADINGS = (
    "#", "system", "ranks", "backend", "reached", "quality", "VFLOPS", "±", "FLOPS", "TTQ s", "epochs", "CV"
)  # fmt: skip
PUBLISHED_HEADINGS = (
    "#", "source", "accelerators", "framework", "minutes", "quality", "VFLOPS", "published", "ours/published"
)  # fmt: skip
LEGEND = (
    "#: a range where the runs cannot decide the order at 95 %. reached: runs that reached the target,\n"
    "of all. VFLOPS ±: half the 95 % interval of the mean. TTQ: time to quality. CV: standard deviation\n"
    "over mean of epochs to quality. Means are over the runs that have the figure."
)
REPEATABILITY_LEGEND = (
    "runs: those that have the figure, of all; one that never reached the target is censored at its end.\n"
    "std dev: n - 1. CV: standard deviation over mean. by t, by bootstrap: 95 % intervals of the mean.\n"
    "±5%: runs in all that a 95 % interval within 5 % of the mean takes."
)
_WIDTH = 100
_WIDEST_NAME, _NARROWEST_NAME = 20, 14
_SPARED = ("CV", "FLOPS", "epochs", "framework")
"""What gives way, in this order, where names would get too little of a terminal's 100 columns."""
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|&~])")
_MARKDOWN_START = re.compile(r"^(\d*)([#+=.)-])")


def entry_row(entry: Entry) -> Row:
    return (
        rank_text(entry),
        entry.system,
        str(entry.world_size),
        f"{entry.backend} {entry.precision}",
        reached(entry),
        number(entry.quality.mean),
        si(entry.vflops.mean),
        half_width(entry.vflops),
        si(entry.flops.mean),
        number(entry.time_to_quality_sec.mean),
        number(entry.epochs_to_quality.mean),
        percent(entry.epochs_to_quality.coefficient_of_variation, 1),
    )


def published_row(listed: PublishedRankedList, position: int) -> Row:
    entry = listed.entries[position]
    return (
        str(entry.rank),
        f"{entry.source} ({entry.published_rank})" + (" *" if entry.is_suspect else ""),
        f"{entry.accelerator_count} {entry.accelerator}",
        entry.framework,
        f"{entry.time_sec / 60:g}",
        f"{entry.achieved_quality:.3f}",
        si(entry.vflops),
        si(entry.published_vflops),
        f"{entry.ratio:.3f}",
    )


def published_title(ranked: PublishedRankedList) -> str:
    return (
        f"{ranked.title}; {ranked.problem} problem, {ranked.level} level, target {ranked.target_quality:g}, "
        f"n = {ranked.penalty_exponent}"
    )


def published_notes(listed: PublishedRankedList) -> list[str]:
    notes = [f"{listed.status.capitalize()}. VFLOPS recomputed from minutes and quality: {listed.convention}."]
    return notes + ([f"* {listed.note}"] if listed.note else [])


def ranking_text(
    lists: Sequence[RankedList],
    published: Sequence[PublishedRankedList],
    left_out: Sequence[LeftOut],
    *,
    is_narrow: bool = False,
) -> str:
    """For a terminal; with `is_narrow` long names are broken into lines, so that tables keep to 100 columns."""
    parts = [_list_text(ranked, is_narrow) for ranked in lists]
    for listed in published:
        rows = [published_row(listed, position) for position in range(len(listed.entries))]
        table = _table(PUBLISHED_HEADINGS, rows, is_narrow)
        names = [entry.source for entry in listed.entries]
        moves = _sensitivity(listed.sensitivity, names, is_narrow)
        parts.append(
            "\n".join(
                [
                    _title(published_title(listed), is_narrow),
                    table,
                    *_indented(published_notes(listed), is_narrow),
                    *moves,
                ]
            )
        )
    if lists:
        parts.append(LEGEND)
    if left_out:
        lines = [f"  {item.path}: {item.reason}" for item in left_out]
        parts.append("\n".join([f"Not ranked ({len(left_out)}):", *lines]))
    return "\n\n".join(parts) or "Nothing to rank."


def _list_text(ranked: RankedList, is_narrow: bool) -> str:
    table = _table(HEADINGS, [entry_row(entry) for entry in ranked.entries], is_narrow)
    names = [f"{entry.system} {entry.world_size}" for entry in ranked.entries]
    return "\n".join([
        _title(list_title(ranked), is_narrow),
        table,
        *_indented((entry_note(entry, ranked.by) for entry in ranked.entries), is_narrow),
        *_indented(scaling_lines(ranked.scaling), is_narrow),
        *_sensitivity(ranked.sensitivity, names, is_narrow),
    ])  # fmt: skip


def _title(text: str, is_narrow: bool) -> str:
    return "\n".join(folded(text, _WIDTH)) if is_narrow else text


def _indented(lines: Iterable[str], is_narrow: bool = False) -> list[str]:
    if is_narrow:
        return ["\n".join(folded(line, _WIDTH, first="  ", others="    ")) for line in lines]
    return [f"  {line}" for line in lines]


def entry_note(entry: Entry, by: By = "vflops") -> str:
    """What the table has no room for."""
    nodes = f" on {entry.nodes} nodes" if entry.nodes > 1 else ""
    parts = [
        f"{rank_text(entry)} {entry.system}: {entry.world_size} x {entry.accelerator}{nodes}, "
        f"{si(entry.vflops_per_accelerator)} VFLOPS each"
    ]
    parts += [found for found in [ranked_by(entry, by)] if found]
    if entry.vflops_per_watt.mean is not None and by != "vflops_per_watt":
        few = of_runs(entry, entry.vflops_per_watt)
        parts.append(f"{si(entry.vflops_per_watt.mean)} VFLOPS/W{f' ({few})' if few else ''}")
    if entry.not_placed:
        parts.append(f"no rank: {entry.not_placed}")
    if entry.num_breaches is not None or entry.unverified:
        parts.append(compliance(entry))
    if entry.num_diverged:
        parts.append(f"{entry.num_diverged} diverged")
    parts += [found for found in [interruptions(entry)] if found]
    return "; ".join([*parts, *([", ".join(entry.overrides)] if entry.overrides else [])])


def scaling_lines(every: Sequence[ScalingSeries]) -> list[str]:
    return [scaling_line(series) for series in every]


def scaling_line(series: ScalingSeries) -> str:
    batch = {
        "strong": f"global batch {series.batch_size}", "weak": f"{number(series.batch_size)} samples a rank",
        "unknown": "batch unknown",
    }[series.kind]  # fmt: skip
    has_twins = len({point.world_size for point in series.points}) < len(series.points)
    points = ", ".join(
        counted(point.world_size, "rank")
        + (f" on {counted(point.nodes, 'node')}" if has_twins else "")
        + f" {point.speed_up:.2f}x ({point.efficiency:.0%})"
        for point in series.points
    )
    of = ", ".join((series.backend, series.precision, batch, *series.settings))
    return f"{series.kind} scaling of {series.system} ({of}): {points}"


def _sensitivity(found: Sensitivity | None, names: Sequence[str], is_narrow: bool) -> list[str]:
    if found is None:
        return []
    width = max((len(str(rank)) for ranks in found.ranks for rank in ranks), default=1)
    step = (_WIDTH - _WIDEST_NAME) // (max(width, 2) + 2) if is_narrow else len(found.exponents)
    tables = []
    for start in range(0, len(found.exponents), step):
        part = slice(start, start + step)
        headings = ("rank at n =", *(str(exponent) for exponent in found.exponents[part]))
        rows = [(name, *(str(rank) for rank in ranks[part])) for name, ranks in zip(names, found.ranks, strict=True)]
        tables += ["", _table(headings, rows, is_narrow, name_column=0)]
    return tables


def ranking_markdown(
    lists: Sequence[RankedList], published: Sequence[PublishedRankedList], left_out: Sequence[LeftOut]
) -> str:
    """Every column; what names hold is escaped."""
    parts = []
    for ranked in lists:
        shown = columns(ranked.by)
        headings = [*(column.heading for column in shown), "accelerator", "settings"]
        rows = [
            [*(column.text(e) for column in shown), e.accelerator, ", ".join(e.overrides) or "-"]
            for e in ranked.entries
        ]
        notes = [f"{e.system}: {found}" for e in ranked.entries if (found := ranked_by(e, ranked.by))]
        notes += [f"{e.system}: no rank: {e.not_placed}" for e in ranked.entries if e.not_placed]
        notes += [f"{e.system}: {found}" for e in ranked.entries if (found := interruptions(e))]
        names = [f"{e.system} {e.world_size}" for e in ranked.entries]
        parts += [f"## {_escaped(list_title(ranked))}", _markdown(headings, rows)]
        parts += [_paragraph(f"{note}.") for note in (*notes, *scaling_lines(ranked.scaling))]
        parts += _markdown_sensitivity(ranked.sensitivity, names)
    for listed in published:
        rows = [list(published_row(listed, position)) for position in range(len(listed.entries))]
        parts += [f"## {_escaped(published_title(listed))}", _markdown(PUBLISHED_HEADINGS, rows)]
        parts += [_paragraph(note) for note in published_notes(listed)]
        parts += _markdown_sensitivity(listed.sensitivity, [entry.source for entry in listed.entries])
    if left_out:
        lines = "\n".join(f"- {_escaped(item.path)}: {_escaped(item.reason)}" for item in left_out)
        parts += [f"## Not ranked ({len(left_out)})", lines]
    return "\n\n".join(parts) or "Nothing to rank."


def _markdown_sensitivity(found: Sensitivity | None, names: Sequence[str]) -> list[str]:
    if found is None:
        return []
    rows = [[name, *(str(rank) for rank in ranks)] for name, ranks in zip(names, found.ranks, strict=True)]
    return [_markdown(["rank at n =", *(str(exponent) for exponent in found.exponents)], rows)]


def _escaped(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", text)


def _paragraph(text: str) -> str:
    """`text`, which is neither a heading nor a list, whatever it begins with."""
    return _MARKDOWN_START.sub(r"\1\\\2", _escaped(text.lstrip()))


def _markdown(headings: Row, rows: Sequence[Row]) -> str:
    escaped = [[_escaped(cell) for cell in row] for row in rows]
    return tabulate.tabulate(escaped, [_escaped(h) for h in headings], tablefmt="pipe", disable_numparse=True)


def repeatability_text(
    reports: Sequence[Repeatability], left_out: Sequence[LeftOut], *, is_narrow: bool = False
) -> str:
    """For each entry: mean, spread and 95 % intervals of what varies between seeds, and what is odd."""
    parts = [_report_text(report, is_narrow) for report in reports]
    if reports:
        parts.append(REPEATABILITY_LEGEND)
    if left_out:
        lines = [f"  {item.path}: {item.reason}" for item in left_out]
        parts.append("\n".join([f"Not ranked ({len(left_out)}):", *lines]))
    return "\n\n".join(parts) or "No ranked runs."


def _report_text(report: Repeatability, is_narrow: bool) -> str:
    entry = report.entry
    seeds = ", ".join(str(seed) for seed in entry.seeds)
    title = (
        f"{report.title}, {report.problem} problem, {report.level} level: {entry.system}, "
        f"{entry.world_size} ranks, {entry.backend}, {entry.precision}; seeds {seeds}"
        + (f"; {compliance(entry)}" if entry.unverified else "")
    )
    headings = ("figure", "runs", "mean", "median", "std dev", "CV", "by t", "by bootstrap", "±5%")
    table = _table(headings, [_figure_row(figure) for figure in report.figures], is_narrow=False)
    return "\n".join([_title(title, is_narrow), table, *_indented(_remarks(report), is_narrow)])


def _figure_row(figure: Figure) -> Row:
    summary = figure.summary
    return (
        figure.name,
        str(figure.num_all) if summary.num_runs == figure.num_all else f"{summary.num_runs} of {figure.num_all}",
        si(summary.mean),
        si(summary.median),
        si(summary.standard_deviation),
        percent(summary.coefficient_of_variation),
        interval(summary),
        span(summary.bootstrap_low, summary.bootstrap_high),
        "-" if figure.runs_needed is None else str(figure.runs_needed),
    )


def _remarks(report: Repeatability) -> list[str]:
    entry = report.entry
    if entry.mlperf_time_sec is not None:
        lines = [f"MLPerf score, fastest and slowest dropped: {number(entry.mlperf_time_sec)} s to quality"]
    else:
        few = len(entry.seeds) + entry.num_diverged < 3
        lines = [f"no MLPerf score: {'fewer than three runs' if few else 'several runs never reached the target'}"]
    lines += [
        f"outlier: seed {o.seed}, {o.figure} {si(o.value)}, {abs(o.score):.1f} modified deviations "
        f"{'above' if o.score > 0 else 'below'} the median: {o.reason}"
        for o in report.outliers
    ]
    for pair in report.same_seed:
        same = "bit-identical" if pair.first_difference is None else (
            f"differ from epoch {pair.first_difference} on, losses by up to {pair.largest_difference:.2g}"
        )  # fmt: skip
        lines.append(f"seed {pair.seed} twice, {same}: {pair.first} and {pair.second}")
    if found := report.reference:
        verdict = "not faster than the reference allows" if found.is_plausible else "FASTER than the reference allows"
        runs = f"{found.num_reference_runs} reference runs"
        lines.append(f"converges {verdict}: p = {found.p_value:.3g} against {runs} (one-sided, epochs to quality)")
    return lines


def _table(headings: Row, rows: Sequence[Row], is_narrow: bool, name_column: int = 1) -> str:
    """With `is_narrow` the names get what the other columns leave of 100; where that is little, some give way."""
    if not is_narrow:
        return padded_table(headings, rows)
    widths = [max(map(width, column)) for column in zip(headings, *rows, strict=True)]
    needed = min(_NARROWEST_NAME, widths[name_column])
    kept = list(range(len(headings)))

    def room() -> int:
        return _WIDTH - sum(widths[column] + 2 for column in kept if column != name_column)

    spared = [heading for heading in _SPARED if heading in headings]
    left_out = []
    while room() < needed and spared:
        left_out.append(spared.pop(0))
        kept.remove(headings.index(left_out[-1]))
    name_width = max(needed, min(_WIDEST_NAME, room()))
    table = padded_table(
        [headings[column] for column in kept],
        [[row[column] for column in kept] for row in rows],
        {kept.index(name_column): name_width},
    )
    return f"{table}\n  no room for {', '.join(left_out)}: --format md has every column" if left_out else table
