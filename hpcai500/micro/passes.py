"""A workload's training pass outside of a run: traced, if possible without computing it, and timed."""

import copy
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode, UnsupportedOperatorException

from hpcai500.micro.sample import Spread, rate
from hpcai500.micro.tracing import Trace, trace
from hpcai500.spec.levels import Level
from hpcai500.spec.record import SYNTHETIC
from hpcai500.spec.run import RunSpec, resolve
from hpcai500.spec.workload import find_workload, load_rules, problem_settings
from hpcai500.train.loop import loss_of
from hpcai500.train.optim import build_optimizer
from hpcai500.train.workload import Batch, Workload, load_workload

_LARGEST_ON_PROCESSORS = 8
"""Limit for the batch on a CPU, where the batch of a GPU would take minutes."""
_WARM_UP_STEPS = 2
_FEWEST_STEPS = 5
_MOST_STEPS = 100


def synthetic_spec(name: str, problem: str, device: torch.device, precision: str = "") -> RunSpec:
    """A run of `name` on one rank with synthetic data and one micro-batch: at most 8 samples on a CPU."""
    spec = resolve(
        name, problem=problem, level=Level.FREE, seed=0, overrides={}, system="micro", data=SYNTHETIC, output="."
    )
    execution = spec.settings.execution
    num_samples = spec.micro_batch_size
    if device.type == "cpu":
        num_samples = min(num_samples, max(_LARGEST_ON_PROCESSORS, num_samples if problem == "mini" else 0))
    overrides = {
        "batch.global_batch_size": num_samples,
        "batch.micro_batch_size": num_samples,
        "execution.precision": precision or execution.precision,
    }
    return resolve(
        name, problem=problem, level=Level.FREE, seed=0, overrides=overrides, unranked=True, system="micro",
        data=SYNTHETIC, output=".",
    )  # fmt: skip


def default_precision(name: str, problem: str) -> str:
    """The precision in the problem's own settings."""
    return problem_settings(load_rules(find_workload(name)), problem).execution.precision


def trace_workload(spec: RunSpec, device: torch.device) -> Trace:
    """One forward and backward pass with fake tensors, or on `device` if shapes depend on computed values."""
    torch.manual_seed(spec.seed)
    workload = load_workload(Path(spec.workload.folder))(spec)
    model = _model(workload, device)
    try:
        faked = copy.deepcopy(model)
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:  # for a workload's own constants
            fake_parameters(faked, mode)
            batch = _batch(workload, device)
            return trace(lambda: loss_of(workload, faked, batch, device))
    except (DynamicOutputShapeException, UnsupportedOperatorException, NotImplementedError):
        workload = load_workload(Path(spec.workload.folder))(spec)  # tensors kept by the workload may be fake now
        batch = _batch(workload, device)
        return trace(lambda: loss_of(workload, model, batch, device))


def time_steps(spec: RunSpec, device: torch.device, budget_sec: float) -> Spread:
    """Samples per second of real training steps (forward, backward, optimiser) on one synthetic batch."""
    workload = load_workload(Path(spec.workload.folder))(spec)
    torch.manual_seed(spec.seed)
    model, raw = _model(workload, device), workload.synthetic_batch(spec.micro_batch_size, device, spec.seed)
    optimizer = build_optimizer(model, spec.settings.optimizer, fused=spec.settings.execution.fused_optimizer)
    for group in optimizer.param_groups:
        group["lr"] = 0.0  # only speed matters: the loss need not stay finite

    def step() -> None:
        loss_of(workload, model, workload.to_device(raw, device), device).backward()
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(_WARM_UP_STEPS):
        step()
    deadline, seconds = time.monotonic() + budget_sec, list[float]()
    while len(seconds) < _FEWEST_STEPS or (time.monotonic() < deadline and len(seconds) < _MOST_STEPS):
        _synchronize(device)
        started = time.perf_counter()
        step()
        _synchronize(device)
        seconds.append(time.perf_counter() - started)
    return rate(spec.micro_batch_size, seconds)


def fake_parameters(model: nn.Module, mode: FakeTensorMode) -> None:
    """Replace each parameter and buffer of `model` by a fake tensor."""
    for module in model.modules():
        groups: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for tensors in groups:
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = mode.from_tensor(tensor)


def _model(workload: Workload, device: torch.device) -> nn.Module:
    model = workload.build_model()
    if workload.settings.execution.channels_last:
        model = model.to(memory_format=torch.channels_last)
    return model.to(device).train()


def _batch(workload: Workload, device: torch.device) -> Batch:
    batch = workload.synthetic_batch(workload.spec.micro_batch_size, device, workload.spec.seed)
    return workload.to_device(batch, device)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
