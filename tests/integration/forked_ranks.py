"""Ranks of a run, forked from one process that has imported torch, which is faster than starting them.

They run the same worker as launchers do. The work of a launcher (environment, diagnosis, signals) is tested where
`hpcai500 run` starts ranks.
"""

import multiprocessing
import os
import socket
import sys
import time
from pathlib import Path

import torch

from hpcai500.score.record.result import read_result
from hpcai500.spec.levels import Level
from hpcai500.spec.run import RunSpec, read_spec, resolve
from hpcai500.system.cores import physical_cores

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["hpcai500.train.worker", "torchvision"])


def train(workload, output: Path, *, data, ranks=1, threads=None, overrides=None, **fields) -> Path:
    """Train one seed at free level to its end; the run's folder. `threads` per rank, by default a rank's share."""
    given = {
        "problem": "mini", "level": Level.FREE, "seed": 0, "system": "box", "unranked": False,
        "data": str(data), "output": str(output), "procs_per_node": ranks,
    }  # fmt: skip
    spec = resolve(str(workload), overrides=overrides or {}, **(given | fields))
    spec.write()
    return resume(spec.folder, threads)


def resume(folder: Path, threads=None) -> Path:
    """Train the run of a folder to its end, from its newest checkpoint if it has one."""
    codes, said = start(folder, threads)
    assert codes == [0] * len(codes), (codes, said)
    assert read_result(folder / "result.json").status == "success"
    return folder


def start(folder: Path, threads=None, timeout_sec=240.0) -> tuple[list[int], str]:
    """Exit codes of a run's ranks, and all that they wrote; ranks that outlive a killed one are killed too."""
    spec = read_spec(folder / "run.json")
    log = folder / "logs" / "forked.log"
    log.parent.mkdir(exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    ranks = [_FORKS.Process(target=_rank, args=(rank, spec, port, log, threads)) for rank in range(spec.world_size)]
    for rank in ranks:
        rank.start()
    deadline = time.monotonic() + timeout_sec
    while any(rank.is_alive() for rank in ranks) and time.monotonic() < deadline:
        if any(rank.exitcode for rank in ranks):
            break
        ranks[0].join(0.05)
    for rank in ranks:
        rank.join(2)
        rank.kill()
        rank.join()
    return [rank.exitcode for rank in ranks], log.read_text(errors="replace")


def _rank(rank: int, spec: RunSpec, port: int, log: Path, threads: int | None) -> None:
    file = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.dup2(file, 1)
    os.dup2(file, 2)
    size = str(spec.world_size)
    threads = threads or max(1, len(physical_cores(os.sched_getaffinity(0))) // spec.world_size)
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=size, LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=size, MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo", OMP_NUM_THREADS=str(threads), CUDA_VISIBLE_DEVICES="",
    )  # fmt: skip
    torch.set_num_threads(threads)
    sys.argv = ["worker", str(spec.folder / "run.json")]
    from hpcai500.train.worker import main

    sys.exit(main())
