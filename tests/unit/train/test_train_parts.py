import json

import pytest
import torch
from torch import nn

from hpcai500.errors import DataError, InputError, MachineError, SpecError
from hpcai500.ranks.torch_ranks import average_buffers, choose_device
from hpcai500.score.record.nodes import group_nodes
from hpcai500.system.capture import capture_node
from hpcai500.train.energy import CounterName, EnergyMeter, MissingCounter, coverage
from hpcai500.train.loading import Loader, choose_num_workers
from hpcai500.train.workload import load_workload

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("wanted", "num_gpus", "local_rank", "local_size", "device"),
    [
        ("auto", 0, 1, 2, "cpu"),
        ("cpu", 8, 1, 2, "cpu"),
        ("auto", 8, 3, 8, "cuda:3"),
        ("cuda", 2, 1, 2, "cuda:1"),
    ],
)
def test_each_rank_gets_its_device(wanted, num_gpus, local_rank, local_size, device):
    assert choose_device(wanted, num_gpus, local_rank, local_size) == torch.device(device)


def test_two_ranks_on_one_gpu_and_a_gpu_where_there_is_none_are_refused():
    with pytest.raises(
        InputError, match="2 ranks on a node with 1 GPU: NCCL takes one rank per GPU; use --procs-per-n"
    ):
        choose_device("auto", 1, 0, 2)
    with pytest.raises(MachineError, match="torch finds no GPU"):
        choose_device("cuda", 0, 0, 1)


def test_rapl_counts_all_packages_and_survives_a_wrap(tmp_path):
    domains = [tmp_path / "intel-rapl:0", tmp_path / "intel-rapl:1"]
    for domain in domains:
        domain.mkdir()
        (domain / "energy_uj").write_text("9000000")
        (domain / "max_energy_range_uj").write_text("9999999")
    (tmp_path / "intel-rapl:0:0").mkdir()  # a part of package 0: not counted again
    meter = EnergyMeter(CPU, node_leader=True, rapl=tmp_path)
    assert meter.sources == ["rapl"]
    (domains[0] / "energy_uj").write_text("9500000")
    (domains[1] / "energy_uj").write_text("1000000")  # wrapped: 1 s to the end of the register, 1 after
    assert meter.joules_since_last() == pytest.approx(0.5 + 2.0)
    assert meter.joules_since_last() == 0


def test_a_machine_without_counters_says_so(tmp_path):
    meter = EnergyMeter(CPU, node_leader=True, rapl=tmp_path)
    assert meter.sources == []
    assert [str(reason) for reason in meter.missing] == [f"RAPL: no counters under {tmp_path}"]
    assert EnergyMeter(CPU, node_leader=False, rapl=tmp_path).missing == []


def test_energy_is_complete_if_every_rank_that_should_has_the_counter_that_matters():
    no_nvml, no_rapl = MissingCounter("nvml", "see nvml, or rapl"), MissingCounter("rapl", "/nvml: denied")
    both: list[CounterName] = ["nvml", "rapl"]
    assert coverage([(both, []), (["nvml"], [])], "cuda") == (("nvml", "rapl"), (), True)
    assert coverage([(both, [no_rapl])], "cuda").is_complete  # a reason that names the other counter's file
    assert not coverage([(both, [no_rapl])], "cpu").is_complete
    assert not coverage([(both, []), ([], [no_nvml])], "cuda").is_complete
    assert coverage([(["rapl"], [no_nvml]), ([], [])], "cpu").is_complete
    assert not coverage([([], [])], "cpu").is_complete


class TwoRanks:
    """Replaces a second rank whose buffers are all 3."""

    size = 2

    def sum(self, tensor):
        return tensor + 3.0


def test_buffers_are_averaged_and_counters_left_alone():
    norm = nn.BatchNorm1d(2)
    norm.running_mean.fill_(1.0)
    average_buffers(TwoRanks(), norm)
    assert norm.running_mean.tolist() == [2.0, 2.0]
    assert norm.running_var.tolist() == [2.0, 2.0]
    assert norm.num_batches_tracked == 0


def test_a_loader_raises_the_error_that_its_reader_raised():
    def read(keys):
        if 3 in keys:
            raise DataError("sample 3 is broken")
        return keys

    loader = Loader(read, num_workers=0, pin_memory=False)
    assert list(loader.read([[0, 1], [2]])) == [[0, 1], [2]]
    with pytest.raises(DataError, match="sample 3"):
        list(loader.read([[3]]))


def test_loader_processes_use_the_cores_that_ranks_with_gpus_leave_idle(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(12)))
    assert [choose_num_workers(-1, torch.device("cuda"), size) for size in (1, 2, 4, 12)] == [8, 5, 2, 0]
    assert choose_num_workers(3, CPU, 12) == 3


def test_beside_threads_that_train_stands_one_loader_and_beside_one_thread_none(monkeypatch):
    for threads, loaders in ((1, 0), (2, 1), (48, 1), (96, 3), (512, 8)):
        monkeypatch.setattr("torch.get_num_threads", lambda threads=threads: threads)
        assert choose_num_workers(-1, CPU, 1) == loaders


def test_a_folder_without_a_workload_class_is_refused(tmp_path):
    folder = tmp_path / "no_class"
    folder.mkdir()
    (folder / "workload.py").write_text("x = 1\n")
    with pytest.raises(SpecError, match=r"no_class/workload\.py: .*WORKLOAD"):
        load_workload(folder)


def test_system_capture_is_json_and_holds_no_variable_but_the_allowed(make_spec, monkeypatch):
    monkeypatch.setenv("MY_SECRET_TOKEN", "hunter2")
    monkeypatch.setenv("NCCL_DEBUG", "WARN")
    node = capture_node(make_spec(), {"num_threads": 2})
    text = json.dumps(node)
    assert "hunter2" not in text
    assert node["layers"]["3"]["environment"]["NCCL_DEBUG"] == "WARN"
    assert node["layers"]["1"]["memory_bytes"] > 2**30
    assert node["layers"]["5"]["torch"] == torch.__version__
    assert sorted(node["layers"]) == list("123456")


def test_equal_nodes_are_stored_once_and_the_odd_one_stands_last():
    def node(host, kernel):
        return {"host": host, "layers": {"2": {"kernel": kernel}}}

    system = group_nodes([node("a", "6.1"), node("b", "6.0"), node("c", "6.1")])
    assert [(group["count"], group["hosts"]) for group in system["nodes"]] == [(2, ["a", "c"]), (1, ["b"])]
