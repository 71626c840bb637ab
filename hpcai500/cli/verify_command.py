"""`hpcai500 verify`: every changed byte of an archive, named."""

import argparse
from pathlib import Path

from hpcai500.cli.output import print_json
from hpcai500.exchange.package import look


def main(args: argparse.Namespace) -> int:
    faults, notes = look(Path(args.archive))
    if args.json:
        print_json({"archive": args.archive, "faults": faults, "notes": notes})
    else:
        lines = faults or [f"{args.archive}: every file is the one that was packed"]
        print("\n".join([*lines, *(f"note: {line}" for line in notes)]))
    return 1 if faults else 0
