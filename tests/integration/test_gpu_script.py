"""benchmarks/gpu.py on a machine without a GPU: small, but complete."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent.parent / "benchmarks" / "gpu.py"


@pytest.mark.slow
def test_one_call_measures_both_workloads_against_the_device_s_own_kernels(tmp_path):
    command = [sys.executable, SCRIPT, "--device", "cpu", "--output", tmp_path]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, env=env)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert [(row["workload"], row["input"], row["failure"]) for row in found["measured"]] == [
        ("image_classification", "random", ""), ("extreme_weather", "random", ""),
        ("image_classification", "real", ""), ("extreme_weather", "real", ""),
    ]  # fmt: skip
    gemm = max(each["value"] for each in found["ceilings"] if each["metric"].startswith("gemm"))
    for row in found["measured"]:
        assert row["of_gemm"] == pytest.approx(row["flops"] / gemm)
        assert row["step_ms"] == pytest.approx(1_000 * row["batch"] / row["samples_per_sec"])
        assert row["memory_bytes"] is None
        assert row["joules_per_sample"] is None
    table = (tmp_path / "gpu.md").read_text()
    assert table.count("| extreme_weather ") == 2
    assert "7,767 images/s a GPU" in table
