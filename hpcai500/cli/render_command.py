"""`hpcai500 render`: print the job scripts that `submit` would hand to Slurm."""

import argparse

from hpcai500.cli.options import Commands, add_command, add_jobs, job_runs, site_of
from hpcai500.cli.output import print_json
from hpcai500.errors import SpecError


def add_parser(commands: Commands) -> None:
    add_jobs(add_command(commands, "render", main, "print the job script of runs; submits nothing"))


def main(args: argparse.Namespace) -> int:
    from hpcai500.runs.jobs import job_scripts

    site = site_of(args.site, args.slurm, parallel=args.parallel)
    scripts = list(job_scripts(job_runs(args, site), site))
    if args.json:
        print_json([{"script": job.text, "runs": [str(spec.folder) for spec in job.specs]} for job in scripts])
        return 0
    if len(scripts) > 1:
        raise SpecError(
            f"these runs take {len(scripts)} scripts: one per number of nodes and range of array indices",
            "ask for one number of nodes and fewer seeds, or for --json",
        )
    print(scripts[0].text, end="")
    return 0
