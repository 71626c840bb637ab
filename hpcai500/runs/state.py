"""Where each run of a results directory stands: from its own files, and from Slurm where a job runs it."""

import statistics
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from tabulate import tabulate

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
    """Stopped, and can go on; no job of Slurm's will do so by itself."""
    FAILED = "failed"
    SILENT = "silent"
    """No job of Slurm's, and no end in its log: running on some machine, or dead."""
    NOT_STARTED = "not started"

    @property
    def is_under_way(self) -> bool:
        return self in (State.RUNNING, State.QUEUED)


class Progress(NamedTuple):
    """One run's line."""

    folder: Path
    spec: AnyRun
    state: State
    detail: str
    """Slurm's reason, or why it failed."""
    job_id: str
    epochs_done: int
    quality: float | None
    left_sec: float | None
    """Until its last epoch ends, at the pace so far."""
    result: Result


class Slurm(NamedTuple):
    """One look at what Slurm knows."""

    queued: Mapping[str, Job]
    ended: Mapping[str, Job]
    reachable: bool


def run_folders(paths: Iterable[Path]) -> list[Path]:
    """Every run at or below `paths`."""
    found = {place for path in paths for place in run_places(path, lambda error: None)}
    return sorted(place for place in found if (place / "run.json").exists())


def survey(folders: Iterable[Path], unreadable: dict[Path, str] | None = None) -> list[Progress]:
    """Where each run stands, with one question to `squeue` and one to `sacct` for all of them.

    A run whose files cannot be read is put into `unreadable` with the reason; without one, it raises.
    """
    results = {}
    for folder in folders:
        try:
            results[folder] = derive(folder)
        except HpcAi500Error as error:
            if unreadable is None:
                raise
            unreadable[folder] = str(error)
    jobs = {folder: job_of(folder) for folder in results}
    unfinished = {folder for folder, result in results.items() if result.status not in ("success", "diverged")}
    slurm = Slurm({}, {}, reachable=has_slurm())
    if any(jobs[folder] for folder in unfinished) and slurm.reachable:
        queued = queued_jobs()
        gone = {jobs[folder] for folder in unfinished} - set(queued) - {""}
        slurm = Slurm(queued, ended_jobs(gone), reachable=True)
    return [assess(folder, result, jobs[folder], slurm) for folder, result in results.items()]


def job_of(folder: Path) -> str:
    """The number of the newest job for the run in `folder`; empty where it was no job."""
    path = folder / "job.json"
    try:
        submitted = str(read_json(path)["job_id"]) if path.exists() else ""
    except (HpcAi500Error, KeyError):  # torn by a crash while it was submitted: the job's name tells too
        submitted = ""
    log = folder / "logs" / "jobs"  # a line for each start: the job, and how often Slurm had started it again
    started = [line.split()[0] for line in log.read_text().splitlines() if line.strip()] if log.exists() else []
    return max([submitted, *started], key=lambda job: int(job.split("_")[0]) if job else 0)


def assess(folder: Path, result: Result, job_id: str, slurm: Slurm) -> Progress:
    state, detail = _state(folder, result, job_id, slurm)
    epochs = result.epochs
    pace = statistics.fmean(e.train_sec + e.eval_sec for e in epochs) if epochs else None
    left = (result.num_epochs - len(epochs)) * pace if pace is not None and state is State.RUNNING else None
    return Progress(
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


def _state(folder: Path, result: Result, job_id: str, slurm: Slurm) -> tuple[State, str]:
    if result.status == "success":
        return State.DONE, ""
    if result.status == "diverged":
        return State.FAILED, result.failure or "diverged"
    if job := slurm.queued.get(job_id):
        started = (folder / "events.log").exists()
        if job.is_waiting:
            return State.QUEUED, f"{job.reason}{', to go on' if started else ''}"
        return State.RUNNING, "" if started else f"starting on {job.nodes}"
    if job_id and not slurm.reachable:
        return State.SILENT, f"no Slurm on this machine to ask about job {job_id}"
    if result.status == "preempted":
        return State.PREEMPTED, result.failure or ""
    cause = failure_of(folder, slurm.ended.get(job_id))
    if cause is None and result.failure and (folder / "events.log").exists():
        has_ended = any(find(read_events(folder / "events.log"), Key.RUN_STOP))
        return (State.FAILED, result.failure) if has_ended else (State.SILENT, _last_sign(folder))
    if cause is None:
        return State.NOT_STARTED, f"job {job_id} left no trace" if job_id else ""
    return (State.PREEMPTED if isinstance(cause, PreemptedError) else State.FAILED), str(cause)


def failure_of(folder: Path, job: Job | None) -> HpcAi500Error | None:
    """Why a run that no job runs any more has not ended well; None if nothing tells."""
    state = job.state if job else ""
    if state == "OUT_OF_MEMORY":
        return MachineError("a rank exceeded the job's memory", "ask for more, or lower batch.micro_batch_size")
    if state == "TIMEOUT":
        return PreemptedError("the job's time limit ended it", "submit again to go on, or ask for more time")
    if state == "NODE_FAIL":
        return RankError(f"a node of {job.nodes if job else 'the job'} failed", "submit again to go on")
    if state == "CANCELLED":
        return PreemptedError("the job was cancelled", "submit again to go on")
    if job and state == "FAILED" and not (folder / "logs" / "jobs").exists():
        return MachineError(
            f"job {job.job_id} ended before its script began", "see whether the nodes see the results directory"
        )
    log = folder / "logs" / "stderr.log"
    tail = _tail(log)
    told = [failure for line in tail.splitlines() if (failure := parse_failure(line))]
    if not tail and not state:
        return None
    return explain(told, tail, 1, log) if tail else RankError(f"job {job.job_id if job else ''} ended as {state}")


def _tail(log: Path) -> str:
    """The end of what the last start wrote."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        return file.read().decode(errors="replace").rpartition(START_MARK)[2].partition("\n")[2]


def _last_sign(folder: Path) -> str:
    events = read_events(folder / "events.log")
    when = datetime.fromtimestamp(events[-1].time_ms / 1_000).strftime("%Y-%m-%d %H:%M:%S") if events else "never"
    return f"last event {when}; running on some machine, or dead"


def progress_table(rows: Iterable[Progress]) -> str:
    """One line a run, and why it is not done below it."""
    cells, notes = [], []
    for row in rows:
        spec = row.spec
        cells.append(
            [
                spec.workload.name,
                f"{spec.problem}-{spec.level}",
                f"{spec.backend} {spec.nodes}x{spec.procs_per_node}",
                spec.seed,
                row.state.value,
                f"{row.epochs_done}/{spec.settings.problem.num_epochs}",
                "" if row.quality is None else f"{row.quality:.4f}",
                "" if row.left_sec is None else _duration(row.left_sec),
                len(row.result.interruptions) or "",
                row.job_id,
            ]
        )
        if row.detail:
            notes.append(f"  seed {spec.seed} ({row.job_id or spec.run_id}): {row.detail}")
    headers = ["workload", "problem", "ranks", "seed", "state", "epoch", "quality", "left", "stops", "job"]
    return "\n".join([tabulate(cells, headers, disable_numparse=True), *notes])


def _duration(seconds: float) -> str:
    minutes, secs = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{secs:02}" if hours else f"{minutes}:{secs:02}"
