"""Check of results against every rule of the catalogue, from their files only."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from hpcai500.errors import HpcAi500Error
from hpcai500.score.record.folders import run_folders
from hpcai500.score.record.reading import MALFORMED
from hpcai500.score.record.result import read_result
from hpcai500.score.record.run_files import RunFiles
from hpcai500.score.record.source import Source, SourceName, by_name, source_of
from hpcai500.score.record.system import SystemRecord, read_system
from hpcai500.score.rules.catalogue import FILE_RULES, RUN_RULES, SET_RULES, Breach
from hpcai500.score.rules.evidence import Evidence, FindReference, gather
from hpcai500.score.rules.kinds import own_rules
from hpcai500.score.rules.rule import CheckedRun, CheckedSet, Unreadable
from hpcai500.spec.levels import Level
from hpcai500.spec.metrics import kind_of
from hpcai500.spec.models import Frozen
from hpcai500.spec.reference import find_reference
from hpcai500.spec.run import read_run
from hpcai500.text import counted


class Report(Frozen):
    """Result of checking one entry, whose runs differ in their seed."""

    entry: str
    """Workload, problem, level, system and experiment."""
    runs: tuple[SourceName, ...]
    breaches: tuple[Breach, ...]
    notes: tuple[str, ...]
    """What could not be checked, and what a reader should know: neither is a breach."""
    changes: tuple[str, ...]
    """Differences from the reference, allowed or not."""


def check_entry(
    folders: Sequence[Path | Source],
    *,
    whole_set: bool = True,
    framework: SystemRecord | None = None,
    opened: Mapping[Source, RunFiles] | None = None,
) -> Report:
    """Check the runs of one entry: one experiment on one system, several seeds.

    `whole_set=False` leaves out the rule on the number of runs, for a single run of a set.
    `framework` is the system of the run whose Layer 5 is the reference, at hardware level.
    `opened` holds the files of runs that have been read already, by the run's folder.
    """
    breaches: list[Breach] = []
    held: list[Evidence] = []
    find = cache(find_reference)  # all runs of an entry have the same one
    runs = sorted(map(source_of, folders), key=by_name)
    for folder in runs:
        evidence, found = _check_run(folder, framework, opened.get(folder) if opened else None, find)
        breaches += found
        held += [evidence] if evidence else []
    breaches += _set_breaches(CheckedSet(held=held, num_runs=len(runs), is_whole=whole_set))
    return Report(
        entry=_name(held[0]) if held else str(runs[0]),
        runs=tuple(runs),
        breaches=tuple(breaches),
        notes=(*_notes(held, framework, whole_set=whole_set), *_altered_notes(runs)),
        changes=tuple(dict.fromkeys(line for evidence in held for line in _disclosed_changes(evidence))),
    )


def _check_run(
    folder: Source, framework: SystemRecord | None, files: RunFiles | None, find: FindReference
) -> tuple[Evidence | None, list[Breach]]:
    """The evidence in `folder`, and its breaches; no evidence if a file or record cannot be read."""
    try:
        evidence = gather(folder, files, find)
        run = CheckedRun(evidence=evidence, kind=own_rules(evidence), framework=framework)
        found = [
            Breach(rule=rule.number, run=folder, message=message) for rule in RUN_RULES for message in rule.check(run)
        ]
    except (HpcAi500Error, *MALFORMED) as error:
        unreadable = Unreadable(source=folder, error=error)
        return None, [
            Breach(rule=rule.number, run=folder, message=message)
            for rule in FILE_RULES
            for message in rule.check(unreadable)
        ]
    return evidence, found


def breaches_of(
    folders: Sequence[Path | Source], opened: Mapping[Source, RunFiles] | None = None
) -> tuple[Breach, ...]:
    """Breaches of one entry, for a ranking's column."""
    return check_entry(folders, opened=opened).breaches


def check(paths: Iterable[Path | Source], reference: Path | None = None) -> list[Report]:
    """One report for each entry among the runs at or below `paths`.

    A path that is itself a run's folder, and the only run of its entry, is checked only against the rules for runs.

    Raises:
        InputError: for a path that does not exist or holds no run.
    """
    framework = read_system(reference / "system.json") if reference else None
    is_named: dict[Source, bool] = {}
    for source in map(source_of, paths):
        path = source.on_disk
        for folder in run_folders(path):
            is_named[source.at(folder)] = folder in (path, path.parent)
    return [
        check_entry(
            runs, whole_set=len(runs) > 1 or not all(is_named[folder] for folder in runs), framework=framework
        )
        for runs in _entries(is_named)
    ]


def _entries(folders: Iterable[Source]) -> list[list[Source]]:
    """Runs grouped by experiment as in a ranking, in however many folders they lie.

    A run of unknown experiment belongs to the entry in the same folder, if there is exactly one.
    """
    entries: dict[tuple[str, ...], list[Source]] = defaultdict(list)
    unknown = []
    for folder in sorted(folders, key=by_name):
        if experiment := _experiment(folder.on_disk):
            entries[experiment].append(folder)
        else:
            unknown.append(folder)
    known = list(entries.values())
    alone: list[list[Source]] = []
    for folder in unknown:
        beside = [runs for runs in known if any(run.parent == folder.parent for run in runs)]
        if len(beside) == 1:
            beside[0].append(folder)
        else:
            alone.append([folder])
    return sorted([*known, *alone], key=lambda runs: runs[0].name.parts)


def _experiment(folder: Path) -> tuple[str, ...] | None:
    """Key by which a ranking groups runs, from run.json, or from result.json if that cannot be read."""
    try:
        spec = read_run(folder / "run.json")
        return spec.workload.name, spec.problem, spec.level, spec.system, spec.experiment_digest
    except (HpcAi500Error, *MALFORMED):
        pass
    try:
        found = read_result(folder / "result.json").identity
        return found.workload, found.problem, found.level, found.system, found.experiment_digest
    except (HpcAi500Error, *MALFORMED):
        return None


def _disclosed_changes(evidence: Evidence) -> Iterator[str]:
    """Every difference between a run and the reference, allowed or not: free level must show them."""
    if evidence.reference is None:
        yield f"no shipped workload has benchmark {evidence.spec.workload.benchmark!r} with problem " + (
            f"{evidence.spec.problem!r}: a problem of its own"
        )
    yield from own_rules(evidence).changes()


def _name(evidence: Evidence) -> str:
    spec = evidence.spec
    return (
        f"{spec.workload.name}, {spec.problem} problem, {spec.level} level, {spec.system}, "
        f"{counted(spec.world_size, 'rank')}, {spec.experiment_digest[:8]}"
    )


def _set_breaches(entry: CheckedSet) -> Iterator[Breach]:
    if not entry.held:
        return
    where = entry.held[0].source.parent
    for rule in SET_RULES:
        yield from (Breach(rule=rule.number, run=where, message=message) for message in rule.check(entry))


def _altered_notes(runs: Sequence[Source]) -> Iterator[str]:
    faults = dict.fromkeys(run.archive.fault for run in runs if run.archive and run.archive.fault)
    yield from (f"UNVERIFIED: the archive was altered: {fault}" for fault in faults)


def _notes(held: Sequence[Evidence], framework: SystemRecord | None, *, whole_set: bool) -> Iterator[str]:
    if not held:
        return
    first = held[0]
    if not whole_set:
        yield "one run: rules 5.1 to 5.4 are about sets; give all runs of the entry, or the folder around them"
    if first.spec.level is Level.HARDWARE and framework is None:
        yield "Layer 5 was not compared with a reference (rule 4.6): --reference RUN names one"
    if first.reference and not (first.reference.known and first.reference.known.dataset_digest):
        yield "the reference has no digest of its data set (rule 4.2): compare it with other results'"
    yield from own_rules(first).notes(held)
    if kind_of(metric := first.spec.settings.problem.metric) is None:
        yield f"this version does not know the metric {metric!r}: rule 3.2 cannot check which qualities are possible"
    for evidence in held:
        for found in evidence.system.differences:
            yield (
                f"{evidence.folder.name}: {', '.join(found.hosts)} differ in Layer {found.layer}: {found.key} is "
                f"{found.here!r}, not {found.common!r}"
            )
        if evidence.system.earlier_nodes:
            yield f"{evidence.folder.name}: started on other nodes than it ended on (earlier_nodes of system.json)"
