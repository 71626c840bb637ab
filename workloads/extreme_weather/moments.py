"""Mean, variance and extremes of each channel in one pass, block by block."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]


class Moments(NamedTuple):
    """Mean of each channel, (channels,)."""

    num_values: int
    mean: Numbers
    squares: Numbers
    """Sum of the squared distances from the mean."""
    lowest: Numbers
    highest: Numbers

    @property
    def standard_deviation(self) -> Numbers:
        deviation: Numbers = np.sqrt(self.squares / max(1, self.num_values))
        return deviation

    def merged(self, other: "Moments") -> "Moments":
        """Moments of both sets together (Chan, Golub and LeVeque 1979)."""
        count = self.num_values + other.num_values
        if not self.num_values or not other.num_values:
            return self if self.num_values else other
        shift = other.mean - self.mean
        return Moments(
            count,
            self.mean + shift * (other.num_values / count),
            self.squares + other.squares + shift**2 * (self.num_values * other.num_values / count),
            np.minimum(self.lowest, other.lowest),
            np.maximum(self.highest, other.highest),
        )


def no_moments(num_channels: int) -> Moments:
    zeros = np.zeros(num_channels)
    return Moments(0, zeros, zeros, zeros, zeros)


def moments_of(plane: npt.NDArray[np.float32]) -> Moments:
    """Moments of one channel of one frame, in two passes over the cached plane. Non-finite if the plane is."""
    mean = plane.mean(dtype=np.float64)
    with np.errstate(invalid="ignore"):  # an infinity less itself; the caller refuses the plane
        distance = np.subtract(plane, mean, dtype=np.float64).ravel()  # numpy 1 would stay in float32
        squares = np.dot(distance, distance)
    return Moments(plane.size, *(np.array([v]) for v in (mean, squares, plane.min(), plane.max())))


def stacked(channels: list[Moments]) -> Moments:
    """Moments of a frame from those of its channels."""
    return Moments(channels[0].num_values, *(np.concatenate(part) for part in list(zip(*channels, strict=True))[1:]))
