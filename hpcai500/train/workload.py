"""The contract between the training engine and a workload, and how a workload's folder is imported."""

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
"""What a workload's own `train_batches` yields and its own `loss` takes; the engine never looks inside."""


class SampleKey(NamedTuple):
    """One sample of one epoch. All that is random about it must follow from this and the run's seed."""

    epoch: int
    sample: int


class DatasetInfo(NamedTuple):
    digest: str
    """SHA-256 over what identifies the data: Layer 9's identity."""
    num_train_samples: int
    num_eval_samples: int
    reading: dict[str, Any] | None = None
    """How samples are read, for the log: decoder, layout on disk, processes."""


class Quality(NamedTuple):
    value: float
    details: dict[str, float]
    """Further figures for the log, by name."""
    records: Any = None
    """What a person may want to see of the last evaluation (predictions, say), as JSON; kept in evaluation.json."""


class Workload(ABC):
    """One rank's view of a workload. The engine calls the methods in the order in which they stand here.

    A workload's folder has a module `workload` whose class `WORKLOAD` is one of these. It holds what makes
    the problem (data, model, loss, quality) and no training code, so that a referee can read it alone.
    """

    static_shapes: bool = False
    """Whether every training batch of n samples costs the same FLOPs, whatever it holds.

    If so, FLOPs are counted on tensors without memory (torch's device `meta`), in shapes that `synthetic_batch` gives
    and on a workload whose data is not open; else on real batches.
    """

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self.settings = spec.settings

    def stage_data(self, folder: Path, staging: Path) -> None:
        """Copy what a run reads of `folder` to `staging`, on a node's own disk, unless it is there.

        One rank a node is asked to; `open_data` then reads samples from there (`spec.staging`) on all of them.

        Raises:
            DataError: if a file cannot be read; HpcAi500Error if one cannot be written.
        """
        raise SpecError(f"{type(self).__name__} stages no data", "run without --staging")

    @abstractmethod
    def open_data(self, folder: Path, ranks: "Ranks") -> DatasetInfo:
        """Find the data set. What takes time is read by rank 0 alone and broadcast.

        Raises:
            DataError: naming the file that is missing or wrong.
        """

    @abstractmethod
    def build_model(self) -> "nn.Module":
        """The model on the CPU, its parameters drawn from torch's global generator."""

    @abstractmethod
    def train_batches(self, batches: Sequence[Sequence[SampleKey]]) -> Iterable[Batch]:
        """One batch for each list of keys, in their order, as the data loader left them."""

    @abstractmethod
    def eval_batches(self, batches: Sequence[Sequence[int]]) -> Iterable[Batch]:
        """One batch for each list of places in the evaluation set, in their order."""

    @abstractmethod
    def synthetic_batch(self, num_samples: int, device: "torch.device", seed: int) -> Batch:
        """A random batch of the real shapes and types on `device`, for speed alone."""

    @abstractmethod
    def to_device(self, batch: Batch, device: "torch.device") -> Batch:
        """The batch on `device`, as the model takes it (normalised, in the memory format of the run)."""

    @abstractmethod
    def loss(self, model: "nn.Module", batch: Batch) -> "torch.Tensor":
        """The mean loss over the batch: a scalar that can be differentiated. Runs under autocast."""

    @abstractmethod
    def start_evaluation(self) -> None:
        """Forget what earlier evaluations gathered."""

    @abstractmethod
    def evaluate(self, model: "nn.Module", batch: Batch) -> None:
        """Gather what the quality needs from one batch, without waiting for the device."""

    @abstractmethod
    def evaluation_state(self) -> Any:
        """What this rank gathered: plain Python values, to be sent to rank 0."""

    @abstractmethod
    def quality(self, states: Sequence[Any]) -> Quality:
        """The quality over all ranks' states (rank 0 alone calls this)."""

    @classmethod
    def prepare_data(cls, problem: str, settings: Settings, source: Path | None, folder: Path) -> Iterator[str]:
        """Bring the data set of `source` into the layout that training reads, in `folder`; yields lines to print.

        Without a `source` the data set lies in `folder` already, or comes with a package.
        """
        raise SpecError(f"{cls.__name__} has nothing to prepare")

    @classmethod
    def synthesize_data(
        cls, problem: str, settings: Settings, folder: Path, *, num_samples: int | None, seed: int
    ) -> Iterator[str]:
        """Write a data set of the published layout, the same bytes for the same seed; yields lines to print."""
        raise SpecError(f"{cls.__name__} synthesizes no data")

    @classmethod
    def verify_data(cls, problem: str, settings: Settings, folder: Path) -> Iterator[str]:
        """Check every file; yields lines to print.

        Raises:
            DataError: for the first thing that makes the data set unusable.
        """
        raise SpecError(f"{cls.__name__} has nothing to verify")

    @classmethod
    def show_sample(
        cls, problem: str, settings: Settings, folder: Path, index: int, *, records: Any, layers: Sequence[str]
    ) -> "Image":
        """A picture of sample `index` of the evaluation set, of its channels `layers` (some choice where empty).

        `records` is what `quality` kept of a run's last evaluation, to be drawn beside the truth; or None.
        """
        raise SpecError(f"{cls.__name__} shows no samples")


def load_workload(folder: Path) -> type[Workload]:
    """The class `WORKLOAD` of `<folder>/workload.py`, imported as `<name>.workload`.

    The parent goes onto `sys.path`, so that processes which a data loader spawns can import it too.

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
