import json
import os
import shutil
from pathlib import Path

import pytest

from hpcai500.errors import OccupiedError, PreemptedError, SpecError
from hpcai500.runs.start import run_once
from hpcai500.spec.layers import Layer
from hpcai500.spec.levels import Level
from hpcai500.spec.run import parse_overrides, parse_seeds, read_run
from hpcai500.spec.workload import load_rules, settings_keys, shipped_workloads


@pytest.mark.parametrize(("text", "seeds"), [("0", [0]), ("0-3", [0, 1, 2, 3]), ("5,1-2", [5, 1, 2]), (" 7 ", [7])])
def test_seeds_are_numbers_and_ranges(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "1.5", "-1", "3-1", "0,0", "0-2,1", "1,,2", "0-99999999999"])
def test_what_is_no_seed_is_refused(text):
    with pytest.raises(SpecError, match="--seeds"):
        parse_seeds(text)


def test_overrides_are_toml_values_or_bare_words():
    assert parse_overrides(["a.b=0.1", "a.c=lars", "a.d=[1, 2]", "a.e=true", "a.f=1_000"]) == {
        "a.b": 0.1, "a.c": "lars", "a.d": [1, 2], "a.e": True, "a.f": 1000,
    }  # fmt: skip
    with pytest.raises(SpecError, match="no value"):
        parse_overrides(["a.b"])


def test_an_override_replaces_one_value_and_is_recorded(make_spec):
    spec = make_spec(overrides={"optimizer.momentum": 0.5})
    assert spec.settings.optimizer.momentum == 0.5
    assert spec.settings.optimizer.weight_decay == make_spec().settings.optimizer.weight_decay
    assert json.loads(spec.write().read_text())["overrides"] == {"optimizer.momentum": 0.5}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"optimizer.momentun": 0.5}, "did you mean 'optimizer.momentum'"),
        ({"momentum": 0.5}, "did you mean 'optimizer.momentum'"),
        ({"optimizer.momentum": "x"}, "valid number, not 'x'"),
        ({"model.num_classes": 2.5}, "expected int"),
        ({"problem.target_quality": 1.01}, "less than or equal to 1, not 1.01"),
        ({"problem.num_epochs": 0}, "greater than or equal to 1"),
        ({"schedule.warmup_epochs": 99}, "must be below problem.num_epochs"),
        ({"execution.precision": "fp8"}, "'fp32', 'bf16' or 'fp16'"),
        (
            {"execution.compile": "max"},
            "execution.compile: input should be true, false or 'reduce-overhead', not 'max'",
        ),
        ({"execution.compile": 1}, "true, false or 'reduce-overhead', not 1"),
    ],
)
def test_a_wrong_override_says_what_and_how_to_mend_it(make_spec, overrides, message):
    with pytest.raises(SpecError, match=message):
        make_spec(overrides=overrides)


@pytest.mark.parametrize(
    ("level", "key", "message"),
    [
        (
            Level.HARDWARE,
            "optimizer.momentum",
            r"Layer 8 \(Hyper parameters\), fixed at hardware level; --level free",
        ),
        (Level.SYSTEM, "model.label_smoothing", r"Layer 7 .* --level free allows it"),
        (Level.FREE, "problem.target_quality", r"Layer 9 .* no level opens it; --unranked"),
    ],
)
def test_a_level_refuses_what_it_fixes_and_names_the_level_that_opens_it(make_spec, level, key, message):
    with pytest.raises(SpecError, match=message):
        make_spec(level=level, overrides={key: 0.5}, unranked=False)
    assert make_spec(level=level, overrides={key: 0.5}, unranked=True).unranked


@pytest.mark.parametrize("level", list(Level))
def test_batch_and_learning_rate_policy_are_open_at_every_level(make_spec, level):
    overrides = {"batch.global_batch_size": 96, "optimizer.learning_rate": 0.01, "execution.precision": "bf16"}
    assert make_spec(level=level, overrides=overrides, unranked=False).settings.batch.global_batch_size == 96


def test_run_json_reads_back_as_the_same_spec_and_nothing_is_overwritten(make_spec):
    spec = make_spec()
    path = spec.write()
    assert read_run(path) == spec
    with pytest.raises(OccupiedError, match="holds an unfinished run"):
        spec.write()


def test_of_two_starts_at_one_moment_the_slower_goes_on_with_the_run(make_spec, monkeypatch):
    spec, started = make_spec(), []
    rename = os.rename

    def overtaken(source, target):
        monkeypatch.setattr(os, "rename", rename)
        spec.write()  # by another process, after this one looked
        rename(source, target)

    def start(one):
        started.append(read_run(one.folder / "run.json"))
        raise PreemptedError("stopped")

    for resume, error in ((True, PreemptedError), (False, OccupiedError)):
        monkeypatch.setattr(os, "rename", overtaken)
        with pytest.raises(error):
            run_once(spec, start, resume=resume, say=print)
        assert started == [spec]
        shutil.rmtree(spec.folder)


def test_a_results_directory_that_is_a_run_is_refused(make_spec):
    inner = make_spec(output=str(make_spec().write().parent))
    with pytest.raises(OccupiedError, match="folder of another run"):
        inner.write()


def test_another_seed_is_the_same_experiment(make_spec):
    spec = make_spec(overrides={"optimizer.momentum": 0.5}, data="synthetic", procs_per_node=2)
    assert spec.with_seed(7) == make_spec(
        seed=7, overrides={"optimizer.momentum": 0.5}, data="synthetic", procs_per_node=2
    )
    with pytest.raises(SpecError, match="seed"):
        spec.with_seed(2**32)


def test_no_run_counts_flops_over_more_than_eight_batches(make_spec):
    assert make_spec(overrides={"execution.num_flop_batches": 8}).settings.execution.num_flop_batches == 8
    with pytest.raises(SpecError, match="num_flop_batches is 9: a run reads at most 8 batches before its clock"):
        make_spec(overrides={"execution.num_flop_batches": 9})


def test_the_experiment_digest_follows_what_changes_a_result_and_nothing_else(make_spec):
    base = make_spec().experiment_digest
    assert make_spec(seed=5).experiment_digest == base
    assert make_spec(output="/elsewhere", data="/other", system="b").experiment_digest == base
    assert make_spec(procs_per_node=2).experiment_digest != base
    assert make_spec(overrides={"optimizer.momentum": 0.5}).experiment_digest != base
    assert make_spec(data="synthetic").experiment_digest != base


def test_a_rank_forwards_the_largest_divisor_of_its_share_within_the_limit(make_spec):
    def size(ranks, limit):
        overrides = {"batch.global_batch_size": 96, "batch.micro_batch_size": limit}
        return make_spec(procs_per_node=ranks, overrides=overrides).micro_batch_size

    assert [size(1, 24), size(2, 24), size(4, 24), size(8, 24)] == [24, 24, 24, 12]
    assert size(1, 25) == 24
    assert size(96, 24) == 1


def test_ranks_that_cannot_share_the_global_batch_are_refused(make_spec):
    with pytest.raises(SpecError, match="must be a multiple of the number of ranks"):
        make_spec(procs_per_node=7)


def test_an_unknown_workload_lists_the_choices(make_spec, tmp_path):
    with pytest.raises(SpecError, match=r"did you mean 'image_classification'.*have: .*image_classification"):
        make_spec(workload="image_clasification")
    with pytest.raises(SpecError, match=r"no workload\.toml"):
        make_spec(workload=str(tmp_path))


def test_a_key_that_workload_toml_does_not_know_is_named_with_its_file(make_spec, tmp_path):
    source = (shipped_workloads()[-1].parent / "image_classification" / "workload.toml").read_text()
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "workload.toml").write_text(source.replace("momentum = 0.875", "momentun = 0.875", 1))
    with pytest.raises(SpecError, match=r"mine/workload\.toml: unknown key .*momentun.*did you mean 'momentum'"):
        load_rules(folder)
    (folder / "workload.toml").write_text("not toml")
    with pytest.raises(SpecError, match=r"mine/workload\.toml"):
        load_rules(folder)


@pytest.mark.parametrize("folder", shipped_workloads(), ids=lambda folder: folder.name)
def test_every_shipped_workload_has_both_problems_and_openings_that_match_a_key(folder: Path):
    rules = load_rules(folder)
    assert set(rules.problems) == {"full", "mini"}
    keys = list(settings_keys(rules.problems["mini"]))
    for patterns in rules.levels.by_level().values():
        for pattern in patterns:
            assert any(Path(key).match(pattern) for key in keys), pattern


def test_the_layers_are_nine():
    assert [layer.value for layer in Layer] == list(range(1, 10))
    assert Layer(9).title == "Problem domain"
