"""Views of an image for training and evaluation, and batches of them."""

import math
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import interpolate
from torchvision.transforms.v2 import functional as transforms

from hpcai500.train.workload import SampleKey

from .data import DataSettings, ImageIndex
from .decoding import BATCHED, BatchDecoder, Decoder, decode

Labels = npt.NDArray[np.int64]


class ImageBatch(NamedTuple):
    images: torch.Tensor
    """uint8 (N, 3, H, W) in channels-last strides from the loader; normalised float32 on the device."""
    labels: torch.Tensor
    """int64 (N,)."""


class EncodedBatch(NamedTuple):
    """Files as stored, to be decoded on the model's device."""

    data: torch.Tensor
    """uint8: the files one after the other."""
    lengths: tuple[int, ...]
    keys: tuple[SampleKey | int, ...]
    labels: torch.Tensor


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

    def __init__(
        self,
        index: ImageIndex,
        settings: DataSettings,
        seed: int | None = None,
        decoder: Decoder = "torchvision",
    ) -> None:
        self._index, self._settings, self._seed, self._decoder = index, settings, seed, decoder
        self._batch_decoder: BatchDecoder | None = None

    def __call__(self, keys: Sequence[SampleKey] | Sequence[int]) -> ImageBatch | EncodedBatch:
        if self._decoder in BATCHED:
            files = [torch.from_numpy(self._index.read(_sample(key))) for key in keys]
            labels = torch.from_numpy(self._labels(keys))
            return EncodedBatch(torch.cat(files), tuple(map(len, files)), tuple(keys), labels)
        memory = torch.empty(self.num_bytes(len(keys)), dtype=torch.uint8)
        return self.batch(memory, self.fill(keys, memory))

    def __getstate__(self) -> dict[str, Any]:
        """For the loader's processes, which decode no batches."""
        return self.__dict__ | {"_batch_decoder": None}

    def num_bytes(self, num_images: int) -> int:
        """Bytes of a batch's pixels; 0 if batches hold files."""
        return 0 if self._decoder in BATCHED else num_images * 3 * self._settings.image_size**2

    def fill(self, keys: Sequence[SampleKey] | Sequence[int], memory: torch.Tensor) -> Labels:
        """Put the images of `keys` into `memory` (flat, of at least `num_bytes`); their labels."""
        for key, place in zip(keys, self._images(memory, len(keys)), strict=True):
            place.copy_(self.view(self._decoded(key), key))
        return self._labels(keys)

    def batch(self, memory: torch.Tensor, rest: Labels) -> ImageBatch:
        return ImageBatch(self._images(memory, len(rest)), torch.from_numpy(rest))

    def _images(self, memory: torch.Tensor, count: int) -> torch.Tensor:
        size = self._settings.image_size
        return memory[: self.num_bytes(count)].view(count, size, size, 3).permute(0, 3, 1, 2)

    def _labels(self, keys: Sequence[SampleKey] | Sequence[int]) -> Labels:
        return self._index.labels[[_sample(key) for key in keys]].astype(np.int64)

    def _decoded(self, key: SampleKey | int) -> torch.Tensor:
        index = _sample(key)
        try:
            return decode(self._index.read(index), self._decoder)
        except (RuntimeError, ValueError) as error:
            raise self._index.undecodable(index, error) from error

    def decode_on(self, device: torch.device, batch: EncodedBatch) -> ImageBatch:
        """The batch decoded and cropped on `device`.

        Raises:
            DataError: naming the first file of the batch that cannot be decoded.
        """
        if self._batch_decoder is None:
            self._batch_decoder = BatchDecoder(self._decoder, device, torch.get_num_threads())
        try:
            images = self._batch_decoder(batch.data.split(batch.lengths))
        except RuntimeError:
            images = [self._decoded(key) for key in batch.keys]  # names the file
        views = [self.view(image, key) for image, key in zip(images, batch.keys, strict=True)]
        return ImageBatch(torch.stack(views), batch.labels)

    def view(self, image: torch.Tensor, key: SampleKey | int) -> torch.Tensor:
        """View of uint8 (3, H, W) for training or evaluation: equal for equal keys, whatever the decoder."""
        if isinstance(key, SampleKey):
            return self.train_view(image, random.Random(f"{self._seed}/{key.epoch}/{key.sample}"))
        return self.eval_view(image)

    def train_view(self, image: torch.Tensor, rng: random.Random) -> torch.Tensor:
        size = [self._settings.image_size] * 2
        crop = random_crop(rng, image.shape[1], image.shape[2], self._settings)
        part = image[:, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
        if part.is_cuda:
            view = transforms.resize_image(part, size)
        else:  # the same kernel, which is a fifth faster on pixels that lie together
            packed = part[None].contiguous(memory_format=torch.channels_last)
            view = interpolate(packed, size, mode="bilinear", antialias=True)[0]
        return transforms.horizontal_flip_image(view) if crop.flipped else view

    def eval_view(self, image: torch.Tensor) -> torch.Tensor:
        resized = transforms.resize(image, [self._settings.eval_resize])
        return transforms.center_crop(resized, [self._settings.image_size] * 2)


def _sample(key: SampleKey | int) -> int:
    return key.sample if isinstance(key, SampleKey) else key
