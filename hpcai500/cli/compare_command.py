"""`hpcai500 compare`: the nine layers of two runs side by side, and the levels at which they may be compared."""

import argparse

from hpcai500.cli.options import Commands, add_command
from hpcai500.cli.output import print_json


def add_parser(commands: Commands) -> None:
    parser = add_command(commands, "compare", main, "the nine layers of two runs side by side")
    parser.add_argument("left", metavar="A", help="a run's folder")
    parser.add_argument("right", metavar="B", help="the other run's folder")
    parser.add_argument("--all", action="store_true", help="show equal values too")
    parser.add_argument(
        "--level", choices=("hardware", "system", "free"), help="exit with 1 unless the two may be compared at it"
    )


def main(args: argparse.Namespace) -> int:
    from hpcai500.exchange.archives import one_run, opened
    from hpcai500.report.compare import comparison_text
    from hpcai500.score.rules.comparison import compare
    from hpcai500.spec.levels import Level

    with opened([args.left, args.right], strict=True) as found:
        comparison = compare(*(one_run(source) for source in found.sources))
    if args.json:
        print_json(comparison.model_dump(mode="json") | {"verdict": comparison.verdict})
    else:
        print(comparison_text(comparison, everything=args.all))
    if args.level is None:
        return 0 if comparison.comparable_at else 1
    return 1 if any(found.level is Level(args.level) for found in comparison.obstacles) else 0
