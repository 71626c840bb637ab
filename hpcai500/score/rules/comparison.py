"""Two results side by side, layer by layer, and the strictest level at which they may be compared."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpcai500.errors import InputError
from hpcai500.score.record.source import Source, SourceName, source_of
from hpcai500.score.record.system import flat
from hpcai500.score.rules.check import check_entry
from hpcai500.score.rules.evidence import Evidence, gather
from hpcai500.score.rules.kinds import own_rules
from hpcai500.score.rules.structure import OTHER_BACKWARD, model_differences
from hpcai500.score.rules.values import same
from hpcai500.spec.layers import Layer
from hpcai500.spec.levels import Level, opens
from hpcai500.spec.models import Frozen, parse
from hpcai500.spec.reference import ModelReference

_USUALLY_OPEN = ("batch.*", "optimizer.learning_rate", "optimizer.reference_batch_size", "schedule.*")
"""Open values of Layer 8 at hardware and system level, if no shipped workload defines them."""


class Row(Frozen):
    layer: int
    key: str
    left: Any
    right: Any
    differs: bool


class Obstacle(Frozen):
    """Why two results may not be compared at a level."""

    level: Level
    layer: int
    reason: str


class Comparison(Frozen):
    left: SourceName
    right: SourceName
    rows: tuple[Row, ...]
    obstacles: tuple[Obstacle, ...]
    comparable_at: Level | None
    """The strictest level; None if they may not be compared at all."""
    cautions: tuple[str, ...]

    @property
    def verdict(self) -> str:
        if self.comparable_at is None:
            reasons = _reasons(self.obstacles, Level.FREE)
            return f"not comparable at any level: {reasons}"
        stricter = list(Level)[: list(Level).index(self.comparable_at)]
        parts = [f"comparable at {self.comparable_at} level"]
        parts += [f"not at {level} level because {_reasons(self.obstacles, level)}" for level in reversed(stricter)]
        return "; ".join(parts)


def _reasons(obstacles: tuple[Obstacle, ...], level: Level) -> str:
    return ", ".join(
        dict.fromkeys(f"Layer {found.layer} differs ({found.reason})" for found in obstacles if found.level is level)
    )


def compare(left: Path | Source, right: Path | Source) -> Comparison:
    """Comparison of the runs in two folders.

    Raises:
        InputError: if a folder is not that of a run.
    """
    left, right = source_of(left), source_of(right)
    one, other = _evidence(left), _evidence(right)
    rows = tuple(_rows(one, other))
    obstacles = tuple(_obstacles(one, other))
    closed = {found.level for found in obstacles}
    return Comparison(
        left=left,
        right=right,
        rows=rows,
        obstacles=obstacles,
        comparable_at=next((level for level in Level if level not in closed), None),
        cautions=tuple(_cautions(one, other)),
    )


def _evidence(source: Source) -> Evidence:
    folder = source.parent if source.on_disk.is_file() else source
    if not (folder / "run.json").on_disk.exists():
        raise InputError("no run.json there", "give the folder of a run", at=source.name)
    return gather(folder)


def _rows(one: Evidence, other: Evidence) -> Iterator[Row]:
    left, right = own_rules(one).layers(), own_rules(other).layers()
    for number in range(1, 10):
        here, there = dict(flat(left[number])), dict(flat(right[number]))
        for key in sorted({*here, *there}):
            pair = here.get(key), there.get(key)
            yield Row(layer=number, key=key, left=pair[0], right=pair[1], differs=not same(*pair))


def _obstacles(one: Evidence, other: Evidence) -> Iterator[Obstacle]:
    for reason in _problem(one, other):
        yield from (Obstacle(level=level, layer=Layer.PROBLEM_DOMAIN, reason=reason) for level in Level)
    if reason := own_rules(one).free_only or own_rules(other).free_only:
        for level in (Level.HARDWARE, Level.SYSTEM):
            yield Obstacle(level=level, layer=Layer.WORKLOAD_IMPLEMENTATION, reason=reason)
        return
    for layer, reason in (*_model(one, other), *_fixed_values(one, other)):
        yield from (Obstacle(level=level, layer=layer, reason=reason) for level in (Level.HARDWARE, Level.SYSTEM))
    if one.spec.workload.code_digest != other.spec.workload.code_digest:
        yield Obstacle(level=Level.HARDWARE, layer=Layer.WORKLOAD_IMPLEMENTATION, reason="another code digest")
    for reason in _frameworks(one, other):
        yield Obstacle(level=Level.HARDWARE, layer=Layer.FRAMEWORK, reason=reason)


def _frameworks(one: Evidence, other: Evidence) -> Iterator[str]:
    here, there = one.system.frameworks(), other.system.frameworks()
    if not (here and there):
        yield "it was not captured"
    for name in sorted(here.keys() & there.keys()):
        if here[name] != there[name] or len(here[name]) > 1:
            yield f"{name} {' and '.join(here[name])} / {' and '.join(there[name])}"


def _problem(one: Evidence, other: Evidence) -> Iterator[str]:
    here, there = (evidence.spec.settings.problem.model_dump() for evidence in (one, other))
    yield from (f"{key} {here[key]} / {there[key]}" for key in here if here[key] != there[key])
    digests = [str(evidence.result.identity.dataset_digest)[:8] for evidence in (one, other)]
    if one.result.identity.dataset_digest != other.result.identity.dataset_digest:
        yield f"data set {digests[0]} / {digests[1]}"


def _model(one: Evidence, other: Evidence) -> Iterator[tuple[Layer, str]]:
    here, there = _structure(one), _structure(other)
    if not (here and there):
        yield Layer.WORKLOAD_IMPLEMENTATION, "a model's structure was not captured"
        return
    varying = (*here.varying_layers, *there.varying_layers)
    other_model = there.model_copy(update={"varying_layers": varying})
    lines = model_differences(here, other_model, whose="the other's")
    yield from ((Layer.WORKLOAD_IMPLEMENTATION, line) for line in lines)
    sizes = [e.result.flops.per_sample for e in (one, other) if e.result.flops]
    if len(sizes) == 2 and not math.isclose(*sizes, rel_tol=OTHER_BACKWARD):
        yield Layer.WORKLOAD_IMPLEMENTATION, f"FLOPs to train a sample {sizes[0]:g} / {sizes[1]:g}"


def _structure(evidence: Evidence) -> ModelReference | None:
    found = evidence.system.layer(7).get("structure")
    if found is None:
        return None
    fields = {name: found.get(name) for name in ModelReference.model_fields} if isinstance(found, dict) else {}
    return parse(ModelReference, fields, evidence.folder / "system.json", "Layer 7, structure")


def _fixed_values(one: Evidence, other: Evidence) -> Iterator[tuple[Layer, str]]:
    reference = one.reference or other.reference
    openings = reference.rules.levels.system if reference else _USUALLY_OPEN
    here, there = own_rules(one).layers(), own_rules(other).layers()
    for layer in (Layer.WORKLOAD_IMPLEMENTATION, Layer.HYPER_PARAMETERS):
        tables = ("model", "data") if layer is Layer.WORKLOAD_IMPLEMENTATION else ("batch", "optimizer", "schedule")
        left, right = (dict(flat({t: layers[layer][t] for t in tables})) for layers in (here, there))
        for key in sorted(left.keys() & right.keys()):
            if not same(left[key], right[key]) and not opens(openings, key):
                yield layer, f"{key} {left[key]} / {right[key]}"


def _cautions(one: Evidence, other: Evidence) -> Iterator[str]:
    here, there = one.spec.settings.execution.precision, other.spec.settings.execution.precision
    if here != there:
        yield f"FLOPS of different precision are not comparable: {here} / {there}"
    if one.spec.level != other.spec.level:
        yield f"made at different levels, each with its own ranking: {one.spec.level} / {other.spec.level}"
    for evidence in (one, other):
        if evidence.result.unranked:
            yield f"{evidence.folder.name} is never ranked: {', '.join(evidence.result.unranked)}"
        broken = sorted({breach.rule for breach in check_entry([evidence.source], whole_set=False).breaches})
        if broken:
            yield f"{evidence.folder.name} breaches rules {', '.join(broken)}: see `hpcai500 check`"
