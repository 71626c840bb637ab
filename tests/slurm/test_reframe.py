"""The ReFrame checks, run by the real ReFrame on the testbed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REFRAME = Path(__file__).parents[2] / "slurm/reframe"
SHORT_RUNS = (
    "--data synthetic --unranked --precision fp32 --set problem.num_epochs=2 --set batch.global_batch_size=4 "
    "--set problem.num_train_samples=8 --set problem.num_eval_samples=4 --output results"
)


@pytest.fixture(scope="session")
def reframe(cluster, pytestconfig):
    """ReFrame's command, in a virtual environment of its own."""
    venv = pytestconfig.cache.mkdir("reframe") / "venv"
    command = venv / "bin" / "reframe"
    if not command.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
        install = [venv / "bin" / "python", "-m", "pip", "install", "--quiet", "reframe-hpc>=4.8,<5"]
        done = subprocess.run(install, capture_output=True, text=True, check=False)
        if done.returncode and os.environ.get("HPCAI500_REQUIRE_REFRAME") == "1":
            pytest.fail(done.stderr)
        if done.returncode:
            pytest.skip(f"ReFrame cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    return command


@pytest.fixture
def checked(reframe, desk):
    """ReFrame's result for checks on two nodes: exit code, output, and report by check."""

    def run(expected, *options):
        (desk.folder / "expected.toml").write_text(expected)
        env = {
            **desk.cluster.env,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HPCAI500_EXPECTED": str(desk.folder / "expected.toml"),
            "HPCAI500_VALIDATE_OPTIONS": "--stages health,links",
            "HPCAI500_RUN_OPTIONS": SHORT_RUNS,
        }
        report = desk.folder / "report.json"
        done = desk.cluster.run(
            reframe, "--config-file", REFRAME / "testbed_settings.py", "--checkpath",
            REFRAME / "hpcai500_checks.py", "--prefix", desk.folder / "reframe", "--report-file", report, "--run",
            *options, check=False, env=env, timeout=280,
        )  # fmt: skip
        cases = json.loads(report.read_text())["runs"][0]["testcases"]
        return done.returncode, done.stdout + done.stderr, {case["display_name"]: case for case in cases}

    return run


def test_the_checks_report_their_figures_as_performance_variables(checked):
    expected = '[[expect]]\nmetric = "links/link_bytes_per_sec"\nreference = 1e9\nlower = -0.999\nunit = "B/s"\n'
    code, said, cases = checked(expected)
    assert code == 0, said
    found = {name: {key.rpartition(":")[2]: value for key, value in case["perfvalues"].items()}
             for name, case in cases.items()}  # fmt: skip
    assert found.keys() == {
        "ValidateNodes",
        "MiniWorkload %workload=image_classification",
        "MiniWorkload %workload=extreme_weather",
    }
    assert found["ValidateNodes"].keys() == {"links/link_bytes_per_sec", "links/link_latency_sec"}
    value, reference, lower, upper, unit, *_ = found["ValidateNodes"]["links/link_bytes_per_sec"]
    assert (reference, lower, upper, unit) == (1e9, -0.999, None, "B/s")
    assert value > 1e6
    for workload in ("image_classification", "extreme_weather"):
        figures = found[f"MiniWorkload %workload={workload}"]
        assert {name.partition("/")[2] for name in figures} == {"vflops", "flops", "quality", "time_sec"}


def test_a_figure_below_its_reference_fails_the_check_and_is_named(checked):
    expected = '[[expect]]\nmetric = "links/link_bytes_per_sec"\nreference = 1e15\nlower = -0.1\nunit = "B/s"\n'
    code, said, cases = checked(expected, "--name", "ValidateNodes")
    assert code == 1
    assert cases["ValidateNodes"]["result"] == "fail"
    assert "link_bytes_per_sec" in said
