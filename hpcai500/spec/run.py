"""RunSpec: one run of one seed, everything resolved, frozen, and written before anything starts."""

import re
import tomllib
from collections.abc import Sequence
from datetime import date, time
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from hpcai500 import __version__
from hpcai500.errors import OccupiedError, SpecError
from hpcai500.files import digest, digest_tree, new_folder, read_json, storage, write_atomic
from hpcai500.spec.levels import Level, require_open
from hpcai500.spec.models import Frozen, parse
from hpcai500.spec.reference import CODE, require_reference
from hpcai500.spec.workload import (
    MOST_FLOP_BATCHES,
    Count,
    Settings,
    find_workload,
    load_rules,
    problem_settings,
    with_overrides,
)

SYNTHETIC = "synthetic"
"""The value of `--data` that trains on random batches."""

_MOST_SEEDS = 10_000
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class WorkloadIdentity(Frozen):
    name: str
    folder: str
    code_digest: str
    """SHA-256 of the folder's Python and TOML files: Layer 7's identity."""
    title: str
    benchmark: str
    model: str


class Program(Frozen):
    """A foreign program: one that trains by itself, and whose log `hpcai500 ingest` took in."""

    command: tuple[str, ...] = ()
    """The program that `ingest --run` started, and its script where that is a file of its source; empty where its log
    alone was given. Other arguments may hold secrets, and are not kept."""
    num_arguments: Annotated[int, Field(ge=0)] = 0
    """How many those were."""
    stated: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Layers 3 to 8 as its log states them, by number."""


class RunSpec(Frozen):
    """What `run.json` holds. Equal digests mean the same experiment but for the seed and the place."""

    schema_version: Literal[1] = 1
    hpcai500_version: str = __version__
    workload: WorkloadIdentity
    problem: str
    level: Level
    backend: Literal["torch", "horovod", "foreign"] = "torch"
    launcher: Annotated[str, Field(pattern=_NAME)] = "local"
    """What starts the ranks: a name of `hpcai500.launch.launchers`."""
    nodes: Count = 1
    procs_per_node: Count = 1
    """Ranks on a node; on the fullest one where they are uneven."""
    num_ranks: Annotated[int, Field(ge=0)] = 0
    """Ranks in all, where nodes hold different numbers of them; 0: `nodes * procs_per_node`."""
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    settings: Settings
    overrides: dict[str, Any] = Field(default_factory=dict)
    """What `--set` and its short forms changed: dotted key to new value."""
    unranked: bool = False
    """A trial: any key may be overridden, and the result is never ranked."""
    system: Annotated[str, Field(pattern=_NAME)]
    """The machine's name in rankings."""
    data: str
    """The data set's folder, or `synthetic`."""
    output: str
    """The results directory that holds this run's folder."""
    staging: str = ""
    """A folder on each node's own disk, to copy the data to before the clock starts; empty for none."""
    resume_from: str = ""
    """The folder of another run, whose newest checkpoint this one starts from; it is then never ranked."""
    program: Program | None = None
    """Of a run that this harness did not train."""

    @model_validator(mode="after")
    def _is_foreign_or_not(self) -> "RunSpec":
        foreign = {self.backend, self.launcher, self.settings.optimizer.name, self.settings.schedule.name}
        if (self.program is None) == bool(foreign & {"foreign", "stated"}):
            raise ValueError(
                "'foreign' and 'stated' are words for runs that `hpcai500 ingest` takes in, and for no other"
            )
        return self

    @model_validator(mode="after")
    def _ranks_share_the_batch(self) -> "RunSpec":
        if self.num_ranks and not self.nodes <= self.num_ranks < self.nodes * self.procs_per_node:
            raise ValueError(
                f"num_ranks ({self.num_ranks}) must be below nodes * procs_per_node "
                f"({self.nodes * self.procs_per_node}), at least one a node, and 0 where every node is full"
            )
        if self.program is None and self.settings.batch.global_batch_size % self.world_size:
            raise ValueError(
                f"batch.global_batch_size ({self.settings.batch.global_batch_size}) must be a multiple of "
                f"the number of ranks ({self.world_size})"
            )
        if self.settings.batch.global_batch_size > self.settings.problem.num_train_samples:
            raise ValueError("batch.global_batch_size exceeds problem.num_train_samples")
        return self

    @property
    def world_size(self) -> int:
        return self.num_ranks or self.nodes * self.procs_per_node

    @property
    def samples_per_rank(self) -> int:
        """Samples of one global batch that one rank trains."""
        return self.settings.batch.global_batch_size // self.world_size

    @property
    def micro_batch_size(self) -> int:
        """The largest divisor of a rank's share that is at most `batch.micro_batch_size`."""
        share = self.samples_per_rank
        limit = min(share, self.settings.batch.micro_batch_size)
        return next(size for size in range(limit, 0, -1) if share % size == 0)

    @property
    def steps_per_epoch(self) -> int:
        return self.settings.problem.num_train_samples // self.settings.batch.global_batch_size

    @property
    def is_synthetic(self) -> bool:
        return self.data == SYNTHETIC

    @property
    def experiment_digest(self) -> str:
        """SHA-256 over all that can change a result, but the seed and the places."""
        return digest(self._identity() | ({"continues": True} if self.resume_from else {}))

    @property
    def training_digest(self) -> str:
        """The same less how ranks communicate: with equal ones, a run can go on with another's checkpoint."""
        record = self._identity()
        for field in ("backend", "unranked", "nodes", "procs_per_node", "num_ranks"):
            del record[field]
        del record["settings"]["execution"]["gradient_compression"]
        return digest(record | {"world_size": self.world_size})

    def _identity(self) -> dict[str, Any]:
        places = {
            "seed", "system", "output", "staging", "data", "overrides", "hpcai500_version", "launcher", "resume_from",
        }  # fmt: skip
        record = self.model_dump(mode="json", exclude=places)
        del record["workload"]["folder"]
        if self.program is None:
            del record["program"]
        else:
            del record["program"]["command"], record["program"]["num_arguments"]  # of this seed, at this place
        return record | {"synthetic": self.is_synthetic}

    def with_seed(self, seed: int) -> "RunSpec":
        """The run of the same experiment with another seed."""
        return parse(RunSpec, self.model_dump(mode="json") | {"seed": seed}, "run")

    @property
    def run_id(self) -> str:
        return f"{self._run_stem}{self.seed}"

    @property
    def _run_stem(self) -> str:
        size = f"{self.nodes}x{self.procs_per_node}" + (f"-{self.num_ranks}ranks" if self.num_ranks else "")
        precision = self.settings.execution.precision
        return f"{self.backend}-{size}-{precision}-{self.experiment_digest[:8]}-seed"

    @property
    def _folder_of_runs(self) -> Path:
        return Path(self.output) / self.system / self.workload.name / f"{self.problem}-{self.level}"

    @property
    def folder(self) -> Path:
        return self._folder_of_runs / self.run_id

    @property
    def run_prefix(self) -> str:
        """The path of `folder` up to its seed: the same for all seeds."""
        return str(self._folder_of_runs / self._run_stem)

    def write(self) -> Path:
        """Claim the run's folder and write `run.json` into it.

        Raises:
            OccupiedError: if something stands there already.
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
                "--resume goes on with it; or remove it, or give another --output",
            ) from error
        return self.folder / "run.json"


def read_run(path: Path) -> RunSpec:
    """The RunSpec of a `run.json`."""
    return parse(RunSpec, read_json(path), path)


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
    """Rules and command line as one RunSpec; `fields` are further fields of RunSpec.

    Raises:
        SpecError: for anything unknown, ill-typed, or closed at `level`.
    """
    folder = find_workload(workload)
    rules = load_rules(folder)
    settings = problem_settings(rules, problem)
    overridden = with_overrides(settings, overrides)
    require_few_flop_batches(overridden)
    code_digest = digest_tree(folder, CODE)
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
    """
    Raises:
        SpecError: if the FLOP count would read more of the data before the clock starts than any run may.
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
        SpecError: if a part is neither a number nor a range, or a seed stands twice.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)
        if not match or (match[2] and int(match[2]) < int(match[1])):
            raise SpecError(f"--seeds {text}: {part.strip()!r} is no seed", "write numbers and ranges, e.g. 0-4,7")
        seeds.extend(range(int(match[1]), min(int(match[2] or match[1]), int(match[1]) + _MOST_SEEDS) + 1))
    if len(seeds) > _MOST_SEEDS:
        raise SpecError(f"--seeds {text}: more than {_MOST_SEEDS:,} seeds", "give a shorter range")
    if len(set(seeds)) < len(seeds):
        raise SpecError(f"--seeds {text}: a seed stands twice", "give each seed once")
    return seeds
