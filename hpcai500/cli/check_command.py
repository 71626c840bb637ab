"""`hpcai500 check`: one line a breach of the rules, with the rule's number."""

import argparse
from pathlib import Path

from hpcai500.cli.output import print_json
from hpcai500.score.compliance import Report, check


def main(args: argparse.Namespace) -> int:
    reports = check([Path(path) for path in args.paths], Path(args.reference) if args.reference else None)
    if args.json:
        print_json([report.model_dump(mode="json") for report in reports])
    else:
        print("\n\n".join(text(report) for report in reports))
    return 1 if any(report.breaches for report in reports) else 0


def text(report: Report) -> str:
    runs, breaches = _counted(len(report.runs), "run"), _counted(len(report.breaches), "breach", "breaches")
    lines = [f"{report.entry}: {runs}, {breaches}"]
    lines += [f"{found.rule}  {Path(found.run).name}: {found.message}" for found in report.breaches]
    if report.changes:
        lines += ["differs from the reference in", *(f"  {line}" for line in report.changes)]
    return "\n".join([*lines, *(f"note: {line}" for line in report.notes)])


def _counted(number: int, one: str, many: str = "") -> str:
    return f"{number or 'no'} {one if number < 2 else many or f'{one}s'}"
