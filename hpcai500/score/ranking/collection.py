"""Results below paths: what may be ranked, and what may not, each with its reason."""

import gc
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from hpcai500.errors import InputError
from hpcai500.events.reader import run_start_ms
from hpcai500.score.ranking.curves import Points, points_of
from hpcai500.score.record.folders import run_places
from hpcai500.score.record.limits import MOST_CHECKED
from hpcai500.score.record.reading import MALFORMED, NotRanked, newest_result
from hpcai500.score.record.result import Result
from hpcai500.score.record.run_files import LOG, RunFiles
from hpcai500.score.record.soundness import fault, identity_fault
from hpcai500.score.record.source import Source, by_name, source_of
from hpcai500.text import one_line


class Run(NamedTuple):
    files: RunFiles
    result: Result
    """Without its epochs, of which many runs would fill the memory: `points` are what is kept."""
    points: Points

    @property
    def source(self) -> Source:
        """The file of the result, written or not."""
        return self.files.source / self.files.result_name


class Collected(NamedTuple):
    runs: list[Run]
    """What may be ranked: each seed of an experiment once, by its earliest run."""
    not_ranked: list[NotRanked]
    diverged: list[Run]
    """Not ranked; they count as runs that never reached the target."""
    repeated: list[tuple[Run, Run]]
    """Runs of one experiment and seed: the one that counts, and another that is not ranked."""
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
        for file in _results(source, collected.not_ranked) if path.is_dir() else [path]:
            files.setdefault((*root, *file.parts[depth:]), source.at(file))
    is_kept = len(files) <= MOST_CHECKED  # the rules read the same files next
    found = [_read_or_reason(file, is_kept=is_kept) for file in sorted(files.values(), key=by_name)]
    first = _first_of_each_seed(run for run in found if isinstance(run, Run))
    for item in found:
        if isinstance(item, Run):
            _count(item, first[_seed_of_an_experiment(item.result)], collected)
        else:
            collected.not_ranked.append(item)
    return collected


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Python's search for reference cycles, off: it takes a fifth of a command over many results, which have none."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _read_or_reason(file: Source, *, is_kept: bool) -> Run | NotRanked:
    """The run whose result is or would be `file`: one that may be ranked, or one that diverged."""
    files = RunFiles(file.parent, result=file.on_disk.name)
    try:
        if one_line(str(file.on_disk)) != str(file.on_disk):
            raise InputError("its path has characters that no terminal or page should print", "rename the folder")
        result = newest_result(files)
        reason = None if _has_diverged(result) else _exclusion_reason(result)
    except InputError as error:
        reason = str(file.named(error))
    except OSError as error:
        reason = error.strerror or str(error)
    except MALFORMED as error:
        reason = f"malformed: {type(error).__name__}: {error}"
    if not is_kept:
        files.forget()
    if reason:
        return NotRanked(path=file, reason=one_line(reason))
    return Run(files, result.model_copy(update={"epochs": ()}), points_of(result.epochs))


def _first_of_each_seed(runs: Iterable[Run]) -> dict[tuple[Any, ...], Run]:
    """For each seed, the run that began first by its log, whatever came of it; without logs, the first by path."""
    of_seed: defaultdict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for run in runs:
        of_seed[_seed_of_an_experiment(run.result)].append(run)

    return {seed: same[0] if len(same) == 1 else min(same, key=_start_ms) for seed, same in of_seed.items()}


def _start_ms(run: Run) -> float:
    """Start of the run by its log, in ms since 1970; infinity if it has no such log."""
    try:
        with run.files.opened(LOG) as log:
            return run_start_ms(log, run.files.path(LOG))
    except (OSError, InputError):
        return math.inf


def _seed_of_an_experiment(result: Result) -> tuple[Any, ...]:
    return *result.identity.experiment, result.identity.seed


def _count(run: Run, first: Run, collected: Collected) -> None:
    """Put `run` where it belongs; `first` is the run that counts for its seed."""
    result = run.result
    diverged = one_line(_exclusion_reason(result) or "") if _has_diverged(result) else ""
    if run is not first:
        why = f"seed {result.identity.seed} of this experiment counts once: {first.source} does"
        reason = f"{diverged}; {why}" if diverged else why
        collected.not_ranked.append(NotRanked(path=run.source, reason=reason))
        collected.repeated.append((first, run))
    elif diverged:
        collected.not_ranked.append(NotRanked(path=run.source, reason=diverged))
        collected.diverged.append(run)
    else:
        collected.runs.append(run)


def _has_diverged(result: Result) -> bool:
    """Whether divergence is the only reason to leave the result out."""
    return result.status == "diverged" and len(result.unranked) == 1 and identity_fault(result) is None


def _results(folder: Source, not_ranked: list[NotRanked]) -> Iterator[Path]:
    """The place of every result below `folder`, written or not."""

    def unreadable(error: OSError) -> None:
        place = folder.at(Path(error.filename))
        not_ranked.append(NotRanked(path=place, reason=f"{error.strerror}: what lies below it is unknown"))

    for place in run_places(folder.on_disk, unreadable):
        yield place / "result.json"


def _exclusion_reason(result: Result) -> str | None:
    """Why a readable result counts nowhere: its own reasons, or figures that contradict each other."""
    if result.unranked:
        return ", ".join((*result.unranked, *([result.failure] if result.failure else []))) or "unranked"
    if result.status != "success":
        return f"status {result.status}"
    return fault(result)
