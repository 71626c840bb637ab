"""Meeting the other ranks, by the backend and the launcher of the run."""

from collections.abc import Mapping
from pathlib import Path

from hpcai500.spec.run import RunSpec
from hpcai500.train.environment import launched_size, read_environment
from hpcai500.train.ranks import Ranks, TorchRanks, require_launched, require_size
from hpcai500.train.rendezvous import meet


def join(spec: RunSpec, env: Mapping[str, str]) -> Ranks:
    """The ranks of this start of `spec`.

    Raises:
        RankError: if they are not as many as the run asks for.
        MachineError: if the backend is not installed, or rank 0 cannot be reached.
    """
    execution = spec.settings.execution
    require_launched(spec.world_size, launched_size(spec.launcher, env), spec.launcher)
    if spec.backend == "horovod":
        from hpcai500.train.horovod_ranks import HorovodRanks

        return HorovodRanks(execution.device, spec.launcher, spec.world_size, execution.gradient_compression)
    if spec.launcher == "mpirun":
        from hpcai500.train.mpi import meet_by_mpi

        place, store = meet_by_mpi(spec.world_size, env)
        return TorchRanks(place, execution.device, lambda: store, execution.gradient_compression)
    place = read_environment(spec.launcher, env)
    require_size(spec.world_size, place.size, spec.launcher, "torch.distributed")
    meeting = (lambda: meet(place, Path(spec.folder), env)) if place.start else None
    return TorchRanks(place, execution.device, meeting, execution.gradient_compression)
