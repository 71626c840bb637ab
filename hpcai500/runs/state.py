"""The state of each run of a results directory, from its files and from Slurm."""

import statistics
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from hpcai500.errors import HpcAi500Error, MachineError, PreemptedError, RankError, parse_failure
from hpcai500.events.reader import find, read_events
from hpcai500.events.vocabulary import Key
from hpcai500.files import read_json
from hpcai500.launch.diagnosis import START_MARK, explain
from hpcai500.launch.slurm.queue import Job, ended_jobs, has_slurm, queued_jobs
from hpcai500.score.record.folders import run_places
from hpcai500.score.record.result import Result, derive
from hpcai500.spec.run import AnyRun, read_run

_TAIL_BYTES = 20_000


class State(StrEnum):
    DONE = "done"
    RUNNING = "running"
    QUEUED = "queued"
    PREEMPTED = "preempted"
    """Stopped; it can continue, but no job of Slurm's will do so by itself."""
    FAILED = "failed"
    SILENT = "silent"
    """No live job in Slurm and no end in its log: it runs on another machine, or it was killed."""
    NOT_STARTED = "not started"

    @property
    def is_under_way(self) -> bool:
        return self in (State.RUNNING, State.QUEUED)


class RunState(NamedTuple):
    """The state of one run, and how far it is."""

    folder: Path
    spec: AnyRun
    state: State
    detail: str
    """Slurm's reason to let it wait, or why it failed."""
    job_id: str
    """The newest job; empty if no job runs it."""
    epochs_done: int
    quality: float | None
    left_sec: float | None
    """Seconds until the last epoch ends, at the pace so far."""
    result: Result


class KnownJobs(NamedTuple):
    """The jobs that Slurm knows, by number."""

    queued: Mapping[str, Job]
    """Jobs that wait or run."""
    ended: Mapping[str, Job]
    is_reachable: bool
    """This machine has Slurm's commands."""


def runs_below(paths: Iterable[Path]) -> list[Path]:
    """Folders of all runs at or below `paths`; folders that cannot be read are passed over."""
    found = {place for path in paths for place in run_places(path, lambda error: None)}
    return sorted(place for place in found if (place / "run.json").exists())


def survey(folders: Iterable[Path], unreadable: dict[Path, str] | None = None) -> list[RunState]:
    """The state of each run, by one call of `squeue` and one of `sacct` for all of them.

    `unreadable` collects the runs whose files cannot be read, with the reason.

    Raises:
        HpcAi500Error: for a run whose files cannot be read, if `unreadable` is None.
    """
    results = {}
    for folder in folders:
        try:
            results[folder] = derive(folder)
        except HpcAi500Error as error:
            if unreadable is None:
                raise
            unreadable[folder] = str(error)
    jobs = {folder: newest_job(folder) for folder in results}
    unfinished = {folder for folder, result in results.items() if result.status not in ("success", "diverged")}
    slurm = KnownJobs({}, {}, is_reachable=has_slurm())
    if any(jobs[folder] for folder in unfinished) and slurm.is_reachable:
        queued = queued_jobs()
        gone = {jobs[folder] for folder in unfinished} - set(queued) - {""}
        slurm = KnownJobs(queued, ended_jobs(gone), is_reachable=True)
    return [assess(folder, result, jobs[folder], slurm) for folder, result in results.items()]


def newest_job(folder: Path) -> str:
    """The number of the newest job for the run in `folder`; empty if it never had one."""
    path = folder / "job.json"
    try:
        submitted = str(read_json(path)["job_id"]) if path.exists() else ""
    except (HpcAi500Error, KeyError):  # torn by a crash during submission; the log of jobs may still have the number
        submitted = ""
    log = folder / "logs" / "jobs"  # a line per start: the job's number first
    started = [line.split()[0] for line in log.read_text().splitlines() if line.strip()] if log.exists() else []
    return max([submitted, *started], key=lambda job: int(job.split("_")[0]) if job else 0)


def assess(folder: Path, result: Result, job_id: str, slurm: KnownJobs) -> RunState:
    """The state of the run in `folder`, whose newest job is `job_id`."""
    state, detail = _state(folder, result, job_id, slurm)
    epochs = result.epochs
    pace = statistics.fmean(e.train_sec + e.eval_sec for e in epochs) if epochs else None
    left = (result.num_epochs - len(epochs)) * pace if pace is not None and state is State.RUNNING else None
    return RunState(
        folder=folder,
        spec=read_run(folder / "run.json"),
        state=state,
        detail=detail,
        job_id=job_id,
        epochs_done=len(epochs),
        quality=epochs[-1].quality if epochs else None,
        left_sec=left,
        result=result,
    )


def _state(folder: Path, result: Result, job_id: str, slurm: KnownJobs) -> tuple[State, str]:
    if result.status == "success":
        return State.DONE, ""
    if result.status == "diverged":
        return State.FAILED, result.failure or "diverged"
    if job := slurm.queued.get(job_id):
        started = (folder / "events.log").exists()
        if job.is_waiting:
            return State.QUEUED, f"{job.reason}{', to continue' if started else ''}"
        return State.RUNNING, "" if started else f"starting on {job.nodes}"
    if job_id and not slurm.is_reachable:
        return State.SILENT, f"no Slurm on this machine to ask about job {job_id}"
    if result.status == "preempted":
        return State.PREEMPTED, result.failure or ""
    cause = failure_of(folder, slurm.ended.get(job_id))
    if cause is None and result.failure and (folder / "events.log").exists():
        has_ended = any(find(read_events(folder / "events.log"), Key.RUN_STOP))
        return (State.FAILED, result.failure) if has_ended else (State.SILENT, _last_event(folder))
    if cause is None:
        return State.NOT_STARTED, f"job {job_id} left no trace" if job_id else ""
    return (State.PREEMPTED if isinstance(cause, PreemptedError) else State.FAILED), str(cause)


def failure_of(folder: Path, job: Job | None) -> HpcAi500Error | None:
    """Why an unfinished run without a live job failed; None if unknown."""
    state = job.state if job else ""
    if state == "OUT_OF_MEMORY":
        return MachineError("a rank exceeded the job's memory", "ask for more, or lower batch.micro_batch_size")
    if state == "TIMEOUT":
        return PreemptedError("the job's time limit ended it", "submit again to continue, or ask for more time")
    if state == "NODE_FAIL":
        return RankError(f"a node of {job.nodes if job else 'the job'} failed", "submit again to continue")
    if state == "CANCELLED":
        return PreemptedError("the job was cancelled", "submit again to continue")
    if job and state == "FAILED" and not (folder / "logs" / "jobs").exists():
        return MachineError(
            f"job {job.job_id} ended before its script began", "check that the nodes can read the results directory"
        )
    log = folder / "logs" / "stderr.log"
    tail = _tail(log)
    failures = [failure for line in tail.splitlines() if (failure := parse_failure(line))]
    if not tail and not state:
        return None
    return explain(failures, tail, 1, log) if tail else RankError(f"job {job.job_id if job else ''} ended as {state}")


def _tail(log: Path) -> str:
    """The end of a log, from the newest start on; empty if there is none."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        return file.read().decode(errors="replace").rpartition(START_MARK)[2].partition("\n")[2]


def _last_event(folder: Path) -> str:
    events = read_events(folder / "events.log")
    when = datetime.fromtimestamp(events[-1].time_ms / 1_000).strftime("%Y-%m-%d %H:%M:%S") if events else "never"
    return f"last event {when}; it runs on another machine, or it was killed"
