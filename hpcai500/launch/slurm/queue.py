"""What Slurm knows of jobs: `squeue` for those it has, `sacct` for those that are over, where it keeps accounts."""

import re
import subprocess
from collections.abc import Iterable
from typing import NamedTuple

from hpcai500.errors import MachineError
from hpcai500.files import digest

_TIMEOUT_SEC = 30


class Job(NamedTuple):
    """One job, or one task of an array, as `12_3`."""

    job_id: str
    state: str
    """Slurm's word, e.g. PENDING, RUNNING, OUT_OF_MEMORY."""
    reason: str
    name: str = ""
    nodes: str = ""

    @property
    def is_waiting(self) -> bool:
        return self.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "SUSPENDED", "RESIZING")


_NAME = re.compile(r"hpcai500-.*-([0-9a-f]{8})-(\d+)")


def job_name(workload: str, run_prefix: str, first: int) -> str:
    """The name of a job: what runs, where to, and its seed; or, of an array, what its index lacks to the seed."""
    return f"hpcai500-{workload}-{digest(run_prefix)[:8]}-{first}"


def seed_of(job: Job) -> tuple[str, int] | None:
    """Digest of the run prefix, and seed, of a job that `job_name` named; None for any other job."""
    match = _NAME.fullmatch(job.name)
    index = job.job_id.partition("_")[2]
    return (match[1], int(match[2]) + int(index or 0)) if match else None


def has_slurm() -> bool:
    return _ask(["squeue", "--version"]) is not None


def queued_jobs() -> dict[str, Job]:
    """All jobs of this user that are waiting or running, by number.

    Raises:
        MachineError: if `squeue` is there and does not answer.
    """
    text = _ask(["squeue", "--me", "--noheader", "--array", "--format=%i|%T|%r|%j|%N"])
    if text is None:
        raise MachineError("squeue does not answer", "see whether this machine reaches the cluster's controller")
    rows = (line.split("|", 4) for line in text.splitlines())
    return {job_id: Job(job_id, state, reason, name, nodes) for job_id, state, reason, name, nodes in rows}


def ended_jobs(job_ids: Iterable[str]) -> dict[str, Job]:
    """What the accounts say of these jobs; empty where the cluster keeps none."""
    wanted = sorted(set(job_ids))
    if not wanted:
        return {}
    fields = "--format=JobID,State,Reason,JobName,NodeList"
    text = _ask(["sacct", "--noheader", "--parsable2", "--allocations", fields, f"--jobs={','.join(wanted)}"])
    jobs = {}
    for line in (text or "").splitlines():
        job_id, state, reason, name, nodes = line.split("|")
        jobs[job_id] = Job(job_id, state.split()[0], reason, name, nodes)
    return jobs


def cancel(job_ids: Iterable[str]) -> None:
    """End these jobs, waiting or running.

    Raises:
        MachineError: with what `scancel` said.
    """
    done = subprocess.run(["scancel", *job_ids], capture_output=True, text=True, timeout=_TIMEOUT_SEC, check=False)
    if done.returncode:
        raise MachineError(f"scancel: {done.stderr.strip()}", "see `squeue --me`")


def _ask(command: list[str]) -> str | None:
    """What a command prints; None if it is not there, fails, or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SEC, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
