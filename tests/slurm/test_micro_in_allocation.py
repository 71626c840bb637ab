"""Collectives between the nodes of an allocation, started once in a job script."""

import json
import os
import shlex

import pytest
from desk import HPCAI500

from hpcai500.launch.requirements import missing

WAYS = {
    ("torch", "srun"): (),
    ("horovod", "srun"): ("--slurm", "mpi=pmix"),
    ("mpi", "mpirun"): (),
}
MICRO = (
    *HPCAI500, "micro", "--only", "collectives", "--device", "cpu", "--sizes", "8,65536", "--budget-sec", "1",
    "--folder", ".", "--json", "--backend",
)  # fmt: skip


def test_every_backend_measures_between_nodes_with_right_results(desk):
    lacks = dict([*missing("horovod", "mpirun"), *missing("torch", "mpirun")])
    if lacks and os.environ.get("HPCAI500_REQUIRE_HOROVOD") == "1":
        pytest.fail(f"HPCAI500_REQUIRE_HOROVOD=1, but {lacks}")
    ways = {way: options for way, options in WAYS.items() if way[0] == "torch" or not lacks}
    script = desk.folder / "job.sh"
    commands = [shlex.join((*MICRO, way[0], *options)) + f" >{way[0]}.json" for way, options in ways.items()]
    script.write_text("\n".join(["#!/bin/sh", *commands, ""]))
    options = ("--wait", "--nodes=2", "--ntasks-per-node=1", f"--chdir={desk.folder}", "--output=job.out")
    desk.cluster.run("sbatch", *options, script, timeout=120)
    said = (desk.folder / "job.out").read_text()
    for backend, launcher in ways:
        found = json.loads((desk.folder / f"{backend}.json").read_text() or said)
        assert (found["backend"], found["launcher"], found["nodes"], found["num_ranks"]) == (backend, launcher, 2, 2)
        assert len(found["samples"]) == 4 * 2 * 2
        assert all(sample["correct"] and sample["value"] > 0 for sample in found["samples"])
    left = {path.name for path in desk.folder.iterdir()}
    assert left == {"data", "job.out", "job.sh", *(f"{backend}.json" for backend, _ in ways)}
