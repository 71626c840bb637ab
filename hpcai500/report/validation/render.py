"""A report in the format that was asked for."""

from collections.abc import Callable

from hpcai500.errors import SpecError, nearest
from hpcai500.report.validation.document import report_document
from hpcai500.report.validation.page import report_page
from hpcai500.report.validation.text import report_junit, report_text
from hpcai500.validate.judge.verdict import Report

_RENDERERS: dict[str, Callable[[Report, int], str]] = {
    "text": report_text,
    "json": lambda report, width: report_document(report).model_dump_json(indent=2),
    "junit": lambda report, width: report_junit(report),
    "html": lambda report, width: report_page(report),
}
"""Each takes the report and the columns of a terminal. A new format is a line here."""

FORMATS = tuple(_RENDERERS)


def render(report: Report, format: str, *, width: int = 100) -> str:
    """`report` as one of FORMATS; `width` columns of text.

    Raises:
        SpecError: if there is no such format; it names the nearest.
    """
    if format not in _RENDERERS:
        raise SpecError(f"no format {format!r}", nearest(format, FORMATS))
    return _RENDERERS[format](report, width)
