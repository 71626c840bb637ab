"""`hpcai500 data prepare|synthesize|verify|show`."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from hpcai500.cli.output import default_data, print_json
from hpcai500.errors import DataError, InputError
from hpcai500.files import read_json, storage
from hpcai500.spec.run import parse_overrides
from hpcai500.spec.workload import Settings, find_workload, load_rules, problem_settings, with_overrides
from hpcai500.train.workload import Workload, load_workload


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
    elif not place.is_dir():
        raise DataError(f"no data directory {place}", "give --data, or run `hpcai500 data prepare`")
    elif args.action == "verify":
        lines = workload.verify_data(args.problem, settings, place)
    else:
        lines = show(args, workload, settings, place)
    said = []
    for line in lines:
        said.append(line)
        if not args.json:
            print(line, flush=True)
    if args.json:
        print_json({"data": str(place), "findings": said})
    return 0


def show(args: argparse.Namespace, workload: type[Workload], settings: Settings, place: Path) -> Iterator[str]:
    if args.sample is None:
        raise InputError("data show: which sample?", "give its number in the evaluation set, e.g. 0")
    records = read_json(Path(args.predictions) / "evaluation.json") if args.predictions else None
    layers = [name for name in args.channels.split(",") if name]
    image = workload.show_sample(args.problem, settings, place, args.sample, records=records, layers=layers)
    with storage(Path(args.image)):
        image.save(args.image)
    yield f"{args.image}: sample {args.sample}, {image.width} x {image.height} pixels"
