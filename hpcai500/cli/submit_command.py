"""`hpcai500 submit`: hand the runs that are missing to Slurm."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from hpcai500.cli.job_scripts import JobScript, job_scripts
from hpcai500.cli.output import print_json
from hpcai500.cli.run_command import require_data
from hpcai500.cli.site_options import runs_at, site_of
from hpcai500.errors import MachineError
from hpcai500.files import digest
from hpcai500.launch.slurm.queue import has_slurm, queued_jobs, seed_of
from hpcai500.launch.slurm.submission import one_submitter, remember, submissions_folder, submit_script
from hpcai500.runs.state import State, survey
from hpcai500.spec.run import RunSpec
from hpcai500.text import counted


def main(args: argparse.Namespace) -> int:
    site = site_of(args)
    kept: dict[str, str] = {}  # folder to state

    def missing(specs: Sequence[RunSpec]) -> list[RunSpec]:
        require_data(specs[0])
        found = states(specs)
        kept.update(found)
        return [spec for spec in specs if str(spec.folder) not in found]

    output = Path(runs_at(args, site)[0][0].output)
    if not has_slurm():
        raise MachineError("no Slurm on this machine: squeue is not on PATH", "submit from a login node")
    with one_submitter(output):
        jobs = {submit(script): script for script in job_scripts(args, site, missing)}
    report(args, kept, jobs)
    return 0


def states(specs: Sequence[RunSpec]) -> dict[str, str]:
    """Folder and state of the runs that need no job: done, diverged, waiting or running."""
    rows = survey(spec.folder for spec in specs if (spec.folder / "run.json").exists())
    settled = {
        str(row.folder): row.state.value
        for row in rows
        if row.state is State.DONE or row.state.is_under_way or row.result.status == "diverged"
    }
    # A submission that was killed may have left jobs that no folder knows of.
    queued = {seed_of(job) for job in queued_jobs().values()}
    for spec in specs:
        if (digest(spec.run_prefix)[:8], spec.seed) in queued:
            settled.setdefault(str(spec.folder), State.QUEUED.value)
    return settled


def submit(script: JobScript) -> str:
    """Claim the runs' folders and submit; the job's number."""
    for spec in script.specs:
        if not (spec.folder / "run.json").exists():
            spec.write()
    job_id = submit_script(script.text, submissions_folder(script.specs[0]))
    remember([spec.folder for spec in script.specs], script.job_ids(job_id), script.text)
    return job_id


def report(args: argparse.Namespace, kept: dict[str, str], jobs: dict[str, JobScript]) -> None:
    if args.json:
        submitted = [
            {"job_id": own, "seed": spec.seed, "nodes": spec.nodes, "folder": str(spec.folder)}
            for job_id, script in jobs.items()
            for own, spec in zip(script.job_ids(job_id), script.specs, strict=True)
        ]
        print_json({"submitted": submitted, "kept": [{"folder": f, "state": s} for f, s in kept.items()]})
        return
    for folder, state in kept.items():
        print(f"{state}, kept: {folder}")
    for job_id, script in jobs.items():
        first = script.specs[0]
        seeds = ", ".join(str(spec.seed) for spec in script.specs)
        print(f"job {job_id}: {first.workload.title}, {counted(first.nodes, 'node')}, seeds {seeds}")
    print("`hpcai500 status` shows them" if jobs else "nothing is missing")
