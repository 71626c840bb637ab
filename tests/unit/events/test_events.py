import json

import pytest

from hpcai500.errors import InputError
from hpcai500.events import payloads
from hpcai500.events.reader import read_events
from hpcai500.events.vocabulary import Key, Type
from hpcai500.events.writer import EventWriter, format_line

OFFICIAL_KEYS = {  # mlcommons/logging, mlperf_logging/mllog/constants.py
    "submission_org", "submission_platform", "submission_division", "submission_benchmark", "submission_status",
    "cache_clear", "init_start", "init_stop", "seed", "train_samples", "eval_samples", "global_batch_size",
    "gradient_accumulation_steps", "opt_name", "opt_base_learning_rate", "opt_learning_rate_warmup_epochs",
    "opt_weight_decay", "run_start", "run_stop", "epoch_start", "epoch_stop", "eval_start", "eval_stop",
    "eval_accuracy", "staging_start", "staging_stop",
}  # fmt: skip


def test_a_line_is_what_mlperf_parsers_read():
    line = format_line(Key.SEED, Type.POINT, 7, {}, time_ms=1_700_000_000_000, file="a.py", lineno=3)
    assert line == (
        ':::MLLOG {"namespace": "", "time_ms": 1700000000000, "event_type": "POINT_IN_TIME", "key": "seed", '
        '"value": 7, "metadata": {"file": "a.py", "lineno": 3}}'
    )


def test_keys_are_official_or_carry_our_prefix():
    own = {key.value for key in Key} - OFFICIAL_KEYS
    assert all(key.startswith("hpcai500.") for key in own)
    assert {key.value for key in Key} - own == OFFICIAL_KEYS


def test_events_read_back_in_order_and_name_their_caller(tmp_path):
    writer = EventWriter(tmp_path / "events.log")
    writer.log(payloads.EpochStart.of(1))
    writer.log(payloads.EvalAccuracy.of(1, 0.5))
    writer.close()
    events = read_events(tmp_path / "events.log")
    assert [(e.key, e.value, e.metadata["epoch_num"]) for e in events] == [
        ("epoch_start", None, 1),
        ("eval_accuracy", 0.5, 1),
    ]
    assert events[0].metadata["file"] == "test_events.py"


def test_a_torn_last_line_is_dropped_by_the_reader_and_cut_by_the_next_writer(tmp_path):
    path = tmp_path / "events.log"
    writer = EventWriter(path)
    writer.log(payloads.Seed(value=1))
    writer.close()
    whole = path.read_text()
    path.write_text(whole + ':::MLLOG {"namespace": "", "time')
    assert [event.key for event in read_events(path)] == ["seed"]
    writer = EventWriter(path)
    writer.log(payloads.OptName(value="sgd"))
    writer.close()
    assert [event.key for event in read_events(path)] == ["seed", "opt_name"]


def test_a_broken_line_in_the_middle_is_an_alteration_and_named(tmp_path):
    good = format_line(Key.SEED, Type.POINT, 7, {}, time_ms=1, file="a.py", lineno=3)
    (tmp_path / "events.log").write_text(f"{good}\n:::MLLOG {{]\n{good}\n")
    with pytest.raises(InputError, match=r"events\.log:2: not a valid event"):
        read_events(tmp_path / "events.log")


def test_text_before_the_token_and_foreign_keys_are_no_obstacle(tmp_path):
    record = {"namespace": "x", "time_ms": 1.5, "event_type": "POINT_IN_TIME", "key": "foreign", "value": [1]}
    (tmp_path / "events.log").write_text(f"noise\n[1,0]<stdout>: :::MLLOG {json.dumps(record)}\n")
    assert [(e.key, e.value) for e in read_events(tmp_path / "events.log")] == [("foreign", [1])]
