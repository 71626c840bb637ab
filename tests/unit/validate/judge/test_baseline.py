"""A validation measured by an earlier one, and by the site's own values."""

import json
import os

import pytest
from partition import Partition

from hpcai500.errors import InputError, ShortfallError, SpecError
from hpcai500.validate.judge.baseline import save_baseline
from hpcai500.validate.judge.verdict import judge


@pytest.fixture
def folder(tmp_path):
    """The folder of a partition, a new one for each."""
    number = iter(range(100))
    return lambda partition: partition.write(tmp_path / f"validation-{next(number)}")


@pytest.fixture
def baseline(tmp_path, folder):
    path = tmp_path / "baseline.json"
    assert save_baseline(judge(folder(Partition(6))), path) == ()
    return path


def kinds(report, *severities):
    return [(one.severity, one.kind, one.stage, one.nodes) for one in report.findings if one.severity in severities]


def test_a_run_is_as_good_as_itself_and_as_another_of_the_same_nodes(folder, baseline):
    for seed in (0, 1):
        report = judge(folder(Partition(6, seed=seed)), baseline=baseline)
        assert (report.verdict, report.findings) == ("pass", ())
        assert report.remarks == ("baseline: of 2026-11-22T19:00:00Z, hpcai500 0.1.0, level 2",)


def test_a_refused_baseline_leaves_no_folder_behind(hpcai500, baseline, tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("SLURM")]:
        monkeypatch.delenv(name)
    options = ("validate", "--stages", "inventory", "--output", tmp_path / "v", "--baseline", baseline)
    code, _, err = hpcai500(*options)
    assert (code, "not of " in err) == (2, True)
    assert not (tmp_path / "v").exists()


def test_a_baseline_holds_system_date_versions_and_medians_by_node(baseline):
    kept = json.loads(baseline.read_text())
    assert (kept["system"], kept["partition"], kept["level"]) == ("testbox", "batch", 2)
    assert (kept["date"], kept["hpcai500_version"]) == ("2026-11-22T19:00:00Z", "0.1.0")
    gemm = next(one for one in kept["metrics"] if one["metric"] == "gemm_bf16_flops")
    values = [one["median"] for one in gemm["values"]]
    assert len(values) == 6
    assert gemm["median"] == pytest.approx(sorted(values)[2] / 2 + sorted(values)[3] / 2)


def test_repeats_of_a_node_are_kept_as_median_and_spread(tmp_path, folder):
    partition = Partition(3, stages=("micro",))
    partition.found = []
    for name in partition.nodes:
        for value in (100.0, 104.0, 101.0):
            partition.add("micro", "gemm_bf16_flops", value, name)
    save_baseline(judge(folder(partition)), tmp_path / "b.json")
    value = json.loads((tmp_path / "b.json").read_text())["metrics"][0]["values"][0]
    assert (value["median"], value["repeats"]) == (101.0, 3)
    assert value["spread"] == pytest.approx(1.4826 * 1.495 * 1)


def test_a_node_that_became_slower_fails_even_where_peers_are_too_few(tmp_path, folder):
    save_baseline(judge(folder(Partition(2))), tmp_path / "b.json")
    slower = Partition(2).change(0.8, metric="gemm_bf16_flops", node="node0002")
    report = judge(folder(slower), baseline=tmp_path / "b.json")
    assert kinds(report, "fail", "warn") == [("fail", "baseline", "micro", ("node0002",))]
    assert "baseline" in report.findings[0].message
    assert "save a new baseline" in report.findings[0].remedy


def test_what_all_nodes_lost_is_one_finding(folder, baseline):
    report = judge(folder(Partition(6, seed=3).change(0.92, stage="micro")), baseline=baseline)
    assert kinds(report, "fail", "warn", "note") == [
        ("warn", "baseline", "micro", tuple(f"node000{number}" for number in range(1, 7)))
    ]
    assert "6 of 6" in report.findings[0].message


def test_a_changed_version_is_a_warning_that_names_both(folder, baseline):
    partition = Partition(6)
    for name in partition.nodes:
        partition.change("2.16", metric="layer4.torch", node=name)
    report = judge(folder(partition), baseline=baseline)
    assert kinds(report, "fail", "warn") == [("warn", "baseline", "inventory", tuple(partition.nodes))]
    assert "'2.16', baseline '2.15'" in report.findings[0].message


def test_a_node_that_the_baseline_does_not_know_is_held_against_its_median(tmp_path, folder, baseline):
    partition = Partition(7).change(0.8, stage="micro", node="node0007")
    finding = judge(folder(partition), baseline=baseline).findings[0]
    assert (finding.nodes, finding.severity) == (("node0007",), "fail")
    assert any("a new node" in line for line in (finding.message, *finding.details))


def test_a_baseline_of_another_partition_is_refused_unless_asked_for(folder, baseline):
    partition = Partition(6)
    partition.plan = partition.plan.model_copy(update={"partition": "gpu"})
    path = folder(partition)
    with pytest.raises(InputError, match="partition 'batch', not of system 'testbox', partition 'gpu'"):
        judge(path, baseline=baseline)
    assert judge(path, baseline=baseline, any_baseline=True).verdict == "pass"


def test_a_device_that_a_node_had_then_and_lacks_now_is_a_failure(tmp_path, folder):
    save_baseline(judge(folder(Partition(1, num_gpus=2))), tmp_path / "b.json")
    lost = Partition(1, num_gpus=2).drop(lambda one: one.stage == "micro" and one.device == "gpu1")
    report = judge(folder(lost), baseline=tmp_path / "b.json")
    assert kinds(report, "fail") == [("fail", "missing", "micro", ("node0001",))]
    assert "metrics of the baseline, first: gpu1 " in report.findings[0].message


@pytest.mark.parametrize(
    "change",
    [
        lambda metric: metric["values"][0].update(median="fast"),
        lambda metric: metric.update(spread=None),
        lambda metric: metric.update(values=[]),
        lambda metric: metric.update(median=None),
    ],
)
def test_a_doctored_baseline_is_one_line(folder, baseline, change):
    kept = json.loads(baseline.read_text())
    change(next(one for one in kept["metrics"] if one["metric"] == "gemm_bf16_flops"))
    baseline.write_text(json.dumps(kept))
    with pytest.raises(InputError, match=r"baseline\.json"):
        judge(folder(Partition(6)), baseline=baseline)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema_version": 2}', '{"metrics": 3, "x": 1}'])
def test_what_is_no_baseline_is_one_line(folder, baseline, text):
    baseline.write_text(text)
    with pytest.raises(InputError, match=r"baseline\.json"):
        judge(folder(Partition(3)), baseline=baseline)


def test_nodes_that_failed_are_left_out_of_a_new_baseline(tmp_path, folder):
    report = judge(folder(Partition(6).change(0.5, stage="micro", node="node0002")))
    assert save_baseline(report, tmp_path / "b.json") == ("node0002",)
    kept = json.loads((tmp_path / "b.json").read_text())
    assert kept["left_out"] == ["node0002"]
    assert not any("node0002" in value["nodes"] for metric in kept["metrics"] for value in metric["values"])


def test_without_a_node_that_passed_there_is_no_baseline(tmp_path, folder):
    report = judge(folder(Partition(3).drop(lambda one: True)))
    with pytest.raises(ShortfallError, match="no node passed"):
        save_baseline(report, tmp_path / "b.json")
    assert not (tmp_path / "b.json").exists()


def test_metrics_that_only_one_side_has_are_said(folder, baseline):
    partition = Partition(6, stages=("inventory", "micro"))
    for name in partition.nodes:
        partition.add("micro", "new_flops", 1e12, name)
    remarks = judge(folder(partition), baseline=baseline).remarks
    assert "baseline: 1 of its 4 metrics were not measured now" in remarks
    assert "baseline: 1 metrics measured now are not in it" in remarks


# The site's values


@pytest.fixture
def with_values(tmp_path, folder):
    def judged(text, partition=None):
        (tmp_path / "site.toml").write_text(text)
        return judge(folder(partition or Partition(6)), expected=tmp_path / "site.toml")

    return judged


GEMM = '[[expect]]\nmetric = "gemm_bf16_*"\nreference = 7e14\nunit = "FLOPS"\n'


def test_values_within_the_site_s_bounds_pass(with_values):
    assert with_values(f"{GEMM}lower = -0.05\nupper = 0.1\n").findings == ()


def test_lower_and_upper_are_parts_of_the_reference(with_values):
    slow = Partition(6, noise=0).change(0.94, metric="gemm_bf16_flops", node="node0003")
    report = with_values(f"{GEMM}lower = -0.05\n", slow)
    assert kinds(report, "fail") == [("fail", "expected", "micro", ("node0003",))]
    assert "lowest 6.65e+14" in report.findings[0].message
    assert kinds(with_values(f"{GEMM}lower = -0.07\n", slow), "fail") == []
    fast = Partition(6, noise=0).change(1.2, metric="gemm_bf16_flops", node="node0003")
    assert kinds(with_values(f"{GEMM}upper = 0.1\n", fast), "fail")[0][3] == ("node0003",)


def test_of_a_reference_of_zero_they_are_absolute(with_values):
    partition = Partition(3)
    for name in partition.nodes:
        count = 3.0 if name == "node0002" else 0.0
        partition.add("health", "ecc_errors", count, name, better="lower", unit="count")
    text = '[[expect]]\nmetric = "health/ecc_errors"\nreference = 0\nupper = {}\nunit = "count"\n'
    assert kinds(with_values(text.format(2), partition), "fail") == [("fail", "expected", "health", ("node0002",))]
    assert kinds(with_values(text.format(3), partition), "fail") == []


def test_a_text_must_be_met(with_values):
    text = '[[expect]]\nmetric = "layer4.torch"\nreference = "2.16"\nseverity = "warn"\n'
    report = with_values(text)
    assert kinds(report, "fail", "warn") == [("warn", "expected", "inventory", tuple(Partition(6).nodes))]
    assert with_values(text.replace("2.16", "2.15")).findings == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[expect]]\nmetric = 'm'\nreferense = 1\n", "unknown key 'expect.0.referense'; did you mean 'reference'?"),
        ("[[expected]]\nmetric = 'm'\n", "did you mean 'expect'?"),
        ("[[expect]]\nmetric = 'm'\nreference = 1\n", "give lower, upper or both"),
        ("[[expect]]\nmetric = 'm'\nreference = 1\nlower = 0.05\n", "lower must be at most 0"),
        ("[[expect]]\nmetric = 'm'\nreference = 'x'\nlower = -0.05\n", "a text has no lower or upper"),
        ("[[expect]]\nmetric = 'm'\nreference = true\nlower = -0.05\n", "reference"),
        ("[[peers]]\nmetric = 'm'\nrelative = -1\n", "relative"),
        ("[[expect", "not valid TOML"),
        (
            "[[expect]]\nmetric = 'gemm*'\nreference = 700\nlower = -0.05\nunit = 'TFLOPS'\n",
            "is not that of gemm_bf16",
        ),
        ("[[expect]]\nmetric = 'gemm*'\nreference = 'x'\nunit = 'FLOPS'\n", "is a number, the reference is not"),
    ],
)
def test_a_wrong_key_value_or_unit_is_one_line(with_values, text, says):
    with pytest.raises(SpecError) as error:
        with_values(text)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_an_expectation_of_nothing_that_was_measured_is_said(with_values):
    report = with_values(GEMM.replace("gemm_bf16_*", "gemm_bf16_flopz") + "lower = -0.05\n")
    assert report.verdict == "pass"
    assert "gemm_bf16_flopz was not measured (did you mean 'gemm_bf16_flops'?)" in report.remarks[-1]


def test_the_site_may_widen_the_bound_between_peers(with_values):
    slow = Partition(6).change(0.7, metric="gemm_bf16_flops", node="node0003")
    assert kinds(with_values("", slow), "fail") != []
    assert kinds(with_values('[[peers]]\nmetric = "gemm_*"\nrelative = 0.4\n', slow), "fail", "warn") == []
