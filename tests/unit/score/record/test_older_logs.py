"""A log as an early version wrote it, line by line: its figures are the same today."""

import json

import pytest

from hpcai500.errors import InputError
from hpcai500.score.record.result import Result, derive
from hpcai500.spec.run import read_run

MS = 1_700_000_000_000
LOG = """\
:::MLLOG {"namespace": "", "time_ms": 1700000000000, "event_type": "POINT_IN_TIME", "key": "cache_clear", "value": false, "metadata": {"file": "journal.py", "lineno": 1, "reason": "none"}}
:::MLLOG {"namespace": "", "time_ms": 1700000000000, "event_type": "INTERVAL_START", "key": "init_start", "value": null, "metadata": {"file": "journal.py", "lineno": 1}}
:::MLLOG {"namespace": "", "time_ms": 1700000000500, "event_type": "POINT_IN_TIME", "key": "hpcai500.dataset", "value": {"synthetic": false, "digest": "0123", "num_train_samples": 1437, "num_eval_samples": 360}, "metadata": {"file": "worker.py", "lineno": 1}}
:::MLLOG {"namespace": "", "time_ms": 1700000001000, "event_type": "POINT_IN_TIME", "key": "hpcai500.flops_per_sample", "value": {"mean": 1000000.0, "standard_deviation": 2.5, "num_batches": 2}, "metadata": {"file": "worker.py", "lineno": 1, "convention": "by hand"}}
:::MLLOG {"namespace": "", "time_ms": 1700000001000, "event_type": "POINT_IN_TIME", "key": "hpcai500.energy", "value": {"sources": ["rapl:package-0"], "missing": []}, "metadata": {"file": "worker.py", "lineno": 1}}
:::MLLOG {"namespace": "", "time_ms": 1700000002000, "event_type": "POINT_IN_TIME", "key": "hpcai500.warm_up", "value": {"warm_up_sec": 0.75}, "metadata": {"file": "worker.py", "lineno": 1}}
:::MLLOG {"namespace": "", "time_ms": 1700000002000, "event_type": "INTERVAL_END", "key": "init_stop", "value": null, "metadata": {"file": "worker.py", "lineno": 1}}
:::MLLOG {"namespace": "", "time_ms": 1700000002000, "event_type": "INTERVAL_START", "key": "run_start", "value": null, "metadata": {"file": "worker.py", "lineno": 1}}
:::MLLOG {"namespace": "", "time_ms": 1700000002000, "event_type": "INTERVAL_START", "key": "epoch_start", "value": null, "metadata": {"file": "loop.py", "lineno": 1, "epoch_num": 1}}
:::MLLOG {"namespace": "", "time_ms": 1700000006000, "event_type": "INTERVAL_END", "key": "epoch_stop", "value": null, "metadata": {"file": "loop.py", "lineno": 1, "epoch_num": 1}}
:::MLLOG {"namespace": "", "time_ms": 1700000006000, "event_type": "INTERVAL_START", "key": "eval_start", "value": null, "metadata": {"file": "loop.py", "lineno": 1, "epoch_num": 1}}
:::MLLOG {"namespace": "", "time_ms": 1700000007000, "event_type": "POINT_IN_TIME", "key": "eval_accuracy", "value": 0.5, "metadata": {"file": "loop.py", "lineno": 1, "epoch_num": 1}}
:::MLLOG {"namespace": "", "time_ms": 1700000007000, "event_type": "INTERVAL_END", "key": "eval_stop", "value": null, "metadata": {"file": "loop.py", "lineno": 1, "epoch_num": 1}}
:::MLLOG {"namespace": "", "time_ms": 1700000007000, "event_type": "POINT_IN_TIME", "key": "hpcai500.epoch", "value": {"epoch_num": 1, "train_loss": 2.0, "quality": 0.5, "num_samples": 1408, "flops": 1408000000.0, "train_sec": 4.0, "eval_sec": 1.0, "learning_rate": 0.1, "energy_joules": 300.0}, "metadata": {"file": "journal.py", "lineno": 1, "epoch_num": 1, "eval_loss": 1.5, "num_samples": 360.0}}
:::MLLOG {"namespace": "", "time_ms": 1700000007500, "event_type": "POINT_IN_TIME", "key": "hpcai500.interrupted", "value": {"epoch": 2, "step": 3}, "metadata": {"file": "loop.py", "lineno": 1, "epoch_num": 2}}
:::MLLOG {"namespace": "", "time_ms": 1700000010000, "event_type": "POINT_IN_TIME", "key": "hpcai500.resumed", "value": {"epoch": 2, "step": 3, "graceful": true, "down_sec": 2.5, "lost_sec": 0.0, "passed_over": []}, "metadata": {"file": "worker.py", "lineno": 1}}
:::MLLOG {"namespace": "", "time_ms": 1700000014000, "event_type": "POINT_IN_TIME", "key": "eval_accuracy", "value": 0.9, "metadata": {"file": "loop.py", "lineno": 1, "epoch_num": 2}}
:::MLLOG {"namespace": "", "time_ms": 1700000014000, "event_type": "INTERVAL_END", "key": "eval_stop", "value": null, "metadata": {"file": "loop.py", "lineno": 1, "epoch_num": 2}}
:::MLLOG {"namespace": "", "time_ms": 1700000014000, "event_type": "POINT_IN_TIME", "key": "hpcai500.epoch", "value": {"epoch_num": 2, "train_loss": 1.0, "quality": 0.9, "num_samples": 1408, "flops": 1408000000.0, "train_sec": 4.0, "eval_sec": 1.0, "learning_rate": 0.05, "energy_joules": 340.0}, "metadata": {"file": "journal.py", "lineno": 1, "epoch_num": 2, "eval_loss": 1.25, "num_samples": 360.0}}
:::MLLOG {"namespace": "", "time_ms": 1700000014000, "event_type": "INTERVAL_END", "key": "run_stop", "value": null, "metadata": {"file": "journal.py", "lineno": 1, "status": "success"}}
:::MLLOG {"namespace": "", "time_ms": 1700000014000, "event_type": "POINT_IN_TIME", "key": "hpcai500.peak_memory", "value": {"host_bytes": 1000, "device_bytes": null}, "metadata": {"file": "worker.py", "lineno": 1}}
"""  # noqa: E501 - lines of a log are as long as they were written
"""Before epochs said how long they waited for data, and the model was logged."""


@pytest.fixture
def folder(make_spec):
    folder = make_spec().write().parent
    (folder / "events.log").write_text(LOG)
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"program": None}))
    return folder


def test_an_older_log_gives_the_figures_that_it_gave(folder):
    result = derive(folder)
    spec = read_run(folder / "run.json")
    assert result.identity.experiment_digest == spec.experiment_digest
    assert (result.status, result.identity.dataset_digest) == ("success", "0123")
    assert [epoch.data_wait_sec for epoch in result.epochs] == [None, None]
    assert result.time.model_dump() == {
        "total_sec": 12.0, "train_sec": 8.0, "eval_sec": 2.0, "init_sec": 2.0, "warm_up_sec": 0.75,
    }  # fmt: skip
    assert (result.flops.total, result.flops.flops) == (2816e6, 2816e6 / 12)
    assert (result.flops.convention, result.flops.per_sample_standard_deviation) == ("by hand", 2.5)
    assert result.energy.model_dump() == {"joules": 640.0, "sources": ("rapl:package-0",), "missing": ()}
    assert result.score.vflops == pytest.approx(2816e6 / 12 * (0.9 / 0.85) ** 5)
    assert (result.score.epochs_to_quality, result.score.time_to_quality_sec) == (2, 12.0)
    assert [stop.model_dump() for stop in result.interruptions] == [
        {"epoch": 2, "step": 3, "graceful": True, "down_sec": 2.5, "lost_sec": 0.0}
    ]
    assert (result.peak_host_bytes, result.peak_device_bytes) == (1000, None)


def test_an_older_result_is_read_and_says_what_the_log_says(folder):
    result = derive(folder)
    record = result.model_dump(mode="json")
    for epoch in record["epochs"]:
        del epoch["data_wait_sec"]
    assert Result.model_validate_json(json.dumps(record)) == result


@pytest.mark.parametrize("line", range(2, len(LOG.splitlines())))
@pytest.mark.parametrize("value", ['"x"', "[]", "{}", "-1", "null", '{"epoch_num": [], "mean": "x"}'])
def test_a_hostile_value_is_one_line_or_changes_nothing_else(folder, line, value):
    lines = LOG.splitlines()
    token, _, text = lines[line].partition(" ")
    record = json.loads(text) | {"value": json.loads(value)}
    (folder / "events.log").write_text(
        "\n".join([*lines[:line], f"{token} {json.dumps(record)}", *lines[line + 1 :]])
    )
    refusal = f"{folder / 'events.log'}:{line + 1}: {record['key']}"
    try:
        status = derive(folder).status
    except InputError as error:
        status = str(error)
    assert status == "success" or (status.startswith(refusal) and status.isprintable())
