"""What backends and launchers need beside this package, and how to get it."""

from collections.abc import Iterator
from importlib.util import find_spec
from shutil import which

from hpcai500.errors import MachineError

HOW_TO_GET_HOROVOD = "run `make horovod`, which builds it for this torch"
HOW_TO_GET_MPI4PY = "run `pip install mpi4py`"

BACKENDS = ("torch", "horovod")
LAUNCHERS = ("local", "mpirun", "horovodrun", "srun")


def missing(backend: str, launcher: str, *, packages_alone: bool = False) -> Iterator[tuple[str, str]]:
    """What is not installed here of all that ranks of `backend` under `launcher` need, and how to get it.

    With `packages_alone`, of the packages of this Python, which nodes see too: their programs may be their own.
    """
    if backend == "torch" and not find_spec("torch"):
        yield "torch", "run `pip install torchvision`"
    if "horovod" in f"{backend} {launcher}" and not find_spec("horovod"):
        yield "Horovod", HOW_TO_GET_HOROVOD
    if launcher == "mpirun" and not packages_alone and not which("mpirun"):
        yield "mpirun", "`apt install openmpi-bin`, or `module load openmpi`"
    if launcher == "mpirun" and backend == "torch" and not find_spec("mpi4py"):
        yield "mpi4py", HOW_TO_GET_MPI4PY
    if launcher == "srun" and not packages_alone and not which("srun"):
        yield "srun", "log in to a machine of a Slurm cluster"


def require_software(backend: str, launcher: str, *, packages_alone: bool = False) -> None:
    """Refuse a run that cannot start; `packages_alone` as `missing` takes it.

    Raises:
        MachineError: with what is missing, and the command that installs it.
    """
    for name, remedy in missing(backend, launcher, packages_alone=packages_alone):
        raise MachineError(f"{name} is not installed here, which backend {backend} with {launcher} needs", remedy)
