"""A report in the format that was asked for."""

from pathlib import Path
from typing import Literal, get_args

from hpcai500.errors import SpecError, nearest
from hpcai500.report.validation.document import report_document
from hpcai500.report.validation.page import report_page
from hpcai500.report.validation.text import report_junit, report_text
from hpcai500.validate.judge.verdict import Report

Format = Literal["text", "json", "junit", "html"]
FORMATS: tuple[Format, ...] = get_args(Format)
_OF_ENDING: dict[str, Format] = {".json": "json", ".xml": "junit", ".html": "html", ".htm": "html"}


def format_of(path: Path) -> Format:
    """The format that the ending of `path` stands for; text for any other."""
    return _OF_ENDING.get(path.suffix.lower(), "text")


def render(report: Report, format: str, *, width: int = 100) -> str:
    """`report` as one of FORMATS; `width` columns of text."""
    if format == "json":
        return report_document(report).model_dump_json(indent=2)
    if format == "junit":
        return report_junit(report)
    if format == "html":
        return report_page(report)
    if format == "text":
        return report_text(report, width)
    raise SpecError(f"no format {format!r}", nearest(format, FORMATS))
