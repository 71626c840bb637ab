"""`hpcai500 repeatability`: how much the runs of each entry differ."""

import argparse
import json
import sys
from pathlib import Path

from hpcai500.exchange.archives import opened
from hpcai500.report.ranking.repeatability import repeatability_text
from hpcai500.score.ranking.collection import collect, without_garbage_collection
from hpcai500.score.ranking.repeatability import repeatability


def main(args: argparse.Namespace) -> int:
    with without_garbage_collection(), opened(args.paths, unverified=args.unverified) as found:
        collected = collect(found.sources)
        collected.not_ranked.extend(found.refused)
        reference = collect([Path(args.reference)]) if args.reference else None
        reports = repeatability(collected, reference)
    if args.json:
        record = {
            "entries": [report.model_dump(mode="json") for report in reports],
            "not_ranked": [item.model_dump(mode="json") for item in collected.not_ranked],
        }
        print(json.dumps(record, indent=2, allow_nan=False))
    else:
        print(repeatability_text(reports, collected.not_ranked, is_narrow=sys.stdout.isatty()))
    return 0
