"""Real runs held against the rules: as they ended, resumed, and altered afterwards."""

import json

import pytest

from hpcai500.events.reader import find, read_events
from hpcai500.events.vocabulary import Key
from hpcai500.score.compliance import check_entry


@pytest.fixture
def tiny_run(hpcai500_process, tmp_path):
    """Run the tiny workload; the process and the run's folder."""

    def call(*arguments):
        workload = __file__.replace("test_levels.py", "tiny")
        process = hpcai500_process(
            "run", workload, "--problem", "mini", "--data", tmp_path, "--output", tmp_path / "results",
            "--system", "box", "--procs-per-node", "2", *arguments,
        )  # fmt: skip
        return process, next((tmp_path / "results").rglob("run.json")).parent

    return call


def test_a_real_run_keeps_every_rule_and_an_edit_is_named(tiny_run):
    process, folder = tiny_run()
    assert process.returncode == 0, process.stderr
    report = check_entry([folder], whole_set=False)
    assert report.breaches == ()
    system = json.loads((folder / "system.json").read_text())
    assert sorted(system["layers"]) == ["7", "8", "9"]
    structure = system["layers"]["7"]["structure"]
    # convolution 3 -> 8, 3x3, 6x6 outputs; linear 288 -> 4
    assert structure["layer_flops"] == {"0": 2 * 27 * 8 * 36, "5": 2 * 288 * 4}
    assert structure["layer_parameters"] == {"0": 27 * 8 + 8, "1": 8 + 8, "5": 288 * 4 + 4}
    log = folder / "events.log"
    log.write_text(log.read_text().replace('"num_samples": 64', '"num_samples": 63', 1))
    assert {"1.2", "1.4", "3.3"} <= {breach.rule for breach in check_entry([folder], whole_set=False).breaches}


def test_a_run_that_was_killed_and_resumed_keeps_every_rule(tiny_run, tmp_path):
    (tmp_path / "kill-rank-1-epoch-2").touch()
    process, folder = tiny_run()
    assert process.returncode != 0
    assert not (folder / "manifest.json").exists()
    process, folder = tiny_run("--resume")
    assert process.returncode == 0, process.stderr
    assert find(read_events(folder / "events.log"), Key.RESUMED)
    assert check_entry([folder], whole_set=False).breaches == ()


def test_what_hardware_level_fixes_does_not_start(hpcai500, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = hpcai500(
        "run", "image_classification", "--level", "hardware", "--set", "optimizer.momentum=0.5", "--data", tmp_path
    )
    assert code == 2
    assert "optimizer.momentum" in err
    assert "--level free allows it" in err
    assert list(tmp_path.iterdir()) == []
