"""A report as text, JSON, JUnit XML and HTML."""

import json
import os
from pathlib import Path
from xml.etree import ElementTree

import pydantic
import pytest
from partition import Partition

from hpcai500.errors import SpecError
from hpcai500.report.validation.document import ReportDocument
from hpcai500.report.validation.render import FORMATS, render
from hpcai500.text import figure, node_list, share
from hpcai500.validate.files import Trouble
from hpcai500.validate.judge.verdict import judge

SCHEMA = Path(__file__).parents[4] / "docs" / "schemas" / "validation.schema.json"
HOSTILE = "<script>alert(1)</script>&\x1b[31m\x00\ud7ff]]>'\""


@pytest.fixture
def report(tmp_path):
    """A partition of eight: one slow node, one of another version, one silent, a warning."""
    partition = Partition(8, num_gpus=2).change(0.7, stage="micro", node="node0003")
    partition.change("2.14", metric="layer4.torch", node="node0005").drop(lambda one: "node0008" in one.nodes)
    partition.found.append(
        Trouble(
            stage="health", nodes=("node0002",), kind="unhealthy", severity="warn", message="hot", remedy="cool it"
        )
    )
    return judge(partition.write(tmp_path))


@pytest.fixture
def hostile(tmp_path):
    partition = Partition(4)
    name = HOSTILE
    partition.plan = partition.plan.model_copy(
        update={"nodes": (*partition.nodes, name), "system": HOSTILE, "partition": HOSTILE}
    )
    partition.add("micro", "gemm_bf16_flops", 1e14, name, unit=HOSTILE, device=HOSTILE)
    partition.add("inventory", "layer4.torch", HOSTILE, name, better="same", unit="")
    partition.found.append(
        Trouble(stage="links", nodes=(name,), device=HOSTILE, kind="failed", message=HOSTILE, remedy=HOSTILE)
    )
    return judge(partition.write(tmp_path))


def test_the_text_says_verdict_place_finding_and_remedy_within_100_columns(report):
    text = render(report, "text")
    assert text.startswith(
        "FAIL: testbox, partition batch, 8 nodes, level 2, 2026-11-22T19:00:00Z\n3 failures, 1 warn"
    )
    assert "FAIL node0005: [inventory] layer4.torch is '2.14'; 6 others have '2.15'" in text
    assert "WARN node0002: [health] hot\n      -> cool it" in text
    assert max(map(len, text.splitlines())) <= 100
    assert max(map(len, render(report, "text", width=60).split("\n\nstage", 1)[0].splitlines())) <= 60


@pytest.mark.skipif(
    tuple(map(int, pydantic.VERSION.split(".")[:2])) < (2, 10), reason="older pydantic writes it in other words"
)
def test_the_published_schema_is_that_of_the_code():
    text = json.dumps(ReportDocument.model_json_schema(mode="serialization"), indent=2) + "\n"
    if os.environ.get("ACCEPT"):
        SCHEMA.write_text(text)
    assert SCHEMA.read_text() == text, f"ACCEPT=1 pytest writes {SCHEMA} anew"


def test_json_is_of_the_published_schema(report, hostile):
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed: pip install -e '.[dev]'")
    schema = json.loads(SCHEMA.read_text())
    for one in (report, hostile):
        jsonschema.validate(json.loads(render(one, "json")), schema)
    found = json.loads(render(report, "json"))
    assert found["counts"] == {"fail": 3, "warn": 1, "note": 0}
    assert {one["node"]: one["verdict"] for one in found["nodes"]} == {
        "node0001": "pass", "node0002": "warn", "node0003": "fail", "node0004": "pass",
        "node0005": "fail", "node0006": "pass", "node0007": "pass", "node0008": "fail",
    }  # fmt: skip
    gemm = next(one for one in found["metrics"] if one["metric"] == "gemm_bf16_flops")
    assert (gemm["num_values"], gemm["worst_nodes"]) == (14, ["node0003"])


def test_junit_has_a_case_for_each_node_in_each_stage(report):
    root = ElementTree.fromstring(render(report, "junit"))
    assert [suite.get("name") for suite in root] == ["inventory", "micro", "links", "health"]
    assert all(len(suite) == 8 for suite in root)
    for suite in root:
        assert int(suite.get("tests")) == len(suite.findall("testcase"))
        assert int(suite.get("failures")) == len(suite.findall("testcase/failure"))
    failed = {
        (suite.get("name"), case.get("name")) for suite in root for case in suite if case.find("failure") is not None
    }
    assert failed == {
        ("inventory", "node0005"), ("micro", "node0003"),
        ("inventory", "node0008"), ("micro", "node0008"), ("links", "node0008"),
    }  # fmt: skip
    assert int(root.get("failures")) == len(failed)
    assert "hot" in root.find("./testsuite[@name='health']/testcase[@name='node0002']/system-out").text


JUNIT = {  # element: its attributes (required first) and children, as in Jenkins' junit-10.xsd
    "testsuites": ({"name", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors", "skipped", "time", "timestamp", "hostname"},
        {"testcase"},
    ),
    "testcase": ({"name", "classname", "time"}, {"failure", "system-out"}),
    "failure": ({"type", "message"}, set()),
    "system-out": (set(), set()),
}


def test_junit_keeps_to_the_elements_and_attributes_that_ci_servers_read(report, hostile):
    for one in (report, hostile):
        for element in ElementTree.fromstring(render(one, "junit")).iter():
            attributes, children = JUNIT[element.tag]
            assert set(element.keys()) == attributes
            assert {child.tag for child in element} <= children


def test_hostile_texts_are_escaped_in_every_format(hostile):
    assert hostile.verdict == "fail"
    for format in FORMATS:
        text = render(hostile, format)
        assert "\x1b" not in text
        assert "\x00" not in text
        if format in ("html", "junit"):
            assert "<script>alert" not in text


def test_html_needs_nothing_from_elsewhere(report):
    page = render(report, "html")
    assert page.startswith("<!DOCTYPE html>")
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert len(page) < 100_000


def test_an_unknown_format_names_the_nearest(report):
    with pytest.raises(SpecError, match="did you mean 'junit'"):
        render(report, "junt")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (7.02e14, "FLOPS", "702 TFLOPS"), (12.5e-6, "s", "12.5 us"), (90.0, "s", "90 s"), (31.0, "C", "31 C"),
        (0.0, "B/s", "0 B/s"), (1536.0, "B", "1.536 kB"), ("x", "", "'x'"), (None, "s", "-"),
        (3.0, "count", "3 count"),
    ],
)  # fmt: skip
def test_figures_have_prefixes_where_their_unit_takes_one(value, unit, text):
    assert figure(value, unit) == text


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["n1"], "n1"),
        (["node03", "node01", "node02", "node07"], "node[01-03,07]"),
        (["a", "b-1", "b-2", "login"], "a, login, b-[1-2]"),
        (["r1n1-ib", "r1n2-ib"], "r1n[1-2]-ib"),
        ([f"n{number}" for number in range(0, 60, 2)], "n[0,2,4,6,8], n[10,12,14,16,18,20,22,24,...]"),
    ],
)
def test_nodes_are_listed_as_slurm_does(names, text):
    assert node_list(names) == text


def test_a_spread_is_two_digits_of_a_percent_and_nothing_where_it_is_nothing():
    assert [share(part, -200.0) for part in (0.0, 0.03, 8.2, 30.0, 246.0)] == ["0 %", "0 %", "4.1 %", "15 %", "123 %"]
    assert share(1.0, 0.0) == "-"
