"""`hpcai500 repeatability`: statistics across the seeds of each entry."""

import argparse
import sys
from pathlib import Path

from hpcai500.cli.options import Commands, add_command, add_results
from hpcai500.cli.output import print_json


def add_parser(commands: Commands) -> None:
    parser = add_command(commands, "repeatability", main, "statistics across seeds")
    add_results(parser)
    parser.add_argument(
        "--reference", metavar="PATH", help="runs that this set may not converge faster than (one-sided test)"
    )


def main(args: argparse.Namespace) -> int:
    from hpcai500.exchange.archives import opened
    from hpcai500.report.ranking.repeatability import repeatability_text
    from hpcai500.score.ranking.collection import collect, without_garbage_collection
    from hpcai500.score.ranking.repeatability import repeatability

    with without_garbage_collection(), opened(args.paths, unverified=args.unverified) as found:
        collected = collect(found.sources)
        collected.not_ranked.extend(found.refused)
        reference = collect([Path(args.reference)]) if args.reference else None
        reports = repeatability(collected, reference)
    if args.json:
        not_ranked = [item.model_dump(mode="json") for item in collected.not_ranked]
        entries = [report.model_dump(mode="json") for report in reports]
        print_json({"entries": entries, "not_ranked": not_ranked})
    else:
        print(repeatability_text(reports, collected.not_ranked, is_narrow=sys.stdout.isatty()))
    return 0
