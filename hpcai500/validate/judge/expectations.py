"""The site's expected values: a TOML file with the speed of a healthy node and how far peers may differ."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import model_validator

from hpcai500.errors import InputError, SpecError, similar
from hpcai500.spec.models import Frozen, parse
from hpcai500.validate.judge.bounds import PeerRule, matches
from hpcai500.validate.judge.deviations import Deviation
from hpcai500.validate.judge.findings import Kind
from hpcai500.validate.judge.peers import column
from hpcai500.validate.judge.reading import Key, Series


class Expectation(Frozen):
    """`[[expect]]`: a value and how far a healthy node may be from it, as in ReFrame's references."""

    metric: str
    """Glob over `metric` or `stage/metric`."""
    reference: float | int | str
    """Expected value; a text must be equal."""
    lower: float | int | None = None
    """Bound as a part of the reference, `-0.05` for 5 % below it; in `unit` if the reference is 0. None: no bound."""
    upper: float | int | None = None
    unit: str = ""
    severity: Literal["fail", "warn"] = "fail"

    @model_validator(mode="after")
    def _bounds_lie_around(self) -> "Expectation":
        if isinstance(self.reference, str):
            if self.lower is not None or self.upper is not None:
                raise ValueError("a text has no lower or upper")
        elif self.lower is None and self.upper is None:
            raise ValueError("give lower, upper or both")
        if (self.lower or 0) > 0 or (self.upper or 0) < 0:
            raise ValueError("lower must be at most 0 and upper at least 0: parts of the reference")
        return self

    @property
    def limits(self) -> tuple[float, float]:
        """Lowest and highest good value, in `unit`."""
        assert not isinstance(self.reference, str)
        unit = abs(self.reference) or 1.0
        low = -np.inf if self.lower is None else self.reference + self.lower * unit
        high = np.inf if self.upper is None else self.reference + self.upper * unit
        return float(low), float(high)


class SiteValues(Frozen):
    """Content of the file."""

    expect: tuple[Expectation, ...] = ()
    peers: tuple[PeerRule, ...] = ()


def read_site_values(path: Path) -> SiteValues:
    """Read the file of `--expected`.

    Raises:
        InputError: if there is no such file.
        SpecError: for a wrong key or value.
    """
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise SpecError(f"{path}: not valid TOML ({error})") from error
    return parse(SiteValues, given, path)


def compare_expected(
    series: dict[Key, Series], expected: Sequence[Expectation], source: str
) -> tuple[list[Deviation], list[str]]:
    """Values out of bounds, and a remark for each expectation whose metric was not measured.

    Raises:
        SpecError: if a unit is not that of the metric, or a number is expected of a text.
    """
    found, remarks = [], []
    for one in expected:
        named = [other for key, other in series.items() if matches(one.metric, key)]
        for other in named:
            _check(one, other, source)
            found += _outside(one, other)
        if not named:
            meant = similar(one.metric, {key.metric for key in series}) if len(series) < 500 else None
            hint = f" (did you mean {meant!r}?)" if meant else ""
            remarks.append(f"expected values: {one.metric} was not measured{hint}")
    return found, remarks


def _check(one: Expectation, series: Series, source: str) -> None:
    metric = series.key.metric
    if one.unit != series.unit:
        raise SpecError(
            f"{source}: {one.metric}: unit {one.unit!r} is not that of {metric}, {series.unit!r}",
            f"write the reference in {series.unit!r}" if series.unit else "leave the unit out",
        )
    if isinstance(one.reference, str) != series.is_text:
        kind = "a text" if series.is_text else "a number"
        raise SpecError(f"{source}: {one.metric}: {metric} is {kind}, the reference is not", f"write {kind}")


def _outside(one: Expectation, series: Series) -> list[Deviation]:
    if isinstance(one.reference, str):
        wrong = ((subject, values) for subject, values in series.values.items() if set(values) != {one.reference})
        return [
            Deviation(Kind.EXPECTED, one.severity, series, subject, values[0], one.reference, 1.0)
            for subject, values in wrong
        ]
    subjects, values = column(series)
    low, high = one.limits
    unit = abs(one.reference) or 1.0
    return [
        Deviation(Kind.EXPECTED, one.severity, series, subjects[index], float(values[index]), float(one.reference),
            abs(float(values[index]) - one.reference) / unit,
            f"lowest {low:.6g}" if values[index] < low else f"highest {high:.6g}",
        )
        for index in np.flatnonzero((values < low) | (values > high))
    ]  # fmt: skip
