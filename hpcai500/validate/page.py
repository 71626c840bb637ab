"""The report as one HTML file that needs nothing else: no network, no server, works from disk."""

from importlib.resources import files

import jinja2
from markupsafe import Markup, escape

from hpcai500 import __version__
from hpcai500.validate.document import severities, stages, summary
from hpcai500.validate.figures import figure, share
from hpcai500.validate.merging import subject_text
from hpcai500.validate.page_data import page_data
from hpcai500.validate.text import plain
from hpcai500.validate.verdict import Report

_MOST_FINDINGS = 500


def report_page(report: Report) -> str:
    """All text of nodes is escaped by Jinja or set as text by the script; characters that XML forbids are `?`."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"plain": plain, "subject": subject_text, "figure": figure, "share": share, "code": _code}
    return environment.from_string(_web("hpcai500.validate", "report.html.j2")).render(
        version=__version__,
        style=_web("hpcai500.report", "page.css") + _web("hpcai500.validate", "report.css"),
        script=_web("hpcai500.validate", "report.js"),
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


def _web(package: str, name: str) -> str:
    return (files(package) / "web" / name).read_text(encoding="utf-8")
