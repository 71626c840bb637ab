import csv
import io
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from hpcai500.errors import InputError
from hpcai500.files import data_dir
from hpcai500.report.ranking.csv_table import render as ranking_csv
from hpcai500.score.ranking.collection import collect
from hpcai500.score.ranking.document import ranking_document
from hpcai500.score.ranking.published import rank_published
from hpcai500.score.ranking.ranking import rank
from hpcai500.score.record.result import derive, write_result
from hpcai500.score.record.valid_flops import valid_flops
from hpcai500.text import si

PUBLISHED = data_dir("workloads") / "image_classification" / "published" / "2020-07.csv"


def test_valid_flops_is_the_formula():
    assert valid_flops(100.0, 0.5, 0.5, 7) == 100.0
    assert valid_flops(100.0, 0.4, 0.5, 5) == pytest.approx(100 * 0.8**5)  # 32.768
    assert valid_flops(100.0, 0.55, 0.5, 2) == pytest.approx(121.0)  # not capped above the target


def test_a_result_is_derived_from_the_files_alone(make_spec, write_run):
    spec = make_spec(procs_per_node=2)
    folder = write_run(spec, [0.5, 0.96, 0.9], total_sec=30.0, flops_per_sample=1e9, energy=100.0)
    result = write_result(folder)
    assert result.status == "success"
    assert not result.unranked
    num_samples = 3 * 22 * 64
    assert result.flops.total == num_samples * 1e9
    assert result.flops.flops == pytest.approx(num_samples * 1e9 / 30.0)
    assert result.flops.flops_per_rank == pytest.approx(result.flops.flops / 2)
    assert result.flops.train_flops == pytest.approx(num_samples * 1e9 / 22.5)
    assert (result.time.total_sec, result.time.train_sec, result.time.init_sec) == (30.0, 22.5, 2.5)
    target = spec.settings.problem.target_quality
    assert result.score.vflops == pytest.approx(result.flops.flops * (0.9 / target) ** 5)
    assert (result.score.epochs_to_quality, result.score.time_to_quality_sec) == (2, 20.0)
    assert result.energy.joules == 300.0
    assert result.score.vflops_per_watt == pytest.approx(result.score.vflops / 10.0)
    assert derive(folder) == result
    moved = folder.parent / "moved"
    shutil.move(folder, moved)
    assert derive(moved) == result


def test_energy_that_was_not_measured_is_null_with_a_reason(make_spec, write_run):
    result = derive(write_run(make_spec(), [0.9]))
    assert result.energy.joules is None
    assert result.energy.missing == ("RAPL: none",)
    assert result.score.vflops_per_watt is None


def test_a_run_that_was_killed_is_aborted_and_keeps_its_epochs(make_spec, write_run):
    result = derive(write_run(make_spec(), [0.5, 0.6], stop=None))
    assert result.status == "aborted"
    assert len(result.epochs) == 2
    assert result.score is None
    assert result.unranked == ("status aborted",)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({"data": "synthetic"}, "synthetic data"), ({"unranked": True}, "a trial (--unranked)")],
)
def test_trials_and_synthetic_data_are_never_ranked_and_say_so(make_spec, write_run, fields, reason):
    folder = write_run(make_spec(**fields), [0.9])
    write_result(folder)
    collected = collect([folder])
    assert collected.runs == []
    assert reason in collected.not_ranked[0].reason


def test_entries_are_runs_of_one_experiment_in_order_of_mean_vflops(make_spec, write_run, tmp_path):
    for seed, seconds in ((0, 10.0), (1, 14.0)):
        write_result(write_run(make_spec(seed=seed, system="slow"), [0.85], total_sec=seconds))
    for seed, seconds in ((0, 5.0), (1, 7.0), (2, 6.0)):
        write_result(write_run(make_spec(seed=seed, system="fast"), [0.85], total_sec=seconds))
    write_result(write_run(make_spec(system="fast", procs_per_node=2), [0.85], total_sec=8.0))
    (ranked,) = rank(collect([tmp_path / "results"]).runs)
    assert ranked.target_quality == 0.85
    assert [(e.rank, e.system, e.world_size, e.seeds) for e in ranked.entries] == [
        (1, "fast", 1, (0, 1, 2)),
        (2, "fast", 2, (0,)),
        (3, "slow", 1, (0, 1)),
    ]
    flops = 22 * 64 * 1e9
    assert ranked.entries[0].vflops.mean == pytest.approx(flops * np.mean([1 / 5, 1 / 7, 1 / 6]))


def test_mini_and_full_and_levels_never_share_a_list(make_spec, write_run, tmp_path):
    for fields in ({}, {"problem": "full"}, {"level": "system"}):
        write_result(write_run(make_spec(**fields), [0.95]))
    lists = rank(collect([tmp_path / "results"]).runs)
    assert sorted((one.problem, one.level) for one in lists) == [
        ("full", "free"), ("mini", "free"), ("mini", "system"),
    ]  # fmt: skip
    assert all(len(one.entries) == 1 for one in lists)


def test_broken_results_are_listed_with_the_reason_and_never_count(make_spec, write_run, tmp_path):
    good = write_run(make_spec(), [0.95])
    write_result(good)
    for name, text in (("torn", '{"schema_ver'), ("newer", '{"schema_version": 99}')):
        (tmp_path / "results" / name).mkdir()
        (tmp_path / "results" / name / "result.json").write_text(text)
    collected = collect([tmp_path / "results"])
    assert len(collected.runs) == 1
    assert len(collected.not_ranked) == 2


TOLERANCE = {5: 0.02, 9: 0.06}  # the list's own rounding: 2.41 for 2.45 and 0.70 for 0.737


def test_the_published_list_is_reproduced_with_exponent_10_and_not_with_5():
    ranked = rank_published(PUBLISHED)
    assert ranked.penalty_exponent == 10
    assert len(ranked.entries) == 9
    for entry in ranked.entries:
        assert entry.ratio == pytest.approx(1, abs=TOLERANCE.get(entry.published_rank, 0.01))
        assert entry.rank == entry.published_rank
    # Fujitsu by hand: 23e9 * 90 * 1,281,167 / 72 s * (75.1 / 76.3) ** 10
    assert ranked.entries[0].vflops == pytest.approx(36.8336e15 * 0.85340, rel=1e-4)
    worst = max(entry.ratio for entry in rank_published(PUBLISHED, 5).entries)
    assert 1.10 < worst < 1.12


def test_a_row_is_marked_by_its_own_column_whatever_the_note_says(tmp_path):
    assert {entry.source for entry in rank_published(PUBLISHED).entries if entry.is_suspect} == {"Tencent", "PFN"}
    shutil.copytree(PUBLISHED.parents[1], tmp_path / "mine")
    rules, rows = tmp_path / "mine" / "workload.toml", tmp_path / "mine" / "published" / "2020-07.csv"
    rules.write_text(rules.read_text().replace("Tencent (4) and PFN (5) appear", "Sony (3) appears"))
    assert {entry.source for entry in rank_published(rows).entries if entry.is_suspect} == {"Tencent", "PFN"}
    text = rows.read_text()
    rows.write_text(text.replace(",true", ",false"))
    assert not any(entry.is_suspect for entry in rank_published(rows).entries)
    rows.write_text(text.replace(",true", ",maybe"))
    with pytest.raises(InputError, match=r"2020-07.csv:5: 'maybe' is neither true nor false"):
        rank_published(rows)


def test_a_published_list_that_no_workload_names_is_refused(tmp_path):
    folder = tmp_path / "mine" / "published"
    folder.mkdir(parents=True)
    shutil.copy(PUBLISHED, folder / "other.csv")
    shutil.copy(PUBLISHED.parent.parent / "workload.toml", folder.parent)
    with pytest.raises(InputError, match=r"other\.csv: not named in"):
        rank_published(folder / "other.csv")
    (folder / "2020-07.csv").write_text(PUBLISHED.read_text().replace("2048,MXNet,1.2", "2048,MXNet,fast"))
    with pytest.raises(InputError, match=r"2020-07\.csv:2: could not convert"):
        rank_published(folder / "2020-07.csv")


def test_csv_holds_plain_numbers(make_spec, write_run, tmp_path):
    write_result(write_run(make_spec(), [0.95]))
    lists = rank(collect([tmp_path / "results"]).runs)
    rows = list(csv.DictReader(io.StringIO(ranking_csv(ranking_document(lists, [rank_published(PUBLISHED)])))))
    assert len(rows) == 10
    assert math.isclose(float(rows[0]["vflops"]), lists[0].entries[0].vflops.mean)
    assert rows[1]["published_vflops"] == "3.141e+16"


def test_si_prefixes():
    assert [si(x) for x in (None, 0.5, 999.0, 1_000.0, 31.41e15, 2.5e18)] == [
        "-", "0.5", "999", "1 k", "31.41 P", "2.5 E",
    ]  # fmt: skip


def test_result_json_is_strict_json(make_spec, write_run):
    folder = write_run(make_spec(), [0.9])
    write_result(folder)

    def refuse(text):
        raise AssertionError(text)

    json.loads(Path(folder / "result.json").read_text(), parse_constant=refuse)
