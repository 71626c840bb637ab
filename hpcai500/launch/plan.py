"""A RunSpec as the command and the environment that start it: pure functions, held by golden tests."""

from collections.abc import Mapping
from typing import NamedTuple

from hpcai500.spec.run import RunSpec

_INHERITED_RANK_VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
)


class Plan(NamedTuple):
    argv: tuple[str, ...]
    env: dict[str, str]
    """The whole environment of the new process."""


def plan_local(spec: RunSpec, *, python: str, num_cores: int, env: Mapping[str, str]) -> Plan:
    """All ranks on this machine, under torchrun."""
    argv = (
        python,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={spec.procs_per_node}",
        "--module",
        "hpcai500.train.worker",
        str(spec.folder / "run.json"),
    )
    return Plan(argv, worker_environment(spec, num_cores, env) | {"GLOO_SOCKET_IFNAME": "lo"})


def worker_environment(spec: RunSpec, num_cores: int, env: Mapping[str, str]) -> dict[str, str]:
    """`env` without another job's ranks, with the threads of a node's cores shared among its ranks."""
    inherited = {
        name: value
        for name, value in env.items()
        if name not in _INHERITED_RANK_VARIABLES and not name.startswith("TORCHELASTIC_")
    }
    threads = str(max(1, num_cores // spec.procs_per_node))
    own = {"OMP_NUM_THREADS": env.get("OMP_NUM_THREADS", threads)}
    if spec.settings.execution.deterministic:
        own["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    return inherited | own
