"""The four phenomena, and what merely looks like them, as additions to an atmosphere.

Lengths are pixels of the mini grid (64 x 96), which `Grid.storm_scale` turns into pixels of the grid at hand.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .atmosphere import Array, Fields, Grid, bell

Box = tuple[int, int, int, int]
"""ymin, xmin, ymax, xmax: edges, so that a box of one pixel at the origin is (0, 0, 1, 1)."""


class Storm(NamedTuple):
    """A phenomenon on its window of the grid."""

    rows: npt.NDArray[np.intp]
    columns: npt.NDArray[np.intp]
    """Columns of the window; may lie outside the grid, which wraps."""
    added: Fields
    footprint: npt.NDArray[np.bool_]
    """The phenomenon itself, without its far field: what the box encloses.

    Processors differ by 1e-15 in what is compared; no pixel of the mini data set is closer than 1e-6 to its limit.
    """

    def box(self, grid: Grid) -> Box | None:
        """The box that encloses the footprint; None if the footprint leaves the grid."""
        rows, columns = self.rows[self.footprint.any(axis=1)], self.columns[self.footprint.any(axis=0)]
        if not len(rows) or columns[0] < 0 or columns[-1] >= grid.width:
            return None
        return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1

    def add_to(self, fields: Fields, grid: Grid) -> None:
        place = np.ix_(self.rows, self.columns % grid.width)
        for name, values in self.added.items():
            fields[name][place] += values


class Window:
    """Coordinates round a point: `x` eastwards and `y` northwards, in mini pixels of a storm's own frame.

    A degree of longitude shrinks towards the poles, so a round storm is wider there in pixels.
    """

    def __init__(self, grid: Grid, latitude: float, column: float, reach: float) -> None:
        stretch = grid.aspect / max(0.5, np.cos(np.radians(latitude)))
        row, scale = grid.row(latitude), grid.storm_scale
        half_y, half_x = int(np.ceil(reach * scale)), int(np.ceil(reach * scale * stretch))
        half_x = min(half_x, grid.width // 2 - 1)
        rows = np.arange(round(row) - half_y, round(row) + half_y + 1)
        self.rows = rows[(rows >= 0) & (rows < grid.height)]
        self.columns = np.arange(round(column) - half_x, round(column) + half_x + 1)
        self.y: Array = ((self.rows - row) / scale)[:, None]
        self.x: Array = ((self.columns - column) / (scale * stretch))[None, :]
        self.hemisphere = 1.0 if latitude >= 0 else -1.0

    def storm(self, added: Fields, footprint: npt.NDArray[np.bool_]) -> Storm:
        return Storm(self.rows, self.columns, added, footprint)

    def turned(self, angle: float, aspect: float) -> tuple[Array, Array]:
        """(x, y) turned by `angle` and stretched to `aspect` with the same area."""
        cosine, sine, root = np.cos(angle), np.sin(angle), np.sqrt(aspect)
        return (self.x * cosine + self.y * sine) / root, (self.y * cosine - self.x * sine) * root

    def swirl(self, speed: Array, radius: Array) -> Fields:
        """Cyclonic wind of `speed`: counter-clockwise in the north, clockwise in the south."""
        factor = self.hemisphere * speed / np.maximum(radius, 1e-3)
        return {"U850": -factor * self.y, "V850": factor * self.x}


Builder = Callable[[np.random.Generator, Grid, float, float], Storm]
"""(generator, grid, latitude, column) to a phenomenon there."""


def tropical_depression(rng: np.random.Generator, grid: Grid, latitude: float, column: float) -> Storm:
    """A weak warm-core low: a broad ring of wind, rain in a lopsided cluster, hardly any trace aloft."""
    core, wind = rng.uniform(1.3, 2.1), rng.uniform(9, 20)
    window = Window(grid, latitude, column, 5 * core)
    x, y = window.turned(rng.uniform(0, np.pi), rng.uniform(1, 1.35))
    radius = np.hypot(x, y)
    speed = _ring(radius / core, 1.2) * wind
    cluster_x, cluster_y = rng.uniform(-0.8, 0.8, 2) * core
    cluster = bell(np.hypot(x - cluster_x, y - cluster_y), 1.5 * core)
    added = window.swirl(speed, np.hypot(window.x, window.y)) | {
        "PSL": -2.8 * wind**1.9 * bell(radius, 1.7 * core),
        "T500": 0.09 * wind * bell(radius, 1.6 * core),
        "TMQ": rng.uniform(6, 14) * bell(radius, 2.2 * core),
        "PRECT": rng.uniform(1.5e-7, 6e-7) * cluster,
    }
    return window.storm(added, (speed >= 0.42 * wind) | (radius < core))


def tropical_cyclone(rng: np.random.Generator, grid: Grid, latitude: float, column: float) -> Storm:
    """A strong compact warm core that reaches aloft: a sharp ring of wind, an eye without rain, spiral bands."""
    core, wind = rng.uniform(0.85, 1.4), rng.uniform(16, 50)
    window = Window(grid, latitude, column, 8 * core)
    x, y = window.turned(rng.uniform(0, np.pi), rng.uniform(1, 1.2))
    radius = np.hypot(x, y)
    speed = _ring(radius / core, 0.8) * wind
    bands = np.cos(2 * np.arctan2(y, x) * window.hemisphere + 2.5 * np.log(radius / core + 0.3))
    wall = bell(radius - 1.2 * core, 0.8 * core) + 0.5 * np.maximum(bands, 0) * bell(radius, 3 * core)
    added = window.swirl(speed, np.hypot(window.x, window.y)) | {
        "PSL": -2.2 * wind**1.95 * np.exp(-radius / (1.1 * core)),
        "T500": 0.11 * wind * bell(radius, 1.5 * core),
        "T200": 0.09 * wind * bell(radius, 1.8 * core),
        "Z200": 1.2 * wind * bell(radius, 3 * core),
        "TMQ": rng.uniform(8, 18) * bell(radius, 2.6 * core),
        "PRECT": rng.uniform(4e-7, 1.1e-6) * wall * (1 - bell(radius, 0.6 * core)),
    }
    return window.storm(added, (speed >= 0.42 * wind) | (radius < core))


def extratropical_cyclone(rng: np.random.Generator, grid: Grid, latitude: float, column: float) -> Storm:
    """A large lopsided cold-core low: warm air before it, cold behind, and rain along two fronts."""
    size, wind = rng.uniform(5, 9.5), rng.uniform(11, 26)
    window = Window(grid, latitude, column, 2.8 * size)
    poleward = window.y * window.hemisphere
    x, y = window.turned(rng.uniform(-0.5, 0.5), rng.uniform(1.1, 1.7))
    radius = np.hypot(x, y) / size
    core = bell(radius, 1)
    # The cold front trails equatorwards and bends west, the warm front leads east.
    cold_front = window.x / size - 0.25 + 0.35 * (poleward / size) ** 2
    cold = bell(cold_front, 0.2) * _between(-poleward / size, 0, rng.uniform(1.2, 1.7))
    warm_front = poleward / size + 0.15 + 0.25 * (window.x / size) ** 2
    warm = bell(warm_front, 0.2) * _between(window.x / size, 0.2, rng.uniform(1, 1.5))
    fronts = np.maximum(cold, warm)
    behind = np.tanh(-2 * cold_front)
    added = window.swirl(_ring(radius / 0.75, 1.4) * wind, np.hypot(window.x, window.y)) | {
        "PSL": -rng.uniform(1400, 4200) * core,
        "T500": -rng.uniform(2.5, 6) * bell(np.hypot(x / size + 0.35, y / size), 0.8),
        "T200": rng.uniform(0.5, 3) * bell(radius, 0.9),
        "Z200": -rng.uniform(80, 220) * bell(np.hypot(x / size + 0.3, y / size), 1),
        "TREFHT": -rng.uniform(2, 5) * behind * bell(radius, 1.1),
        "TMQ": rng.uniform(7, 14) * fronts - 2 * np.maximum(behind, 0) * core,
        "PRECT": rng.uniform(1.5e-7, 4e-7) * (fronts + 0.4 * bell(np.hypot(x / size, y / size - 0.3), 0.5)),
    }
    return window.storm(added, (core >= 0.45) | (fronts >= 0.5))


def atmospheric_river(rng: np.random.Generator, grid: Grid, latitude: float, column: float) -> Storm:
    """A long filament of water vapour that runs polewards and east, with the wind along it."""
    return _filament(rng, grid, latitude, column, wind=rng.uniform(9, 20), rain=rng.uniform(1e-7, 3e-7))


def dry_filament(rng: np.random.Generator, grid: Grid, latitude: float, column: float) -> Storm:
    """No phenomenon: a filament of vapour at rest."""
    return _filament(rng, grid, latitude, column, wind=0.0, rain=rng.uniform(0, 2e-7))


def moist_blob(rng: np.random.Generator, grid: Grid, latitude: float, column: float) -> Storm:
    """No phenomenon: vapour and heavy rain without a vortex."""
    size = rng.uniform(1.5, 4)
    window = Window(grid, latitude, column, 3 * size)
    radius = np.hypot(*window.turned(rng.uniform(0, np.pi), rng.uniform(1, 2.5))) / size
    added = {"TMQ": rng.uniform(6, 18) * bell(radius, 1), "PRECT": rng.uniform(2e-7, 1e-6) * bell(radius, 0.8)}
    return window.storm(added, radius < 1)


def heat_low(rng: np.random.Generator, grid: Grid, latitude: float, column: float) -> Storm:
    """No phenomenon: low pressure over warm ground, dry, with next to no wind."""
    size = rng.uniform(1.5, 5)
    window = Window(grid, latitude, column, 3 * size)
    core = bell(np.hypot(*window.turned(rng.uniform(0, np.pi), rng.uniform(1, 1.6))), size)
    added = {"PSL": -rng.uniform(500, 2500) * core, "TREFHT": 4 * core, "TS": 5 * core, "TMQ": -3 * core}
    return window.storm(added, core > 0.4)


def anticyclone(rng: np.random.Generator, grid: Grid, latitude: float, column: float) -> Storm:
    """No phenomenon: a high as large as an extratropical cyclone, whose wind turns the other way."""
    size, wind = rng.uniform(4, 9), rng.uniform(8, 18)
    window = Window(grid, latitude, column, 2.8 * size)
    radius = np.hypot(*window.turned(rng.uniform(-0.5, 0.5), rng.uniform(1, 1.6))) / size
    added = window.swirl(-_ring(radius / 0.75, 1.4) * wind, np.hypot(window.x, window.y)) | {
        "PSL": rng.uniform(800, 2500) * bell(radius, 1),
        "T500": rng.uniform(1, 4) * bell(radius, 0.9),
        "Z200": rng.uniform(50, 180) * bell(radius, 1),
    }
    return window.storm(added, radius < 0.9)


def jet_streak(rng: np.random.Generator, grid: Grid, latitude: float, column: float) -> Storm:
    """No phenomenon: a patch of strong straight wind."""
    size = rng.uniform(2, 5)
    window = Window(grid, latitude, column, 4 * size)
    x, y = window.turned(rng.uniform(-0.4, 0.4), rng.uniform(2, 4))
    core, heading = bell(np.hypot(x, y), size), rng.uniform(-0.6, 0.6)
    speed = rng.uniform(10, 24) * core
    return window.storm({"U850": speed * np.cos(heading), "V850": speed * np.sin(heading)}, core > 0.4)


def _ring(radius: Array, sharpness: float) -> Array:
    """A vortex's wind over its maximum, at `radius` over the radius of the maximum (after Holland 1980)."""
    speed: Array = radius * np.exp((1 - radius**sharpness) / sharpness)
    return speed


def _between(position: Array, start: float, end: float, edge: float = 0.08) -> Array:
    """Nearly 1 between `start` and `end`, nearly 0 outside."""
    inside: Array = 1 / (1 + np.exp((start - position) / edge)) / (1 + np.exp((position - end) / edge))
    return inside


def _filament(
    rng: np.random.Generator, grid: Grid, latitude: float, column: float, *, wind: float, rain: float
) -> Storm:
    """A band along a parabola through (latitude, column), its middle."""
    length, width = rng.uniform(15, 30), rng.uniform(1.2, 2.0)
    window = Window(grid, latitude, column, 0.55 * length + 4 * width)
    slope, bend = rng.uniform(0.25, 0.85), rng.uniform(-0.35, 0.35)
    # In a frame turned along the filament, its axis is across = bend * along^2 / length.
    angle = np.arctan(slope) * window.hemisphere
    cosine, sine = np.cos(angle), np.sin(angle)
    along, across = window.x * cosine + window.y * sine, window.y * cosine - window.x * sine
    tangent = 2 * bend * along / length
    offset = (across - bend * (along**2 / length - length / 12)) / np.sqrt(1 + tangent**2)
    ridge = bell(offset, width) * _between(along, -length / 2, length / 2, 0.06 * length)
    heading = angle + np.arctan(tangent)
    landfall = _between(along, 0.1 * length, 0.6 * length, 0.06 * length)
    added = {
        "TMQ": rng.uniform(10, 22) * ridge,
        "U850": wind * np.cos(heading) * ridge,
        "V850": wind * np.sin(heading) * ridge,
        "PRECT": rain * ridge * landfall,
        "T500": 0.06 * wind * ridge,
    }
    return window.storm(added, ridge >= 0.45)


class Kind(NamedTuple):
    build: Builder
    latitudes: tuple[float, float]
    """Range of the distance from the equator, in degrees."""


PHENOMENA = (
    Kind(tropical_depression, (6, 22)),
    Kind(tropical_cyclone, (9, 32)),
    Kind(extratropical_cyclone, (34, 62)),
    Kind(atmospheric_river, (24, 46)),
)
"""Phenomena in the order of the labels."""

DISTRACTORS = (
    Kind(moist_blob, (0, 45)),
    Kind(moist_blob, (5, 30)),
    Kind(dry_filament, (22, 46)),
    Kind(heat_low, (10, 40)),
    Kind(anticyclone, (28, 60)),
    Kind(jet_streak, (10, 60)),
)
