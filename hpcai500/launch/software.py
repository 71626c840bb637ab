"""What backends and launchers need beside this package, and how to get it."""

from importlib.util import find_spec
from shutil import which

BACKENDS = ("torch", "horovod")
"""Libraries by which ranks that train communicate."""

HOW_TO_GET_HOROVOD = "run `make horovod`, which builds it for this torch"
HOW_TO_GET_MPI4PY = "run `pip install mpi4py`"


def has_package(name: str) -> bool:
    return find_spec(name) is not None


def has_program(name: str) -> bool:
    return which(name) is not None
