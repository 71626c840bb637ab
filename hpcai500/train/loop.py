"""The training run inside the clock: epochs of training and exact evaluation."""

import math
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import nn

from hpcai500.errors import DivergedError, PreemptedError
from hpcai500.events.payloads import Epoch, EpochStart, EpochStop, EvalAccuracy, EvalStart, EvalStop, Interrupted
from hpcai500.ranks.torch_ranks import Ranks, average_buffers
from hpcai500.spec.run import RunSpec
from hpcai500.train.checkpoint import Checkpoints, Record
from hpcai500.train.clock import Clock
from hpcai500.train.compilation import begin_pass, clear_gradients
from hpcai500.train.energy import EnergyMeter
from hpcai500.train.journal import Journal
from hpcai500.train.loading import BatchTimer
from hpcai500.train.optim import learning_rate, peak_learning_rate
from hpcai500.train.preemption import StopRequest
from hpcai500.train.sampling import eval_batches, micro_batches
from hpcai500.train.state import RankState, RunState, TrainingProgress
from hpcai500.train.workload import Batch, Quality, Workload

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(kw_only=True)
class Trainer:
    """The parts of one rank's run. `model` is the bare model, and `wrapped` averages gradients over the ranks."""

    spec: RunSpec
    ranks: Ranks
    workload: Workload
    model: nn.Module
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    journal: Journal
    clock: Clock
    energy: EnergyMeter
    flops_per_sample: float
    energy_is_complete: bool
    stop: StopRequest
    progress: TrainingProgress = field(default_factory=TrainingProgress)

    def __post_init__(self) -> None:
        precision = self.spec.settings.execution.precision
        self.scaler = torch.amp.GradScaler(self.ranks.device.type, enabled=precision == "fp16")
        self.compile = self.spec.settings.execution.compile
        self.checkpoints = Checkpoints(self.spec.folder / "checkpoint")
        self.num_micro_batches = self.spec.samples_per_rank // self.spec.micro_batch_size
        self.peak = peak_learning_rate(self.spec.settings.optimizer, self.spec.settings.batch.global_batch_size)

    def train(self) -> None:
        """Train all remaining epochs, or up to the target if the run stops there.

        Raises:
            DivergedError: at the end of the first epoch whose mean loss is not finite.
            PreemptedError: after a checkpoint, if any rank was asked to stop.
        """
        problem, execution = self.spec.settings.problem, self.spec.settings.execution
        self.energy.joules_since_last()  # the energy of start-up is not part of the run
        for epoch in range(self.progress.epoch, problem.num_epochs + 1):
            quality = self.run_epoch(epoch)
            self.progress = TrainingProgress(epoch=epoch + 1)
            if execution.stop_at_target and quality >= problem.target_quality:
                break
            if (
                execution.checkpoint_epochs
                and epoch % execution.checkpoint_epochs == 0
                and epoch < problem.num_epochs
            ):
                self.save()

    def run_epoch(self, epoch: int) -> float:
        before = self.progress  # of an earlier start, if this one continues within the epoch
        if before.step == 0:
            self.journal.log(EpochStart.of(epoch))
        started = self.clock.read_sec()
        loss, waited_sec = self.train_epoch(epoch, started)
        trained = self.clock.read_sec()
        self.journal.log(EpochStop.of(epoch))
        if not math.isfinite(loss):
            raise DivergedError(
                f"epoch {epoch}: the mean training loss is {loss}",
                "lower the learning rate or lengthen the warm-up",
            )
        self.journal.log(EvalStart.of(epoch))
        quality = self.evaluate()
        evaluated = self.clock.read_sec()
        self.journal.log(EvalAccuracy.of(epoch, quality.value))
        self.journal.log(EvalStop.of(epoch))
        own_steps = self.spec.steps_per_epoch - before.other_run_steps
        num_samples = own_steps * self.spec.settings.batch.global_batch_size
        joules = before.energy_joules + self.energy_joules()
        row = Epoch(
            epoch_num=epoch,
            train_loss=loss,
            quality=quality.value,
            num_samples=num_samples,
            flops=num_samples * self.flops_per_sample,
            train_sec=before.train_sec + trained - started,
            eval_sec=evaluated - trained,
            data_wait_sec=waited_sec,
            learning_rate=self.rate_of_step(epoch * self.spec.steps_per_epoch - 1),
            energy_joules=joules if self.energy_is_complete else None,
        )
        self.journal.epoch(row, quality)
        return quality.value

    def train_epoch(self, epoch: int, started: float) -> tuple[float, float]:
        """Train the remaining steps of one pass over the shuffled training set.

        Return the mean loss over all steps and ranks, and the mean seconds that ranks waited for batches.
        """
        self.wrapped.train()
        done, num_steps = self.progress.step, self.spec.steps_per_epoch
        loss_sum = torch.full((), self.progress.loss_sum, device=self.ranks.device)
        keys = list(islice(micro_batches(self.spec, self.ranks.rank, epoch), done * self.num_micro_batches, None))
        batches = BatchTimer(self.workload.train_batches(keys), self.progress.data_wait_sec)
        for step in range(done + 1, num_steps + 1):
            loss = self.train_step(batches, self.rate_of_step((epoch - 1) * num_steps + step - 1))
            loss_sum += loss
            self.journal.step(epoch, loss, batches.waited_sec)
            if self.ranks.vote(self.stop.requested):
                self.leave(epoch, step, loss_sum, started, batches.waited_sec)
        sums = self.ranks.sum(torch.stack([loss_sum, loss_sum.new_tensor(batches.waited_sec)]))
        loss, waited_sec = sums.tolist()
        return loss / (num_steps * self.ranks.size), waited_sec / self.ranks.size

    def train_step(self, batches: Iterable[Batch], rate: float) -> torch.Tensor:
        """Train one optimiser step on this rank's share of a global batch. Return its mean loss, on the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        step_loss = torch.zeros((), device=self.ranks.device)
        for number, batch in zip(range(1, self.num_micro_batches + 1), batches, strict=False):
            step_loss += self.forward_backward(batch, last=number == self.num_micro_batches)
        with self.ranks.averaged(self.optimizer):
            self.scaler.step(self.optimizer)
        self.scaler.update()
        clear_gradients(self.optimizer, self.compile)
        return step_loss

    def forward_backward(self, batch: Batch, *, last: bool) -> torch.Tensor:
        """Add a micro-batch's share to the gradients of its step. Return its share of the step's mean loss.

        Ranks average the gradients during the backward pass of the `last` micro-batch.
        """
        batch = self.workload.to_device(batch, self.ranks.device)
        begin_pass(self.compile)
        with self.ranks.accumulate(self.wrapped, last=last):
            loss = loss_of(self.workload, self.wrapped, batch, self.ranks.device) / self.num_micro_batches
            self.scaler.scale(loss).backward()
        return loss.detach()

    def rate_of_step(self, step: int) -> float:
        num_epochs = self.spec.settings.problem.num_epochs
        return learning_rate(self.spec.settings.schedule, self.peak, step, self.spec.steps_per_epoch, num_epochs)

    @torch.no_grad()
    def evaluate(self) -> Quality:
        """The quality over the whole evaluation set, each sample once. Ranks other than 0 get only its value."""
        average_buffers(self.ranks, self.model)
        self.model.eval()
        self.workload.start_evaluation()
        keys = eval_batches(self.spec, self.ranks.rank, self.ranks.size)
        for batch in self.workload.eval_batches(keys):
            with autocast(self.spec, self.ranks.device):
                self.workload.evaluate(self.model, self.workload.to_device(batch, self.ranks.device))
        states = self.ranks.gather(self.workload.evaluation_state())
        quality = self.workload.quality(states) if self.ranks.rank == 0 else Quality(math.nan, {})
        return quality._replace(value=self.ranks.broadcast(quality.value))

    def energy_joules(self) -> float:
        """Joules of all ranks since the last call, from those that have counters."""
        used = torch.tensor(self.energy.joules_since_last(), device=self.ranks.device, dtype=torch.float64)
        return float(self.ranks.sum(used))

    def leave(self, epoch: int, step: int, loss_sum: torch.Tensor, started: float, waited_sec: float) -> None:
        """Write a checkpoint after `step` steps of `epoch`, and raise PreemptedError."""
        before = self.progress
        self.progress = TrainingProgress(
            epoch=epoch,
            step=step,
            loss_sum=float(loss_sum),
            train_sec=before.train_sec + self.clock.read_sec() - started,
            data_wait_sec=waited_sec,
            energy_joules=before.energy_joules + self.energy_joules(),
            other_run_steps=before.other_run_steps,
        )
        self.journal.log(Interrupted.of(epoch, step))
        self.save(graceful=True)
        self.checkpoints.wait()
        self.ranks.barrier()  # when the first rank leaves, the launcher ends the others
        raise PreemptedError(
            f"stopped in epoch {epoch} after step {step} of {self.spec.steps_per_epoch}", "`--resume` continues it"
        )

    def save(self, *, graceful: bool = False, keep: int = 2) -> None:
        """Write a checkpoint of `progress`; all ranks must call."""
        ranks = self.ranks.gather(self.rank_state())
        if self.ranks.rank != 0:
            return
        record = Record(
            experiment_digest=self.spec.experiment_digest,
            training_digest=self.spec.training_digest,
            seed=self.spec.seed,
            epoch=self.progress.epoch,
            step=self.progress.step,
            events_bytes=self.journal.sync(),
            time_ms=time.time_ns() // 1_000_000,
            graceful=graceful,
        )
        self.checkpoints.write(self.run_state(ranks).record(), record, keep=keep)

    def run_state(self, ranks: Sequence[RankState]) -> RunState:
        return RunState(
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            scaler=self.scaler.state_dict(),
            train_sec=self.progress.train_sec,
            energy_joules=self.progress.energy_joules,
            borrowed_steps=self.progress.other_run_steps,
            ranks=tuple(ranks),
        )

    def rank_state(self) -> RankState:
        device = self.ranks.device
        under_way = self.progress.step > 0
        return RankState(
            generator=torch.get_rng_state(),
            device_generator=torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
            loss_sum=self.progress.loss_sum,
            data_wait_sec=self.progress.data_wait_sec,
            buffers={name: buffer.cpu() for name, buffer in self.model.named_buffers()} if under_way else {},
        )

    def restore(self, state: RunState, epoch: int, step: int, *, from_other_run: bool) -> None:
        """Restore what `save` stored for this run, or for another one if `from_other_run`."""
        own = state.ranks[self.ranks.rank]
        self.model.load_state_dict(state.model)
        self.optimizer.load_state_dict(state.optimizer)
        self.scaler.load_state_dict(state.scaler)
        buffers = dict(self.model.named_buffers())
        for name, value in own.buffers.items():
            buffers[name].copy_(value)
        torch.set_rng_state(own.generator)
        if own.device_generator is not None:
            torch.cuda.set_rng_state(own.device_generator, self.ranks.device)
        if from_other_run:
            self.progress = TrainingProgress(epoch=epoch, step=step, loss_sum=own.loss_sum, other_run_steps=step)
            return
        self.progress = TrainingProgress(
            epoch=epoch,
            step=step,
            loss_sum=own.loss_sum,
            train_sec=state.train_sec,
            data_wait_sec=own.data_wait_sec,
            energy_joules=state.energy_joules,
            other_run_steps=state.borrowed_steps,
        )


def autocast(spec: RunSpec, device: torch.device) -> AbstractContextManager[Any]:
    """The precision of the run's forward pass."""
    precision = spec.settings.execution.precision
    return torch.autocast(device.type, _DTYPES[precision], enabled=precision != "fp32")


def loss_of(workload: Workload, model: nn.Module, batch: Batch, device: torch.device) -> torch.Tensor:
    """The loss of a batch on `device`, by a forward pass in the run's precision."""
    with autocast(workload.spec, device):
        return workload.loss(model, batch)
