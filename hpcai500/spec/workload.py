"""workload.toml: the rules of a workload (Layers 7 to 9) as typed, frozen values."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from hpcai500.errors import SpecError, nearest
from hpcai500.files import data_dir
from hpcai500.spec.levels import Level
from hpcai500.spec.models import Frozen, parse

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, le=1)]
MOST_FLOP_BATCHES = 8
"""Limit for the batches that a run reads before its clock starts, to count FLOPs that depend on data."""
Scalar = bool | int | float | str
Table = dict[str, Scalar | tuple[Scalar, ...]]


class ProblemDomain(Frozen):
    """Layer 9, which no level may change."""

    dataset: str
    num_train_samples: Count
    num_eval_samples: Count
    metric: str
    target_quality: Fraction
    num_epochs: Count
    penalty_exponent: Count
    published_flops_per_sample: Count | None = None
    """FLOPs per sample in the convention of the published lists, if they have one."""


class Batch(Frozen):
    global_batch_size: Count
    """Samples in one optimiser step, over all ranks."""
    micro_batch_size: Count
    """Most samples in one forward pass of one rank, over which batch normalisation computes its statistics."""


class Optimizer(Frozen):
    name: Literal["sgd", "lars", "adamw"]
    learning_rate: Annotated[float, Field(gt=0)]
    """The peak for a global batch of `reference_batch_size`; it scales linearly with the global batch."""
    reference_batch_size: Count
    momentum: Annotated[float, Field(ge=0, lt=1)]
    """Momentum; for AdamW, its first beta."""
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0)]
    decay_norm_and_bias: bool = True
    """If false, one-dimensional parameters have no weight decay (and, under LARS, no trust ratio)."""
    trust_coefficient: Annotated[float, Field(gt=0)] = 0.001
    """Used only by LARS."""
    second_beta: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Used only by AdamW."""


class Schedule(Frozen):
    """Linear warm-up from zero, then a decay to `final_fraction` of the peak at the last step."""

    name: Literal["cosine", "polynomial"]
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    power: Annotated[float, Field(gt=0)] = 2.0
    """Exponent of the polynomial schedule."""
    final_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0


def _compile_mode(value: object) -> object:
    """`value` itself, with one error for all its types: the error of a union would name only one of them."""
    if not isinstance(value, bool) and value != "reduce-overhead":
        raise ValueError("input should be true, false or 'reduce-overhead'")
    return value


class Execution(Frozen):
    """How a run executes; open at every level."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = False
    compile: Annotated[bool | Literal["reduce-overhead"], BeforeValidator(_compile_mode)] = False
    """Whether torch.compile compiles the training pass; `reduce-overhead` adds CUDA graphs on a GPU."""
    fused_optimizer: bool = True
    deterministic: bool = False
    gradient_compression: Literal["none", "fp16"] = "none"
    """The precision to which gradients are rounded when they are sent between ranks."""
    stop_at_target: bool = False
    num_loader_workers: Annotated[int, Field(ge=-1)] = -1
    """Data-loader processes (or threads) per rank; -1 for as many as there are idle cores, at most 8."""
    num_flop_batches: Count = 1
    """Batches over which the FLOP count is averaged, if it needs data; at most `MOST_FLOP_BATCHES` in new runs."""
    checkpoint_epochs: Annotated[int, Field(ge=0)] = 1
    """Epochs between checkpoints; 0 for a checkpoint only when a signal stops the run."""


class Settings(Frozen):
    """All values that `--set TABLE.KEY=VALUE` can change."""

    problem: ProblemDomain
    model: Table
    data: Table
    batch: Batch
    optimizer: Optimizer
    schedule: Schedule
    execution: Execution = Execution()

    @model_validator(mode="after")
    def _warm_up_ends(self) -> "Settings":
        if self.schedule.warmup_epochs >= self.problem.num_epochs:
            raise ValueError(
                f"schedule.warmup_epochs ({self.schedule.warmup_epochs:g}) must be below "
                f"problem.num_epochs ({self.problem.num_epochs})"
            )
        return self


class PublishedList(Frozen):
    """A ranking published by others, and the convention that reproduces it."""

    file: str
    title: str
    problem: str
    level: Level
    penalty_exponent: Count
    note: str = ""


class Openings(Frozen):
    """Patterns of the settings that each level leaves open, in addition to `execution.*`."""

    hardware: tuple[str, ...]
    system: tuple[str, ...]
    free: tuple[str, ...]

    def by_level(self) -> dict[Level, tuple[str, ...]]:
        return {Level.HARDWARE: self.hardware, Level.SYSTEM: self.system, Level.FREE: self.free}


class WorkloadRules(Frozen):
    schema_version: Literal[1]
    title: str
    benchmark: str
    """MLPerf's `submission_benchmark`."""
    model: str
    levels: Openings
    published: tuple[PublishedList, ...] = ()
    problems: dict[str, Settings]


def shipped_workloads() -> list[Path]:
    """The folders of the workloads that come with the project, sorted by name."""
    return sorted(path.parent for path in data_dir("workloads").glob("*/workload.toml"))


def find_workload(name_or_path: str) -> Path:
    """The folder of a shipped workload, by name, or of a user's own, by path.

    Raises:
        SpecError: if there is none; the choices are listed.
    """
    shipped = {folder.name: folder for folder in shipped_workloads()}
    if name_or_path in shipped:
        return shipped[name_or_path]
    folder = Path(name_or_path)
    if (folder / "workload.toml").is_file():
        resolved = folder.resolve()
        if not resolved.name.isidentifier():
            raise SpecError(f"workload folder {resolved.name!r} is not a Python name", "rename it, e.g. my_resnet")
        return resolved
    if folder.is_dir():
        raise SpecError(f"{folder} has no workload.toml", "copy one from a shipped workload and change it")
    raise SpecError(
        f"unknown workload {name_or_path!r}",
        f"{nearest(name_or_path, shipped)} (have: {', '.join(sorted(shipped))}), or give a path to your own",
    )


def load_rules(folder: Path) -> WorkloadRules:
    """The parsed workload.toml of `folder`."""
    path = folder / "workload.toml"
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(f"{path}: {error}", "fix the file") from error
    return parse(WorkloadRules, raw, path)


def problem_settings(rules: WorkloadRules, problem: str) -> Settings:
    if problem not in rules.problems:
        raise SpecError(f"unknown problem {problem!r}", f"choose from {', '.join(rules.problems)}")
    return rules.problems[problem]


def settings_keys(settings: Settings) -> Iterator[str]:
    """Every dotted key that `--set` can change."""
    for table, values in settings.model_dump().items():
        yield from (f"{table}.{key}" for key in values)


def with_overrides(settings: Settings, overrides: dict[str, Any]) -> Settings:
    """`settings` with each dotted key of `overrides` replaced, checked again as a whole.

    Raises:
        SpecError: for an unknown key, or a value of another type than the one it replaces.
    """
    values = settings.model_dump(mode="json")
    for key, value in overrides.items():
        known = list(settings_keys(settings))
        if key not in known:
            raise SpecError(f"--set {key}: unknown key", nearest(key, known))
        table, name = key.split(".", 1)
        if table in ("model", "data"):
            value = _same_type(key, value, values[table][name])
        values[table][name] = value
    return parse(Settings, values, "--set")


def _same_type(key: str, value: Any, old: Any) -> Any:
    if isinstance(old, float) and type(value) is int:
        return float(value)
    if type(value) is not type(old):
        raise SpecError(
            f"--set {key}={value}: expected {type(old).__name__}, not {type(value).__name__}",
            f"give a value like {old!r}",
        )
    return value
