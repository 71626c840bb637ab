"""A run's epochs as a ranking keeps them: few enough points for 10,000 runs in memory, and for a page."""

from array import array
from collections.abc import Sequence
from typing import NamedTuple

from hpcai500.events.payloads import Epoch
from hpcai500.score.record.limits import MOST_POINTS
from hpcai500.spec.models import Frozen

_SHORTEST_SEC = 1e-9
"""Training in less time has no rate."""


class Curve(Frozen):
    """Epochs of one run, evenly thinned to at most 90; the columns are equally long."""

    epoch_num: tuple[int, ...]
    quality: tuple[float, ...]
    train_flops: tuple[float | None, ...]
    """FLOPs per second of training."""


class Points(NamedTuple):
    """What a `Curve` is made of, packed; a training time of zero has no rate."""

    epoch_num: "array[int]"
    quality: "array[float]"
    flops: "array[float]"
    train_sec: "array[float]"

    def curve(self) -> Curve:
        rates = zip(self.flops, self.train_sec, strict=True)
        return Curve(
            epoch_num=tuple(self.epoch_num),
            quality=tuple(self.quality),
            train_flops=tuple(flops / sec if sec > _SHORTEST_SEC else None for flops, sec in rates),
        )


def points_of(epochs: Sequence[Epoch]) -> Points:
    kept = [epochs[position] for position in thinned(len(epochs), MOST_POINTS)]
    return Points(
        array("q", [epoch.epoch_num for epoch in kept]),
        array("d", [epoch.quality for epoch in kept]),
        array("d", [epoch.flops for epoch in kept]),
        array("d", [epoch.train_sec for epoch in kept]),
    )


def thinned(count: int, points: int) -> Sequence[int]:
    """Positions of at most `points` of `count`, evenly, the first and the last among them."""
    if count <= points:
        return range(count)
    return sorted({round(step * (count - 1) / (points - 1)) for step in range(points)}) if points > 1 else ()
