"""A frame as a picture: chosen channels in false colours, with true and predicted boxes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from hpcai500.errors import InputError, nearest

from ..layout import CHANNELS, CLASS_NAMES

# Anchors of a colour map that is even in lightness (dark blue, teal, green, yellow).
_COLOURS = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], float)
_CLASS_COLOURS = ((255, 255, 255), (255, 92, 92), (255, 178, 60), (120, 220, 255))
_PANEL_WIDTH = 768
_TITLE_HEIGHT = 26
_MIN_SCORE = 0.3
"""Least score of a drawn prediction: a detector gives many weak ones."""

DEFAULT_CHANNELS = ("TMQ", "PSL", "V850", "PRECT")


def draw_frame(
    frame: npt.NDArray[np.float32],
    boxes: Sequence[Sequence[float]],
    labels: Sequence[int],
    record: dict[str, Any] | None,
    channels: Sequence[str],
) -> Image.Image:
    """Two panels a row, the north on top; truth in solid lines, predictions dashed with their scores.

    Args:
        frame: (16, H, W) in the units of the data, row 0 in the south.
        boxes: true boxes as x1, y1, x2, y2 in pixels.
        labels: their classes, from 0.
        record: `boxes`, `labels` and `scores` of the predictions, or None.
        channels: names; TMQ, PSL, V850 and PRECT if empty.

    Raises:
        InputError: for a channel that does not exist.
    """
    names = tuple(channels) or DEFAULT_CHANNELS
    for name in names:
        if name not in CHANNELS:
            raise InputError(f"--channels: no channel {name!r}", nearest(name, CHANNELS))
    north = frame.shape[1]
    drawn = [Drawn(_turned(box, north), label, None) for box, label in zip(boxes, labels, strict=True)]
    if record:
        found = zip(record["boxes"], record["labels"], record["scores"], strict=True)
        drawn += [Drawn(_turned(box, north), label, score) for box, label, score in found if score >= _MIN_SCORE]
    panels = [_panel(frame[CHANNELS.index(name)][::-1], name, drawn) for name in names]
    width, height = panels[0].size
    num_columns = min(2, len(panels))
    num_rows = -(-len(panels) // num_columns)
    legend = 2 * _TITLE_HEIGHT
    picture = Image.new("RGB", (num_columns * width, num_rows * height + legend), (20, 20, 24))
    for number, panel in enumerate(panels):
        picture.paste(panel, (number % num_columns * width, number // num_columns * height))
    _draw_legend(picture, num_rows * height, predicted=record is not None)
    return picture


class Drawn(NamedTuple):
    box: tuple[float, float, float, float]
    """x1, y1, x2, y2 in pixels of a frame with row 0 in the north."""
    label: int
    score: float | None
    """Score of a prediction; None for the truth."""


def _turned(box: Sequence[float], num_rows: int) -> tuple[float, float, float, float]:
    return box[0], num_rows - box[3], box[2], num_rows - box[1]


def _panel(field: npt.NDArray[np.float32], name: str, drawn: Sequence[Drawn]) -> Image.Image:
    height = round(_PANEL_WIDTH * field.shape[0] / field.shape[1])
    scale = _PANEL_WIDTH / field.shape[1]
    low, high = np.percentile(field, [1, 99])
    coloured = Image.fromarray(_false_colours((field - low) / max(high - low, 1e-30)))
    enlarged = coloured.resize((_PANEL_WIDTH, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(enlarged)
    for box, label, score in drawn:
        corners, colour = [scale * side for side in box], _CLASS_COLOURS[label]
        if score is None:
            draw.rectangle(corners, outline=colour, width=2)
        else:
            _draw_dashed(draw, corners, colour)
            place = (corners[0] + 3, corners[3] + 2)
            draw.text(place, f"{score:.2f}", colour, _font(14), stroke_width=2, stroke_fill=(20, 20, 24))
    panel = Image.new("RGB", (_PANEL_WIDTH, height + _TITLE_HEIGHT), (20, 20, 24))
    panel.paste(enlarged, (0, _TITLE_HEIGHT))
    title = f"{name}   dark {low:.4g}, bright {high:.4g}"
    ImageDraw.Draw(panel).text((8, 4), title, (230, 230, 235), _font(15))
    return panel


def _false_colours(values: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.uint8]:
    places = np.linspace(0, 1, len(_COLOURS))
    clipped = np.clip(values, 0, 1)
    return np.stack([np.interp(clipped, places, _COLOURS[:, c]) for c in range(3)], axis=-1).astype(np.uint8)


def _draw_dashed(draw: ImageDraw.ImageDraw, box: Sequence[float], colour: tuple[int, int, int]) -> None:
    x1, y1, x2, y2 = box
    dash = 8
    for start in np.arange(x1, x2, 2 * dash):
        for y in (y1, y2):
            draw.line([(start, y), (min(start + dash, x2), y)], fill=colour, width=2)
    for start in np.arange(y1, y2, 2 * dash):
        for x in (x1, x2):
            draw.line([(x, start), (x, min(start + dash, y2))], fill=colour, width=2)


def _draw_legend(picture: Image.Image, top: int, *, predicted: bool) -> None:
    draw = ImageDraw.Draw(picture)
    left = 8
    for name, colour in zip(CLASS_NAMES, _CLASS_COLOURS, strict=True):
        draw.rectangle([left, top + 8, left + 16, top + 20], outline=colour, width=2)
        draw.text((left + 24, top + 5), name, colour, _font(15))
        left += 40 + int(draw.textlength(name, _font(15)))
    text = f"solid: truth; dashed: predicted, score at least {_MIN_SCORE:g}" if predicted else "solid: truth"
    draw.text((8, top + _TITLE_HEIGHT + 3), text, (230, 230, 235), _font(15))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
