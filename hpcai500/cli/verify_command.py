"""`hpcai500 verify`: every changed byte of an archive, named."""

import argparse
from pathlib import Path

from hpcai500.cli.output import print_json
from hpcai500.score.package import verify


def main(args: argparse.Namespace) -> int:
    faults = verify(Path(args.archive))
    if args.json:
        print_json({"archive": args.archive, "faults": faults})
    else:
        print("\n".join(faults) or f"{args.archive}: every file is the one that was packed")
    return 1 if faults else 0
