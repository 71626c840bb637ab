"""The fixture `cluster`: a real Slurm, from slurm/testbed."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from desk import Desk

TESTBED = Path(__file__).parents[2] / "slurm/testbed/testbed.py"
OF_A_JOB = ("SLURM_", "SBATCH_", "SRUN_", "SQUEUE_", "SACCT_", "PMI")
FINAL = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT"}


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("slurm")
            item.add_marker("busy")


def testbed(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TESTBED), *argv], capture_output=True, text=True, timeout=240, check=False
    )


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Four nodes, node1 to node4, of 4 CPUs, 8 GB and 2 GPUs; partitions debug, gpu and preempt."""

    env: dict[str, str]  # Slurm's commands use the testbed with it
    env_without_accounting: dict[str, str]  # like the one above, but sacct fails
    shared: Path  # nodes share it and this clone; each has its own /tmp

    def run(self, *argv, timeout=60, check=True, env=None) -> subprocess.CompletedProcess[str]:
        """A command on this machine, in `shared`."""
        command = [str(arg) for arg in argv]
        done = subprocess.run(
            command, env=env or self.env, cwd=self.shared, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        assert done.returncode == 0 or not check, (
            f"{command} exits with {done.returncode}: {done.stderr}{done.stdout}"
        )
        return done

    def state(self, job_id) -> str:
        """The state in squeue, which has a job for five minutes after its end."""
        return self.run("squeue", "--noheader", "--states=all", f"--jobs={job_id}", "--format=%T").stdout.strip()

    def wait_for(self, job_id, states, timeout=60) -> str:
        """Wait until the job is in one of the states, and return that state."""
        wanted = {states} if isinstance(states, str) else set(states)
        deadline = time.monotonic() + timeout
        while (state := self.state(job_id)) not in wanted:
            in_vain = time.monotonic() > deadline or state in FINAL
            assert not in_vain, f"{state}, not {wanted}: {self.run('scontrol', 'show', 'job', job_id).stdout}"
            time.sleep(0.2)
        return state

    def kill_node(self, node) -> None:
        """Cut the power of a node, given as 1 or as "node1"."""
        assert (done := testbed("kill-node", _name(node))).returncode == 0, done.stderr

    def start_node(self, node) -> None:
        """Start a killed node, and wait until it takes jobs."""
        assert (done := testbed("start-node", _name(node))).returncode == 0, done.stderr
        assert (done := testbed("up")).returncode == 0, done.stderr


def _name(node) -> str:
    return node if isinstance(node, str) else f"node{node}"


@pytest.fixture(scope="session")
def alone() -> Iterator[None]:
    """Wait until no other test session can kill the nodes that this one uses."""
    lock = os.open(Path(__file__).parent, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@pytest.fixture(scope="session")
def cluster(alone) -> Iterator[Cluster]:
    """The testbed. One that was up before stays up, and is complete again afterwards."""
    was_up = testbed("status").returncode == 0
    started = testbed("up")
    if started.returncode != 0:
        if os.environ.get("HPCAI500_REQUIRE_SLURM") == "1":
            pytest.fail(started.stderr)
        pytest.skip(started.stderr.strip())
    if testbed("exec", "node1", "--", "test", "-e", str(TESTBED)).returncode != 0:
        pytest.fail(
            "the testbed that is up was started by another clone, and its nodes do not see this one below /tmp"
        )
    try:
        lines = testbed("env").stdout.splitlines()
        paths = dict(line.removeprefix("export ").split("=", 1) for line in lines)
        env = {name: value for name, value in os.environ.items() if not name.startswith(OF_A_JOB)}
        yield Cluster(
            env={**env, "SLURM_CONF": paths["SLURM_CONF"]},
            env_without_accounting={**env, "SLURM_CONF": paths["TESTBED_SLURM_CONF_NO_ACCOUNTING"]},
            shared=Path(paths["TESTBED_SHARED"]),
        )
    finally:
        ended = testbed("up" if was_up else "down")
    assert ended.returncode == 0, ended.stderr


@pytest.fixture
def desk(cluster, request):
    folder = cluster.shared / "tests" / re.sub(r"\W+", "_", request.node.name)[:60]
    shutil.rmtree(folder, ignore_errors=True)
    yield Desk(cluster, folder)
    cluster.run("scancel", "--me", check=False)
    shutil.rmtree(folder, ignore_errors=True)
