"""`hpcai500 repeatability`."""

import argparse
import json
import sys
from pathlib import Path

from hpcai500.report.tables import repeatability_text
from hpcai500.score.archives import opened
from hpcai500.score.collection import collect, without_garbage_collection
from hpcai500.score.repeatability import repeatability


def main(args: argparse.Namespace) -> int:
    with without_garbage_collection(), opened(args.paths, unverified=args.unverified) as found:
        collected = collect(found.paths)
        collected.left_out.extend(found.refused)
        reference = collect([Path(args.reference)]) if args.reference else None
        reports = [
            report.model_copy(update={"entry": found.mark_entries([report.entry])[0]})
            for report in repeatability(collected, reference)
        ]
    if args.json:
        record = {
            "entries": [report.model_dump(mode="json") for report in reports],
            "not_ranked": [item._asdict() for item in collected.left_out],
        }
        print(found.label(json.dumps(record, indent=2, allow_nan=False)))
    else:
        print(found.label(repeatability_text(reports, collected.left_out, is_narrow=sys.stdout.isatty())))
    return 0
