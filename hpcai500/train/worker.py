"""One rank of a run: `python -m hpcai500.train.worker run.json`, started by a launcher."""

# ruff: noqa: E402
from hpcai500.train.preemption import StopRequest, ignore_stops

STOP = StopRequest() if __name__ == "__main__" else None  # before torch is imported, which takes seconds

import os
import sys
import traceback
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hpcai500.errors import (
    DataError,
    DivergedError,
    HpcAi500Error,
    MachineError,
    PreemptedError,
    RankError,
    format_failure,
)
from hpcai500.events.reader import first, read_events
from hpcai500.events.vocabulary import Key, RunStatus
from hpcai500.files import read_json, storage_error, write_json
from hpcai500.ranks.joining import join
from hpcai500.ranks.place import launched_rank
from hpcai500.ranks.placement import crowding, take_cores
from hpcai500.ranks.torch_ranks import Ranks, first_line, read_once
from hpcai500.score.manifest import seal
from hpcai500.score.result import write_result
from hpcai500.spec.run import RunSpec, read_run
from hpcai500.system.capture import start_capture, workload_layers
from hpcai500.system.nodes import group_nodes, warnings, with_earlier
from hpcai500.train import flops
from hpcai500.train.clock import Clock
from hpcai500.train.compilation import begin_pass, clear_gradients, compiled
from hpcai500.train.energy import EnergyMeter, coverage
from hpcai500.train.journal import (
    Journal,
    SilentJournal,
    end_run,
    log_hyper_parameters,
    log_submission,
    open_journal,
)
from hpcai500.train.loop import Trainer, autocast
from hpcai500.train.optim import build_optimizer
from hpcai500.train.resumption import Resumption, find_resumption
from hpcai500.train.sampling import micro_batches
from hpcai500.train.structure import structure_of
from hpcai500.train.workload import DatasetInfo, Workload, load_workload


def run(spec: RunSpec, stop: StopRequest) -> None:
    """Everything that one rank does, from meeting the others to the last event."""
    torch.use_deterministic_algorithms(spec.settings.execution.deterministic)
    torch.backends.cudnn.benchmark = not spec.settings.execution.deterministic
    ranks = join(spec, dict(os.environ))
    resumption = read_once(ranks, lambda: find_resumption(spec))
    if resumption.finished:
        ranks.close()
        return
    journal = open_journal(spec, ranks.rank)
    start_up = SilentJournal() if resumption.resumes else journal  # an earlier start has logged it
    log_submission(start_up, spec)
    trainer = build(spec, ranks, start_up, stop, resumption)
    trainer.journal = journal
    journal.set_flops_per_sample(trainer.flops_per_sample)
    start_up.end(Key.INIT_STOP)
    ranks.barrier()
    if resumption.resumes:
        journal.point(Key.RESUMED, resumption.record())
    else:
        if resumption.borrowed:
            journal.point(
                Key.CONTINUED, {"run": spec.resume_from, "epoch": resumption.epoch, "step": resumption.step}
            )
        journal.start(Key.RUN_START)
    if resumption.borrowed and resumption.step > 0:  # this log has not seen its epoch begin
        journal.start(Key.EPOCH_START, epoch_num=resumption.epoch)
    stop.training = True
    try:
        trainer.train()
    except DivergedError as error:
        journal.point(Key.FAILURE, str(error), status="diverged")
        end_run(journal, RunStatus.ABORTED)
        ranks.barrier()  # a rank that leaves has the others ended: not before this is written
        raise
    end_run(journal, RunStatus.SUCCESS)
    trainer.save(keep=1)  # the trained model, outside the clock
    journal.point(Key.PEAK_MEMORY, peak_memory(ranks))
    trainer.checkpoints.wait()
    journal.close()
    ranks.close()


def build(spec: RunSpec, ranks: Ranks, journal: Journal, stop: StopRequest, resumption: Resumption) -> Trainer:
    """All that stands before the clock: capture, data, model, FLOP count, warm-up; and what a checkpoint holds."""
    execution = spec.settings.execution
    placement = take_cores(ranks, os.environ)
    if ranks.rank == 0 and (warning := crowding(placement)):
        print(warning, flush=True)
    captured = start_capture(spec, placement._asdict()) if ranks.local_rank == 0 else None
    workload = load_workload(Path(spec.workload.folder))(spec)
    open_data(workload, spec, ranks, journal, resumption.dataset_digest)
    torch.manual_seed(spec.seed)
    model = workload.build_model()
    if execution.channels_last:
        model = model.to(memory_format=torch.channels_last)
    model = model.to(ranks.device)
    flops_per_sample = resumption.flops_per_sample
    if flops_per_sample is None:
        counted = count_flops(workload, model, ranks)
        journal.point(Key.FLOPS_PER_SAMPLE, counted.record(), convention=flops.CONVENTION)
        journal.point(Key.MODEL, structure_of(model, counted.layers))
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
        # what an interruption without warning made useless was used all the same, and nobody knows how much
        energy_is_complete=energy_is_complete and (resumption.graceful or not resumption.resumes),
        stop=stop,
    )
    log_hyper_parameters(journal, spec, trainer.peak)
    # DDP settles its buckets, and with them the order of summation, in its first steps: not in the middle of a run
    if execution.compile or execution.deterministic or ranks.device.type == "cuda":
        journal.point(Key.WARM_UP, {"warm_up_sec": warm_up(trainer)})
    if resumption.state is not None:
        trainer.restore(resumption.state, resumption.epoch, resumption.step, borrowed=resumption.borrowed)
    return trainer


def open_data(workload: Workload, spec: RunSpec, ranks: Ranks, journal: Journal, earlier: str | None) -> None:
    """Find the data set, and hold it against the problem's counts and the digest of an `earlier` start's."""
    if spec.is_synthetic:
        use_synthetic_batches(workload, spec, ranks)
        journal.point(Key.DATASET, {"synthetic": True})
        return
    if spec.staging:
        stage_data(workload, spec, ranks, journal)
    info = workload.open_data(Path(spec.data), ranks)
    problem = spec.settings.problem
    expected = (problem.num_train_samples, problem.num_eval_samples)
    if (info.num_train_samples, info.num_eval_samples) != expected:
        raise DataError(
            f"{spec.data}: holds {info.num_train_samples:,} training and {info.num_eval_samples:,} evaluation "
            f"samples; problem {spec.problem!r} is defined on {expected[0]:,} and {expected[1]:,}",
            f"complete the data set, or see `hpcai500 data verify {spec.workload.name}`",
        )
    record = DatasetInfo._asdict(info)
    journal.point(Key.INPUT, record.pop("reading") or {})
    if earlier and info.digest != earlier:
        raise DataError(
            f"{spec.data}: the data set's digest is {info.digest:.40}, and was {earlier:.40} when the run began",
            "bring the data set back as it was, or train anew with another --output",
        )
    journal.point(Key.DATASET, {"synthetic": False, **record})


def stage_data(workload: Workload, spec: RunSpec, ranks: Ranks, journal: Journal) -> None:
    """Have each node's first rank copy the data to the node's own disk."""
    journal.start(Key.STAGING_START)
    if ranks.local_rank == 0:
        workload.stage_data(Path(spec.data), Path(spec.staging))
    ranks.barrier()
    journal.end(Key.STAGING_STOP)


def use_synthetic_batches(workload: Workload, spec: RunSpec, ranks: Ranks) -> None:
    """Have the workload read random batches that lie on the device already."""

    def batch(num_samples: int) -> object:
        return workload.synthetic_batch(num_samples, ranks.device, spec.seed + ranks.rank)

    train_batch = batch(spec.micro_batch_size)
    workload.train_batches = lambda batches: (train_batch for _ in batches)  # type: ignore[method-assign]
    workload.eval_batches = lambda indices: (  # type: ignore[method-assign]
        batch(min(spec.micro_batch_size, len(indices) - start))
        for start in range(0, len(indices), spec.micro_batch_size)
    )


def count_flops(workload: Workload, model: nn.Module, ranks: Ranks) -> flops.FlopCount:
    """Counted by rank 0 on the first real batches of its first epoch."""
    if ranks.rank != 0:
        return ranks.broadcast(None)  # type: ignore[return-value]
    spec = workload.spec
    keys = micro_batches(spec, 0, epoch=1)
    wanted = [batch for batch, _ in zip(keys, range(spec.settings.execution.num_flop_batches), strict=False)]

    def loss(model: nn.Module, batch: object) -> torch.Tensor:
        with autocast(spec, ranks.device):
            return workload.loss(model, batch)

    batches = (
        (workload.to_device(batch, ranks.device), spec.micro_batch_size) for batch in workload.train_batches(wanted)
    )
    return ranks.broadcast(flops.count_flops(model.train(), batches, loss))


def warm_up(trainer: Trainer) -> float:
    """Compile and warm up on synthetic data, leaving parameters, statistics and generators as they were."""
    started = trainer.clock.read_sec()
    device, spec = trainer.ranks.device, trainer.spec
    buffers = [buffer.clone() for buffer in trainer.model.buffers()]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        batch = trainer.workload.synthetic_batch(spec.micro_batch_size, device, spec.seed)
        trainer.wrapped.train()
        for _ in range(3):
            begin_pass(trainer.compile)
            with trainer.ranks.accumulate(trainer.wrapped, last=True):
                with trainer.autocast():
                    loss = trainer.workload.loss(trainer.wrapped, trainer.workload.to_device(batch, device))
                loss.backward()
            with trainer.ranks.averaged(trainer.optimizer):
                clear_gradients(trainer.optimizer, trainer.compile)
    for buffer, before in zip(trainer.model.buffers(), buffers, strict=True):
        buffer.copy_(before)
    return trainer.clock.read_sec() - started


def log_energy(energy: EnergyMeter, ranks: Ranks, journal: Journal) -> bool:
    """Log what is measured where; True if every GPU, or every node's packages, has a counter."""
    found = coverage(ranks.gather((energy.sources, energy.missing)), ranks.device.type)
    is_complete = ranks.broadcast(found.is_complete)
    missing = [str(reason) for reason in found.missing]
    journal.point(Key.ENERGY, {"sources": list(found.sources) if is_complete else [], "missing": missing})
    return is_complete


def peak_memory(ranks: Ranks) -> dict[str, int | None]:
    """The most memory that any rank held, in bytes: on the host, and allocated on its GPU."""
    import resource

    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    device = torch.cuda.max_memory_allocated() if ranks.device.type == "cuda" else None
    gathered = ranks.gather((host, device))
    return {
        "host_bytes": max((h for h, _ in gathered), default=0),
        "device_bytes": max((d for _, d in gathered if d is not None), default=None),
    }


def write_system(spec: RunSpec, ranks: Ranks, captured: "Future[dict[str, Any]] | None", *, resumes: bool) -> None:
    """All nine layers into system.json: 1 to 6 of every node, equal nodes stored once, and 7 to 9."""
    nodes = ranks.gather(captured.result() if captured else None)
    if ranks.rank != 0:
        return
    path = spec.folder / "system.json"
    system = group_nodes([node for node in nodes if node])
    if resumes and path.exists():
        system = with_earlier(system, read_json(path))
    events = read_events(spec.folder / "events.log")  # where an earlier start has written them too
    structure, dataset = first(events, Key.MODEL), first(events, Key.DATASET)
    layers = workload_layers(spec, structure and structure.value, dataset and dataset.value)
    write_json(path, system | {"layers": layers})
    for line in warnings(system):
        print(f"warning: {line}", flush=True)


def main() -> int:
    spec = read_run(Path(sys.argv[1]))
    rank = launched_rank(spec.launcher, os.environ)
    try:
        run(spec, STOP or StopRequest())
        if rank == 0:
            write_result(spec.folder)
            seal(spec.folder)
        ignore_stops()
        return 0
    except Exception as error:
        failure = as_failure(error, spec)
        if not isinstance(error, PreemptedError):
            traceback.print_exc()
        ignore_stops()  # a launcher that ends the others must not change the exit code
        sys.stderr.flush()
        os.write(2, f"{format_failure(failure, rank)}\n".encode())  # one write: ranks share the stream
        # Other ranks may sit in a collective that will never end: leave without their consent.
        os._exit(failure.exit_code)


def as_failure(error: Exception, spec: RunSpec) -> HpcAi500Error:
    """What a user should read of any exception."""
    if isinstance(error, HpcAi500Error):
        return error
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return MachineError(f"out of memory: {first_line(error)}", "lower batch.micro_batch_size, or use more ranks")
    if "DataLoader worker" in str(error):
        hint = "the machine may have run out of memory"
        return RankError(f"a data loader's process died: {first_line(error)}", hint)
    if isinstance(error, OSError):
        return storage_error(Path(error.filename or spec.folder), error)
    return HpcAi500Error(f"{type(error).__name__}: {first_line(error)}", "`--debug` shows the traceback")


if __name__ == "__main__":
    sys.exit(main())
