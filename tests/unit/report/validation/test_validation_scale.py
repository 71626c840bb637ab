"""A partition of 5,000 nodes: the same faults are found, nothing else is, and the reports stay small."""

import json

import pytest
from partition import Partition

from hpcai500.report.validation.render import render
from hpcai500.validate.judge.verdict import judge

NUM_NODES = 5_000


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    partition = Partition(NUM_NODES, num_gpus=2, noise=0.01, rounds=4)
    partition.change(0.8, stage="micro", node="node1234").change(0.3, stage="links", node="node4321")
    partition.change("2.14", metric="layer4.torch", node="node0777").drop(lambda one: "node2500" in one.nodes)
    return judge(partition.write(tmp_path_factory.mktemp("validation")))


def test_each_of_four_faults_among_5000_nodes_is_named_and_nothing_else(report):
    assert [(one.kind, one.nodes) for one in report.findings] == [
        ("no_answer", ("node2500",)),
        ("differs", ("node0777",)),
        ("links", ("node4321",)),
        ("peers", ("node1234",)),
    ]


def test_reports_of_5000_nodes_stay_small(report):
    sizes = {format: len(render(report, format)) for format in ("text", "json", "junit", "html")}
    assert sizes["text"] < 5_000
    assert sizes["json"] < 1_000_000
    assert sizes["junit"] < 3_000_000
    assert sizes["html"] < 2_000_000
    assert len(json.loads(render(report, "json"))["nodes"]) == NUM_NODES
