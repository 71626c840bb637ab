"""What a result, a ranking and a rule need to know about a run, whether this harness or another trained it."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from hpcai500 import __version__
from hpcai500.spec.levels import Level
from hpcai500.spec.models import Frozen
from hpcai500.spec.workload import Count, ProblemDomain, Settings

SYNTHETIC = "synthetic"
"""The value of `--data` that trains on random batches."""

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class WorkloadIdentity(Frozen):
    name: str
    folder: str
    code_digest: str
    """SHA-256 of the folder's Python and TOML files without `data_tools/`: Layer 7's identity."""
    title: str
    benchmark: str
    model: str


class StatedBatch(Frozen):
    global_batch_size: Count


class StatedOptimizer(Frozen):
    learning_rate: Annotated[float, Field(gt=0)]
    """The peak, for the run's own global batch."""
    weight_decay: Annotated[float, Field(ge=0)]


class StatedSchedule(Frozen):
    warmup_epochs: Annotated[float, Field(ge=0)]


class StatedExecution(Frozen):
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["fp32", "bf16", "fp16"]


class StatedSettings(Frozen):
    """The few settings that a foreign program must state."""

    problem: ProblemDomain
    batch: StatedBatch
    optimizer: StatedOptimizer
    schedule: StatedSchedule
    execution: StatedExecution

    @model_validator(mode="after")
    def _warm_up_ends(self) -> "StatedSettings":
        if self.schedule.warmup_epochs >= self.problem.num_epochs:
            raise ValueError(
                f"schedule.warmup_epochs ({self.schedule.warmup_epochs:g}) must be below "
                f"problem.num_epochs ({self.problem.num_epochs})"
            )
        return self


class RunRecord(Frozen):
    """The part of `run.json` that every kind of run has. Equal digests mean the same experiment."""

    schema_version: Literal[1] = 1
    hpcai500_version: str = __version__
    workload: WorkloadIdentity
    problem: str
    level: Level
    backend: str
    nodes: Count = 1
    procs_per_node: Count = 1
    """Ranks per node; on the fullest node if they differ."""
    num_ranks: Annotated[int, Field(ge=0)] = 0
    """Total number of ranks, if nodes have different numbers of them; 0 for `nodes * procs_per_node`."""
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    settings: Settings | StatedSettings
    system: Annotated[str, Field(pattern=NAME)]
    """The machine's name in rankings."""
    data: str
    """The data set's folder, or `synthetic`."""
    output: str
    """The results directory that holds this run's folder."""

    @model_validator(mode="after")
    def _ranks_fit(self) -> "RunRecord":
        if self.num_ranks and not self.nodes <= self.num_ranks < self.nodes * self.procs_per_node:
            raise ValueError(
                f"num_ranks ({self.num_ranks}) must be below nodes * procs_per_node "
                f"({self.nodes * self.procs_per_node}), at least one per node, and 0 if every node is full"
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
    def steps_per_epoch(self) -> int:
        return self.settings.problem.num_train_samples // self.settings.batch.global_batch_size

    @property
    def is_synthetic(self) -> bool:
        return self.data == SYNTHETIC

    @property
    def experiment_digest(self) -> str:
        """SHA-256 over everything that can change a result, except seed, system and folders."""
        raise NotImplementedError

    @property
    def unranked_reasons(self) -> tuple[str, ...]:
        """Why no result of this run may be ranked, however good it is."""
        return ("synthetic data",) if self.is_synthetic else ()

    def compared_settings(self) -> dict[str, dict[str, Any]]:
        """The tables of settings that are compared with those of the reference."""
        raise NotImplementedError

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
