"""Checkpoints: atomic and checksummed. The two newest are kept, and the newest good one can be found again."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from hpcai500.errors import HpcAi500Error
from hpcai500.files import read_json, storage, write_json
from hpcai500.spec.models import Frozen, parse

_KEPT = 2
_NAME = re.compile(r"epoch(\d+)-step(\d+)\.json")


class Record(Frozen):
    """The record of a checkpoint, in a separate file that is written after it. Without it there is no checkpoint."""

    schema_version: Literal[1] = 1
    experiment_digest: str
    training_digest: str = ""
    seed: int
    epoch: int
    """The epoch in which to continue, from 1."""
    step: int
    """Optimiser steps of that epoch that are done."""
    events_bytes: int
    """Length of events.log at that moment. Later work is repeated."""
    time_ms: int
    graceful: bool
    """Whether it was written after a signal, so that no work was lost."""
    sha256: str = ""
    num_bytes: int = 0


class CheckpointSearch(NamedTuple):
    record: Record | None
    state: dict[str, Any] | None
    passed_over: tuple[str, ...]
    """Newer checkpoints that are not used, each with the reason."""


class Checkpoints:
    """The checkpoints of one run, which only rank 0 writes: in the background, one at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def write(self, state: dict[str, Any], record: Record, *, keep: int = _KEPT) -> None:
        """Store a copy of `state` in the background.

        Raises:
            HpcAi500Error: if the checkpoint before could not be written.
        """
        self.wait()
        self._pending = self._writer.submit(self._write, _on_host(state), record, keep)

    def wait(self) -> None:
        """Wait until everything is on disk."""
        pending, self._pending = self._pending, None
        if pending:
            pending.result()

    def _write(self, state: dict[str, Any], record: Record, keep: int) -> None:
        name = f"epoch{record.epoch:04d}-step{record.step:06d}"
        path = self._folder / f"{name}.pt"
        temporary = self._folder / f".{name}.partial"
        with storage(path):
            self._folder.mkdir(exist_ok=True)
            (self._folder / f"{name}.json").unlink(missing_ok=True)
            with temporary.open("wb") as file:
                torch.save(state | {"record": record.model_dump(mode="json")}, file)
                file.flush()
                os.fsync(file.fileno())
            sha256, num_bytes = _sha256(temporary), temporary.stat().st_size
            temporary.replace(path)
        write_json(
            self._folder / f"{name}.json",
            record.model_copy(update={"sha256": sha256, "num_bytes": num_bytes}).model_dump(mode="json"),
        )
        for old in list(_newest_first(self._folder))[keep:]:
            old.unlink()
            old.with_suffix(".pt").unlink(missing_ok=True)


def find_newest(folder: Path, refuse: Callable[[Record], str]) -> CheckpointSearch:
    """The newest checkpoint that is whole and that `refuse` does not refuse, and why newer ones are passed over."""
    passed_over: list[str] = []
    for path in _newest_first(folder):
        try:
            record = parse(Record, read_json(path), path)
            fault = refuse(record) or _fault(path.with_suffix(".pt"), record)
            if not fault:
                state = torch.load(path.with_suffix(".pt"), map_location="cpu", weights_only=True)
                if state.pop("record") == record.model_copy(update={"sha256": "", "num_bytes": 0}).model_dump(
                    mode="json"
                ):
                    return CheckpointSearch(record, state, tuple(passed_over))
                fault = "its record was altered"
        except HpcAi500Error as error:
            fault = str(error)
        except Exception as error:  # torch raises various errors for bytes that are not a checkpoint
            fault = f"{type(error).__name__}: cannot be loaded"
        passed_over.append(f"{path.stem}: {fault}")
    return CheckpointSearch(None, None, tuple(passed_over))


def _fault(path: Path, record: Record) -> str:
    if not path.exists():
        return "its file is missing"
    if path.stat().st_size != record.num_bytes:
        return f"holds {path.stat().st_size:,} bytes of {record.num_bytes:,}"
    if _sha256(path) != record.sha256:
        return "its checksum differs"
    return ""


def _newest_first(folder: Path) -> Iterator[Path]:
    checkpoints = [
        (int(match[1]), int(match[2]), path)
        for path in folder.glob("*.json")
        if (match := _NAME.fullmatch(path.name))
    ]
    yield from (path for *_, path in sorted(checkpoints, reverse=True))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _on_host(value: Any) -> Any:
    """A deep copy of nested containers with every tensor on the CPU, which later training does not change."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _on_host(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_on_host(item) for item in value]
    return value
