"""The ceilings of a device and the points of workloads, measured here or read from files."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from hpcai500.errors import InputError, MachineError
from hpcai500.files import read_json
from hpcai500.micro.compute import find_device, measure_compute
from hpcai500.micro.document import MicroDocument, describe
from hpcai500.micro.passes import synthetic_spec, time_steps, trace_workload
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
    """The ceilings of `device`, measured now."""
    names = ("gemm", "convolution", "copy")
    found = measure_compute(device, budget_sec=budget_sec, precisions=precisions, names=names)
    return ceilings_of(describe(host, device, found), "measured now")


def read_ceilings(path: Path) -> Ceilings:
    """The ceilings from the output of `hpcai500 micro --json` in `path`.

    Raises:
        InputError: if it has no kernels.
    """
    return ceilings_of(parse(MicroDocument, upgraded(read_json(path)), path), str(path))


def ceilings_of(document: MicroDocument, source: str) -> Ceilings:
    """The best product and convolution of each precision, and the bandwidth of a memory copy.

    Raises:
        InputError: if one of them is missing or gave a wrong result.
    """
    tables: dict[str, dict[str, float]] = {"gemm": {}, "convolution": {}}
    memory = 0.0
    for sample in document.samples:
        if not sample.correct:
            raise InputError(
                f"{source}: {sample.metric} gave a wrong result", "check the device: it has no valid ceilings"
            )
        if sample.part != "kernels":
            continue
        if sample.family in tables:
            table = tables[sample.family]
            table[sample.precision] = max(sample.value, table.get(sample.precision, 0.0))
        elif sample.family == "copy":
            memory = sample.value
    if not memory or not tables["gemm"]:
        raise InputError(
            f"{source}: has no results of kernels", "write it with `hpcai500 micro --only kernels --json`"
        )
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
    """A workload's point from real training steps on synthetic data, on one rank in this process."""
    found_device = find_device(device)
    spec = synthetic_spec(name, problem, found_device, precision)
    found = trace_workload(spec, found_device)
    samples_per_sec = time_steps(spec, found_device, budget_sec).median
    num_samples = spec.micro_batch_size
    return WorkloadPoint(
        name=f"{spec.workload.name} {problem}",
        precision=spec.settings.execution.precision,
        source=f"measured now, {num_samples} samples per step",
        flops=samples_per_sec * found.flops / num_samples,
        flops_per_sample=found.flops / num_samples,
        unfused_bytes=found.unfused_bytes / num_samples,
        fused_bytes=found.fused_bytes / num_samples,
    )


def points_of_runs(paths: Iterable[Path]) -> list[WorkloadPoint]:
    """The point of each experiment at or below `paths`, from its finished runs, ranked or not.

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
        identity = result.identity
        key = (identity.system, identity.accelerator, identity.experiment_digest)
        experiments.setdefault(key, {})[folder] = result
    if not experiments:
        raise InputError(f"no finished run ({left_out})", "`hpcai500 status` shows the state of runs")
    return [_point_of(runs) for runs in experiments.values()]


def _point_of(runs: Mapping[Path, Result]) -> WorkloadPoint:
    """FLOPS of one device while it trained, median over seeds; bytes are counted here, for the runs' own batch."""
    folder, result = next(iter(runs.items()))
    spec, identity = read_spec(folder / "run.json"), result.identity
    is_on_processors = read_system(folder / "system.json").layer(1).get("cpu_model") == identity.accelerator
    num_devices = identity.nodes if is_on_processors else identity.world_size
    if not Path(spec.workload.folder).is_dir():
        spec = _with_own_code(spec)
    try:
        found = trace_workload(spec, torch.device("cpu"))
    except MemoryError as error:
        raise MachineError(
            f"{folder}: too little memory here to trace a pass", "run it on a machine with more memory"
        ) from error
    num_samples = spec.micro_batch_size
    return WorkloadPoint(
        name=f"{spec.workload.name} {spec.problem}",
        precision=spec.settings.execution.precision,
        source=f"{identity.system}, {counted(identity.world_size, 'rank')}, {counted(len(runs), 'run')}",
        accelerator=identity.accelerator,
        num_ranks=identity.world_size,
        flops=statistics.median(each.flops.train_flops for each in runs.values() if each.flops) / num_devices,
        flops_per_sample=found.flops / num_samples,
        unfused_bytes=found.unfused_bytes / num_samples,
        fused_bytes=found.fused_bytes / num_samples,
    )


def _with_own_code(spec: RunSpec) -> RunSpec:
    """`spec` with the shipped workload of its name, for a run from another machine."""
    folder = str(find_workload(spec.workload.name))
    return spec.model_copy(update={"workload": spec.workload.model_copy(update={"folder": folder})})
