"""What is found in partitions that were spoilt on purpose, and that nothing is found in healthy ones."""

import os
import shutil

import pytest
from partition import Partition

from hpcai500.errors import InputError
from hpcai500.validate.files import Trouble
from hpcai500.validate.judge.reading import Key
from hpcai500.validate.judge.verdict import judge


@pytest.fixture
def verdict(tmp_path):
    def judged(partition, **options):
        shutil.rmtree(tmp_path / "validation", ignore_errors=True)
        return judge(partition.write(tmp_path / "validation"), **options)

    return judged


def found(report, *severities):
    """(severity, kind, stage, nodes) of all findings, or of those of `severities`."""
    return [
        (one.severity, one.kind, one.stage, one.nodes)
        for one in report.findings
        if not severities or one.severity in severities
    ]


@pytest.mark.parametrize("num_nodes", [1, 2, 3, 4, 5, 8, 50])
@pytest.mark.parametrize("seed", range(5))
def test_a_healthy_partition_passes(verdict, num_nodes, seed):
    report = verdict(Partition(num_nodes, seed=seed, num_gpus=2))
    assert (found(report), report.verdict, report.exit_code) == ([], "pass", 0)


@pytest.mark.parametrize("num_nodes", [3, 4, 8, 300])
def test_a_slow_node_is_one_finding_and_the_only_one(verdict, num_nodes):
    report = verdict(Partition(num_nodes, num_gpus=2).change(0.7, stage="micro", node="node0002"))
    assert found(report) == [("fail", "peers", "micro", ("node0002",))]
    only = report.findings[0]
    assert only.device == ""
    assert len(only.details) == 3
    assert (report.verdict, report.exit_code) == ("fail", 1)
    assert only.value == pytest.approx(0.7 * only.reference, rel=0.03)


def test_a_slow_device_is_named(verdict):
    report = verdict(Partition(4, num_gpus=8).change(0.8, stage="micro", node="node0003", device="gpu5"))
    assert [(one.nodes, one.device) for one in report.findings] == [(("node0003",), "gpu5")]


def test_the_devices_of_a_node_alone_are_compared_with_each_other(verdict):
    report = verdict(Partition(1, num_gpus=8).change(0.8, stage="micro", device="gpu5"))
    assert [(one.nodes, one.device) for one in report.findings] == [(("node0001",), "gpu5")]


def test_beyond_the_bound_is_a_warning_and_beyond_twice_the_bound_a_failure(verdict, tmp_path):
    slower = Partition(20, noise=0.001).change(0.93, stage="micro", node="node0002")
    report = verdict(slower)
    assert found(report) == [("warn", "peers", "micro", ("node0002",))]
    assert (report.verdict, report.exit_code) == ("warn", 0)


def test_the_statistical_bound_spares_what_noise_explains(verdict):
    values = [100, 112, 88, 106, 94, 109, 91, 103, 97, 85]
    noisy = Partition(10, stages=("micro",))
    noisy.found = []
    for name, value in zip(noisy.nodes, values, strict=True):
        noisy.add("micro", "gemm_bf16_flops", float(value), name)
    kinds = {one.kind for one in verdict(noisy).findings}
    assert "peers" not in kinds  # 85 is 13 % below the median 98.5, yet only 1.1 of its deviations


def test_equal_values_leave_the_relative_bound_to_decide(verdict):
    report = verdict(Partition(6, noise=0).change(0.96, stage="micro", node="node0001"))
    assert found(report) == []
    report = verdict(Partition(6, noise=0).change(0.94, stage="micro", node="node0001"))
    assert found(report, "warn") == [("warn", "peers", "micro", ("node0001",))]


def test_a_better_node_is_a_note(verdict):
    report = verdict(Partition(8).change(1.4, stage="micro", node="node0004"))
    assert found(report) == [("note", "better", "micro", ("node0004",))]
    assert report.verdict == "pass"


def test_where_less_is_better_more_is_worse(verdict):
    partition = Partition(8, stages=("micro",))
    for name in partition.nodes:
        partition.add("micro", "step_sec", 0.9 if name == "node0005" else 0.5, name, better="lower", unit="s")
    assert found(verdict(partition)) == [("fail", "peers", "micro", ("node0005",))]


def test_two_nodes_have_no_peers_and_the_report_says_so(verdict):
    report = verdict(Partition(2).change(0.5, stage="micro", node="node0002"))
    assert found(report) == []
    assert "fewer than 3 values are too few to find a slow one" in report.remarks[0]


def test_two_groups_of_nodes_are_a_warning_that_names_no_node(verdict):
    partition = Partition(10, noise=0.002)
    for name in partition.nodes[:5]:
        partition.change(0.6, stage="micro", metric="gemm_bf16_flops", node=name)
    assert found(verdict(partition)) == [("warn", "spread", "micro", ())]


# What must be equal


def test_the_odd_one_out_is_named_with_what_the_others_have(verdict):
    report = verdict(Partition(5).change("2.14", metric="layer4.torch", node="node0005"))
    assert found(report) == [("fail", "differs", "inventory", ("node0005",))]
    assert report.findings[0].message == "layer4.torch is '2.14'; 4 others have '2.15'"


def test_nodes_that_are_odd_in_the_same_way_are_one_finding(verdict):
    partition = Partition(7)
    for name in ("node0002", "node0003"):
        partition.change("2.14", metric="layer4.torch", node=name)
    assert found(verdict(partition)) == [("fail", "differs", "inventory", ("node0002", "node0003"))]


def test_a_node_that_is_odd_in_several_ways_is_one_finding(verdict):
    partition = Partition(4)
    for name in partition.nodes:
        partition.add(
            "inventory", "layer2.kernel", "6.1" if name == "node0001" else "6.8", name, better="same", unit=""
        )
    partition.change("2.14", metric="layer4.torch", node="node0001")
    report = verdict(partition)
    assert found(report) == [("fail", "differs", "inventory", ("node0001",))]
    assert report.findings[0].details == ("layer4.torch is '2.14'; 3 others have '2.15'",)


@pytest.mark.parametrize("num_nodes", [2, 6])
def test_a_tie_is_a_split_that_accuses_nobody(verdict, num_nodes):
    partition = Partition(num_nodes)
    for name in partition.nodes[: num_nodes // 2]:
        partition.change("2.14", metric="layer4.torch", node=name)
    report = verdict(partition)
    assert found(report) == [("fail", "split", "inventory", tuple(partition.nodes))]
    assert "no value has the majority" in report.findings[0].message


def losses(values, **options):
    partition = Partition(len(values), stages=("training",), **options)
    for name, value in zip(partition.nodes, values, strict=True):
        partition.add("training", "loss", value, name, better="same", unit="")
    return partition


def test_a_node_that_computes_something_else_is_named(verdict):
    report = verdict(losses([0.731, 0.731, 0.7311, 0.731]))
    assert found(report) == [("fail", "differs", "training", ("node0003",))]
    assert "computes wrong results" in report.findings[0].remedy


def test_losses_that_agree_to_a_millionth_or_within_their_noise_pass(verdict):
    assert found(verdict(losses([0.731, 0.7310000001, 0.731, 0.731]))) == []


def test_losses_within_their_own_noise_pass(verdict):
    assert found(verdict(losses([0.731, 0.742, 0.725, 0.736, 0.729]))) == []


def test_two_losses_that_differ_are_a_split(verdict):
    assert found(verdict(losses([0.731, 0.739]))) == [("fail", "split", "training", ("node0001", "node0002"))]


def test_the_scaling_efficiency_is_that_of_a_node_together_over_the_median_alone(verdict):
    partition = Partition(4, stages=("training",))
    for name, rate in zip(partition.nodes, (99.0, 100.0, 100.0, 101.0), strict=True):
        partition.add("training", "alone_samples_per_sec", rate, name, unit="1/s")
    partition.add("training", "together_samples_per_sec", 87.0, *partition.nodes, unit="1/s")
    series = verdict(partition).series[Key("training", "scaling_efficiency", 4)]
    assert list(series.values.values()) == [[0.87]]


# Links


@pytest.mark.parametrize("num_nodes", [3, 4, 5, 9, 40])
def test_a_bad_adapter_is_one_finding_and_not_one_a_link(verdict, num_nodes):
    report = verdict(Partition(num_nodes).change(0.3, stage="links", node="node0002"))
    assert found(report) == [("fail", "links", "links", ("node0002",))]
    assert f"{num_nodes - 1} of its {num_nodes - 1} links" in report.findings[0].message
    assert "adapter" in report.findings[0].remedy


@pytest.mark.parametrize("num_nodes", [3, 4, 6, 40])
def test_a_bad_cable_is_a_finding_of_the_link(verdict, num_nodes):
    report = verdict(Partition(num_nodes).change(0.3, nodes=("node0001", "node0003")))
    assert found(report) == [("fail", "links", "links", ("node0001", "node0003"))]
    assert "cable" in report.findings[0].remedy


def test_two_bad_adapters_and_a_bad_cable_are_three_findings(verdict):
    partition = Partition(10).change(0.3, stage="links", node="node0002").change(0.4, stage="links", node="node0007")
    partition.change(0.5, nodes=("node0004", "node0009"))
    assert sorted(one[3] for one in found(verdict(partition))) == [
        ("node0002",),
        ("node0004", "node0009"),
        ("node0007",),
    ]


def test_with_a_few_rounds_only_a_bad_adapter_is_still_named(verdict):
    partition = Partition(30, rounds=2).change(0.3, stage="links", node="node0011")
    assert found(verdict(partition)) == [("fail", "links", "links", ("node0011",))]


def test_with_one_link_a_node_the_link_is_named(verdict):
    partition = Partition(10, stages=("links",))
    partition.found = []
    for left, right in zip(partition.nodes[::2], partition.nodes[1::2], strict=True):
        slow = 0.3 if left == "node0005" else 1.0
        partition.add("links", "link_bytes_per_sec", slow * 2e10, left, right, unit="B/s")
    assert found(verdict(partition)) == [("fail", "links", "links", ("node0005", "node0006"))]


def test_many_slow_links_between_two_groups_are_one_finding(verdict):
    partition = Partition(20, noise=0.002)
    for left in partition.nodes[:5]:
        for right in partition.nodes[5:11]:
            partition.change(0.5, nodes=(left, right))
    report = verdict(partition)
    assert [one[:3] for one in found(report)] == [("fail", "links", "links")]
    assert len(report.findings[0].nodes) == 11
    assert report.findings[0].message.startswith("30 links between 11 nodes are slow")


# What never came


def test_a_node_without_an_answer_fails_and_is_never_an_absence(verdict):
    report = verdict(Partition(5).drop(lambda one: "node0003" in one.nodes))
    assert found(report) == [("fail", "no_answer", "inventory", ("node0003",))]
    assert report.findings[0].further_stages == ("micro", "links")


def test_a_missing_stage_fails(verdict):
    report = verdict(Partition(5).drop(lambda one: one.stage == "links" and "node0003" in one.nodes))
    assert found(report) == [("fail", "no_answer", "links", ("node0003",))]


def test_an_unreachable_node_is_one_finding_for_all_its_stages(verdict):
    partition = Partition(5).drop(lambda one: "node0003" in one.nodes)
    partition.found.append(Trouble(stage="inventory", nodes=("node0003",), kind="unreachable", message="drained"))
    report = verdict(partition)
    assert found(report) == [("fail", "unreachable", "inventory", ("node0003",))]
    assert report.findings[0].further_stages == ("micro", "links")
    assert "node0003" not in report.answered["inventory"]


def test_a_folder_in_which_nothing_was_measured_fails(verdict):
    report = verdict(Partition(3).drop(lambda one: True))
    assert found(report) == [("fail", "no_answer", "inventory", ("node0001", "node0002", "node0003"))]


def test_a_metric_that_only_one_node_lacks_fails(verdict):
    partition = Partition(4, num_gpus=2)
    partition.drop(lambda one: one.nodes == ("node0004",) and one.device == "gpu1")
    report = verdict(partition)
    assert found(report) == [("fail", "missing", "micro", ("node0004",))]
    assert "2 metrics that most nodes have" in report.findings[0].message


def test_a_metric_that_few_nodes_have_is_no_finding(verdict):
    partition = Partition(4)
    partition.add("micro", "extra_flops", 1e12, "node0001")
    assert found(verdict(partition)) == []


def test_a_trouble_explains_what_is_missing(verdict):
    partition = Partition(4).drop(lambda one: one.stage == "micro" and one.nodes == ("node0004",))
    partition.found.append(Trouble(stage="micro", nodes=("node0004",), kind="timeout", message="no end in 60 s"))
    assert found(verdict(partition)) == [("fail", "timeout", "micro", ("node0004",))]


def skipped(name, metric):
    return Trouble(stage="micro", nodes=(name,), kind="failed", severity="warn", metric=metric, message="too long")


def test_what_all_nodes_skip_is_a_warning(verdict):
    partition = Partition(4)
    partition.found += [skipped(name, "other_flops") for name in partition.nodes]
    assert found(verdict(partition)) == [("warn", "failed", "micro", tuple(partition.nodes))]


def test_what_one_node_skips_and_most_measure_is_a_failure_with_its_reason_alone(verdict):
    partition = Partition(4)
    for name in partition.nodes:
        partition.add("micro", "other_flops", 1e12, name)
    partition.drop(lambda one: one.metric == "other_flops" and one.nodes == ("node0004",))
    partition.found.append(skipped("node0004", "other_flops"))
    report = verdict(partition)
    assert found(report) == [("fail", "failed", "micro", ("node0004",))]
    assert report.findings[0].message == "too long"


def test_a_skipped_kernel_does_not_excuse_a_device_that_is_gone(verdict):
    partition = Partition(4, num_gpus=2)
    partition.drop(lambda one: one.nodes == ("node0004",) and one.device == "gpu1")
    partition.found.append(skipped("node0004", "other_flops"))
    assert found(verdict(partition)) == [
        ("fail", "missing", "micro", ("node0004",)), ("warn", "failed", "micro", ("node0004",)),
    ]  # fmt: skip


def test_equal_troubles_of_nodes_are_one_finding_and_each_has_a_remedy(verdict):
    partition = Partition(4)
    for name in partition.nodes:
        partition.found.append(
            Trouble(stage="health", nodes=(name,), kind="unhealthy", severity="warn", message="persistence is off")
        )
    report = verdict(partition)
    assert found(report) == [("warn", "unhealthy", "health", tuple(partition.nodes))]
    assert report.findings[0].remedy
    assert report.exit_code == 0


def test_pairs_that_share_a_hung_node_are_one_finding_of_it(verdict):
    partition = Partition(6).drop(lambda one: one.stage == "links" and "node0005" in one.nodes)
    for name in partition.nodes:
        if name != "node0005":
            partition.found.append(
                Trouble(
                    stage="links", nodes=tuple(sorted((name, "node0005"))), kind="timeout", message=f"{name} waited"
                )
            )
    report = verdict(partition)
    assert found(report) == [("fail", "timeout", "links", ("node0005",))]
    assert len(report.findings[0].details) == 5


def test_a_node_alone_needs_no_links(verdict):
    assert found(verdict(Partition(1))) == []


def test_findings_stand_worst_first(verdict):
    partition = Partition(12, noise=0.001).change(1.5, stage="micro", node="node0001")
    partition.change(0.92, stage="micro", node="node0002").change(0.5, stage="micro", node="node0004")
    partition.change(0.7, stage="micro", node="node0003").drop(lambda one: "node0009" in one.nodes)
    assert [(one[0], one[3][0]) for one in found(verdict(partition))] == [
        ("fail", "node0009"),
        ("fail", "node0004"),
        ("fail", "node0003"),
        ("warn", "node0002"),
        ("note", "node0001"),
    ]


# Hostile folders


def test_no_plan_and_a_broken_plan_are_one_line(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        judge(tmp_path)
    for text in ("{", "[]", "{}", '{"schema_version": 9}'):
        (tmp_path / "plan.json").write_text(text)
        with pytest.raises(InputError, match=r"plan\.json"):
            judge(tmp_path)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"type": "measurement", "sta', "torn"),
        (b"\xff\xfe\x00\n", "line 1"),
        (b"[" * 100_000 + b"\n", "line 1"),
        (b"null\n", "line 1"),
        (b'{"type": "eval"}\n', "line 1"),
        (b'{"type": "measurement", "stage": "micro", "metric": "m", "unit": "", "value": NaN, "better": "higher", '
         b'"nodes": ["node0001"]}\n', "line 1"),
        (b'{"type": "measurement", "stage": "micro", "metric": "../etc", "unit": "", "value": 1, "better": "higher", '
         b'"nodes": ["node0001"]}\n', "line 1"),
        (b"x" * 3_000_000, "longer than"),
    ],
)  # fmt: skip
def test_lines_that_cannot_be_read_are_a_warning_and_no_crash(tmp_path, line, says):
    folder = Partition(3).write(tmp_path)
    (folder / "measurements" / "evil.jsonl").write_bytes(line)
    report = judge(folder)
    assert found(report) == [("warn", "failed", "inventory", ())]
    assert "measurements/evil.jsonl: " in report.findings[0].message
    assert says in report.findings[0].message


def test_a_torn_last_line_leaves_the_lines_before_it(tmp_path):
    folder = Partition(3).write(tmp_path)
    path = folder / "measurements" / "node0002.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    report = judge(folder)
    assert ("warn", "failed", "inventory", ()) in found(report)
    assert "torn" in next(one.message for one in report.findings if one.kind == "failed")


def test_a_pipe_a_folder_and_a_dangling_link_hold_nothing_up(tmp_path):
    folder = Partition(3).write(tmp_path)
    os.mkfifo(folder / "measurements" / "a.jsonl")
    (folder / "measurements" / "b.jsonl").mkdir()
    (folder / "measurements" / "c.jsonl").symlink_to(tmp_path / "nowhere")
    assert [one.severity for one in judge(folder).findings] == ["warn"] * 3


def test_nodes_outside_the_plan_are_reported_and_not_judged(tmp_path):
    partition = Partition(4)
    partition.add("micro", "gemm_bf16_flops", 1.0, "stranger")
    report = judge(partition.write(tmp_path))
    assert found(report) == [("warn", "failed", "inventory", ())]
    assert "'stranger'" in report.findings[0].message


def test_a_metric_in_another_unit_is_a_failure_of_that_node(verdict):
    partition = Partition(5).drop(lambda one: one.nodes == ("node0005",) and one.metric == "gemm_bf16_flops")
    partition.add("micro", "gemm_bf16_flops", 7e2, "node0005", unit="TFLOPS", device="gpu0")
    report = verdict(partition)
    assert ("fail", "failed", "micro", ("node0005",)) in found(report)
    assert "'TFLOPS'" in report.findings[0].message
