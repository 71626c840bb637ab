"""The record of a foreign program: older ones are read as what they are, with the digest that they had."""

import json

import pytest

from hpcai500.errors import SpecError
from hpcai500.spec.foreign_run import ForeignRun
from hpcai500.spec.run import RunSpec, read_run, read_spec

OLDER = """{
  "schema_version": 1, "hpcai500_version": "0.1.0",
  "workload": {
    "name": "image_classification", "folder": "/home/me/program",
    "code_digest": "09953587b5dab4e869683d43944f0140d743a82398b871e0c81c0f1b7e28ad58",
    "title": "Image Classification", "benchmark": "resnet", "model": "a matrix"
  },
  "problem": "mini", "level": "free", "backend": "foreign", "launcher": "foreign",
  "nodes": 1, "procs_per_node": 1, "num_ranks": 0, "seed": 0,
  "settings": {
    "problem": {
      "dataset": "scikit-learn handwritten digits, 8 x 8 enlarged to 32 x 32", "num_train_samples": 1437,
      "num_eval_samples": 360, "metric": "top-1 accuracy", "target_quality": 0.85, "num_epochs": 4,
      "penalty_exponent": 5, "published_flops_per_sample": null
    },
    "model": {}, "data": {},
    "batch": {"global_batch_size": 64, "micro_batch_size": 1},
    "optimizer": {
      "name": "stated", "learning_rate": 0.1, "reference_batch_size": 64, "momentum": 0.0, "nesterov": false,
      "weight_decay": 0.0, "decay_norm_and_bias": true, "trust_coefficient": 0.001, "second_beta": 0.999
    },
    "schedule": {"name": "stated", "warmup_epochs": 0.0, "power": 2.0, "final_fraction": 0.0},
    "execution": {
      "device": "cpu", "precision": "fp32", "channels_last": false, "compile": false, "fused_optimizer": true,
      "deterministic": false, "gradient_compression": "none", "stop_at_target": false, "num_loader_workers": -1,
      "num_flop_batches": 1, "checkpoint_epochs": 1
    }
  },
  "overrides": {}, "unranked": false, "system": "abacus", "data": "", "output": "/home/me/results", "staging": "",
  "resume_from": "",
  "program": {
    "command": ["./train"], "num_arguments": 2,
    "stated": {
      "3": {"none": "one process"}, "4": {"none": "beads"}, "5": {"framework": "awk 5.2"},
      "6": {"world_size": 1, "precision": "fp32", "device": "cpu"}, "7": {"model": "a matrix"},
      "8": {
        "global_batch_size": 64, "opt_name": "guessing", "opt_base_learning_rate": 0.1,
        "opt_learning_rate_warmup_epochs": 0, "opt_weight_decay": 0, "momentum": 0.5
      }
    }
  }
}"""
DIGEST = "a045716684a5ed4cbccf4547216758c7527a1a6b1be797a3513c933709d55344"
"""Digests from the code that wrote such records."""


@pytest.fixture
def record():
    return json.loads(OLDER)


@pytest.fixture
def read(tmp_path):
    def call(record, reader=read_run):
        path = tmp_path / "run.json"
        path.write_text(record if isinstance(record, str) else json.dumps(record))
        return reader(path)

    return call


def test_an_older_record_is_a_foreign_run_with_its_digest_and_its_name(read):
    run = read(OLDER)
    assert isinstance(run, ForeignRun)
    assert run.experiment_digest == DIGEST
    assert run.run_id == f"foreign-1x1-fp32-{DIGEST[:8]}-seed0"
    assert str(run.folder) == f"/home/me/results/abacus/image_classification/mini-free/{run.run_id}"
    assert (run.stated(8)["momentum"], run.stated(2), run.program.num_arguments) == (0.5, {}, 2)
    assert (run.peak_learning_rate, run.steps_per_epoch, run.overrides) == (0.1, 22, {})


def test_what_is_written_today_states_no_more_than_the_program_and_is_read_as_the_same_run(read):
    run = read(OLDER)
    text = run.model_dump_json(indent=2)
    assert not any(word in text for word in ("launcher", "resume_from", "unranked", "compile", "trust_coefficient"))
    again = read(text)
    assert again == run
    assert again.experiment_digest == DIGEST


def test_seed_and_places_leave_the_digest_and_settings_change_it(read, record):
    assert read(record | {"seed": 7, "system": "b", "output": "/x", "data": "/y"}).experiment_digest == DIGEST
    record["program"] |= {"command": [], "num_arguments": 0}
    assert read(record).experiment_digest == DIGEST
    assert read(record | {"data": "synthetic"}).experiment_digest != DIGEST
    record["program"]["stated"]["8"]["momentum"] = 0.6
    assert read(record).experiment_digest != DIGEST


def test_a_change_of_what_no_program_states_is_refused(read, record):
    for table, name, value in (
        ("optimizer", "momentum", 0.9), ("optimizer", "reference_batch_size", 32), ("schedule", "name", "cosine"),
        ("execution", "compile", True), ("model", "width", 2),
    ):  # fmt: skip
        changed = json.loads(OLDER)
        changed["settings"][table][name] = value
        with pytest.raises(SpecError, match="unknown key 'settings"):
            read(changed)
    for name, value in {"launcher": "local", "overrides": {"a": 1}, "resume_from": "/r", "unranked": True}.items():
        with pytest.raises(SpecError, match=f"unknown key '{name}"):
            read(record | {name: value})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"level": "hardware"}, "level: input should be"),
        ({"program": None}, "program: "),
        ({"settings": None}, "settings: "),
        ({"settings": {"optimizer": 3, "batch": []}}, "settings"),
        ({"num_ranks": 5}, "num_ranks \\(5\\) must be below"),
        ({"backend": "torch"}, "unknown key"),
    ],
)
def test_a_record_that_is_none_is_one_line(read, record, change, said):
    with pytest.raises(SpecError, match=said) as raised:
        read(record | change)
    assert str(raised.value).isprintable()


def test_nothing_trains_a_foreign_run(read):
    with pytest.raises(SpecError, match="the run of a foreign program; name a run that hpcai500 trained"):
        read(OLDER, read_spec)


def test_a_run_of_ours_may_say_that_it_is_no_program_s_as_older_ones_do(read, make_spec):
    spec = make_spec()
    record = spec.model_dump(mode="json")
    assert "program" not in record
    assert read(record | {"program": None}) == read(record) == read(record, read_spec) == spec
    assert isinstance(read(record), RunSpec)
    with pytest.raises(SpecError, match="unknown key 'program"):
        read(record | {"program": {"command": []}})


@pytest.mark.parametrize(
    ("table", "key", "value"), [((), "launcher", {"f": 1}), (("settings", "batch"), "micro_batch_size", {"x": 1})]
)
def test_a_table_where_an_older_record_has_a_value_is_one_line(read, record, table, key, value):
    place = record
    for name in table:
        place = place[name]
    place[key] = value
    with pytest.raises(SpecError, match=key):
        read(record)
