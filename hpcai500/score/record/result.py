"""result.json: one run's figures, derived only from run.json, events.log and system.json."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from hpcai500.errors import InputError
from hpcai500.events import payloads as logged
from hpcai500.events.payloads import Epoch, Interruption
from hpcai500.events.reader import Event, find, first
from hpcai500.events.typed import parsed, payload, payloads
from hpcai500.events.vocabulary import Key, RunStatus
from hpcai500.files import read_json, write_json
from hpcai500.score.record.run_files import LOG, SYSTEM, RunFiles, files_of
from hpcai500.score.record.valid_flops import valid_flops
from hpcai500.spec.levels import Level
from hpcai500.spec.models import Frozen, parse
from hpcai500.spec.run import AnyRun

Status = Literal["success", "aborted", "diverged", "preempted"]


class Identity(Frozen):
    """What makes runs comparable: within one entry of a ranking all of it is equal, except seed and run_id."""

    run_id: str
    workload: str
    title: str
    benchmark: str | None = None
    """What the workload implements: results of one benchmark are in one list."""
    problem: str
    level: Level
    system: str
    backend: str
    precision: str
    nodes: int
    world_size: int
    accelerator: str
    """The GPU's model, or the processor's if there is no GPU."""
    seed: int = Field(ge=0, lt=2**32)
    experiment_digest: str
    code_digest: str
    dataset_digest: str | None

    @property
    def experiment(self) -> tuple[str | int | None, ...]:
        """What the runs of one entry share: all fields except seed and run_id."""
        return tuple(value for name, value in vars(self).items() if name not in ("seed", "run_id"))


class Flops(Frozen):
    """FLOPs are counts, FLOPS counts per second."""

    convention: str
    per_sample: float
    per_sample_standard_deviation: float
    total: float
    """FLOPs of all trained samples."""
    flops: float
    """`total` over the whole time: the FLOPS that VFLOPS penalises."""
    flops_per_rank: float
    train_flops: float
    """`total` over the training time only."""
    published_convention_flops: float | None
    """FLOPS by the published lists' count per sample; null if the problem has none."""


class Time(Frozen):
    total_sec: float
    """`run_stop - run_start`: training, evaluation and everything between."""
    train_sec: float
    eval_sec: float
    init_sec: float
    """`init_stop - init_start`, outside `total_sec`."""
    warm_up_sec: float
    """The part of `init_sec` that compiled and warmed up."""


class Energy(Frozen):
    joules: float | None
    sources: tuple[str, ...]
    missing: tuple[str, ...]
    """Why `joules` is null or partial."""


class Score(Frozen):
    achieved_quality: float
    """Quality at the last evaluation."""
    target_quality: float
    metric: str
    penalty_exponent: int
    vflops: float
    vflops_per_watt: float | None
    epochs_to_quality: int | None
    time_to_quality_sec: float | None


class Result(Frozen):
    schema_version: Literal[1] = 1
    identity: Identity
    status: Status
    failure: str | None = None
    unranked: tuple[str, ...] = ()
    """Why this result may never be ranked; empty for one that may."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    epochs: tuple[Epoch, ...] = ()
    num_epochs: int = Field(ge=1)
    """Epochs of the problem, run or not."""
    interruptions: tuple[Interruption, ...] = ()
    time: Time | None = None
    flops: Flops | None = None
    energy: Energy | None = None
    score: Score | None = None
    peak_host_bytes: int | None = None
    peak_device_bytes: int | None = None


def derive(folder: Path | RunFiles) -> Result:
    """The result of the run in `folder`.

    Raises:
        InputError: if run.json or events.log is missing or broken.
    """
    files = files_of(folder)
    return result_of(files.run(), files.events() if files.exists(LOG) else [], files)


def result_of(spec: AnyRun, events: list[Event], files: RunFiles) -> Result:
    """The result that follows from a run's spec, its events, and the system in `files`.

    Raises:
        InputError: if a file or an event is broken.
    """
    epochs = epochs_of(events)
    status, failure = _status(events, epochs)
    stop = first(events, Key.RUN_STOP)
    start = first(events, Key.RUN_START)
    time = _time(events, epochs) if start and stop else None
    flops = _flops(spec, events, epochs, time) if time and epochs else None
    energy = _energy(events, epochs)
    memory = payload(events, logged.PeakMemory)
    return Result(
        identity=_identity(spec, events, files),
        status=status,
        failure=failure,
        unranked=_unranked(spec, status),
        overrides=spec.overrides,
        epochs=epochs,
        num_epochs=spec.settings.problem.num_epochs,
        interruptions=_interruptions(events),
        time=time,
        flops=flops,
        energy=energy,
        score=_score(spec, events, epochs, flops, energy, time) if flops else None,
        peak_host_bytes=memory.value.host_bytes if memory else None,
        peak_device_bytes=memory.value.device_bytes if memory else None,
    )


def write_result(folder: Path) -> Result:
    """Derive the result and store it as `result.json`."""
    result = derive(folder)
    write_json(folder / "result.json", result.model_dump(mode="json"))
    return result


def read_result(path: Path) -> Result:
    """The Result of a `result.json`."""
    return parse(Result, read_json(path), path)


def epochs_of(events: list[Event]) -> tuple[Epoch, ...]:
    return tuple(report.value for report in payloads(events, logged.EpochReport))


def _interruptions(events: list[Event]) -> tuple[Interruption, ...]:
    return tuple(resumed.value.interruption for resumed in payloads(events, logged.Resumed))


def _identity(spec: AnyRun, events: list[Event], files: RunFiles) -> Identity:
    dataset = payload(events, logged.Dataset)
    return Identity(
        run_id=spec.run_id,
        workload=spec.workload.name,
        title=spec.workload.title,
        benchmark=spec.workload.benchmark,
        problem=spec.problem,
        level=spec.level,
        system=spec.system,
        backend=spec.backend,
        precision=spec.settings.execution.precision,
        nodes=spec.nodes,
        world_size=spec.world_size,
        accelerator=_accelerator(files, spec),
        seed=spec.seed,
        experiment_digest=spec.experiment_digest,
        code_digest=spec.workload.code_digest,
        dataset_digest=dataset.value.digest if dataset else None,
    )


def _accelerator(files: RunFiles, spec: AnyRun) -> str:
    if not files.exists(SYSTEM):
        return "unknown"
    layers = files.record(SYSTEM)["nodes"][0]["layers"]
    hardware = layers.get("1")
    if hardware is None:
        return "not disclosed"
    device = layers.get("6", {}).get("device", spec.settings.execution.device)
    gpus = [] if device == "cpu" else hardware.get("gpus")
    return str(gpus[0]["model"] if gpus else hardware.get("cpu_model", "unknown"))


def _fault(events: list[Event], epochs: tuple[Epoch, ...]) -> str:
    """What no single run can have written; empty if there is nothing."""
    for key in (Key.RUN_START, Key.RUN_STOP):
        if len(find(events, key)) > 1:
            return f"events.log: {key.value} appears twice: two processes wrote it, or it was altered"
    numbers = [epoch.epoch_num for epoch in epochs]
    if any(later != earlier + 1 for earlier, later in pairwise(numbers)):
        return f"events.log: epochs {numbers} are not those of one run: two processes wrote it, or it was altered"
    return ""


def _status(events: list[Event], epochs: tuple[Epoch, ...]) -> tuple[Status, str | None]:
    stop, failure = payload(events, logged.RunStop), payload(events, logged.RunFailure)
    reason = failure.value if failure else None
    if failure and failure.metadata.status == "diverged":
        return "diverged", reason
    if fault := _fault(events, epochs):
        return "aborted", fault
    if stop is None:
        ends = [event.key for event in events if event.key in (Key.INTERRUPTED, Key.RESUMED)]
        if ends[-1:] == [Key.INTERRUPTED]:
            return "preempted", "stopped by a signal; --resume continues it"
        return "aborted", reason or "events.log has no run_stop"
    return ("success", None) if stop.metadata.status is RunStatus.SUCCESS else ("aborted", reason)


def _unranked(spec: AnyRun, status: Status) -> tuple[str, ...]:
    return spec.unranked_reasons if status == "success" else (*spec.unranked_reasons, f"status {status}")


def _seconds_between(events: list[Event], start: Key, stop: Key) -> float:
    started, stopped = first(events, start), first(events, stop)
    return (stopped.time_ms - started.time_ms) / 1_000 if started and stopped else math.nan


def _time(events: list[Event], epochs: tuple[Epoch, ...]) -> Time:
    warm_up = payload(events, logged.WarmUp)
    return Time(
        total_sec=_seconds_between(events, Key.RUN_START, Key.RUN_STOP),
        train_sec=sum(epoch.train_sec for epoch in epochs),
        eval_sec=sum(epoch.eval_sec for epoch in epochs),
        init_sec=_seconds_between(events, Key.INIT_START, Key.INIT_STOP),
        warm_up_sec=warm_up.value.warm_up_sec if warm_up else 0.0,
    )


def _flops(spec: AnyRun, events: list[Event], epochs: tuple[Epoch, ...], time: Time) -> Flops:
    counted = payload(events, logged.FlopsPerSample)
    if counted is None:
        raise InputError("events.log: no hpcai500.flops_per_sample")
    num_samples = sum(epoch.num_samples for epoch in epochs)
    total = num_samples * counted.value.mean
    published = spec.settings.problem.published_flops_per_sample
    return Flops(
        convention=counted.metadata.convention,
        per_sample=counted.value.mean,
        per_sample_standard_deviation=counted.value.standard_deviation,
        total=total,
        flops=total / time.total_sec,
        flops_per_rank=total / time.total_sec / spec.world_size,
        train_flops=total / time.train_sec,
        published_convention_flops=num_samples * published / time.total_sec if published else None,
    )


def _energy(events: list[Event], epochs: tuple[Epoch, ...]) -> Energy | None:
    meters = payload(events, logged.Energy)
    if meters is None:
        return None
    used = [epoch.energy_joules for epoch in epochs]
    known = [joules for joules in used if joules is not None]
    return Energy(
        joules=sum(known) if known and len(known) == len(used) and meters.value.sources else None,
        sources=meters.value.sources,
        missing=meters.value.missing,
    )


def _score(
    spec: AnyRun,
    events: list[Event],
    epochs: tuple[Epoch, ...],
    flops: Flops,
    energy: Energy | None,
    time: Time | None,
) -> Score:
    problem = spec.settings.problem
    achieved = epochs[-1].quality
    vflops = valid_flops(flops.flops, achieved, problem.target_quality, problem.penalty_exponent)
    reached = next((e.epoch_num for e in epochs if e.quality >= problem.target_quality), None)
    watts = energy.joules / time.total_sec if energy and energy.joules and time else None
    return Score(
        achieved_quality=achieved,
        target_quality=problem.target_quality,
        metric=problem.metric,
        penalty_exponent=problem.penalty_exponent,
        vflops=vflops,
        vflops_per_watt=vflops / watts if watts else None,
        epochs_to_quality=reached,
        time_to_quality_sec=_time_to_quality(events, reached) if reached else None,
    )


def _time_to_quality(events: list[Event], epoch_num: int) -> float | None:
    """From `run_start` to the `eval_stop` of the first evaluation at or above the target."""
    start = first(events, Key.RUN_START)
    stop = next(
        (e for e in find(events, Key.EVAL_STOP) if parsed(e, logged.EvalStop).metadata.epoch_num == epoch_num), None
    )
    return (stop.time_ms - start.time_ms) / 1_000 if start and stop else None
