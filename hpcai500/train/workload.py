"""The interface between the training loop and a workload, and the import of a workload's folder."""

import importlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hpcai500.errors import SpecError
from hpcai500.spec.run import RunSpec
from hpcai500.spec.workload import Settings

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import nn

    from hpcai500.ranks.torch_ranks import Ranks

Batch = Any
"""The values that a workload's `train_batches` yields and its `loss` takes. The loop does not inspect them."""


class SampleKey(NamedTuple):
    """One sample of one epoch. Everything random about it must depend only on this and the run's seed."""

    epoch: int
    sample: int


class DatasetInfo(NamedTuple):
    digest: str
    """SHA-256 over what identifies the data: the identity of Layer 9."""
    num_train_samples: int
    num_eval_samples: int
    reading: dict[str, Any] | None = None
    """How samples are read, for the log: decoder, layout on disk, processes."""


class Quality(NamedTuple):
    value: float
    details: dict[str, float]
    """Further figures for the log, by name."""
    records: Any = None
    """Details of the last evaluation for a reader, e.g. predictions, as JSON values; kept in evaluation.json."""


class Workload(ABC):
    """One rank's view of a workload. The training loop calls the methods in the order in which they are defined here.

    A workload's folder has a module `workload` whose class `WORKLOAD` is a subclass. It defines the problem
    (data, model, loss, quality) and has no training code, so that a referee can read it without the rest.
    """

    static_shapes: bool = False
    """Whether every training batch of n samples needs the same FLOPs, whatever its contents.

    If so, FLOPs are counted on tensors without memory (torch's device `meta`) with the shapes of `synthetic_batch`,
    before the data is opened. Otherwise they are counted on real batches.
    """

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self.settings = spec.settings

    def stage_data(self, folder: Path, staging: Path) -> None:
        """Copy the data that a run reads from `folder` to `staging`, a folder on a node's disk, unless it is there.

        It is called on one rank per node. `open_data` then reads samples from there (`spec.staging`) on all ranks.

        Raises:
            DataError: if a file cannot be read.
            HpcAi500Error: if a file cannot be written.
        """
        raise SpecError(f"{type(self).__name__} cannot stage data", "run without --staging")

    @abstractmethod
    def open_data(self, folder: Path, ranks: "Ranks") -> DatasetInfo:
        """Open the data set. Slow metadata is read only by rank 0 and broadcast.

        Raises:
            DataError: naming the file that is missing or wrong.
        """

    @abstractmethod
    def build_model(self) -> "nn.Module":
        """The model on the CPU, with parameters drawn from torch's global generator."""

    @abstractmethod
    def train_batches(self, batches: Sequence[Sequence[SampleKey]]) -> Iterable[Batch]:
        """One batch per list of keys, in the same order, as the data loader returns them."""

    @abstractmethod
    def eval_batches(self, batches: Sequence[Sequence[int]]) -> Iterable[Batch]:
        """One batch per list of indices in the evaluation set, in the same order."""

    @abstractmethod
    def synthetic_batch(self, num_samples: int, device: "torch.device", seed: int) -> Batch:
        """A random batch with the real shapes and types on `device`, to measure only speed."""

    @abstractmethod
    def to_device(self, batch: Batch, device: "torch.device") -> Batch:
        """The batch on `device`, as the model takes it (normalised, in the memory format of the run)."""

    @abstractmethod
    def loss(self, model: "nn.Module", batch: Batch) -> "torch.Tensor":
        """The mean loss over the batch, as a differentiable scalar. It is called under autocast."""

    @abstractmethod
    def start_evaluation(self) -> None:
        """Reset the state of earlier evaluations."""

    @abstractmethod
    def evaluate(self, model: "nn.Module", batch: Batch) -> None:
        """Add one batch to the state from which the quality is computed, without waiting for the device."""

    @abstractmethod
    def evaluation_state(self) -> Any:
        """This rank's state as plain Python values, which are sent to rank 0."""

    @abstractmethod
    def quality(self, states: Sequence[Any]) -> Quality:
        """The quality from the states of all ranks. It is called only on rank 0."""

    @classmethod
    def prepare_data(cls, problem: str, settings: Settings, source: Path | None, folder: Path) -> Iterator[str]:
        """Convert the data set in `source` to the layout that training reads, in `folder`. Yield lines to print.

        Without a `source`, the data set is already in `folder`, or comes with a package.
        """
        raise SpecError(f"{cls.__name__} has nothing to prepare")

    @classmethod
    def synthesize_data(
        cls, problem: str, settings: Settings, folder: Path, *, num_samples: int | None, seed: int
    ) -> Iterator[str]:
        """Write a data set in the published layout, with equal bytes for equal seeds. Yield lines to print."""
        raise SpecError(f"{cls.__name__} synthesizes no data")

    @classmethod
    def verify_data(cls, problem: str, settings: Settings, folder: Path) -> Iterator[str]:
        """Check every file. Yield lines to print.

        Raises:
            DataError: for the first thing that makes the data set unusable.
        """
        raise SpecError(f"{cls.__name__} has nothing to verify")

    @classmethod
    def show_sample(
        cls, problem: str, settings: Settings, folder: Path, index: int, *, records: Any, layers: Sequence[str]
    ) -> "Image":
        """A picture of sample `index` of the evaluation set, of its channels `layers` (a default choice if empty).

        `records` are those of `quality` from a run's last evaluation, drawn next to the truth; or None.
        """
        raise SpecError(f"{cls.__name__} shows no samples")


def load_workload(folder: Path) -> type[Workload]:
    """The class `WORKLOAD` of `<folder>/workload.py`, imported as `<name>.workload`.

    The parent is added to `sys.path`, so that processes of a data loader can import it too.

    Raises:
        SpecError: if the module has no such class or cannot be imported.
    """
    parent = str(folder.parent)
    if parent not in sys.path:
        sys.path.insert(0, parent)
    try:
        module = importlib.import_module(f"{folder.name}.workload")
        workload: type[Workload] = module.WORKLOAD
    except (ImportError, AttributeError) as error:
        raise SpecError(f"{folder / 'workload.py'}: {error}", "see docs/getting-started.md") from error
    return workload
