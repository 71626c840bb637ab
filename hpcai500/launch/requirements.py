"""Programs and packages that a run's ranks need and that are not installed here."""

from collections.abc import Iterator

from hpcai500.errors import MachineError
from hpcai500.launch.registry import find_launcher
from hpcai500.launch.software import HOW_TO_GET_HOROVOD, has_package


def missing(backend: str, launcher: str, *, packages_only: bool = False) -> Iterator[tuple[str, str]]:
    """Names of what ranks of `backend` under `launcher` lack here, each with how to install it.

    With `packages_only`, only packages of this Python, since nodes may have other programs.
    """
    if backend in ("torch", "mpi") and not has_package("torch"):
        yield "torch", "run `pip install torchvision`"
    if backend == "horovod" and not has_package("horovod"):
        yield "Horovod", HOW_TO_GET_HOROVOD
    yield from find_launcher(launcher).missing(backend, packages_only=packages_only)


def require_software(backend: str, launcher: str, *, packages_only: bool = False) -> None:
    """Refuse ranks that cannot start.

    Raises:
        MachineError: with what is missing and how to install it.
    """
    for name, remedy in missing(backend, launcher, packages_only=packages_only):
        raise MachineError(f"{name} is not installed here, which backend {backend} with {launcher} needs", remedy)
