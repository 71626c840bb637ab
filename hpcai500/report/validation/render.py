"""A validation's report in each format."""

from typing import Literal, get_args

from hpcai500.errors import SpecError, nearest
from hpcai500.report.validation.document import report_document
from hpcai500.report.validation.page import report_page
from hpcai500.report.validation.text import report_junit, report_text
from hpcai500.validate.judge.assessment import Assessment

Format = Literal["text", "json", "junit", "html"]
FORMATS: tuple[Format, ...] = get_args(Format)


def render(assessment: Assessment, format: str, *, width: int = 100) -> str:
    """The report as one of FORMATS; text has up to `width` columns."""
    if format == "json":
        return report_document(assessment).model_dump_json(indent=2)
    if format == "junit":
        return report_junit(assessment)
    if format == "html":
        return report_page(assessment)
    if format == "text":
        return report_text(assessment, width)
    raise SpecError(f"no format {format!r}", nearest(format, FORMATS))
