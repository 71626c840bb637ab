"""Launchers together: threads, a new launcher in one file, and the launcher of a node's own ranks."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import hpcai500
from hpcai500.launch.environment import Machine
from hpcai500.launch.launcher import RankEnvironment, RankStart, StartCommand
from hpcai500.launch.launchers.per_node import rank_variables
from hpcai500.launch.layout import Layout, layout_of
from hpcai500.launch.registry import find_launcher, launchers
from hpcai500.launch.start import Worker, start_command, training_worker
from hpcai500.micro.launching import WORKER
from hpcai500.ranks.placement import num_threads
from hpcai500.spec.site import Site
from hpcai500.system.cores import physical_cores
from hpcai500.validate.conduct.script import agent_site, agent_worker, agents_step

TINY = Path(__file__).parents[2] / "integration" / "tiny"


@pytest.fixture
def hyper_threads(tmp_path):
    """Four cores of two logical CPUs each."""
    for cpu in range(8):
        folder = tmp_path / "topology" / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text("0\n")
        (folder / "core_id").write_text(f"{cpu % 4}\n")
    return tmp_path / "topology"


def starts(make_spec, tmp_path, machine: Machine) -> dict[str, StartCommand]:
    """The environment from every part of the product that starts processes, on a node with one rank."""
    together = layout_of(make_spec(launcher="per-node", nodes=2))
    collectives = Worker(WORKER, ("request.json",))
    agents = agents_step(agent_site(Site(), partition="", minutes=1, nodes=""), tmp_path, 2)
    return {
        "run": start_command(training_worker(make_spec()), RankStart(Layout()), machine),
        "micro": start_command(collectives, RankStart(Layout(launcher="mpirun", backend="mpi")), machine),
        "validate's training, alone": start_command(training_worker(make_spec()), RankStart(Layout()), machine),
        "validate's training, together": start_command(
            training_worker(make_spec()), RankStart(together, name="s"), machine
        ),
        "agents": start_command(agent_worker(tmp_path), agents, machine),
        "agent here": start_command(agent_worker(tmp_path, "n1"), RankStart(Layout()), machine),
    }


def test_a_rank_has_a_thread_for_each_physical_core_whoever_starts_it(make_spec, tmp_path, hyper_threads):
    machine = Machine("python3", {"PATH": "/bin"}, frozenset(range(8)), topology=hyper_threads)
    threads = {name: made.env.get("OMP_NUM_THREADS") for name, made in starts(make_spec, tmp_path, machine).items()}
    cores = physical_cores(range(8), hyper_threads)
    # validate's collectives, and ranks on other nodes, count for themselves
    threads["a rank by itself"] = str(num_threads({}, cores, sharers=1, local_size=1))
    assert threads == {
        "run": "4", "micro": "4", "validate's training, alone": "4", "validate's training, together": "4",
        "agents": None, "agent here": None, "a rank by itself": "4",
    }  # fmt: skip


def test_ranks_that_share_a_node_share_its_cores_by_either_count(hyper_threads):
    cores = physical_cores(range(8), hyper_threads)
    made = start_command(
        Worker(WORKER, ()),
        RankStart(Layout(procs_per_node=2)),
        Machine("p", {}, frozenset(range(8)), topology=hyper_threads),
    )
    assert made.env["OMP_NUM_THREADS"] == "2" == str(num_threads({}, cores, sharers=2, local_size=2))


@pytest.mark.parametrize(
    ("cpus_on_node", "local_size", "expected"), [("8", 1, 4), ("4", 1, 2), ("4", 2, 1), ("1", 1, 1), ("", 1, 4)]
)
def test_a_rank_takes_no_more_than_slurm_gave_though_it_sees_all_cores(
    hyper_threads, cpus_on_node, local_size, expected
):
    env = {"SLURM_CPUS_ON_NODE": cpus_on_node}
    cores = physical_cores(range(8), hyper_threads)
    assert num_threads(env, cores, sharers=1, local_size=local_size) == expected


def documented_launcher() -> str:
    """The launcher that CONTRIBUTING.md shows."""
    text = (Path(__file__).parents[3] / "CONTRIBUTING.md").read_text()
    blocks: list[str] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (found,) = [block for block in blocks if "(Launcher)" in block]
    return found


@pytest.mark.slow
def test_a_launcher_of_one_s_own_is_one_file_of_the_package(tmp_path):
    package = tmp_path / "code" / "hpcai500"
    shutil.copytree(Path(hpcai500.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("workloads", "slurm"):
        (tmp_path / "code" / folder).symlink_to(Path(hpcai500.__file__).parents[1] / folder)
    (package / "launch" / "launchers" / "shell.py").write_text(documented_launcher())
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "code"), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}

    def command(*arguments) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "hpcai500.cli.main", *map(str, arguments)]
        return subprocess.run(words, env=env, capture_output=True, text=True, timeout=240, check=False, cwd=tmp_path)

    listed = json.loads(command("list", "--json").stdout)
    assert {"name": "shell", "missing": []} in listed["launchers"]
    (tmp_path / "data").mkdir()
    done = command(
        "run", TINY, "--problem", "mini", "--data", tmp_path / "data", "--output", tmp_path / "results", "--system",
        "box", "--launcher", "shell", "--procs-per-node", "2", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)
    assert (result["status"], result["identity"]["world_size"]) == ("success", 2)
    refused = command("run", TINY, "--problem", "mini", "--backend", "horovod", "--launcher", "shell")
    assert refused.returncode == 2
    assert "launcher shell starts no ranks of backend horovod" in refused.stderr


def test_each_launcher_reads_the_place_that_it_tells():
    own = dict(zip(range(2), rank_variables(2, 2, 4, "s"), strict=True))
    assert find_launcher("per-node").require_rank_environment(own[1]) == RankEnvironment(3, 4, 1, 2, "s")
    assert find_launcher("per-node").rank(own[1]) == 3
    assert list(launchers()) == sorted(launchers())


def starter(tmp_path, script: str, *, num_ranks: int = 2) -> subprocess.Popen[bytes]:
    """The per-node launcher, with ranks that run `script`."""
    step = RankStart(Layout(launcher="per-node", procs_per_node=num_ranks), name="s", python=sys.executable)
    argv = find_launcher("per-node").argv(step, ("bash", "-c", script))
    return subprocess.Popen(argv, cwd=tmp_path)


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ('[ "$HPCAI500_RANK" = 0 ] && exit 3; exec sleep 60', 3), ("kill -9 $$", 137)],
)
def test_the_ranks_of_a_node_end_together_with_the_code_of_the_first_that_fails(tmp_path, script, code):
    assert starter(tmp_path, script).wait(30) == code


def test_a_stop_of_a_node_s_starter_reaches_its_ranks(tmp_path):
    script = f"trap 'exit 75' TERM; touch {tmp_path}/up$HPCAI500_RANK; while :; do sleep 0.05; done"
    process = starter(tmp_path, script)
    while len(list(tmp_path.glob("up*"))) < 2:
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 75
