"""Training throughput of Horovod divided by that of DDP: alternating whole runs, two ranks under mpirun."""

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from hpcai500.launch.requirements import missing
from hpcai500.score.record.result import read_result

NUM_PAIRS = 5
STEPS = 16
OPTIONS = (
    "image_classification", "--problem", "mini", "--data", "synthetic", "--unranked", "--system", "bench",
    "--launcher", "mpirun", "--procs-per-node", "2", "--set", "batch.global_batch_size=48",
    "--set", f"problem.num_train_samples={48 * STEPS}", "--set", "problem.num_eval_samples=16",
    "--set", "problem.num_epochs=2", "--set", "schedule.warmup_epochs=1.0",
)  # fmt: skip


def rows() -> list[tuple[str, str, str, str, str]]:
    """Rows of bench.py's table."""
    lacks = dict([*missing("horovod", "mpirun"), *missing("torch", "mpirun")])
    if lacks:
        print(f"Horovod over DDP: not measured, not installed: {', '.join(lacks)} (make horovod)")
        return []
    pairs = []
    for number in range(NUM_PAIRS + 1):
        order = ("horovod", "torch") if number % 2 else ("torch", "horovod")
        rates = {backend: samples_per_sec(backend) for backend in order}
        pairs.append((rates["horovod"], rates["torch"]))
    pairs = pairs[1:]  # the first pair warms up the machine's caches
    low, middle, high = statistics.quantiles([first / second for first, second in pairs], n=4)
    first, second = (f"{statistics.median(column):.0f} samples/s" for column in zip(*pairs, strict=True))
    return [("training, 2 ranks: Horovod / DDP", first, second, f"{middle:.3f} ({low:.3f} to {high:.3f})", "")]


def samples_per_sec(backend: str) -> float:
    """Throughput in the second epoch of a run; the first one is a warm-up."""
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, "-m", "hpcai500.cli.main", "run", *OPTIONS, "--backend", backend]
        subprocess.run([*command, "--output", output], check=True, stdout=subprocess.DEVNULL, timeout=300)
        result = read_result(next(Path(output).rglob("result.json")))
    epoch = result.epochs[-1]
    return epoch.num_samples / epoch.train_sec


if __name__ == "__main__":
    print(rows())
