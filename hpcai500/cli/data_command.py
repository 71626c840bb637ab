"""`hpcai500 data prepare|synthesize|verify|show`: bring a data set into place, make, check or look at one."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hpcai500.cli.options import Commands, add_action, add_actions, add_problem
from hpcai500.cli.output import print_json
from hpcai500.errors import DataError

if TYPE_CHECKING:
    from hpcai500.spec.workload import Settings
    from hpcai500.train.workload import Workload


def add_parser(commands: Commands) -> None:
    actions = add_actions(commands, "data", "prepare, synthesize, verify or show a data set")

    prepare = add_action(actions, "prepare", main_prepare, "bring a data set into place")
    add_problem(prepare, may_be_synthetic=False)
    prepare.add_argument("--source", metavar="DIR", help="the published files")

    synthesize = add_action(actions, "synthesize", main_synthesize, "make a data set of the published format")
    add_problem(synthesize, may_be_synthetic=False)
    synthesize.add_argument("--samples", type=int, metavar="N", help="frames per year (default: the workload's own)")
    synthesize.add_argument("--seed", type=int, default=0, help="default: 0")

    verify = add_action(actions, "verify", main_verify, "check every file of a data set")
    add_problem(verify, may_be_synthetic=False)

    show = add_action(actions, "show", main_show, "draw one sample of the evaluation set")
    add_problem(show, may_be_synthetic=False)
    show.add_argument("sample", type=int, help="its number in the evaluation set, from 0")
    show.add_argument("--predictions", metavar="RUN", help="a run's folder, to draw its predictions")
    show.add_argument("--channels", default="", metavar="LIST", help="e.g. TMQ,PSL")
    show.add_argument("--image", default="sample.png", metavar="FILE", help="file to write (default: sample.png)")


class DataSet(NamedTuple):
    """The data set of a problem, and the code that handles it."""

    workload: type[Workload]
    problem: str
    settings: Settings
    folder: Path


def main_prepare(args: argparse.Namespace) -> int:
    data = _data_set(args)
    source = Path(args.source) if args.source else None
    return _report(args, data, data.workload.prepare_data(data.problem, data.settings, source, data.folder))


def main_synthesize(args: argparse.Namespace) -> int:
    data = _data_set(args)
    lines = data.workload.synthesize_data(
        data.problem, data.settings, data.folder, num_samples=args.samples, seed=args.seed
    )
    return _report(args, data, lines)


def main_verify(args: argparse.Namespace) -> int:
    data = _existing(_data_set(args))
    return _report(args, data, data.workload.verify_data(data.problem, data.settings, data.folder))


def main_show(args: argparse.Namespace) -> int:
    from hpcai500.files import read_json, storage

    data = _existing(_data_set(args))
    records = read_json(Path(args.predictions) / "evaluation.json") if args.predictions else None
    layers = [name for name in args.channels.split(",") if name]
    image = data.workload.show_sample(
        data.problem, data.settings, data.folder, args.sample, records=records, layers=layers
    )
    with storage(Path(args.image)):
        image.save(args.image)
    return _report(args, data, [f"{args.image}: sample {args.sample}, {image.width} x {image.height} pixels"])


def _data_set(args: argparse.Namespace) -> DataSet:
    from hpcai500.runs.data import default_data
    from hpcai500.spec.run import parse_overrides
    from hpcai500.spec.workload import find_workload, load_rules, problem_settings, with_overrides
    from hpcai500.train.workload import load_workload

    folder = find_workload(args.workload)
    overrides = parse_overrides(args.assignments)
    settings = with_overrides(problem_settings(load_rules(folder), args.problem), overrides)
    place = Path(args.data or default_data(folder.name, args.problem))
    return DataSet(load_workload(folder), args.problem, settings, place)


def _existing(data: DataSet) -> DataSet:
    if not data.folder.is_dir():
        raise DataError(f"no data directory {data.folder}", "give --data, or run `hpcai500 data prepare`")
    return data


def _report(args: argparse.Namespace, data: DataSet, lines: Iterable[str]) -> int:
    """Print each line when the work reaches it, or all of them as JSON."""
    findings = []
    for line in lines:
        findings.append(line)
        if not args.json:
            print(line, flush=True)
    if args.json:
        print_json({"data": str(data.folder), "findings": findings})
    return 0
