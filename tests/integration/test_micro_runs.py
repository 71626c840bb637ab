"""The commands as a user starts them, with real ranks."""

import json
from pathlib import Path

import pytest

from hpcai500.cli.main import main
from hpcai500.launch.requirements import missing

TINY = Path(__file__).parent / "tiny"
SIZES = (8, 65536, 4 << 20)
NAMES = ("all_reduce", "all_gather", "broadcast", "all_to_all")


@pytest.fixture(scope="module")
def collectives(tmp_path_factory):
    """The output of `--json` for each way to start ranks, and the files that they left."""
    found = {}

    def measure(backend, launcher, num_ranks):
        way = (backend, launcher, num_ranks)
        if way not in found:
            folder = tmp_path_factory.mktemp("collectives")
            output = folder / "micro.json"
            (folder / "left").mkdir()
            command = [
                "micro", "--only", "collectives", "--device", "cpu", "--backend", backend, "--launcher", launcher,
                "--procs-per-node", num_ranks, "--sizes", ",".join(map(str, SIZES)), "--budget-sec", 2,
                "--folder", folder / "left", "--output", output,
            ]  # fmt: skip
            assert main([str(word) for word in command]) == 0
            found[way] = json.loads(output.read_text()), list((folder / "left").iterdir())
        return found[way]

    return measure


@pytest.mark.parametrize(
    ("backend", "launcher", "num_ranks"),
    [("torch", "local", 2), ("torch", "mpirun", 2), ("horovod", "horovodrun", 2), ("mpi", "mpirun", 3)],
)
def test_real_ranks_measure_collectives_and_find_them_right(collectives, backend, launcher, num_ranks):
    lacking = list(missing("torch" if backend == "mpi" else backend, launcher))
    if lacking:
        pytest.skip(f"not installed: {lacking[0][0]}")
    found, left = collectives(backend, launcher, num_ranks)
    assert (found["backend"], found["num_ranks"], found["nodes"]) == (backend, num_ranks, 1)
    metrics = [sample["metric"] for sample in found["samples"]]
    assert metrics == [
        f"{name}_{size}_{of}" for name in NAMES for size in SIZES for of in ("sec", "bus_bytes_per_sec")
    ]
    assert all(sample["correct"] and sample["value"] > 0 for sample in found["samples"])
    assert left == []


def test_what_micro_measured_is_the_network_that_predict_takes(collectives, hpcai500, short_run, tmp_path):
    measured, _ = collectives("torch", "local", 2)
    (tmp_path / "micro.json").write_text(json.dumps(measured))
    options = ("--nodes", "1,4", "--network", tmp_path / "micro.json", "--json")
    run = short_run("image_classification", 2)
    code, out, err = hpcai500("predict", run, *options, "--bandwidth-gb-s", "10")
    assert code == 0, err
    network = json.loads(out)["network"]
    assert network["likely"]["between"]["bytes_per_sec"] == pytest.approx(10e9)
    for size in SIZES:
        (sec,) = [each["value"] for each in measured["samples"] if each["metric"] == f"all_reduce_{size}_sec"]
        # a ring of two sends half and receives half, twice
        fast, slow = (
            2 * (network[at]["within"]["latency_sec"] + size / 2 / network[at]["within"]["bytes_per_sec"])
            for at in ("fast", "slow")
        )
        assert fast * 0.999 <= sec <= slow * 1.001
    # the same file as if its ranks had been a node each
    (tmp_path / "micro.json").write_text(json.dumps({**measured, "nodes": 2}))
    code, out, err = hpcai500("predict", run, *options)
    assert code == 0, err
    assert json.loads(out)["network"]["likely"]["between"] == network["likely"]["within"]


def test_a_roofline_from_ceilings_of_a_file_and_its_plot(hpcai500, tmp_path):
    ceilings, plot = tmp_path / "ceilings.json", tmp_path / "roofline.svg"
    code, _, err = hpcai500(
        "micro", "--only", "kernels", "--device", "cpu", "--precisions", "fp32", "--budget-sec", "3",
        "--output", ceilings,
    )  # fmt: skip
    assert code == 0, err
    code, out, err = hpcai500(
        "roofline", "--workload", TINY, "--device", "cpu", "--ceilings", ceilings, "--budget-sec", "2",
        "--plot", plot,
    )  # fmt: skip
    assert code == 0, err
    assert "bounds it" in out
    assert "tiny mini fp32" in plot.read_text()


def test_a_pair_of_three_ranks_measures_alone(tmp_path):
    """Started by torchrun, ranks 0 and 2 form a group, and rank 1 does not wait for them."""
    import subprocess
    import sys

    script = tmp_path / "pair.py"
    script.write_text(
        "from hpcai500.micro.collectives import measure_collectives\n"
        "from hpcai500.ranks.subset import subset\n"
        "from hpcai500.launch.registry import find_launcher\n"
        "from hpcai500.ranks.torch_ranks import TorchRanks\n"
        "import os\n"
        "ranks = TorchRanks(find_launcher('local').require_rank_environment(os.environ), 'cpu')\n"
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
