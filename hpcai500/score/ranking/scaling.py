"""How one system's figures move with its size, and how an order moves with the penalty exponent."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, NamedTuple

from hpcai500.score.ranking.statistics import mean_of
from hpcai500.score.record.valid_flops import valid_flops
from hpcai500.spec.models import Frozen

EXPONENTS = tuple(range(1, 21))


class ScalingPoint(Frozen):
    experiment_digest: str
    """The entry's."""
    world_size: int
    nodes: int
    flops: float
    """Mean over the runs."""
    speed_up: float
    """FLOPS over those of the smallest size."""
    efficiency: float
    """Speed-up over the growth in ranks."""


class ScalingSeries(Frozen):
    """One system at several sizes."""

    system: str
    accelerator: str
    backend: str
    precision: str
    settings: tuple[str, ...]
    """Overrides, without those that grow with the size; the code, if another series has other code."""
    kind: Literal["strong", "weak", "unknown"]
    """Strong: the global batch stays; weak: each rank's share stays; unknown: no run.json has the batch."""
    batch_size: int | float | None
    """The global batch if scaling is strong, a rank's share if it is weak."""
    points: tuple[ScalingPoint, ...]


class Size(NamedTuple):
    """What scaling needs of an entry."""

    series: tuple[str, ...]
    """System, accelerator, backend, precision, and whatever else must be equal."""
    experiment_digest: str
    world_size: int
    nodes: int
    global_batch_size: int | None
    flops: float


class Sensitivity(Frozen):
    exponents: tuple[int, ...]
    ranks: tuple[tuple[int, ...], ...]
    """Ranks by mean VFLOPS: one row per entry, in the list's order, one number per exponent."""


def scaling(sizes: Sequence[Size]) -> tuple[ScalingSeries, ...]:
    """Series of at least two sizes. An entry may be in a strong and in a weak one.

    A rank's share is held exactly: 64 samples over 3 ranks are not 21 each.
    """
    series: dict[tuple[tuple[str, ...], str, Fraction | None], list[Size]] = defaultdict(list)
    for size in sizes:
        batch = size.global_batch_size
        if batch is None:
            series[size.series, "unknown", None].append(size)
            continue
        series[size.series, "strong", Fraction(batch)].append(size)
        series[size.series, "weak", Fraction(batch, size.world_size)].append(size)
    return tuple(
        _series(members, kind, batch)
        for (_, kind, batch), members in sorted(
            series.items(), key=lambda item: (item[0][0], item[0][1:2], item[0][2:])
        )
        if len({member.world_size for member in members}) > 1
    )


def _series(members: Sequence[Size], kind: str, batch: Fraction | None) -> ScalingSeries:
    ordered = sorted(members, key=lambda size: (size.world_size, size.nodes))
    first = ordered[0]
    system, accelerator, backend, precision, *settings = first.series
    return ScalingSeries.model_validate({
        "system": system,
        "accelerator": accelerator,
        "backend": backend,
        "precision": precision,
        "settings": tuple(settings),
        "kind": kind,
        "batch_size": batch if batch is None else int(batch) if batch.denominator == 1 else float(batch),
        "points": tuple(
            ScalingPoint(
                experiment_digest=size.experiment_digest,
                world_size=size.world_size,
                nodes=size.nodes,
                flops=size.flops,
                speed_up=size.flops / first.flops,
                efficiency=size.flops / first.flops * first.world_size / size.world_size,
            )
            for size in ordered
        ),
    })  # fmt: skip


def sensitivity(
    entries: Sequence[Sequence[tuple[float, float]]], target_quality: float, exponents: Sequence[int]
) -> Sensitivity:
    """Ranks by mean VFLOPS at each exponent; `entries[i]` are (FLOPS, achieved quality) of each run."""
    if not entries:
        return Sensitivity(exponents=tuple(exponents), ranks=())
    means = [
        [mean_of([valid_flops(flops, quality, target_quality, n) for flops, quality in runs]) for n in exponents]
        for runs in entries
    ]
    ordered = [sorted(-row[column] for row in means) for column in range(len(exponents))]
    ranks = (tuple(1 + bisect_left(ordered[at], -value) for at, value in enumerate(row)) for row in means)
    return Sensitivity(exponents=tuple(exponents), ranks=tuple(ranks))
