"""The report as one HTML file that needs nothing else: no network, no server, works from disk."""

from markupsafe import Markup, escape

from hpcai500 import __version__
from hpcai500.report.templates import Filters, render_page
from hpcai500.report.validation.document import severities, stages, summary
from hpcai500.report.validation.page_data import page_data
from hpcai500.report.validation.text import plain
from hpcai500.text import figure, share
from hpcai500.validate.judge.merging import subject_text
from hpcai500.validate.judge.verdict import Report

_MOST_FINDINGS = 500


def report_page(report: Report) -> str:
    """All text of nodes is escaped by Jinja or set as text by the script; characters that XML forbids are `?`."""
    filters: Filters = {"plain": plain, "subject": subject_text, "figure": figure, "share": share, "code": _code}
    return render_page(
        "validation",
        filters,
        styles=("common.css", "validation.css"),
        version=__version__,
        data=page_data(report),
        verdict=report.verdict,
        plan=report.plan,
        severities=severities(report),
        findings=report.findings[:_MOST_FINDINGS],
        num_more=max(0, len(report.findings) - _MOST_FINDINGS),
        stages=stages(report),
        metrics=[summary(series) for series in report.series.values() if not series.is_text],
        remarks=report.remarks,
    )


def _code(text: str) -> Markup:
    """What stands between backticks as code."""
    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 else part for index, part in enumerate(parts)
    )
