"""Operations of a step that need the host. On a GPU, each of them would wait for the device."""

import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hpcai500.launch.launcher import RankEnvironment
from hpcai500.ranks.torch_ranks import TorchRanks
from hpcai500.train.build import build
from hpcai500.train.journal import open_journal
from hpcai500.train.preemption import StopRequest
from hpcai500.train.resumption import Resumption
from hpcai500.train.workload import SampleKey, load_workload

_ANSWERS = {
    "aten::_local_scalar_dense", "aten::equal", "aten::is_nonzero", "aten::masked_select", "aten::nonzero",
    "aten::nonzero_numpy", "aten::unique_consecutive", "aten::_unique2", "torchvision::nms",
}  # fmt: skip
"""Operations whose result, or its shape, the host must know before it continues."""

_CONSTANT = "aten::lift_fresh"
"""torch.tensor(...): on its way to a GPU it would lie in pageable memory, whose copy waits."""

_ASSIGNMENTS = ("aten::index_put_", "aten::_index_put_impl_")


class HostReads(TorchDispatchMode):
    """Counts operations that wait for a GPU, inside and outside of the detector's data-dependent part."""

    def __init__(self):
        super().__init__()
        self.outside, self.inside = [], []
        self._constants = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        found = self.inside if _in_detection() else self.outside
        if name in _ANSWERS or name == _CONSTANT or _indexes_by_mask(name, args):
            found.append(name)
        if name in _ASSIGNMENTS and any(args[2] is constant for constant in self._constants):
            found.remove(_CONSTANT)  # the number of `x[...] = number`, which some releases make a tensor of first
        result = func(*args, **(kwargs or {}))
        self._constants = [result] if name == _CONSTANT else self._constants
        return result


def _indexes_by_mask(name, args):
    """Whether the host waits to learn how much a mask picks; to assign one number, a device fills by the mask."""
    if name not in ("aten::index", *_ASSIGNMENTS) or (name in _ASSIGNMENTS and args[2].numel() == 1):
        return False
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])


def _in_detection():
    frame = sys._getframe()
    while frame:
        if frame.f_code.co_name == "_detect":
            return True
        frame = frame.f_back
    return False


@pytest.fixture
def trainer(make_spec):
    """A trainer as a run builds it, with one rank, on random batches."""
    worlds, journals = [], []

    def make(workload, **overrides):
        small = {"problem.num_train_samples": 16, "problem.num_eval_samples": 4, "batch.global_batch_size": 4}
        small |= {"batch.micro_batch_size": 2, "problem.num_epochs": 2, "execution.num_flop_batches": 1}
        spec = make_spec(workload, data="synthetic", overrides=small | overrides)
        spec.write()
        if not worlds:
            worlds.append(TorchRanks(RankEnvironment(0, 1, 0, 1), spec.settings.execution.device))
        journals.append(open_journal(spec, rank=0))
        return build(spec, worlds[0], journals[-1], StopRequest(), Resumption())

    yield make
    for opened in (*journals, *worlds):
        opened.close()


def reads_of(trainer):
    with HostReads() as reads:
        trainer.train_epoch(1, 0.0)
    return reads


@pytest.mark.parametrize(("precision", "num_passes"), [("fp32", 2), ("bf16", 1)])
def test_an_epoch_of_image_classification_asks_nothing_of_the_device_but_its_mean_loss(
    trainer, precision, num_passes
):
    """Small pictures, few passes: processors without bf16 take seconds for one backward pass in it."""
    batch = 2 * num_passes
    settings = {"problem.num_train_samples": 4 * batch, "batch.global_batch_size": batch, "data.image_size": 16}
    reads = reads_of(trainer("image_classification", **settings, **{"execution.precision": precision}))
    assert reads.inside == []
    assert len(reads.outside) <= 3  # four steps: what is read is read once, at the end


def test_an_epoch_of_extreme_weather_asks_only_where_boxes_are_sampled_and_suppressed(trainer):
    few, many = (
        reads_of(trainer("extreme_weather", **{"problem.num_train_samples": samples})) for samples in (8, 16)
    )
    assert len(few.outside) == len(many.outside) <= 3
    # docs/design.md states these bounds: eight frames in four passes
    most = Counter({"torchvision::nms": 8 * 1, "aten::nonzero": 8 * 11, "aten::lift_fresh": 4 * 7})
    grown = Counter(many.inside) - Counter(few.inside)
    assert grown["torchvision::nms"] > 0  # the counter sees what the detector asks
    assert grown <= most, grown - most


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: torch's sync debug mode knows CUDA alone")
def test_on_a_gpu_no_step_waits_for_the_device(trainer):
    made = trainer("image_classification", **{"execution.device": "cuda", "execution.precision": "bf16"})
    batches = iter(made.workload.train_batches([[None] * 2] * 8))
    made.train_step(batches, 0.01)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            made.train_step(batches, 0.01)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_what_is_decoded_where_the_model_is_is_decoded_while_training_waits_for_data(make_spec):
    """The loop times how long it waits for `train_batches`; what `to_device` takes would pass for computation."""
    pytest.importorskip("nvidia.dali", reason="DALI is not installed: pip install hpcai500[dali]")
    spec = make_spec(overrides={"data.decoder": "dali"})
    workload = load_workload(Path(spec.workload.folder))(spec)
    list(workload.prepare_data("mini", spec.settings, None, Path(spec.data)))
    cpu = torch.device("cpu")
    one_rank = SimpleNamespace(rank=0, size=1, local_size=1, device=cpu, broadcast=lambda value: value)
    workload.open_data(Path(spec.data), one_rank)
    (batch,) = workload.train_batches([[SampleKey(1, 0), SampleKey(1, 1)]])
    assert batch.images.shape == (2, 3, 32, 32)
    (batch,) = workload.eval_batches([[0, 1, 2]])
    assert batch.images.shape == (3, 3, 32, 32)
