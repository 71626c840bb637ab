"""Real runs checked by the rules: as they ended, resumed, and altered afterwards."""

import json
import shutil

import pytest
from forked_ranks import resume

from hpcai500.score.rules.check import check_entry
from hpcai500.spec.workload import shipped_workloads


def test_a_real_run_keeps_every_rule_and_an_edit_is_named(launched, tmp_path):
    folder = tmp_path / launched.folder.name
    shutil.copytree(launched.folder, folder)
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


def test_a_data_set_that_changed_since_the_run_began_ends_its_resumption(killed, hpcai500):
    digest = killed.tiny.data / "digest"
    digest.write_text("1" * 16)
    code, _, err = hpcai500(*killed.tiny.command("--resume"))
    assert code == 2
    (line,) = err.splitlines()
    assert f"the data set's digest is {'1' * 16}, and was {'0' * 16} when the run began" in line
    digest.unlink()
    assert check_entry([resume(killed.folder)], whole_set=False).breaches == ()


OWN_MODEL = """

class Small(ImageClassification):
    def build_model(self):
        return nn.Sequential(nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 15 * 15, 10))

WORKLOAD = Small
"""


@pytest.mark.slow
def test_a_copied_and_changed_workload_runs_at_free_level_alone_and_discloses_what_it_changed(
    hpcai500, real_digits, tmp_path
):
    source = next(folder for folder in shipped_workloads() if folder.name == "image_classification")
    mine = tmp_path / "my_digits"
    shutil.copytree(source, mine, ignore=shutil.ignore_patterns("__pycache__"))
    with (mine / "workload.py").open("a") as file:
        file.write(OWN_MODEL)
    toml = (mine / "workload.toml").read_text()
    assert toml.count("warmup_epochs = 0.5") == 1
    (mine / "workload.toml").write_text(toml.replace("warmup_epochs = 0.5", "warmup_epochs = 1.0"))
    assert hpcai500("data", "verify", mine, "--problem", "mini", "--data", real_digits)[0] == 0
    words = (
        "run",
        mine,
        "--problem",
        "mini",
        "--data",
        real_digits,
        "--output",
        tmp_path / "results",
        "--system",
        "box",
    )
    code, _, err = hpcai500(*words, "--level", "hardware")
    assert (code, "Layer 7 is fixed at hardware level" in err) == (2, True)
    code, _, err = hpcai500(*words, "--level", "free")
    assert code == 0, err
    folder = next((tmp_path / "results").rglob("run.json")).parent
    code, out, _ = hpcai500("check", folder, "--json")
    (report,) = json.loads(out)
    assert (code, report["breaches"]) == (0, [])
    changes = "\n".join(report["changes"])
    assert "schedule.warmup_epochs: 0.5 -> 1.0" in changes
    assert "the code of the workload (my_digits, " in changes
    assert "the model: names and shapes of the model's 36,458 parameters differ" in changes
    (ranked,) = json.loads(hpcai500("rank", tmp_path / "results", "--json")[1])["lists"]
    assert (ranked["workload"], ranked["entries"][0]["overrides"]) == ("image_classification", ["workload=my_digits"])


def test_what_hardware_level_fixes_does_not_start(hpcai500, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = hpcai500(
        "run", "image_classification", "--level", "hardware", "--set", "optimizer.momentum=0.5", "--data", tmp_path
    )
    assert code == 2
    assert "optimizer.momentum" in err
    assert "--level free allows it" in err
    assert list(tmp_path.iterdir()) == []
