"""Micro-benchmarks as text: a table for each part."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from tabulate import tabulate

from hpcai500.micro.document import MicroDocument
from hpcai500.micro.sample import Sample
from hpcai500.report.ranking.columns import quantity
from hpcai500.text import si

_AIBENCH = "aibench"
"""Family of AIBench's kernels; each of their names begins with it."""
_WIDEST_NAME, _WIDEST_DETAIL = 29, 45


def micro_text(document: MicroDocument) -> str:
    """Tables of up to 100 columns, one per part; then what was not measured, and wrong results."""
    ranks = f", {document.num_ranks} ranks of {document.backend} by {document.launcher}" if document.backend else ""
    lines = [f"{document.host}: {document.accelerator}, {document.device}, {document.num_threads} threads{ranks}"]
    titles = dict(_shapes_titles(document))
    for title, samples in groupby(document.samples, lambda sample: _section(sample, titles)):
        lines += ["", title, _table(list(samples))]
    if document.skipped:
        lines += ["", "not measured:", *(f"  {each.name}: {each.reason}" for each in document.skipped)]
    if document.samples:
        lines += [
            "",
            "±: half the distance between the quartiles. Bytes of kernels are those read and those written.",
        ]
    wrong = [sample.metric for sample in document.samples if not sample.correct]
    return "\n".join([*lines, *(f"WRONG RESULT: {metric}" for metric in wrong)])


def _shapes_titles(document: MicroDocument) -> Iterator[tuple[str, str]]:
    """Pairs of a metric and the title of its table: the workload, and the share of a pass that the shapes cover."""
    for found in document.coverages:
        title = (
            f"{found.workload} {found.problem} {found.precision}, {found.num_samples} samples a batch: "
            f"the {len(found.shapes)} heaviest of {found.num_shapes} shapes,\n"
            f"{found.share:.0%} of the {si(found.pass_flops)}FLOPs of a forward and backward pass"
        )
        yield from ((shape.metric, title) for shape in found.shapes)
        yield found.together, title


def _section(sample: Sample, titles: Mapping[str, str]) -> str:
    if sample.part == "workloads":
        return titles[sample.metric]
    return "AIBench's twelve kernels" if sample.family == _AIBENCH else sample.part.capitalize()


def _table(samples: Sequence[Sample]) -> str:
    rows = []
    for sample in samples:
        half = (sample.upper_quartile - sample.lower_quartile) / 2 / sample.value
        wrong = f"WRONG: {sample.detail[7 - _WIDEST_DETAIL :]}"
        name = sample.name.removeprefix(f"{_AIBENCH} ")
        rows.append(
            (
                f"{name} {sample.precision}".strip()[:_WIDEST_NAME],
                _value(sample),
                f"±{half:.0%}",
                sample.num_repeats,
                sample.detail[:_WIDEST_DETAIL] if sample.correct else wrong,
            )
        )
    align = ("left", "right", "right", "right", "left")
    return tabulate(rows, ("", "median", "±", "n", "of"), tablefmt="simple", colalign=align)


def _value(sample: Sample) -> str:
    if sample.unit == "s":
        return f"{sample.value * 1e6:,.1f} us"
    if sample.unit == "1/s":
        return f"{sample.value:.4g} /s"
    return quantity(sample.value, sample.unit)
