"""result.json: one run's figures, derived from run.json, events.log and system.json alone."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from hpcai500.errors import InputError
from hpcai500.events.reader import Event, find, first, read_events
from hpcai500.events.vocabulary import Key
from hpcai500.files import read_json, write_json
from hpcai500.score.metric import valid_flops
from hpcai500.spec.levels import Level
from hpcai500.spec.models import Frozen, parse
from hpcai500.spec.run import RunSpec, read_run

Status = Literal["success", "aborted", "diverged", "preempted", "running"]


class Epoch(Frozen):
    epoch_num: int
    train_loss: float
    quality: float
    num_samples: int
    flops: float
    train_sec: float
    eval_sec: float
    learning_rate: float
    energy_joules: float | None
    data_wait_sec: float | None = None
    """The part of `train_sec` for which steps waited for their batches; null in records without it."""


class Identity(Frozen):
    """What makes runs comparable; all but the seed equal within one entry of a ranking."""

    run_id: str
    workload: str
    title: str
    benchmark: str | None = None
    """What the workload is an implementation of: results of one benchmark stand in one list."""
    problem: str
    level: Level
    system: str
    backend: str
    precision: str
    nodes: int
    world_size: int
    accelerator: str
    """The GPU's model, or the processor's where there is no GPU."""
    seed: int = Field(ge=0, lt=2**32)
    experiment_digest: str
    code_digest: str
    dataset_digest: str | None

    @property
    def experiment(self) -> tuple[str | int | None, ...]:
        """What the runs of one entry share: all but the seed, and the name that follows from it."""
        return tuple(value for name, value in vars(self).items() if name not in ("seed", "run_id"))


class Flops(Frozen):
    """FLOPs are counts; FLOPS are counts a second of `time_sec`."""

    convention: str
    per_sample: float
    per_sample_standard_deviation: float
    total: float
    """FLOPs of all trained samples."""
    flops: float
    """Total over the whole time: the FLOPS of the run, which VFLOPS penalises."""
    flops_per_rank: float
    train_flops: float
    """Total over the training time alone."""
    published_convention_flops: float | None
    """FLOPS by the published lists' count a sample, where the problem has one."""


class Time(Frozen):
    total_sec: float
    """`run_stop - run_start`: training, evaluation and all between."""
    train_sec: float
    eval_sec: float
    init_sec: float
    """`init_stop - init_start`, outside `total_sec`."""
    warm_up_sec: float
    """The part of `init_sec` that compiled and warmed up."""


class Interruption(Frozen):
    """A stop from outside and what it cost; both are part of `total_sec`."""

    epoch: int
    """The epoch that training went on with."""
    step: int
    """Steps of that epoch that were kept."""
    graceful: bool
    """After a signal and a checkpoint, so that no work was lost."""
    down_sec: float
    """From the last event before to training again."""
    lost_sec: float
    """Work before that was done again."""


class Energy(Frozen):
    joules: float | None
    sources: tuple[str, ...]
    missing: tuple[str, ...]
    """Why `joules` is null or partial."""


class Score(Frozen):
    achieved_quality: float
    """Of the last evaluation."""
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
    """Why this result may never stand in a ranking; empty for one that may."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    epochs: tuple[Epoch, ...] = ()
    num_epochs: int = Field(ge=1)
    """Epochs that the problem asks for."""
    interruptions: tuple[Interruption, ...] = ()
    time: Time | None = None
    flops: Flops | None = None
    energy: Energy | None = None
    score: Score | None = None
    peak_host_bytes: int | None = None
    peak_device_bytes: int | None = None


def derive(folder: Path) -> Result:
    """The result of the run in `folder`.

    Raises:
        InputError: if run.json or events.log is missing or broken.
    """
    spec = read_run(folder / "run.json")
    log = folder / "events.log"
    events = read_events(log) if log.exists() else []
    epochs = tuple(parse(Epoch, event.value, log, event.key) for event in find(events, Key.EPOCH))
    status, failure = _status(events)
    stop = first(events, Key.RUN_STOP)
    start = first(events, Key.RUN_START)
    time = _time(events, epochs) if start and stop else None
    flops = _flops(spec, events, epochs, time) if time and epochs else None
    energy = _energy(events, epochs)
    memory = _value(events, Key.PEAK_MEMORY)
    return Result(
        identity=_identity(spec, events, folder),
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
        peak_host_bytes=memory.get("host_bytes"),
        peak_device_bytes=memory.get("device_bytes"),
    )


def write_result(folder: Path) -> Result:
    """Derive the result and store it as `result.json`."""
    result = derive(folder)
    write_json(folder / "result.json", result.model_dump(mode="json"))
    return result


def read_result(path: Path) -> Result:
    """The Result of a `result.json`."""
    return parse(Result, read_json(path), path)


def _value(events: list[Event], key: Key) -> dict[str, Any]:
    event = first(events, key)
    if event is None:
        return {}
    if not isinstance(event.value, dict):
        raise InputError(f"events.log: {key.value} has no record as its value")
    return event.value


def _interruptions(events: list[Event]) -> tuple[Interruption, ...]:
    names = Interruption.model_fields
    return tuple(
        parse(Interruption, {name: event.value[name] for name in names}, event.key)
        for event in find(events, Key.RESUMED)
    )


def _identity(spec: RunSpec, events: list[Event], folder: Path) -> Identity:
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
        accelerator=_accelerator(folder, spec),
        seed=spec.seed,
        experiment_digest=spec.experiment_digest,
        code_digest=spec.workload.code_digest,
        dataset_digest=_value(events, Key.DATASET).get("digest"),
    )


def _accelerator(folder: Path, spec: RunSpec) -> str:
    path = folder / "system.json"
    if not path.exists():
        return "unknown"
    layers = read_json(path)["nodes"][0]["layers"]
    if spec.program and "1" not in layers:
        return "not disclosed"
    hardware = layers["1"]
    device = layers.get("6", {}).get("device", spec.settings.execution.device)
    gpus = [] if device == "cpu" else hardware.get("gpus")
    return str(gpus[0]["model"] if gpus else hardware.get("cpu_model", "unknown"))


def _fault(events: list[Event]) -> str:
    """What no single run can have written; empty where there is nothing."""
    for key in (Key.RUN_START, Key.RUN_STOP):
        if len(find(events, key)) > 1:
            return f"events.log: {key.value} stands there twice: two processes wrote it, or it was altered"
    numbers = [event.value["epoch_num"] for event in find(events, Key.EPOCH)]
    if any(later != earlier + 1 for earlier, later in pairwise(numbers)):
        return f"events.log: epochs {numbers} are not those of one run: two processes wrote it, or it was altered"
    return ""


def _status(events: list[Event]) -> tuple[Status, str | None]:
    stop = first(events, Key.RUN_STOP)
    failure = first(events, Key.FAILURE)
    reason = str(failure.value) if failure else None
    if failure and failure.metadata.get("status") == "diverged":
        return "diverged", reason
    if fault := _fault(events):
        return "aborted", fault
    if stop is None:
        ends = [event.key for event in events if event.key in (Key.INTERRUPTED, Key.RESUMED)]
        if ends[-1:] == [Key.INTERRUPTED]:
            return "preempted", "stopped by a signal; --resume goes on with it"
        return "aborted", reason or "events.log has no run_stop"
    return ("success", None) if stop.metadata.get("status") == "success" else ("aborted", reason)


def _unranked(spec: RunSpec, status: Status) -> tuple[str, ...]:
    reasons = []
    if spec.is_synthetic:
        reasons.append("synthetic data")
    if spec.unranked:
        reasons.append("a trial (--unranked)")
    if spec.resume_from:
        reasons.append("starts from another run's checkpoint")
    if status != "success":
        reasons.append(f"status {status}")
    return tuple(reasons)


def _seconds_between(events: list[Event], start: Key, stop: Key) -> float:
    started, stopped = first(events, start), first(events, stop)
    return (stopped.time_ms - started.time_ms) / 1_000 if started and stopped else math.nan


def _time(events: list[Event], epochs: tuple[Epoch, ...]) -> Time:
    return Time(
        total_sec=_seconds_between(events, Key.RUN_START, Key.RUN_STOP),
        train_sec=sum(epoch.train_sec for epoch in epochs),
        eval_sec=sum(epoch.eval_sec for epoch in epochs),
        init_sec=_seconds_between(events, Key.INIT_START, Key.INIT_STOP),
        warm_up_sec=_value(events, Key.WARM_UP).get("warm_up_sec", 0.0),
    )


def _flops(spec: RunSpec, events: list[Event], epochs: tuple[Epoch, ...], time: Time) -> Flops:
    event = first(events, Key.FLOPS_PER_SAMPLE)
    if event is None:
        raise InputError("events.log: no hpcai500.flops_per_sample")
    num_samples = sum(epoch.num_samples for epoch in epochs)
    total = num_samples * event.value["mean"]
    published = spec.settings.problem.published_flops_per_sample
    return Flops(
        convention=event.metadata["convention"],
        per_sample=event.value["mean"],
        per_sample_standard_deviation=event.value["standard_deviation"],
        total=total,
        flops=total / time.total_sec,
        flops_per_rank=total / time.total_sec / spec.world_size,
        train_flops=total / time.train_sec,
        published_convention_flops=num_samples * published / time.total_sec if published else None,
    )


def _energy(events: list[Event], epochs: tuple[Epoch, ...]) -> Energy | None:
    record = _value(events, Key.ENERGY)
    if not record:
        return None
    used = [epoch.energy_joules for epoch in epochs]
    known = [joules for joules in used if joules is not None]
    return Energy(
        joules=sum(known) if known and len(known) == len(used) and record["sources"] else None,
        sources=tuple(record["sources"]),
        missing=tuple(record["missing"]),
    )


def _score(
    spec: RunSpec,
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
    stop = next((e for e in find(events, Key.EVAL_STOP) if e.metadata.get("epoch_num") == epoch_num), None)
    return (stop.time_ms - start.time_ms) / 1_000 if start and stop else None
