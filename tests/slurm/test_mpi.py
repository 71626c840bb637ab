"""Horovod and MPI across nodes: srun with a plugin that starts MPI, mpirun, and a plugin that does not fit."""

import json
import os
import re
import sys
import time
from pathlib import Path

import pytest
from desk import ROOT, TINY

from hpcai500.events.reader import find, read_events
from hpcai500.events.vocabulary import Key
from hpcai500.launch.requirements import missing
from hpcai500.score.record.result import read_result


@pytest.fixture(scope="module", autouse=True)
def _horovod():
    lacks = dict([*missing("horovod", "mpirun"), *missing("torch", "mpirun")])
    if lacks and os.environ.get("HPCAI500_REQUIRE_HOROVOD") == "1":
        pytest.fail(f"HPCAI500_REQUIRE_HOROVOD=1, but {lacks}")
    if lacks:
        pytest.skip(f"not installed: {', '.join(lacks)} ({'; '.join(lacks.values())})")


WAYS = {
    "torch": (),
    "horovod": ("--backend", "horovod", "--slurm", "mpi=pmix"),
    "torch by mpirun": ("--slurm", "launcher=mpirun"),
    "horovod by mpirun": ("--backend", "horovod", "--slurm", "launcher=mpirun"),
}


def losses(folder):
    return [event.value["train_loss"] for event in find(read_events(folder / "events.log"), Key.EPOCH)]


def test_backends_and_launchers_train_alike_across_nodes(desk, hpcai500):
    folders = {}
    for way, options in WAYS.items():
        (job,) = desk.submitted("--nodes", "2", "--output", desk.results / re.sub(" ", "_", way), *options)
        folders[way] = Path(job["folder"])
        desk.cluster.wait_for(job["job_id"], "COMPLETED", timeout=120)
    for way, folder in folders.items():
        assert read_result(folder / "result.json").status == "success", way
        assert losses(folder) == pytest.approx(losses(folders["torch"]), rel=1e-5), way
    code, out, _ = hpcai500("rank", folders["torch"], folders["horovod"])
    assert code == 0
    assert "horovod" in out


def test_a_job_of_mpirun_stops_at_its_signal_and_goes_on(desk):
    (desk.data / "slow").touch()
    slow = ("--unranked", "--set", "problem.num_epochs=6", "--set", "model.dropout=0.5")
    (job,) = desk.submitted("--nodes", "2", *slow, *WAYS["horovod by mpirun"])
    folder = desk.wait_for_event(Key.EPOCH_START, 2)
    time.sleep(0.3)
    desk.cluster.run("scancel", "--batch", "--signal=USR1", job["job_id"])
    desk.wait_for_event(Key.INTERRUPTED)
    (desk.data / "slow").unlink()
    row = desk.wait_until_over()[0]
    assert row["state"] == "done", desk.said()
    (interruption,) = read_result(folder / "result.json").interruptions
    assert interruption.graceful


def test_a_plugin_that_does_not_fit_ends_every_rank_with_the_reason(desk, make_spec):
    refused = desk.submit("--backend", "horovod", check=False)
    assert refused.returncode == 2
    assert "backend horovod under srun needs a plugin of srun that starts MPI" in refused.stderr
    spec = make_spec(TINY, backend="horovod", launcher="srun", nodes=2, output=str(desk.results))
    spec.write()
    worker = (sys.executable, "-m", "hpcai500.train.worker", spec.folder / "run.json")
    alone = desk.cluster.run("srun", "--nodes=2", "--mpi=none", "--wait=60", *worker, check=False, timeout=90)
    assert alone.returncode == 1
    wanted = "this process sees a world of 1 through Horovod; srun's plugin does not fit the MPI library"
    told = alone.stderr.count("direct launched using") or alone.stderr.count(wanted)
    assert told == 2, alone.stderr
    assert not (spec.folder / "events.log").exists()


@pytest.mark.parametrize("backend", ["torch", "horovod"])
def test_uneven_tasks_of_an_sbatch_know_their_place_under_mpirun(desk, backend):
    script = ROOT / "slurm" / "hpcai500.sbatch"
    env = {**desk.cluster.env, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    sent = desk.cluster.run(
        "sbatch", "--nodes=3", "--ntasks=4", f"--output={desk.folder}/out.txt",
        script, TINY, "--problem", "mini", "--data", desk.data, "--output", desk.results, "--site", "testbed",
        "--backend", backend, "--launcher", "mpirun", env=env,
    )  # fmt: skip
    desk.cluster.wait_for(sent.stdout.split()[-1], "COMPLETED", timeout=90)
    assert "accuracy 1.0000" in (desk.folder / "out.txt").read_text()
    (path,) = desk.results.rglob("run.json")
    run = json.loads(path.read_text())
    assert (run["nodes"], run["procs_per_node"], run["num_ranks"], run["launcher"]) == (3, 2, 4, "mpirun")
    system = json.loads((path.parent / "system.json").read_text())
    assert sorted(host for node in system["nodes"] for host in node["hosts"]) == ["node1", "node2", "node3"]


def test_a_plugin_that_does_not_fit_is_a_failure_and_no_preemption(desk):
    (job,) = desk.submitted("--nodes", "2", "--backend", "horovod", "--slurm", "mpi=pmi2")
    row = desk.wait_until_over()[0]
    assert row["state"] == "failed", row
    assert "plugin does not fit" in row["detail"]
    assert len(Path(job["folder"], "logs", "jobs").read_text().splitlines()) == 1
