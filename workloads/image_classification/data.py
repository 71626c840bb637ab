"""ImageNet-2012 as it lies on disk: the index of its files, decoding, crops, and the mini data set."""

import hashlib
import math
import os
import random
import shutil
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import functional as transforms
from tqdm import tqdm

from hpcai500.errors import DataError, OccupiedError
from hpcai500.files import storage
from hpcai500.spec.models import Frozen
from hpcai500.spec.workload import ProblemDomain, Settings
from hpcai500.train.workload import SampleKey

# torchvision keeps its decoders for now, and says at each call that TorchCodec will take their place.
warnings.filterwarnings("ignore", "The image decoding and encoding capabilities of TorchVision", DeprecationWarning)

SUFFIXES = (".jpeg", ".jpg", ".png")
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"
INDEX_CACHE = ".hpcai500-index.npz"
_INDEX_FORMAT = "1"
_BLOCK = 4_096


class DataSettings(Frozen):
    image_size: Annotated[int, Field(ge=1)]
    crop_area: tuple[float, float]
    """Range of a training crop's share of the image's area."""
    crop_aspect: tuple[float, float]
    """Range of its width over its height, before it is resized to a square."""
    flip_probability: Annotated[float, Field(ge=0, le=1)]
    eval_resize: Annotated[int, Field(ge=1)]
    """Shorter side before the centre crop of an evaluation image."""


class ImageBatch(NamedTuple):
    images: torch.Tensor
    """uint8 (N, 3, H, W) from the loader; normalised float32 on the device."""
    labels: torch.Tensor
    """int64 (N,)."""


class ImageIndex:
    """Paths and labels of one split, in two arrays that forked processes share without copying."""

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

    @property
    def digest(self) -> str:
        """SHA-256, shortened to 16 hex digits, of the names and labels in order."""
        total = hashlib.sha256(self.names.tobytes())
        total.update(self.ends.astype("<i8").tobytes())
        total.update(self.labels.astype("<i2").tobytes())
        return total.hexdigest()[:16]


class Indices(NamedTuple):
    train: ImageIndex
    val: ImageIndex


def read_index(folder: Path, num_classes: int) -> Indices:
    """The cached index, if the folders have not changed since, else a new one (cached where one may write)."""
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
    """A flat `val/`, labelled by the ILSVRC development kit: line n of the ground truth is image n's id."""
    truth_file, meta_file = _development_kit(folder)
    names = _images(val)
    try:
        truth = [int(line) for line in truth_file.read_text().split()]
    except ValueError as error:
        raise DataError(f"{truth_file}: {error}", "take it from the ILSVRC 2012 development kit") from error
    if len(truth) != len(names):
        raise DataError(
            f"{truth_file}: {len(truth):,} lines for {len(names):,} images in {val}", "complete the data set"
        )
    wnids = _wnid_of_id(meta_file)
    try:
        return ImageIndex.build(val, [(n, labels[wnids[i]]) for n, i in zip(names, truth, strict=True)])
    except KeyError as error:
        raise DataError(
            f"{truth_file}: id or class {error} has no folder in train/", "complete the data set"
        ) from error


def _development_kit(folder: Path) -> tuple[Path, Path]:
    for place in (folder, folder / "ILSVRC2012_devkit_t12" / "data"):
        if (place / GROUND_TRUTH).is_file() and (place / META).is_file():
            return place / GROUND_TRUTH, place / META
    raise DataError(
        f"{folder}: val/ is flat, and {GROUND_TRUTH} with {META} is missing",
        "put both from the ILSVRC 2012 development kit beside val/, or sort val/ into class folders",
    )


def _wnid_of_id(meta_file: Path) -> dict[int, str]:
    """ILSVRC2012_ID to WordNet id, of the synsets without children (the 1,000 classes)."""
    from scipy.io import loadmat

    try:
        synsets = loadmat(str(meta_file), squeeze_me=True)["synsets"]
        return {int(s["ILSVRC2012_ID"]): str(s["WNID"]) for s in synsets if int(s["num_children"]) == 0}
    except (ValueError, KeyError, NotImplementedError, OSError) as error:
        raise DataError(f"{meta_file}: not the ILSVRC 2012 meta file ({error})", "take it from the kit") from error


def _stamp(folder: Path, classes: Sequence[str]) -> str:
    """What changes when a file is added to or taken from the data set: the times of its folders."""
    places = [folder / "train", folder / "val"]
    places += [folder / split / name for split in ("train", "val") for name in classes]
    total = hashlib.sha256(_INDEX_FORMAT.encode())
    for place in places:
        if place.is_dir():
            total.update(f"{place.relative_to(folder)} {place.stat().st_mtime_ns}\n".encode())
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


def decode(path: Path) -> torch.Tensor:
    """A file as uint8 (3, H, W) RGB, whatever it really is: grey, CMYK, or a PNG named .JPEG.

    Raises:
        DataError: naming the file, if it cannot be read or decoded.
    """
    try:
        data = np.fromfile(path, dtype=np.uint8)
        return decode_image(torch.from_numpy(data), mode=ImageReadMode.RGB)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: cannot be decoded ({reason})", "replace the file") from error


class Crop(NamedTuple):
    top: int
    left: int
    height: int
    width: int
    flipped: bool


def random_crop(rng: random.Random, height: int, width: int, settings: DataSettings) -> Crop:
    """The crop of Inception training (Szegedy et al. 2015): area and aspect drawn, the aspect log-uniformly.

    Ten draws are tried; then the largest centred crop within the aspect range is taken.
    """
    low, high = (math.log(aspect) for aspect in settings.crop_aspect)
    flipped = rng.random() < settings.flip_probability
    for _ in range(10):
        area = height * width * rng.uniform(*settings.crop_area)
        aspect = math.exp(rng.uniform(low, high))
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top, left = rng.randint(0, height - crop_height), rng.randint(0, width - crop_width)
            return Crop(top, left, crop_height, crop_width, flipped)
    aspect = min(max(width / height, settings.crop_aspect[0]), settings.crop_aspect[1])
    crop_width, crop_height = min(width, round(height * aspect)), min(height, round(width / aspect))
    return Crop((height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width, flipped)


class ImageReader:
    """Keys to a batch. With a seed it reads training samples (`SampleKey`), without one it evaluates (indices)."""

    def __init__(self, index: ImageIndex, settings: DataSettings, seed: int | None = None) -> None:
        self._index, self._settings, self._seed = index, settings, seed

    def __call__(self, keys: Sequence[SampleKey] | Sequence[int]) -> ImageBatch:
        indices = [key.sample if isinstance(key, SampleKey) else key for key in keys]
        images = torch.stack([self._image(key) for key in keys])
        return ImageBatch(images, torch.from_numpy(self._index.labels[indices].astype(np.int64)))

    def _image(self, key: SampleKey | int) -> torch.Tensor:
        if isinstance(key, SampleKey):
            image = decode(self._index.path(key.sample))
            rng = random.Random(f"{self._seed}/{key.epoch}/{key.sample}")
            return self.train_view(image, rng)
        return self.eval_view(decode(self._index.path(key)))

    def train_view(self, image: torch.Tensor, rng: random.Random) -> torch.Tensor:
        size = [self._settings.image_size] * 2
        crop = random_crop(rng, image.shape[1], image.shape[2], self._settings)
        view = transforms.resized_crop(image, crop.top, crop.left, crop.height, crop.width, size)
        return transforms.horizontal_flip(view) if crop.flipped else view

    def eval_view(self, image: torch.Tensor) -> torch.Tensor:
        resized = transforms.resize(image, [self._settings.eval_resize])
        return transforms.center_crop(resized, [self._settings.image_size] * 2)


def verify(folder: Path, num_classes: int, problem: ProblemDomain) -> Iterator[str]:
    """Count and decode every file; yields one line a finding.

    Raises:
        DataError: naming the first file that cannot be decoded, or the count that is wrong.
    """
    indices = read_index(folder, num_classes)
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
            for _ in pool.map(lambda i: decode(index.path(i)).shape, block):
                bar.update()


def digits_to_jpeg(folder: Path, settings: Settings) -> str:
    """Write scikit-learn's handwritten digits as JPEG files in ImageNet's layout; atomic, deterministic.

    1,797 images of 8 x 8 with 17 grey levels, each enlarged to the problem's size; a stratified fifth is `val`.
    """
    from PIL import Image
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]
    from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]

    if (folder / "train").is_dir():
        return f"{folder}: prepared already"
    if folder.exists() and any(folder.iterdir()):
        raise OccupiedError(f"{folder} holds something else", "give another --data")
    digits = load_digits()
    splits = train_test_split(
        range(len(digits.target)),
        test_size=settings.problem.num_eval_samples,
        stratify=digits.target,
        random_state=0,
    )
    size = int(settings.data["image_size"])  # type: ignore[arg-type]
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        with storage(folder):
            for split, members in zip(("train", "val"), splits, strict=True):
                for member in members:
                    place = temporary / split / f"digit_{digits.target[member]}"
                    place.mkdir(parents=True, exist_ok=True)
                    grey = (digits.images[member] * (255 / 16)).astype(np.uint8)
                    image = Image.fromarray(grey).resize((size, size), Image.Resampling.BICUBIC)
                    image.save(place / f"{member:04d}.JPEG", quality=95)
            if folder.exists():
                folder.rmdir()  # empty, as seen above
            temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return f"{folder}: wrote {len(splits[0]):,} training and {len(splits[1]):,} validation images"
