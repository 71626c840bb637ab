"""Faster R-CNN on climate frames: the model, the loss and the quality of Extreme Weather Analytics."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from hpcai500.errors import HpcAi500Error, MachineError
from hpcai500.spec.models import parse
from hpcai500.spec.run import RunSpec
from hpcai500.spec.workload import Settings
from hpcai500.train.loading import choose_num_workers, pins_memory
from hpcai500.train.ranks import Ranks
from hpcai500.train.workload import DatasetInfo, Quality, SampleKey, Workload

from .evaluation import FrameResult, average_precisions, merge
from .frames import Frames
from .layout import CLASS_NAMES, DataSettings, Manifest, read_manifest, verify
from .loading import ReadAhead
from .model import NUM_CHANNELS, NUM_CLASSES, Detector, ModelSettings
from .prepare import prepare
from .synthesize import synthesize

_NUM_BATCHES_AHEAD = 2


class FrameBatch(NamedTuple):
    frames: torch.Tensor
    """float32 (N, 16, H, W): in the units of the data from the loader, normalised on the device."""
    boxes: tuple[torch.Tensor, ...]
    """For each frame float32 (n, 4): x1, y1, x2, y2 in pixels."""
    labels: tuple[torch.Tensor, ...]
    """For each frame int64 (n,), from 0."""
    indices: tuple[int, ...]
    """Each frame's place in its data set."""
    seeds: tuple[int, ...]
    """For each frame, what its sampled anchors and proposals follow from."""


class ExtremeWeather(Workload):
    def __init__(self, spec: RunSpec) -> None:
        super().__init__(spec)
        self.model_settings = parse(ModelSettings, self.settings.model, "model")
        self.data_settings = parse(DataSettings, self.settings.data, "data")
        self._mean = torch.zeros(NUM_CHANNELS)
        self._deviation = torch.ones(NUM_CHANNELS)
        self._detections: list[tuple[FrameBatch, list[dict[str, torch.Tensor]]]] = []

    def open_data(self, folder: Path, ranks: Ranks) -> DatasetInfo:
        if self.model_settings.norm == "sync_batch" and ranks.device.type == "cpu":
            raise MachineError("model.norm=sync_batch needs GPUs", "use model.norm=group")
        manifest = broadcast_manifest(folder, ranks)
        self._mean = torch.tensor(manifest.channel_mean)
        self._deviation = torch.tensor(manifest.channel_standard_deviation)
        train = Frames(folder, manifest, self.data_settings.train_years)
        val = Frames(folder, manifest, self.data_settings.eval_years)
        threads = max(1, choose_num_workers(self.settings.execution.num_loader_workers, ranks.local_size))
        self._pin = pins_memory(ranks.device)
        self._train = ReadAhead(
            lambda keys: self._read(train, [key.sample for key in keys], [frame_seed(self.spec.seed, k) for k in keys]),
            num_threads=threads,
            num_ahead=max(_NUM_BATCHES_AHEAD, threads),
        )
        self._eval = ReadAhead(
            lambda indices: self._read(val, indices, [0] * len(indices)),
            num_threads=threads,
            num_ahead=max(_NUM_BATCHES_AHEAD, threads),
        )
        return DatasetInfo(manifest.digest, len(train), len(val))

    def _read(self, frames: Frames, indices: Sequence[int], seeds: Sequence[int]) -> FrameBatch:
        images, boxes, labels = zip(*(frames.read(index) for index in indices), strict=True)
        stacked = torch.empty((len(images), *images[0].shape), pin_memory=self._pin)
        torch.stack([torch.as_tensor(image) for image in images], out=stacked)
        return FrameBatch(
            stacked,
            tuple(torch.as_tensor(box) for box in boxes),
            tuple(torch.as_tensor(label) for label in labels),
            tuple(indices),
            tuple(seeds),
        )

    def build_model(self) -> nn.Module:
        return Detector(self.model_settings)

    def train_batches(self, batches: Sequence[Sequence[SampleKey]]) -> Iterator[FrameBatch]:
        return self._train.read(batches)

    def eval_batches(self, indices: Sequence[int]) -> Iterator[FrameBatch]:
        size = self.spec.micro_batch_size
        return self._eval.read([indices[start : start + size] for start in range(0, len(indices), size)])

    def synthetic_batch(self, num_samples: int, device: torch.device, seed: int) -> FrameBatch:
        """Three boxes a frame, each an eighth to a quarter of its height and width."""
        generator = torch.Generator().manual_seed(seed)
        height, width = self.data_settings.frame_height, self.data_settings.frame_width
        extent = torch.tensor([width, height])
        corner = torch.rand(num_samples, 3, 2, generator=generator) * 0.75 * extent
        size = (torch.rand(num_samples, 3, 2, generator=generator) + 1) / 8 * extent
        boxes = torch.cat([corner, corner + size], dim=2).to(device)
        labels = torch.randint(NUM_CLASSES, (num_samples, 3), generator=generator).to(device)
        frames = torch.randn(num_samples, NUM_CHANNELS, height, width, generator=generator).to(device)
        numbers = tuple(range(num_samples))
        return FrameBatch(frames, tuple(boxes), tuple(labels), numbers, numbers)

    def to_device(self, batch: FrameBatch, device: torch.device) -> FrameBatch:
        layout = torch.channels_last if self.settings.execution.channels_last else torch.contiguous_format
        mean = self._mean.to(device).view(-1, 1, 1)
        deviation = self._deviation.to(device).view(-1, 1, 1)
        frames = (batch.frames.to(device, non_blocking=True) - mean).div_(deviation)
        return batch._replace(
            frames=frames.contiguous(memory_format=layout),
            boxes=tuple(boxes.to(device, non_blocking=True) for boxes in batch.boxes),
            labels=tuple(labels.to(device, non_blocking=True) for labels in batch.labels),
        )

    def loss(self, model: nn.Module, batch: FrameBatch) -> torch.Tensor:
        """The sum of torchvision's four losses: of each, the mean over what was sampled of the frames."""
        targets = [
            {"boxes": boxes, "labels": labels + 1} for boxes, labels in zip(batch.boxes, batch.labels, strict=True)
        ]
        losses: dict[str, torch.Tensor] = model(batch.frames, targets, batch.seeds)
        return torch.stack(list(losses.values())).sum()

    def start_evaluation(self) -> None:
        self._detections = []

    def evaluate(self, model: nn.Module, batch: FrameBatch) -> None:
        self._detections.append((batch._replace(frames=batch.frames[:0]), model(batch.frames)))

    def evaluation_state(self) -> list[FrameResult]:
        return [
            FrameResult(
                index,
                detected["boxes"].tolist(),
                (detected["labels"] - 1).tolist(),
                detected["scores"].tolist(),
                boxes.tolist(),
                labels.tolist(),
            )
            for batch, detections in self._detections
            for index, boxes, labels, detected in zip(
                batch.indices, batch.boxes, batch.labels, detections, strict=True
            )
        ]

    def quality(self, states: Sequence[list[FrameResult]]) -> Quality:
        """The mean of the classes' average precisions. A class without a true box has none and is left out."""
        results = merge(states)
        if not self.spec.is_synthetic:
            assert [result.index for result in results] == list(range(self.settings.problem.num_eval_samples))
        precisions = average_precisions(results, NUM_CLASSES)
        named = {f"ap_{CLASS_NAMES[label].replace(' ', '_')}": value for label, value in precisions.items()}
        return Quality(sum(precisions.values()) / len(precisions), named)

    @classmethod
    def prepare_data(cls, problem: str, settings: Settings, source: Path | None, folder: Path) -> Iterator[str]:
        return prepare(parse(DataSettings, settings.data, "data"), source, folder)

    @classmethod
    def synthesize_data(
        cls, problem: str, settings: Settings, folder: Path, *, num_samples: int | None, seed: int
    ) -> Iterator[str]:
        return synthesize(parse(DataSettings, settings.data, "data"), folder, num_samples=num_samples, seed=seed)

    @classmethod
    def verify_data(cls, problem: str, settings: Settings, folder: Path) -> Iterator[str]:
        return verify(parse(DataSettings, settings.data, "data"), folder)


def frame_seed(seed: int, key: SampleKey) -> int:
    """64 bits that follow from the run's seed, the epoch and the sample alone."""
    text = f"{seed}/{key.epoch}/{key.sample}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def broadcast_manifest(folder: Path, ranks: Ranks) -> Manifest:
    """The data set's manifest, read by rank 0.

    Raises:
        DataError: on every rank alike.
    """
    found: Manifest | HpcAi500Error | None = None
    if ranks.rank == 0:
        try:
            found = read_manifest(folder)
        except HpcAi500Error as error:
            found = error
    found = ranks.broadcast(found)
    if isinstance(found, HpcAi500Error):
        raise found
    assert found is not None
    return found


WORKLOAD: type[Workload] = ExtremeWeather
