"""All files of one run, read once, for the rules to be held against."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcai500.errors import InputError
from hpcai500.events.reader import Event, find, first, read_events
from hpcai500.events.vocabulary import Key
from hpcai500.files import read_json
from hpcai500.score.collection import MALFORMED
from hpcai500.score.result import Epoch, Result, derive
from hpcai500.score.soundness import require_plain_files
from hpcai500.score.source import Source
from hpcai500.score.system import SystemRecord, read_system
from hpcai500.score.timing import Timing, read_timing
from hpcai500.spec.models import parse
from hpcai500.spec.reference import Reference, find_reference
from hpcai500.spec.run import RunSpec, read_run

Finding = tuple[str, str]
"""Number of a rule, and what breaches it."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    source: Source
    """Of the run's folder."""
    spec: RunSpec
    events: list[Event]
    epochs: tuple[Epoch, ...]
    system: SystemRecord
    result: Result
    """Derived anew from the files above."""
    reference: Reference | None
    timing: Timing | None = None
    """Of a foreign program that `ingest --run` timed."""

    @property
    def folder(self) -> Path:
        return self.source.on_disk

    def value(self, key: Key) -> Any:
        """Of the first event of `key`."""
        event = first(self.events, key)
        return event.value if event else None

    @property
    def structure(self) -> dict[str, Any] | None:
        """The model's, as logged; a foreign program may leave out what only torch can tell."""
        logged = self.value(Key.MODEL)
        return {"parameters_digest": None, "varying_layers": [], **logged} if logged else None

    @property
    def converged(self) -> bool:
        return self.result.status == "success" and bool(self.result.score and self.result.score.epochs_to_quality)


def gather(source: Source) -> Evidence:
    """The evidence of the run in the folder `source`.

    Raises:
        InputError: for a file that is missing, broken, or not of the form that it must have.
    """
    folder = source.on_disk
    try:
        require_plain_files(folder)
        spec = read_run(folder / "run.json")
        log = folder / "events.log"
        events = read_events(log)
        rows = [parse(Epoch, event.value, log, event.key) for event in find(events, Key.EPOCH)]
        return Evidence(
            source=source,
            spec=spec,
            events=events,
            epochs=tuple(rows),
            system=read_system(folder / "system.json"),
            result=derive(folder),
            reference=find_reference(spec.workload.benchmark, spec.problem),
            timing=read_timing(folder),
        )
    except MALFORMED as error:
        raise InputError(f"not the files of a run ({type(error).__name__}: {error})", at=folder) from error


def settings_of(reference: Reference | None, spec: RunSpec) -> dict[str, Any] | None:
    """The values of the workload.toml that the run was made from, as far as it is at hand unchanged."""
    if reference and reference.code_digest == spec.workload.code_digest:
        return reference.settings.model_dump(mode="json")
    return None


def stored_result(folder: Path) -> Any:
    """What stands in result.json."""
    return read_json(folder / "result.json")


def pairs(evidence: Evidence) -> Iterator[tuple[Epoch, dict[Key, list[Event]]]]:
    """Each epoch's row with the events that must surround it."""
    keys = (Key.EPOCH_START, Key.EPOCH_STOP, Key.EVAL_START, Key.EVAL_ACCURACY, Key.EVAL_STOP)
    held: dict[tuple[str, Any], list[Event]] = defaultdict(list)
    for event in evidence.events:
        number = event.metadata.get("epoch_num")
        if event.key in keys and isinstance(number, int | float):
            held[event.key, number].append(event)
    for row in evidence.epochs:
        yield row, {key: held.get((key, row.epoch_num), []) for key in keys}
