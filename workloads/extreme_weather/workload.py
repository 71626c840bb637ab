"""Faster R-CNN on climate frames: the model, the loss and the quality of Extreme Weather Analytics."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from hpcai500.errors import DataError, MachineError, SpecError
from hpcai500.ranks.torch_ranks import Ranks, read_once
from hpcai500.spec.models import parse
from hpcai500.spec.run import RunSpec
from hpcai500.spec.workload import Settings
from hpcai500.train.loading import choose_num_workers, pins_memory
from hpcai500.train.workload import DatasetInfo, Quality, SampleKey, Workload

from .evaluation import FrameResult, average_precisions, merge
from .frames import Frames
from .layout import CLASS_NAMES, DataSettings, Manifest, read_manifest, verify
from .loading import Buffers, ReadAhead
from .model import NUM_CHANNELS, NUM_CLASSES, Detector, ModelSettings
from .staging import stage, staged_folder

if TYPE_CHECKING:
    from PIL.Image import Image


class FrameBatch(NamedTuple):
    frames: torch.Tensor
    """float32 (N, 16, H, W): in the units of the data from the loader, normalised on the device."""
    boxes: tuple[torch.Tensor, ...]
    """For each frame float32 (n, 4): x1, y1, x2, y2 in pixels."""
    labels: tuple[torch.Tensor, ...]
    """For each frame int64 (n,), from 0."""
    indices: tuple[int, ...]
    """Index of each frame in its data set."""
    seeds: tuple[int, ...] = ()
    """For each frame of a training batch, the seed of its sampled anchors and proposals."""


class ExtremeWeather(Workload):
    def __init__(self, spec: RunSpec) -> None:
        super().__init__(spec)
        self.model_settings = parse(ModelSettings, self.settings.model, "model")
        self.data_settings = parse(DataSettings, self.settings.data, "data")
        self._mean, self._deviation = torch.zeros(NUM_CHANNELS, 1, 1), torch.ones(NUM_CHANNELS, 1, 1)
        self._detections: list[tuple[FrameBatch, list[dict[str, torch.Tensor]]]] = []

    def stage_data(self, folder: Path, staging: Path) -> None:
        stage(folder, read_manifest(folder), self.data_settings.train_years + self.data_settings.eval_years, staging)

    def open_data(self, folder: Path, ranks: Ranks) -> DatasetInfo:
        if self.model_settings.norm == "sync_batch" and ranks.device.type == "cpu":
            raise MachineError("model.norm=sync_batch needs GPUs", "use model.norm=group")
        manifest = read_once(ranks, lambda: read_manifest(folder))
        require_statistics_of(self.data_settings.train_years, manifest, folder)
        self._mean = torch.tensor(manifest.channel_mean).view(-1, 1, 1)
        self._deviation = torch.tensor(manifest.channel_standard_deviation).view(-1, 1, 1)
        self._buffers = Buffers(pin=pins_memory(ranks.device))
        place = staged_folder(manifest, Path(self.spec.staging)) if self.spec.staging else folder
        self._train_frames = Frames(place, manifest, self.data_settings.train_years)
        self._eval_frames = Frames(place, manifest, self.data_settings.eval_years)
        wanted = self.settings.execution.num_loader_workers
        threads = max(1, choose_num_workers(wanted, ranks.device, ranks.local_size))
        self._train = ReadAhead(self._read_train, num_threads=threads)
        self._eval = ReadAhead(self._read_eval, num_threads=threads)
        reading = {"layout": self._train_frames.layout, "loader_threads": threads}
        return DatasetInfo(manifest.digest, len(self._train_frames), len(self._eval_frames), reading)

    def _read_train(self, keys: Sequence[SampleKey]) -> FrameBatch:
        seeds = tuple(frame_seed(self.spec.seed, key) for key in keys)
        return read_batch(self._train_frames, [key.sample for key in keys], self._buffers)._replace(seeds=seeds)

    def _read_eval(self, indices: Sequence[int]) -> FrameBatch:
        return read_batch(self._eval_frames, indices, self._buffers)

    def build_model(self) -> nn.Module:
        return Detector(self.model_settings)

    def train_batches(self, batches: Sequence[Sequence[SampleKey]]) -> Iterator[FrameBatch]:
        return self._train.read(batches)

    def eval_batches(self, batches: Sequence[Sequence[int]]) -> Iterator[FrameBatch]:
        return self._eval.read(batches)

    def synthetic_batch(self, num_samples: int, device: torch.device, seed: int) -> FrameBatch:
        """Random frames with three boxes each, of an eighth to a quarter of the frame's height and width."""
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
        # They stay on the device: copying from pageable memory would synchronise at each step.
        self._mean, self._deviation = self._mean.to(device), self._deviation.to(device)
        frames = (batch.frames.to(device, non_blocking=True) - self._mean).div_(self._deviation)
        return batch._replace(
            frames=frames.contiguous(memory_format=layout),
            boxes=tuple(boxes.to(device, non_blocking=True) for boxes in batch.boxes),
            labels=tuple(labels.to(device, non_blocking=True) for labels in batch.labels),
        )

    def loss(self, model: nn.Module, batch: FrameBatch) -> torch.Tensor:
        """Sum of torchvision's four losses, each the mean over the samples of the frames."""
        targets = [
            {"boxes": boxes, "labels": labels + 1} for boxes, labels in zip(batch.boxes, batch.labels, strict=True)
        ]
        losses: dict[str, torch.Tensor] = model(batch.frames, targets, batch.seeds)
        return torch.stack(list(losses.values())).sum()

    def start_evaluation(self) -> None:
        self._detections = []

    def evaluate(self, model: nn.Module, batch: FrameBatch) -> None:
        self._detections.append((batch._replace(frames=torch.empty(0)), model(batch.frames)))

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
        """Mean of the classes' average precisions; a class without a true box is left out."""
        results = merge(states)
        if not self.spec.is_synthetic:
            assert [result.index for result in results] == list(range(self.settings.problem.num_eval_samples))
        precisions = average_precisions(results, NUM_CLASSES)
        named = {f"ap_{CLASS_NAMES[label].replace(' ', '_')}": value for label, value in precisions.items()}
        records = [result._asdict() for result in results]
        return Quality(sum(precisions.values()) / len(precisions), named | {"num_samples": len(results)}, records)

    @classmethod
    def prepare_data(cls, problem: str, settings: Settings, source: Path | None, folder: Path) -> Iterator[str]:
        from .data_tools.prepare import prepare

        return prepare(parse(DataSettings, settings.data, "data"), source, folder)

    @classmethod
    def synthesize_data(
        cls, problem: str, settings: Settings, folder: Path, *, num_samples: int | None, seed: int
    ) -> Iterator[str]:
        from .data_tools.synthesize import synthesize

        return synthesize(parse(DataSettings, settings.data, "data"), folder, num_samples=num_samples, seed=seed)

    @classmethod
    def show_sample(
        cls, problem: str, settings: Settings, folder: Path, index: int, *, records: Any, layers: Sequence[str]
    ) -> "Image":
        from .data_tools.picture import draw_frame

        frames = Frames(folder, read_manifest(folder), parse(DataSettings, settings.data, "data").eval_years)
        if not 0 <= index < len(frames):
            raise SpecError(f"no frame {index}", f"the evaluation set has frames 0 to {len(frames) - 1}")
        image, boxes, labels = frames.read(index)
        record = next((found for found in records or () if found["index"] == index), None)
        return draw_frame(image, boxes.tolist(), labels.tolist(), record, layers)

    @classmethod
    def verify_data(cls, problem: str, settings: Settings, folder: Path) -> Iterator[str]:
        return verify(parse(DataSettings, settings.data, "data"), folder)


def require_statistics_of(years: Sequence[int], manifest: Manifest, folder: Path) -> None:
    """Refuse statistics of other years than the training years."""
    if sorted(manifest.train_years) != sorted(years):
        raise DataError(
            f"{folder}: the manifest's statistics are of {_joined(manifest.train_years)}, the run trains on "
            f"{_joined(years)}",
            "run `hpcai500 data verify extreme_weather` with the same data.train_years",
        )


def _joined(years: Sequence[int]) -> str:
    return ", ".join(map(str, years))


def read_batch(frames: Frames, indices: Sequence[int], buffers: Buffers) -> FrameBatch:
    """The frames of `indices` in one piece of memory, which is reused once the batch is released."""
    images = buffers.take((len(indices), *frames.shape))
    truths = [frames.read_into(index, image.numpy()) for index, image in zip(indices, images, strict=True)]
    return FrameBatch(
        images,
        tuple(torch.tensor(boxes) for boxes, _ in truths),
        tuple(torch.tensor(labels) for _, labels in truths),
        tuple(indices),
    )


def frame_seed(seed: int, key: SampleKey) -> int:
    """64 bits that depend only on the run's seed, the epoch and the sample."""
    text = f"{seed}/{key.epoch}/{key.sample}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


WORKLOAD: type[Workload] = ExtremeWeather
