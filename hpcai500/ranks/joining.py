"""Meeting the other ranks, by the backend and the launcher of the run."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from hpcai500.ranks.meeting import meet
from hpcai500.ranks.place import launched_size, read_environment, size_by_other_launcher
from hpcai500.ranks.torch_ranks import Ranks, TorchRanks, require_launched, require_size
from hpcai500.spec.run import RunSpec


def join(spec: RunSpec, env: Mapping[str, str]) -> Ranks:
    """The ranks of this start of `spec`; raises as `join_ranks` does."""
    execution = spec.settings.execution
    layout = Layout(spec.backend, spec.launcher, spec.world_size, execution.device, execution.gradient_compression)
    return join_ranks(layout, spec.folder, env)


class Layout(NamedTuple):
    """How ranks were started, and how they communicate."""

    backend: str
    launcher: str
    world_size: int
    device: str
    """`auto`, `cpu` or `cuda`."""
    compression: str = "none"


def join_ranks(layout: Layout, folder: Path, env: Mapping[str, str]) -> Ranks:
    """The ranks that were started as `layout` says, who may meet through files in `folder`.

    Raises:
        RankError: if they are not as many as it asks for.
        MachineError: if the backend is not installed, or rank 0 cannot be reached.
    """
    backend, launcher, world_size, device, compression = layout
    require_launched(world_size, launched_size(launcher, env), launcher)
    if other := size_by_other_launcher(launcher, env):
        require_launched(world_size, other[1], other[0])
    if backend == "horovod":
        from hpcai500.ranks.horovod_ranks import HorovodRanks

        return HorovodRanks(device, launcher, world_size, compression)
    if launcher == "mpirun":
        from hpcai500.ranks.mpi_meeting import meet_by_mpi

        place, store = meet_by_mpi(world_size, env)
        return TorchRanks(place, device, lambda: store, compression)
    place = read_environment(launcher, env)
    require_size(world_size, place.size, launcher, "torch.distributed")
    meeting = (lambda: meet(place, folder, env)) if place.start else None
    return TorchRanks(place, device, meeting, compression)
