"""The time of the command `hpcai500 rank` for 10,000 results, from its start to the printed table."""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from hpcai500.events.payloads import Epoch
from hpcai500.files import write_json
from hpcai500.score.record.result import Energy, Flops, Identity, Result, Score, Time
from hpcai500.spec.levels import Level
from hpcai500.spec.run import resolve

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from fleet import write_fleet

NUM_SYSTEMS, NUM_SEEDS, NUM_EPOCHS, REPEATS = 2_000, 5, 20, 3
QUALITIES = (0.3, 0.7, 0.9)


def write_base(folder: Path) -> Path:
    """One run's run.json and result.json, from which `write_fleet` makes the others with consistent figures."""
    spec = resolve(
        "image_classification", problem="mini", level=Level.FREE, seed=0, overrides={}, system="bench",
        data="data", output=str(folder),
    )  # fmt: skip
    place = spec.write().parent
    epochs = tuple(
        Epoch(
            epoch_num=number, train_loss=1 / number, quality=quality, num_samples=1_437, flops=1e12, train_sec=3.0,
            eval_sec=1.0, learning_rate=0.1, energy_joules=100.0,
        )
        for number, quality in enumerate(QUALITIES, start=1)
    )  # fmt: skip
    identity = Identity(
        run_id=spec.run_id, workload=spec.workload.name, title=spec.workload.title,
        benchmark=spec.workload.benchmark, problem=spec.problem, level=spec.level, system=spec.system,
        backend=spec.backend, precision="fp32", nodes=1, world_size=1, accelerator="made", seed=0,
        experiment_digest=spec.experiment_digest, code_digest=spec.workload.code_digest, dataset_digest="d",
    )  # fmt: skip
    flops = Flops(
        convention="made", per_sample=1e9, per_sample_standard_deviation=0.0, total=3e12, flops=2.5e11,
        flops_per_rank=2.5e11, train_flops=3e11, published_convention_flops=None,
    )  # fmt: skip
    score = Score(
        achieved_quality=0.9, target_quality=0.85, metric="accuracy", penalty_exponent=5, vflops=0.0,
        vflops_per_watt=None, epochs_to_quality=3, time_to_quality_sec=12.0,
    )  # fmt: skip
    result = Result(
        identity=identity, status="success", epochs=epochs, num_epochs=len(epochs), flops=flops, score=score,
        time=Time(total_sec=12.0, train_sec=9.0, eval_sec=3.0, init_sec=1.0, warm_up_sec=0.5),
        energy=Energy(joules=300.0, sources=("made",), missing=()),
    )  # fmt: skip
    write_json(place / "result.json", result.model_dump(mode="json"))
    return place


_TIMED = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
wall, usage = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1_024]))
"""


def timed(command: list[str]) -> list[float]:
    """Wall-clock seconds, CPU seconds and peak bytes of a process that must succeed.

    A small process starts it, since the peak of a child begins at the memory of its parent.
    """
    measuring = [sys.executable, "-c", _TIMED, *command]
    found: list[float] = json.loads(subprocess.run(measuring, check=True, stdout=subprocess.PIPE).stdout)
    return found


def row() -> tuple[str, str, str, str, str]:
    """Rows of `bench.py`'s table."""
    with tempfile.TemporaryDirectory() as name:
        base = write_base(Path(name) / "base")
        systems = [(f"system-{number}", 1 + number % 8, 1 + number / 700) for number in range(NUM_SYSTEMS)]
        write_fleet(Path(name) / "fleet", base, systems, seeds=NUM_SEEDS, epochs=NUM_EPOCHS)
        command = [sys.executable, "-m", "hpcai500.cli.main", "rank", str(Path(name) / "fleet")]
        wall, cpu, peak = (
            statistics.median(part) for part in zip(*(timed(command) for _ in range(REPEATS)), strict=True)
        )
    what = f"rank {NUM_SYSTEMS * NUM_SEEDS:,} results: seconds; of them CPU; peak memory"
    return what, f"{wall:.1f} s; {cpu:.1f} s; {peak / 1e6:.0f} MB", "", "", "< 5 s; < 1 GB"


if __name__ == "__main__":
    print(*row(), sep=" | ")
