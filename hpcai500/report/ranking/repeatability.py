"""Repeatability as text: for each entry, what varies between seeds, and what is unusual."""

from collections.abc import Sequence

from hpcai500.report.ranking.columns import compliance, interval, number, percent, span
from hpcai500.report.ranking.lines import Row
from hpcai500.report.ranking.terminal import not_ranked_parts, title_lines
from hpcai500.report.width import indented, padded_table
from hpcai500.score.ranking.repeatability import Figure, Repeatability
from hpcai500.score.record.reading import NotRanked
from hpcai500.text import counted, si

LEGEND = (
    "runs: how many have the figure. One that never reached the target counts as longer than it ran.\n"
    "std dev: with n - 1. CV: standard deviation / mean. by t, by bootstrap: 95 % intervals of the mean.\n"
    "±5%: how many runs are needed for a 95 % interval within 5 % of the mean, these included."
)


def repeatability_text(
    reports: Sequence[Repeatability], left_out: Sequence[NotRanked], *, is_narrow: bool = False
) -> str:
    """For each entry, the mean, spread and 95 % intervals of its figures, and what is unusual."""
    parts = [_report_text(report, is_narrow) for report in reports]
    if reports:
        parts.append(LEGEND)
    parts += not_ranked_parts(left_out)
    return "\n\n".join(parts) or "No ranked runs."


def _report_text(report: Repeatability, is_narrow: bool) -> str:
    entry = report.entry
    seeds = ", ".join(str(seed) for seed in entry.seeds)
    title = (
        f"{report.title}, {report.problem} problem, {report.level} level: {entry.system}, "
        f"{counted(entry.world_size, 'rank')}, {entry.backend}, {entry.precision}; seeds {seeds}"
        + (f"; {compliance(entry)}" if entry.unverified else "")
    )
    headings = ("figure", "runs", "mean", "median", "std dev", "CV", "by t", "by bootstrap", "±5%")
    table = padded_table(headings, [_figure_row(figure) for figure in report.figures])
    return "\n".join([title_lines(title, is_narrow), table, *indented(_remarks(report), is_narrow)])


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
