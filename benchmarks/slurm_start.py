"""The time of launching through Slurm, measured on the testbed if that is up."""

import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTBED = ROOT / "slurm" / "testbed" / "testbed.py"
NUM_TURNS = 5
_TIMEOUT_SEC = 120

BARE_SCRIPT = """#!/bin/bash
#SBATCH --nodes=2 --ntasks-per-node=1 --cpus-per-task=1 --output={folder}/bare.out
export GLOO_SOCKET_IFNAME=eth0 OMP_NUM_THREADS=1
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun --mpi=none {python} -m torch.distributed.run --nnodes=2 --nproc-per-node=1 --rdzv-backend=c10d \\
    --rdzv-endpoint="$head:29400" --rdzv-id="$SLURM_JOB_ID" {program} {folder}/bare-$SLURM_JOB_ID
"""

BARE_PROGRAM = """
import sys, time, torch, torch.distributed as dist
from torchvision.models import resnet50
dist.init_process_group("gloo")
model = torch.nn.parallel.DistributedDataParallel(resnet50(num_classes=10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.875)
images, labels = torch.randn(32, 3, 32, 32), torch.zeros(32, dtype=torch.int64)
dist.barrier()
if dist.get_rank() == 0:
    open(sys.argv[1], "w").write(str(time.time()))
loss = torch.nn.functional.cross_entropy(model(images), labels)
loss.backward()
optimizer.step()
dist.destroy_process_group()
"""


def cluster_environment() -> tuple[dict[str, str], Path] | None:
    """The environment for the testbed, and a folder that its nodes share; None if it is down."""
    if subprocess.run([sys.executable, TESTBED, "status"], capture_output=True, check=False).returncode:
        return None
    lines = subprocess.run([sys.executable, TESTBED, "env"], capture_output=True, text=True, check=True).stdout
    paths = dict(line.removeprefix("export ").split("=", 1) for line in lines.splitlines())
    return {**os.environ, "SLURM_CONF": paths["SLURM_CONF"]}, Path(paths["TESTBED_SHARED"]) / "bench"


def rows() -> list[tuple[str, str, str, str, str]]:
    """Rows of bench.py's table."""
    found = cluster_environment()
    if found is None:
        print("Slurm: not measured, the testbed is down (make testbed-up)")
        return []
    env, folder = found
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        return [first_step(env, folder), sweep(env, folder)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def first_step(env: dict[str, str], folder: Path) -> tuple[str, str, str, str, str]:
    (folder / "bare.py").write_text(BARE_PROGRAM)
    bare = folder / "bare.sbatch"
    bare.write_text(BARE_SCRIPT.format(folder=folder, python=sys.executable, program=folder / "bare.py"))
    times: list[tuple[float, float]] = []
    for turn in range(NUM_TURNS):
        order = ((0, ours_to_step), (1, bare_to_step))
        taken = {place: measure(env, folder, bare) for place, measure in (order if turn % 2 else order[::-1])}
        times.append((taken[0], taken[1]))
    ratios = statistics.quantiles((ours / other for ours, other in times), n=4)
    ours, other = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = f"{ratios[1]:.2f} ({ratios[0]:.2f} to {ratios[2]:.2f})"
    return (
        "sbatch to first step, 2 nodes: ours / bare srun torchrun",
        f"{ours:.1f} s",
        f"{other:.1f} s",
        ratio,
        "<= 1.1",
    )


def hpcai500(env: dict[str, str], folder: Path, command: str, *arguments: str) -> str:
    own = [
        sys.executable, "-m", "hpcai500.cli.main", command, "image_classification", "--problem", "mini", "--site",
        "testbed", "--data", "synthetic", "--unranked", "--output", str(folder / "results"), *arguments,
    ]  # fmt: skip
    return subprocess.run(own, env=env, check=True, capture_output=True, text=True, cwd=folder).stdout


def ours_to_step(env: dict[str, str], folder: Path, _: Path) -> float:
    shutil.rmtree(folder / "results", ignore_errors=True)
    script = folder / "ours.sbatch"
    script.write_text(hpcai500(env, folder, "render", "--nodes", "2"))
    started = time.time()
    job_id = submit(env, script)
    try:
        return wait_for_epoch(folder / "results") - started
    finally:
        end(env, job_id)


def bare_to_step(env: dict[str, str], folder: Path, script: Path) -> float:
    started = time.time()
    job_id = submit(env, script)
    try:
        return float(wait_for(folder / f"bare-{job_id}")) - started
    finally:
        end(env, job_id)


def submit(env: dict[str, str], script: Path) -> str:
    sent = subprocess.run(["sbatch", script], env=env, check=True, capture_output=True, text=True, cwd=script.parent)
    return sent.stdout.split()[-1]


def end(env: dict[str, str], job_id: str) -> None:
    subprocess.run(["scancel", job_id], env=env, check=False)
    deadline = time.monotonic() + _TIMEOUT_SEC
    while time.monotonic() < deadline:
        left = subprocess.run(["squeue", "-h", "-j", job_id], env=env, capture_output=True, text=True, check=False)
        if not left.stdout.strip():
            return
        time.sleep(0.5)


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + _TIMEOUT_SEC
    while time.monotonic() < deadline:
        if path.exists() and (text := path.read_text()):
            return text
        time.sleep(0.05)
    raise TimeoutError(path)


def wait_for_epoch(results: Path) -> float:
    """The time at which the first epoch began."""
    from hpcai500.events.reader import first, read_events
    from hpcai500.events.vocabulary import Key

    deadline = time.monotonic() + _TIMEOUT_SEC
    while time.monotonic() < deadline:
        for log in results.rglob("events.log"):
            if event := first(read_events(log), Key.EPOCH_START):
                return event.time_ms / 1_000
        time.sleep(0.1)
    raise TimeoutError(results)


def sweep(env: dict[str, str], folder: Path) -> tuple[str, str, str, str, str]:
    on_hold = "sbatch_arguments=['--hold']"
    started = time.perf_counter()
    output = hpcai500(env, folder, "submit", "--seeds", "0-99", "--slurm", on_hold)
    taken = time.perf_counter() - started
    jobs = [line.split()[1].rstrip(":") for line in output.splitlines() if line.startswith("job ")]
    subprocess.run(["scancel", *jobs], env=env, check=False)
    return f"submission of 100 seeds ({len(jobs)} arrays: MaxArraySize 64)", f"{taken:.1f} s", "", "", "< 5 s"
