"""The shipped workload that a run is compared with, and which of its values a level lets a run change."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from hpcai500.errors import SpecError
from hpcai500.files import read_json
from hpcai500.spec.code import digest_code
from hpcai500.spec.layers import layer_of
from hpcai500.spec.levels import Level, opening_hint, opens
from hpcai500.spec.models import Frozen, parse
from hpcai500.spec.workload import Settings, WorkloadRules, load_rules, shipped_workloads

_TABLES_OF_CODE = ("model", "data")


class ModelReference(Frozen):
    parameters_digest: str
    num_parameters: int
    layer_flops: dict[str, float]
    """FLOPs of each layer's forward pass for one sample."""
    varying_layers: tuple[str, ...]
    """Layers whose FLOPs depend on the contents of a batch."""


class ProblemReference(Frozen):
    dataset_digest: str | None
    """Null if the data may not be redistributed, so that no digest could be taken."""
    flops_per_sample: float
    """FLOPs to train one sample, forward and backward."""
    keeps_predictions: bool
    """Whether `evaluation.json` has each sample of the last evaluation."""
    model: ModelReference


class References(Frozen):
    """`reference.json` of a shipped workload: facts that can only be found by running it."""

    schema_version: Literal[1]
    problems: dict[str, ProblemReference]


class Reference(NamedTuple):
    name: str
    code_digest: str
    rules: WorkloadRules
    settings: Settings
    known: ProblemReference | None


def find_reference(benchmark: str, problem: str) -> Reference | None:
    """The shipped workload of the same benchmark, whatever the name of the run's workload folder."""
    for folder in shipped_workloads():
        rules = load_rules(folder)
        if rules.benchmark == benchmark and problem in rules.problems:
            return Reference(
                folder.name, digest_code(folder), rules, rules.problems[problem], _known(folder, problem)
            )
    return None


def _known(folder: Path, problem: str) -> ProblemReference | None:
    path = folder / "reference.json"
    return parse(References, read_json(path), path).problems.get(problem) if path.exists() else None


Tables = Mapping[str, Mapping[str, Any]]
"""Settings as JSON, by table."""


def changes(here: Tables, reference: Settings) -> dict[str, tuple[Any, Any]]:
    """Keys that differ: dotted key to (value here, value in the reference); None for a missing key."""
    there = reference.model_dump(mode="json")
    found = {}
    for table in here:
        for key in sorted({*here[table], *there[table]}):
            pair = here[table].get(key), there[table].get(key)
            if pair[0] != pair[1]:
                found[f"{table}.{key}"] = pair
    return found


def closed_changes(level: Level, settings: Tables, reference: Reference) -> dict[str, tuple[Any, Any]]:
    """The `changes` that `level` forbids, by the reference's own rules.

    At system level another implementation may have other keys for model and data. Keys that both have must agree.
    """
    openings = reference.rules.levels.by_level()[level]
    return {
        key: pair
        for key, pair in changes(settings, reference.settings).items()
        if not opens(openings, key)
        and not (level is Level.SYSTEM and key.split(".")[0] in _TABLES_OF_CODE and None in pair)
    }


def require_reference(level: Level, benchmark: str, problem: str, settings: Settings, code_digest: str) -> None:
    """Refuse to start what `level` forbids in a user's own folder. A new problem has only free level.

    Raises:
        SpecError: naming the key or the layer, and the level that would allow it.
    """
    reference = find_reference(benchmark, problem)
    if reference is None and level is not Level.FREE:
        raise SpecError(
            f"no shipped workload has benchmark {benchmark!r} with problem {problem!r} to compare it with at "
            f"{level} level",
            "--level free runs a problem of its own",
        )
    if reference is None:
        return
    for key, (here, there) in closed_changes(level, settings.model_dump(mode="json"), reference).items():
        layer = layer_of(key)
        raise SpecError(
            f"{key} is {here!r}, not {there!r} as in {reference.name}: Layer {layer.value} ({layer.title}) is fixed "
            f"at {level} level",
            opening_hint(reference.rules.levels.by_level(), key),
        )
    if level is Level.HARDWARE and code_digest != reference.code_digest:
        raise SpecError(
            f"the workload's code is not that of {reference.name}: Layer 7 is fixed at hardware level",
            "--level system allows another implementation of the same model, --level free another model",
        )
