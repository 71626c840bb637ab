"""`hpcai500 repeatability`."""

import argparse
from pathlib import Path

from hpcai500.cli.output import print_json
from hpcai500.report.tables import repeatability_text
from hpcai500.score.collection import collect
from hpcai500.score.repeatability import repeatability


def main(args: argparse.Namespace) -> int:
    collected = collect([Path(path) for path in args.paths])
    reference = collect([Path(args.reference)]) if args.reference else None
    reports = repeatability(collected, reference)
    if args.json:
        print_json({
            "entries": [report.model_dump(mode="json") for report in reports],
            "not_ranked": [item._asdict() for item in collected.left_out],
        })  # fmt: skip
    else:
        print(repeatability_text(reports, collected.left_out))
    return 0
