"""Resuming an interrupted run: rank 0 reads its folder and cuts the log back to the checkpoint."""

import time
from pathlib import Path
from typing import IO, Any, NamedTuple

from hpcai500.errors import InputError
from hpcai500.events.payloads import Dataset, FlopsPerSample, Restart, Resumed, RunStop
from hpcai500.events.reader import Event, find, first, parse_lines, read_events
from hpcai500.events.typed import payload
from hpcai500.events.vocabulary import Key, RunStatus
from hpcai500.files import lock_file, storage, write_atomic
from hpcai500.spec.run import RunSpec
from hpcai500.train.checkpoint import CheckpointSearch, Record, find_newest
from hpcai500.train.state import RunState

_WAIT_SEC = 120
"""Seconds to wait until an earlier start ends, or until a file server drops the lock of a lost node."""


class Resumption(NamedTuple):
    """How this start of a run continues an earlier one."""

    finished: bool = False
    """Whether the run has already succeeded, so that there is nothing to do."""
    resumes: bool = False
    """Whether the clock of an earlier start is running."""
    state: RunState | None = None
    """The contents of the checkpoint; None to begin at the first step."""
    epoch: int = 1
    step: int = 0
    from_other_run: bool = False
    """Whether the checkpoint is another run's, as `--resume-from` allows."""
    graceful: bool = False
    flops_per_sample: float | None = None
    dataset_digest: str | None = None
    """Digest of the data that the earlier start trained on."""
    last_sign_ms: float = 0.0
    """Time of the last event before the interruption."""
    kept_ms: float = 0.0
    """Time up to which work is kept, or was already counted as lost."""
    passed_over: tuple[str, ...] = ()

    def event(self) -> Resumed:
        """The event for the log, at the moment when training continues."""
        restart = Restart(
            epoch=self.epoch,
            step=self.step,
            graceful=self.graceful,
            down_sec=max(0.0, time.time() - self.last_sign_ms / 1_000),
            lost_sec=max(0.0, (self.last_sign_ms - self.kept_ms) / 1_000),
            passed_over=self.passed_over,
        )
        return Resumed(value=restart)


def find_resumption(spec: RunSpec) -> Resumption:
    """Read the run's folder, and cut events.log back to the moment of the checkpoint.

    The old log is kept in `logs/`. From then on this process has the folder's lock.

    Raises:
        MachineError: if another start of the run is still writing there.
    """
    _lock(spec.folder)
    log = spec.folder / "events.log"
    if not log.exists():
        return _beginning(spec)
    events = read_events(log)
    stop, start = payload(events, RunStop), first(events, Key.RUN_START)
    if stop and stop.metadata.status is RunStatus.SUCCESS:
        return Resumption(finished=True)
    if start is None:
        rewind(log, 0)
        return _beginning(spec)
    found = _find_own(spec, log.stat().st_size)
    rewind(log, found.record.events_bytes if found.record else _end_of(log, Key.RUN_START))
    resumption = _resumption(events, start, found, spec.folder)
    return resumption if found.record else resumption._replace(**_from_other_run(spec))


_LOCKS: list[IO[bytes]] = []
"""Lock files, which stay open as long as this process lives: closing one releases the lock."""


def _lock(folder: Path) -> None:
    """Lock `folder` for this process, after waiting for an earlier start of the same run to end."""
    with storage(folder):
        file = (folder / ".lock").open("ab")
    lock_file(file, _WAIT_SEC, f"{folder}: another start of this run is writing there")
    _LOCKS.append(file)


def _beginning(spec: RunSpec) -> Resumption:
    return Resumption(**_from_other_run(spec))


def _find_own(spec: RunSpec, events_bytes: int) -> CheckpointSearch:
    def refuse(record: Record) -> str:
        if (record.experiment_digest, record.seed) != (spec.experiment_digest, spec.seed):
            return "belongs to another experiment or seed"
        return "events.log is shorter than it was" if record.events_bytes > events_bytes else ""

    return find_newest(spec.folder / "checkpoint", refuse)


def _from_other_run(spec: RunSpec) -> dict[str, Any]:
    """The fields of a Resumption from the run in `spec.resume_from`; empty if there is none.

    Raises:
        InputError: if that run has no checkpoint from which anything is left to train.
    """
    if not spec.resume_from:
        return {}

    def refuse(record: Record) -> str:
        same = (record.training_digest, record.seed) == (spec.training_digest, spec.seed)
        return "" if same else "belongs to a run that trains something else"

    found = find_newest(Path(spec.resume_from) / "checkpoint", refuse)
    if found.record is None:
        reasons = "; ".join(found.passed_over) or "it has written none"
        raise InputError(f"{spec.resume_from}: no checkpoint to start from: {reasons}", "let that run write one")
    if found.record.epoch > spec.settings.problem.num_epochs:
        raise InputError(f"{spec.resume_from}: that run has trained all its epochs", "there is nothing left to train")
    return {
        "state": _state(found, Path(spec.resume_from)),
        "epoch": found.record.epoch,
        "step": found.record.step,
        "from_other_run": True,
    }


def _state(found: CheckpointSearch, folder: Path) -> RunState | None:
    """The contents of the checkpoint that was found in `folder`.

    Raises:
        InputError: if another version wrote it.
    """
    if found.state is None:
        return None
    try:
        return RunState.of_record(found.state)
    except (KeyError, TypeError) as error:
        raise InputError(
            f"its checkpoint is from another version of hpcai500 ({error})",
            "start a new run with another --output",
            at=folder,
        ) from error


def _resumption(events: list[Event], start: Event, found: CheckpointSearch, folder: Path) -> Resumption:
    counted = payload(events, FlopsPerSample)
    dataset = payload(events, Dataset)
    record = found.record
    earlier = [event.time_ms for event in find(events, Key.RESUMED)]  # work lost earlier is counted there
    return Resumption(
        resumes=True,
        state=_state(found, folder),
        epoch=record.epoch if record else 1,
        step=record.step if record else 0,
        graceful=record.graceful if record else False,
        flops_per_sample=counted.value.mean if counted else None,
        dataset_digest=dataset.value.digest if dataset else None,
        last_sign_ms=_last_sign(events).time_ms,
        kept_ms=max([record.time_ms if record else start.time_ms, *earlier]),
        passed_over=found.passed_over,
    )


def _last_sign(events: list[Event]) -> Event:
    """The last event written by a rank. The launcher may close a failed run's log later."""
    return [event for event in events if event.key not in (Key.FAILURE, Key.RUN_STOP)][-1]


def rewind(log: Path, num_bytes: int) -> None:
    """Cut `log` to its first `num_bytes`, but keep events of interruptions. The whole log is kept in `logs/`."""
    with storage(log):
        content = log.read_bytes()
        logs = log.parent / "logs"
        logs.mkdir(exist_ok=True)
        number = 1 + len(list(logs.glob("events-*.log")))
        write_atomic(logs / f"events-{number}.log", content.decode(errors="replace"))
    kept = content[:num_bytes].decode()
    kept_events = [
        line for line in content[num_bytes:].decode(errors="replace").splitlines() if _is_resumption(line, log)
    ]
    write_atomic(log, kept + "".join(f"{line}\n" for line in kept_events))


def _is_resumption(line: str, log: Path) -> bool:
    return bool(find(parse_lines([line], log), Key.RESUMED))


def _end_of(log: Path, key: Key) -> int:
    """Bytes up to the end of the first line of `key`."""
    length = 0
    for line in log.read_bytes().splitlines(keepends=True):
        length += len(line)
        if first(parse_lines([line.decode(errors="replace")], log), key):
            break
    return length
