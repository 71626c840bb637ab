"""All files of one run, read once, for the rules to check."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hpcai500.errors import InputError
from hpcai500.events.payloads import ONCE_AN_EPOCH, Dataset, Epoch, EpochEvent, EpochReport, Model, Structure
from hpcai500.events.reader import Event, first
from hpcai500.events.typed import parsed, payload, payloads
from hpcai500.events.vocabulary import Key
from hpcai500.score.record.reading import MALFORMED
from hpcai500.score.record.result import Result, result_of
from hpcai500.score.record.run_files import SYSTEM, RunFiles
from hpcai500.score.record.source import Source
from hpcai500.score.record.system import SystemRecord, system_of
from hpcai500.score.record.timing import Timing, read_timing
from hpcai500.spec.reference import Reference, find_reference
from hpcai500.spec.run import AnyRun

FindReference = Callable[[str, str], Reference | None]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    files: RunFiles
    spec: AnyRun
    events: list[Event]
    reports: tuple[EpochReport, ...]
    system: SystemRecord
    result: Result
    """Derived anew from the files above."""
    reference: Reference | None
    timing: Timing | None = None
    """Clock of `ingest --run`, if it ran the foreign program."""

    @property
    def source(self) -> Source:
        """The run's folder."""
        return self.files.source

    @property
    def folder(self) -> Path:
        return self.files.folder

    def value(self, key: Key) -> Any:
        """Raw value of the first event of `key`."""
        event = first(self.events, key)
        return event.value if event else None

    @property
    def epochs(self) -> tuple[Epoch, ...]:
        return tuple(report.value for report in self.reports)

    @cached_property
    def structure(self) -> Structure | None:
        """Logged structure of the model."""
        model = payload(self.events, Model)
        return model.value if model else None

    @cached_property
    def dataset_digest(self) -> str | None:
        """Logged digest of the data set."""
        dataset = payload(self.events, Dataset)
        return dataset.value.digest if dataset else None

    @cached_property
    def of_epoch(self) -> dict[tuple[int, str], list[Event]]:
        """Events by epoch number and key, for keys that occur once per epoch."""
        found: dict[tuple[int, str], list[Event]] = defaultdict(list)
        for event in self.events:
            if event.key in ONCE_AN_EPOCH:
                found[parsed(event, EpochEvent).metadata.epoch_num, event.key].append(event)
        return dict(found)

    @property
    def converged(self) -> bool:
        return self.result.status == "success" and bool(self.result.score and self.result.score.epochs_to_quality)


def gather(source: Source, files: RunFiles | None = None, find: FindReference = find_reference) -> Evidence:
    """The evidence of the run in the folder `source`; `files` are its files if some have been read already.

    Raises:
        InputError: for a file that is missing, broken or of the wrong form.
    """
    folder = source.on_disk
    files = files or RunFiles(source)
    try:
        files.require_regular()
        spec, events = files.run(), files.events()
        return Evidence(
            files=files,
            spec=spec,
            events=events,
            reports=tuple(payloads(events, EpochReport)),
            system=system_of(files.record(SYSTEM), files.path(SYSTEM)),
            result=result_of(spec, events, files),
            reference=find(spec.workload.benchmark, spec.problem),
            timing=read_timing(folder),
        )
    except MALFORMED as error:
        raise InputError(f"not the files of a run ({type(error).__name__}: {error})", at=folder) from error


def settings_of(reference: Reference | None, spec: AnyRun) -> dict[str, Any] | None:
    """Values of the workload.toml that the run used, if the shipped one is still the same."""
    if reference and reference.code_digest == spec.workload.code_digest:
        return reference.settings.model_dump(mode="json")
    return None


def pairs(evidence: Evidence) -> Iterator[tuple[Epoch, dict[Key, list[Event]]]]:
    """Each epoch's row with the events that must surround it."""
    for row in evidence.epochs:
        yield row, {key: evidence.of_epoch.get((row.epoch_num, key), []) for key in ONCE_AN_EPOCH}
