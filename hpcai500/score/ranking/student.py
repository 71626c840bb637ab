"""Student's t distribution in plain Python: a ranking needs few values of it, and SciPy takes long to import."""

import math
from functools import lru_cache
from statistics import NormalDist

CONFIDENCE = 0.95
_SMALLEST = 1e-300
_CLOSE = 4e-16
"""Two units in the last place: products are seldom closer to one."""
_MOST_STEPS = 10_000


@lru_cache(maxsize=1024)
def student_quantile(num_values: int) -> float:
    """t(0.975, n - 1): the half-width of a 95 % interval of a mean in standard errors (Student 1908)."""
    return quantile((1 - CONFIDENCE) / 2, num_values - 1)


def quantile(upper: float, freedom: float) -> float:
    """The t that a share `upper`, below one half, of the distribution exceeds.

    Newton's method from the normal quantile, which is smaller: the tail is convex, so that no step goes too far.
    """
    if freedom == 1:
        return 1 / math.tan(math.pi * upper)
    if freedom == 2:
        return (1 - 2 * upper) / math.sqrt(2 * upper * (1 - upper))
    t = NormalDist().inv_cdf(1 - upper)
    for _ in range(_MOST_STEPS):
        step = (tail(t, freedom) - upper) / _density(t, freedom)
        t += step
        if abs(step) <= _CLOSE * t:
            break
    return t


def tail(t: float, freedom: float) -> float:
    """The share of the distribution above `t`, which is not negative; degrees of freedom need not be whole.

    Half the regularized incomplete beta function I(x; a, 1/2), at x = freedom / (freedom + t^2) and a = freedom / 2
    (Abramowitz and Stegun 1964, 26.7.1).
    """
    if t == 0:
        return 0.5
    if math.isinf(t):
        return 0.0
    a, y = freedom / 2, t * t / (freedom + t * t)
    # x ** a * y ** b / B(a, b), without the rounding of 1 - y
    front = math.exp(-a * math.log1p(t * t / freedom)) * math.sqrt(y / math.pi) * _gamma_ratio(a)
    # The fraction converges fast above 1.5; where `a` is large, the rounding of 1 - y counts `a` times.
    if y * (a + 2.5) > (1.5 if a < 20 else 4):
        return front / a * _fraction(a, 0.5, 1 - y) / 2
    return (1 - front / 0.5 * _fraction(0.5, a, y)) / 2


def _density(t: float, freedom: float) -> float:
    scale = _gamma_ratio(freedom / 2) / math.sqrt(math.pi * freedom)
    return scale * math.exp(-(freedom + 1) / 2 * math.log1p(t * t / freedom))


def _gamma_ratio(a: float) -> float:
    """Gamma(a + 1/2) / Gamma(a); for large `a` by its series, since Gamma overflows and its logarithm cancels."""
    if a < 50:
        return math.gamma(a + 0.5) / math.gamma(a)
    return math.sqrt(a) * math.exp(-1 / (8 * a) + 1 / (192 * a**3) - 1 / (640 * a**5) + 17 / (14336 * a**7))


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of I(x; a, b) by Lentz's method (Press and others 2007, Numerical Recipes, 6.4)."""
    c, d = 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d or _SMALLEST)
    value = d
    for m in range(1, _MOST_STEPS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / ((1 + term * d) or _SMALLEST)
            c = (1 + term / c) or _SMALLEST
            value *= c * d
        if abs(c * d - 1) < _CLOSE:
            break
    return value
