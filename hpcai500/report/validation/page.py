"""A validation's report as one HTML file that needs no network and no server."""

from markupsafe import Markup, escape

from hpcai500 import __version__
from hpcai500.report.templates import Filters, render_page
from hpcai500.report.validation.document import severities, stages, summary
from hpcai500.report.validation.page_data import page_data
from hpcai500.report.validation.text import plain
from hpcai500.text import figure, share
from hpcai500.validate.judge.assessment import Assessment
from hpcai500.validate.judge.merging import subject_text

_MOST_FINDINGS = 500


def report_page(assessment: Assessment) -> str:
    """The page. Jinja escapes text from nodes, or the script sets it as text, without characters that XML forbids."""
    filters: Filters = {"plain": plain, "subject": subject_text, "figure": figure, "share": share, "code": _code}
    return render_page(
        "validation",
        filters,
        styles=("common.css", "validation.css"),
        version=__version__,
        data=page_data(assessment),
        verdict=assessment.verdict,
        plan=assessment.plan,
        severities=severities(assessment),
        findings=assessment.findings[:_MOST_FINDINGS],
        num_more=max(0, len(assessment.findings) - _MOST_FINDINGS),
        stages=stages(assessment),
        metrics=[summary(series) for series in assessment.series.values() if not series.is_text],
        remarks=assessment.remarks,
    )


def _code(text: str) -> Markup:
    """`text` as HTML, with the parts between backticks as code."""
    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 else part for index, part in enumerate(parts)
    )
