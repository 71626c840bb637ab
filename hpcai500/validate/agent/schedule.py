"""Who measures a link with whom, and when: every pair once, and no node twice at a time."""

from collections.abc import Iterator, Sequence


def rounds(names: Sequence[str]) -> Iterator[list[tuple[str, str]]]:
    """Disjoint pairs, round by round: N - 1 rounds of N / 2 pairs for an even N; N rounds for an odd one, in each of
    which one node rests.

    The circle method of round-robin tournaments (E. Lucas, 1883): the first stays, the others move on by one place.
    """
    if len(names) < 2:
        return
    seats: list[str | None] = [*names, *([None] if len(names) % 2 else [])]
    for _ in range(len(seats) - 1):
        facing = zip(seats, reversed(seats), strict=True)
        pairs = [pair for pair, _ in zip(facing, range(len(seats) // 2), strict=False)]
        yield [(left, right) for left, right in pairs if left is not None and right is not None]
        seats = [seats[0], seats[-1], *seats[1:-1]]


def groups(names: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """`names` in disjoint groups of `size`, in order; those that are left over at the end stand in none."""
    return [tuple(names[first : first + size]) for first in range(0, len(names) - size + 1, size)]


def growing_sizes(count: int) -> list[int]:
    """2, 4, 8 … below `count`, and `count` itself; nothing for a single node."""
    sizes = []
    size = 2
    while size < count:
        sizes.append(size)
        size *= 2
    return [*sizes, count] if count > 1 else []
