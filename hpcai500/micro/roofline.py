"""The ceilings of a device and the points of workloads, measured here or taken from files."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from hpcai500.errors import InputError, MachineError
from hpcai500.files import read_json
from hpcai500.micro.compute import find_device, measure_compute
from hpcai500.micro.document import MicroDocument, describe
from hpcai500.micro.passes import spec_of, time_steps, trace_workload
from hpcai500.micro.roofline_model import Ceilings, WorkloadPoint
from hpcai500.predict.measured import upgraded
from hpcai500.score.record.folders import run_folders
from hpcai500.score.record.reading import newest_result
from hpcai500.score.record.result import Result
from hpcai500.score.record.system import read_system
from hpcai500.spec.models import parse
from hpcai500.spec.run import RunSpec, read_spec
from hpcai500.spec.workload import find_workload
from hpcai500.text import counted


def measure_ceilings(host: str, device: str, precisions: Sequence[str], budget_sec: float) -> Ceilings:
    """Of `device`, now."""
    names = ("gemm", "convolution", "copy")
    found = measure_compute(device, budget_sec=budget_sec, precisions=precisions, names=names)
    return ceilings_of(describe(host, device, found), "measured now")


def read_ceilings(path: Path) -> Ceilings:
    """Of what `hpcai500 micro --json` wrote to `path`.

    Raises:
        InputError: if it holds no kernels.
    """
    return ceilings_of(parse(MicroDocument, upgraded(read_json(path)), path), str(path))


def ceilings_of(document: MicroDocument, source: str) -> Ceilings:
    """The best of each precision's products and convolutions, and the memory's copy.

    Raises:
        InputError: if one of them is missing, or wrong.
    """
    tables: dict[str, dict[str, float]] = {"gemm": {}, "convolution": {}}
    memory = 0.0
    for sample in document.samples:
        if not sample.correct:
            raise InputError(f"{source}: {sample.metric} gave a wrong result", "such a device has no ceilings")
        if sample.part != "kernels":
            continue
        if sample.family in tables:
            table = tables[sample.family]
            table[sample.precision] = max(sample.value, table.get(sample.precision, 0.0))
        elif sample.family == "copy":
            memory = sample.value
    if not memory or not tables["gemm"]:
        raise InputError(f"{source}: holds no kernels' speed", "write it with `hpcai500 micro --only kernels --json`")
    return Ceilings(
        host=document.host,
        accelerator=document.accelerator,
        device=document.device,
        source=source,
        gemm=tables["gemm"],
        convolution=tables["convolution"],
        memory_bytes_per_sec=memory,
    )


def measure_point(name: str, problem: str, device: str, precision: str, budget_sec: float) -> WorkloadPoint:
    """Real training steps on synthetic data, on one rank in this process."""
    place = find_device(device)
    spec = spec_of(name, problem, place, precision)
    found = trace_workload(spec, place)
    samples_per_sec = time_steps(spec, place, budget_sec).median
    num_samples = spec.micro_batch_size
    return WorkloadPoint(
        name=f"{spec.workload.name} {problem}",
        precision=spec.settings.execution.precision,
        source=f"measured now, {num_samples} samples a step",
        flops=samples_per_sec * found.flops / num_samples,
        flops_per_sample=found.flops / num_samples,
        unfused_bytes=found.unfused_bytes / num_samples,
        fused_bytes=found.fused_bytes / num_samples,
    )


def points_of_runs(paths: Iterable[Path]) -> list[WorkloadPoint]:
    """Of each experiment at or below `paths`, from its finished runs, ranked or not.

    Raises:
        InputError: if none has finished.
        MachineError: if a pass cannot be traced on this machine.
    """
    experiments: dict[tuple[str, ...], dict[Path, Result]] = {}
    left_out = ""
    for folder in dict.fromkeys(folder for path in paths for folder in run_folders(path)):
        result = newest_result(folder / "result.json")
        if result.status != "success" or result.flops is None:
            left_out = left_out or f"{folder}: {result.status}"
            continue
        of = result.identity
        experiments.setdefault((of.system, of.accelerator, of.experiment_digest), {})[folder] = result
    if not experiments:
        raise InputError(f"no finished run ({left_out})", "`hpcai500 status` says how far runs are")
    return [_point_of(runs) for runs in experiments.values()]


def _point_of(runs: Mapping[Path, Result]) -> WorkloadPoint:
    """The FLOPS of one device while it trained, median over seeds; bytes are counted here, on the runs' own batch."""
    folder, result = next(iter(runs.items()))
    spec, of = read_spec(folder / "run.json"), result.identity
    is_on_processors = read_system(folder / "system.json").layer(1).get("cpu_model") == of.accelerator
    num_devices = of.nodes if is_on_processors else of.world_size
    if not Path(spec.workload.folder).is_dir():
        spec = _with_own_code(spec)
    try:
        found = trace_workload(spec, torch.device("cpu"))
    except MemoryError as error:
        raise MachineError(
            f"{folder}: too little memory here to trace a pass", "run it where there is more"
        ) from error
    num_samples = spec.micro_batch_size
    return WorkloadPoint(
        name=f"{spec.workload.name} {spec.problem}",
        precision=spec.settings.execution.precision,
        source=f"{of.system}, {counted(of.world_size, 'rank')}, {counted(len(runs), 'run')}",
        accelerator=of.accelerator,
        num_ranks=of.world_size,
        flops=statistics.median(each.flops.train_flops for each in runs.values() if each.flops) / num_devices,
        flops_per_sample=found.flops / num_samples,
        unfused_bytes=found.unfused_bytes / num_samples,
        fused_bytes=found.fused_bytes / num_samples,
    )


def _with_own_code(spec: RunSpec) -> RunSpec:
    """`spec` with the shipped workload of its name: the run came from another machine."""
    folder = str(find_workload(spec.workload.name))
    return spec.model_copy(update={"workload": spec.workload.model_copy(update={"folder": folder})})
