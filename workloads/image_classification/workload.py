"""ResNet-50 v1.5 on ImageNet: the model, the loss and the quality of Image Classification."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional
from torchvision.models import resnet50

from hpcai500.ranks.torch_ranks import Ranks, read_once
from hpcai500.spec.models import Frozen, parse
from hpcai500.spec.run import RunSpec
from hpcai500.spec.workload import Settings
from hpcai500.train.loading import Loader, choose_num_workers, pins_memory
from hpcai500.train.workload import DatasetInfo, Quality, SampleKey, Workload

from .data import DataSettings
from .dataset import open_dataset
from .decoding import choose_decoder, named
from .views import EncodedBatch, ImageBatch, ImageReader

CHANNEL_MEAN = (0.485, 0.456, 0.406)
CHANNEL_STANDARD_DEVIATION = (0.229, 0.224, 0.225)
"""Mean and deviation of ImageNet for values in [0, 1], as in every published ResNet-50."""


class ModelSettings(Frozen):
    num_classes: Annotated[int, Field(ge=2)]
    zero_init_residual: bool
    """Start each residual branch at zero (Goyal et al. 2017, section 5.1)."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]


class ImageClassification(Workload):
    static_shapes = True

    def __init__(self, spec: RunSpec) -> None:
        super().__init__(spec)
        self.model_settings = parse(ModelSettings, self.settings.model, "model")
        self.data_settings = parse(DataSettings, self.settings.data, "data")
        self._loss = nn.CrossEntropyLoss(label_smoothing=self.model_settings.label_smoothing)
        self._counts: torch.Tensor | None = None
        self._mean = torch.tensor(CHANNEL_MEAN).view(3, 1, 1) * 255
        self._deviation = torch.tensor(CHANNEL_STANDARD_DEVIATION).view(3, 1, 1) * 255

    def open_data(self, folder: Path, ranks: Ranks) -> DatasetInfo:
        train, val = read_once(ranks, lambda: open_dataset(folder, self.model_settings.num_classes))
        decoder = choose_decoder(self.data_settings.decoder, ranks.device)
        workers = choose_num_workers(self.settings.execution.num_loader_workers, ranks.device, ranks.local_size)
        pin = pins_memory(ranks.device)
        self._train_reader = ImageReader(train, self.data_settings, self.spec.seed, decoder)
        self._eval_reader = ImageReader(val, self.data_settings, None, decoder)
        size = self._train_reader.num_bytes(self.spec.micro_batch_size)
        self._train = Loader(self._train_reader, num_workers=workers, pin_memory=pin, batch_bytes=size)
        self._eval = Loader(self._eval_reader, num_workers=workers, pin_memory=pin, batch_bytes=size)
        self._device = ranks.device
        reading = {"decoder": named(decoder), "layout": train.layout, "loader_processes": workers}
        return DatasetInfo(f"{train.digest}-{val.digest}", len(train), len(val), reading)

    def build_model(self) -> nn.Module:
        return resnet50(
            num_classes=self.model_settings.num_classes,
            zero_init_residual=self.model_settings.zero_init_residual,
        )

    def train_batches(self, batches: Sequence[Sequence[SampleKey]]) -> Iterator[ImageBatch]:
        return self._decoded(self._train_reader, self._train.read(batches))

    def eval_batches(self, batches: Sequence[Sequence[int]]) -> Iterator[ImageBatch]:
        return self._decoded(self._eval_reader, self._eval.read(batches))

    def _decoded(self, reader: ImageReader, batches: Iterator[ImageBatch | EncodedBatch]) -> Iterator[ImageBatch]:
        """Decode what the loader's processes did not, so that it counts as waiting for data."""
        for batch in batches:
            yield reader.decode_on(self._device, batch) if isinstance(batch, EncodedBatch) else batch
            del batch  # its memory is free while the next one is waited for

    def synthetic_batch(self, num_samples: int, device: torch.device, seed: int) -> ImageBatch:
        generator = torch.Generator(device).manual_seed(seed)
        size = self.data_settings.image_size
        return ImageBatch(
            torch.randint(256, (num_samples, 3, size, size), dtype=torch.uint8, device=device, generator=generator),
            torch.randint(self.model_settings.num_classes, (num_samples,), device=device, generator=generator),
        )

    def to_device(self, batch: ImageBatch, device: torch.device) -> ImageBatch:
        layout = torch.channels_last if self.settings.execution.channels_last else torch.contiguous_format
        images = batch.images.to(device, non_blocking=True)
        # They stay on the device: copying from pageable memory would synchronise at each step.
        self._mean, self._deviation = self._mean.to(device), self._deviation.to(device)
        normalised = (images - self._mean).div_(self._deviation).contiguous(memory_format=layout)
        return ImageBatch(normalised, batch.labels.to(device, non_blocking=True))

    def loss(self, model: nn.Module, batch: ImageBatch) -> torch.Tensor:
        loss: torch.Tensor = self._loss(model(batch.images), batch.labels)
        return loss

    def start_evaluation(self) -> None:
        self._counts = None

    def evaluate(self, model: nn.Module, batch: ImageBatch) -> None:
        logits = model(batch.images).float()
        hits = (logits.argmax(dim=1) == batch.labels).sum()
        loss = functional.cross_entropy(logits, batch.labels, reduction="sum").double()
        counts = torch.stack([hits.double(), loss, torch.full_like(loss, len(batch.labels))])
        self._counts = counts if self._counts is None else self._counts + counts

    def evaluation_state(self) -> list[float]:
        """Correct predictions, summed loss, samples."""
        return [0.0, 0.0, 0.0] if self._counts is None else self._counts.tolist()

    def quality(self, states: Sequence[list[float]]) -> Quality:
        correct, loss, num_samples = (sum(column) for column in zip(*states, strict=True))
        return Quality(correct / num_samples, {"eval_loss": loss / num_samples, "num_samples": num_samples})

    @classmethod
    def prepare_data(cls, problem: str, settings: Settings, source: Path | None, folder: Path) -> Iterator[str]:
        from .data_tools.digits import digits_to_jpeg
        from .data_tools.prepare import prepare

        if problem == "mini":
            yield digits_to_jpeg(folder, settings)
            return
        yield from prepare(source, folder, parse(ModelSettings, settings.model, "model").num_classes)

    @classmethod
    def verify_data(cls, problem: str, settings: Settings, folder: Path) -> Iterator[str]:
        from .data_tools.prepare import verify

        num_classes = parse(ModelSettings, settings.model, "model").num_classes
        return verify(folder, num_classes, settings.problem)


WORKLOAD: type[Workload] = ImageClassification
