"""ImageNet-2012 as folders of files, and the index of a data set in any layout."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from hpcai500.errors import DataError
from hpcai500.spec.models import Frozen

from .decoding import Bytes, Wanted, decode

SUFFIXES = (".jpeg", ".jpg", ".png")
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"
INDEX_CACHE = ".hpcai500-index.npz"
_INDEX_FORMAT = "1"


class DataSettings(Frozen):
    image_size: Annotated[int, Field(ge=1)]
    crop_area: tuple[float, float]
    """Range of a training crop's share of the image's area."""
    crop_aspect: tuple[float, float]
    """Range of its width over its height, before it is resized to a square."""
    flip_probability: Annotated[float, Field(ge=0, le=1)]
    eval_resize: Annotated[int, Field(ge=1)]
    """Shorter side before the centre crop of an evaluation image."""
    decoder: Wanted
    """Decoder of JPEG files; `auto` takes the fastest installed one of those with equal pixels."""


class ImageIndex:
    """Paths and labels of one split, in arrays that forked processes share without copying."""

    layout = "files"
    remedy = "replace the file"
    """What to do about a damaged image."""

    def __init__(
        self,
        root: Path,
        names: npt.NDArray[np.uint8],
        ends: npt.NDArray[np.int64],
        labels: npt.NDArray[np.int16],
    ) -> None:
        self.root, self.names, self.ends, self.labels = root, names, ends, labels

    @classmethod
    def build(cls, root: Path, files: Sequence[tuple[str, int]]) -> "ImageIndex":
        """`files`: names relative to `root`, and labels."""
        encoded = [name.encode() for name, _ in files]
        return cls(
            root,
            np.frombuffer(b"".join(encoded), np.uint8),
            np.cumsum([len(name) for name in encoded], dtype=np.int64),
            np.array([label for _, label in files], np.int16),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        start = int(self.ends[index - 1]) if index else 0
        return self.names[start : int(self.ends[index])].tobytes().decode()

    def path(self, index: int) -> Path:
        return self.root / self.name(index)

    def place(self, index: int) -> str:
        """Location of the image, for a message."""
        return str(self.path(index))

    def size(self, index: int) -> int:
        """Bytes of the image's file."""
        try:
            return self.path(index).stat().st_size
        except OSError as error:
            raise DataError(f"{self.path(index)}: cannot be read ({error.strerror})", "replace the file") from error

    def read(self, index: int) -> Bytes:
        """The image's file.

        Raises:
            DataError: naming it, if it cannot be read.
        """
        try:
            return _read(f"{self.root}/{self.name(index)}")
        except OSError as error:
            raise DataError(f"{self.path(index)}: cannot be read ({error.strerror})", "replace the file") from error

    def check(self, index: int) -> Bytes:
        """The image's file, which can be decoded.

        Raises:
            DataError: naming it, if it cannot be.
        """
        data = self.read(index)
        self._must_decode(index, data)
        return data

    def _must_decode(self, index: int, data: Bytes) -> None:
        try:
            decode(data)
        except (RuntimeError, ValueError) as error:
            raise self.undecodable(index, error) from error

    def undecodable(self, index: int, error: Exception) -> DataError:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return DataError(f"{self.place(index)}: cannot be decoded ({reason})", self.remedy)

    @property
    def digest(self) -> str:
        """SHA-256, shortened to 16 hex digits, of the names and labels in order."""
        total = hashlib.sha256(self.names.tobytes())
        total.update(self.ends.astype("<i8").tobytes())
        total.update(self.labels.astype("<i2").tobytes())
        return total.hexdigest()[:16]


def _read(path: str) -> Bytes:
    """A whole file. An image decodes in a millisecond, of which Python's own file objects would take a fiftieth."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = np.empty(os.fstat(file).st_size, np.uint8)
        size = 0
        while size < len(data) and (more := os.readv(file, [data[size:]])):
            size += more
        return data[:size]
    finally:
        os.close(file)


class Indices(NamedTuple):
    train: ImageIndex
    val: ImageIndex


def read_index(folder: Path, num_classes: int) -> Indices:
    """The cached index, if folders and labels have not changed since, else a new one (cached if writable)."""
    train, val = folder / "train", folder / "val"
    for part in (train, val):
        if not part.is_dir():
            raise DataError(
                f"{folder}: no folder {part.name!r}",
                "give --data the folder that holds train/ and val/, or run `hpcai500 data prepare`",
            )
    classes = class_folders(train, num_classes)
    stamp = _stamp(folder, classes)
    cache = folder / INDEX_CACHE
    cached = _load_cache(cache, stamp, folder)
    if cached:
        return cached
    labels = {name: label for label, name in enumerate(classes)}
    flat = not _subfolders(val)
    indices = Indices(
        _index_tree(train, labels),
        _index_flat(folder, val, labels) if flat else _index_tree(val, labels),
    )
    _save_cache(cache, stamp, indices)
    return indices


def class_folders(train: Path, num_classes: int) -> list[str]:
    """Names of the class folders, in the order that gives the labels."""
    classes = sorted(_subfolders(train))
    if len(classes) != num_classes:
        raise DataError(
            f"{train}: {len(classes)} class folders, the model has {num_classes} classes",
            "complete the data set, or check --problem",
        )
    return classes


def _subfolders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if entry.is_dir()]


def _images(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.lower().endswith(SUFFIXES))


def _index_tree(root: Path, labels: dict[str, int]) -> ImageIndex:
    """`<root>/<class>/<image>`, every class with at least one image."""

    def images(name: str) -> list[tuple[str, int]]:
        try:
            entries = _images(root / name)
        except FileNotFoundError as error:
            raise DataError(f"{root}: no folder for class {name!r}", "complete the data set") from error
        if not entries:
            raise DataError(f"{root / name}: class has no image", "complete the data set")
        return [(f"{name}/{entry}", labels[name]) for entry in entries]

    # Listing a thousand folders of a parallel file system one after the other takes minutes.
    with ThreadPoolExecutor(16) as pool:
        return ImageIndex.build(root, [image for part in pool.map(images, labels) for image in part])


def _index_flat(folder: Path, val: Path, labels: dict[str, int]) -> ImageIndex:
    names = _images(val)
    return ImageIndex.build(val, list(zip(names, flat_labels(folder, names, labels), strict=True)))


def flat_labels(folder: Path, names: Sequence[str], labels: dict[str, int]) -> list[int]:
    """Labels of a flat `val/` by sorted names: line n of the development kit's ground truth is image n's id."""
    truth_file, meta_file = _development_kit(folder)
    try:
        truth = [int(line) for line in truth_file.read_text().split()]
    except ValueError as error:
        raise DataError(f"{truth_file}: {error}", "take it from the ILSVRC 2012 development kit") from error
    if len(truth) != len(names):
        raise DataError(
            f"{truth_file}: {len(truth):,} lines for {len(names):,} validation images", "complete the data set"
        )
    wnids = _wnid_of_id(meta_file)
    try:
        return [labels[wnids[i]] for i in truth]
    except KeyError as error:
        raise DataError(
            f"{truth_file}: id or class {error} has no folder in train/", "complete the data set"
        ) from error


def _development_kit(folder: Path) -> tuple[Path, Path]:
    for truth_file, meta_file in _kit_places(folder):
        if truth_file.is_file() and meta_file.is_file():
            return truth_file, meta_file
    raise DataError(
        f"{folder}: val/ is flat, and {GROUND_TRUTH} with {META} is missing",
        "put both from the ILSVRC 2012 development kit next to val/, or sort val/ into class folders",
    )


def _kit_places(folder: Path) -> list[tuple[Path, Path]]:
    places = (folder, folder / "ILSVRC2012_devkit_t12" / "data")
    return [(place / GROUND_TRUTH, place / META) for place in places]


def _wnid_of_id(meta_file: Path) -> dict[int, str]:
    """ILSVRC2012_ID to WordNet id, of the synsets without children (the 1,000 classes)."""
    from scipy.io import loadmat

    try:
        synsets = loadmat(str(meta_file), squeeze_me=True)["synsets"]
        return {int(s["ILSVRC2012_ID"]): str(s["WNID"]) for s in synsets if int(s["num_children"]) == 0}
    except (ValueError, KeyError, NotImplementedError, OSError) as error:
        raise DataError(f"{meta_file}: not the ILSVRC 2012 meta file ({error})", "take it from the kit") from error


def _stamp(folder: Path, classes: Sequence[str]) -> str:
    """Stamp that changes with images or labels: times of the folders, and the development kit."""
    places = [folder / "train", folder / "val"]
    places += [folder / split / name for split in ("train", "val") for name in classes]
    total = hashlib.sha256(_INDEX_FORMAT.encode())
    for place in places:
        if place.is_dir():
            total.update(f"{place.relative_to(folder)} {place.stat().st_mtime_ns}\n".encode())
    for path in chain.from_iterable(_kit_places(folder)):
        if path.is_file():
            total.update(f"{path.relative_to(folder)} ".encode())
            with suppress(OSError):  # an error where it is needed
                total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _load_cache(cache: Path, stamp: str, folder: Path) -> Indices | None:
    try:
        with np.load(cache, allow_pickle=False) as arrays:
            if str(arrays["stamp"]) != stamp:
                return None
            return Indices(
                *(
                    ImageIndex(folder / s, arrays[f"{s}_names"], arrays[f"{s}_ends"], arrays[f"{s}_labels"])
                    for s in ("train", "val")
                )
            )
    except (OSError, ValueError, KeyError, EOFError):
        return None


def _save_cache(cache: Path, stamp: str, indices: Indices) -> None:
    temporary = cache.with_name(f"{cache.stem}.{os.getpid()}.npz")
    arrays = {
        f"{split}_{field}": getattr(index, field)
        for split, index in zip(Indices._fields, indices, strict=True)
        for field in ("names", "ends", "labels")
    }
    try:
        np.savez(temporary, stamp=np.array(stamp), **arrays)
        temporary.replace(cache)
    except OSError:  # a data set that one may only read is indexed at each start
        temporary.unlink(missing_ok=True)
