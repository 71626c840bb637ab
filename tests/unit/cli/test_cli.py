import argparse
import json
import os
import subprocess
import sys

import pytest

from hpcai500.cli.main import build_parser
from hpcai500.score.record.result import write_result

SHARED = {"-h", "--help", "--json", "--debug"}
PROBLEM = {"workload", "--problem", "--set", "--data"}
EXPERIMENT = PROBLEM | {
    "--level", "--backend", "--nodes", "--procs-per-node", "--seed", "--seeds", "--precision", "--deterministic",
    "--stop-at-target", "--unranked", "--system", "--output", "--staging", "--resume-from",
}  # fmt: skip
SURFACE = {
    "list": SHARED,
    "data": SHARED | {"action"},
    "data prepare": SHARED | PROBLEM | {"--source"},
    "data synthesize": SHARED | PROBLEM | {"--samples", "--seed"},
    "data verify": SHARED | PROBLEM,
    "data show": SHARED | PROBLEM | {"sample", "--predictions", "--channels", "--image"},
    "run": SHARED | EXPERIMENT | {"--launcher", "--site", "--resume"},
    "render": SHARED | EXPERIMENT | {"--site", "--slurm", "--parallel"},
    "submit": SHARED | EXPERIMENT | {"--site", "--slurm", "--parallel"},
    "status": SHARED | {"paths", "--watch"},
    "logs": SHARED | {"paths", "--lines"},
    "cancel": SHARED | {"paths"},
    "ingest": SHARED | {
        "log", "--workload", "--problem", "--system", "--seed", "--nodes", "--source", "--output", "--run",
    },
    "site": SHARED | {"action"},
    "site check": SHARED | {"site", "--slurm", "--nodes", "--no-job"},
    "site show": SHARED | {"site", "--slurm"},
    "site list": SHARED,
    "predict": SHARED
    | {"paths", "--nodes", "--procs-per-node", "--scaling", "--network", "--bandwidth-gb-s", "--latency-us"}
    | {"--within-node-gb-s", "--within-node-latency-us", "--plot"},
    "rank": SHARED | {"--unverified", "paths", "--by", "--format", "--output", "--exponent"},
    "check": SHARED | {"--unverified", "paths", "--reference"},
    "compare": SHARED | {"left", "right", "--all", "--level"},
    "package": SHARED | {"paths", "--output"},
    "verify": SHARED | {"archive"},
    "repeatability": SHARED | {"--unverified", "paths", "--reference"},
    "show": SHARED | {"paths"},
    "micro": SHARED
    | {"--only", "--device", "--precisions", "--budget-sec", "--workload", "--problem", "--folder", "--data"}
    | {"--backend", "--launcher", "--nodes", "--procs-per-node", "--sizes", "--site", "--slurm", "--output"},
    "roofline": SHARED
    | {"paths", "--workload", "--problem", "--precision", "--device", "--ceilings", "--budget-sec", "--plot"},
    "validate": SHARED
    | {"--site", "--partition", "--nodes", "--level", "--stages", "--per-node", "--output", "--baseline"}
    | {"--any-baseline", "--save-baseline", "--expected", "--format", "--report", "--timeout-sec"}
    | {"--step-timeout-sec", "--slurm"},
}  # fmt: skip


def test_the_public_surface_changes_only_on_purpose():
    assert dict(surface(build_parser())) == SURFACE


def surface(parser, prefix=""):
    """Every command, and every action of one, with the words that it takes."""
    for nested in (action for action in parser._actions if isinstance(action, argparse._SubParsersAction)):
        for name, command in nested.choices.items():
            words = {word for action in command._actions for word in (action.option_strings or [action.dest])}
            yield prefix + name, words
            yield from surface(command, f"{prefix}{name} ")


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        ([], 2, "COMMAND"),
        (["ran"], 2, "invalid choice: 'ran'"),
        (["run", "image_clasification"], 2, "did you mean 'image_classification'"),
        (["run", "image_classification", "--seed", "one"], 2, "--seeds one: 'one' is not a seed"),
        (["run", "image_classification", "--set", "problem.target_quality=1.5"], 2, "less than or equal to 1"),
        (["run", "image_classification", "--problem", "tiny"], 2, "choose from full, mini"),
        (["run", "image_classification", "--procs-per-node", "0"], 2, "greater than or equal to 1"),
        (["run", "image_classification", "--nodes", "2"], 2, "launcher local starts ranks on this machine only"),
        (
            ["run", "image_classification", "--launcher", "mpirnu"],
            2,
            "did you mean 'mpirun'",
        ),
        (["run", "image_classification", "--data", "/absent"], 2, "no data directory /absent; run `hpcai500 data"),
        (["data", "verify", "image_classification", "--data", "/absent"], 2, "no data directory /absent"),
        (["rank", "/absent"], 2, "/absent: no such file or folder"),
        (["rank", "--exponent", "0", "/"], 2, "not positive whole numbers"),
    ],
)
def test_bad_input_is_one_line_and_the_right_exit_code(hpcai500, tmp_path, monkeypatch, argv, code, message):
    monkeypatch.chdir(tmp_path)
    got, _, err = hpcai500(*argv)
    assert got == code
    assert message in err
    assert err.startswith("hpcai500: error: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_bug_of_ours_is_one_line_with_code_70_and_a_traceback_when_asked(hpcai500, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(os, "scandir", broken)  # no answer that a system gives
    code, _, err = hpcai500("rank", ".")
    assert (code, err.count("\n")) == (70, 1)
    assert "ZeroDivisionError: oops" in err
    assert "Traceback" in hpcai500("rank", ".", "--debug")[2]


def test_an_action_offers_only_its_own_options(hpcai500, capsys):
    with pytest.raises(SystemExit):
        hpcai500("data", "prepare", "--help")
    shown = capsys.readouterr().out
    assert "usage: hpcai500 data prepare" in shown
    assert "--source" in shown
    assert not any(other in shown for other in ("--samples", "--seed", "--channels", "--image"))
    code, _, err = hpcai500("site", "list", "--nodes", "2")
    assert (code, "unrecognized arguments: --nodes 2" in err) == (2, True)


def test_json_may_be_asked_for_before_and_after_an_action(hpcai500):
    listed = hpcai500("site", "list", "--json")
    assert listed == hpcai500("site", "--json", "list")
    assert "testbed" in json.loads(listed[1])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ("render", "image_classification", "--site", "testbed", "--nodes", "1,two"),
            "'two' is not a number of nodes",
        ),
        (("render", "image_classification", "--site", "testbed", "--nodes", "2,1,2"), "a number is given twice"),
        (("predict", "results", "--nodes", "1,0"), "'0' is not a number of nodes"),
        (("predict", "results", "--nodes", "1000001"), "'1000001' is not a number of nodes"),
        (("micro", "--sizes", "8,,8"), "'' is not a number of bytes"),
    ],
)
def test_every_list_of_numbers_is_read_alike(hpcai500, argv, message):
    code, _, err = hpcai500(*argv)
    assert code == 2
    assert message in err


def test_help_does_not_import_what_is_slow():
    check = (
        "import sys\nfrom hpcai500.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "slow = {'torch', 'pydantic', 'jinja2', 'numpy', 'scipy', 'tabulate'} & set(sys.modules)\n"
        "assert not slow, slow\n"
        "rooms = {name.split('.')[1] for name in sys.modules if name.startswith('hpcai500.')}\n"
        "assert rooms == {'cli', 'errors', 'launch', 'report', 'score', 'text'}, rooms"
    )
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True)


def test_list_names_workloads_problems_and_what_is_missing(hpcai500, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = hpcai500("list", "--json")
    listing = json.loads(out)
    assert code == 0
    (workload,) = [w for w in listing["workloads"] if w["name"] == "image_classification"]
    full = next(p for p in workload["problems"] if p["name"] == "full")
    assert (full["target_quality"], full["num_epochs"]) == (0.763, 90)
    assert full["missing"] == "data in data/image_classification/full"


def test_rank_and_repeatability_show_a_group_over_seeds(hpcai500, make_spec, write_run, tmp_path):
    for seed, qualities in ((0, [0.5, 0.95]), (1, [0.92, 0.97]), (2, [0.5, 0.6])):
        write_result(write_run(make_spec(seed=seed), qualities))
    code, out, _ = hpcai500("rank", tmp_path / "results")
    assert code == 0
    assert "mini problem, free level: top-1 accuracy, target 0.85, n = 5" in out
    row = next(line for line in out.splitlines() if line.startswith("1 "))
    assert row.split()[:6] == ["1", "testbox", "1", "torch", "fp32", "2/3"]
    assert max(map(len, out[: out.index("reached:")].splitlines())) <= 100
    code, out, _ = hpcai500("repeatability", tmp_path / "results")
    line = next(line for line in out.splitlines() if line.startswith("epochs to quality"))
    assert line.split()[3:8] == ["2", "of", "3", "1.5", "2"]
    data = json.loads(hpcai500("rank", "--json", "--exponent", "1", tmp_path / "results")[1])
    entry = data["lists"][0]["entries"][0]
    mean_quality = (0.95 + 0.97 + 0.6) / 3
    assert entry["vflops"]["mean"] == pytest.approx(entry["flops"]["mean"] * mean_quality / 0.85)
    assert hpcai500("rank", "--format", "md", tmp_path / "results")[1].startswith("## Image Classification")
