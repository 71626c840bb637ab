"""Joining the other ranks of a start, through its launcher and its communication library."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hpcai500.errors import RankError
from hpcai500.launch.launcher import Launcher
from hpcai500.launch.layout import Layout
from hpcai500.launch.registry import find_launcher, launchers
from hpcai500.ranks.rendezvous import rendezvous
from hpcai500.ranks.torch_ranks import Ranks, TorchRanks, require_size

if TYPE_CHECKING:
    from hpcai500.ranks.mpi_ranks import MpiRanks


def join(layout: Layout, folder: Path, env: Mapping[str, str]) -> Ranks:
    """The ranks that train, started as `layout` describes. Their rendezvous may use files in `folder`.

    Raises:
        RankError: if their number differs from that of the layout.
        MachineError: if the backend is not installed, or rank 0 cannot be reached.
    """
    launcher = find_launcher(layout.launcher)
    _require_started(layout.world_size, launcher, env)
    if layout.backend == "horovod":
        from hpcai500.ranks.horovod_ranks import HorovodRanks

        return HorovodRanks(layout.device, layout.launcher, layout.world_size, layout.compression)
    if launcher.rendezvous == "mpi":
        from hpcai500.ranks.mpi_rendezvous import rendezvous_by_mpi

        own, store = rendezvous_by_mpi(layout.world_size, launcher.name, env)
        return TorchRanks(own, layout.device, lambda: store, layout.compression)
    own = launcher.require_rank_environment(env)
    require_size(layout.world_size, own.size, layout.launcher, "torch.distributed")
    by_file = (lambda: rendezvous(own, folder, env)) if launcher.rendezvous == "folder" else None
    return TorchRanks(own, layout.device, by_file, layout.compression)


def join_group(layout: Layout, folder: Path, env: Mapping[str, str]) -> "Ranks | MpiRanks":
    """The ranks that measure collectives: those of `join`, or ranks of MPI's own library."""
    if layout.backend != "mpi":
        return join(layout, folder, env)
    from hpcai500.ranks.mpi_ranks import MpiRanks

    _require_started(layout.world_size, find_launcher(layout.launcher), env)
    return MpiRanks(layout.world_size, layout.launcher)


def _require_started(expected: int, launcher: Launcher, env: Mapping[str, str]) -> None:
    """Refuse a number of ranks other than the layout's, as reported by its launcher or by one around it."""
    others = [each for each in launchers().values() if each.is_exclusive and each.name != launcher.name]
    started_by = [(launcher, launcher.num_started(env)), *((each, each.num_copies(env)) for each in others)]
    for each, started in started_by:
        if started not in (None, expected) and (each is launcher or started > 1):
            raise RankError(
                f"the run asks for {expected} ranks, but {each.name} started {started}",
                "start it with `hpcai500 run` or its job script",
            )
