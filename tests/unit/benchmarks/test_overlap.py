"""How much communication a trace shows inside the backward pass: a trace made by hand."""

import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def overlap(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import overlap

    return overlap


def event(name, start, end):
    return {"ph": "X", "name": name, "ts": start, "dur": end - start}


@pytest.fixture
def trace(tmp_path):
    """A step from 0 to 100, backward from 40 to 80; of 30 us of communication, 20 lie inside it."""
    node = "autograd::engine::evaluate_function: ConvolutionBackward0"
    events = [
        event("one step", 0, 100), event(node, 40, 60), event(node, 62, 80),
        event("gloo:all_reduce", 10, 12),  # a vote, before there is a gradient
        event("gloo:all_reduce", 50, 62), event("gloo:all_reduce", 55, 65),  # together 50 to 65
        event("gloo:all_reduce", 75, 90),
        {"ph": "i", "name": "gloo:all_reduce", "ts": 70},
    ]  # fmt: skip
    path = tmp_path / "trace.json"
    path.write_text(json.dumps({"traceEvents": events}))
    return path


def test_only_what_lies_inside_the_backward_pass_is_hidden_and_nothing_counts_twice(overlap, trace):
    (step,) = overlap.read_steps(trace)
    assert step.backward == (40, 80)
    assert step.communication == 15 + 15
    assert step.hidden == 15 + 5


def test_the_timeline_shows_where_each_is(overlap, trace, monkeypatch):
    monkeypatch.setattr(overlap, "WIDTH", 20)
    (step,) = overlap.read_steps(trace)
    assert overlap.timeline(step).splitlines() == [
        "   forward |>>>>>>>>            |",
        "  backward |        ########    |",
        " optimiser |                oooo|",
        "all-reduce |          ===  ===  |",
    ]


def test_horovods_timeline_is_laid_onto_the_trace_by_the_two_clocks(overlap, tmp_path):
    """A backward pass from 40 to 80 by torch's clock, which began at 1,000,000 us and Horovod's 30 us later."""
    node = "autograd::engine::evaluate_function: ConvolutionBackward0"
    trace, timeline = tmp_path / "trace.json", tmp_path / "timeline.json"
    events = [event("one step", 0, 100), event(node, 40, 80)]
    trace.write_text(json.dumps({"traceEvents": events, "baseTimeNanoseconds": 1_000_000_000}))

    def begin(tensor, name, ts):
        return {"ph": "B", "name": name, "ts": ts, "pid": tensor}

    def end(tensor, ts):
        return {"ph": "E", "ts": ts, "pid": tensor}

    timeline.write_text(
        json.dumps(
            [
                {"ph": "M", "name": "clock", "pid": 0, "args": {"start_time_since_epoch_in_micros": 1_000_030}},
                {"ph": "M", "name": "process_name", "pid": 1, "args": {"name": "allreduce.weight"}},
                begin(1, "NEGOTIATE_ALLREDUCE", 5), {"ph": "X", "name": "0", "ts": 5, "pid": 1, "dur": 0}, end(1, 20),
                begin(1, "ALLREDUCE", 20), begin(2, "ALLREDUCE", 25),  # 50 to 90 and 55 to 60 by torch's clock
                begin(1, "MPI_ALLREDUCE", 21), end(1, 59), end(2, 30), end(1, 60),
            ]
        )
    )  # fmt: skip
    (step,) = overlap.read_steps(trace, timeline)
    assert step.reductions == [(55, 60), (50, 90)]
    assert step.communication == 40
    assert step.hidden == 30
