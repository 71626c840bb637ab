"""The report as one HTML file."""

from hpcai500.validate.verdict import Report


def report_page(report: Report) -> str:
    return report.verdict
