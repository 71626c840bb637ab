"""Ordering entries by Valid FLOPS, or by another metric."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from hpcai500.errors import InputError
from hpcai500.score.ranking.collection import Run
from hpcai500.score.ranking.entries import Entry, RankedList, RunFigures
from hpcai500.score.ranking.figures import placed, summaries
from hpcai500.score.ranking.metrics import By
from hpcai500.score.ranking.scaling import ScalingSeries, Size, scaling, sensitivity
from hpcai500.score.record.limits import MOST_CHECKED
from hpcai500.score.record.reading import MALFORMED
from hpcai500.score.record.result import Identity, Result
from hpcai500.score.record.run_files import LOG, RUN, RunFiles
from hpcai500.score.record.source import Source
from hpcai500.score.record.valid_flops import valid_flops
from hpcai500.score.rules.check import breaches_of
from hpcai500.spec.workload import load_rules, shipped_workloads

_GROWS = ("batch.*", "optimizer.learning_rate", "optimizer.reference_batch_size", "schedule.warmup_epochs")
"""What may differ between sizes of one scaling series."""


def rank(
    runs: Iterable[Run],
    penalty_exponent: int | None = None,
    *,
    by: By = "vflops",
    diverged: Iterable[Run] = (),
    exponents: Sequence[int] = (),
) -> list[RankedList]:
    """One list for each benchmark, problem, level and target; equal means share a rank.

    A changed copy of a workload is in the same list as the original, whatever its folder is called.

    `penalty_exponent` scores every result with another exponent than its own. `diverged` runs count as ones that
    never reached the target, in the entry that they belong to. With `exponents` each list shows how its order moves
    with n.
    """
    lists: dict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for run in runs:
        identity, score = run.result.identity, run.result.score
        assert score is not None
        lists[
            *list_name(identity), identity.problem, identity.level.value,
            score.metric, score.target_quality, penalty_exponent or score.penalty_exponent,
        ].append(run)  # fmt: skip
    lost: dict[tuple[Any, ...], int] = defaultdict(int)
    for run in diverged:
        lost[run.result.identity.experiment] += 1
    return [_rank_list(key, members, lost, by, exponents) for key, members in sorted(lists.items())]


def list_name(identity: Identity) -> tuple[str, str]:
    """Workload and title of a result's list: those of the shipped workload of the same benchmark."""
    return _shipped().get(identity.benchmark or "", (identity.workload, identity.title))


@cache
def _shipped() -> dict[str, tuple[str, str]]:
    rules = {folder.name: load_rules(folder) for folder in shipped_workloads()}
    return {found.benchmark: (name, found.title) for name, found in rules.items()}


def with_compliance(lists: Iterable[RankedList], runs: Iterable[Run]) -> list[RankedList]:
    """`lists`, with each entry checked by the rules of its level; with more than 200 runs, none is."""
    every = list(lists)
    if sum(len(entry.runs) for ranked in every for entry in ranked.entries) > MOST_CHECKED:
        return every
    opened = {run.files.source: run.files for run in runs}
    return [
        ranked.model_copy(update={"entries": tuple(_checked(entry, opened) for entry in ranked.entries)})
        for ranked in every
    ]


def _checked(entry: Entry, opened: Mapping[Source, RunFiles]) -> Entry:
    folders = [run.path for run in entry.runs]
    if not all(opened[folder].exists(name) for folder in folders for name in (LOG, RUN)):
        return entry
    return entry.model_copy(update={"num_breaches": len(breaches_of(folders, opened))})


def _rank_list(
    key: tuple[Any, ...],
    runs: Sequence[Run],
    lost: dict[tuple[Any, ...], int],
    by: By,
    exponents: Sequence[int],
) -> RankedList:
    workload, title, problem, level, metric, target, exponent = key
    groups: dict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.result.identity.experiment].append(run)
    entries = placed([_entry(members, exponent, lost.get(name, 0)) for name, members in groups.items()], by)
    points = [[(run.flops, run.achieved_quality) for run in entry.runs] for entry in entries]
    return RankedList(
        workload=workload,
        title=title,
        problem=problem,
        level=level,
        metric=metric,
        target_quality=target,
        penalty_exponent=exponent,
        by=by,
        entries=tuple(entries),
        scaling=_scaling(list(groups.values())),
        sensitivity=sensitivity(points, target, exponents) if exponents else None,
    )


def _entry(runs: Sequence[Run], exponent: int, num_diverged: int) -> Entry:
    ordered = sorted(runs, key=lambda run: run.result.identity.seed)
    result = ordered[0].result
    identity = result.identity
    figures = [_figures(run, exponent) for run in ordered]
    epochs = [float(run.result.num_epochs) for run in ordered] + [float(result.num_epochs)] * num_diverged
    return Entry(
        system=identity.system,
        accelerator=identity.accelerator,
        world_size=identity.world_size,
        nodes=identity.nodes,
        backend=identity.backend,
        precision=identity.precision,
        experiment_digest=identity.experiment_digest,
        seeds=tuple(f.seed for f in figures),
        num_diverged=num_diverged,
        unverified=any(run.source.is_altered for run in runs),
        overrides=tuple(f"{key}={value}" for key, value in {**_own_workload(identity), **result.overrides}.items()),
        runs=tuple(figures),
        **summaries(figures, num_diverged, identity.world_size, epochs),
    )


def _own_workload(identity: Identity) -> dict[str, str]:
    """How a changed copy of a workload differs in name from the original."""
    return {} if identity.workload == list_name(identity)[0] else {"workload": identity.workload}


def _figures(run: Run, exponent: int) -> RunFigures:
    result = run.result
    score, flops, time = result.score, result.flops, result.time
    assert score is not None
    assert flops is not None
    assert time is not None
    vflops = valid_flops(flops.flops, score.achieved_quality, score.target_quality, exponent)
    per_watt = score.vflops_per_watt
    return RunFigures(
        seed=result.identity.seed,
        run_id=result.identity.run_id,
        path=run.files.source,
        achieved_quality=score.achieved_quality,
        flops=flops.flops,
        vflops=vflops,
        vflops_per_watt=per_watt and per_watt * vflops / score.vflops,
        total_sec=time.total_sec,
        train_sec=time.train_sec,
        eval_sec=time.eval_sec,
        init_sec=time.init_sec,
        time_to_quality_sec=score.time_to_quality_sec,
        epochs_to_quality=score.epochs_to_quality,
        energy_joules=result.energy.joules if result.energy else None,
        num_interruptions=len(result.interruptions),
        interrupted_sec=sum(stop.down_sec + stop.lost_sec for stop in result.interruptions),
    )


def _scaling(entries: Sequence[Sequence[Run]]) -> tuple[ScalingSeries, ...]:
    """Series of the entries whose system is in the list at several sizes."""
    by_series: dict[tuple[str, ...], dict[str, list[Sequence[Run]]]] = defaultdict(lambda: defaultdict(list))
    for members in entries:
        result = members[0].result
        by_series[_series(result)][result.identity.code_digest].append(members)
    sizes = [
        _size((*series, *([f"code {code[:8]}"] if len(by_code) > 1 else [])), members)
        for series, by_code in by_series.items()
        for code, same in by_code.items()
        if len({members[0].result.identity.world_size for members in same}) > 1
        for members in same
    ]
    return scaling(sizes)


def _series(result: Result) -> tuple[str, ...]:
    identity = result.identity
    kept = sorted(
        f"{key}={value}" for key, value in result.overrides.items()
        if not any(fnmatchcase(key, pattern) for pattern in _GROWS)
    )  # fmt: skip
    return identity.system, identity.accelerator, identity.backend, identity.precision, *kept


def _size(series: tuple[str, ...], members: Sequence[Run]) -> Size:
    result = members[0].result
    batch = _global_batch_size(members[0].files)
    found = batch if batch is not None else result.overrides.get("batch.global_batch_size")
    flops = [run.result.flops.flops for run in members if run.result.flops]
    return Size(
        series=series,
        experiment_digest=result.identity.experiment_digest,
        world_size=result.identity.world_size,
        nodes=result.identity.nodes,
        global_batch_size=found if isinstance(found, int) and found > 0 else None,
        flops=sum(flops) / len(flops),
    )


def _global_batch_size(files: RunFiles) -> Any:
    """The batch of run.json, of whatever type; None if there is no record that can be read."""
    try:
        return files.record(RUN)["settings"]["batch"]["global_batch_size"]
    except (InputError, *MALFORMED):
        return None
