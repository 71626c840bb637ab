import json

import pytest
from honest import edit_json, honest_run, reseal

from hpcai500.score.rules.comparison import compare
from hpcai500.spec.levels import Level
from hpcai500.spec.reference import find_reference


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


def test_another_model_is_told_as_the_others_and_not_as_a_references(make_spec):
    known = find_reference("resnet", "mini").known.model.model_dump(mode="json")
    wider = {name: 2 * flops for name, flops in known["layer_flops"].items()}
    structure = {"digest": "0" * 64, "num_tensors": 161, **known, "layer_flops": wider}
    left, right = honest_run(make_spec()), honest_run(make_spec(system="b"), structure=structure)
    reasons = [found.reason for found in compare(left, right).obstacles]
    assert any("layers differ from the other's, first" in reason for reason in reasons)
    assert not any("reference" in reason for reason in reasons)


def test_open_values_show_as_differences_and_close_no_level(make_spec):
    overrides = {"batch.global_batch_size": 96, "execution.precision": "bf16"}
    left, right = honest_run(make_spec()), honest_run(make_spec(overrides=overrides, unranked=False))
    comparison = compare(left, right)
    assert comparison.comparable_at is Level.HARDWARE
    assert {"batch.global_batch_size", "precision"} <= {row.key for row in comparison.rows if row.differs}
    assert any("FLOPS of different precision" in line for line in comparison.cautions)


def edited(folder, change):
    edit_json(folder / "system.json", change)
    reseal(folder)
    return folder


def test_what_was_not_captured_is_no_equality(make_spec):
    left = honest_run(make_spec())
    right = edited(honest_run(make_spec(system="b")), lambda system: system["nodes"][0]["layers"].update({"5": {}}))
    for pair in ((left, right), (right, left), (right, right)):
        comparison = compare(*pair)
        assert comparison.comparable_at is Level.SYSTEM
        assert "Layer 5 differs (it was not captured)" in comparison.verdict


def test_nodes_with_another_torch_are_no_hardware_level(make_spec):
    def mix(system):
        (kind,) = system["nodes"]
        other = {**kind["layers"], "5": {**kind["layers"]["5"], "torch": "2.3.0"}}
        system["nodes"] = [{**kind, "count": 1}, {"count": 1, "hosts": ["n1"], "layers": other}]

    left = honest_run(make_spec(nodes=2, launcher="srun"))
    right = edited(honest_run(make_spec(nodes=2, launcher="srun", system="b")), mix)
    assert "torch 2.15.0 / 2.15.0 and 2.3.0" in compare(left, right).verdict


def test_another_count_of_flops_leaves_free_level(make_spec):
    left = honest_run(make_spec())
    right = honest_run(make_spec(system="b"), flops_per_sample=1.03 * 495_771_648)
    comparison = compare(left, right)
    assert comparison.comparable_at is Level.FREE
    assert "FLOPs to train a sample 4.95772e+08 / 5.10645e+08" in comparison.verdict
    assert comparison.cautions == (f"{right.name} breaches rules 4.4: see `hpcai500 check`",)


def test_an_altered_run_is_cautioned_of(make_spec):
    left, right = honest_run(make_spec()), honest_run(make_spec(system="b"))
    (right / "events.log").write_text((right / "events.log").read_text() + "\n")
    assert compare(left, right).cautions == (f"{right.name} breaches rules 1.2: see `hpcai500 check`",)


@pytest.mark.parametrize(
    "structure",
    [[1], 5, {"layer_flops": None}, {"layer_flops": {"conv1": "x"}}, {"varying_layers": 5}, {"varying_layers": None}],
)
def test_a_structure_that_is_none_is_one_line(make_spec, hpcai500, structure):
    def spoil(system):
        held = system["layers"]["7"]["structure"]
        system["layers"]["7"]["structure"] = held | structure if isinstance(structure, dict) else structure

    left, right = honest_run(make_spec()), honest_run(make_spec(system="b"))
    edit_json(right / "system.json", spoil)
    for pair in ((left, right), (right, left)):
        code, _, err = hpcai500("compare", *pair)
        assert (code, err.count("\n")) == (2, 1)


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
