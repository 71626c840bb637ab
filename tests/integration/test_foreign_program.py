"""The example that imports nothing of ours is really trained, timed, checked and ranked."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

EXAMPLE = Path(__file__).parents[2] / "examples" / "foreign_program"


@pytest.mark.slow
def test_the_example_is_trained_timed_checked_and_ranked(hpcai500, real_digits, tmp_path):
    code, _, err = hpcai500(
        "ingest", tmp_path / "train.log", "--workload", "image_classification", "--problem", "mini",
        "--source", EXAMPLE, "--output", tmp_path / "results",
        "--run", sys.executable, EXAMPLE / "train.py", real_digits, "--system", "box", "--seed", "7",
    )  # fmt: skip
    assert code == 0, err
    keys = [json.loads(line.split(" ", 1)[1])["key"] for line in (tmp_path / "train.log").read_text().splitlines()]
    assert keys.index("init_stop") < keys.index("run_start") < keys.index("hpcai500.dataset")
    folder = next((tmp_path / "results" / "box").rglob("run.json")).parent
    code, out, _ = hpcai500("check", folder, "--json")
    (report,) = json.loads(out)
    assert (code, report["breaches"]) == (0, []), report
    ranked = json.loads(hpcai500("rank", tmp_path / "results", "--json")[1])
    (entry,) = ranked["lists"][0]["entries"]
    assert (entry["backend"], entry["seeds"]) == ("foreign", [7])
    assert entry["quality"]["mean"] > 0.85


def test_the_example_imports_nothing_of_ours_and_counts_its_flops_as_torch_does():
    source = (EXAMPLE / "train.py").read_text()
    assert not any("import" in line and "hpcai500" in line for line in source.splitlines())
    spec = importlib.util.spec_from_file_location("foreign_train", EXAMPLE / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model, flops = module.build_model()
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, 3, 32, 32)).sum().backward()
    assert counter.get_total_flops() == 2 * (3 * sum(flops.values()) - flops["conv0"])
