from pathlib import Path

import pytest
import torch

from hpcai500.launch.launcher import RankEnvironment
from hpcai500.ranks.torch_ranks import TorchRanks
from hpcai500.train.synthetic import SyntheticData
from hpcai500.train.workload import Workload, load_workload

NOT_OF_A_RUN = {"prepare_data", "synthesize_data", "verify_data", "show_sample", "stage_data"}


@pytest.fixture
def workload(make_spec):
    spec = make_spec(data="synthetic")
    inner = load_workload(Path(spec.workload.folder))(spec)
    ranks = TorchRanks(RankEnvironment(0, 1, 0, 1), "cpu")
    synthetic = SyntheticData(inner)
    synthetic.open_data(Path(spec.data), ranks)
    yield synthetic
    ranks.close()


def test_steps_share_one_batch_and_evaluation_gets_one_of_each_size(workload):
    first, second = workload.train_batches([[None] * 32] * 2)
    assert first is second
    assert first.images.shape == (32, 3, 32, 32)
    assert [len(batch.labels) for batch in workload.eval_batches([range(32), range(32, 40)])] == [32, 8]


def test_all_that_a_run_asks_of_a_workload_is_passed_on(workload):
    asked = {name for name in vars(Workload) if callable(getattr(Workload, name)) and not name.startswith("_")}
    assert asked - NOT_OF_A_RUN <= set(vars(SyntheticData))
    assert workload.static_shapes
    model = workload.build_model().eval()
    (batch,) = workload.eval_batches([range(4)])
    workload.start_evaluation()
    with torch.no_grad():
        workload.evaluate(model, workload.to_device(batch, torch.device("cpu")))
    assert workload.quality([workload.evaluation_state()]).details["num_samples"] == 4
