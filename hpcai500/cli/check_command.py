"""`hpcai500 check`: one line a breach of the rules, with the rule's number."""

import argparse
import json
from pathlib import Path

from hpcai500.errors import InputError
from hpcai500.score.archives import Opened, one_run, opened
from hpcai500.score.collection import printable
from hpcai500.score.compliance import Report, check
from hpcai500.words import counted


def main(args: argparse.Namespace) -> int:
    with (
        opened(filter(None, [args.reference]), strict=True) as reference,
        opened(args.paths, unverified=args.unverified, strict=True) as found,
    ):
        framework = [_reference(path) for path in reference.paths]
        reports = [_marked(report, found) for report in check(found.paths, *framework)]
    if args.json:
        print(found.label(json.dumps([report.model_dump(mode="json") for report in reports], indent=2)))
    else:
        print(found.label("\n\n".join(text(report) for report in reports)))
    return 1 if any(report.breaches for report in reports) else 0


def _reference(path: Path) -> Path:
    """The folder whose system.json holds Layer 5."""
    folder = path if (path / "system.json").exists() else one_run(path)
    if not (folder / "system.json").exists():
        raise InputError(f"--reference {path}: no system.json", "name the folder of a run, or an archive of one")
    return folder


def _marked(report: Report, found: Opened) -> Report:
    faults = {fault: None for run in report.runs if (fault := found.fault_of(run))}
    notes = (f"UNVERIFIED: the archive was altered: {fault}" for fault in faults)
    return report.model_copy(update={"notes": (*report.notes, *notes)})


def text(report: Report) -> str:
    runs, breaches = counted(len(report.runs), "run"), counted(len(report.breaches), "breach", "breaches")
    lines = [f"{report.entry}: {runs}, {breaches}"]
    lines += [f"{found.rule}  {Path(found.run).name}: {found.message}" for found in report.breaches]
    if report.changes:
        lines += ["differs from the reference in", *(f"  {line}" for line in report.changes)]
    return "\n".join(printable(line) for line in (*lines, *(f"note: {line}" for line in report.notes)))
