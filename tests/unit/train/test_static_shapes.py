"""FLOPs counted on tensors without memory are those that real batches need."""

import shutil
from pathlib import Path

import pytest
import torch

from hpcai500.errors import SpecError
from hpcai500.launch.launcher import RankEnvironment
from hpcai500.ranks.torch_ranks import TorchRanks
from hpcai500.spec.reference import find_reference
from hpcai500.spec.workload import load_rules, shipped_workloads
from hpcai500.train.build import count_flops, count_on_data, count_on_meta
from hpcai500.train.structure import structure_of
from hpcai500.train.synthetic import SyntheticData
from hpcai500.train.workload import load_workload

CPU = torch.device("cpu")
PROBLEMS = [(folder.name, problem) for folder in shipped_workloads() for problem in load_rules(folder).problems]
SMALL = {"batch.global_batch_size": 2, "batch.micro_batch_size": 2, "execution.precision": "fp32"}


@pytest.fixture
def ranks():
    alone = TorchRanks(RankEnvironment(0, 1, 0, 1), "cpu")
    yield alone
    alone.close()


def opened(spec, ranks):
    """The workload of `spec` on the digits if it asks for data, else on random batches."""
    workload = load_workload(Path(spec.workload.folder))(spec)
    if spec.is_synthetic:
        workload = SyntheticData(workload)
    else:
        list(workload.prepare_data(spec.problem, spec.settings, None, Path(spec.data)))
    workload.open_data(Path(spec.data), ranks)
    return workload


@pytest.mark.parametrize(("name", "problem"), PROBLEMS)
def test_a_shipped_problem_is_counted_without_data_as_with_it_or_cannot_be(make_spec, ranks, tmp_path, name, problem):
    data = str(tmp_path / "data") if (name, problem) == ("image_classification", "mini") else "synthetic"
    spec = make_spec(name, SMALL, problem=problem, data=data)
    workload = opened(spec, ranks)
    model = workload.build_model().train()
    if not workload.static_shapes:
        with pytest.raises(SpecError, match="set static_shapes = False"):
            count_on_meta(workload, model, CPU)
        return
    known = find_reference(load_rules(Path(spec.workload.folder)).benchmark, problem).known
    on_meta, on_data = count_on_meta(workload, model, CPU), count_on_data(workload, model, CPU)
    assert on_meta == on_data
    assert structure_of(model, on_meta.layers) == structure_of(model, on_data.layers)
    assert on_meta.event().value.model_dump() == {
        "mean": known.flops_per_sample,
        "standard_deviation": 0.0,
        "num_batches": 1,
    }


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_precision_changes_no_count(make_spec, ranks, precision):
    spec = make_spec(overrides=SMALL | {"execution.precision": precision}, data="synthetic")
    workload = opened(spec, ranks)
    known = find_reference("resnet", "mini").known
    assert count_flops(workload, workload.build_model(), ranks).mean == known.flops_per_sample


def test_the_model_stays_where_it_is(make_spec, ranks):
    workload = opened(make_spec(overrides=SMALL, data="synthetic"), ranks)
    model = workload.build_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count_flops(workload, model, ranks)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert next(iter(workload.train_batches([[None]]))).images.device == CPU


def test_a_loss_that_needs_values_is_told_to_take_real_batches(make_spec, ranks, tmp_path):
    tiny = Path(__file__).parents[2] / "integration" / "tiny"
    folder = tmp_path / "reads_values"
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "workload.py").open("a") as code:
        code.write("\n\nTiny.static_shapes = True\n")
        code.write("Tiny.loss = lambda self, model, batch: model(batch[0]).sum().item()\n")
    workload = opened(make_spec(folder, {}, data="synthetic", unranked=True), ranks)
    with pytest.raises(SpecError, match=r"reads_values: FLOPs cannot .*; set static_shapes = False") as raised:
        count_flops(workload, workload.build_model(), ranks)
    assert raised.value.exit_code == 2
