"""The atmosphere around synthetic storms: zonal means, season, land and correlated noise, in real units."""

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft

from ..layout import CHANNELS

Array = npt.NDArray[np.floating[Any]]
Fields = dict[str, Array]
"""Channels by name, each (H, W)."""

PROGNOSTIC = ("PRECT", "PSL", "T200", "T500", "TMQ", "TREFHT", "TS", "U850", "V850", "Z200")
"""Channels that storms change; the others follow from these (`complete`)."""

_QUANTUM_EXPONENTS = {
    "PRECT": -36, "PS": 2, "PSL": -1, "QREFHT": -20, "T200": -9, "T500": -7, "TMQ": -7, "TREFHT": -6,
    "TS": -6, "U850": -7, "UBOT": -8, "V850": -8, "VBOT": -8, "Z1000": -4, "Z200": -1, "ZBOT": -8,
}  # fmt: skip
"""Powers of two to which a frame's values are rounded: the largest below a channel's standard deviation / 1024; below
a quarter of that for rain and humidity, which span orders of magnitude."""

_MINI_HEIGHT = 64
_MAX_WAVES = 160
_PLANET_SEED = 1999
_GAS_CONSTANT_AIR = 287.0
_GRAVITY = 9.81


class Grid:
    """A global grid: row 0 is the southernmost, columns go eastwards from 0 degrees and wrap."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        rows = (np.arange(height) + 0.5) * 180 / height - 90
        self.latitude: Array = rows[:, None]
        """Degrees, (H, 1)."""
        self.storm_scale = (height / _MINI_HEIGHT) ** 0.75
        """Pixels for each pixel of the mini grid. Below 1:1, as a coarse grid must draw storms larger than life."""
        self.aspect = (width / 360) / (height / 180)
        """Columns per degree over rows per degree."""

    def row(self, latitude: float) -> float:
        return (latitude + 90) * self.height / 180 - 0.5


def correlated_noise(rng: np.random.Generator, grid: Grid, num_fields: int, waves: float, slope: float) -> Array:
    """(num_fields, H, W) of zero mean and unit variance, periodic.

    The amplitude spectrum is flat up to `waves` waves round the globe and falls with the power `slope` beyond.
    Drawn in float64: numpy's normal numbers of float32 follow libm's log1pf, which glibc 2.36 and 2.41 round apart.
    """
    num_y, num_x = min(grid.height // 2 - 1, _MAX_WAVES // 2), min(grid.width // 2 - 1, _MAX_WAVES)
    wave_y, wave_x = np.concatenate([np.arange(num_y + 1), np.arange(-num_y, 0)]), np.arange(num_x + 1)
    amplitude = (1 + np.hypot(2 * wave_y[:, None], wave_x) ** 2 / waves**2) ** (-slope / 2)
    amplitude[0, 0] = 0
    real, imaginary = rng.standard_normal((2, num_fields, len(wave_y), len(wave_x))) * amplitude
    spectrum = np.zeros((num_fields, grid.height, grid.width // 2 + 1), np.complex128)
    spectrum[:, wave_y, : len(wave_x)] = real + 1j * imaginary
    noise: Array = fft.irfft2(spectrum, s=(grid.height, grid.width))
    noise /= noise.std(axis=(1, 2), keepdims=True)
    return noise


def bell(distance: Array, width: float) -> Array:
    falling: Array = np.exp(-((distance / width) ** 2))
    return falling


@lru_cache(maxsize=1)
def planet(height: int, width: int) -> tuple[Array, Array]:
    """The fraction of land and the height of the ground in metres: the same planet for every seed."""
    continents, ranges = correlated_noise(np.random.default_rng(_PLANET_SEED), Grid(height, width), 2, 4.0, 2.5)
    land = 1 / (1 + np.exp(-8 * (continents - 0.55)))
    return land, land * (250 + 1100 * np.maximum(ranges, 0))


def background(rng: np.random.Generator, grid: Grid, season: float) -> Fields:
    """The prognostic channels without storms. `season` is the year's phase in [0, 1), 0.5 northern summer."""
    latitude = grid.latitude
    thermal = latitude + 8 * np.cos(2 * np.pi * season)
    polar = np.sin(np.radians(thermal)) ** 2
    rotation = np.sin(np.radians(latitude)) ** 2
    off_equator = np.abs(thermal)
    land, _ = planet(grid.height, grid.width)
    flow, aloft = correlated_noise(rng, grid, 2, 5.0, 3.2)
    warmth, moisture = correlated_noise(rng, grid, 2, 7.0, 2.3)
    eddy_u, eddy_v, texture = correlated_noise(rng, grid, 3, 14.0, 1.9)

    # The wind follows the stream function `flow`, and so does the pressure, with the sign of the Coriolis force.
    north, east = -np.gradient(flow, axis=0), (np.roll(flow, -1, axis=1) - np.roll(flow, 1, axis=1)) / 2
    jets = 11 * bell(off_equator - 45, 12) - 7 * bell(off_equator - 14, 9) - 2 * bell(off_equator - 75, 10)
    belts = 900 * bell(off_equator - 32, 12) - 1500 * bell(off_equator - 62, 12) - 400 * bell(thermal, 8)
    meridional = -1.5 * np.sign(thermal) * bell(off_equator - 10, 8)
    wind_sd = 3 + 4 * rotation

    surface = 302 - 54 * polar + 6 * land * np.cos(2 * np.pi * season) * np.sin(np.radians(latitude)) * -1
    rain_zones = 6e-8 * bell(thermal, 9) + 3e-8 * bell(off_equator - 45, 12) + 2e-9
    return {
        "PRECT": rain_zones * np.maximum(0.7 * moisture + 0.4 * texture, 0) ** 1.5 * np.exp(0.6 * texture) * 2.5,
        "PSL": 101_300 + belts + (100 + 600 * rotation) * np.tanh(latitude / 20) * flow + 60 * texture,
        "T200": 216 + 5 * np.sin(np.radians(2 * latitude)) ** 2 + 1.2 * aloft + 0.4 * texture,
        "T500": 268.5 - 29 * polar + (0.6 + 1.8 * rotation) * warmth + 0.3 * texture,
        "TMQ": (5 + 42 * bell(thermal, 26)) * (1 - 0.2 * land) * np.exp(0.22 * moisture),
        "TREFHT": surface - 1.2 + (0.8 + 3 * rotation) * warmth + 0.4 * texture,
        "TS": surface + (0.3 + 2.5 * land) * eddy_u + (0.3 + 2 * rotation) * warmth,
        "U850": jets + wind_sd * north / north.std() + 1.8 * eddy_u,
        "V850": meridional + wind_sd * east / east.std() + 1.8 * eddy_v,
        "Z200": 12_420 - 1500 * polar + (20 + 110 * rotation) * (0.6 * aloft + 0.6 * np.sign(latitude) * flow),
    }


def complete(rng: np.random.Generator, grid: Grid, fields: Fields) -> Array:
    """All 16 channels (16, H, W), in their order, from the prognostic ones with their storms."""
    latitude, (_, ground) = grid.latitude, planet(grid.height, grid.width)
    humidity, gust_u, gust_v = correlated_noise(rng, grid, 3, 10.0, 1.9)
    warmth = fields["TREFHT"]
    pressure = fields["PSL"] * np.exp(-_GRAVITY * ground / (_GAS_CONSTANT_AIR * (warmth + 3)))
    # Clausius and Clapeyron in Bolton's form (1980), and a relative humidity that follows the column's water.
    celsius = warmth - 273.15
    saturation = 611.2 * np.exp(17.67 * celsius / (celsius + 243.5))
    excess = fields["TMQ"] / (5 + 42 * bell(latitude, 30)) - 1
    relative = np.clip(0.7 + 0.15 * np.tanh(excess) + 0.06 * humidity, 0.05, 1)
    turn = np.radians(20) * np.tanh(latitude / 10)  # friction turns the wind towards low pressure
    u, v = fields["U850"], fields["V850"]
    derived = {
        "PS": pressure,
        "QREFHT": relative * 0.622 * saturation / pressure,
        "UBOT": 0.7 * (u * np.cos(turn) - v * np.sin(turn)) + 1.2 * gust_u,
        "VBOT": 0.7 * (u * np.sin(turn) + v * np.cos(turn)) + 1.2 * gust_v,
        "Z1000": (fields["PSL"] - 100_000) * _GAS_CONSTANT_AIR * warmth / (_GRAVITY * 100_000),
        "ZBOT": 64 * warmth / 288 + 0.1 * humidity,
    }
    channels = fields | derived
    return np.stack([_rounded(channels[name], _QUANTUM_EXPONENTS[name]) for name in CHANNELS])


def _rounded(values: Array, exponent: int) -> npt.NDArray[np.float32]:
    """`values` as multiples of 2**exponent, which float32 holds exactly: the same on every processor.

    numpy, scipy and libm round exponentials, powers, sums and transforms of float64 differently with and without
    AVX2, FMA and AVX-512: measured, by 1.5e-13 of such a multiple in the mean, and at most 3e-10. A value that lies
    as close to the middle between two multiples tips: one in 60 million mini frames has one. The mini data set has
    none: there the differences are at most a 28,000th of the distance to the middle.
    """
    multiples: Array = np.rint(np.ldexp(values, -exponent)) + 0.0  # no -0.0
    return np.ldexp(multiples, exponent).astype(np.float32)
