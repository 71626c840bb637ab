"""The Slurm jobs of an experiment: their scripts, which runs need one, and the submission of those."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from hpcai500.errors import MachineError
from hpcai500.files import digest
from hpcai500.launch.slurm.cluster import max_array_size
from hpcai500.launch.slurm.header import log_pattern
from hpcai500.launch.slurm.queue import has_slurm, queued_jobs, seed_of
from hpcai500.launch.slurm.script import job_template, plan_job, render_job
from hpcai500.launch.slurm.snapshot import take_snapshot
from hpcai500.launch.slurm.submission import one_submitter, remember, split_seeds, submissions_folder, submit_script
from hpcai500.runs.data import require_data
from hpcai500.runs.state import State, survey
from hpcai500.spec.run import RunSpec
from hpcai500.spec.site import Site


class JobScript(NamedTuple):
    specs: list[RunSpec]
    """The runs of the job, or of the array, in the order of their seeds."""
    text: str
    array_offset: int

    def job_ids(self, job_id: str) -> list[str]:
        """The number of each run's own job."""
        if len(self.specs) == 1:
            return [job_id]
        return [f"{job_id}_{spec.seed - self.array_offset}" for spec in self.specs]


class Submission(NamedTuple):
    jobs: dict[str, JobScript]
    """The submitted scripts, by job number."""
    kept: dict[Path, State]
    """Folders of the runs that needed no job, with their states."""


def job_scripts(
    sizes: Iterable[Sequence[RunSpec]], site: Site, choose: Callable[[Sequence[RunSpec]], Sequence[RunSpec]] = list
) -> Iterator[JobScript]:
    """A job array over the seeds for each size; several if the seeds exceed the cluster's largest array.

    `sizes` are lists of runs that differ only in their seed. `choose` picks those of a list that get a job. The
    code that a script runs is copied next to the results.
    """
    limit = max_array_size()
    template = job_template()
    for specs in sizes:
        chosen = {spec.seed: spec for spec in choose(specs)}
        if not chosen:
            continue
        for offset, seeds in split_seeds(list(chosen), limit):
            submissions = submissions_folder(chosen[seeds[0]])
            copies = [take_snapshot(chosen[seed]) for seed in seeds]
            plan = plan_job(
                [spec for spec, _ in copies],
                site,
                python=sys.executable,
                log=log_pattern(str(submissions), "%x-%A_%a.out" if len(seeds) > 1 else "%x-%j.out"),
                snapshot=str(copies[0][1]),
                array_offset=offset,
                carry_run_json=True,
                as_root=os.geteuid() == 0,
            )
            yield JobScript([spec for spec, _ in copies], render_job(plan, template), offset)


def submit_missing(sizes: Sequence[Sequence[RunSpec]], site: Site) -> Submission:
    """Submit a job for each run that needs one.

    Raises:
        MachineError: if this machine has no Slurm.
        DataError: if a data set is missing.
        InputError: if sbatch refuses a script.
    """
    if not has_slurm():
        raise MachineError("no Slurm on this machine: squeue is not on PATH", "submit from a login node")
    submission = Submission({}, {})

    def missing(specs: Sequence[RunSpec]) -> list[RunSpec]:
        require_data(specs[0])
        settled = settled_runs(specs)
        submission.kept.update(settled)
        return [spec for spec in specs if spec.folder not in settled]

    with one_submitter(Path(sizes[0][0].output)):
        for script in job_scripts(sizes, site, missing):
            submission.jobs[_submit(script)] = script
    return submission


def settled_runs(specs: Sequence[RunSpec]) -> dict[Path, State]:
    """Folders and states of the runs that need no job: done, diverged, queued or running."""
    rows = survey(spec.folder for spec in specs if (spec.folder / "run.json").exists())
    settled = {
        row.folder: row.state
        for row in rows
        if row.state is State.DONE or row.state.is_under_way or row.result.status == "diverged"
    }
    # A submission that was killed may have left jobs that no run's folder names.
    queued = {seed_of(job) for job in queued_jobs().values()}
    for spec in specs:
        if (digest(spec.run_prefix)[:8], spec.seed) in queued:
            settled.setdefault(spec.folder, State.QUEUED)
    return settled


def _submit(script: JobScript) -> str:
    """Claim the folders of the script's runs and submit it; the job's number."""
    for spec in script.specs:
        if not (spec.folder / "run.json").exists():
            spec.write()
    job_id = submit_script(script.text, submissions_folder(script.specs[0]))
    remember([spec.folder for spec in script.specs], script.job_ids(job_id), script.text)
    return job_id
