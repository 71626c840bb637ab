import threading

import pytest
import torch

from hpcai500.errors import SpecError
from hpcai500.launch.environment import Machine
from hpcai500.launch.launcher import RankStart
from hpcai500.launch.layout import Layout
from hpcai500.launch.start import Worker, start_command
from hpcai500.micro.collectives import NAMES, bus_factor, expected, measure_collectives, operand, random_base, read
from hpcai500.micro.launching import WORKER

BASE = torch.tensor([[10.0, 20.0, 30.0, 40.0, 50.0, 60.0]])


class ThreadRanks:
    """Ranks that are threads of this process, with collectives written by hand."""

    device = torch.device("cpu")

    def __init__(self, rank, size, shared):
        self.rank, self.size, self._shared = rank, size, shared

    def exchange(self, value):
        self._shared["box"][self.rank] = value
        self.barrier()
        found = list(self._shared["box"])
        self.barrier()
        return found

    def broadcast(self, value):
        return self.exchange(value)[0]

    def gather(self, value):
        found = self.exchange(value)
        return found if self.rank == 0 else []

    def barrier(self):
        self._shared["barrier"].wait(timeout=30)


class ByHand:
    """Collectives of `ThreadRanks`; `corrupt` changes one element of one operation's result on one rank."""

    def __init__(self, ranks, corrupt=None):
        self._ranks, self._corrupt = ranks, corrupt

    def _result(self, name, tensor):
        if self._corrupt == (name, self._ranks.rank):
            tensor = tensor.clone()
            tensor[-1] += 1.0
        return tensor

    def all_reduce(self, tensor):
        return self._result("all_reduce", torch.stack(self._ranks.exchange(tensor)).sum(0))

    def all_gather(self, tensor):
        return self._result("all_gather", torch.cat(self._ranks.exchange(tensor)))

    def broadcast(self, tensor):
        return self._result("broadcast", self._ranks.exchange(tensor)[0])

    def all_to_all(self, tensor):
        parts = [each.chunk(self._ranks.size)[self._ranks.rank] for each in self._ranks.exchange(tensor)]
        return self._result("all_to_all", torch.cat(parts))


def together(size, work):
    """Run `work(ranks)` on `size` ranks at once. Return each rank's result."""
    shared = {"box": [None] * size, "barrier": threading.Barrier(size)}
    results, errors = [None] * size, []

    def one(rank):
        try:
            results[rank] = work(ThreadRanks(rank, size, shared))
        except BaseException as error:
            errors.append(error)
            shared["barrier"].abort()

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def measure(size, corrupt=None, **options):
    def work(ranks):
        return measure_collectives(
            ranks, sizes=(8, 1000), budget_sec=0.1, operations=ByHand(ranks, corrupt), **options
        )

    return together(size, work)


@pytest.mark.parametrize(
    ("name", "of_two", "of_eight", "of_64"),
    [
        # n - 1 of n parts leave a rank; an all-reduce sends them twice; a broadcast leaves its root once
        ("all_reduce", 1.0, 1.75, 1.96875),
        ("all_gather", 0.5, 0.875, 0.984375),
        ("all_to_all", 0.5, 0.875, 0.984375),
        ("broadcast", 1.0, 1.0, 1.0),
    ],
)
def test_bus_bandwidth_is_algorithm_bandwidth_by_nccl_tests_factors(name, of_two, of_eight, of_64):
    assert [bus_factor(name, size) for size in (2, 8, 64)] == [of_two, of_eight, of_64]


def test_nccl_tests_published_lines_come_out_by_the_factor():
    # all_reduce_perf's size, time, algbw, busbw of 4 and of 16 GPUs, as users posted them
    for size, microseconds, algorithm, bus, num_ranks in (
        (4_218_900, 1011.4, 4.17, 6.26, 4),
        (32_768, 184.8, 0.18, 0.33, 16),
    ):
        bandwidth = size / (microseconds * 1e-6) / 1e9
        assert bandwidth == pytest.approx(algorithm, abs=0.005)
        assert bandwidth * bus_factor("all_reduce", num_ranks) == pytest.approx(bus, abs=0.005)


def test_expected_results_by_hand_for_three_ranks():
    # rank r gives base + r
    assert operand("all_reduce", BASE, 2, 3).tolist() == [[12, 22, 32, 42, 52, 62]]
    assert expected("all_reduce", BASE, 0, 3).tolist() == [[33, 63, 93, 123, 153, 183]]
    assert expected("broadcast", BASE, 2, 3).tolist() == [[10, 20, 30, 40, 50, 60]]
    # its first third, of each rank
    assert operand("all_gather", BASE, 1, 3).tolist() == [[11, 21]]
    assert expected("all_gather", BASE, 1, 3).tolist() == [[10, 20, 11, 21, 12, 22]]
    # sender s gives receiver d its part, plus 3 s, plus d
    assert operand("all_to_all", BASE, 1, 3).tolist() == [[13, 23, 34, 44, 55, 65]]
    assert expected("all_to_all", BASE, 1, 3).tolist() == [[31, 41, 34, 44, 37, 47]]


def test_sums_of_the_largest_values_of_4000_ranks_are_whole_in_float32():
    size = 4000
    total = 255 * size + size * (size - 1) // 2
    assert total < 2**24
    assert int(torch.tensor(float(total), dtype=torch.float32)) == total


@pytest.mark.parametrize("name", NAMES)
def test_right_collectives_are_found_right_on_any_number_of_ranks(name):
    for size in (2, 3):
        readings = together(size, lambda r: read(r, ByHand(r), name, 12, 3, seed=5))
        assert [each.wrong for each in readings] == [False] * size


@pytest.mark.parametrize("name", NAMES)
def test_a_corrupted_collective_and_the_rank_that_got_it_are_named(name):
    findings = measure(3, corrupt=(name, 1))
    wrong = {sample.metric.rpartition("_sec")[0] for sample in findings[0].samples if not sample.correct}
    assert {metric[: len(name)] for metric in wrong if metric} == {name}
    assert all("wrong on rank(s) 1" in s.detail for s in findings[0].samples if not s.correct)
    assert {s.wrong_ranks for s in findings[0].samples} == {(1,), ()}
    assert all(s.correct == (not s.wrong_ranks) for s in findings[0].samples)
    assert all(s.correct for s in findings[0].samples if not s.metric.startswith(name))
    assert findings[0] == findings[1] == findings[2]


def test_each_size_gives_a_time_and_a_bandwidth_that_follow_from_each_other():
    findings = measure(2, names=("all_reduce", "all_gather"))[0]
    by_metric = {sample.metric: sample for sample in findings.samples}
    assert list(by_metric) == [
        "all_reduce_8_sec", "all_reduce_8_bus_bytes_per_sec", "all_reduce_1000_sec",
        "all_reduce_1000_bus_bytes_per_sec", "all_gather_8_sec", "all_gather_8_bus_bytes_per_sec",
        "all_gather_1000_sec", "all_gather_1000_bus_bytes_per_sec",
    ]  # fmt: skip
    seconds, bandwidth = by_metric["all_gather_1000_sec"], by_metric["all_gather_1000_bus_bytes_per_sec"]
    assert bandwidth.value == pytest.approx(1000 / seconds.value * 0.5)
    assert (seconds.better, bandwidth.better) == ("lower", "higher")
    assert {(s.part, s.family, s.size_bytes) for s in findings.samples} == {
        ("collectives", name, size) for name in ("all_reduce", "all_gather") for size in (8, 1000)
    }


def test_one_rank_alone_has_no_collectives():
    findings = measure_collectives(ThreadRanks(0, 1, {}), budget_sec=1.0)
    assert [skipped.name for skipped in findings.skipped] == list(NAMES)
    with pytest.raises(SpecError, match="did you mean 'all_reduce'"):
        measure_collectives(ThreadRanks(0, 1, {}), budget_sec=1.0, names=("allreduce",))


def test_every_call_has_operands_of_its_own():
    base = random_base(64, 5, seed=3, device=torch.device("cpu"))
    assert len({tuple(row.tolist()) for row in base}) == 5
    assert base.min() >= 0
    assert base.max() <= 255


def planned(tmp_path, env, *, in_allocation=False, **layout):
    worker = Worker(WORKER, (str(tmp_path / "request.json"),))
    step = RankStart(Layout(procs_per_node=4, **layout), in_allocation=in_allocation)
    return start_command(worker, step, Machine("py", env, frozenset(range(4))))


@pytest.mark.parametrize(
    ("backend", "launcher", "head"),
    [
        ("torch", "local", ["py", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4", "--module"]),
        ("horovod", "horovodrun", ["py", "-m", "horovod.runner.launch", "-np", "4", "-H", "localhost:4"]),
        ("mpi", "mpirun", ["mpirun", "-np", "4", "--map-by", "ppr:4:node:oversubscribe"]),
        ("torch", "mpirun", ["mpirun", "-np", "4", "--map-by", "ppr:4:node:oversubscribe"]),
    ],
)
def test_ranks_are_started_by_the_launchers_of_runs(tmp_path, backend, launcher, head):
    made = planned(tmp_path, {"RANK": "3", "HOME": "/h"}, backend=backend, launcher=launcher)
    assert list(made.argv[: len(head)]) == head
    assert made.argv[-2:] == ("hpcai500.micro.worker", str(tmp_path / "request.json"))
    assert "RANK" not in made.env
    assert made.env["HOME"] == "/h"


def test_in_an_allocation_srun_starts_them_on_all_nodes(tmp_path):
    env = {"SLURM_CPUS_PER_TASK": "3", "SLURM_CPU_BIND": "stale", "PMI_RANK": "1"}
    made = planned(tmp_path, env, in_allocation=True, launcher="srun", nodes=2)
    assert made.argv[:4] == ("srun", "--nodes=2", "--ntasks=8", "--ntasks-per-node=4")
    assert made.env == {"SLURM_CPUS_PER_TASK": "3", "SRUN_CPUS_PER_TASK": "3"}
