"""Validation of the testbed, healthy and with real faults, each of which is found and named."""

import json
import os
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

CLONE = Path(__file__).parents[2]
TESTBED = CLONE / "slurm/testbed/testbed.py"
EXPECTED = CLONE / "slurm/testbed/expected.toml"
CPU = Path("/sys/fs/cgroup/cpu")
OVERLAY = "/tmp/overlay"  # on one node only: each has its own /tmp


class Partition:
    """The testbed's nodes, with methods that validate and break them."""

    def __init__(self, desk):
        self.desk = desk
        self.cluster = desk.cluster
        self.output = desk.folder / "validation"

    def validate(self, stages, *options):
        """Exit code, report, and the validation's folder."""
        done = self.desk.hpcai500(
            "validate", "--site", "testbed", "--stages", stages, "--output", self.output, "--expected", EXPECTED,
            "--json", *options, check=False,
        )  # fmt: skip
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout), max((self.output / "testbed").iterdir())

    def inside(self, node, *argv, check=True):
        return self.cluster.run(sys.executable, TESTBED, "exec", node, "--", *argv, check=check)

    @contextmanager
    def overlay(self, node, files):
        """Write `files` below OVERLAY on `node`; OVERLAY is on the PYTHONPATH of all nodes' jobs."""
        for name, text in files.items():
            path = f"{OVERLAY}/{name}"
            self.inside(node, "sh", "-c", f'mkdir -p $(dirname {path}) && printf %s "$1" >{path}', "sh", text)
        try:
            yield "--slurm", f'software.environment={{ PYTHONPATH = "{OVERLAY}" }}'
        finally:
            self.inside(node, "rm", "-rf", OVERLAY)

    def has_begun(self):
        """Whether every node is in its first stage."""
        begun = list(self.output.glob("testbed/*/progress/node*"))
        return len(begun) == 4 and all('"stage":"' in path.read_text() for path in begun)

    @contextmanager
    def once(self, holds, act):
        """While the block runs, call `act` as soon as `holds` returns true."""

        def wait_and_act():
            deadline = time.monotonic() + 90
            while not holds():
                if time.monotonic() > deadline:
                    return
                time.sleep(0.1)
            act()

        thread = threading.Thread(target=wait_and_act)
        thread.start()
        yield
        thread.join()


@pytest.fixture
def partition(desk):
    return Partition(desk)


def failures(report):
    """Nodes, stages and messages of failures."""
    return [
        (list(found["nodes"]), found["stage"], found["message"])
        for found in report["findings"]
        if found["severity"] == "fail"
    ]


@pytest.mark.parametrize("time", range(int(os.environ.get("HPCAI500_HEALTHY_TIMES", "1"))))
def test_healthy_nodes_pass_and_every_pair_is_measured_once(partition, time):
    """Level 1; ten times in a row with HPCAI500_HEALTHY_TIMES=10."""
    code, report, folder = partition.validate("inventory,health,micro,links")
    assert (code, report["verdict"]) == (0, "pass"), report["findings"]
    assert {outcome["node"]: outcome["verdict"] for outcome in report["nodes"]} == dict.fromkeys(
        ["node1", "node2", "node3", "node4"], "pass"
    )
    lines = [json.loads(line) for path in folder.glob("measurements/*") for line in path.read_text().splitlines()]
    pairs = [tuple(line["nodes"]) for line in lines if line.get("metric") == "link_bytes_per_sec"]
    assert sorted(pairs) == [(f"node{i}", f"node{j}") for i in range(1, 5) for j in range(i + 1, 5)]
    assert json.loads((folder / "report.json").read_text()) == report
    assert (folder / "report.html").stat().st_size > 1_000


def test_sets_of_nodes_storage_and_training_are_measured_alone_and_together(partition):
    code, report, _ = partition.validate("collectives,storage,training", "--nodes", "2")
    assert code == 0, failures(report)
    measured = {(metric["stage"], metric["num_nodes"]) for metric in report["metrics"]}
    assert measured == {("collectives", 2), ("storage", 1), ("training", 1), ("training", 2)}
    (loss,) = [metric for metric in report["metrics"] if (metric["metric"], metric["num_nodes"]) == ("alone_loss", 1)]
    assert (loss["num_values"], loss["num_distinct"]) == (2, 1)
    starts = {metric["metric"].partition("_")[0] for metric in report["metrics"] if metric["stage"] == "storage"}
    assert starts == {"alone", "together"}


def test_a_level_that_may_take_longer_than_the_partition_allows_runs_all_the_same(partition):
    """Level 3 waits for three hours; the partition allows one."""
    code, report, folder = partition.validate("health", "--level", "3", "--nodes", "1")
    assert code == 0, failures(report)
    (script,) = (folder / "logs").glob("*_submission.sh")
    assert "--time=60\n" in script.read_text()


# A token bucket limits only what node2 sends to node4.
SLOW_LINK = [
    "tc qdisc add dev eth0 root handle 1: htb default 10 r2q 100000",
    "tc class add dev eth0 parent 1: classid 1:10 htb rate 100gbit",
    "tc class add dev eth0 parent 1: classid 1:20 htb rate 100gbit",
    "tc qdisc add dev eth0 parent 1:20 tbf rate 200mbit burst 64kb latency 50ms",
    "tc filter add dev eth0 parent 1: protocol ip u32 match ip dst 10.50.0.14/32 flowid 1:20",
]
OTHER_LIBRARY = "Metadata-Version: 2.1\nName: torchvision\nVersion: 0.1.2\n"
WRONG = """\
import sys
if sys.argv[0] == "-m" and any("hpcai500" in word for word in sys.orig_argv):
    import torch
    matmul = torch.matmul
    def off_by_one(*operands, **options):
        result = matmul(*operands, **options)
        result.view(-1)[0] += 1
        return result
    torch.matmul = off_by_one
"""


@contextmanager
def slow_link(partition):
    partition.inside("node2", "sh", "-c", " && ".join(SLOW_LINK))
    try:
        yield
    finally:
        partition.inside("node2", "tc", "qdisc", "del", "dev", "eth0", "root")


@contextmanager
def full_disk(partition):
    """A node's own /tmp is made small and filled. It is not mounted over, since this clone may be below it."""
    partition.inside("node4", "mount", "-o", "remount,size=64m", "/tmp")
    try:
        partition.inside("node4", "sh", "-c", "dd if=/dev/zero of=/tmp/full bs=1M 2>/dev/null", check=False)
        yield
    finally:
        partition.inside("node4", "rm", "-f", "/tmp/full")
        partition.inside("node4", "mount", "-o", "remount,size=50%", "/tmp")


def test_a_slow_link_another_library_a_wrong_product_and_a_full_disk_at_once_are_each_named(partition):
    with (
        slow_link(partition),
        full_disk(partition),
        partition.overlay("node1", {"usercustomize.py": "", "sitecustomize.py": WRONG}),
        partition.overlay("node3", {"torchvision-0.1.2.dist-info/METADATA": OTHER_LIBRARY}) as options,
    ):
        code, report, _ = partition.validate("inventory,health,micro,links", *options)
    assert code == 1
    found = failures(report)
    assert {(tuple(nodes), stage) for nodes, stage, _ in found} == {
        (("node2", "node4"), "links"), (("node3",), "inventory"), (("node1",), "micro"), (("node4",), "health"),
    }, found  # fmt: skip
    said = {stage: message for _, stage, message in found}
    assert "0.1.2" in said["inventory"]
    assert said["health"].startswith("the disk of /tmp is full")
    assert any(finding["kind"] == "wrong_result" for finding in report["findings"])


def test_a_drained_node_is_named_with_its_reason_and_the_others_are_validated(partition):
    partition.cluster.run("scontrol", "update", "nodename=node3", "state=drain", "reason=smells of smoke")
    try:
        code, report, _ = partition.validate("health,links")
    finally:
        partition.cluster.run("scontrol", "update", "nodename=node3", "state=resume")
        partition.cluster.run(sys.executable, TESTBED, "up")  # waits until the node answers again
    assert code == 1
    ((nodes, _, message),) = failures(report)
    assert nodes == ["node3"]
    assert "smells of smoke" in message
    assert {stage["stage"]: stage["num_answered"] for stage in report["stages"]} == {"health": 3, "links": 3}


def test_a_node_that_loses_its_power_is_named_and_the_others_go_on(partition):
    """The lost node is the job's first one, which runs its script and leads the others."""
    with partition.once(partition.has_begun, lambda: partition.cluster.kill_node(1)):
        code, report, _ = partition.validate("health,links,inventory")
    partition.cluster.start_node(1)
    assert code == 1
    assert {tuple(nodes) for nodes, _, _ in failures(report)} == {("node1",)}, failures(report)
    answered = {stage["stage"]: stage["num_answered"] for stage in report["stages"]}
    assert answered["links"] >= 3


def test_a_slurmd_that_dies_is_named_though_its_node_goes_on(partition):
    kill = [sys.executable, TESTBED, "exec", "node3", "--", "pkill", "-KILL", "--exact", "slurmd"]
    with partition.once(partition.has_begun, lambda: partition.cluster.run(*kill)):
        code, report, _ = partition.validate("inventory,health,links")
    assert partition.cluster.run(sys.executable, TESTBED, "up")
    assert code == 1
    assert {tuple(nodes) for nodes, _, _ in failures(report)} == {("node3",)}, failures(report)


def test_a_node_that_hangs_is_named_in_time_and_the_others_go_on(partition):
    def stop():
        partition.inside("node4", "pkill", "-STOP", "--full", "hpcai500.validate")

    try:
        with partition.once(partition.has_begun, stop):
            code, report, _ = partition.validate("inventory,health,links", "--step-timeout-sec", "20")
    finally:
        partition.inside("node4", "pkill", "-KILL", "--full", "hpcai500.validate", check=False)
    assert code == 1
    assert {tuple(nodes) for nodes, _, _ in failures(report)} == {("node4",)}, failures(report)
    assert {stage["stage"]: stage["num_answered"] for stage in report["stages"]}["links"] == 3


HUNG = """\
import sys, time
if "hpcai500.validate.agent.children" in sys.orig_argv and "micro" in sys.orig_argv:
    time.sleep(120)
"""


def test_a_node_whose_devices_hang_is_named_and_the_others_are_measured(partition):
    """A process that hangs before it measures. The others wait for it, and lose none of their own time."""
    with partition.overlay("node3", {"usercustomize.py": "", "sitecustomize.py": HUNG}) as options:
        code, report, folder = partition.validate(
            "micro", "--nodes", "node[1-3]", "--step-timeout-sec", "15", *options
        )
    assert code == 1
    ((nodes, stage, message),) = failures(report)
    assert (nodes, stage) == (["node3"], "micro")
    assert "was not ready to measure within 15 s" in message
    lines = [json.loads(line) for path in folder.glob("measurements/*") for line in path.read_text().splitlines()]
    assert {line["nodes"][0] for line in lines if line.get("metric") == "gemm_1024_fp32_flops"} == {"node1", "node2"}


@pytest.fixture
def slow_down():
    """Limit all processes of jobs on a node to a part of one CPU."""
    if not CPU.is_dir():
        pytest.skip("this machine has no cpu cgroup of version 1")
    groups = []

    def limit(node, part):
        groups.append(group := CPU / f"hpcai500-slow-{node}")
        group.mkdir(exist_ok=True)
        (group / "cpu.cfs_period_us").write_text("20000")
        (group / "cpu.cfs_quota_us").write_text(str(round(20_000 * part)))
        (daemon,) = [p.pid for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["slurmd", "-N", node]]
        host = Path(f"/proc/{daemon}/ns/pid").readlink()
        for process in psutil.process_iter():
            with suppress(OSError):
                if Path(f"/proc/{process.pid}/ns/pid").readlink() == host:
                    (group / "cgroup.procs").write_text(str(process.pid))

    yield limit
    for group in groups:
        for pid in (group / "cgroup.procs").read_text().split():
            with suppress(OSError):
                (CPU / "cgroup.procs").write_text(pid)
        group.rmdir()


def test_a_slow_node_is_named(partition, slow_down):
    """One node of three is slow, so that each of the others has a core even on the smallest test machine."""

    def measures():
        return list(partition.output.glob("testbed/*/measurements/node3-micro-*"))

    with partition.once(measures, lambda: slow_down("node3", 0.12)):
        code, report, _ = partition.validate("micro", "--nodes", "node[1-3]")
    assert code == 1
    assert {tuple(nodes) for nodes, _, _ in failures(report)} == {("node3",)}, failures(report)
