"""Bounds on the distance from the median: a value is off if it exceeds both the statistical and the relative bound.

A value is off if it is worse than the median by more than

    k(n) * s    where s = 1.4826 * b(n) * MAD    and    k(n) = max(3.5, z(1 - 0.001 / n)),

and by more than `relative` times the median (a warning), or twice that (a failure).

1.4826 * MAD estimates the standard deviation of normal noise and is robust against outliers. b(n) corrects it for few
values (Croux and Rousseeuw, Time-efficient algorithms for two highly robust estimators of scale, COMPSTAT 1992). 3.5
is the limit of Iglewicz and Hoaglin (How to Detect and Handle Outliers, 1993). z, the quantile of the normal
distribution, raises it with the number of values n (Bonferroni): 3,000 healthy nodes raise no more alarms than 100.
With MAD = 0
only the relative bound decides. A rate below a fifth of the median is off whatever the noise: if healthy rates spread
by 30 %, k(n) s exceeds the median, and the first bound would accept even a rate of zero.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from hpcai500.spec.models import Frozen
from hpcai500.validate.judge.reading import Key

MOST_ALARMS = 0.001
"""Expected false alarms per metric, over all its values, in normal noise and for many values."""
FEWEST = 3
"""Fewest values among which an outlier can be found."""
_LEAST_FACTOR = 3.5
_OUTRIGHT = 0.8
"""Shortfall from the median that no healthy rate has."""
_FEW = {2: 1.196, 3: 1.495, 4: 1.363, 5: 1.206, 6: 1.200, 7: 1.140, 8: 1.129, 9: 1.107}

Array = np.ndarray[tuple[int], np.dtype[np.float64]]


class PeerRule(Frozen):
    """`[[peers]]` of the site's file: how far apart healthy nodes may be."""

    metric: str
    """Glob over `metric` or `stage/metric`."""
    relative: Annotated[float, Field(gt=0, le=100)]
    """Part of the median: beyond it a value is a warning, beyond twice that a failure."""


DEFAULTS = (  # the first that matches counts
    PeerRule(metric="micro/*", relative=0.05),
    PeerRule(metric="training/*", relative=0.05),
    PeerRule(metric="links/*latency*", relative=0.25),
    PeerRule(metric="links/*", relative=0.10),
    PeerRule(metric="collectives/*_per_sec", relative=0.10),
    PeerRule(metric="collectives/*", relative=0.25),
    PeerRule(metric="storage/*", relative=0.20),
)
"""Default rules. Health and inventory have none: idle clocks and temperatures differ between healthy nodes."""


def matches(pattern: str, key: Key) -> bool:
    """Whether the glob `pattern` names the metric, with or without its stage."""
    return fnmatchcase(key.metric, pattern) or fnmatchcase(f"{key.stage}/{key.metric}", pattern)


def relative_bound(key: Key, rules: Sequence[PeerRule]) -> float | None:
    """Relative bound from the last of the site's `rules` that matches, or the defaults; None if not compared."""
    own = next((rule.relative for rule in reversed(rules) if matches(rule.metric, key)), None)
    return own or next((rule.relative for rule in DEFAULTS if matches(rule.metric, key)), None)


def factor(number: int) -> float:
    """k(n), the scales by which the worst of `number` values may be off."""
    from scipy.special import ndtri  # slow to import, and needed only here

    return max(_LEAST_FACTOR, float(ndtri(1 - MOST_ALARMS / max(1, number))))


def consistency(number: int) -> float:
    """1.4826 * b(n): ratio of the standard deviation of `number` normal values to their MAD."""
    return 1.4826 * (_FEW.get(number) or number / (number - 0.8) if number > 1 else 1.0)


def centre_and_scale(values: Array) -> tuple[float, float]:
    """Median, and standard deviation estimated by the MAD."""
    centre = float(np.median(values))
    return centre, consistency(len(values)) * float(np.median(np.abs(values - centre)))


def beyond_noise(
    values: Array, centre: float, scale: float, better: Literal["higher", "lower", "same"]
) -> npt.NDArray[np.bool_]:
    """Whether each value exceeds the statistical bound, on either side; shape (n,)."""
    found: npt.NDArray[np.bool_] = np.abs(values - centre) > factor(len(values)) * scale
    return found | (shortfall(values, centre, better) > _OUTRIGHT) if better == "higher" else found


def shortfall(values: Array, centre: float | Array, better: Literal["higher", "lower", "same"]) -> Array:
    """How much worse than `centre` each value is, as a part of `centre`; negative if better."""
    worse = values - centre if better == "lower" else centre - values
    with np.errstate(divide="ignore", invalid="ignore"):
        part: Array = np.where(worse == 0, 0.0, worse / np.abs(centre))
    return np.abs(part) if better == "same" else part
