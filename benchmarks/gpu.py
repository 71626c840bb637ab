"""Both workloads' steps on a device, in one call: batch sizes, precisions, eager and compiled, random and real input.

`python benchmarks/gpu.py` uses a GPU if torch finds one. Otherwise it uses the CPU and small sizes, which only shows
that it works. It writes OUTPUT/gpu.json and OUTPUT/gpu.md.

MFU is the model's FLOPS divided by those of torch's own kernels on the same device in the same precision. The kernels
are a large matrix product and a convolution of ResNet. On a GPU, fp32 is compared with TF32, in which torch computes
convolutions.
"""

import argparse
import contextlib
import gc
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cpuinfo
import torch
from input_speed import write_photographs
from tabulate import tabulate
from trainers import train_steps, trainer_of, trial_spec

from hpcai500.launch.launcher import RankEnvironment
from hpcai500.micro.compute import measure_compute
from hpcai500.micro.sample import Sample
from hpcai500.ranks.torch_ranks import Ranks, TorchRanks
from hpcai500.train.energy import EnergyMeter
from hpcai500.train.loop import Trainer

ANCHOR = "7,767 images/s a GPU: ResNet-50 on 8 H200, MLPerf Training v4.0, evaluation included"
NUM_BLOCKS = 5
EAGER, COMPILED, GRAPHS = "eager", "compiled", "graphs"
COMPILE = {EAGER: False, COMPILED: True, GRAPHS: "reduce-overhead"}


class Plan(NamedTuple):
    """The configurations to measure."""

    problem: str
    batches: dict[str, tuple[int, ...]]
    precisions: tuple[str, ...]
    modes: tuple[str, ...]
    """Ways to execute a step: all at the two largest batches in the first precision, otherwise only the first."""
    block_sec: float
    """Seconds of each of the NUM_BLOCKS blocks of steps."""
    ceiling_sec: float
    real_batch: dict[str, int]
    num_real: dict[str, int]
    """Samples of the real data sets."""


ON_GPU = Plan(
    problem="full",
    batches={"image_classification": (64, 128, 256, 512), "extreme_weather": (1, 2, 4, 8)},
    precisions=("bf16", "fp32"),
    modes=(EAGER, COMPILED, GRAPHS),
    block_sec=1.0,
    ceiling_sec=60.0,
    real_batch={"image_classification": 256, "extreme_weather": 4},
    num_real={"image_classification": 8_192, "extreme_weather": 32},
)
ON_CPU = Plan(
    problem="mini",
    batches={"image_classification": (4,), "extreme_weather": (2,)},
    precisions=("fp32",),
    modes=(EAGER,),
    block_sec=0.01,
    ceiling_sec=1.0,
    real_batch={"image_classification": 8, "extreme_weather": 2},
    num_real={"image_classification": 16, "extreme_weather": 2},
)


class Measured(NamedTuple):
    """One configuration with its figures. None: unknown here, or it did not fit."""

    workload: str
    batch: int
    precision: str
    mode: str
    input: str
    samples_per_sec: float | None = None
    """The median over the blocks."""
    quartiles: tuple[float, float] | None = None
    step_ms: float | None = None
    flops: float | None = None
    of_gemm: float | None = None
    of_convolution: float | None = None
    memory_bytes: int | None = None
    """The most memory that torch allocated on the GPU."""
    joules_per_sample: float | None = None
    """Power of the GPU, from NVML."""
    start_sec: float | None = None
    """Seconds, including build, compilation and warm-up."""
    waited: float | None = None
    """The share of an epoch's time that the loop waited for data."""
    failure: str = ""


class Bench:
    """One device and the speed of its kernels."""

    def __init__(self, ranks: Ranks, plan: Plan, folder: Path) -> None:
        self.ranks, self.plan, self.folder = ranks, plan, folder
        precisions = [*plan.precisions, *(["tf32"] if "fp32" in plan.precisions else [])]
        found = measure_compute(
            str(ranks.device),
            budget_sec=plan.ceiling_sec,
            precisions=precisions,
            names=("gemm", "convolution", "copy", "host_to_device"),
        )
        self.ceilings = found.samples
        self.energy = EnergyMeter(ranks.device, node_leader=False)
        self._number = 0

    def ceiling(self, family: str, precision: str) -> float | None:
        if precision == "fp32" and self.ranks.device.type == "cuda":
            precision = "tf32"
        rates = [s.value for s in self.ceilings if s.family == family and s.precision == precision]
        return max(rates, default=None)

    def measure(self, case: Measured, data: str = "synthetic") -> Measured:
        """`case` with its figures, or with the reason why it has none."""
        started = time.perf_counter()
        overrides: dict[str, Any] = {
            "execution.device": self.ranks.device.type,
            "execution.precision": case.precision,
            "execution.channels_last": True,
            "execution.compile": COMPILE[case.mode],
            "execution.num_flop_batches": 1,
            "batch.global_batch_size": case.batch,
            "batch.micro_batch_size": case.batch,
        }
        trainer = None
        try:
            if data != "synthetic":
                overrides |= real_overrides(case.workload, self.plan)
            self._number += 1
            output = str(self.folder / f"run{self._number}")
            trainer = trainer_of(
                trial_spec(case.workload, self.plan.problem, output, overrides, data=data), self.ranks
            )
            train_steps(trainer, 2) if data == "synthetic" else trainer.train_epoch(1, 0.0)
            case = case._replace(start_sec=time.perf_counter() - started)
            return self._epochs(case, trainer) if data != "synthetic" else self._steps(case, trainer)
        except Exception as error:  # an incomplete table is better than none
            return case._replace(failure=f"{type(error).__name__}: {str(error).splitlines()[0][:120]}")
        finally:
            del trainer
            self._clean()

    def _steps(self, case: Measured, trainer: Trainer) -> Measured:
        once = timed(lambda: train_steps(trainer, 1))
        num_steps = max(1, round(self.plan.block_sec / once))
        reset_memory()
        self.energy.joules_since_last()
        blocks = [timed(lambda: train_steps(trainer, num_steps)) for _ in range(NUM_BLOCKS)]
        return self._figures(case, trainer, blocks, num_steps * case.batch)

    def _epochs(self, case: Measured, trainer: Trainer) -> Measured:
        waits: list[float] = []
        reset_memory()
        self.energy.joules_since_last()

        def epoch() -> None:
            waits.append(trainer.train_epoch(len(waits) + 2, 0.0)[1])
            trainer.clock.read_sec()

        blocks = [timed(epoch) for _ in range(NUM_BLOCKS)]
        case = case._replace(waited=sum(waits) / sum(blocks))
        return self._figures(case, trainer, blocks, trainer.spec.steps_per_epoch * case.batch)

    def _figures(self, case: Measured, trainer: Trainer, blocks: Sequence[float], num_samples: int) -> Measured:
        joules = self.energy.joules_since_last() if self.energy.sources else None
        rates = [num_samples / taken for taken in blocks]
        low, middle, high = statistics.quantiles(rates, n=4)
        flops = middle * trainer.flops_per_sample
        gemm, convolution = (self.ceiling(family, case.precision) for family in ("gemm", "convolution"))
        return case._replace(
            samples_per_sec=middle,
            quartiles=(low, high),
            step_ms=1_000 * case.batch / middle,
            flops=flops,
            of_gemm=flops / gemm if gemm else None,
            of_convolution=flops / convolution if convolution else None,
            memory_bytes=torch.cuda.max_memory_allocated() if self.ranks.device.type == "cuda" else None,
            joules_per_sample=joules / (num_samples * len(blocks)) if joules is not None else None,
        )

    def _clean(self) -> None:
        torch.compiler.reset()
        gc.collect()
        if self.ranks.device.type == "cuda":
            torch.cuda.empty_cache()


def timed(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def reset_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def cases(plan: Plan, workloads: Sequence[str]) -> Iterator[Measured]:
    for workload in workloads:
        for precision in plan.precisions:
            for mode in plan.modes:
                everywhere = mode == plan.modes[0]
                if not everywhere and precision != plan.precisions[0]:
                    continue
                for batch in plan.batches[workload] if everywhere else plan.batches[workload][-2:]:
                    yield Measured(workload, batch, precision, mode, "random")


def real_overrides(workload: str, plan: Plan) -> dict[str, Any]:
    sizes: dict[str, Any] = {"problem.num_train_samples": plan.num_real[workload], "problem.num_epochs": 90}
    if workload == "image_classification":
        return sizes | {"problem.num_eval_samples": 8, "model.num_classes": 4, "schedule.warmup_epochs": 1.0}
    year = [1979]
    return sizes | {"problem.num_eval_samples": plan.num_real[workload], "data.train_years": year}


def make_data(workload: str, plan: Plan, folder: Path) -> str:
    """Photographs as JPEG files in ImageNet's layout; frames of the problem's size, synthesized and prepared."""
    if workload == "image_classification":
        write_photographs(folder / "train", plan.num_real[workload])
        write_photographs(folder / "val", 8)
        return str(folder)
    action = ("data", "synthesize", workload, "--problem", plan.problem, "--set", "data.train_years=[1979]")
    arguments = ("--data", str(folder), "--samples", str(plan.num_real[workload]))
    command = [sys.executable, "-m", "hpcai500.cli.main", *action, *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return str(folder)


def machine(device: torch.device) -> dict[str, Any]:
    found: dict[str, Any] = {
        "processor": cpuinfo.get_cpu_info().get("brand_raw", platform.processor()),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": device.type,
    }
    if device.type == "cuda":
        import pynvml

        pynvml.nvmlInit()
        found |= {
            "device": torch.cuda.get_device_name(device),
            "memory_bytes": torch.cuda.get_device_properties(device).total_memory,
            "driver": pynvml.nvmlSystemGetDriverVersion(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return found


def markdown(about: dict[str, Any], ceilings: Sequence[Sample], measured: Sequence[Measured]) -> str:
    def shown(value: float | None, form: str, scale: float = 1.0) -> str:
        return "" if value is None else format(value / scale, form)

    rows = [
        (
            m.workload, m.batch, m.precision, m.mode, m.input, m.failure or shown(m.samples_per_sec, ",.1f"),
            shown(m.step_ms, ".1f"), shown(m.flops, ".2f", 1e12), shown(m.of_gemm, ".1%"),
            shown(m.of_convolution, ".1%"), shown(m.memory_bytes, ".2f", 2**30), shown(m.joules_per_sample, ".3g"),
            shown(m.start_sec, ".1f"), shown(m.waited, ".1%"),
        )
        for m in measured
    ]  # fmt: skip
    heads = (
        "workload", "batch", "precision", "step", "input", "samples/s", "ms a step", "TFLOPS", "of GEMM", "of conv.",
        "memory GiB", "J a sample", "start s", "waited",
    )  # fmt: skip
    tops = [(s.name, s.precision, f"{s.value:.4g} {s.unit}", s.detail) for s in ceilings]
    parts = [
        "\n".join(f"- {key}: {value}" for key, value in about.items()),
        tabulate(tops, ("ceiling", "precision", "median", "shape"), tablefmt="pipe"),
        tabulate(rows, heads, tablefmt="pipe", disable_numparse=True),
        f"To compare with: {ANCHOR}.",
    ]
    return "\n\n".join(parts) + "\n"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("gpu-bench"), help="a folder (default: gpu-bench)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    parser.add_argument("--workloads", nargs="+", default=list(ON_GPU.batches), choices=list(ON_GPU.batches))
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16", "fp16"), help="default: the device's")
    parser.add_argument("--modes", nargs="+", choices=list(COMPILE), help="default: all on a GPU, eager elsewhere")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda: torch sees no GPU here")
    plan = ON_GPU if device == "cuda" else ON_CPU
    plan = plan._replace(precisions=tuple(args.precisions or plan.precisions), modes=tuple(args.modes or plan.modes))
    args.output.mkdir(parents=True, exist_ok=True)
    torch.backends.cudnn.benchmark = True
    ranks = TorchRanks(RankEnvironment(0, 1, 0, 1), device)
    measured: list[Measured] = []
    about = machine(ranks.device)
    with tempfile.TemporaryDirectory() as name, contextlib.closing(ranks):
        bench = Bench(ranks, plan, Path(name))

        def keep(found: Measured) -> None:
            """Measure all cases. Each one is written at once, so that an interrupted call leaves a table."""
            measured.append(found)
            records = [m._asdict() for m in measured]
            ceilings = [s.model_dump(mode="json") for s in bench.ceilings]
            text = json.dumps({"machine": about, "ceilings": ceilings, "measured": records}, indent=2)
            (args.output / "gpu.json").write_text(text + "\n")
            (args.output / "gpu.md").write_text(markdown(about, bench.ceilings, measured))
            shown_figures = found.failure or f"{found.samples_per_sec:,.1f} samples/s"
            print(*found[:5], shown_figures, sep="  ", flush=True)

        for case in cases(plan, args.workloads):
            keep(bench.measure(case))
        for workload in args.workloads:
            data = make_data(workload, plan, Path(name) / f"data-{workload}")
            case = Measured(workload, plan.real_batch[workload], plan.precisions[0], EAGER, "real")
            keep(bench.measure(case, data))
    print(f"\n{args.output / 'gpu.md'}")


if __name__ == "__main__":
    main()
