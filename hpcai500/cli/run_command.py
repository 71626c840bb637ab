"""`hpcai500 run`: train here, or in the allocation around us, once per seed."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from hpcai500.cli.options import Commands, add_command, add_experiment, experiment_of, site_of
from hpcai500.cli.output import print_json
from hpcai500.errors import HpcAi500Error

if TYPE_CHECKING:
    from hpcai500.spec.run import RunSpec


def add_parser(commands: Commands) -> None:
    parser = add_command(commands, "run", main, "train here, or in the Slurm allocation around us")
    add_experiment(parser)
    parser.add_argument("--nodes", type=int, metavar="N", help="default: the allocation's, or 1")
    parser.add_argument(
        "--launcher",
        metavar="NAME",
        help="one that `hpcai500 list` names (default: the site's, srun, inside a Slurm allocation; "
        "else local, which is torchrun, or horovodrun for Horovod)",
    )
    parser.add_argument("--site", help="a site profile, for srun's options and where things lie")
    parser.add_argument(
        "--resume", action="store_true", help="continue an interrupted run from its newest checkpoint"
    )


def main(args: argparse.Namespace) -> int:
    from hpcai500.launch.environment import this_machine
    from hpcai500.launch.requirements import require_software
    from hpcai500.report.summary import summary_line
    from hpcai500.runs.data import require_data
    from hpcai500.runs.experiment import resolve_here, uses_this_python
    from hpcai500.runs.start import run_once, start_ranks

    def say(line: str) -> None:
        if not args.json:
            print(line, flush=True)

    def start(spec: RunSpec) -> None:
        try:
            start_ranks(spec, site, machine, in_allocation=allocation is not None, quiet=args.json)
        except HpcAi500Error:
            if args.debug:
                print((spec.folder / "logs" / "stderr.log").read_text(errors="replace"))
            raise

    site, machine = site_of(args.site, ()), this_machine()
    specs, allocation = resolve_here(experiment_of(args), site, machine, launcher=args.launcher, nodes=args.nodes)
    require_data(specs[0])
    if uses_this_python(site):
        require_software(args.backend, specs[0].launcher)
    results = []
    for spec in specs:
        outcome = run_once(spec, start, resume=args.resume, say=say)
        results.append(outcome.result)
        if not outcome.is_kept:
            say(summary_line(outcome.result))
    if args.json:
        print_json([result.model_dump(mode="json") for result in results])
    return 0
