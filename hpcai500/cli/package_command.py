"""`hpcai500 package`."""

import argparse
from pathlib import Path

from hpcai500.cli.output import print_json
from hpcai500.score.package import pack


def main(args: argparse.Namespace) -> int:
    contents = pack([Path(path) for path in args.paths], Path(args.output))
    if args.json:
        print_json({"archive": args.output, **contents.model_dump(mode="json")})
    else:
        size = sum(held.num_bytes for held in contents.files.values())
        print(f"{args.output}: {len(contents.files)} files, {size:,} bytes")
    return 0
