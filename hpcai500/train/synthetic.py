"""A workload on random batches in place of its data, to measure only speed."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hpcai500.ranks.torch_ranks import Ranks
from hpcai500.train.workload import Batch, DatasetInfo, Quality, SampleKey, Workload


class SyntheticData(Workload):
    """Another workload with random batches that are already on the device. All training steps share one batch."""

    def __init__(self, inner: Workload) -> None:
        super().__init__(inner.spec)
        self.static_shapes = inner.static_shapes
        self._inner = inner

    def open_data(self, folder: Path, ranks: Ranks) -> DatasetInfo:
        self._device, self._seed = ranks.device, self.spec.seed + ranks.rank
        self._train_batch = self._batch(self.spec.micro_batch_size)
        problem = self.settings.problem
        return DatasetInfo("", problem.num_train_samples, problem.num_eval_samples)

    def _batch(self, num_samples: int) -> Batch:
        return self._inner.synthetic_batch(num_samples, self._device, self._seed)

    def train_batches(self, batches: Sequence[Sequence[SampleKey]]) -> Iterator[Batch]:
        return (self._train_batch for _ in batches)

    def eval_batches(self, batches: Sequence[Sequence[int]]) -> Iterator[Batch]:
        return (self._batch(len(indices)) for indices in batches)

    def build_model(self) -> nn.Module:
        return self._inner.build_model()

    def synthetic_batch(self, num_samples: int, device: torch.device, seed: int) -> Batch:
        return self._inner.synthetic_batch(num_samples, device, seed)

    def to_device(self, batch: Batch, device: torch.device) -> Batch:
        return self._inner.to_device(batch, device)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return self._inner.loss(model, batch)

    def start_evaluation(self) -> None:
        self._inner.start_evaluation()

    def evaluate(self, model: nn.Module, batch: Batch) -> None:
        self._inner.evaluate(model, batch)

    def evaluation_state(self) -> Any:
        return self._inner.evaluation_state()

    def quality(self, states: Sequence[Any]) -> Quality:
        return self._inner.quality(states)
