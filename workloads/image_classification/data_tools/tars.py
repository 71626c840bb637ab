"""ImageNet as downloaded: a tar of a thousand tars for training, and one tar for validation."""

import tarfile
from pathlib import Path

import numpy as np

from hpcai500.errors import DataError

from ..data import SUFFIXES, ImageIndex, Indices, flat_labels
from ..spans import SpanIndex

TRAIN_TAR, VAL_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"

_Span = tuple[str, int, int]
"""Name, offset in the tar, and number of bytes."""


def has_tars(folder: Path) -> bool:
    return all((folder / name).is_file() for name in (TRAIN_TAR, VAL_TAR))


def read_tars(folder: Path, num_classes: int) -> Indices:
    """Splits, names and labels equal to those of the unpacked tars, read in place.

    Raises:
        DataError: if a tar is broken, or the number of classes is another.
    """
    train, val = folder / TRAIN_TAR, folder / VAL_TAR
    try:
        classes = {Path(name).stem: offset for name, offset, _ in _spans(train, 0) if name.endswith(".tar")}
        labels = {name: label for label, name in enumerate(sorted(classes))}
        if len(labels) != num_classes:
            raise DataError(f"{train}: {len(labels)} classes, the model has {num_classes}", "fetch it again")
        images: list[tuple[_Span, int]] = []
        for name, label in labels.items():
            found = sorted(_images(train, classes[name]))
            images += [((f"{name}/{image}", offset, size), label) for image, offset, size in found]
        flat = sorted(_images(val, 0))
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"{folder}: a tar cannot be read ({error})", "fetch it again") from error
    truth = flat_labels(folder, [name for name, _, _ in flat], labels)
    return Indices(_index(train, images), _index(val, list(zip(flat, truth, strict=True))))


def _spans(path: Path, offset: int) -> list[_Span]:
    with path.open("rb") as file:
        file.seek(offset)
        with tarfile.TarFile(fileobj=file) as tar:
            return [(member.name, member.offset_data, member.size) for member in tar if member.isfile()]


def _images(path: Path, offset: int) -> list[_Span]:
    return [span for span in _spans(path, offset) if span[0].lower().endswith(SUFFIXES)]


def _index(path: Path, images: list[tuple[_Span, int]]) -> SpanIndex:
    plain = ImageIndex.build(path.parent, [(name, label) for (name, _, _), label in images])
    return SpanIndex(
        path.parent,
        plain.names,
        plain.ends,
        plain.labels,
        files=[path],
        firsts=np.zeros(1, np.int64),
        offsets=np.array([offset for (_, offset, _), _ in images], np.int64),
        lengths=np.array([size for (_, _, size), _ in images], np.int64),
    )
