"""Programs and packages that backends and launchers need, and how to install them."""

from importlib.util import find_spec
from shutil import which

BACKENDS = ("torch", "horovod")
"""Communication libraries of ranks that train."""

HOW_TO_GET_HOROVOD = "run `make horovod`, which builds it for this torch"
HOW_TO_GET_MPI4PY = "run `pip install mpi4py`"


def has_package(name: str) -> bool:
    return find_spec(name) is not None


def has_program(name: str) -> bool:
    return which(name) is not None
