"""`hpcai500 package`."""

import argparse
import sys
from pathlib import Path

from hpcai500.cli.output import print_json
from hpcai500.exchange.package import look, pack


def main(args: argparse.Namespace) -> int:
    contents = pack([Path(path) for path in args.paths], Path(args.output))
    absent = look(Path(args.output))[1]
    notes = [f"{line}: it changed since the run, or is not on this machine" for line in absent]
    if args.json:
        print_json({"archive": args.output, **contents.model_dump(mode="json"), "notes": notes})
    else:
        size = sum(held.num_bytes for held in contents.files.values())
        print(f"{args.output}: {len(contents.files)} files, {size:,} bytes")
        for line in notes:
            print(f"note: {line}", file=sys.stderr)
    return 0
