"""A whole workload on one page: coloured noise in four classes, and a model that learns them in a second."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hpcai500.errors import DataError
from hpcai500.ranks.torch_ranks import Ranks
from hpcai500.spec.workload import Settings
from hpcai500.train.workload import DatasetInfo, Quality, SampleKey, Workload

Images = tuple[torch.Tensor, torch.Tensor]
"""float32 (N, 3, 8, 8), and int64 (N,): each image's class."""


def draw(settings: Settings, index: int) -> tuple[torch.Tensor, int]:
    """Image `index` and its class: noise, with one brighter column for each class."""
    label = index % settings.model["num_classes"]
    image = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(index)) * settings.data["noise"]
    image[:, label] += 1.0
    return image, label


class TinyWorkload(Workload):
    static_shapes = True

    def open_data(self, folder: Path, ranks: Ranks) -> DatasetInfo:
        self.train, self.eval, digest = read(folder)
        return DatasetInfo(digest, len(self.train[1]), len(self.eval[1]))

    def build_model(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),
            nn.Dropout(self.settings.model["dropout"]), nn.Linear(8 * 36, self.settings.model["num_classes"]),
        )  # fmt: skip

    def train_batches(self, batches: Sequence[Sequence[SampleKey]]) -> Iterator[Images]:
        return (pick(self.train, [key.sample for key in keys]) for keys in batches)

    def eval_batches(self, batches: Sequence[Sequence[int]]) -> Iterator[Images]:
        return (pick(self.eval, indices) for indices in batches)

    def synthetic_batch(self, num_samples: int, device: torch.device, seed: int) -> Images:
        generator = torch.Generator(device).manual_seed(seed)
        images = torch.randn(num_samples, 3, 8, 8, device=device, generator=generator)
        return images, torch.zeros(num_samples, dtype=torch.int64, device=device)

    def to_device(self, batch: Images, device: torch.device) -> Images:
        return batch[0].to(device), batch[1].to(device)

    def loss(self, model: nn.Module, batch: Images) -> torch.Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    def start_evaluation(self) -> None:
        self.correct, self.total = 0, 0

    def evaluate(self, model: nn.Module, batch: Images) -> None:
        self.correct += int((model(batch[0]).argmax(1) == batch[1]).sum())
        self.total += len(batch[1])

    def evaluation_state(self) -> tuple[int, int]:
        return self.correct, self.total

    def quality(self, states: Sequence[Any]) -> Quality:
        correct, total = (sum(column) for column in zip(*states, strict=True))
        return Quality(correct / total, {"num_samples": total})

    @classmethod
    def prepare_data(cls, problem: str, settings: Settings, source: Path | None, folder: Path) -> Iterator[str]:
        num_train, num_eval = settings.problem.num_train_samples, settings.problem.num_eval_samples
        indices = {"train": range(num_train), "eval": range(1_000_000, 1_000_000 + num_eval)}
        folder.mkdir(parents=True, exist_ok=True)
        for split, places in indices.items():
            images, labels = zip(*(draw(settings, index) for index in places), strict=True)
            torch.save((torch.stack(images), torch.tensor(labels)), folder / f"{split}.pt")
            yield f"{folder / split}.pt: {len(labels)} images"

    @classmethod
    def verify_data(cls, problem: str, settings: Settings, folder: Path) -> Iterator[str]:
        train, evaluation, digest = read(folder)
        yield f"{len(train[1])} images to train on, {len(evaluation[1])} to evaluate on, digest {digest}"


def read(folder: Path) -> tuple[Images, Images, str]:
    """Training images, evaluation images, and the digest of both."""
    splits, sha256 = [], hashlib.sha256()
    for name in ("train.pt", "eval.pt"):
        try:
            images, labels = torch.load(folder / name, weights_only=True)
        except OSError as error:
            raise DataError(f"{folder / name}: {error.strerror}", "run `hpcai500 data prepare`") from error
        sha256.update(images.numpy().tobytes() + labels.numpy().tobytes())
        splits.append((images, labels))
    return splits[0], splits[1], sha256.hexdigest()[:16]


def pick(split: Images, indices: Sequence[int]) -> Images:
    return split[0][indices], split[1][indices]


WORKLOAD = TinyWorkload
