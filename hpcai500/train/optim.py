"""Optimisers and learning-rate schedules: SGD with momentum, LARS, AdamW, warm-up, cosine and polynomial decay."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from hpcai500.spec.workload import Optimizer, Schedule


class Sgd(torch.optim.SGD):
    """SGD whose momentum begins at zero, which gives identical bits as long as there is no dampening.

    torch's fused step uses uninitialised memory for it, which stays so if fp16 overflows in the first step.
    """

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for param in group["params"] if group["momentum"] else ():
                if param.grad is not None and self.state[param].get("momentum_buffer") is None:
                    self.state[param]["momentum_buffer"] = torch.zeros_like(param)
        super().step(closure)


class Lars(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling (You, Gitman, Ginsburg 2017, arXiv:1708.03888, algorithm 1).

    For each tensor w with gradient g: `v = m v + lr * trust * (g + wd w)`, `w = w - v`, where
    `trust = eta |w| / (|g| + wd |w|)`, and 1 if `|w|` or `|g|` is 0 or the group has `adapt=False`.
    """

    def __init__(
        self, params: Iterable[dict[str, Any]], *, momentum: float = 0.9, trust_coefficient: float = 0.001
    ) -> None:
        super().__init__(params, {"lr": 0.0, "momentum": momentum, "eta": trust_coefficient, "adapt": True})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            for param in params:
                if "momentum_buffer" not in self.state[param]:
                    self.state[param]["momentum_buffer"] = torch.zeros_like(param)
            grads = [p.grad for p in params]
            velocities = [self.state[p]["momentum_buffer"] for p in params]
            updates = torch._foreach_add(grads, params, alpha=group["weight_decay"])
            if group["adapt"]:
                weight_norms = torch._foreach_norm(params)
                grad_norms = torch._foreach_norm(grads)
                trusts = [
                    torch.where(
                        (w > 0) & (g > 0),
                        group["eta"] * w / (g + group["weight_decay"] * w),
                        torch.ones_like(w),
                    )
                    for w, g in zip(weight_norms, grad_norms, strict=True)
                ]
                torch._foreach_mul_(updates, trusts)
            torch._foreach_mul_(velocities, group["momentum"])
            torch._foreach_add_(velocities, updates, alpha=group["lr"])
            torch._foreach_sub_(params, velocities)


def parameter_groups(model: nn.Module, settings: Optimizer) -> list[dict[str, Any]]:
    """One group for matrices and kernels, and a second one for norms and biases if they have no weight decay."""
    trained = [p for p in model.parameters() if p.requires_grad]
    if settings.decay_norm_and_bias:
        return [{"params": trained, "weight_decay": settings.weight_decay}]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0, "adapt": False},
    ]


def build_optimizer(model: nn.Module, settings: Optimizer, *, fused: bool) -> torch.optim.Optimizer:
    """The optimiser of `model`'s parameters. Its learning rate must be set before each step."""
    groups = parameter_groups(model, settings)
    if settings.name == "lars":
        return Lars(groups, momentum=settings.momentum, trust_coefficient=settings.trust_coefficient)
    for group in groups:
        group.pop("adapt", None)
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, lr=0.0, betas=(settings.momentum, settings.second_beta), fused=fused or None)
    return Sgd(groups, lr=0.0, momentum=settings.momentum, nesterov=settings.nesterov, fused=fused or None)


def peak_learning_rate(settings: Optimizer, global_batch_size: int) -> float:
    """The peak by the linear scaling rule (Goyal et al. 2017, arXiv:1706.02677)."""
    return settings.learning_rate * global_batch_size / settings.reference_batch_size


def learning_rate(schedule: Schedule, peak: float, step: int, steps_per_epoch: int, num_epochs: int) -> float:
    """The rate of optimiser step `step` (from 0), constant within the step.

    Warm-up rises linearly and reaches `peak` at its last step. The decay starts there and ends at
    `final_fraction * peak` after the last step of the run.
    """
    warmup_steps = schedule.warmup_epochs * steps_per_epoch
    if step < warmup_steps:
        return peak * min(1.0, (step + 1) / warmup_steps)
    progress = (step - warmup_steps) / (num_epochs * steps_per_epoch - warmup_steps)
    if schedule.name == "cosine":
        remaining = (1 + math.cos(math.pi * progress)) / 2
    else:
        remaining = (1 - progress) ** schedule.power
    return peak * (schedule.final_fraction + (1 - schedule.final_fraction) * remaining)
