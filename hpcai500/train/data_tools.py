"""Guard that keeps training from importing a workload's data tools, which the digest of its code leaves out."""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from hpcai500.errors import SpecError
from hpcai500.spec.code import DATA_METHODS, DATA_TOOLS


class _Guard(MetaPathFinder):
    """A finder that comes before all others and refuses packages."""

    def __init__(self) -> None:
        self.packages: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if any(fullname == package or fullname.startswith(f"{package}.") for package in self.packages):
            raise SpecError(
                f"training imports {fullname}, which the digest of the code leaves out",
                f"import it only in {', '.join(DATA_METHODS)}, or move what training needs out of {DATA_TOOLS}",
            )
        return None


_GUARD = _Guard()


def forbid_data_tools(workload: str) -> None:
    """Refuse to import the data tools of the workload `workload` in this process from now on."""
    forbid(f"{workload}.{DATA_TOOLS}")


def forbid(package: str) -> None:
    """Refuse to import `package` in this process from now on.

    Raises:
        SpecError: if it has been imported already.
    """
    _GUARD.packages.add(package)
    if _GUARD not in sys.meta_path:
        sys.meta_path.insert(0, _GUARD)
    if package in sys.modules:
        _GUARD.find_spec(package)


def forbidden_packages() -> tuple[str, ...]:
    return tuple(sorted(_GUARD.packages))
