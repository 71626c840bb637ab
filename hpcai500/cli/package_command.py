"""`hpcai500 package`: a result set as one archive with digests."""

import argparse
import sys
from pathlib import Path

from hpcai500.cli.options import Commands, add_command
from hpcai500.cli.output import print_json


def add_parser(commands: Commands) -> None:
    parser = add_command(commands, "package", main, "a result set as one archive")
    parser.add_argument(
        "paths", nargs="*", default=["results"], metavar="RESULT", help="a run's folder, or a folder of runs"
    )
    parser.add_argument("--output", default="results.zip", metavar="FILE", help="the archive (default: results.zip)")


def main(args: argparse.Namespace) -> int:
    from hpcai500.exchange.package import look, pack

    contents = pack([Path(path) for path in args.paths], Path(args.output))
    absent = look(Path(args.output))[1]
    notes = [f"{line}: it changed since the run, or is not on this machine" for line in absent]
    if args.json:
        print_json({"archive": args.output, **contents.model_dump(mode="json"), "notes": notes})
    else:
        size = sum(file.num_bytes for file in contents.files.values())
        print(f"{args.output}: {len(contents.files)} files, {size:,} bytes")
        for line in notes:
            print(f"note: {line}", file=sys.stderr)
    return 0
