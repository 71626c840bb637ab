"""Runs on a real Slurm, as a user has them: submitted, preempted, killed, and resumed."""

import json
import os
import re
import shutil
import sys
import time
from pathlib import Path

import pytest
from desk import HPCAI500, ROOT, TINY, Desk

from hpcai500.events.reader import find, first, read_events
from hpcai500.events.vocabulary import Key
from hpcai500.score.record.result import read_result

SLOW = ("--unranked", "--set", "problem.num_epochs=12", "--set", "model.dropout=0.5", "--nodes", "2")


@pytest.fixture(scope="module")
def undisturbed(cluster):
    """Loss and quality of each epoch of a `SLOW` run when nothing interrupts it."""
    folder = cluster.shared / "tests" / "undisturbed"
    shutil.rmtree(folder, ignore_errors=True)
    desk = Desk(cluster, folder)
    desk.submit(*SLOW)
    desk.wait_until_over()
    (result,) = desk.results.rglob("result.json")
    yield curve(result.parent)
    shutil.rmtree(folder, ignore_errors=True)


def curve(folder):
    return [(row.train_loss, row.quality) for row in read_result(folder / "result.json").epochs]


def require_whole(folder, undisturbed):
    """Check that the run succeeded, with every event once and the same figures as without interruption."""
    result = read_result(folder / "result.json")
    assert result.status == "success", result.failure
    events = read_events(folder / "events.log")
    assert [len(find(events, key)) for key in (Key.RUN_START, Key.RUN_STOP, Key.INIT_STOP)] == [1, 1, 1]
    assert [event.metadata["epoch_num"] for event in find(events, Key.EPOCH)] == list(range(1, 13))
    assert curve(folder) == undisturbed
    stop, start = first(events, Key.RUN_STOP), first(events, Key.RUN_START)
    assert result.time.total_sec == pytest.approx((stop.time_ms - start.time_ms) / 1_000)
    assert result.time.total_sec > sum(i.down_sec + i.lost_sec for i in result.interruptions)
    return result


def test_an_array_over_seeds_ends_in_one_ranking(desk):
    jobs = desk.submitted("--nodes", "2", "--seeds", "0-2", "--parallel", "2")
    assert len({job["job_id"].split("_")[0] for job in jobs}) == 1
    rows = desk.wait_until_over()
    assert {seed: row["state"] for seed, row in rows.items()} == {0: "done", 1: "done", 2: "done"}, desk.said()
    (ranked,) = json.loads(desk.hpcai500("rank", desk.results, "--json").stdout)["lists"]
    (entry,) = ranked["entries"]
    assert (entry["seeds"], entry["world_size"], entry["nodes"], entry["system"]) == ([0, 1, 2], 2, 2, "testbed")
    system = json.loads(next(desk.results.rglob("system.json")).read_text())
    assert len({host for node in system["nodes"] for host in node["hosts"]}) == 2
    (checked,) = json.loads(desk.hpcai500("check", desk.results, "--json", check=False).stdout)
    assert [breach["rule"] for breach in checked["breaches"]] == ["5.2"]  # three runs, each of which breaks no rule
    assert desk.submitted("--nodes", "2", "--seeds", "0-2") == []


def test_uneven_tasks_of_an_sbatch_know_their_place(desk):
    script = ROOT / "slurm" / "hpcai500.sbatch"
    env = {**desk.cluster.env, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    sent = desk.cluster.run(
        "sbatch", "--nodes=3", "--ntasks=4", f"--output={desk.folder}/out.txt", script, TINY, "--problem", "mini",
        "--data", desk.data, "--output", desk.results, env={**env, "GLOO_SOCKET_IFNAME": "eth0"},
    )  # fmt: skip
    desk.cluster.wait_for(sent.stdout.split()[-1], "COMPLETED", timeout=90)
    assert "accuracy 1.0000" in (desk.folder / "out.txt").read_text()
    (path,) = desk.results.rglob("run.json")
    run = json.loads(path.read_text())
    assert (run["nodes"], run["procs_per_node"], run["num_ranks"], run["launcher"]) == (3, 2, 4, "srun")


def test_run_inside_salloc_takes_all_nodes_of_the_allocation(desk):
    done = desk.cluster.run(
        "salloc", "--nodes=2", "--ntasks-per-node=2", *HPCAI500, "run", TINY, "--problem", "mini",
        "--site", "testbed", "--data", desk.data, "--output", desk.results, timeout=90,
    )  # fmt: skip
    assert "4 ranks" in done.stdout
    (path,) = desk.results.rglob("run.json")
    assert json.loads(path.read_text())["nodes"] == 2


def test_srun_in_front_of_the_command_is_refused(desk):
    done = desk.cluster.run("srun", "--ntasks=2", *HPCAI500, "run", TINY, "--problem", "mini", check=False)
    assert done.returncode == 2
    assert "srun started this command 2 times" in done.stderr


def test_what_render_prints_is_what_submit_runs_and_can_be_given_to_sbatch(desk):
    script = desk.submit(command="render").stdout
    (desk.folder / "job.sbatch").write_text(script)
    sent = desk.cluster.run("sbatch", desk.folder / "job.sbatch")
    desk.cluster.wait_for(sent.stdout.split()[-1], "COMPLETED", timeout=90)
    (row,) = desk.status().values()
    assert row["state"] == "done"
    shutil.rmtree(desk.results)
    (job,) = desk.submitted("--slurm", "sbatch_arguments=['--hold']")
    held = Path(job["folder"], "job.sbatch").read_text()
    assert held == script.replace("#SBATCH --requeue\n", "#SBATCH --requeue\n#SBATCH --hold\n")


def test_a_preempted_run_comes_back_and_computes_the_same(desk, undisturbed):
    (desk.data / "slow").touch()
    (job,) = desk.submitted(*SLOW, "--slurm", "partition=preempt")
    folder = desk.wait_for_event(Key.EPOCH_START, count=2)
    strong = desk.cluster.run(
        "sbatch", "--partition=gpu", "--nodes=4", "--exclusive", "--output=/dev/null", "--wrap=sleep 2"
    )
    desk.cluster.wait_for(strong.stdout.split()[-1], "COMPLETED")
    (desk.data / "slow").unlink()
    (row,) = desk.status().values()
    assert row["state"] in ("queued", "running")
    assert desk.wait_until_over()[0]["state"] == "done", desk.said()
    result = require_whole(folder, undisturbed)
    assert [interruption.graceful for interruption in result.interruptions] == [True]
    assert (folder / "logs" / "jobs").read_text().splitlines() == [
        f"{job['job_id']} {job['job_id']} {n}" for n in (0, 1)
    ]


def test_a_run_that_meets_its_time_limit_goes_on_in_the_next_job(desk, undisturbed):
    (desk.data / "slow").write_text("0.5")  # Slurm checks the limits twice per minute: the run is longer
    desk.submit(*SLOW, "--slurm", "time=00:01:00", "--slurm", "grace_sec=58")
    folder = desk.wait_for_event(Key.INTERRUPTED, timeout=90)
    (desk.data / "slow").unlink()
    assert desk.wait_until_over()[0]["state"] == "done", desk.said()
    assert require_whole(folder, undisturbed).interruptions[0].graceful


def test_requeues_end_at_the_site_s_limit(desk):
    (desk.data / "slow").touch()
    (job,) = desk.submitted(*SLOW, "--slurm", "max_requeues=0")
    desk.wait_for_event(Key.EPOCH_START, count=2)
    desk.cluster.run("scancel", "--signal=USR1", job["job_id"])
    (row,) = desk.wait_until_over().values()
    assert row["state"] == "preempted"
    assert "stopped by a signal" in row["detail"]


def test_an_administrator_s_requeue_is_gone_on_with(desk, undisturbed):
    (desk.data / "slow").touch()
    (job,) = desk.submitted(*SLOW)
    folder = desk.wait_for_event(Key.EPOCH_START, count=2)
    desk.cluster.run("scontrol", "requeue", job["job_id"])
    (desk.data / "slow").unlink()
    assert desk.wait_until_over()[0]["state"] == "done", desk.said()
    assert len(require_whole(folder, undisturbed).interruptions) == 1


def test_a_killed_rank_is_a_clear_failure_and_the_same_command_finishes_the_sweep(desk, undisturbed):
    (desk.data / "kill-rank-1-epoch-6").touch()
    desk.submit(*SLOW)
    (row,) = desk.wait_until_over().values()
    assert row["state"] == "failed"
    assert re.match(r"rank 1 on node\d: killed", row["detail"]), desk.said()
    assert desk.hpcai500("status", desk.results, check=False).returncode == 1

    jobs = desk.submitted(*SLOW, "--seeds", "0-1")
    assert [job["seed"] for job in jobs] == [0, 1]
    folder = Path(jobs[0]["folder"])
    assert {row["state"] for row in desk.wait_until_over().values()} == {"done"}, desk.said()
    (interruption,) = require_whole(folder, undisturbed).interruptions
    assert not interruption.graceful
    assert interruption.epoch > 1


def test_a_node_that_dies_is_replaced_and_the_run_goes_on(desk, undisturbed):
    (desk.data / "slow").touch()
    (job,) = desk.submitted(*SLOW)
    folder = desk.wait_for_event(Key.EPOCH_START, count=3)
    node = desk.cluster.run("squeue", "--noheader", f"--jobs={job['job_id']}", "--format=%N").stdout
    last = int(re.findall(r"\d", node)[-1])
    desk.cluster.kill_node(last)
    (desk.data / "slow").unlink()
    try:
        rows = desk.wait_until_over()
        if rows[0]["state"] != "done":  # Slurm noticed the ranks' end before the node's: a clear failure
            assert rows[0]["state"] == "failed", rows
            assert "failed" in rows[0]["detail"] or "connection" in rows[0]["detail"].lower(), rows
            desk.submit(*SLOW)
            rows = desk.wait_until_over()
        assert rows[0]["state"] == "done", desk.said()
    finally:
        desk.cluster.start_node(last)
    assert len(require_whole(folder, undisturbed).interruptions) == 1


def test_a_run_out_of_memory_says_so_with_and_without_accounting(desk):
    (desk.data / "hog").touch()
    desk.submit("--nodes", "2", "--slurm", "memory=3G")
    (row,) = desk.wait_until_over().values()
    assert row["state"] == "failed"
    assert "exceeded the job's memory" in row["detail"], desk.said()
    (row,) = desk.status(env=desk.cluster.env_without_accounting).values()
    assert row["state"] == "failed"
    assert "memory" in row["detail"], row


def test_a_cancelled_run_stays_cancelled_and_can_be_gone_on_with(desk, undisturbed):
    (desk.data / "slow").touch()
    desk.submit(*SLOW)
    folder = desk.wait_for_event(Key.EPOCH_START, count=2)
    assert "cancelled: " in desk.hpcai500("cancel", desk.results).stdout
    (row,) = desk.wait_until_over().values()
    assert row["state"] == "preempted"
    (desk.data / "slow").unlink()
    desk.submit(*SLOW)
    assert desk.wait_until_over()[0]["state"] == "done", desk.said()
    require_whole(folder, undisturbed)


def test_seeds_beyond_the_largest_index_are_split_over_arrays_and_nothing_is_submitted_twice(desk):
    hold = ("--slurm", "sbatch_arguments=['--hold']")
    jobs = desk.submitted("--seeds", "0,1,70,500", *hold)
    assert [job["seed"] for job in jobs] == [0, 1, 70, 500]
    assert [job["job_id"].split("_")[1] if "_" in job["job_id"] else "" for job in jobs] == ["0", "1", "", ""]
    for job in jobs:
        Path(job["folder"], "job.json").unlink()  # as if the submitter had died at this point
    assert [job["seed"] for job in desk.submitted("--seeds", "0,1,2,70,500", *hold)] == [2]
    rows = desk.status()
    assert rows[2]["state"] == "queued"
    assert "JobHeldUser" in rows[2]["detail"]


def test_one_array_for_each_number_of_nodes(desk):
    jobs = desk.submitted("--nodes", "1,2,4", "--seeds", "0-1", "--slurm", "sbatch_arguments=['--hold']")
    assert [(job["nodes"], job["seed"]) for job in jobs] == [(n, s) for n in (1, 2, 4) for s in (0, 1)]
    assert len({job["job_id"].split("_")[0] for job in jobs}) == 3


def test_later_edits_and_surrounding_jobs_do_not_reach_a_queued_run(desk):
    own = desk.folder / "mine"
    shutil.copytree(TINY, own, ignore=shutil.ignore_patterns("__pycache__"))
    surrounding = {
        **desk.cluster.env, "SBATCH_PARTITION": "nonsense", "SLURM_CPU_BIND": "quiet,mask_cpu:0x1",
        "SLURM_NTASKS": "77", "PMI_RANK": "3", "RANK": "5", "WORLD_SIZE": "9",
    }  # fmt: skip
    (job,) = desk.submitted("--slurm", "sbatch_arguments=['--hold']", workload=own, env=surrounding)
    (own / "workload.py").write_text("raise RuntimeError('edited after submission')\n")
    desk.cluster.run("scontrol", "release", job["job_id"])
    assert desk.wait_until_over()[0]["state"] == "done", desk.said()


def test_a_refusal_of_sbatch_is_one_line(desk):
    done = desk.submit("--slurm", "partition=absent", check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "sbatch refused the job: " in done.stderr
    assert "invalid partition" in done.stderr.lower()


def test_two_starts_of_one_run_take_turns_and_the_second_finds_it_done(desk):
    (desk.data / "slow").touch()
    script = ROOT / "slurm" / "hpcai500.sbatch"
    env = {**desk.cluster.env, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    sent = [
        desk.cluster.run(
            "sbatch", "--nodes=1", f"--output={desk.folder}/%j.txt", script, TINY, "--problem", "mini",
            "--data", desk.data, "--output", desk.results, env=env,
        ).stdout.split()[-1]
        for _ in range(2)
    ]  # fmt: skip
    for job_id in sent:
        desk.cluster.wait_for(job_id, "COMPLETED", timeout=90)
    (log,) = desk.results.rglob("events.log")
    assert [event.value["epoch_num"] for event in find(read_events(log), Key.EPOCH)] == [1, 2, 3]
    assert read_result(log.parent / "result.json").status == "success"


IMPORTING = "timeout --preserve-status --signal=USR1 $((restarts * 100 + 1)) {worker}"
NOT_EVEN_PYTHON = """bash -c 'test "${{SLURM_RESTART_COUNT:-0}}" != 0 || kill -USR1 $$; exec "$@"' rank {worker}"""


@pytest.mark.parametrize("way", [IMPORTING, NOT_EVEN_PYTHON], ids=["importing", "not even Python"])
def test_a_signal_while_ranks_start_is_a_stop_too(desk, way):
    (job,) = desk.submitted("--slurm", "sbatch_arguments=['--hold']")
    folder = Path(job["folder"])
    desk.cluster.run("scancel", job["job_id"])
    worker = f"{sys.executable} -m hpcai500.train.worker"
    early = way.format(worker=worker)  # only in the first start
    script = folder / "early.sbatch"
    script.write_text((folder / "job.sbatch").read_text().replace("#SBATCH --hold\n", "").replace(worker, early))
    sent = desk.cluster.run("sbatch", script).stdout.split()[-1]
    deadline = time.monotonic() + 90
    while len((folder / "logs" / "jobs").read_text().splitlines() if (folder / "logs" / "jobs").exists() else []) < 2:
        assert time.monotonic() < deadline, desk.said()
        time.sleep(0.5)
    desk.cluster.wait_for(sent, "COMPLETED", timeout=60)
    assert read_result(folder / "result.json").status == "success"


def test_a_rank_that_ends_before_training_is_a_failure_though_its_peers_were_stopped(desk):
    (job,) = desk.submitted("--nodes", "2", "--slurm", "sbatch_arguments=['--hold']")
    folder = Path(job["folder"])
    desk.cluster.run("scancel", job["job_id"])
    worker = f"{sys.executable} -m hpcai500.train.worker"
    early = f"""bash -c 'test "$SLURM_PROCID" = 0 || {{ sleep 1; exit 3; }}; exec "$@"' rank {worker}"""
    script = folder / "early.sbatch"
    script.write_text((folder / "job.sbatch").read_text().replace("#SBATCH --hold\n", "").replace(worker, early))
    sent = desk.cluster.run("sbatch", script).stdout.split()[-1]
    desk.cluster.wait_for(sent, "FAILED", timeout=60)
    row = desk.status()[0]
    assert (row["state"], "rank 1 on node" in row["detail"]) == ("failed", True), row
    assert "ended with exit code 3 and gave no reason" in row["detail"]
