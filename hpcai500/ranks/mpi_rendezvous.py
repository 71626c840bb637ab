"""The rendezvous of torch.distributed's ranks under mpirun: rank 0 opens a port and broadcasts its address."""

from collections.abc import Mapping

from torch._C._distributed_c10d import TCPStore

from hpcai500.errors import HpcAi500Error, MachineError
from hpcai500.launch.launcher import RankEnvironment
from hpcai500.launch.software import HOW_TO_GET_MPI4PY
from hpcai500.ranks.rendezvous import connect, open_store
from hpcai500.ranks.torch_ranks import first_line, require_size
from hpcai500.system.addresses import own_address

try:
    from mpi4py import MPI
except (ImportError, RuntimeError) as error:
    absent = isinstance(error, ModuleNotFoundError) and error.name == "mpi4py"
    remedy = HOW_TO_GET_MPI4PY if absent else "load the MPI library that this mpi4py needs (`module load openmpi`)"
    raise MachineError(f"mpi4py cannot be imported: {first_line(error)}", remedy) from error


def rendezvous_by_mpi(expected_size: int, launcher: str, env: Mapping[str, str]) -> tuple[RankEnvironment, TCPStore]:
    """This process's rank in MPI's world, and the store that all its ranks share.

    Raises:
        RankError: if the world has another size.
        MachineError: if other nodes cannot reach rank 0's node.
    """
    world = MPI.COMM_WORLD
    require_size(expected_size, world.Get_size(), launcher, "MPI")
    node = world.Split_type(MPI.COMM_TYPE_SHARED)
    own = RankEnvironment(world.Get_rank(), world.Get_size(), node.Get_rank(), node.Get_size())
    store: TCPStore | None = None
    address: tuple[str, int] | HpcAi500Error = ("", 0)
    if own.rank == 0:
        try:
            host = own_address(env, single_node=own.size == own.local_size)
            store = open_store()
            address = (host, store.port)
        except HpcAi500Error as error:
            address = error
    address = world.bcast(address)
    if isinstance(address, HpcAi500Error):
        raise address
    return own, store or connect(*address, own.rank)
