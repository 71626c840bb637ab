"""Training on 1, 2 and 4 ranks of this machine, under torch and Horovod, as alternating whole runs."""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tabulate import tabulate

from hpcai500.launch.requirements import missing
from hpcai500.score.record.result import read_result
from hpcai500.system.cores import physical_cores

NUM_ROUNDS = 2
STEPS = 6
BATCH = 24
"""Samples per rank, so that the work of each rank is constant."""
LAUNCHERS = {"torch": "local", "horovod": "horovodrun"}
SIZES = (1, 2, 4)


def rows() -> list[tuple[str, str, str, str, str]]:
    """Rows of bench.py's table: samples/s of several ranks, compared with one rank on as many cores."""
    num_cores = len(physical_cores(os.sched_getaffinity(0)))
    rates = measured()
    alone = rates.pop(("torch", 1), [])
    found = []
    for (backend, size), own in rates.items():
        cores = min(size, num_cores)
        what = (
            f"training, {size} ranks of one thread on {cores} cores, {backend}: rate / {cores} x one rank's of torch"
        )
        ratios = sorted(rate / (cores * one) for rate, one in zip(own, alone, strict=True))
        shown = f"{statistics.mean(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        rate, one = statistics.mean(own), statistics.mean(alone)
        found.append((what, f"{rate:.0f} samples/s", f"{cores} x {one:.0f} samples/s", shown, ""))
    return found


def measured() -> dict[tuple[str, int], list[float]]:
    """Samples/s in each round, for each backend and number of ranks; one rank only under torch."""
    backends = [backend for backend, launcher in LAUNCHERS.items() if not list(missing(backend, launcher))]
    for backend in LAUNCHERS.keys() - backends:
        print(f"scaling: {backend} not measured, not installed (make {backend})")
    cases = [(backend, size) for backend in backends for size in SIZES if size > 1 or backend == "torch"]
    rates: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    for number in range(NUM_ROUNDS):
        for case in cases if number % 2 else cases[::-1]:
            rates[case].append(samples_per_sec(*case))
    return rates


def samples_per_sec(backend: str, size: int) -> float:
    """Throughput in the second epoch of a run; the first one is a warm-up. Each rank uses one thread."""
    options = (
        "image_classification", "--problem", "mini", "--data", "synthetic", "--unranked", "--system", "bench",
        "--backend", backend, "--launcher", LAUNCHERS[backend], "--procs-per-node", str(size),
        "--set", f"batch.global_batch_size={size * BATCH}", "--set", f"batch.micro_batch_size={BATCH}",
        "--set", f"problem.num_train_samples={size * BATCH * STEPS}", "--set", "problem.num_eval_samples=4",
        "--set", "problem.num_epochs=2",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, "-m", "hpcai500.cli.main", "run", *options, "--output", output]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=300, env=env)
        result = read_result(next(Path(output).rglob("result.json")))
    epoch = result.epochs[-1]
    return epoch.num_samples / epoch.train_sec


if __name__ == "__main__":
    print(tabulate(rows(), ("what", "ours", "alternative", "ratio", "goal"), tablefmt="pipe"))
