"""Predicted against measured steps on the Slurm testbed, its links slowed to known bandwidths by `tc tbf`.

It trains ResNet-50 at 32 x 32 under DistributedDataParallel and Gloo, with one rank per node. Computation is measured
with all nodes at work and no communication, since the nodes share one machine's cores. The network is once that of
tbf's setting, with the latency of an 8-byte all-reduce, and once fitted to all-reduces. No step is fitted.
At the end, even after an error, the links are restored.
"""

import json
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from slurm_start import ROOT, cluster_environment

sys.path.insert(0, str(ROOT / "slurm" / "testbed"))
import hosts

from hpcai500.predict.calibration import Step
from hpcai500.predict.communication import Link, Network, gradients
from hpcai500.predict.network import fit

SIZES = (2, 4)
RATES_MBIT = (400, 1_000)
STEPS, BATCH, IMAGE = 5, 8, 32
PROBED = (8, 1 << 20, 16 << 20)
"""Bytes of the all-reduces that are measured."""
_TIMEOUT_SEC = 200


def rank(folder: Path) -> None:
    """One rank of the job: steps without communication, then with it at each bandwidth."""
    import os

    import torch
    import torch.distributed as dist
    from torchvision.models import resnet50

    torch.set_num_threads(1)
    number, size = int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"])
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet-{size}", rank=number, world_size=size)
    torch.manual_seed(number)
    model = torch.nn.parallel.DistributedDataParallel(resnet50(num_classes=10), gradient_as_bucket_view=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.875)
    images, labels = torch.randn(BATCH, 3, IMAGE, IMAGE), torch.zeros(BATCH, dtype=torch.int64)

    def step() -> float:
        started = time.perf_counter()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - started

    def alone() -> float:
        with model.no_sync():
            return step()

    def mean(values: list[float]) -> float:
        total = torch.tensor(statistics.median(values), dtype=torch.float64)
        dist.all_reduce(total)
        return float(total) / size

    def probe(num_bytes: int) -> list[float]:
        content, seconds = torch.zeros(num_bytes // 4), []
        for _ in range(20 if num_bytes < 1000 else 3):
            started = time.perf_counter()
            dist.all_reduce(content)
            seconds.append(time.perf_counter() - started)
        return seconds

    for _ in range(2):
        step()  # DDP fixes its buckets after the first step
    dist.barrier()
    record = {"compute_sec": mean([alone() for _ in range(STEPS)]), "steps": {}}
    for rate in RATES_MBIT:
        dist.barrier()
        if number == 0:
            (folder / f"set-{size}-{rate}").touch()
        while not (folder / f"go-{size}-{rate}").exists():
            time.sleep(0.05)
        probed = [(num_bytes, mean(probe(num_bytes))) for num_bytes in PROBED]
        step()
        dist.barrier()
        record["steps"][rate] = {"all_reduce": probed, "step_sec": mean([step() for _ in range(STEPS)])}
    if number == 0:
        (folder / f"result-{size}.json").write_text(json.dumps(record))
    dist.barrier()
    dist.destroy_process_group()


def shape(nodes: int, rate_mbit: int | None) -> None:
    """Limit what the first nodes send to `rate_mbit`; None removes the limit."""
    for number in range(1, nodes + 1):
        tc = [*hosts.enter(f"node{number}"), "tc", "qdisc"]
        hosts.run(*tc, "del", "dev", "eth0", "root", check=False)
        if rate_mbit:
            limit = ("tbf", "rate", f"{rate_mbit}mbit", "burst", "512kb", "latency", "100ms")
            hosts.run(*tc, "add", "dev", "eth0", "root", *limit)


def measure(env: dict[str, str], folder: Path, nodes: int) -> dict[str, object]:
    """The measurements of the ranks on so many nodes."""
    command = [
        "srun", f"--nodes={nodes}", "--ntasks-per-node=1", "--cpus-per-task=1", "--mpi=none", "--kill-on-bad-exit=1",
        sys.executable, str(Path(__file__).resolve()), "rank", str(folder),
    ]  # fmt: skip
    job = subprocess.Popen(command, env={**env, "GLOO_SOCKET_IFNAME": "eth0", "OMP_NUM_THREADS": "1"}, cwd=folder)
    try:
        waiting = list(RATES_MBIT)
        deadline = time.monotonic() + _TIMEOUT_SEC
        while job.poll() is None and time.monotonic() < deadline:
            if waiting and (folder / f"set-{nodes}-{waiting[0]}").exists():
                rate = waiting.pop(0)
                shape(nodes, rate)
                (folder / f"go-{nodes}-{rate}").touch()
            time.sleep(0.05)
    finally:
        shape(nodes, None)
        if job.poll() is None:
            job.terminate()
        job.wait(timeout=30)
    if job.returncode:
        sys.exit(f"the job on {nodes} nodes failed ({job.returncode})")
    return json.loads((folder / f"result-{nodes}.json").read_text())


def predicted_sec(compute_sec: float, nodes: int, link: Link) -> float:
    import torch
    from layers import layers_of
    from torchvision.models import resnet50

    with torch.device("meta"):
        layers = layers_of(resnet50(num_classes=10), IMAGE)
    step = Step(compute_sec, BATCH, 1, tuple(gradients(layers)), "torch", 1.0)
    return compute_sec + step.sync(nodes, 1, Network(between=link, within=link)).exposed_sec


def main() -> int:
    found = cluster_environment()
    if found is None:
        print("the testbed is down (make testbed-up)")
        return 3
    env, shared = found
    folder = shared.parent / f"predict-{time.time_ns()}"
    folder.mkdir(parents=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print("| nodes | link | computation | measured step | from the link's rate | error | from all-reduces | error |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    try:
        for nodes in SIZES:
            record = measure(env, folder, nodes)
            compute = record["compute_sec"]
            for rate in RATES_MBIT:
                measured, probed = (record["steps"][str(rate)][key] for key in ("step_sec", "all_reduce"))
                latency = probed[0][1] / (2 * (nodes - 1))
                links = (
                    Link(latency_sec=latency, bytes_per_sec=rate * 1e6 / 8),
                    fit([(num_bytes, sec) for num_bytes, sec in probed], nodes).likely,
                )
                cells = [f"{nodes}", f"{rate:,} Mbit/s", f"{compute:.3f} s", f"{measured:.3f} s"]
                for link in links:
                    predicted = predicted_sec(compute, nodes, link)
                    cells += [f"{predicted:.3f} s", f"{predicted / measured - 1:+.1%}"]
                print(f"| {' | '.join(cells)} |", flush=True)
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["rank"]:
        rank(Path(sys.argv[2]))
    else:
        sys.exit(main())
