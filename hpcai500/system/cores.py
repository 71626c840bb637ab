"""A processor's cores, and how ranks share them. Two logical CPUs of one core are little faster than one."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

Core = tuple[int, ...]
"""The logical CPUs of one core."""

TOPOLOGY = Path("/sys/devices/system/cpu")


def physical_cores(cpus: Iterable[int], topology: Path = TOPOLOGY) -> list[Core]:
    """The cores of `cpus`, each with its members of `cpus`; cores of one package follow each other.

    If Linux does not report the topology, each CPU counts as a core.
    """
    found: dict[tuple[int, int], list[int]] = defaultdict(list)
    for cpu in sorted(cpus):
        folder = topology / f"cpu{cpu}" / "topology"
        try:
            core = int((folder / "physical_package_id").read_text()), int((folder / "core_id").read_text())
        except (OSError, ValueError):
            core = -1, cpu
        found[core].append(cpu)
    return [tuple(found[core]) for core in sorted(found)]


def share_of(cores: Sequence[Core], local_rank: int, local_size: int) -> list[Core]:
    """Neighbouring cores for one of `local_size` ranks, equally many each; all cores if ranks outnumber them."""
    each = len(cores) // local_size
    return list(cores[local_rank * each : (local_rank + 1) * each]) if each else list(cores)


def threads_of(num_cores: int, num_ranks: int) -> int:
    """Threads per rank, at least one, if `num_ranks` ranks share `num_cores` physical cores."""
    return max(1, num_cores // num_ranks)
