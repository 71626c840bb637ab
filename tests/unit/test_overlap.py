"""How much communication a trace shows inside the backward pass: a trace made by hand."""

import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"


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
