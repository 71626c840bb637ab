"""Which runs get a job, and what is remembered of it."""

import json
import shutil

import pytest

from hpcai500.errors import DataError, MachineError
from hpcai500.launch.slurm.queue import job_name
from hpcai500.runs.jobs import job_scripts, settled_runs, submit_missing
from hpcai500.runs.state import State
from hpcai500.score.record.result import write_result
from hpcai500.spec.site import load_site


@pytest.fixture
def site():
    return load_site("testbed")


@pytest.fixture
def sweep(make_spec, site):
    def sweep(*seeds, **fields):
        return [make_spec(seed=seed, launcher=site.slurm.launcher, data="synthetic", **fields) for seed in seeds]

    return sweep


def test_runs_that_are_done_diverged_or_queued_need_no_job(sweep, write_run, write_diverged, slurm):
    done, diverged, submitted, failed, named, _ = specs = sweep(0, 1, 2, 3, 4, 5)
    write_result(write_run(done, [0.9]))
    write_diverged(diverged)
    submitted.write()
    (submitted.folder / "job.json").write_text(json.dumps({"schema_version": 1, "job_id": "7"}))
    write_run(failed, [0.5], stop="aborted")
    name = job_name(named.workload.name, named.run_prefix, named.seed)
    slurm(queued=f"7|PENDING|Priority|x|\n8|RUNNING|None|{name}|n1\n")
    assert settled_runs(specs) == {
        done.folder: State.DONE,
        diverged.folder: State.FAILED,
        submitted.folder: State.QUEUED,
        named.folder: State.QUEUED,
    }


def test_only_missing_runs_are_submitted_and_each_remembers_its_job(sweep, write_run, slurm, site):
    specs = sweep(0, 1, 2)
    write_result(write_run(specs[1], [0.9]))
    slurm()
    submission = submit_missing([specs], site)
    assert submission.kept == {specs[1].folder: State.DONE}
    (job_id,) = submission.jobs
    assert [spec.seed for spec in submission.jobs[job_id].specs] == [0, 2]
    for spec in (specs[0], specs[2]):
        assert json.loads((spec.folder / "job.json").read_text())["job_id"] == f"{job_id}_{spec.seed}"
        assert (spec.folder / "job.sbatch").read_text() == submission.jobs[job_id].text
    assert not (specs[1].folder / "job.json").exists()


def test_seeds_beyond_the_largest_array_take_several_scripts(sweep, slurm, site):
    slurm()
    scripts = list(job_scripts([sweep(0, 3, 4, 9), sweep(1, nodes=2)], site))
    assert [[(spec.nodes, spec.seed) for spec in script.specs] for script in scripts] == [
        [(1, 0), (1, 3)], [(1, 4)], [(1, 9)], [(2, 1)],
    ]  # fmt: skip
    assert scripts[0].job_ids("5") == ["5_0", "5_3"]
    assert scripts[1].job_ids("6") == ["6"]


def test_without_slurm_or_data_nothing_is_written(make_spec, slurm, site, monkeypatch, tmp_path):
    spec = make_spec(launcher=site.slurm.launcher)
    slurm()
    with pytest.raises(DataError, match="no data directory"):
        submit_missing([[spec]], site)
    assert not spec.folder.exists()
    shutil.rmtree(spec.output)
    monkeypatch.setenv("PATH", str(tmp_path / "absent"))
    with pytest.raises(MachineError, match="no Slurm on this machine"):
        submit_missing([[spec]], site)
    assert not (tmp_path / "results").exists()


SUBMITTED = ("image_classification", "--problem", "mini", "--data", "synthetic", "--site", "testbed")


def test_the_command_submits_once_and_status_logs_and_cancel_know_the_runs(hpcai500, slurm, tmp_path):
    output = tmp_path / "results"
    arguments = (*SUBMITTED, "--seeds", "0,1", "--nodes", "1,2", "--output", output)
    tools = slurm()
    code, out, _ = hpcai500("submit", *arguments, "--json")
    submitted = json.loads(out)["submitted"]
    assert code == 0
    assert [(job["job_id"], job["seed"], job["nodes"]) for job in submitted] == [
        ("41_0", 0, 1), ("41_1", 1, 1), ("42_0", 0, 2), ("42_1", 1, 2),
    ]  # fmt: skip
    slurm(queued="".join(f"{job['job_id']}|PENDING|Priority|x|\n" for job in submitted))
    code, out, _ = hpcai500("submit", *arguments)
    assert (code, out.splitlines()[-1], out.count("queued, kept: ")) == (0, "nothing is missing", 4)
    assert len((tools / "sbatch.seen").read_text().splitlines()) == 2
    rows = json.loads(hpcai500("status", output, "--json")[1])
    assert {(row["job_id"], row["state"]) for row in rows} == {(job["job_id"], "queued") for job in submitted}
    assert "nothing printed yet" in hpcai500("logs", submitted[0]["folder"])[1]
    (tools / "scancel").write_text('#!/bin/sh\necho "$@" >"${0%/*}/cancelled"\n')
    (tools / "scancel").chmod(0o755)
    assert hpcai500("cancel", submitted[0]["folder"])[1] == "cancelled: 41_0\n"
    assert (tools / "cancelled").read_text() == "41_0\n"


def test_render_prints_one_script_or_all_as_json(hpcai500, slurm, tmp_path):
    slurm()
    arguments = (*SUBMITTED, "--output", tmp_path / "results")
    script = hpcai500("render", *arguments)[1]
    assert script.startswith("#!/bin/bash")
    assert "hpcai500.train.worker" in script
    code, _, err = hpcai500("render", *arguments, "--nodes", "1,2")
    assert (code, "these runs take 2 scripts" in err) == (2, True)
    both = json.loads(hpcai500("render", *arguments, "--nodes", "1,2", "--json")[1])
    assert [len(job["runs"]) for job in both] == [1, 1]
