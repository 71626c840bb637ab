"""`hpcai500 data prepare|synthesize|verify`."""

import argparse
from pathlib import Path

from hpcai500.cli.output import default_data, print_json
from hpcai500.errors import DataError
from hpcai500.spec.run import parse_overrides
from hpcai500.spec.workload import find_workload, load_rules, problem_settings, with_overrides
from hpcai500.train.workload import load_workload


def main(args: argparse.Namespace) -> int:
    folder = find_workload(args.workload)
    overrides = parse_overrides(args.assignments)
    settings = with_overrides(problem_settings(load_rules(folder), args.problem), overrides)
    workload = load_workload(folder)
    place = Path(args.data or default_data(folder.name, args.problem))
    if args.action == "prepare":
        lines = workload.prepare_data(args.problem, settings, Path(args.source) if args.source else None, place)
    elif args.action == "synthesize":
        lines = workload.synthesize_data(args.problem, settings, place, num_samples=args.samples, seed=args.seed)
    else:
        if not place.is_dir():
            raise DataError(f"no data directory {place}", "give --data, or run `hpcai500 data prepare`")
        lines = workload.verify_data(args.problem, settings, place)
    said = []
    for line in lines:
        said.append(line)
        if not args.json:
            print(line, flush=True)
    if args.json:
        print_json({"data": str(place), "findings": said})
    return 0
