"""The commands as a user starts them, with real ranks."""

import json

import pytest

from hpcai500.launch.software import missing

NAMES = ("all_reduce", "all_gather", "broadcast", "all_to_all")


@pytest.mark.parametrize(
    ("backend", "launcher", "num_ranks"),
    [("torch", "local", 2), ("torch", "mpirun", 2), ("horovod", "horovodrun", 2), ("mpi", "mpirun", 3)],
)
def test_real_ranks_measure_collectives_and_find_them_right(hpcai500_process, tmp_path, backend, launcher, num_ranks):
    lacking = list(missing("torch" if backend == "mpi" else backend, launcher))
    if lacking:
        pytest.skip(f"not installed: {lacking[0][0]}")
    done = hpcai500_process(
        "micro", "--only", "collectives", "--device", "cpu", "--backend", backend, "--launcher", launcher,
        "--procs-per-node", num_ranks, "--sizes", "8,65536", "--budget-sec", "2", "--folder", tmp_path, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["backend"], found["num_ranks"], found["nodes"]) == (backend, num_ranks, 1)
    metrics = [sample["metric"] for sample in found["samples"]]
    assert metrics == [
        f"{name}_{size}_{of}" for name in NAMES for size in (8, 65536) for of in ("sec", "bus_bytes_per_sec")
    ]
    assert all(sample["correct"] and sample["value"] > 0 for sample in found["samples"])
    assert list(tmp_path.iterdir()) == []


def test_a_roofline_from_ceilings_of_a_file_and_its_plot(hpcai500_process, tmp_path):
    ceilings, plot = tmp_path / "ceilings.json", tmp_path / "roofline.svg"
    done = hpcai500_process(
        "micro", "--only", "kernels", "--device", "cpu", "--precisions", "fp32", "--budget-sec", "3",
        "--output", ceilings,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = hpcai500_process(
        "roofline", "--workload", "image_classification", "--device", "cpu", "--ceilings", ceilings, "--budget-sec",
        "2", "--plot", plot,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "bounds it" in done.stdout
    assert "image_classification mini fp32" in plot.read_text()


def test_a_pair_of_three_ranks_measures_alone(tmp_path):
    """By torchrun: ranks 0 and 2 form a group, rank 1 does not wait for them."""
    import subprocess
    import sys

    script = tmp_path / "pair.py"
    script.write_text(
        "from hpcai500.micro.collectives import measure_collectives\n"
        "from hpcai500.micro.subset import subset\n"
        "from hpcai500.train.environment import read_environment\n"
        "from hpcai500.train.ranks import TorchRanks\n"
        "import os\n"
        "ranks = TorchRanks(read_environment('local', os.environ), 'cpu')\n"
        "if ranks.rank != 1:\n"
        "    with subset(ranks, (0, 2)) as pair:\n"
        "        found = measure_collectives(pair, sizes=(64,), budget_sec=0.2)\n"
        "        assert found.correct and len(found.samples) == 8\n"
        "        os.write(1, f'rank {pair.rank} of {pair.size}\\n'.encode())  # in one piece\n"
        "ranks.barrier()\n"
        "ranks.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3", script],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(line for line in done.stdout.splitlines() if line) == ["rank 0 of 2", "rank 1 of 2"]
