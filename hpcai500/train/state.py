"""How far a run is, and what a checkpoint holds of it."""

from dataclasses import dataclass
from typing import Any, Self

import torch


@dataclass(kw_only=True)
class TrainingProgress:
    """How far a run is, and what of an epoch under way its end will need."""

    epoch: int = 1
    step: int = 0
    """Optimiser steps of the epoch that are done."""
    loss_sum: float = 0.0
    """Of this rank, over those steps."""
    train_sec: float = 0.0
    data_wait_sec: float = 0.0
    """Of this rank, in the epoch."""
    energy_joules: float = 0.0
    """Of all ranks, in the epoch."""
    other_run_steps: int = 0
    """Of `step`, those that another run did: its samples and seconds are none of this one's."""


@dataclass(frozen=True, kw_only=True)
class RankState:
    """What differs between ranks: generators, and within an epoch the loss and the running statistics."""

    generator: torch.Tensor
    device_generator: torch.Tensor | None
    """Of the rank's GPU."""
    loss_sum: float
    data_wait_sec: float
    buffers: dict[str, torch.Tensor]
    """Empty at the end of an epoch, when all ranks have the same."""


@dataclass(frozen=True, kw_only=True)
class RunState:
    """A checkpoint: what is equal on all ranks or known to rank 0 alone, and what each rank has of its own."""

    model: dict[str, Any]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    train_sec: float
    energy_joules: float
    borrowed_steps: int
    ranks: tuple[RankState, ...]

    def record(self) -> dict[str, Any]:
        """Containers, numbers and tensors only, as torch loads them without running code of the file."""
        return vars(self) | {"ranks": [vars(rank) for rank in self.ranks]}

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> Self:
        """Raises TypeError for a record that lacks a value, or has one that this version does not know."""
        return cls(**record | {"ranks": tuple(RankState(**rank) for rank in record["ranks"])})
