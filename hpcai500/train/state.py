"""The progress of a run, and the contents of a checkpoint."""

from dataclasses import dataclass
from typing import Any, Self

import torch


@dataclass(kw_only=True)
class TrainingProgress:
    """The next epoch and step of a run, and the sums of an unfinished epoch."""

    epoch: int = 1
    step: int = 0
    """Optimiser steps of the epoch that are done."""
    loss_sum: float = 0.0
    """Sum of this rank's losses over those steps."""
    train_sec: float = 0.0
    data_wait_sec: float = 0.0
    """Seconds that this rank waited for batches in the epoch."""
    energy_joules: float = 0.0
    """Joules of all ranks in the epoch."""
    other_run_steps: int = 0
    """The part of `step` that another run trained. Its samples and seconds do not count for this run."""


@dataclass(frozen=True, kw_only=True)
class RankState:
    """The state that differs between ranks: generators, and within an epoch the loss and the running statistics."""

    generator: torch.Tensor
    device_generator: torch.Tensor | None
    """Generator of the rank's GPU."""
    loss_sum: float
    data_wait_sec: float
    buffers: dict[str, torch.Tensor]
    """Running statistics; empty at the end of an epoch, when they are equal on all ranks."""


@dataclass(frozen=True, kw_only=True)
class RunState:
    """A checkpoint: the state that is equal on all ranks or known only to rank 0, and the state of each rank.

    Its field names are keys of the file, which older checkpoints have too.
    """

    model: dict[str, Any]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    train_sec: float
    energy_joules: float
    borrowed_steps: int
    ranks: tuple[RankState, ...]

    def record(self) -> dict[str, Any]:
        """Only containers, numbers and tensors, which torch can load without running code from the file."""
        return vars(self) | {"ranks": [vars(rank) for rank in self.ranks]}

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> Self:
        """The state from a record; a TypeError if a field is missing or unknown to this version."""
        return cls(**record | {"ranks": tuple(RankState(**rank) for rank in record["ranks"])})
