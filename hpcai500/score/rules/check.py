"""Is a result what its level says it is? Every rule of docs/levels-and-rules.md, held against files alone."""

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
from hpcai500.score.rules.catalogue import MOST_UNCONVERGED, NUM_RUNS, Breach
from hpcai500.score.rules.evidence import Evidence, gather
from hpcai500.score.rules.kinds import own_rules
from hpcai500.score.rules.layer_rules import layer_findings
from hpcai500.score.rules.record_rules import record_findings
from hpcai500.score.rules.training_rules import training_findings
from hpcai500.spec.levels import Level
from hpcai500.spec.metrics import kind_of
from hpcai500.spec.models import Frozen
from hpcai500.spec.reference import find_reference
from hpcai500.spec.run import read_run


class Report(Frozen):
    """What was found of one entry: runs that differ in their seed."""

    entry: str
    """Workload, problem, level, system and experiment."""
    runs: tuple[SourceName, ...]
    breaches: tuple[Breach, ...]
    notes: tuple[str, ...]
    """What could not be told, and what a reader should know: neither is a breach."""
    changes: tuple[str, ...]
    """In what the entry differs from the reference, allowed or not."""


def check_entry(
    folders: Sequence[Path | Source],
    *,
    whole_set: bool = True,
    framework: SystemRecord | None = None,
    opened: Mapping[Source, RunFiles] | None = None,
) -> Report:
    """Hold the runs of one entry (one experiment on one system, several seeds) against the rules.

    `whole_set=False` leaves out the rules on how many runs there are, for a single run of a set.
    `framework` is the system of the run whose Layer 5 is the reference, at hardware level.
    `opened` holds the files of runs that have been read already, by the run's folder.
    """
    breaches: list[Breach] = []
    held: list[Evidence] = []
    find = cache(find_reference)  # of one entry, all runs have the same
    runs = sorted(map(source_of, folders), key=by_name)
    for folder in runs:
        try:
            evidence = gather(folder, opened.get(folder) if opened else None, find)
            kind = own_rules(evidence)
            found = [*record_findings(evidence, kind), *training_findings(evidence)]
            found += layer_findings(evidence, kind, framework)
        except HpcAi500Error as error:
            breaches.append(Breach(rule="1.1", run=folder, message=str(folder.named(error))))
            continue
        except MALFORMED as error:
            message = f"a record is not of the form that it must have ({type(error).__name__}: {error})"
            breaches.append(Breach(rule="1.1", run=folder, message=message))
            continue
        held.append(evidence)
        breaches += [Breach(rule=rule, run=folder, message=message) for rule, message in found]
    breaches += _set_breaches(held, len(runs), whole_set=whole_set)
    return Report(
        entry=_name(held[0]) if held else str(runs[0]),
        runs=tuple(runs),
        breaches=tuple(breaches),
        notes=(*_notes(held, framework, whole_set=whole_set), *_altered_notes(runs)),
        changes=tuple(dict.fromkeys(line for evidence in held for line in _disclosed_changes(evidence))),
    )


def breaches_of(
    folders: Sequence[Path | Source], opened: Mapping[Source, RunFiles] | None = None
) -> tuple[Breach, ...]:
    """The breaches of one entry's runs, for a ranking's column."""
    return check_entry(folders, opened=opened).breaches


def check(paths: Iterable[Path | Source], reference: Path | None = None) -> list[Report]:
    """One report for each entry among the runs at or below `paths`.

    A path that is itself the folder of a run, and the only run of its entry, is held against the rules of runs alone.

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
    """The runs of each experiment, in however many folders they lie, as a ranking takes them.

    A run that does not say what it is of belongs to the entry beside it, if there is one only.
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
    """What a ranking groups runs by, from run.json, or from result.json if that cannot be read."""
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
    """Everything in which a run differs from the reference, allowed or not: what free level must show."""
    if evidence.reference is None:
        yield f"no shipped workload has benchmark {evidence.spec.workload.benchmark!r} with problem " + (
            f"{evidence.spec.problem!r}: a problem of its own"
        )
    yield from own_rules(evidence).changes()


def _name(evidence: Evidence) -> str:
    spec = evidence.spec
    return (
        f"{spec.workload.name}, {spec.problem} problem, {spec.level} level, {spec.system}, "
        f"{spec.world_size} ranks, {spec.experiment_digest[:8]}"
    )


def _set_breaches(held: Sequence[Evidence], num_runs: int, *, whole_set: bool) -> Iterator[Breach]:
    if not held:
        return
    where = held[0].source.parent
    by_seed: dict[int, list[str]] = defaultdict(list)
    for evidence in held:
        by_seed[evidence.spec.seed].append(evidence.folder.name)
    for seed, names in sorted(by_seed.items()):
        if len(names) > 1:
            yield Breach(
                rule="5.1", run=where, message=f"seed {seed} stands in {len(names)} runs: {', '.join(names)}"
            )
    by_rows: dict[tuple[tuple[float, str, str], ...], list[str]] = defaultdict(list)
    for evidence in held:
        rows = tuple((row.quality, f"{row.train_sec:.5g}", f"{row.eval_sec:.5g}") for row in evidence.epochs)
        by_rows[rows].append(evidence.folder.name)
    for same, names in by_rows.items():
        if same and len(names) > 1:
            message = f"{len(names)} runs have the same qualities and times: {', '.join(names)}"
            yield Breach(rule="5.1", run=where, message=message)
    if whole_set and num_runs < NUM_RUNS:
        yield Breach(rule="5.2", run=where, message=f"{num_runs} of {NUM_RUNS} runs")
    unconverged = [evidence.folder.name for evidence in held if not evidence.converged]
    if len(unconverged) > MOST_UNCONVERGED:
        message = f"{len(unconverged)} runs did not reach the target: {', '.join(unconverged)}"
        yield Breach(rule="5.3", run=where, message=message)
    for name, values in _shared(held).items():
        if len(values) > 1:
            yield Breach(rule="5.4", run=where, message=f"the runs differ in {name}: {', '.join(sorted(values))}")


def _shared(held: Sequence[Evidence]) -> dict[str, set[str]]:
    """What must be equal in all runs of an entry, and the values that stand there."""
    return {
        "experiment": {evidence.spec.experiment_digest[:16] for evidence in held},
        "system": {evidence.spec.system for evidence in held},
        "accelerator": {evidence.result.identity.accelerator for evidence in held},
        "processor": {_processors(evidence.system) for evidence in held},
        "data set": {str(evidence.dataset_digest) for evidence in held},
        "Layer 5": {str(evidence.system.frameworks()) for evidence in held},
        "model": {str(evidence.structure and evidence.structure.parameters_digest) for evidence in held},
    }


def _processors(system: SystemRecord) -> str:
    return " and ".join(sorted({str(kind.layers.get("1", {}).get("cpu_model")) for kind in system.kinds}))


def _altered_notes(runs: Sequence[Source]) -> Iterator[str]:
    faults = dict.fromkeys(run.archive.fault for run in runs if run.archive and run.archive.fault)
    yield from (f"UNVERIFIED: the archive was altered: {fault}" for fault in faults)


def _notes(held: Sequence[Evidence], framework: SystemRecord | None, *, whole_set: bool) -> Iterator[str]:
    if not held:
        return
    first = held[0]
    if not whole_set:
        yield "one run: rules 5.1 to 5.4 speak of sets; give all runs of the entry, or the folder around them"
    if first.spec.level is Level.HARDWARE and framework is None:
        yield "Layer 5 was held against no reference (rule 4.6): --reference RUN names one"
    if first.reference and not (first.reference.known and first.reference.known.dataset_digest):
        yield "the reference has no digest of its data set (rule 4.2): compare it with other results'"
    yield from own_rules(first).notes(held)
    if kind_of(metric := first.spec.settings.problem.metric) is None:
        yield f"this version does not know the metric {metric!r}: rule 3.2 cannot tell which qualities are possible"
    for evidence in held:
        for found in evidence.system.differences:
            yield (
                f"{evidence.folder.name}: {', '.join(found.hosts)} differ in Layer {found.layer}: {found.key} is "
                f"{found.here!r}, not {found.common!r}"
            )
        if evidence.system.earlier_nodes:
            yield f"{evidence.folder.name}: was begun on other nodes than it ended on (earlier_nodes of system.json)"
