"""A validation's report in each format."""

from collections.abc import Callable

from hpcai500.errors import SpecError, nearest
from hpcai500.report.validation.document import report_document
from hpcai500.report.validation.page import report_page
from hpcai500.report.validation.text import report_junit, report_text
from hpcai500.validate.judge.assessment import Assessment

_RENDERERS: dict[str, Callable[[Assessment, int], str]] = {
    "text": report_text,
    "json": lambda assessment, width: report_document(assessment).model_dump_json(indent=2),
    "junit": lambda assessment, width: report_junit(assessment),
    "html": lambda assessment, width: report_page(assessment),
}
"""Each takes the assessment and the columns of a terminal. A new format is a line here."""

FORMATS = tuple(_RENDERERS)


def render(assessment: Assessment, format: str, *, width: int = 100) -> str:
    """`assessment` as one of FORMATS; `width` columns of text.

    Raises:
        SpecError: if there is no such format; it names the nearest.
    """
    if format not in _RENDERERS:
        raise SpecError(f"no format {format!r}", nearest(format, FORMATS))
    return _RENDERERS[format](assessment, width)
