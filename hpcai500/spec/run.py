"""RunSpec: one run with one seed. It is resolved, frozen and written before anything starts."""

import re
import tomllib
from collections.abc import Sequence
from datetime import date, time
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from hpcai500.errors import OccupiedError, SpecError
from hpcai500.files import digest, new_folder, read_json, storage, write_atomic
from hpcai500.spec.code import code_files, digest_code, require_data_tools_apart
from hpcai500.spec.foreign_run import ForeignRun, without_placeholders
from hpcai500.spec.levels import Level, require_open
from hpcai500.spec.models import parse
from hpcai500.spec.record import NAME, RunRecord
from hpcai500.spec.reference import require_reference
from hpcai500.spec.workload import (
    MOST_FLOP_BATCHES,
    Settings,
    find_workload,
    load_rules,
    problem_settings,
    with_overrides,
)

_MOST_SEEDS = 10_000


class RunSpec(RunRecord):
    """The `run.json` of a run that this harness trains, with all values resolved."""

    backend: Literal["torch", "horovod"] = "torch"
    launcher: Annotated[str, Field(pattern=NAME)] = "local"
    """The launcher that starts the ranks: a name from `hpcai500.launch.launchers`."""
    settings: Settings
    overrides: dict[str, Any] = Field(default_factory=dict)
    """Changes by `--set` and its short forms: dotted key to new value."""
    unranked: bool = False
    """A trial: any key may be overridden, and the result is never ranked."""
    staging: str = ""
    """A folder on each node's own disk, to which the data is copied before the clock starts; empty for none."""
    resume_from: str = ""
    """The folder of another run whose newest checkpoint this run starts from. Such a run is never ranked."""

    @model_validator(mode="after")
    def _ranks_share_the_batch(self) -> "RunSpec":
        if self.settings.batch.global_batch_size % self.world_size:
            raise ValueError(
                f"batch.global_batch_size ({self.settings.batch.global_batch_size}) must be a multiple of "
                f"the number of ranks ({self.world_size})"
            )
        return self

    @property
    def micro_batch_size(self) -> int:
        """The largest divisor of a rank's share that is at most `batch.micro_batch_size`."""
        share = self.samples_per_rank
        limit = min(share, self.settings.batch.micro_batch_size)
        return next(size for size in range(limit, 0, -1) if share % size == 0)

    @property
    def optimizer_name(self) -> str:
        return self.settings.optimizer.name

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate after warm-up, for the run's global batch."""
        optimizer = self.settings.optimizer
        return optimizer.learning_rate * self.settings.batch.global_batch_size / optimizer.reference_batch_size

    @property
    def gradient_share(self) -> float:
        """Bytes of a gradient that are sent between ranks, divided by its bytes in fp32."""
        return 0.5 if self.settings.execution.gradient_compression == "fp16" else 1.0

    @property
    def stops_at_target(self) -> bool:
        return self.settings.execution.stop_at_target

    @property
    def unranked_reasons(self) -> tuple[str, ...]:
        reasons = [*super().unranked_reasons]
        if self.unranked:
            reasons.append("a trial (--unranked)")
        if self.resume_from:
            reasons.append("starts from another run's checkpoint")
        return tuple(reasons)

    def source_code(self) -> list[Path]:
        """Files of `workload.folder` that are the workload's source."""
        return code_files(Path(self.workload.folder))

    def compared_settings(self) -> dict[str, dict[str, Any]]:
        return self.settings.model_dump(mode="json")

    @property
    def experiment_digest(self) -> str:
        """SHA-256 over everything that can change a result, except seed, system and folders."""
        return digest(self._identity() | ({"continues": True} if self.resume_from else {}))

    @property
    def training_digest(self) -> str:
        """Like `experiment_digest`, without how ranks communicate.

        Runs that share it can resume from each other's checkpoints.
        """
        record = self._identity()
        for field in ("backend", "unranked", "nodes", "procs_per_node", "num_ranks"):
            del record[field]
        del record["settings"]["execution"]["gradient_compression"]
        return digest(record | {"world_size": self.world_size})

    def _identity(self) -> dict[str, Any]:
        not_digested = {
            "seed", "system", "output", "staging", "data", "overrides", "hpcai500_version", "launcher", "resume_from",
        }  # fmt: skip
        record = self.model_dump(mode="json", exclude=not_digested)
        del record["workload"]["folder"]
        return record | {"synthetic": self.is_synthetic}

    def with_seed(self, seed: int) -> "RunSpec":
        """The run of the same experiment with another seed."""
        return parse(RunSpec, self.model_dump(mode="json") | {"seed": seed}, "run")

    @property
    def run_prefix(self) -> str:
        """The path of `folder` up to its seed: the same for all seeds."""
        return str(self._folder_of_runs / self._run_stem)

    def write(self) -> Path:
        """Claim the run's folder and write `run.json` into it.

        Raises:
            OccupiedError: if the folder already exists.
        """
        if (Path(self.output) / "run.json").exists():
            raise OccupiedError(f"{self.output} is the folder of another run", "give another --output")
        try:
            with new_folder(self.folder) as folder:
                with storage(self.folder):
                    (folder / "logs").mkdir()
                write_atomic(folder / "run.json", self.model_dump_json(indent=2) + "\n")
        except FileExistsError as error:
            raise OccupiedError(
                f"{self.folder} holds an unfinished run",
                "--resume continues it; or remove it, or give another --output",
            ) from error
        return self.folder / "run.json"


AnyRun = RunSpec | ForeignRun


def read_run(path: Path) -> AnyRun:
    """The run of a `run.json`, whoever trained it."""
    return run_of(read_json(path), path)


def run_of(record: Any, path: Path) -> AnyRun:
    """The run that a record of `run.json` describes; errors name `path`."""
    if isinstance(record, dict) and record.get("backend") == ForeignRun.BACKEND:
        return parse(ForeignRun, without_placeholders(record), path)
    if isinstance(record, dict) and record.get("program", ...) is None:  # older records of trained runs have it
        del record["program"]
    return parse(RunSpec, record, path)


def read_spec(path: Path) -> RunSpec:
    """The RunSpec of a `run.json`.

    Raises:
        SpecError: also if it is the run of a foreign program.
    """
    run = read_run(path)
    if isinstance(run, ForeignRun):
        raise SpecError("the run of a foreign program", "name a run that hpcai500 trained", at=path)
    return run


def resolve(
    workload: str,
    *,
    problem: str,
    level: Level,
    seed: int,
    overrides: dict[str, Any],
    unranked: bool = False,
    **fields: Any,
) -> RunSpec:
    """A RunSpec from a workload's rules and the command line; `fields` are further fields of RunSpec.

    Raises:
        SpecError: for anything unknown, ill-typed, or closed at `level`.
    """
    folder = find_workload(workload)
    rules = load_rules(folder)
    settings = problem_settings(rules, problem)
    overridden = with_overrides(settings, overrides)
    require_few_flop_batches(overridden)
    require_data_tools_apart(folder)
    code_digest = digest_code(folder)
    if not unranked:
        require_open(level, list(overrides), rules.levels.by_level())
        require_reference(level, rules.benchmark, problem, overridden, code_digest)
    record = {
        "workload": {
            "name": folder.name,
            "folder": str(folder),
            "code_digest": code_digest,
            "title": rules.title,
            "benchmark": rules.benchmark,
            "model": rules.model,
        },
        "problem": problem,
        "level": level,
        "seed": seed,
        "settings": overridden.model_dump(mode="json"),
        "overrides": overrides,
        "unranked": unranked,
        **fields,
    }
    return parse(RunSpec, record, "run")


def require_few_flop_batches(settings: Settings) -> None:
    """Refuse a FLOP count that would read too much of the data before the clock starts.

    Raises:
        SpecError: if it would.
    """
    if settings.execution.num_flop_batches > MOST_FLOP_BATCHES:
        raise SpecError(
            f"execution.num_flop_batches is {settings.execution.num_flop_batches}: a run reads at most "
            f"{MOST_FLOP_BATCHES} batches before its clock starts",
            f"set it to {MOST_FLOP_BATCHES} or fewer",
        )


def parse_overrides(assignments: Sequence[str]) -> dict[str, Any]:
    """`["optimizer.learning_rate=0.1"]` as `{"optimizer.learning_rate": 0.1}`; values are TOML, or bare words."""
    overrides: dict[str, Any] = {}
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator or not key:
            raise SpecError(f"--set {assignment}: no value", "write --set table.key=value")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
            overrides[key] = text if isinstance(value, date | time) else value
        except tomllib.TOMLDecodeError:
            overrides[key] = text
    return overrides


def parse_seeds(text: str) -> list[int]:
    """`0-2,7` as `[0, 1, 2, 7]`.

    Raises:
        SpecError: if a part is neither a number nor a range, or a seed occurs twice.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)
        if not match or (match[2] and int(match[2]) < int(match[1])):
            raise SpecError(f"--seeds {text}: {part.strip()!r} is not a seed", "write numbers and ranges, e.g. 0-4,7")
        seeds.extend(range(int(match[1]), min(int(match[2] or match[1]), int(match[1]) + _MOST_SEEDS) + 1))
    if len(seeds) > _MOST_SEEDS:
        raise SpecError(f"--seeds {text}: more than {_MOST_SEEDS:,} seeds", "give a shorter range")
    if len(set(seeds)) < len(seeds):
        raise SpecError(f"--seeds {text}: a seed occurs twice", "give each seed once")
    return seeds
