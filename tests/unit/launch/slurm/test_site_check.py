"""`hpcai500 site` with programs that answer like Slurm 22.05; tests/slurm uses the real ones."""

import json
import os
import shlex
import tomllib
from pathlib import Path

import pytest

from hpcai500.launch.slurm.cluster import Node, parse_mpi_plugins, parse_nodes
from hpcai500.spec.site import load_site, site_folders

RECORDED = Path(__file__).parent / "slurm_22_05"
TESTBED = str(site_folders()[1] / "testbed.toml")

PROGRAM = """\
#!/bin/bash
cd {folder}
case "${{0##*/}} $*" in
    "scontrol show config") cat config.txt ;;
    "scontrol show partition --oneliner --all") cat partitions.txt ;;
    sinfo*) cat nodes.txt ;;
    "srun --mpi=list") cat mpi.txt ;;
    "srun --help") cat help.txt ;;
    srun*) shift $(($# - $(cat num_job_words.txt))); exec "$@" ;;
    sacct*) [ -z "$(cat sacct.txt)" ] || {{ cat sacct.txt >&2; exit 1; }} ;;
    sbatch*) printf '%s\\n' "$@" >sbatch.seen; echo "sbatch: Job 9 to start at once" >&2 ;;
    *) exit 9 ;;
esac
"""


@pytest.fixture
def check(tmp_path, monkeypatch, hpcai500):
    """Check a profile with each word of `changes` replaced in Slurm's output. Return lines by level, and the code."""
    tools = tmp_path / "bin"
    tools.mkdir()
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)

    def run(*options: str, site: str = TESTBED, changes: dict[str, str] | None = None, **files: str):
        for path in RECORDED.iterdir():
            text = path.read_text()
            for old, new in (changes or {}).items():
                text = text.replace(old, new)
            (tools / path.name).write_text(text)
        for name, text in ({"help": "", "sacct": "", "num_job_words": "0"} | files).items():
            (tools / f"{name}.txt").write_text(text)
        for name in ("scontrol", "sinfo", "srun", "sacct", "sbatch"):
            (tools / name).write_text(PROGRAM.format(folder=shlex.quote(str(tools))))
            (tools / name).chmod(0o755)
        code, out, err = hpcai500("site", "check", site, "--json", *options)
        assert err == "", err
        found = [tuple(finding.values()) for finding in json.loads(out)["findings"]]
        return code, {f"{level} {subject}": message for level, subject, message in found}

    return run


def test_a_profile_that_fits_has_no_warning(check):
    code, found = check("--no-job")
    assert code == 0
    assert {key.split()[0] for key in found} == {"ok"}
    assert found["ok nodes"] == "2 of the 4 in debug that are up, 4 in all"
    assert found["ok time"] == "00:30:00; debug allows 01:00:00"
    assert found["ok sbatch"] == "Job 9 to start at once"


def test_sbatch_is_asked_with_the_options_of_a_real_job(check, tmp_path):
    check("--no-job", "--nodes", "3", "--slurm", "account=me")
    seen = (tmp_path / "bin" / "sbatch.seen").read_text().splitlines()
    assert seen[0] == "--test-only"
    assert {"--nodes=3", "--account=me", "--partition=debug", "--time=00:30:00", "--signal=USR1@120"} <= set(seen)


@pytest.mark.parametrize(
    ("options", "changes", "key", "message"),
    [
        (["partition=debgu"], {}, "error partition", "no partition 'debgu'; did you mean 'debug'?"),
        (["partition="], {"Default=YES": "Default=NO"}, "error partition", "no default partition"),
        ([], {"State=UP": "State=DRAIN"}, "error partition", "debug is drain: choose another"),
        (["time=02:00:00"], {}, "error time", "slurm.time 02:00:00 is above the 01:00:00 that debug allows"),
        (["nodes=5"], {}, "error nodes", "asks for 5 nodes; debug has 4"),
        (["nodes=4"], {"node3|idle": "node3|down*"}, "error nodes", "asks for 4 nodes; 3 of the 4 in debug are up"),
        (["nodes=2"], {"MaxNodes=UNLIMITED": "MaxNodes=1"}, "error nodes", "more than the 1 that debug allows"),
        (["gpus_per_node=8"], {}, "error GPUs", "asks for 8 GPUs per node; in debug, 2 at once have 2 each"),
        (["gpus_per_node=1", "gpu_type=a10"], {"gpu:2": "gpu:a100:2(S:0-1)"}, "error GPUs", "mean 'a100'"),
        (["cpus_per_task=5"], {}, "error CPUs", "asks for 5 CPUs per node; in debug, 2 at once have 4 each"),
        (["memory=9G"], {}, "error memory", "asks for 9,216 MB of memory per node"),
        (["mpi=pmix_v3"], {}, "error MPI", "srun has no plugin 'pmix_v3'; it has pmix, none"),
        ([], {"AllowAccounts=ALL": "AllowAccounts=a,b"}, "warning account", "open only to accounts a,b, not to no"),
        (["account=c"], {"AllowAccounts=ALL": "AllowAccounts=a,b"}, "error account", "a,b, not to account c"),
        (["account=c"], {"AllowAccounts=ALL": "DenyAccounts=b,c"}, "error account", "debug is closed to account c"),
        ([], {"AllowGroups=ALL": "AllowGroups=nobody_here"}, "error group", "open only to groups nobody_here"),
        ([], {"PreemptMode=OFF": "PreemptMode=CANCEL"}, "warning preemption", "cancels what it preempts"),
        ([], {"= 64\n": "= 0\n"}, "error arrays", "MaxArraySize is 0"),
        (["container.engine=pyxis"], {}, "error container", "pyxis is not installed"),
    ],
)  # fmt: skip
def test_what_would_fail_is_one_line(check, options, changes, key, message):
    given = [word for option in options for word in ("--slurm", option)]
    if any("pyxis" in option for option in options):
        given += ["--slurm", "image=a"]
    code, found = check("--no-job", *given, changes=changes)
    assert message in found[key]
    assert code == (1 if key.startswith("error") else 0)


def test_a_default_partition_and_an_account_that_is_let_in_are_fine(check):
    changes = {"AllowAccounts=ALL": "AllowAccounts=a,b", "MaxTime=01:00:00": "MaxTime=UNLIMITED"}
    code, found = check("--no-job", "--slurm", "partition=", "--slurm", "account=b", changes=changes)
    assert code == 0
    assert found["ok time"] == "00:30:00; debug allows UNLIMITED"
    assert not [key for key in found if not key.startswith("ok")]


def test_accounting_that_is_off_is_only_a_warning(check):
    code, found = check("--no-job", sacct="Slurm accounting storage is disabled\n")
    assert code == 0
    assert found["warning accounting"].startswith(
        "Slurm accounting storage is disabled; how a job ended is forgotten"
    )


def test_paths_are_looked_at_by_a_job_and_the_ones_that_fail_are_named(check, tmp_path):
    """Here the job runs on this machine: `srun` starts the words after its own options."""
    (tmp_path / "data").mkdir()
    places = [
        "--slurm", f'places.data={{a = "{tmp_path}/data", b = {{ full = "/absent/b" }} }}',
        "--slurm", f"staging={tmp_path}/made/later", "--slurm", "python=/absent/python",
    ]  # fmt: skip
    num_job_words = 4 + 3 * 5
    code, found = check(*places, num_job_words=str(num_job_words))
    assert code == 1
    assert {key: message for key, message in found.items() if not key.startswith("ok")} == {
        "error python": "no program /absent/python on the nodes: set software.python",
        "error data": "no folder /absent/b on the nodes: set places.data",
    }
    assert not list(tmp_path.glob(".hpcai500*"))
    assert not (tmp_path / "made").exists()


def test_a_node_that_cannot_be_asked_leaves_paths_unchecked_with_a_warning(check):
    code, found = check(num_job_words="1")
    assert code == 0
    assert found["warning paths"].startswith("no node could be asked: ")


def test_without_slurm_the_code_is_3_and_the_mend_is_named(hpcai500, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, err = hpcai500("site", "check", TESTBED)
    assert code == 3
    assert "no Slurm on this machine: scontrol is not on PATH; log in to the cluster, or load its module\n" in err


def test_a_controller_that_does_not_answer_is_said_in_its_own_words(hpcai500, monkeypatch, tmp_path):
    program = tmp_path / "scontrol"
    program.write_text(
        "#!/bin/bash\necho 'slurm_load_ctl_conf error: Unable to contact slurm controller' >&2; exit 1\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    code, _, err = hpcai500("site", "check", TESTBED)
    assert code == 3
    assert "scontrol show config: slurm_load_ctl_conf error: Unable to contact slurm controller; see" in err


def test_a_check_reads_as_lines_of_level_and_subject(check, hpcai500):
    check("--no-job")
    lines = hpcai500("site", "check", TESTBED, "--no-job")[1].splitlines()
    assert lines[0] == "ok      time: 00:30:00; debug allows 01:00:00"


def test_nodes_are_up_unless_slurm_has_given_them_up():
    states = [
        "idle",
        "mixed",
        "allocated",
        "idle~",
        "planned",
        "completing",
        "down*",
        "idle*",
        "drained",
        "draining$",
    ]
    text = "".join(f"p|n{i}|{state}|64|515000|gpu:a100:8(S:0-1),nvme:1\n" for i, state in enumerate(states))
    nodes = parse_nodes(text + "q|m|idle|4+|100+|(null)\n")
    assert [node.is_up for node in nodes["p"]] == [True] * 6 + [False] * 4
    assert (nodes["p"][0].gpus, nodes["q"]) == ({"a100": 8}, [Node("m", True, 4, 100, {})])


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ((RECORDED / "mpi.txt").read_text(), ("pmix", "none", "cray_shasta", "pmi2", "pmix_v4")),
        ("srun: MPI types are...\nsrun: none\n", ("none",)),
        ("MPI plugin types are...\n\tnone\n\tpmix\nspecific pmix plugin versions available: pmix_v4,pmix_v5\n",
         ("none", "pmix", "pmix_v4", "pmix_v5")),
    ],
)  # fmt: skip
def test_mpi_plugins_are_read_in_the_forms_of_several_versions(text, names):
    assert parse_mpi_plugins(text) == names


def test_list_names_every_profile_and_show_prints_one_that_reads_back(hpcai500, tmp_path):
    assert "testbed: " in hpcai500("site", "list")[1]
    assert set(json.loads(hpcai500("site", "list", "--json")[1])) >= {"cpu", "gpu8", "apptainer", "pyxis", "testbed"}
    options = ["--slurm", 'environment={A="x \\"y\\""}', "--slurm", 'places.data={a={full="/d"}}']
    code, out, _ = hpcai500("site", "show", TESTBED, *options)
    assert code == 0
    (tmp_path / "copy.toml").write_text(out)
    copy = load_site(str(tmp_path / "copy.toml"))
    assert copy.model_dump(mode="json") == json.loads(hpcai500("site", "show", TESTBED, *options, "--json")[1])
    assert tomllib.loads(out)["software"]["environment"] == {"A": 'x "y"'}
    assert hpcai500("site", "show")[0] == 2
