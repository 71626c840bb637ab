"""`hpcai500 cancel`: end the jobs of runs. Their results stay, and the runs can be continued."""

import argparse
from pathlib import Path

from hpcai500.cli.options import Commands, add_command
from hpcai500.cli.output import print_json
from hpcai500.errors import InputError, MachineError


def add_parser(commands: Commands) -> None:
    parser = add_command(commands, "cancel", main, "end the jobs of runs")
    parser.add_argument("paths", nargs="+", metavar="RUN", help="a run's folder, or a folder of runs")


def main(args: argparse.Namespace) -> int:
    from hpcai500.launch.slurm.queue import cancel, has_slurm
    from hpcai500.runs.state import runs_below, survey

    folders = runs_below(Path(path) for path in args.paths)
    if not folders:
        raise InputError(f"{' '.join(args.paths)}: no run there", "give runs' folders, or a results directory")
    if not has_slurm():
        raise MachineError("no Slurm on this machine: squeue is not on PATH", "cancel from a login node")
    job_ids = [row.job_id for row in survey(folders) if row.state.is_under_way]
    if job_ids:
        cancel(job_ids)
    if args.json:
        print_json({"cancelled": job_ids})
    else:
        print(f"cancelled: {', '.join(job_ids)}" if job_ids else "none of them is waiting or running")
    return 0
