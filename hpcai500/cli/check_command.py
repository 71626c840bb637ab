"""`hpcai500 check`: a line for each breach of the rules, with the rule's number."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hpcai500.cli.options import Commands, add_command, add_results
from hpcai500.cli.output import print_json
from hpcai500.errors import InputError

if TYPE_CHECKING:
    from hpcai500.score.record.source import Source


def add_parser(commands: Commands) -> None:
    parser = add_command(commands, "check", main, "check results by the rules of their level")
    add_results(parser, required=True)
    parser.add_argument("--reference", metavar="RUN", help="the run whose Layer 5 a hardware-level result must have")


def main(args: argparse.Namespace) -> int:
    from hpcai500.exchange.archives import opened
    from hpcai500.report.check import check_text
    from hpcai500.score.rules.check import check

    with (
        opened(filter(None, [args.reference]), strict=True) as reference,
        opened(args.paths, unverified=args.unverified, strict=True) as found,
    ):
        framework = [_reference_folder(source) for source in reference.sources]
        reports = check(found.sources, *framework)
    if args.json:
        print_json([report.model_dump(mode="json") for report in reports])
    else:
        print("\n\n".join(check_text(report) for report in reports))
    return 1 if any(report.breaches for report in reports) else 0


def _reference_folder(source: Source) -> Path:
    """The folder whose system.json has Layer 5."""
    from hpcai500.exchange.archives import one_run

    folder = source if (source / "system.json").on_disk.exists() else one_run(source)
    if not (folder / "system.json").on_disk.exists():
        raise InputError(f"--reference {source}: no system.json", "name a run's folder, or its archive")
    return folder.on_disk
