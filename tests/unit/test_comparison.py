import json

from honest import honest_run

from hpcai500.score.comparison import compare
from hpcai500.spec.levels import Level


def test_equal_runs_may_be_compared_at_hardware_level(make_spec):
    comparison = compare(honest_run(make_spec(seed=0)), honest_run(make_spec(seed=1, system="b")))
    assert comparison.comparable_at is Level.HARDWARE
    assert comparison.verdict == "comparable at hardware level"
    assert not any(row.differs for row in comparison.rows)


def test_another_framework_leaves_system_level_and_says_why(make_spec):
    left = honest_run(make_spec(), torch="2.13.0")
    comparison = compare(left, honest_run(make_spec(system="b"), torch="2.15.0+cu130"))
    assert comparison.comparable_at is Level.SYSTEM
    assert comparison.verdict == (
        "comparable at system level; not at hardware level because Layer 5 differs (torch 2.13.0 / 2.15.0)"
    )


def test_another_model_leaves_free_level_and_another_target_none(make_spec):
    left = honest_run(make_spec())
    model = json.loads((left / "system.json").read_text())["layers"]["7"]["structure"] | {
        "parameters_digest": "0" * 64,
        "num_parameters": 7,
    }
    right = honest_run(make_spec(system="b"), structure=model)
    comparison = compare(left, right)
    assert comparison.comparable_at is Level.FREE
    assert "not at hardware level because Layer 7 differs" in comparison.verdict
    trial = honest_run(make_spec(overrides={"problem.target_quality": 0.5}, system="c"))
    comparison = compare(left, trial)
    assert comparison.comparable_at is None
    assert "Layer 9 differs (target_quality 0.85 / 0.5)" in comparison.verdict
    assert any("never ranked" in line for line in comparison.cautions)


def test_open_values_show_as_differences_and_close_no_level(make_spec):
    overrides = {"batch.global_batch_size": 96, "execution.precision": "bf16"}
    left, right = honest_run(make_spec()), honest_run(make_spec(overrides=overrides, unranked=False))
    comparison = compare(left, right)
    assert comparison.comparable_at is Level.HARDWARE
    assert {"batch.global_batch_size", "precision"} <= {row.key for row in comparison.rows if row.differs}
    assert any("FLOPS of different precision" in line for line in comparison.cautions)


def test_the_command_shows_differences_by_default_and_exits_by_level(make_spec, hpcai500):
    left, right = honest_run(make_spec(), torch="2.13.0"), honest_run(make_spec(system="b"))
    code, out, _ = hpcai500("compare", left, right)
    assert code == 0
    assert out.splitlines()[-1].startswith("comparable at system level; not at hardware level because Layer 5")
    assert "kernel" not in out
    assert "kernel" in hpcai500("compare", "--all", left, right)[1]
    assert hpcai500("compare", "--level", "system", left, right)[0] == 0
    assert hpcai500("compare", "--level", "hardware", left, right)[0] == 1
    assert json.loads(hpcai500("compare", "--json", left, right)[1])["comparable_at"] == "system"
    assert hpcai500("compare", left, "/absent")[0] == 2
