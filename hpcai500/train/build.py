"""Start-up before a run's clock: a rank's parts are assembled into a trainer, counted and warmed up."""

import os
from concurrent.futures import Future
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hpcai500.errors import SpecError
from hpcai500.events.payloads import Energy, EnergySources, Model, WarmUp, WarmUpTime
from hpcai500.events.reader import first, read_events
from hpcai500.events.vocabulary import Key
from hpcai500.files import read_json, write_json
from hpcai500.ranks.placement import crowding, take_cores
from hpcai500.ranks.torch_ranks import Ranks, first_line
from hpcai500.score.record.nodes import group_nodes, warnings, with_earlier
from hpcai500.spec.run import RunSpec
from hpcai500.system.capture import start_capture, workload_layers
from hpcai500.train import flops
from hpcai500.train.clock import Clock
from hpcai500.train.compilation import clear_gradients, compiled
from hpcai500.train.data import open_data
from hpcai500.train.energy import EnergyMeter, coverage
from hpcai500.train.journal import Journal, log_hyper_parameters
from hpcai500.train.loop import Trainer, loss_of
from hpcai500.train.optim import build_optimizer
from hpcai500.train.preemption import StopRequest
from hpcai500.train.resumption import Resumption
from hpcai500.train.sampling import micro_batches
from hpcai500.train.structure import structure_of
from hpcai500.train.workload import Workload, load_workload


def build(spec: RunSpec, ranks: Ranks, journal: Journal, stop: StopRequest, resumption: Resumption) -> Trainer:
    """A trainer that is ready for the clock: data, model, FLOP count, system.json, warm-up, checkpoint if any."""
    execution = spec.settings.execution
    placement = take_cores(ranks, os.environ)
    if ranks.rank == 0 and (warning := crowding(placement)):
        print(warning, flush=True)
    captured = start_capture(spec, placement._asdict()) if ranks.local_rank == 0 else None
    workload = load_workload(Path(spec.workload.folder))(spec)
    workload = open_data(workload, spec, ranks, journal, resumption.dataset_digest)
    model = initial_model(workload, ranks.device)
    flops_per_sample = resumption.flops_per_sample
    if flops_per_sample is None:
        counted = count_flops(workload, model, ranks)
        journal.log(counted.event())
        journal.log(Model(value=structure_of(model, counted.layers)))
        flops_per_sample = counted.mean
    write_system(spec, ranks, captured, resumes=resumption.resumes)
    torch.manual_seed((spec.seed + 1) * 1_000_003 + ranks.rank)  # dropout differs between ranks
    wrapped, optimizer = ranks.wrap(
        model, build_optimizer(model, spec.settings.optimizer, fused=execution.fused_optimizer)
    )
    if execution.compile:
        wrapped = compiled(wrapped, execution.compile)
    energy = EnergyMeter(ranks.device, node_leader=ranks.local_rank == 0)
    energy_is_complete = log_energy(energy, ranks, journal)
    trainer = Trainer(
        spec=spec,
        ranks=ranks,
        workload=workload,
        model=model,
        wrapped=wrapped,
        optimizer=optimizer,
        journal=journal,
        clock=Clock(ranks.device),
        energy=energy,
        flops_per_sample=flops_per_sample,
        # work lost in an interruption without a checkpoint used energy too, and nobody knows how much
        energy_is_complete=energy_is_complete and (resumption.graceful or not resumption.resumes),
        stop=stop,
    )
    log_hyper_parameters(journal, spec, trainer.peak)
    # DDP fixes its buckets, and so the order of summation, in its first steps: do these before the run
    if execution.compile or execution.deterministic or ranks.device.type == "cuda":
        journal.log(WarmUp(value=WarmUpTime(warm_up_sec=warm_up(trainer))))
    if resumption.state is not None:
        trainer.restore(resumption.state, resumption.epoch, resumption.step, from_other_run=resumption.from_other_run)
    return trainer


def initial_model(workload: Workload, device: torch.device) -> nn.Module:
    """The model on `device`, with parameters that depend only on the run's seed."""
    torch.manual_seed(workload.spec.seed)
    model = workload.build_model()
    if workload.settings.execution.channels_last:
        model = model.to(memory_format=torch.channels_last)
    return model.to(device)


def count_flops(workload: Workload, model: nn.Module, ranks: Ranks) -> flops.FlopCount:
    """FLOPs to train one sample, counted only by rank 0."""
    if ranks.rank != 0:
        return ranks.broadcast(None)  # type: ignore[return-value]
    count = count_on_meta if workload.static_shapes else count_on_data
    return ranks.broadcast(count(workload, model.train(), ranks.device))


def count_on_data(workload: Workload, model: nn.Module, device: torch.device) -> flops.FlopCount:
    """Count over the first batches of rank 0's first epoch."""
    spec = workload.spec
    wanted = list(islice(micro_batches(spec, 0, epoch=1), spec.settings.execution.num_flop_batches))
    batches = ((workload.to_device(batch, device), spec.micro_batch_size) for batch in workload.train_batches(wanted))
    return flops.count_flops(model, batches, lambda model, batch: loss_of(workload, model, batch, device))


def count_on_meta(workload: Workload, model: nn.Module, device: torch.device) -> flops.FlopCount:
    """Count on one batch that has the real shapes but no memory, so that nothing is computed.

    Raises:
        SpecError: if an operation of the workload needs values.
    """
    spec = workload.spec
    without_data = load_workload(Path(spec.workload.folder))(spec)  # a workload keeps tensors of its last device
    try:
        batch = without_data.to_device(
            without_data.synthetic_batch(spec.micro_batch_size, device, spec.seed), torch.device("meta")
        )
        return flops.count_flops(
            flops.meta_copy(model),
            [(batch, spec.micro_batch_size)],
            lambda model, batch: loss_of(without_data, model, batch, device),
        )
    except (RuntimeError, NotImplementedError) as error:
        raise SpecError(
            f"{spec.workload.name}: FLOPs cannot be counted without data: {first_line(error)}",
            "set static_shapes = False in the class of workload.py",
        ) from error


def warm_up(trainer: Trainer) -> float:
    """Compile and warm up on synthetic data, without changing parameters, statistics or generators."""
    started = trainer.clock.read_sec()
    device, spec = trainer.ranks.device, trainer.spec
    buffers = [buffer.clone() for buffer in trainer.model.buffers()]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        batch = trainer.workload.synthetic_batch(spec.micro_batch_size, device, spec.seed)
        trainer.wrapped.train()
        for _ in range(3):
            trainer.forward_backward(batch, last=True)
            with trainer.ranks.averaged(trainer.optimizer):
                clear_gradients(trainer.optimizer, trainer.compile)
    for buffer, before in zip(trainer.model.buffers(), buffers, strict=True):
        buffer.copy_(before)
    return trainer.clock.read_sec() - started


def log_energy(energy: EnergyMeter, ranks: Ranks, journal: Journal) -> bool:
    """Log the sources of energy. Return whether every GPU, or every node's packages, has a counter."""
    found = coverage(ranks.gather((energy.sources, energy.missing)), ranks.device.type)
    is_complete = ranks.broadcast(found.is_complete)
    sources = tuple(found.sources) if is_complete else ()
    journal.log(Energy(value=EnergySources(sources=sources, missing=tuple(map(str, found.missing)))))
    return is_complete


def write_system(spec: RunSpec, ranks: Ranks, captured: "Future[dict[str, Any]] | None", *, resumes: bool) -> None:
    """Write all nine layers to system.json: 1 to 6 of every node, with equal nodes stored once, and 7 to 9."""
    nodes = ranks.gather(captured.result() if captured else None)
    if ranks.rank != 0:
        return
    path = spec.folder / "system.json"
    system = group_nodes([node for node in nodes if node])
    if resumes and path.exists():
        system = with_earlier(system, read_json(path))
    events = read_events(spec.folder / "events.log")  # an earlier start may have written them
    structure, dataset = first(events, Key.MODEL), first(events, Key.DATASET)
    layers = workload_layers(spec, structure and structure.value, dataset and dataset.value)
    write_json(path, system | {"layers": layers})
    for line in warnings(system):
        print(f"warning: {line}", flush=True)
