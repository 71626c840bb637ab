"""Measurements in a validation's folder, as series to compare. Lines that cannot be read become troubles."""

import stat
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, TypeAdapter, ValidationError

from hpcai500.errors import InputError
from hpcai500.files import read_json
from hpcai500.spec.models import parse
from hpcai500.validate.files import MEASUREMENTS, PLAN, Measurement, Plan, Stage, Trouble

_LONGEST_LINE = 1 << 20
_LONGEST_TEXT = 1_000
_MOST_LINES = 2_000_000
"""Lines read per writer: a file that grows without end must not block the report."""
_NEEDS_OTHERS = ("links", "collectives")


class _MeasurementLine(Measurement):
    type: Literal["measurement"]


class _TroubleLine(Trouble):
    type: Literal["trouble"]


_LINE: TypeAdapter[_MeasurementLine | _TroubleLine] = TypeAdapter(
    Annotated[_MeasurementLine | _TroubleLine, Field(discriminator="type")]
)


class Subject(NamedTuple):
    """What was measured: a node, one of its devices, a link (two nodes) or a set of nodes."""

    nodes: tuple[str, ...]
    device: str = ""

    def __str__(self) -> str:
        name = " - ".join(self.nodes) if len(self.nodes) <= 2 else f"{len(self.nodes)} nodes"
        return f"{name} {self.device}" if self.device else name


class Key(NamedTuple):
    """Identity of a series: values are comparable if metric and number of nodes are the same."""

    stage: Stage
    metric: str
    num_nodes: int


@dataclass(frozen=True, kw_only=True)
class Series:
    """One metric of all subjects that have it, in `unit`; several values per subject if it was repeated."""

    key: Key
    unit: str
    better: Literal["higher", "lower", "same"]
    is_text: bool
    values: dict[Subject, list[float | str]] = field(default_factory=dict)


class Reading(NamedTuple):
    plan: Plan
    series: dict[Key, Series]
    troubles: list[Trouble]
    """Troubles from stages, and from files that could not be read."""
    answered: dict[Stage, set[str]]
    """Nodes of the plan that a line of the stage names, other than as unreachable."""


class _Meaning(NamedTuple):
    unit: str
    better: str
    is_text: bool


def read(folder: Path) -> Reading:
    """The plan and all measurements below `folder`.

    Raises:
        InputError: if the plan is missing or cannot be read; never because of what a node wrote.
    """
    plan = _plan(folder)
    found: dict[Key, dict[_Meaning, dict[Subject, list[float | str]]]] = defaultdict(lambda: defaultdict(dict))
    troubles: list[Trouble] = []
    answered: dict[Stage, set[str]] = {stage: set() for stage in plan.stages}
    known, strangers = set(plan.nodes), Counter[str]()
    for line in _lines(folder, troubles):
        unknown = [name for name in line.nodes if name not in known]
        strangers.update(name[:_LONGEST_TEXT] for name in unknown)
        if unknown:
            continue
        if not isinstance(line, _TroubleLine) or line.kind != "unreachable":
            answered.setdefault(line.stage, set()).update(line.nodes)
        if isinstance(line, _TroubleLine):
            texts = {"message": line.message[:_LONGEST_TEXT], "remedy": line.remedy[:_LONGEST_TEXT]}
            troubles.append(Trouble(**{**line.model_dump(exclude={"type"}), **texts}))
        elif line.nodes:
            value = line.value[:_LONGEST_TEXT] if isinstance(line.value, str) else line.value
            meaning = _Meaning(line.unit, line.better, isinstance(value, str))
            subject = Subject(tuple(sorted(set(line.nodes))), line.device)
            key = Key(line.stage, line.metric, len(subject.nodes))
            found[key][meaning].setdefault(subject, []).append(value)
    if strangers:
        troubles.append(_unknown_nodes(plan, strangers))
    series = {key: _series(key, meanings, troubles) for key, meanings in sorted(found.items())}
    return Reading(plan, series, troubles, answered)


def needed(plan: Plan) -> tuple[Stage, ...]:
    """Stages that every node must answer: a single node has no links."""
    return tuple(stage for stage in plan.stages if len(plan.nodes) > 1 or stage not in _NEEDS_OTHERS)


def _plan(folder: Path) -> Plan:
    path = folder / PLAN
    if not path.is_file():
        raise InputError(f"{path}: no such file", "give the folder of a validation, as `hpcai500 validate` prints it")
    plan = parse(Plan, read_json(path), path)
    if not plan.nodes or len(set(plan.nodes)) != len(plan.nodes):
        raise InputError(f"{path}: nodes must be listed, each once", "validate again: this file was changed")
    return plan


def _lines(folder: Path, troubles: list[Trouble]) -> Iterator[_MeasurementLine | _TroubleLine]:
    measurements = folder / MEASUREMENTS
    try:
        paths = sorted(path for path in measurements.iterdir() if path.suffix == ".jsonl")
    except OSError:  # nothing was written, so no node answered
        return
    for path in paths:
        faults: list[str] = []
        try:
            yield from _file(path, faults)
        except OSError as error:
            faults.append(error.strerror or str(error))
        if faults:
            more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
            troubles.append(
                Trouble(
                    stage="inventory",
                    nodes=(),
                    kind="failed",
                    severity="warn",
                    message=f"{MEASUREMENTS}/{path.name}: {faults[0]}{more}",
                    remedy="These lines are not judged: validate again if a figure is missing. A torn last line "
                    "means that its writer was killed, or that the disk was full.",
                )
            )


def _file(path: Path, faults: list[str]) -> Iterator[_MeasurementLine | _TroubleLine]:
    if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe could block for ever
        faults.append("not a regular file")
        return
    with path.open("rb") as file:
        for number in range(1, _MOST_LINES + 1):
            text = file.readline(_LONGEST_LINE)
            if not text:
                return
            is_whole = text.endswith(b"\n")
            if not is_whole and len(text) == _LONGEST_LINE:
                faults.append(f"line {number} is longer than {_LONGEST_LINE:,} bytes; the rest is not read")
                return
            if not text.strip():
                continue
            try:
                yield _LINE.validate_json(text)
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False, include_context=False)[0]
                what = first["msg"] if is_whole else "torn"
                faults.append(f"line {number}: {what[:200]}")
        faults.append(f"more than {_MOST_LINES:,} lines; the rest is not read")


def _unknown_nodes(plan: Plan, strangers: Counter[str]) -> Trouble:
    shown = ", ".join(repr(name[:60]) for name in sorted(strangers)[:5])
    more = f" and {len(strangers) - 5} more" if len(strangers) > 5 else ""
    return Trouble(
        stage="inventory",
        nodes=(),
        kind="failed",
        severity="warn",
        message=f"{strangers.total()} lines are about nodes outside the plan and are not judged: {shown}{more}",
        remedy="Give each validation its own folder, and name nodes as Slurm does.",
    )


def _series(key: Key, meanings: dict[_Meaning, dict[Subject, list[float | str]]], troubles: list[Trouble]) -> Series:
    """Series with the unit, direction and type of most subjects; others are troubles of their nodes."""
    meaning = max(meanings, key=lambda one: (len(meanings[one]), one))
    for other in meanings:
        if other != meaning:
            nodes = sorted({name for subject in meanings[other] for name in subject.nodes})
            troubles.append(
                Trouble(
                    stage=key.stage,
                    nodes=tuple(nodes),
                    kind="failed",
                    metric=key.metric,
                    message=f"{key.metric} is {_words(other)} here and {_words(meaning)} elsewhere: not compared",
                    remedy="Run the same version of hpcai500 on every node.",
                )
            )
    better: Literal["higher", "lower", "same"] = (
        "higher" if meaning.better == "higher" else "lower" if meaning.better == "lower" else "same"
    )
    return Series(key=key, unit=meaning.unit, better=better, is_text=meaning.is_text, values=meanings[meaning])


def _words(meaning: _Meaning) -> str:
    kind = "text" if meaning.is_text else f"a number in {meaning.unit[:20]!r}"
    return f"{kind} ({'must agree' if meaning.better == 'same' else f'{meaning.better} is better'})"
