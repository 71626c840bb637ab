"""A processor's cores, and how ranks share them: two logical CPUs of one core compute little faster than one."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

Core = tuple[int, ...]
"""The logical CPUs of one core."""

TOPOLOGY = Path("/sys/devices/system/cpu")


def physical_cores(cpus: Iterable[int], topology: Path = TOPOLOGY) -> list[Core]:
    """The cores that `cpus` belong to, with those of `cpus` in each; cores of one package stand together.

    Where Linux does not tell, each CPU counts as a core.
    """
    found: dict[tuple[int, int], list[int]] = defaultdict(list)
    for cpu in sorted(cpus):
        folder = topology / f"cpu{cpu}" / "topology"
        try:
            place = int((folder / "physical_package_id").read_text()), int((folder / "core_id").read_text())
        except (OSError, ValueError):
            place = -1, cpu
        found[place].append(cpu)
    return [tuple(found[place]) for place in sorted(found)]


def share_of(cores: Sequence[Core], local_rank: int, local_size: int) -> list[Core]:
    """As many neighbours of `cores` for each of `local_size` ranks; all of them where ranks outnumber cores."""
    each = len(cores) // local_size
    return list(cores[local_rank * each : (local_rank + 1) * each]) if each else list(cores)


def threads_of(num_cores: int, num_ranks: int) -> int:
    """Threads of each of `num_ranks` ranks that share `num_cores` physical cores: at least one."""
    return max(1, num_cores // num_ranks)
