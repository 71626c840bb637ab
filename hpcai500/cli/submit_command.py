"""`hpcai500 submit`: hand the runs that are missing to Slurm."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from hpcai500.cli.options import Commands, add_command, add_jobs, job_runs, site_of
from hpcai500.cli.output import print_json
from hpcai500.text import counted

if TYPE_CHECKING:
    from hpcai500.runs.jobs import Submission


def add_parser(commands: Commands) -> None:
    add_jobs(add_command(commands, "submit", main, "hand the runs that are missing to Slurm"))


def main(args: argparse.Namespace) -> int:
    from hpcai500.runs.jobs import submit_missing

    site = site_of(args.site, args.slurm, parallel=args.parallel)
    submission = submit_missing(job_runs(args, site), site)
    if args.json:
        print_json(_record(submission))
        return 0
    for folder, state in submission.kept.items():
        print(f"{state}, kept: {folder}")
    for job_id, script in submission.jobs.items():
        first = script.specs[0]
        seeds = ", ".join(str(spec.seed) for spec in script.specs)
        print(f"job {job_id}: {first.workload.title}, {counted(first.nodes, 'node')}, seeds {seeds}")
    print("`hpcai500 status` shows them" if submission.jobs else "nothing is missing")
    return 0


def _record(submission: Submission) -> dict[str, object]:
    submitted = [
        {"job_id": own, "seed": spec.seed, "nodes": spec.nodes, "folder": str(spec.folder)}
        for job_id, script in submission.jobs.items()
        for own, spec in zip(script.job_ids(job_id), script.specs, strict=True)
    ]
    kept = [{"folder": str(folder), "state": state.value} for folder, state in submission.kept.items()]
    return {"submitted": submitted, "kept": kept}
