"""Schedule of pairs and groups of nodes: every pair once, and no node in two pairs at a time."""

from collections.abc import Iterator, Sequence


def rounds(names: Sequence[str]) -> Iterator[list[tuple[str, str]]]:
    """Disjoint pairs, round by round. Even N: N - 1 rounds of N / 2 pairs. Odd N: N rounds, one node idle in each.

    The circle method of round-robin tournaments (E. Lucas, 1883): the first node stays, the others rotate.
    """
    if len(names) < 2:
        return
    circle: list[str | None] = [*names, *([None] if len(names) % 2 else [])]
    for _ in range(len(circle) - 1):
        facing = zip(circle, reversed(circle), strict=True)
        pairs = [pair for pair, _ in zip(facing, range(len(circle) // 2), strict=False)]
        yield [(left, right) for left, right in pairs if left is not None and right is not None]
        circle = [circle[0], circle[-1], *circle[1:-1]]


def groups(names: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """Disjoint groups of `size` from `names`, in order; a rest that fills no group is left out."""
    return [tuple(names[first : first + size]) for first in range(0, len(names) - size + 1, size)]


def growing_sizes(count: int) -> list[int]:
    """Group sizes 2, 4, 8 … below `count`, and `count` itself; none for a single node."""
    sizes = []
    size = 2
    while size < count:
        sizes.append(size)
        size *= 2
    return [*sizes, count] if count > 1 else []
