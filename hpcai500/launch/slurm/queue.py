"""Jobs as Slurm knows them: current ones from `squeue`, ended ones from `sacct` if the cluster has accounting."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from hpcai500.errors import MachineError
from hpcai500.files import digest
from hpcai500.launch.slurm.client import ask, ask_or_raise

_WAITING = (
    "PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "SUSPENDED", "RESIZING",
)  # fmt: skip


class Job(NamedTuple):
    """One job, or one task of an array."""

    job_id: str
    """Slurm's number; `12_3` for a task of an array."""
    state: str
    """Slurm's word, e.g. PENDING, RUNNING, OUT_OF_MEMORY."""
    reason: str
    name: str = ""
    nodes: str = ""

    @property
    def is_waiting(self) -> bool:
        return self.state in _WAITING

    @property
    def is_running(self) -> bool:
        return self.state in ("RUNNING", "COMPLETING")


_NAME = re.compile(r"hpcai500-.*-([0-9a-f]{8})-(\d+)")


def job_name(workload: str, run_prefix: str, first: int) -> str:
    """The name of a job: workload, digest of the run prefix, and seed.

    For an array, the last part is the offset that turns a task index into a seed.
    """
    return f"hpcai500-{workload}-{digest(run_prefix)[:8]}-{first}"


def seed_of(job: Job) -> tuple[str, int] | None:
    """Digest of the run prefix, and seed, of a job with a name from `job_name`; None for any other job."""
    match = _NAME.fullmatch(job.name)
    index = job.job_id.partition("_")[2]
    return (match[1], int(match[2]) + int(index or 0)) if match else None


def has_slurm() -> bool:
    try:
        return ask("squeue", "--version").code == 0
    except MachineError:
        return False


_SQUEUE = ("squeue", "--noheader", "--array", "--format=%i|%T|%r|%j|%N")


def queued_jobs() -> dict[str, Job]:
    """All jobs of this user that are waiting or running, by number.

    Raises:
        MachineError: if `squeue` does not answer.
    """
    return _parse_jobs(ask_or_raise(*_SQUEUE, "--me"))


def recent_jobs(job_ids: Iterable[str]) -> dict[str, Job]:
    """These jobs in any state, without those that Slurm has forgotten, some minutes after their end.

    Raises:
        MachineError: if `squeue` does not answer.
    """
    wanted = ",".join(sorted(set(job_ids)))
    return _parse_jobs(ask(*_SQUEUE, "--states=all", f"--jobs={wanted}").out)


def _parse_jobs(text: str) -> dict[str, Job]:
    rows = (line.split("|", 4) for line in text.splitlines() if line.count("|") >= 4)
    return {job_id: Job(job_id, state, reason, name, nodes) for job_id, state, reason, name, nodes in rows}


def ended_jobs(job_ids: Iterable[str]) -> dict[str, Job]:
    """These jobs from the accounting; empty if the cluster has none."""
    wanted = sorted(set(job_ids))
    if not wanted:
        return {}
    fields = "--format=JobID,State,Reason,JobName,NodeList"
    jobs: dict[str, Job] = {}
    try:
        options = ("--noheader", "--parsable2", "--allocations", fields, f"--jobs={','.join(wanted)}")
        answer = ask("sacct", *options)
    except MachineError:
        return jobs
    for line in answer.out.splitlines() if answer.code == 0 else ():
        job_id, state, reason, name, nodes = line.split("|")
        jobs[job_id] = Job(job_id, state.split()[0], reason, name, nodes)
    return jobs


def cancel(job_ids: Iterable[str]) -> None:
    """Cancel these jobs, waiting or running.

    Raises:
        MachineError: with the error of `scancel`.
    """
    answer = ask("scancel", *job_ids)
    if answer.code:
        raise MachineError(f"scancel: {answer.err.strip()}", "see `squeue --me`")
