"""Measured runs by size: step time and its spread, waiting, evaluation, the model, threads."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field, model_validator

from hpcai500.errors import InputError, SpecError
from hpcai500.events import payloads as events
from hpcai500.events.payloads import Structure
from hpcai500.events.reader import read_events
from hpcai500.events.typed import Lenient, payload
from hpcai500.files import read_json
from hpcai500.predict.communication import Gradient, Network, Sync, all_reduce, gradients, synchronize
from hpcai500.score.record.folders import run_folders
from hpcai500.score.record.reading import newest_result
from hpcai500.score.record.result import Result
from hpcai500.score.record.soundness import fault
from hpcai500.spec.models import Model, parse
from hpcai500.spec.run import AnyRun, read_run

BACKWARD = 2 / 3
"""Share of the backward pass in computation: it needs twice the FLOPs of the forward pass."""

USUAL_SPREAD = 0.043
"""Spread of ranks' step times if only one epoch was measured, and the least in the worst case.

It explains an efficiency that Horovod published for hidden communication (benchmarks/predict_published.py).
"""

_SHORTEST_SEC = 1e-9
"""Shortest training time of an epoch that counts as a measurement."""

_UNTOUCHED = "use the folder as the run left it"

_SAME = ("system", "accelerator", "workload", "problem", "backend", "precision", "code_digest")


_Count = Annotated[int, Field(ge=1, le=1_000_000)]


class _Structure(Structure):
    num_parameters: int = Field(ge=1, le=10**15)
    num_tensors: _Count = 1
    layer_parameters: dict[str, Annotated[int, Field(ge=0)]] | None = None
    layer_flops: dict[str, Annotated[float, Field(ge=0, le=1e30)]]

    @model_validator(mode="after")
    def _layers_hold_all(self) -> "_Structure":
        if self.layer_parameters is not None and sum(self.layer_parameters.values()) != self.num_parameters:
            raise ValueError("layer_parameters: their sum is not num_parameters")
        return self


class _Model(events.Model):
    value: _Structure


class _Hardware(Lenient):
    num_cores: _Count | None = None


class _Process(Lenient):
    device: str | None = None
    num_cores: _Count | None = None
    num_threads: _Count | None = None


class _Layers(Lenient):
    hardware: _Hardware = Field(alias="1")
    process: _Process = Field(alias="6")


class _Group(Lenient):
    layers: _Layers


class _System(Lenient):
    nodes: Annotated[tuple[_Group, ...], Field(min_length=1)]


class MeasuredSize(NamedTuple):
    """All runs on one number of ranks."""

    spec: AnyRun
    result: Result
    """Result of the first seed."""
    step_sec: float
    """Step time: median over epochs and seeds. The first epoch of a run counts only if it is the only one."""
    spread: float | None
    """Relative standard deviation of step times, estimated as 1.4826 times the median distance from their median."""
    wait_share: float | None
    """Share of the step spent waiting for data; None if not measured."""
    loader_processes: int | None
    """Loader processes or threads per rank; 0 if nothing is read ahead, None if unknown."""
    eval_sec: float
    """Evaluation time per epoch: median over epochs and seeds."""
    first_sec: float
    """Extra time of the first epoch: median over seeds, 0 if it is the only one.

    Negative if it was faster.
    """
    other_sec: float
    """Time of a run outside training and evaluation: median over seeds."""
    num_epochs: float
    """Epochs trained, fewer than planned if a run stopped at its target: median over seeds."""
    total_sec: float
    """Total time of a run: median over seeds."""
    flops: float
    """FLOPS of a run: median over seeds."""
    threads: int | None
    """Threads that a rank started, if it computes on a CPU; otherwise None, or if unknown."""
    cores: int | None
    """Cores of a node that its ranks could use together; None if unknown."""
    qualities: tuple[float, ...]
    grads: tuple[Gradient, ...]
    knows_layers: bool

    def threads_at(self, per_node: int) -> float | None:
        """Threads of a rank if `per_node` ranks share a node: as started, but at most its cores; None if unknown."""
        if self.threads is None:
            return None
        cores = self.cores or self.threads * self.spec.procs_per_node
        return min(float(self.threads), cores / per_node)

    @property
    def measured_threads(self) -> float | None:
        return self.threads_at(self.spec.procs_per_node)

    @property
    def is_oversubscribed(self) -> bool:
        """Whether the ranks of a node started more threads than they had cores."""
        return self.threads is not None and self.threads * self.spec.procs_per_node > (self.cores or math.inf)


class Step(NamedTuple):
    """One optimiser step of one rank by itself."""

    compute_sec: float
    samples: int
    micro_batches: int
    grads: tuple[Gradient, ...]
    backend: str
    wire_bytes: float

    def sync(self, nodes: int, ranks_per_node: int, network: Network) -> Sync:
        """Communication with other ranks, overlapped with the backward pass of the last micro-batch."""
        return synchronize(
            self.grads,
            BACKWARD * self.compute_sec / self.micro_batches,
            lambda num_bytes: all_reduce(num_bytes, nodes, ranks_per_node, network),
            backend=self.backend,
            wire_bytes=self.wire_bytes,
        )


def read_sizes(paths: Iterable[Path], left_out: list[str] | None = None) -> list[MeasuredSize]:
    """The runs in `paths` (folders of one or several runs) by size, the smallest first.

    Unfinished runs below a folder of several are added to `left_out`, each with the reason.

    Raises:
        InputError: for an explicitly named run without success, impossible times, runs of different systems or
            experiments, or no finished run.
    """
    runs: dict[int, list[tuple[AnyRun, Result, Path]]] = {}
    skipped = [] if left_out is None else left_out
    for folder, is_named in _folders(paths):
        spec = read_run(folder / "run.json")
        try:
            result = newest_result(folder / "result.json")
        except InputError as error:
            raise InputError(f"{folder}: {error.message}", error.hint) from error
        if result.status != "success":
            unfinished = f"{folder}: status {result.status}"
            if not is_named:
                skipped.append(unfinished)
                continue
            raise InputError(
                f"{unfinished}: the step time needs a finished run",
                "--resume finishes a preempted run" if result.status == "preempted" else "run it again",
            )
        if reason := _timing_fault(result) or fault(result):
            file = folder / "result.json"
            raise InputError(f"{file if file.exists() else folder}: {reason}", _UNTOUCHED)
        runs.setdefault(spec.world_size, []).append((spec, result, folder))
    if not runs:
        raise InputError(f"{skipped[0]}: no finished run next to it", "finish one, or give another folder")
    everything = [run for members in runs.values() for run in members]
    _require_same(everything)
    return [_sized(members) for _, members in sorted(runs.items())]


def _folders(paths: Iterable[Path]) -> list[tuple[Path, bool]]:
    """Run folders, each once, and whether it was named itself rather than a folder above it."""
    found: dict[Path, bool] = {}
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder", "give the folder of a finished run")
        for folder in run_folders(path):
            found[folder] = found.get(folder, False) or folder == (path.parent if path.is_file() else path)
    return list(found.items())


def _timing_fault(result: Result) -> str | None:
    """Times that no finished run can have; None if there are none."""
    for epoch in result.epochs:
        if epoch.train_sec < _SHORTEST_SEC or epoch.eval_sec < 0:
            return f"epoch {epoch.epoch_num}: {epoch.train_sec:g} s of training, {epoch.eval_sec:g} s of evaluation"
        if not 0 <= (wait := epoch.data_wait_sec or 0.0) < epoch.train_sec:
            return f"epoch {epoch.epoch_num}: {wait:g} s of waiting for data in {epoch.train_sec:g} s of training"
    if result.flops and result.flops.per_sample <= 0:
        return f"flops.per_sample: {result.flops.per_sample:g} is out of range"
    return None


def _require_same(runs: Sequence[tuple[AnyRun, Result, Path]]) -> None:
    one, reference, _ = runs[0]
    for spec, result, folder in runs[1:]:
        for field in _SAME:
            here, there = getattr(result.identity, field), getattr(reference.identity, field)
            if here != there:
                raise InputError(
                    f"{folder}: {field} is {here!r}, elsewhere {there!r}: a prediction needs one system and code",
                    "give runs that differ only in size and seed",
                )
        if spec.world_size == one.world_size and result.identity.experiment_digest != (
            reference.identity.experiment_digest
        ):
            raise InputError(f"{folder}: another experiment of the same size", "give runs of one experiment per size")


def _sized(members: Sequence[tuple[AnyRun, Result, Path]]) -> MeasuredSize:
    spec, result, folder = members[0]
    results = [each for _, each, _ in members]
    epochs = [epoch for each in results for epoch in each.epochs[1:] or each.epochs]
    times = [epoch.train_sec / spec.steps_per_epoch for epoch in epochs]
    known = [epoch.data_wait_sec for epoch in epochs if epoch.data_wait_sec is not None]
    step_sec = statistics.median(times)
    runs = [each.time for each in results if each.time]
    firsts = [each.epochs[0].train_sec for each in results if len(each.epochs) > 1]
    structure, reading = _logged(folder / "events.log")
    loaders = reading.loader_threads if reading.loader_processes is None else reading.loader_processes
    threads, cores = _cores(folder / "system.json", spec.procs_per_node)
    return MeasuredSize(
        spec=spec,
        result=result,
        step_sec=step_sec,
        spread=_spread(times, step_sec) if len(times) > 1 else None,
        wait_share=sum(known) / sum(epoch.train_sec for epoch in epochs) if len(known) == len(epochs) else None,
        loader_processes=loaders,
        eval_sec=statistics.median(epoch.eval_sec for each in results for epoch in each.epochs),
        first_sec=statistics.median(firsts) - step_sec * spec.steps_per_epoch if firsts else 0.0,
        other_sec=max(0.0, statistics.median(time.total_sec - time.train_sec - time.eval_sec for time in runs)),
        num_epochs=statistics.median(len(each.epochs) for each in results),
        total_sec=statistics.median(time.total_sec for time in runs),
        flops=statistics.median(each.flops.flops for each in results if each.flops),
        threads=threads,
        cores=cores,
        qualities=tuple(each.score.achieved_quality for each in results if each.score),
        grads=tuple(_gradients(structure)),
        knows_layers=structure.layer_parameters is not None,
    )


def _spread(times: Sequence[float], middle: float) -> float:
    """Relative spread, robust against one slow epoch of several."""
    return 1.4826 * statistics.median(abs(sec - middle) for sec in times) / middle


def _record(model: type[Model], value: Any, source: str) -> Model:
    try:
        return parse(model, value, source)
    except SpecError as error:
        raise InputError(error.message, _UNTOUCHED) from error


def _logged(log: Path) -> tuple[_Structure, events.InputPipeline]:
    """Model structure and input settings from a run's events.

    Raises:
        InputError: if the log lacks the model, or has impossible figures.
    """
    found = read_events(log) if log.exists() else []
    try:
        model, reading = payload(found, _Model), payload(found, events.Input)
    except InputError as error:
        raise InputError(error.fault, _UNTOUCHED, at=error.at, line=error.line) from error
    if model is None:
        raise InputError(f"{log}: the model's structure is missing", "predict from a run of this version of hpcai500")
    return model.value, reading.value if reading else events.InputPipeline()


def _cores(path: Path, per_node: int) -> tuple[int | None, int | None]:
    """Fewest threads of any rank and physical cores of any node; None unless ranks computed on CPUs.

    If a rank started more threads than it had cores, the node's cores are those of its ranks.

    Raises:
        InputError: for impossible figures.
    """
    if not path.exists():
        return None, None
    layers = [group.layers for group in _record(_System, read_json(path), str(path)).nodes]
    processes = [each.process for each in layers]
    threads = [each.num_threads for each in processes if each.num_threads]
    if any(each.device != "cpu" for each in processes) or len(threads) < len(layers):
        return None, None
    cores = [each.hardware.num_cores for each in layers if each.hardware.num_cores]
    fewest = cores if len(cores) == len(layers) else []
    fewest += [
        each.num_cores * per_node
        for each in processes
        if each.num_cores and each.num_threads and each.num_cores < each.num_threads
    ]
    return min(threads), min(fewest, default=None)


def _gradients(structure: _Structure) -> list[Gradient]:
    if structure.layer_parameters is None:
        pieces = structure.num_tensors
        return gradients([(structure.num_parameters / pieces, 1.0)] * pieces)
    flops = structure.layer_flops
    return gradients([(count, flops.get(name, 0.0)) for name, count in structure.layer_parameters.items()])


def as_step(sized: MeasuredSize, compute_sec: float) -> Step:
    spec = sized.spec
    return Step(
        compute_sec=compute_sec,
        samples=spec.samples_per_rank,
        micro_batches=spec.samples_per_rank // spec.micro_batch_size,
        grads=sized.grads,
        backend=spec.backend,
        wire_bytes=spec.gradient_share,
    )


def bisect(rising: Callable[[float], float], target: float, low: float, high: float) -> float:
    """The argument between `low` and `high` at which `rising` reaches `target`, to within 1e-7 of it."""
    for _ in range(100):
        middle = math.sqrt(low * high) if low > 0 else (low + high) / 2
        low, high = (middle, high) if rising(middle) < target else (low, middle)
        if high - low <= 1e-7 * high:
            break
    return high
