import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from hpcai500.errors import SpecError
from hpcai500.launch.container import run_mounts, site_python
from hpcai500.launch.launcher import RankStart
from hpcai500.launch.layout import Layout
from hpcai500.launch.registry import find_launcher
from hpcai500.launch.slurm.header import log_pattern
from hpcai500.launch.slurm.header import sbatch_options as header_options
from hpcai500.launch.slurm.script import JobPlan, header_of, job_template, plan_job, render_job
from hpcai500.spec.run import read_run
from hpcai500.spec.site import Site, load_site, site_folders, with_site_overrides

GOLDEN = Path(__file__).parents[3] / "golden"
SITES = {path.stem: str(path) for path in sorted(site_folders()[1].glob("*.toml"))}


def job_on(site: Site, **fields) -> JobPlan:
    given = {
        "site": site,
        "job_name": "hpcai500-image_classification",
        "nodes": 2,
        "procs_per_node": site.slurm.procs_per_node,
        "num_ranks": 0,
        "seeds": (0,),
        "run_prefix": "/home/me/results/box/image_classification/full-free/torch-2x8-bf16-0123abcd-seed",
        "python": site_python(site, "/home/me/venv/bin/python"),
        "log": "/home/me/results/box/logs/%j.log",
        "folders": ("/home/me/results", "/data/imagenet", "/home/me/results/box/snapshot"),
        "snapshot": "/home/me/results/box/snapshot",
        **fields,
    }
    return JobPlan(**given)


def sbatch_options(job: JobPlan) -> list[str]:
    return header_options(header_of(job))


def srun_tokens(site: Site, *, folders=(), **layout) -> tuple[str, ...]:
    step = RankStart(Layout(launcher="srun", **layout), site, in_allocation=True, folders=tuple(folders))
    return find_launcher("srun").tokens(step)


def golden_jobs() -> dict[str, JobPlan]:
    jobs = {name: job_on(load_site(path)) for name, path in SITES.items()}
    gpu8 = with_site_overrides(load_site(SITES["gpu8"]), {"max_parallel": 4})
    seeds = (2_000, 2_001, 2_002, 2_007)
    jobs["array"] = job_on(gpu8, seeds=seeds, array_offset=2_000, log="/home/me/results/%A_%a.log")
    return jobs


@pytest.mark.parametrize(("name", "job"), golden_jobs().items(), ids=golden_jobs())
def test_the_script_of_every_shipped_site_is_the_accepted_one(name, job):
    """To accept a change: paste the new text into tests/golden/job_NAME.sbatch."""
    assert render_job(job, job_template()) == (GOLDEN / f"job_{name}.sbatch").read_text()


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.sbatch")), ids=lambda path: path.stem)
def test_shellcheck_finds_nothing_in_a_script(path):
    checked = subprocess.run(["shellcheck", path], capture_output=True, text=True, check=False)
    assert checked.stdout == ""


def test_gpus_are_asked_for_by_the_node_in_the_way_that_the_site_wants():
    def asked(**values) -> str:
        options = sbatch_options(job_on(with_site_overrides(Site(), values)))
        return " ".join(option for option in options if "gpu:" in option or "gpus" in option)

    assert asked() == ""
    assert asked(gpus_per_node=4) == "--gpus-per-node=4"
    assert asked(gpus_per_node=4, gpu_type="a100") == "--gpus-per-node=a100:4"
    assert asked(gpus_per_node=4, gpu_type="a100", gpu_request="gres") == "--gres=gpu:a100:4"


def test_srun_needs_no_profile():
    assert shlex.join(srun_tokens(Site(), nodes=2, procs_per_node=4)) == (
        "srun --nodes=2 --ntasks=8 --ntasks-per-node=4 --kill-on-bad-exit=1 --wait=60 --mpi=none --export=ALL"
    )


def test_uneven_ranks_leave_out_their_number_a_node():
    tokens = srun_tokens(Site(), nodes=2, procs_per_node=4, num_ranks=7)
    assert "--ntasks=7" in tokens
    assert not any("per-node" in token for token in tokens)


def test_a_container_mounts_a_run_s_folders_once_and_the_site_s_own():
    site = load_site(SITES["apptainer"])
    tokens = srun_tokens(site, nodes=1, procs_per_node=4, folders=("/r/data", "/r", "/d", "/d", "/rest"))
    binds = [token for token in tokens if token.startswith("--bind")]
    assert binds == ["--bind=/d:/d", "--bind=/r:/r", "--bind=/rest:/rest", "--bind=/scratch:/scratch"]
    assert "--nv" in tokens
    amd = with_site_overrides(site, {"container.arguments": ["--rocm"]})
    assert "--nv" not in srun_tokens(amd, nodes=1, procs_per_node=4)
    with pytest.raises(SpecError, match="cannot mount a path with"):
        srun_tokens(site, nodes=1, procs_per_node=4, folders=["/a:b"])


def test_a_container_sees_what_a_run_reads_and_writes(make_spec):
    spec = make_spec(output="/r", data="/d", staging="/local/me/stage")
    assert run_mounts(spec) == ("/r", "/d", "/local/me", spec.workload.folder)
    assert run_mounts(make_spec(output="/r", data="synthetic", staging="/local")) == (
        "/r", "/local", spec.workload.folder,
    )  # fmt: skip


def test_what_a_run_s_settings_need_stands_in_its_script(make_spec):
    spec = make_spec(launcher="srun", nodes=2, overrides={"execution.deterministic": True})
    script = render_job(plan_job([spec], Site(), python="p"), job_template())
    assert "export CUBLAS_WORKSPACE_CONFIG=:4096:8\n" in script
    assert "RUN" not in script


# The script itself, run by bash between programs that replace Slurm's.


class Ran:
    """The actions of a script, recorded by the replaced programs."""

    def __init__(self, folder: Path, done: subprocess.CompletedProcess) -> None:
        self.code, self.says = done.returncode, done.stderr
        seen = {path.name: path.read_text() for path in folder.glob("*.seen")}
        self.srun = seen.get("srun.seen", "").split("\0")[:-1]
        self.scontrol = seen.get("scontrol.seen", "").split("\0")[:-1]
        self.environment = seen.get("environment.seen", "").split("\0")


@pytest.fixture
def run_script(tmp_path):
    """Run a script in bash; `srun` ends with `code`, and writes a word to each of its streams."""

    def run(script: str, *, code: int = 0, says: str = "err", **env: str) -> Ran:
        (tmp_path / "bin").mkdir(exist_ok=True)
        for name, body in {
            "srun": f"env -0 >environment.seen\necho out\necho {shlex.quote(says)} >&2\nexit {code}",
            "scontrol": "exit 0",
            "module": "exit 0",
        }.items():
            path = tmp_path / "bin" / name
            path.write_text(
                f"#!/bin/bash\ncd {shlex.quote(str(tmp_path))}\nprintf '%s\\0' \"$@\" >{name}.seen\n{body}\n"
            )
            path.chmod(0o755)
        (tmp_path / "job.sbatch").write_text(script)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "OMP_"))}
        slurm = {"SLURM_JOB_ID": "41", "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", tmp_path / "job.sbatch"], env=inherited | slurm | env,
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        return Ran(tmp_path, done)

    return run


AWKWARD = """it's a "test" $HOME `id` \\n%j;&"""


def test_names_with_spaces_quotes_and_dollars_reach_the_ranks_as_they_are(run_script, tmp_path):
    values = {"environment": {"NAME": AWKWARD}, "srun_arguments": [f"--comment={AWKWARD}"], "cpus_per_task": 3}
    site = with_site_overrides(Site(), values)
    prefix = f"{tmp_path}/{AWKWARD}/seed"
    job = job_on(site, run_prefix=prefix, snapshot=f"/{AWKWARD}", python=f"/{AWKWARD}/python", seeds=(7,))
    ran = run_script(render_job(job, job_template()), PYTHONPATH="/old")
    assert (ran.code, ran.says) == (0, "")
    assert f"--comment={AWKWARD}" in ran.srun
    assert ran.srun[-4:] == [f"/{AWKWARD}/python", "-m", "hpcai500.train.worker", f"{prefix}7/run.json"]
    assert f"NAME={AWKWARD}" in ran.environment
    assert f"PYTHONPATH=/{AWKWARD}:/old" in ran.environment
    assert not [variable for variable in ran.environment if variable.startswith("OMP_")]  # each rank counts its cores
    logs = Path(f"{prefix}7/logs")
    assert {path.name: path.read_text() for path in logs.iterdir()} == {
        "stdout.log": "=== start of job 41, number 0\nout\n",
        "stderr.log": "=== start of job 41, number 0\nerr\n",
        "jobs": "41 41 0\n",
    }  # fmt: skip


def test_a_rendered_script_writes_the_run_json_of_its_own_seed_once(run_script, tmp_path, make_spec):
    output = tmp_path / "it's $HOME `id` \\ here"
    specs = [make_spec(launcher="srun", nodes=2, output=str(output), seed=seed) for seed in (3_000, 3_004)]
    job = plan_job(specs, Site(), python="python3", array_offset=3_000, carry_run_json=True)
    script = render_job(job, job_template())
    index = {"SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "4"}
    assert run_script(script, **index).code == 0
    path = specs[1].folder / "run.json"
    assert read_run(path) == specs[1]
    assert not specs[0].folder.exists()
    path.write_text(json.dumps({"kept": True}))
    assert run_script(script, **index).code == 0
    assert json.loads(path.read_text()) == {"kept": True}
    assert (path.parent / "logs" / "jobs").read_text() == "40_4 41 0\n" * 2


@pytest.mark.parametrize(
    ("code", "restarts", "is_array", "requeued"),
    [
        (75, "0", False, "41"),
        (75, "2", True, "40_1"),
        (75, "3", False, None),
        (1, "0", False, None),
        (137, "0", False, None),
        (138, "0", False, "41"),  # SIGUSR1 before a rank could hear it
        (0, "0", True, None),
    ],
)
def test_a_preempted_run_is_requeued_while_restarts_are_left(
    run_script, tmp_path, code, restarts, is_array, requeued
):
    job = job_on(Site(), run_prefix=f"{tmp_path}/seed", seeds=(0, 1) if is_array else (1,))
    index = {"SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "1"} if is_array else {}
    ran = run_script(render_job(job, job_template()), code=code, SLURM_RESTART_COUNT=restarts, **index)
    assert ran.code == (75 if requeued else code)
    assert ran.scontrol == (["requeue", requeued] if requeued else [])


@pytest.mark.parametrize(("failed", "stopped"), [("1", "0"), ("2", "0"), ("3", "0,2-3"), ("70", "0")])
def test_a_rank_that_failed_is_not_requeued_though_srun_gives_the_code_of_its_stopped_peers(
    run_script, tmp_path, failed, stopped
):
    script = render_job(job_on(Site(), run_prefix=f"{tmp_path}/seed"), job_template())
    peers = f"srun: error: n0: tasks {stopped}: Exited with exit code 75"
    alone = run_script(script, code=75, says=peers)
    assert (alone.code, alone.scontrol) == (75, ["requeue", "41"])
    (tmp_path / "scontrol.seen").unlink()
    ran = run_script(script, code=75, says=f"{peers}\nsrun: error: n1: task 1: Exited with exit code {failed}")
    assert (ran.code, ran.scontrol) == (int(failed), [])
    again = run_script(script, code=75, says=peers)  # output of an earlier start does not count for this one
    assert (again.code, again.scontrol) == (75, ["requeue", "41"])


def test_a_job_that_slurm_starts_too_often_ends_before_its_ranks_start(run_script, tmp_path):
    job = job_on(Site(), run_prefix=f"{tmp_path}/seed")
    ran = run_script(render_job(job, job_template()), SLURM_RESTART_COUNT="4")
    assert ran.code == 75
    assert ran.says == "hpcai500: job 41 started again 4 times, more than 3: stopped\n"
    assert ran.srun == ran.scontrol == []


def test_threads_that_the_user_set_and_a_binding_that_a_step_left(run_script, tmp_path):
    job = job_on(with_site_overrides(Site(), {"cpus_per_task": 8}), run_prefix=f"{tmp_path}/seed")
    stale = {"SLURM_CPU_BIND": "quiet,mask_cpu:0x1", "SLURM_CPU_BIND_LIST": "0x1", "SLURM_MEM_BIND": "local"}
    ran = run_script(render_job(job, job_template()), OMP_NUM_THREADS="2", **stale)
    assert "OMP_NUM_THREADS=2" in ran.environment
    assert not [variable for variable in ran.environment if "_BIND" in variable]


def test_a_module_that_is_not_there_ends_the_job_and_a_loose_prologue_does_not(run_script, tmp_path):
    site = with_site_overrides(Site(), {"prologue": ['echo "$UNSET_VARIABLE" >/dev/null'], "modules": ["a/1", "c"]})
    script = render_job(job_on(site, run_prefix=f"{tmp_path}/seed"), job_template())
    assert run_script(script).code == 0
    assert (tmp_path / "module.seen").read_text().split("\0") == ["load", "a/1", "c", ""]
    assert run_script(script.replace("module load", "false")).code == 3


def test_a_log_s_folder_keeps_its_per_cent_signs_and_has_no_backslash():
    with pytest.raises(SpecError, match="backslash"):
        log_pattern("/a\\b", "%j.log")
    assert log_pattern("/100%", "%j.log") == "/100%%/%j.log"


def test_an_array_s_indices_are_written_as_ranges():
    assert "--array=0-2,5,7-8" in sbatch_options(job_on(Site(), seeds=(0, 1, 2, 5, 7, 8)))
