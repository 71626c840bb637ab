"""One synthetic frame: an atmosphere, distractors, and the phenomena with their boxes."""

import numpy as np
import numpy.typing as npt

from .atmosphere import Array, Fields, Grid, background, complete
from .storms import DISTRACTORS, PHENOMENA, Box, Kind, Storm

COUNT_PROBABILITIES = (0.10, 0.18, 0.25, 0.23, 0.15, 0.09)
"""Probabilities of 0 to 5 phenomena in a frame."""
CLASS_PROBABILITIES = (0.26, 0.26, 0.24, 0.24)
_MEAN_DISTRACTORS = 4.0
_TRIES = 30
_MAX_OVERLAP = 0.15

Row = tuple[int, int, int, int, int]
"""The columns of a published row: ymin, xmin, ymax, xmax, class."""


def make_frame(grid: Grid, season: float, seed: tuple[int, ...]) -> tuple[Array, list[Row]]:
    """The 16 channels (16, H, W) and the boxes of the frame of `seed`."""
    rng = np.random.default_rng(seed)
    fields = background(rng, grid, season)
    for _ in range(rng.poisson(_MEAN_DISTRACTORS)):
        kind = DISTRACTORS[rng.integers(len(DISTRACTORS))]
        _draw(rng, grid, kind).add_to(fields, grid)
    rows: list[Row] = []
    for _ in range(rng.choice(len(COUNT_PROBABILITIES), p=COUNT_PROBABILITIES)):
        label = int(rng.choice(len(PHENOMENA), p=CLASS_PROBABILITIES))
        rows += _place(rng, grid, fields, label, rows)
    return complete(rng, grid, fields), rows


def _place(rng: np.random.Generator, grid: Grid, fields: Fields, label: int, rows: list[Row]) -> list[Row]:
    """Add a phenomenon where it is whole and hides no other; returns its row, or none if there is no room."""
    for _ in range(_TRIES):
        storm = _draw(rng, grid, PHENOMENA[label])
        box = storm.box(grid)
        if box and all(_overlap(box, row[:4]) <= _MAX_OVERLAP for row in rows):
            storm.add_to(fields, grid)
            return [(*box, label)]
    return []


def _draw(rng: np.random.Generator, grid: Grid, kind: Kind) -> Storm:
    latitude = rng.uniform(*kind.latitudes) * rng.choice((-1.0, 1.0))
    return kind.build(rng, grid, latitude, rng.uniform(0, grid.width))


def _overlap(a: Box, b: Box) -> float:
    """The share of the smaller box that lies in the other."""
    height, width = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return max(height, 0) * max(width, 0) / smaller


def box_array(rows: list[Row], num_rows: int) -> npt.NDArray[np.int32]:
    """(num_rows, 5), the rest padded with -1."""
    boxes = np.full((num_rows, 5), -1, np.int32)
    boxes[: len(rows)] = np.array(rows, np.int32).reshape(-1, 5)
    return boxes
