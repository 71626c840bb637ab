"""Whatever `rank` writes is consistent: figures computed again from the runs of the file are those that it states."""

import json
import os

import pytest
from fleet import write_fleet

from hpcai500.score.ranking.metrics import METRICS


def edit(folder, change):
    record = json.loads((folder / "result.json").read_text())
    change(record)
    (folder / "result.json").write_text(json.dumps(record))


def diverged(folder):
    edit(folder, lambda record: record.update({"status": "diverged", "unranked": ["status diverged"], "score": None}))
    os.utime(folder / "result.json", (2e9, 2e9))


def is_read_again(hpcai500, results, file, *options):
    assert hpcai500("rank", results, *options, "--output", file)[0] == 0
    code, _, err = hpcai500("rank", file)
    return (code, err) == (0, "")


@pytest.fixture
def odd_runs(add, results):
    """Missed targets, diverged runs, a run alone, equal runs, quality zero, measured energy, and rounded figures."""
    for seed in range(4):
        add([0.5, 0.84 if seed == 1 else 0.9], seed=seed, system="some-miss", energy=100.0 + seed)
    for seed in range(4):
        add([0.5, 0.84 if seed else 0.9], seed=seed, system="most-miss", total_sec=11.0 + seed)
    add([0.1, 0.2], system="all-miss", energy=50.0)
    add([0.0, 0.0], system="zero", energy=100.0)
    for system in ("twin-a", "twin-b"):
        for seed in range(3):
            add(seed=seed, system=system)
    for seed in range(2):
        add(seed=seed, system="lost")
    for seed in range(2, 6):
        diverged(add(seed=seed, system="lost"))
    edit(
        add(system="rounded", energy=10.0),
        lambda record: record["score"].update(vflops=record["score"]["vflops"] * (1 + 9e-7)),
    )
    return results


@pytest.mark.parametrize("exponents", [(), ("--exponent", "1,5,5,100"), ("--exponent", "1..20")])
@pytest.mark.parametrize("by", METRICS)
def test_a_ranking_of_odd_runs_is_read_again(hpcai500, odd_runs, tmp_path, by, exponents):
    assert is_read_again(hpcai500, odd_runs, tmp_path / "r.json", "--by", by, *exponents)


def test_a_ranking_of_many_entries_is_read_again(hpcai500, add, tmp_path):
    write_fleet(tmp_path / "fleet", add(), [(f"s{number}", 1 + number % 7, 1 + number % 5) for number in range(50)])
    assert is_read_again(hpcai500, tmp_path / "fleet", tmp_path / "r.json")
