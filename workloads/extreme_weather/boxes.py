"""The two column orders and the two class numberings in which the boxes exist, recognised by the boxes themselves.

The data set's page gives (ymin, xmin, ymax, xmax, class) and classes 0 to 3. Its authors' converter and reader use
(ymin, ymax, xmin, xmax, class), and the converter copies classes 1 to 4.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from hpcai500.errors import DataError

BoxOrder = Literal["yxyx", "yyxx"]
ClassBase = Literal[0, 1]
PUBLISHED_ORDER: BoxOrder = "yxyx"
PUBLISHED_BASE: ClassBase = 0
NUM_CLASSES = 4

_COLUMNS: dict[BoxOrder, tuple[int, int, int, int]] = {"yxyx": (1, 0, 3, 2), "yyxx": (2, 0, 3, 1)}
"""Columns of xmin, ymin, xmax, ymax."""
_NAMES: dict[BoxOrder, str] = {"yxyx": "(ymin, xmin, ymax, xmax)", "yyxx": "(ymin, ymax, xmin, xmax)"}


class Rows(NamedTuple):
    """The real rows of a file; rows of only -1 are padding."""

    path: Path
    frames: npt.NDArray[np.intp]
    rows: npt.NDArray[np.intp]
    values: npt.NDArray[np.int32]
    """(n, 5)."""

    def describe(self, index: int) -> str:
        return f"{self.path}: boxes[{self.frames[index]}, {self.rows[index]}] = {self.values[index].tolist()}"


def real_rows(path: Path, boxes: npt.NDArray[np.int32]) -> Rows:
    frames, rows = np.nonzero((boxes != -1).any(axis=2))
    return Rows(path, frames, rows, boxes[frames, rows])


def corners(values: npt.NDArray[np.int32], order: BoxOrder) -> npt.NDArray[np.int32]:
    """(n, 4) as xmin, ymin, xmax, ymax."""
    return values[:, _COLUMNS[order]]


def fits(rows: Rows, order: BoxOrder, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Whether each row has min < max and lies in the frame."""
    x_min, y_min, x_max, y_max = corners(rows.values, order).T
    inside = (x_min >= 0) & (y_min >= 0) & (x_max <= width) & (y_max <= height)
    fitting: npt.NDArray[np.bool_] = inside & (x_min < x_max) & (y_min < y_max)
    return fitting


def decide_order(rows: Rows, height: int, width: int, wanted: Literal["auto"] | BoxOrder) -> tuple[BoxOrder, str]:
    """The column order that fits every row, and how it was found.

    Raises:
        DataError: naming a row that does not fit.
    """
    fitting = {order: fits(rows, order, height, width) for order in _NAMES}
    frame = f"a {height} x {width} frame"
    if wanted != "auto":
        if not fitting[wanted].all():
            row = rows.describe(int(np.argmin(fitting[wanted])))
            raise DataError(f"{row} is no box {_NAMES[wanted]} in {frame}", "try data.box_order=auto")
        return wanted, "forced"
    candidates = [order for order, fit in fitting.items() if fit.all()]
    if not candidates:
        neither = ~(fitting["yxyx"] | fitting["yyxx"])
        if neither.any():
            row = rows.describe(int(np.argmax(neither)))
            raise DataError(f"{row} fits neither {_NAMES['yxyx']} nor {_NAMES['yyxx']} in {frame}", "fix the row")
        one, other = (rows.describe(int(np.argmin(fitting[order]))) for order in ("yxyx", "yyxx"))
        reason = f"{one} is no box {_NAMES['yxyx']}, and {other} no box {_NAMES['yyxx']}, in {frame}"
        raise DataError(reason, "fix the rows")
    if len(candidates) == 1:
        return candidates[0], "the only one that fits"
    return PUBLISHED_ORDER, "both fit; the published one is taken"


def class_evidence(rows: Rows) -> ClassBase | None:
    """Number of the first class, from this file only; None if it has only classes 1 to 3.

    Raises:
        DataError: naming a row whose class is out of range, or a file with both 0 and 4.
    """
    classes = rows.values[:, 4]
    wrong = (classes < 0) | (classes > NUM_CLASSES)
    if wrong.any():
        raise DataError(f"{rows.describe(int(np.argmax(wrong)))} has a class outside 0 to 4", "fix the row")
    zero, four = (classes == 0), (classes == NUM_CLASSES)
    if zero.any() and four.any():
        first, last = rows.describe(int(np.argmax(zero))), rows.describe(int(np.argmax(four)))
        raise DataError(f"{first} and {last}: classes go neither from 0 to 3 nor from 1 to 4", "fix the rows")
    return 0 if zero.any() else 1 if four.any() else None


def decide_bases(
    evidence: Mapping[str, ClassBase | None], wanted: Literal["auto", "0", "1"]
) -> dict[str, tuple[ClassBase, str]]:
    """For each file's name the number of the first class, and how it was found.

    Raises:
        DataError: if a file contradicts the forced number, or is ambiguous while others differ.
    """
    known = {base for base in evidence.values() if base is not None}
    decided: dict[str, tuple[ClassBase, str]] = {}
    for name, base in evidence.items():
        if wanted != "auto":
            forced: ClassBase = 0 if wanted == "0" else 1
            if base not in (None, forced):
                raise DataError(f"{name}: classes start at {base}, not at {wanted}", "try data.class_base=auto")
            decided[name] = forced, "forced"
        elif base is not None:
            decided[name] = base, "seen in the file"
        elif len(known) == 2:
            raise DataError(f"{name}: has classes 1 to 3 only, and other files differ", "set data.class_base")
        elif known:
            decided[name] = min(known), "1 to 3 in the file; taken from the others"
        else:
            decided[name] = PUBLISHED_BASE, "1 to 3 or none at all; the published one is taken"
    return decided
