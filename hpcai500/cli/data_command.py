"""`hpcai500 data prepare|verify`."""

import argparse
from pathlib import Path

from hpcai500.cli.output import default_data, print_json
from hpcai500.errors import DataError
from hpcai500.spec.workload import find_workload, load_rules, problem_settings
from hpcai500.train.workload import load_workload


def main(args: argparse.Namespace) -> int:
    folder = find_workload(args.workload)
    settings = problem_settings(load_rules(folder), args.problem)
    workload = load_workload(folder)
    place = Path(args.data or default_data(folder.name, args.problem))
    if args.action == "prepare":
        lines = [workload.prepare_data(args.problem, settings, place)]
    else:
        if not place.is_dir():
            raise DataError(f"no data directory {place}", "give --data, or run `hpcai500 data prepare`")
        lines = list(workload.verify_data(settings, place))
    if args.json:
        print_json({"data": str(place), "findings": lines})
    else:
        print("\n".join(lines))
    return 0
