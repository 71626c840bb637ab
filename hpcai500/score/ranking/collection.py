"""Finding results: what may be ranked, and what may not, each with its reason."""

import gc
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from hpcai500.errors import InputError
from hpcai500.events.reader import run_start_ms
from hpcai500.score.record.folders import run_places
from hpcai500.score.record.reading import MALFORMED, LeftOut, newest_result
from hpcai500.score.record.result import Result
from hpcai500.score.record.soundness import fault, identity_fault
from hpcai500.score.record.source import Source, by_name, source_of
from hpcai500.text import one_line


class Run(NamedTuple):
    source: Source
    """Of result.json, written or not."""
    result: Result
    """Without its epochs: many runs with many epochs fill the memory."""


class Collected(NamedTuple):
    runs: list[Run]
    """What may be ranked: each seed of an experiment once, by its earliest run."""
    left_out: list[LeftOut]
    diverged: list[Run]
    """Left out too; they count as runs that never reached the target."""
    repeated: list[tuple[Run, Run]]
    """Runs of one experiment and seed: the one that counts, and another, left out."""
    published: list[Path]


def collect(paths: Iterable[Path | Source]) -> Collected:
    """Every result at or below `paths`, and the published lists (CSV files) among them.

    Raises:
        InputError: for a path that does not exist.
    """
    collected = Collected([], [], [], [], [])
    files: dict[tuple[str, ...], Source] = {}
    for source in map(source_of, paths):
        path = source.on_disk
        if not path.exists():
            raise InputError(
                "no such file or folder", "run `hpcai500 run` first, or name another path", at=source.name
            )
        if path.suffix == ".csv":
            collected.published.append(path)
            continue
        root, depth = path.resolve().parts, len(path.parts)
        for file in _results(source, collected.left_out) if path.is_dir() else [path]:
            files.setdefault((*root, *file.parts[depth:]), source.at(file))
    found = [_read_or_reason(file) for file in sorted(files.values(), key=by_name)]
    first = _first_of_each_seed(run for run in found if isinstance(run, Run))
    for item in found:
        if isinstance(item, Run):
            _count(item, first[_seed_of_an_experiment(item.result)], collected)
        else:
            collected.left_out.append(item)
    return collected


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """For a command over many results: none stands in a circle, and to look for circles takes a fifth of its time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _read_or_reason(file: Source) -> Run | LeftOut:
    """The run whose result is or would be `file`: one that may be ranked, or one that diverged."""
    try:
        if one_line(str(file.on_disk)) != str(file.on_disk):
            raise InputError("its path holds what no terminal and no page should print", "rename the folder")
        result = newest_result(file.on_disk)
        reason = None if _has_diverged(result) else _why_not(result)
    except InputError as error:
        return LeftOut(file, one_line(str(file.named(error))))
    except OSError as error:
        return LeftOut(file, one_line(error.strerror or str(error)))
    except MALFORMED as error:
        return LeftOut(file, one_line(f"malformed: {type(error).__name__}: {error}"))
    return LeftOut(file, one_line(reason)) if reason else Run(file, result.model_copy(update={"epochs": ()}))


def _first_of_each_seed(runs: Iterable[Run]) -> dict[tuple[Any, ...], Run]:
    """Of the runs of one seed the one that began first by its log, whatever came of it; else the first by path."""
    of_seed: defaultdict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for run in runs:
        of_seed[_seed_of_an_experiment(run.result)].append(run)

    def start_ms(run: Run) -> float:
        return run_start_ms(run.source.on_disk.with_name("events.log"))

    return {seed: same[0] if len(same) == 1 else min(same, key=start_ms) for seed, same in of_seed.items()}


def _seed_of_an_experiment(result: Result) -> tuple[Any, ...]:
    return *result.identity.experiment, result.identity.seed


def _count(run: Run, first: Run, collected: Collected) -> None:
    """Put `run` where it belongs; `first` is the run that counts for its seed."""
    result = run.result
    diverged = one_line(_why_not(result) or "") if _has_diverged(result) else ""
    if run is not first:
        why = f"seed {result.identity.seed} of this experiment counts once: {first.source} does"
        collected.left_out.append(LeftOut(run.source, f"{diverged}; {why}" if diverged else why))
        collected.repeated.append((first, run))
    elif diverged:
        collected.left_out.append(LeftOut(run.source, diverged))
        collected.diverged.append(run)
    else:
        collected.runs.append(run)


def _has_diverged(result: Result) -> bool:
    """Whether only its divergence keeps it out of the ranking: its status is one reason, and there is no other."""
    return result.status == "diverged" and len(result.unranked) == 1 and identity_fault(result) is None


def _results(folder: Source, left_out: list[LeftOut]) -> Iterator[Path]:
    """The place of every result below `folder`, written or not."""

    def unreadable(error: OSError) -> None:
        place = folder.at(Path(error.filename))
        left_out.append(LeftOut(place, f"{error.strerror}: what lies below it is unknown"))

    for place in run_places(folder.on_disk, unreadable):
        yield place / "result.json"


def _why_not(result: Result) -> str | None:
    """Why a readable result counts nowhere: its own reasons, or figures that contradict each other."""
    if result.unranked:
        return ", ".join((*result.unranked, *([result.failure] if result.failure else []))) or "unranked"
    if result.status != "success":
        return f"status {result.status}"
    return fault(result)
