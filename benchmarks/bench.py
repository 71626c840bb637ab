"""`make bench`: the speed of this project, as ratios of pairs that are measured together (`pairs`)."""

import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cpuinfo
import first_step
import horovod_over_ddp
import input_speed
import overlap
import ranking_speed
import scaling
import slurm_start
import step_speed
import tabulate
import torch
import validation_speed
from pairs import Row, paired, ratio, turns
from torch import nn
from torchvision.models import resnet50

from hpcai500.events.writer import EventWriter
from hpcai500.launch.launcher import RankEnvironment
from hpcai500.ranks.torch_ranks import TorchRanks
from hpcai500.spec.levels import Level
from hpcai500.spec.run import RunSpec, resolve
from hpcai500.train.build import count_flops
from hpcai500.train.clock import Clock
from hpcai500.train.energy import EnergyMeter
from hpcai500.train.journal import RunJournal, SilentJournal
from hpcai500.train.loop import Trainer
from hpcai500.train.optim import build_optimizer
from hpcai500.train.preemption import StopRequest
from hpcai500.train.synthetic import SyntheticData
from hpcai500.train.workload import load_workload

STEPS_PER_BLOCK = 6
MINI_SAMPLES = 1_437


def mini_spec(output: str) -> RunSpec:
    return resolve(
        "image_classification",
        problem="mini",
        level=Level.FREE,
        seed=0,
        overrides={
            "batch.global_batch_size": 24,
            "problem.num_train_samples": 24 * STEPS_PER_BLOCK,
            "problem.num_eval_samples": 24,
        },
        unranked=True,
        system="bench",
        data="synthetic",
        output=output,
    )


def make_trainer(spec: RunSpec, ranks: TorchRanks, journal: RunJournal | SilentJournal) -> Trainer:
    workload = SyntheticData(load_workload(Path(spec.workload.folder))(spec))
    workload.open_data(Path(spec.data), ranks)
    torch.manual_seed(0)
    model = workload.build_model().train()
    return Trainer(
        spec=spec,
        ranks=ranks,
        workload=workload,
        model=model,
        wrapped=model,
        optimizer=build_optimizer(model, spec.settings.optimizer, fused=True),
        journal=journal,
        clock=Clock(ranks.device),
        energy=EnergyMeter(ranks.device, node_leader=True),
        flops_per_sample=1.0,
        energy_is_complete=False,
        stop=StopRequest(),
    )


def bare_step(spec: RunSpec) -> Callable[[], None]:
    """A training loop without a harness, with the same model, batches, precision and optimiser."""
    torch.manual_seed(0)
    model = resnet50(num_classes=10, zero_init_residual=True).train()
    settings = spec.settings.optimizer
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.01, momentum=settings.momentum, weight_decay=settings.weight_decay, fused=True
    )
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    images = torch.randint(256, (24, 3, 32, 32), dtype=torch.uint8)
    labels = torch.randint(10, (24,))
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1) * 255
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1) * 255

    def step() -> None:
        loss = criterion(model((images - mean) / deviation), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def step_over_bare_loop(spec: RunSpec, ranks: TorchRanks) -> Row:
    trainer = make_trainer(spec, ranks, SilentJournal())
    bare = bare_step(spec)

    def ours() -> None:
        trainer.train_epoch(1, trainer.clock.read_sec())

    def other() -> None:
        for _ in range(STEPS_PER_BLOCK):
            bare()

    first, second, shown = paired(ours, other)
    per_step = [f"{1_000 * taken / STEPS_PER_BLOCK:.1f} ms" for taken in (first, second)]
    return Row("step: our loop / bare PyTorch loop", *per_step, shown, "<= 1.02")


def counting_and_logging(spec: RunSpec, ranks: TorchRanks) -> Row:
    spec.write()
    logged = make_trainer(spec, ranks, RunJournal(spec, EventWriter(spec.folder / "events.log")))
    silent = make_trainer(spec, ranks, SilentJournal())
    start = time.perf_counter()
    count_flops(logged.workload, logged.model, ranks)
    count_sec = time.perf_counter() - start
    with open_null() as null:  # printing the epoch line is part of logging, showing it here is not
        sys.stdout, screen = null, sys.stdout
        try:
            times = turns(lambda: logged.run_epoch(1) and None, lambda: silent.run_epoch(1) and None)
        finally:
            sys.stdout = screen
    # An epoch here is short: combine the real length of the mini problem's epochs with the overhead of this one.
    num_epochs = spec.settings.problem.num_epochs
    longer = MINI_SAMPLES / spec.settings.problem.num_train_samples
    runs = [
        (count_sec + num_epochs * (second * longer + first - second), num_epochs * second * longer)
        for first, second in times
    ]
    whole_sec, training_sec = (statistics.median(column) for column in zip(*runs, strict=True))
    return Row(
        f"mini run, by epochs of {STEPS_PER_BLOCK} steps: with FLOP counting and logging / without",
        f"{whole_sec:.1f} s",
        f"{training_sec:.1f} s",
        f"{ratio(runs)}; counting alone {count_sec:.2f} s",
        "<= 1.01",
    )


def open_null():
    return Path("/dev/null").open("w")


def help_time() -> Row:
    def call(*argv: str) -> Callable[[], None]:
        return lambda: subprocess.run([sys.executable, *argv], check=True, stdout=subprocess.DEVNULL) and None

    first, second, shown = paired(call("-m", "hpcai500.cli.main", "--help"), call("-c", "pass"))
    return Row("hpcai500 --help / python -c pass", f"{first:.3f} s", f"{second:.3f} s", shown, "< 0.3 s")


def main() -> None:
    with tempfile.TemporaryDirectory() as output:
        spec = mini_spec(output)
        ranks = TorchRanks(RankEnvironment(0, 1, 0, 1), "cpu")
        rows = [help_time(), step_over_bare_loop(spec, ranks), counting_and_logging(spec, ranks)]
        rows += [*input_speed.rows(), *step_speed.rows(ranks)]
        ranks.close()
    others = (*horovod_over_ddp.rows(), *scaling.rows(), *overlap.rows(), validation_speed.row())
    others += (ranking_speed.row(), *first_step.rows(), *slurm_start.rows())
    rows += [Row(*row) for row in others]
    cpu = cpuinfo.get_cpu_info().get("brand_raw", platform.processor())
    print(
        f"{cpu}, {torch.get_num_threads()} threads, torch {torch.__version__}, Python {platform.python_version()}\n"
    )
    print(tabulate.tabulate(rows, Row._fields, tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
