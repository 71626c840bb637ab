"""What a detector must beat: one that looks at the extremes of a single channel.

For each class it knows the channel, the sign and the box that do best on the training frames. It finds the largest
departures of that channel from its mean over the training frames, and puts the box round each.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from extreme_weather.boxes import NUM_CLASSES
from extreme_weather.frames import Frames, Sample
from extreme_weather.layout import CHANNELS
from scipy.ndimage import maximum_filter

_PEAKS_PER_FRAME = 5

Array = npt.NDArray[np.float32]


class Rule(NamedTuple):
    """How one class is found."""

    channel: int
    sign: int
    """1 looks for maxima, -1 for minima."""
    height: float
    width: float


class Baseline:
    def __init__(self, train: Frames) -> None:
        samples = [train.read(index) for index in range(len(train))]
        self._climate: Array = np.mean([sample.image for sample in samples], axis=0, dtype=np.float32)
        departures = [sample._replace(image=sample.image - self._climate) for sample in samples]
        self.rules = [_best_rule(departures, label) for label in range(NUM_CLASSES)]

    def predict(self, image: Array) -> dict[str, npt.NDArray[np.generic]]:
        """`boxes` (n, 4) as x1, y1, x2, y2, `labels` (n,) from 0, `scores` (n,)."""
        found = [_peaks(image - self._climate, rule) for rule in self.rules]
        labels = [np.full(len(scores), label, np.int64) for label, (_, scores) in enumerate(found)]
        return {
            "boxes": np.concatenate([boxes for boxes, _ in found]),
            "labels": np.concatenate(labels),
            "scores": np.concatenate([scores for _, scores in found]),
        }


def _best_rule(departures: list[Sample], label: int) -> Rule:
    boxes = [sample.boxes[sample.labels == label] for sample in departures]
    width, height = np.median(np.concatenate([box[:, 2:] - box[:, :2] for box in boxes]), axis=0).tolist()
    rules = [Rule(channel, sign, height, width) for channel in range(len(CHANNELS)) for sign in (1, -1)]
    return max(rules, key=lambda rule: _precision(departures, boxes, rule))


def _precision(departures: list[Sample], truth: list[Array], rule: Rule) -> float:
    """The mean precision at each box that `rule` finds, and 0 at those it misses."""
    hits = [
        hit
        for sample, boxes in zip(departures, truth, strict=True)
        for hit in _hits(*_peaks(sample.image, rule), boxes)
    ]
    found = np.array([is_hit for _, is_hit in sorted(hits, reverse=True)], bool)
    precision = np.cumsum(found) / np.arange(1, len(found) + 1)
    return float(precision[found].sum()) / sum(map(len, truth))


def _peaks(departure: Array, rule: Rule) -> tuple[Array, Array]:
    """The boxes round the largest local extremes, largest first, and how large these are."""
    field = rule.sign * departure[rule.channel]
    size = (max(3, round(rule.height)), max(3, round(rule.width)))
    rows, columns = np.nonzero(field == maximum_filter(field, size))
    largest = np.argsort(-field[rows, columns])[:_PEAKS_PER_FRAME]
    y, x = rows[largest] + 0.5, columns[largest] + 0.5
    half_y, half_x = rule.height / 2, rule.width / 2
    boxes = np.stack([x - half_x, y - half_y, x + half_x, y + half_y], axis=1)
    frame_height, frame_width = field.shape
    limits = np.array([frame_width, frame_height] * 2)
    return np.clip(boxes, 0, limits).astype(np.float32), field[rows, columns][largest]


def _hits(boxes: Array, scores: Array, truth: Array) -> Iterator[tuple[float, bool]]:
    """Each score, and whether its box is the first to overlap a true one by half."""
    free = np.ones(len(truth), bool)
    for box, score in zip(boxes, scores, strict=True):
        overlap = iou(box, truth) * free
        hit = bool(overlap.size and overlap.max() >= 0.5)
        if hit:
            free[overlap.argmax()] = False
        yield float(score), hit


def iou(box: Array, others: Array) -> Array:
    """Intersection over union of a box with each of `others`."""
    corner, far = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.prod(np.clip(far - corner, 0, None), axis=1)
    area = np.prod(box[2:] - box[:2]) + np.prod(others[:, 2:] - others[:, :2], axis=1)
    shared: Array = common / (area - common)
    return shared
