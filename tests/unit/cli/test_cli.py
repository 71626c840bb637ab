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
    "data": SHARED | PROBLEM | {
        "action", "--source", "--samples", "--seed", "sample", "--predictions", "--channels", "--image",
    },
    "run": SHARED | EXPERIMENT | {"--launcher", "--site", "--resume"},
    "render": SHARED | EXPERIMENT | {"--site", "--slurm", "--parallel"},
    "submit": SHARED | EXPERIMENT | {"--site", "--slurm", "--parallel"},
    "status": SHARED | {"paths", "--watch"},
    "logs": SHARED | {"paths", "--lines"},
    "cancel": SHARED | {"paths"},
    "ingest": SHARED | {
        "log", "--workload", "--problem", "--system", "--seed", "--nodes", "--source", "--output", "--run",
    },
    "site": SHARED | {"action", "site", "--slurm", "--nodes", "--no-job"},
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
    actions = build_parser()._actions
    (commands,) = [action for action in actions if isinstance(action, argparse._SubParsersAction)]
    found = {
        name: {word for action in parser._actions for word in (action.option_strings or [action.dest])}
        for name, parser in commands.choices.items()
    }
    assert found == SURFACE


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


def test_help_does_not_import_what_is_slow():
    check = (
        "import sys\nfrom hpcai500.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "slow = {'torch', 'pydantic', 'jinja2', 'numpy', 'scipy', 'tabulate'} & set(sys.modules)\n"
        "assert not slow, slow"
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
