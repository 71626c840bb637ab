"""Output of a run while it trains: events on rank 0, one line per epoch, and a progress bar on a terminal."""

import sys
import time
from collections.abc import Sized
from typing import Any, Protocol

import torch
from tqdm import tqdm

from hpcai500.events import payloads as events
from hpcai500.events.payloads import Epoch
from hpcai500.events.typed import Payload
from hpcai500.events.writer import EventWriter
from hpcai500.files import write_json
from hpcai500.spec.run import RunSpec
from hpcai500.train.workload import Quality


class Journal(Protocol):
    def log(self, payload: Payload) -> None: ...
    def set_flops_per_sample(self, flops: float) -> None:
        """Set the number by which a progress bar computes FLOPS."""

    def step(self, epoch: int, loss: torch.Tensor, waited_sec: float) -> None:
        """Report an optimiser step whose `loss` may not be computed yet.

        `waited_sec` is the time that the epoch's steps have waited for their batches.
        """

    def epoch(self, row: Epoch, quality: Quality) -> None:
        """Report an evaluated epoch."""

    def sync(self) -> int:
        """Write all events to disk. Return the log's length in bytes."""

    def close(self) -> None: ...


class SilentJournal:
    """The journal of every rank but 0, which writes nothing."""

    def log(self, payload: Payload) -> None: ...
    def set_flops_per_sample(self, flops: float) -> None: ...
    def step(self, epoch: int, loss: torch.Tensor, waited_sec: float) -> None: ...
    def epoch(self, row: Epoch, quality: Quality) -> None: ...
    def sync(self) -> int:
        return 0

    def close(self) -> None: ...


class RunJournal:
    """The journal of rank 0."""

    def __init__(self, spec: RunSpec, writer: EventWriter) -> None:
        self._spec = spec
        self._writer = writer
        self.log, self.sync = writer.log, writer.sync
        self._bar = ProgressBar(spec) if sys.stdout.isatty() else None
        self._records: Any = None

    def set_flops_per_sample(self, flops: float) -> None:
        if self._bar:
            self._bar.flops_per_sample = flops

    def step(self, epoch: int, loss: torch.Tensor, waited_sec: float) -> None:
        if self._bar:
            self._bar.step(epoch, loss, waited_sec)

    def epoch(self, row: Epoch, quality: Quality) -> None:
        details: dict[str, Any] = {**quality.details}
        if isinstance(quality.records, Sized):
            details["num_records"] = len(quality.records)
        evaluation = events.Evaluation(epoch_num=row.epoch_num, **details)
        self._writer.log(events.EpochReport(value=row, metadata=evaluation))
        self._records = quality.records
        self._writer.sync()
        print_line = self._bar.print if self._bar else _print
        print_line(epoch_line(row, self._spec))

    def close(self) -> None:
        if self._bar:
            self._bar.close()
        if self._records is not None:
            write_json(self._spec.folder / "evaluation.json", self._records)
        self._writer.sync()
        self._writer.close()


def epoch_line(row: Epoch, spec: RunSpec) -> str:
    problem = spec.settings.problem
    width = len(str(problem.num_epochs))
    reached = " (target)" if row.quality >= problem.target_quality else ""
    return (
        f"epoch {row.epoch_num:>{width}}/{problem.num_epochs}  loss {row.train_loss:.4f}  "
        f"{problem.metric} {row.quality:.4f}{reached}  "
        f"{row.num_samples / row.train_sec:,.0f} samples/s  "
        f"{row.flops / row.train_sec / 1e12:.4g} TFLOPS  "
        f"train {row.train_sec:.1f} s ({(row.data_wait_sec or 0.0) / row.train_sec:.1%} waiting for data)  "
        f"eval {row.eval_sec:.1f} s"
    )


def _print(line: str) -> None:
    print(line, flush=True)


class ProgressBar:
    """Loss, samples/s, FLOPS, waiting for data and time left.

    It reads the loss at most twice per second and shows the reading before, so that it never waits for the device.
    """

    _INTERVAL_SEC = 0.5

    def __init__(self, spec: RunSpec) -> None:
        self.flops_per_sample = 0.0
        self._spec = spec
        self._bar: tqdm[Any] = tqdm(
            total=spec.steps_per_epoch * spec.settings.problem.num_epochs,
            unit="step",
            file=sys.stdout,
            dynamic_ncols=True,
            leave=False,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {remaining} left{postfix}",
        )
        self._last_time = time.perf_counter()
        self._last_step = 0
        self._last_waited_sec = 0.0
        self._pending: tuple[torch.Tensor, torch.cuda.Event | None] | None = None

    def step(self, epoch: int, loss: torch.Tensor, waited_sec: float) -> None:
        self._bar.update()
        now = time.perf_counter()
        if now - self._last_time < self._INTERVAL_SEC:
            return
        steps = self._bar.n - self._last_step
        rate = steps * self._spec.settings.batch.global_batch_size / (now - self._last_time)
        earlier = self._last_waited_sec if waited_sec >= self._last_waited_sec else 0.0  # it is from the epoch before
        waited = (waited_sec - earlier) / (now - self._last_time)
        shown = self._take_pending()
        self._bar.set_description_str(f"epoch {epoch}/{self._spec.settings.problem.num_epochs}", refresh=False)
        flops = rate * self.flops_per_sample / 1e12
        self._bar.set_postfix_str(f"{shown}{rate:,.0f} samples/s, {flops:.4g} TFLOPS, {waited:.0%} waiting for data")
        self._last_time, self._last_step, self._last_waited_sec = now, int(self._bar.n), waited_sec
        self._pending = self._begin_copy(loss)

    def print(self, line: str) -> None:
        self._bar.write(line, file=sys.stdout)

    def close(self) -> None:
        self._bar.close()

    def _begin_copy(self, loss: torch.Tensor) -> tuple[torch.Tensor, torch.cuda.Event | None]:
        if loss.device.type != "cuda":
            return loss.detach(), None
        target = torch.empty((), pin_memory=True)
        target.copy_(loss.detach(), non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        return target, event

    def _take_pending(self) -> str:
        if self._pending is None or (self._pending[1] is not None and not self._pending[1].query()):
            return ""
        return f"loss {float(self._pending[0]):.4f}, "


def open_journal(spec: RunSpec, rank: int) -> "RunJournal | SilentJournal":
    if rank != 0:
        return SilentJournal()
    return RunJournal(spec, EventWriter(spec.folder / "events.log"))


def log_submission(journal: Journal, spec: RunSpec) -> None:
    """Log the first lines of a run: the identity of the submission, and that no cache was cleared."""
    reason = "the harness clears no cache: data may be warm from earlier runs"
    journal.log(events.CacheClear(value=False, metadata=events.Explanation(reason=reason)))
    journal.log(events.InitStart())
    identity = events.RunIdentity(
        run_id=spec.run_id,
        experiment_digest=spec.experiment_digest,
        code_digest=spec.workload.code_digest,
        hpcai500_version=spec.hpcai500_version,
        torch_version=str(torch.__version__),
    )
    journal.log(events.Run(value=identity))
    journal.log(events.SubmissionOrg(value="unaffiliated"))
    journal.log(events.SubmissionPlatform(value=spec.system))
    journal.log(events.SubmissionDivision(value=spec.level.division))
    journal.log(events.SubmissionBenchmark(value=spec.workload.benchmark))
    journal.log(events.SubmissionStatus(value="research"))


def log_hyper_parameters(journal: Journal, spec: RunSpec, peak_learning_rate: float) -> None:
    settings = spec.settings
    journal.log(events.Seed(value=spec.seed))
    journal.log(events.TrainSamples(value=settings.problem.num_train_samples))
    journal.log(events.EvalSamples(value=settings.problem.num_eval_samples))
    journal.log(events.GlobalBatchSize(value=settings.batch.global_batch_size))
    journal.log(events.GradientAccumulationSteps(value=spec.samples_per_rank // spec.micro_batch_size))
    journal.log(events.OptName(value=settings.optimizer.name))
    journal.log(events.OptBaseLearningRate(value=peak_learning_rate))
    journal.log(events.OptLearningRateWarmupEpochs(value=settings.schedule.warmup_epochs))
    journal.log(events.OptWeightDecay(value=settings.optimizer.weight_decay))
