"""A check of one entry as text: a line for each breach of a rule."""

from hpcai500.score.rules.check import Report
from hpcai500.text import counted, printable


def check_text(report: Report) -> str:
    """The entry's breaches, then what differs from the reference, then notes."""
    runs, breaches = counted(len(report.runs), "run"), counted(len(report.breaches), "breach", "breaches")
    lines = [f"{report.entry}: {runs}, {breaches}"]
    lines += [f"{found.rule}  {found.run.name.name}: {found.message}" for found in report.breaches]
    if report.changes:
        lines += ["differs from the reference in", *(f"  {line}" for line in report.changes)]
    return "\n".join(printable(line) for line in (*lines, *(f"note: {line}" for line in report.notes)))
