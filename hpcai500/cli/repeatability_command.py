"""`hpcai500 repeatability`."""

import argparse
from pathlib import Path

from hpcai500.cli.output import print_json
from hpcai500.report.tables import repeatability_text
from hpcai500.score.ranking import collect, rank


def main(args: argparse.Namespace) -> int:
    lists = rank(collect([Path(path) for path in args.paths]).results)
    if args.json:
        print_json([ranked.model_dump(mode="json") for ranked in lists])
    else:
        print(repeatability_text(lists))
    return 0
