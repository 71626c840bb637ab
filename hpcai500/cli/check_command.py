"""`hpcai500 check`: one line a breach of the rules, with the rule's number."""

import argparse
import json
from pathlib import Path

from hpcai500.errors import InputError
from hpcai500.exchange.archives import one_run, opened
from hpcai500.score.record.source import Source
from hpcai500.score.rules.check import Report, check
from hpcai500.text import counted, printable


def main(args: argparse.Namespace) -> int:
    with (
        opened(filter(None, [args.reference]), strict=True) as reference,
        opened(args.paths, unverified=args.unverified, strict=True) as found,
    ):
        framework = [_reference(source) for source in reference.sources]
        reports = check(found.sources, *framework)
    if args.json:
        print(json.dumps([report.model_dump(mode="json") for report in reports], indent=2))
    else:
        print("\n\n".join(text(report) for report in reports))
    return 1 if any(report.breaches for report in reports) else 0


def _reference(source: Source) -> Path:
    """The folder whose system.json holds Layer 5."""
    folder = source if (source / "system.json").on_disk.exists() else one_run(source)
    if not (folder / "system.json").on_disk.exists():
        raise InputError(f"--reference {source}: no system.json", "name the folder of a run, or an archive of one")
    return folder.on_disk


def text(report: Report) -> str:
    runs, breaches = counted(len(report.runs), "run"), counted(len(report.breaches), "breach", "breaches")
    lines = [f"{report.entry}: {runs}, {breaches}"]
    lines += [f"{found.rule}  {found.run.name.name}: {found.message}" for found in report.breaches]
    if report.changes:
        lines += ["differs from the reference in", *(f"  {line}" for line in report.changes)]
    return "\n".join(printable(line) for line in (*lines, *(f"note: {line}" for line in report.notes)))
