"""The example of a workload, by the commands of its README."""

import json
import re
import shlex
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def commands() -> list[list[str]]:
    block = re.search(r"```\n(.*?)```", (EXAMPLES / "tiny_workload" / "README.md").read_text(), re.DOTALL)
    assert block
    return [shlex.split(line)[1:] for line in block[1].splitlines()]


@pytest.mark.slow
def test_the_commands_of_its_page_train_a_set_without_a_breach(tmp_path, hpcai500_process):
    (tmp_path / "examples").symlink_to(EXAMPLES)
    printed = {}
    for words in commands():
        done = hpcai500_process(*words, "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        printed[words[0]] = json.loads(done.stdout)
    assert list(printed) == ["data", "run", "check", "rank"]
    assert {run["status"] for run in printed["run"]} == {"success"}
    (entry,) = printed["rank"]["lists"][0]["entries"]
    assert (len(entry["seeds"]), entry["num_breaches"]) == (5, 0)
