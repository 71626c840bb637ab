"""Files of the published layout, at any size, with storms whose boxes are exact."""

import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from hpcai500.errors import OccupiedError, SpecError
from hpcai500.files import sole_writer

from ..layout import CHANNELS, DataSettings, file_name, verify
from ..storage import BOX_COLUMNS, BOX_ROWS, writable
from ..tasks import run_tasks
from .atmosphere import Grid
from .synthetic_frame import box_array, make_frame

GENERATOR_VERSION = 2
"""Counts up whenever the same seed gives another data set."""
_GZIP_LEVEL = 1


class _Frame(NamedTuple):
    planes: list[bytes]
    """Each channel, compressed."""
    boxes: npt.NDArray[np.int32]


def synthesize(settings: DataSettings, folder: Path, *, num_samples: int | None, seed: int) -> Iterator[str]:
    """Write one file for each configured year, and the manifest; files that are there already stay.

    Each frame depends only on (seed, year, its number), on every processor. `num_samples` frames per year, else as
    configured.

    Raises:
        SpecError: for a negative seed, or less than one frame.
        OccupiedError: if a file of another content, or of another version of the generator, is there.
        MachineError: if another process is preparing data there.
    """
    num_frames = settings.num_synthetic_frames if num_samples is None else num_samples
    if num_frames < 1 or seed < 0:
        raise SpecError(f"{num_frames} frames of seed {seed}", "give at least 1 frame, and a seed of at least 0")
    identity = {
        "synthetic": GENERATOR_VERSION,
        "seed": seed,
        "shape": [num_frames, len(CHANNELS), settings.frame_height, settings.frame_width],
    }
    with sole_writer(folder):
        for year in settings.years:
            path = folder / file_name(year)
            if path.exists():
                _require(identity, path)
                yield f"{path}: synthesized already"
                continue
            _write(path, year, identity)
            yield f"{path}: {num_frames:,} synthetic frames of seed {seed}"
        yield from verify(settings, folder)


def _require(identity: dict[str, Any], path: Path) -> None:
    try:
        with h5py.File(path, "r", locking=False) as file:
            found = {name: file.attrs.get(name) for name in identity}
    except OSError:
        found = {}
    version = found.get("synthetic")
    if version is not None and not np.array_equal(version, GENERATOR_VERSION):
        raise OccupiedError(
            f"{path} was made by version {version} of the generator, this is version {GENERATOR_VERSION}",
            f"delete the climo_*.h5 of {path.parent}, or give another --data",
        )
    if not all(np.array_equal(found.get(name), value) for name, value in identity.items()):
        raise OccupiedError(f"{path} holds something else", "give another --data")


def _write(path: Path, year: int, identity: dict[str, Any]) -> None:
    num_frames, _, height, width = shape = identity["shape"]
    seeds = [(identity["seed"], year, index) for index in range(num_frames)]
    tasks = [partial(_make, height, width, index / num_frames, seed) for index, seed in enumerate(seeds)]
    num_bytes = 4 * int(np.prod(shape))
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with writable(path):
            with h5py.File(temporary, "w") as file:
                file.attrs.update(identity)
                options = {"compression": "gzip", "compression_opts": _GZIP_LEVEL}
                images = file.create_dataset("images", shape, "<f4", chunks=(1, 1, height, width), **options)
                boxes = np.full((num_frames, BOX_ROWS, BOX_COLUMNS), -1, np.int32)
                made = tqdm(run_tasks(tasks, num_bytes=num_bytes), path.name, num_frames, disable=None)
                for index, frame in enumerate(made):
                    boxes[index] = frame.boxes
                    for channel, plane in enumerate(frame.planes):
                        images.id.write_direct_chunk((index, channel, 0, 0), plane)
                file.create_dataset("boxes", data=boxes, dtype="<i4", **options)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _make(height: int, width: int, season: float, seed: tuple[int, ...]) -> _Frame:
    frame, rows = make_frame(Grid(height, width), season, seed)
    planes = [zlib.compress(np.ascontiguousarray(plane, "<f4").data, _GZIP_LEVEL) for plane in frame]
    return _Frame(planes, box_array(rows, BOX_ROWS))
