"""A launcher that each of several nodes runs for its own ranks, for agents that already run on the nodes.

`python -m hpcai500.launch.launchers.per_node FIRST_RANK NUM_HERE NUM_RANKS START COMMAND…`
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from hpcai500.launch.launcher import Launcher, RankEnvironment, RankStart

_POLL_SEC = 0.05


class PerNode(Launcher):
    name = "per-node"
    program = "a node's agent"
    backends = ("torch",)
    is_offered = False
    is_asked_once = True
    uses_allocation = True
    rank_variables = ("HPCAI500_RANK",)
    size_variables = ("HPCAI500_WORLD_SIZE",)

    def tokens(self, start: RankStart) -> tuple[str, ...]:
        layout = start.layout
        first = start.node_index * layout.procs_per_node
        numbers = (first, layout.procs_per_node, layout.world_size)
        return (start.python, "-m", __name__, *map(str, numbers), start.name)

    def rank_environment(self, env: Mapping[str, str]) -> RankEnvironment:
        return RankEnvironment(
            rank=int(env["HPCAI500_RANK"]),
            size=int(env["HPCAI500_WORLD_SIZE"]),
            local_rank=int(env["HPCAI500_LOCAL_RANK"]),
            local_size=int(env["HPCAI500_LOCAL_WORLD_SIZE"]),
            start=env["HPCAI500_START"],
        )


LAUNCHER = PerNode()


def rank_variables(first_rank: int, num_here: int, num_ranks: int, start: str) -> list[dict[str, str]]:
    """The variables of each rank of a node, in the order of ranks."""
    return [
        {
            "HPCAI500_RANK": str(first_rank + local_rank),
            "HPCAI500_WORLD_SIZE": str(num_ranks),
            "HPCAI500_LOCAL_RANK": str(local_rank),
            "HPCAI500_LOCAL_WORLD_SIZE": str(num_here),
            "HPCAI500_START": start,
        }
        for local_rank in range(num_here)
    ]


def main(argv: Sequence[str]) -> int:
    """Start the ranks and wait for them. Return 0 if all succeed, else the code of the first that fails."""
    first_rank, num_here, num_ranks, start, *command = argv
    environments = rank_variables(int(first_rank), int(num_here), int(num_ranks), start)
    ranks: list[subprocess.Popen[bytes]] = []

    def stop(*_: object) -> None:
        for rank in ranks:
            rank.terminate()

    signal.signal(signal.SIGTERM, stop)
    for variables in environments:
        ranks.append(subprocess.Popen(command, env={**os.environ, **variables}))
    while True:
        codes = [rank.poll() for rank in ranks]
        if failed := [code for code in codes if code]:
            for rank in ranks:
                rank.kill()
            return 128 - failed[0] if failed[0] < 0 else failed[0]
        if all(code == 0 for code in codes):
            return 0
        time.sleep(_POLL_SEC)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
