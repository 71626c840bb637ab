"""Preparation and verification of an image data set."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from hpcai500.errors import DataError
from hpcai500.spec.workload import ProblemDomain

from ..data import ImageIndex, Indices, read_index
from ..dataset import open_dataset
from .packing import pack
from .tars import has_tars, read_tars

_BLOCK = 4_096


def prepare(source: Path | None, folder: Path, num_classes: int) -> Iterator[str]:
    """Pack `source` (folders, or the tars) into `folder`; without one, index what lies there.

    Raises:
        DataError: for the first thing that is wrong with the data set, or with what was written.
    """
    if source is None or (folder.exists() and source.exists() and folder.samefile(source)):
        train, val = open_dataset(folder, num_classes)
        yield f"{folder}: indexed {len(train):,} training and {len(val):,} validation images"
        return
    if not source.is_dir():
        raise DataError(f"no data directory {source}", "give --source")
    yield from pack(read_tars(source, num_classes) if has_tars(source) else read_index(source, num_classes), folder)


def verify(folder: Path, num_classes: int, problem: ProblemDomain) -> Iterator[str]:
    """Count and decode every file; yields one line per finding.

    Raises:
        DataError: naming the first file that cannot be decoded, or the count that is wrong.
    """
    indices = open_dataset(folder, num_classes)
    wanted = (problem.num_train_samples, problem.num_eval_samples)
    for split, index, expected in zip(Indices._fields, indices, wanted, strict=True):
        if len(index) != expected:
            raise DataError(
                f"{folder / split}: {len(index):,} images, the problem has {expected:,}",
                "complete the data set",
            )
        _decode_all(index, split)
        yield f"{folder / split}: {len(index):,} images in {num_classes} classes decode; digest {index.digest}"


def _decode_all(index: ImageIndex, split: str) -> None:
    with ThreadPoolExecutor() as pool, tqdm(total=len(index), desc=split, unit="image", disable=None) as bar:
        for start in range(0, len(index), _BLOCK):  # a bounded number of tasks at a time
            block = range(start, min(start + _BLOCK, len(index)))
            for _ in pool.map(lambda i: len(index.check(i)), block):
                bar.update()
