"""Ordering entries by Valid FLOPS: our own results, and lists that others published."""

import csv
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from hpcai500.errors import InputError
from hpcai500.score.metric import published_flops, valid_flops
from hpcai500.score.result import Result, derive, read_result
from hpcai500.score.statistics import Summary, summarize
from hpcai500.spec.models import Frozen, parse
from hpcai500.spec.workload import load_rules, problem_settings


class LeftOut(NamedTuple):
    """A result that counts nowhere, and why."""

    path: str
    reason: str


class Collected(NamedTuple):
    results: list[Result]
    left_out: list[LeftOut]
    published: list[Path]


class Entry(Frozen):
    """Runs of one experiment on one system, over seeds."""

    rank: int
    system: str
    accelerator: str
    world_size: int
    nodes: int
    backend: str
    precision: str
    experiment_digest: str
    seeds: tuple[int, ...]
    overrides: tuple[str, ...]
    quality: Summary
    flops: Summary
    vflops: Summary
    vflops_per_watt: Summary
    time_sec: Summary
    time_to_quality_sec: Summary
    epochs_to_quality: Summary


class RankedList(Frozen):
    """Entries that may be compared: one workload, one problem, one level, one exponent."""

    workload: str
    title: str
    problem: str
    level: str
    metric: str
    target_quality: float
    penalty_exponent: int
    entries: tuple[Entry, ...]


class PublishedEntry(Frozen):
    rank: int
    """By our recomputation."""
    published_rank: int
    source: str
    accelerator: str
    accelerator_count: int
    framework: str
    time_sec: float
    achieved_quality: float
    flops: float
    vflops: float
    published_vflops: float

    @property
    def ratio(self) -> float:
        """Ours over the published figure."""
        return self.vflops / self.published_vflops


class PublishedRankedList(Frozen):
    workload: str
    title: str
    problem: str
    level: str
    convention: str
    target_quality: float
    penalty_exponent: int
    note: str
    entries: tuple[PublishedEntry, ...]


def collect(paths: Iterable[Path]) -> Collected:
    """Every result.json at or below `paths`, and the published lists (CSV files) among them.

    Raises:
        InputError: for a path that does not exist.
    """
    collected = Collected([], [], [])
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder", "run `hpcai500 run` first, or name another path")
        if path.suffix == ".csv":
            collected.published.append(path)
            continue
        for file in _results(path) if path.is_dir() else [path]:
            try:
                result = newest_result(file)
            except InputError as error:
                collected.left_out.append(LeftOut(str(file), str(error)))
                continue
            if result.unranked:
                reason = ", ".join((*result.unranked, *([result.failure] if result.failure else [])))
                collected.left_out.append(LeftOut(str(file), reason))
            else:
                collected.results.append(result)
    return collected


def _results(folder: Path) -> list[Path]:
    """The place of every result below `folder`, written or not."""
    places = {file.parent / "result.json" for name in ("result.json", "run.json") for file in folder.rglob(name)}
    return sorted(places)


def newest_result(file: Path) -> Result:
    """`result.json`, or what follows from the run's files where they are newer, as after a job that was killed."""
    log = file.parent / "events.log"
    if file.exists() and not (log.exists() and log.stat().st_mtime > file.stat().st_mtime):
        return read_result(file)
    return derive(file.parent) if (file.parent / "run.json").exists() else read_result(file)


def rank(results: Iterable[Result], penalty_exponent: int | None = None) -> list[RankedList]:
    """One list for each workload, problem, level and target; entries by mean VFLOPS, equal means share a rank.

    `penalty_exponent` scores every result with another exponent than its own.
    """
    lists: dict[tuple[str, ...], list[Result]] = defaultdict(list)
    for result in results:
        assert result.score is not None
        identity, score = result.identity, result.score
        exponent = penalty_exponent or score.penalty_exponent
        lists[
            identity.workload, identity.title, identity.problem, identity.level.value,
            score.metric, repr(score.target_quality), str(exponent),
        ].append(result)  # fmt: skip
    return [_rank_list(key, members) for key, members in sorted(lists.items())]


def _rank_list(key: tuple[str, ...], results: Sequence[Result]) -> RankedList:
    workload, title, problem, level, metric, target, exponent = key
    groups: dict[tuple[str, ...], list[Result]] = defaultdict(list)
    for result in results:
        identity = result.identity
        groups[identity.system, identity.accelerator, identity.experiment_digest].append(result)
    entries = [_entry(members, int(exponent)) for members in groups.values()]
    entries.sort(key=lambda entry: (-_mean(entry.vflops), entry.system, entry.experiment_digest))
    means = [_mean(entry.vflops) for entry in entries]
    return RankedList(
        workload=workload,
        title=title,
        problem=problem,
        level=level,
        metric=metric,
        target_quality=float(target),
        penalty_exponent=int(exponent),
        entries=tuple(
            entry.model_copy(update={"rank": 1 + means.index(mean)})
            for entry, mean in zip(entries, means, strict=True)
        ),
    )


def _mean(summary: Summary) -> float:
    return summary.mean or 0.0


def _entry(results: Sequence[Result], exponent: int) -> Entry:
    identity = results[0].identity
    ordered = sorted(results, key=lambda result: result.identity.seed)
    scores = [r.score for r in ordered if r.score]
    flops = [r.flops.flops for r in ordered if r.flops]
    rescored = [
        valid_flops(f, s.achieved_quality, s.target_quality, exponent) for f, s in zip(flops, scores, strict=True)
    ]
    per_watt = [
        s.vflops_per_watt * new / s.vflops if s.vflops_per_watt and s.vflops else None
        for s, new in zip(scores, rescored, strict=True)
    ]
    return Entry(
        rank=0,
        system=identity.system,
        accelerator=identity.accelerator,
        world_size=identity.world_size,
        nodes=identity.nodes,
        backend=identity.backend,
        precision=identity.precision,
        experiment_digest=identity.experiment_digest,
        seeds=tuple(r.identity.seed for r in ordered),
        overrides=tuple(f"{key}={value}" for key, value in results[0].overrides.items()),
        quality=summarize([s.achieved_quality for s in scores]),
        flops=summarize(flops),
        vflops=summarize(rescored),
        vflops_per_watt=summarize(per_watt),
        time_sec=summarize([r.time.total_sec for r in ordered if r.time]),
        time_to_quality_sec=summarize([s.time_to_quality_sec for s in scores]),
        epochs_to_quality=summarize([s.epochs_to_quality for s in scores]),
    )


class _PublishedRow(Frozen):
    rank: int
    source: str
    accelerator: str
    accelerator_count: int
    framework: str
    minutes: float = Field(gt=0)
    top1_percent: float = Field(gt=0, le=100)
    vpflops: float = Field(gt=0)


def rank_published(path: Path, penalty_exponent: int | None = None) -> PublishedRankedList:
    """A published list, scored again from its minutes and accuracies by the convention in its workload.toml.

    Raises:
        InputError: if the workload.toml above `path` does not name it, or a row is malformed.
    """
    folder = path.resolve().parent.parent
    rules = load_rules(folder)
    known = {(folder / published.file).resolve(): published for published in rules.published}
    if path.resolve() not in known:
        raise InputError(f"{path}: not named in {folder / 'workload.toml'}", "add a [[published]] table there")
    published = known[path.resolve()]
    problem = problem_settings(rules, published.problem).problem
    per_sample = problem.published_flops_per_sample
    if per_sample is None:
        raise InputError(f"{folder / 'workload.toml'}: no published_flops_per_sample", "add it to the problem")
    exponent = penalty_exponent or published.penalty_exponent
    entries = []
    for row in _published_rows(path):
        time_sec = row.minutes * 60
        quality = row.top1_percent / 100
        flops = published_flops(per_sample, problem.num_epochs, problem.num_train_samples, time_sec)
        entries.append(
            PublishedEntry(
                rank=0,
                published_rank=row.rank,
                source=row.source,
                accelerator=row.accelerator,
                accelerator_count=row.accelerator_count,
                framework=row.framework,
                time_sec=time_sec,
                achieved_quality=quality,
                flops=flops,
                vflops=valid_flops(flops, quality, problem.target_quality, exponent),
                published_vflops=row.vpflops * 1e15,
            )
        )
    entries.sort(key=lambda entry: -entry.vflops)
    return PublishedRankedList(
        workload=folder.name,
        title=f"{rules.title}: {published.title}",
        problem=published.problem,
        level=published.level,
        convention=f"{per_sample / 1e9:g} GFLOPs an image, {problem.num_epochs} epochs",
        target_quality=problem.target_quality,
        penalty_exponent=exponent,
        note=published.note,
        entries=tuple(e.model_copy(update={"rank": r}) for r, e in enumerate(entries, start=1)),
    )


_NUMBERS = {"rank": int, "accelerator_count": int, "minutes": float, "top1_percent": float, "vpflops": float}


def _published_rows(path: Path) -> list[_PublishedRow]:
    rows = []
    with path.open(encoding="utf-8", newline="") as file:
        for number, raw in enumerate(csv.DictReader(file), start=2):
            try:
                values = {key: _NUMBERS.get(key, str)(value) for key, value in raw.items()}
            except (TypeError, ValueError) as error:
                raise InputError(f"{path}:{number}: {error}", "mend the row") from error
            rows.append(parse(_PublishedRow, values, f"{path}:{number}"))
    return rows
