"""`hpcai500 verify`: name every changed file of an archive."""

import argparse
from pathlib import Path

from hpcai500.cli.options import Commands, add_command
from hpcai500.cli.output import print_json


def add_parser(commands: Commands) -> None:
    parser = add_command(commands, "verify", main, "name every changed file of an archive")
    parser.add_argument("archive", metavar="FILE")


def main(args: argparse.Namespace) -> int:
    from hpcai500.exchange.package import look

    faults, notes = look(Path(args.archive))
    if args.json:
        print_json({"archive": args.archive, "faults": faults, "notes": notes})
    else:
        lines = faults or [f"{args.archive}: every file is the one that was packed"]
        print("\n".join([*lines, *(f"note: {line}" for line in notes)]))
    return 1 if faults else 0
