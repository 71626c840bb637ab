"""Ranks as each launcher starts them: the threads they compute with, and the cores they may use while they train."""

import json
import os
from pathlib import Path

import pytest

from hpcai500.cli.main import main
from hpcai500.launch.requirements import missing
from hpcai500.system.cores import physical_cores

TINY = Path(__file__).parent / "tiny"
CORES = physical_cores(os.sched_getaffinity(0))


def placement(data, results, num_ranks):
    """Threads and cores of each rank of a run, and Layer 6 of the node."""
    found = [json.loads((data / "cores" / str(rank)).read_text()) for rank in range(num_ranks)]
    (path,) = results.rglob("system.json")
    return found, json.loads(path.read_text())["nodes"][0]["layers"]["6"]


@pytest.fixture
def placed(hpcai500, tmp_path, monkeypatch):
    """The placement of a run's ranks."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def call(num_ranks, *arguments):
        (tmp_path / "cores").mkdir()
        code, _, err = hpcai500(
            "run", TINY, "--problem", "mini", "--data", tmp_path, "--output", tmp_path / "results", "--system", "box",
            "--procs-per-node", num_ranks, "--unranked", "--set", "problem.num_epochs=2", *arguments,
        )  # fmt: skip
        assert code == 0, err
        return placement(tmp_path, tmp_path / "results", num_ranks)

    return call


@pytest.mark.skipif(len(CORES) < 2, reason="one core cannot be shared out")
@pytest.mark.parametrize(
    ("backend", "launcher"), [("torch", "local"), ("torch", "mpirun"), ("horovod", "horovodrun")]
)
def test_two_ranks_have_half_the_cores_each_and_a_thread_on_each_core(launched, placed, backend, launcher):
    lacks = dict(missing(backend, launcher))
    if lacks:
        pytest.skip(f"not installed: {', '.join(lacks)}")
    if launcher == "local":
        ranks, layer = placement(launched.tiny.data, launched.tiny.output, 2)
    else:
        ranks, layer = placed(2, "--backend", backend, "--launcher", launcher)
    half = len(CORES) // 2
    assert [threads for threads, _ in ranks] == [half, half]
    own = [set(cpus) for _, cpus in ranks]
    assert own[0].isdisjoint(own[1])
    assert all(len(physical_cores(cpus)) == half for cpus in own)
    assert (layer["device"], layer["num_threads"], layer["num_cores"], layer["is_bound"]) == ("cpu", half, half, True)


def test_ranks_that_outnumber_the_cores_compute_with_one_thread_each(placed):
    num_ranks = len(CORES) + 1
    ranks, layer = placed(num_ranks, "--set", f"batch.global_batch_size={num_ranks}")
    assert [threads for threads, _ in ranks] == [1] * num_ranks
    assert not layer["is_bound"]


@pytest.mark.skipif(len(CORES) < 2, reason="one core cannot be shared out")
def test_more_threads_than_cores_are_told_to_whoever_starts_the_run(launched, tiny, monkeypatch, capfd):
    monkeypatch.setenv("OMP_NUM_THREADS", str(len(CORES)))
    assert main(tiny.command()) == 0
    assert "warning" not in launched.done.stdout
    assert f"warning: each rank has {len(CORES)} threads on {len(CORES) // 2} core" in capfd.readouterr().out
