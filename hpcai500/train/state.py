"""What a checkpoint holds of a trainer, and how a trainer is brought back to it."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from hpcai500.train.loop import Trainer


@dataclass(kw_only=True)
class Progress:
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
    borrowed_steps: int = 0
    """Of `step`, those that another run did: its samples and seconds are none of this one's."""


def run_state(trainer: "Trainer") -> dict[str, Any]:
    """What is equal on all ranks, or known to rank 0 alone."""
    return {
        "model": trainer.model.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        "train_sec": trainer.progress.train_sec,
        "energy_joules": trainer.progress.energy_joules,
        "borrowed_steps": trainer.progress.borrowed_steps,
    }


def rank_state(trainer: "Trainer") -> dict[str, Any]:
    """What differs between ranks: generators, and within an epoch the loss and the running statistics."""
    device = trainer.ranks.device
    under_way = trainer.progress.step > 0
    return {
        "generator": torch.get_rng_state(),
        "device_generator": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "loss_sum": trainer.progress.loss_sum,
        "data_wait_sec": trainer.progress.data_wait_sec,
        "buffers": {name: buffer.cpu() for name, buffer in trainer.model.named_buffers()} if under_way else {},
    }


def restore(trainer: "Trainer", state: dict[str, Any], epoch: int, step: int, *, borrowed: bool) -> None:
    """Bring a trainer, newly built for the same run (or, `borrowed`, for another), to where `save` left one."""
    own = state["ranks"][trainer.ranks.rank]
    trainer.model.load_state_dict(state["model"])
    trainer.optimizer.load_state_dict(state["optimizer"])
    trainer.scaler.load_state_dict(state["scaler"])
    buffers = dict(trainer.model.named_buffers())
    for name, value in own["buffers"].items():
        buffers[name].copy_(value)
    torch.set_rng_state(own["generator"])
    if own["device_generator"] is not None:
        torch.cuda.set_rng_state(own["device_generator"], trainer.ranks.device)
    progress = Progress(epoch=epoch, step=step, loss_sum=own["loss_sum"])
    if borrowed:
        trainer.progress = replace(progress, borrowed_steps=step)
        return
    trainer.progress = replace(
        progress,
        data_wait_sec=own.get("data_wait_sec", 0.0),
        train_sec=state["train_sec"],
        energy_joules=state["energy_joules"],
        borrowed_steps=state.get("borrowed_steps", 0),
    )
