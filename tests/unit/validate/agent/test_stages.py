"""Stages of a validation, and what keeps the agents in step: schedules, meetings, links, health, waiting."""

import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
import types
from pathlib import Path, PurePath

import pytest

from hpcai500.errors import SpecError
from hpcai500.launch.slurm.cluster import NodeState, parse_states
from hpcai500.micro.collectives import _samples
from hpcai500.spec.site import load_site
from hpcai500.system.devices import native_precision
from hpcai500.validate.agent.children import run_children
from hpcai500.validate.agent.main import attend
from hpcai500.validate.agent.meeting import LeftOutError, Meeting
from hpcai500.validate.agent.schedule import groups, growing_sizes, rounds
from hpcai500.validate.agent.seat import Seat
from hpcai500.validate.agent.stages import health_gpu, links, micro
from hpcai500.validate.agent.stages.collectives import blamed
from hpcai500.validate.agent.stages.inventory import flattened, metric_name
from hpcai500.validate.agent.stages.storage import spread_evenly
from hpcai500.validate.conduct.jobs import Standing
from hpcai500.validate.conduct.launching import choose_nodes
from hpcai500.validate.conduct.script import agent_site, render_agents
from hpcai500.validate.conduct.watch import Limits, watch
from hpcai500.validate.files import Measurement, Order, Plan, Progress, read_progress, write_progress

GOLDEN = Path(__file__).parents[3] / "golden"


def test_four_nodes_meet_in_three_rounds():
    """Held against the table of the circle method, by hand: a stays, the others turn."""
    assert [{frozenset(pair) for pair in pairs} for pairs in rounds("abcd")] == [
        {frozenset("ad"), frozenset("bc")},
        {frozenset("ac"), frozenset("db")},
        {frozenset("ab"), frozenset("cd")},
    ]


def test_of_five_nodes_one_rests_in_each_of_five_rounds():
    resting = [set("abcde") - {name for pair in pairs for name in pair} for pairs in rounds("abcde")]
    assert sorted("".join(rest) for rest in resting) == list("abcde")


@pytest.mark.parametrize("count", [1, 2, 3, 6, 7, 31, 32, 101, 128])
def test_every_pair_meets_once_and_no_node_is_in_two_places(count):
    names = [f"n{index}" for index in range(count)]
    plan = list(rounds(names))
    met = [frozenset(pair) for pairs in plan for pair in pairs]
    assert sorted(map(sorted, met)) == sorted(map(sorted, map(frozenset, itertools.combinations(names, 2))))
    for pairs in plan:
        placed = [name for pair in pairs for name in pair]
        assert len(placed) == len(set(placed))
    assert len(plan) == (count - 1 if count % 2 == 0 else count if count > 1 else 0)


def test_sets_grow_by_doubling_up_to_all():
    assert [growing_sizes(count) for count in (1, 2, 3, 8, 12)] == [[], [2], [2, 3], [2, 4, 8], [2, 4, 8, 12]]
    assert groups("abcde", 2) == [("a", "b"), ("c", "d")]


def test_nodes_that_are_measured_alone_are_spread_over_all():
    assert spread_evenly(list("abc"), 4) == list("abc")
    assert spread_evenly([str(number) for number in range(101)], 5) == ["0", "25", "50", "75", "100"]


@pytest.fixture
def meetings(tmp_path):
    """Seats of a meeting of a, b and c on this machine."""
    meetings = {name: Meeting("abc", name, tmp_path, "127.0.0.1") for name in "abc"}
    yield meetings
    for meeting in meetings.values():
        meeting.close_connection()
    for meeting in meetings.values():
        meeting.end_server()


def at_once(meetings, call):
    """What `call` gives each meeting, or the error it raises there, all called at the same time."""
    found = {}

    def ask(name, meeting):
        try:
            found[name] = call(meeting)
        except LeftOutError as error:
            found[name] = error

    threads = [threading.Thread(target=ask, args=item) for item in meetings.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_all_hear_the_words_of_all(meetings):
    heard = at_once(meetings, lambda meeting: meeting.gather("words", meeting.node.upper(), timeout_sec=20))
    assert heard == {name: {"a": "A", "b": "B", "c": "C"} for name in "abc"}


def test_who_does_not_come_is_left_out_and_learns_of_it_when_it_comes_late(meetings):
    present = {name: meetings[name] for name in "ab"}
    heard = at_once(present, lambda meeting: meeting.gather("first", timeout_sec=0.3))
    assert [sorted(words) for words in heard.values()] == [["a", "b"], ["a", "b"]]
    assert meetings["a"].members == ["a", "b"]
    with pytest.raises(LeftOutError, match="c came too late to first"):
        meetings["c"].gather("first", timeout_sec=0.3)
    again = at_once(present, lambda meeting: meeting.gather("second", timeout_sec=20))  # nobody waits for c any more
    assert [sorted(words) for words in again.values()] == [["a", "b"], ["a", "b"]]


def test_a_node_whose_connection_breaks_is_waited_for_no_longer(meetings):
    at_once(meetings, lambda meeting: meeting.gather("first", timeout_sec=20))
    meetings["c"].close_connection()
    heard = at_once({name: meetings[name] for name in "ab"}, lambda meeting: meeting.gather("second", timeout_sec=20))
    assert [sorted(words) for words in heard.values()] == [["a", "b"], ["a", "b"]]


LEADER = """\
import sys, time
from pathlib import Path
from hpcai500.validate.agent.meeting import Meeting
Meeting("abc", "a", Path(sys.argv[1]), "127.0.0.1").gather("first", timeout_sec=20)
time.sleep(60)
"""


def test_the_next_node_leads_when_the_leader_is_killed(tmp_path):
    leader = subprocess.Popen([sys.executable, "-c", LEADER, tmp_path])
    meetings = {name: Meeting("abc", name, tmp_path, "127.0.0.1") for name in "bc"}
    try:
        first = at_once(meetings, lambda meeting: meeting.gather("first", timeout_sec=20))
        leader.kill()
        second = at_once(meetings, lambda meeting: meeting.gather("second", timeout_sec=60))
    finally:
        leader.kill()
        leader.wait()
        for meeting in meetings.values():
            meeting.close_connection()
            meeting.end_server()
    assert [sorted(words) for words in first.values()] == [["a", "b", "c"]] * 2
    assert [sorted(words) for words in second.values()] == [["b", "c"]] * 2
    assert {meeting.leader for meeting in meetings.values()} == {"b"}


def test_a_clock_s_offset_is_found_to_within_its_uncertainty(meetings, monkeypatch):
    real = time.time
    own = threading.current_thread()
    monkeypatch.setattr(time, "time", lambda: real() + (5.0 if threading.current_thread() is own else 0.0))
    offset, uncertainty = meetings["b"].clock_offset()
    assert offset == pytest.approx(5.0, abs=max(uncertainty, 1e-3))


def test_a_link_is_measured_in_both_directions():
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=links.answer, args=(server,))
        thread.start()
        with socket.create_connection(server.getsockname()) as connection:
            latency_sec, there, back = links.ask(connection, 0.1)
        thread.join()
    assert 0 < latency_sec < 0.1
    assert min(there, back) > 1e6


def test_the_rate_of_a_link_is_the_bytes_over_the_seconds_of_a_transfer():
    """A link of 1e9 bytes a second with 1 ms before each transfer, by arithmetic."""
    assert links._bytes_per_sec(lambda size: 0.001 + size / 1e9, 0.0) == pytest.approx(
        (64 << 20) / (0.001 + (64 << 20) / 1e9)
    )


def plan(**fields):
    given = {
        "system": "testbox", "level": 1, "stages": ("health",), "nodes": ("n1",), "started": "2026-01-01T00:00:00Z",
        "version": "0",
    }  # fmt: skip
    return Plan(**(given | fields))


@pytest.fixture
def seat(tmp_path):
    for name in ("measurements", "progress"):
        (tmp_path / name).mkdir()
    order = Order(members=("n1",), alone=True, step_timeout_sec=60.0)
    here = Seat(tmp_path, plan(), order, "n1", None)
    (tmp_path / "plan.json").write_text(here.plan.model_dump_json())
    (tmp_path / "order.json").write_text(order.model_dump_json())
    return here


HEALTHY = {
    "nvmlDeviceGetEccMode": [1, 1],
    "nvmlDeviceGetTotalEccErrors": 0,
    "nvmlDeviceGetRemappedRows": (0, 0, 0, 0),
    "nvmlDeviceGetCurrentClocksEventReasons": 0x1,
    "nvmlDeviceGetTemperature": 40,
    "nvmlDeviceGetTemperatureThreshold": 90,
    "nvmlDeviceGetCurrPcieLinkWidth": 16,
    "nvmlDeviceGetMaxPcieLinkWidth": 16,
    "nvmlDeviceGetCurrPcieLinkGeneration": 5,
    "nvmlDeviceGetMaxPcieLinkGeneration": 5,
    "nvmlDeviceGetPerformanceState": 0,
    "nvmlDeviceGetNvLinkState": 1,
    "nvmlDeviceGetMaxClockInfo": 1_980,
    "nvmlDeviceGetApplicationsClock": 1_980,
    "nvmlDeviceGetEnforcedPowerLimit": 700_000,
    "nvmlDeviceGetClockInfo": 345,
    "nvmlDeviceGetPersistenceMode": 1,
}


@pytest.fixture
def nvml(monkeypatch):
    """A driver's library of one GPU that gives these answers, a function of the arguments or a value."""
    answers = dict(HEALTHY)

    class NVMLError(Exception):
        pass

    def answer(question):
        def ask(handle, *arguments):
            assert handle == "handle 0"
            if question not in answers:
                raise NVMLError("Not Supported")
            value = answers[question]
            return value(*arguments) if callable(value) else value

        return ask

    module = types.ModuleType("pynvml")
    module.NVMLError = NVMLError
    module.nvmlInit = lambda: None
    module.nvmlDeviceGetCount = lambda: 1
    module.nvmlDeviceGetHandleByIndex = lambda index: f"handle {index}"
    for question in HEALTHY:
        setattr(module, question, answer(question))
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return answers


def gpu_found(seat):
    found = list(health_gpu.gpu_health(seat))
    return {one.metric: one.value for one in found if isinstance(one, Measurement)}, [
        (one.metric, one.severity) for one in found if not isinstance(one, Measurement)
    ]


def test_a_healthy_gpu_raises_no_trouble(nvml, seat):
    measured, trouble = gpu_found(seat)
    assert trouble == []
    assert measured["pcie_width"] == 16.0
    assert measured["nvlinks_up"] == "18"
    assert measured["power_limit_milliwatts"] == "700000"


@pytest.mark.parametrize(
    ("question", "answer", "trouble"),
    [
        ("TotalEccErrors", lambda kind, counter: 3 if (kind, counter) == (1, 0) else 0, ("ecc_uncorrected", "fail")),
        ("RemappedRows", (0, 1, 1, 0), ("remapped_rows", "fail")),
        ("RemappedRows", (0, 1, 0, 1), ("remapped_rows", "fail")),
        ("CurrentClocksEventReasons", 0x40, ("throttle", "fail")),
        ("CurrentClocksEventReasons", 0x20, ("throttle", "warn")),
        ("Temperature", 86, ("temperature_celsius", "warn")),
        ("CurrPcieLinkWidth", 8, ("pcie_width", "fail")),
        ("CurrPcieLinkGeneration", 1, ("pcie_generation", "fail")),
        ("NvLinkState", lambda link: int(link != 7), ("nvlinks_up", "fail")),
        ("PersistenceMode", 0, ("persistence", "warn")),
    ],
)
def test_what_ails_a_gpu_is_said(nvml, seat, question, answer, trouble):
    nvml[f"nvmlDeviceGet{question}"] = answer
    assert gpu_found(seat)[1] == [trouble]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("RemappedRows", (2, 1, 0, 0)),  # replaced, and done with
        ("CurrentClocksEventReasons", 0x4),  # a power cap is a site's choice
        ("TotalEccErrors", lambda kind, counter: 3 if kind == 0 else 0),  # corrected
        ("NvLinkState", 0),  # a board without a bridge
    ],
)
def test_what_a_gpu_may_have_is_no_trouble(nvml, seat, question, answer):
    nvml[f"nvmlDeviceGet{question}"] = answer
    assert gpu_found(seat)[1] == []


def test_an_idle_gpu_s_link_may_sleep_in_a_lower_generation(nvml, seat):
    nvml["nvmlDeviceGetCurrPcieLinkGeneration"] = 1
    nvml["nvmlDeviceGetPerformanceState"] = 8
    assert gpu_found(seat)[1] == []


def test_what_an_old_gpu_does_not_know_is_passed_over(nvml, seat):
    nvml.clear()
    assert gpu_found(seat) == ({}, [])


def test_layers_become_dotted_texts():
    layer = {"gpus": [{"model": "H100"}], "mig": False, "nics": [], "driver": None, "memory_bytes": 25_276_510_208}
    assert dict(flattened(layer)) == {
        "gpus.count": "1", "gpus.0.model": "H100", "mig": "False", "nics.count": "0", "driver": "none",
        "memory_bytes": "24 GiB",
    }  # fmt: skip
    assert metric_name("layer5.build.USE_CUDA-Ö") == "layer5.build.use_cuda__"


STATES = "debug*|n1|idle|none\ndebug*|n2|mixed|none\ndebug*|n3|drained|bad DIMM\ndebug*|n4|down*|Not responding\n"


def chosen(wanted, **options):
    states = parse_states(STATES)["debug*"]
    return choose_nodes(wanted, states, "debug", "health", **{"per_node": False} | options)


def test_nodes_that_are_down_are_named_with_slurm_s_reason():
    choice = chosen("all")
    assert choice.members == ("n1", "n2")
    assert [(trouble.nodes, trouble.kind, trouble.message) for trouble in choice.troubles] == [
        (("n3",), "unreachable", "Slurm says it is drained: bad DIMM"),
        (("n4",), "unreachable", "Slurm says it is down and does not answer: Not responding"),
    ]


def test_a_number_of_nodes_takes_the_idle_ones_first():
    assert chosen("1").nodes == ("n1",)
    assert chosen("2").nodes == ("n1", "n2")
    with pytest.raises(SpecError, match="--nodes 5: debug has 4 nodes"):
        chosen("5")


def test_a_job_for_each_node_leaves_busy_ones_alone_and_says_so():
    choice = chosen("all", per_node=True)
    assert choice.members == ("n1",)
    assert [(trouble.nodes, trouble.severity) for trouble in choice.troubles if trouble.severity == "warn"] == [
        (("n2",), "warn")
    ]


def test_a_state_says_whether_a_node_can_be_asked():
    assert [NodeState(state, "").is_up for state in ("idle", "allocated", "completing", "idle*", "draining")] == [
        True, True, True, False, False,
    ]  # fmt: skip


def test_the_job_of_all_nodes_is_the_accepted_one():
    """To accept a change: paste the new text into tests/golden/validate_testbed.sbatch."""
    site = agent_site(load_site("testbed"), partition="gpu", minutes=30, nodes="/scratch/v/nodes.txt")
    text = render_agents(
        site, PurePath("/scratch/v"), name="validate", num_nodes=4, python="/opt/bin/python", snapshot="/scratch/s"
    )
    assert text == (GOLDEN / "validate_testbed.sbatch").read_text()


class Agents:
    """What stands in for Slurm: how it stands with each node."""

    def __init__(self, **standing):
        self.standing = standing

    def look(self):
        return self.standing


def watched(folder, agents, *, step_sec=60.0, total_sec=60.0):
    limits = Limits(step_sec, total_sec, margin_sec=0.0, lag_sec=0.0)
    return watch(folder, list(agents.standing), ("health", "links"), agents, limits, lambda _: None)


def test_nodes_that_ended_leave_nothing_to_say(seat):
    write_progress(seat.folder, "n1", Progress(finished=("health", "links"), ended=True))
    assert watched(seat.folder, Agents(n1=Standing("running"))) == []


def test_a_node_that_shows_no_progress_is_given_up(seat):
    write_progress(seat.folder, "n1", Progress(stage="links", step="round 2", finished=("health",)))
    (found,) = watched(seat.folder, Agents(n1=Standing("running")), step_sec=0.1)
    assert (found.stage, found.kind, found.nodes) == ("links", "timeout", ("n1",))
    assert found.message.startswith("hung in links (round 2)")


def test_a_node_that_slurm_lost_is_given_up_with_slurm_s_reason(seat):
    write_progress(seat.folder, "n1", Progress(stage="links", finished=("health",)))
    (found,) = watched(seat.folder, Agents(n1=Standing("over", "Not responding")))
    assert (found.stage, found.kind) == ("links", "unreachable")
    assert found.message == "lost in the middle of the work: Not responding"


def test_a_node_whose_job_never_left_the_queue_never_began(seat):
    (found,) = watched(seat.folder, Agents(n9=Standing("waiting", "Resources")), total_sec=0.1)
    assert (found.stage, found.kind, found.nodes) == ("health", "unreachable", ("n9",))
    assert "still waiting in the queue: Resources" in found.message


@pytest.fixture
def scripted(tmp_path, monkeypatch):
    """A Python that runs a child's first word: a process that stands for a measurement."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nshift 5\nexec "{sys.executable}" -c "$1"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))


@pytest.mark.usefixtures("scripted")
def test_a_child_that_hangs_is_ended_and_one_that_dies_is_named(seat):
    """One sleeps, one is killed, one ends well."""
    words = [("import time; time.sleep(60)",), ("import os; os.kill(os.getpid(), 9)",), ("pass",)]
    hasty = seat._replace(order=Order(members=("n1",), alone=True, step_timeout_sec=1.0))
    found = list(run_children(hasty, "micro", words))
    assert [(one.kind, one.message.split()[-1]) for one in found] == [("timeout", "s"), ("failed", "SIGKILL")]


def test_a_kernel_that_is_skipped_is_said_to_be_with_the_reason(seat, monkeypatch):
    monkeypatch.setattr("hpcai500.micro.compute._PATIENCE_SEC", 0.0)
    monkeypatch.setattr(micro, "BUDGET_SEC", {1: 0.0})
    found = [one for one in micro.measure(seat, "cpu") if one]
    measured = [one.metric for one in found if isinstance(one, Measurement)]
    skipped = [one for one in found if not isinstance(one, Measurement)]
    assert measured == ["exact_products", "copy_bytes_per_sec"]
    assert [one.metric for one in skipped] == [
        f"{kernel}_{precision}_flops"
        for precision in ("fp64", "fp32", *(["bf16"] if native_precision(on_gpus=False) == "bf16" else []))
        for kernel in ("gemm_1024", "convolution_256")
    ]
    assert {(one.kind, one.severity) for one in skipped} == {("failed", "warn")}
    assert skipped[0].message == "GEMM 1024 fp64 is not measured: one call would take more than 0 s on this device"


READY = "import sys, time; print('ready', flush=True); sys.stdin.readline(); time.sleep(2)"
HUNG = "import time; time.sleep(60)"


@pytest.mark.usefixtures("scripted")
def test_a_child_that_is_never_ready_costs_the_other_nodes_nothing(tmp_path):
    """Two nodes, a limit of 3 s, work of 2 s: all that b's second child does is hang."""
    order = Order(members=("a", "b"), step_timeout_sec=3.0)
    meetings = {name: Meeting("ab", name, tmp_path, "127.0.0.1") for name in "ab"}
    words = {"a": [(READY,)], "b": [(READY,), (HUNG,)]}

    def run(meeting):
        here = Seat(tmp_path, plan(nodes=("a", "b")), order, meeting.node, meeting)
        return list(run_children(here, "micro", words[meeting.node], in_step="GPUs")), list(meeting.members)

    found = at_once(meetings, run)
    for meeting in meetings.values():
        meeting.close_connection()
        meeting.end_server()
    assert found["a"] == ([], ["a", "b"])
    (trouble,), members = found["b"]
    assert members == ["a", "b"]
    assert (trouble.kind, trouble.nodes) == ("timeout", ("b",))
    assert trouble.message == f"micro {HUNG} was not ready to measure within 3 s"


def test_a_node_that_waits_for_another_shows_that_it_lives(tmp_path, monkeypatch):
    monkeypatch.setattr("hpcai500.validate.agent.seat.BEAT_SEC", 0.05)
    order = Order(members=("a", "b"), step_timeout_sec=0.5)
    meetings = {name: Meeting("ab", name, tmp_path, "127.0.0.1") for name in "ab"}
    Seat(tmp_path, plan(nodes=("a", "b")), order, "a", meetings["a"]).wait("start")
    for meeting in meetings.values():
        meeting.close_connection()
        meeting.end_server()
    assert read_progress(tmp_path, "a").num_beats > 0
    assert read_progress(tmp_path, "b") is None


def test_a_node_that_waits_is_not_given_up_while_it_shows_that_it_lives(seat):
    """It waits for 4 s, the limit is 2; the other one hangs."""
    write_progress(seat.folder, "n2", Progress(stage="links"))

    def wait():
        for beat in range(40):
            write_progress(seat.folder, "n1", Progress(stage="links", num_beats=beat))
            time.sleep(0.1)
        write_progress(seat.folder, "n1", Progress(ended=True))

    thread = threading.Thread(target=wait)
    thread.start()
    found = watched(seat.folder, Agents(n1=Standing("running"), n2=Standing("running")), step_sec=2.0)
    thread.join()
    assert [trouble.nodes for trouble in found] == [("n2",)]


def test_a_validation_of_this_machine_alone_writes_its_folder_and_passes(hpcai500, tmp_path):
    code, out, _ = hpcai500("validate", "--stages", "health", "--output", tmp_path, "--json")
    (folder,) = tmp_path.glob("*/*")
    report = json.loads(out)
    assert report == json.loads((folder / "report.json").read_text())
    assert [stage["stage"] for stage in report["stages"]] == ["health"]
    again = hpcai500("validate", "--report", folder, "--format", "text")
    assert again[0] == code
    assert report["verdict"].upper() in again[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--report", ""), "--report: empty"),
        (("--stages", ""), "unknown stage"),
        (("--timeout-sec", "-1"), "no time at all"),
        (("--step-timeout-sec", "0"), "no time at all"),
        (("--expected", "/absent.toml"), "/absent.toml: No such file"),
        (("--baseline", "/absent.json"), "/absent.json: No such file"),
        (("--save-baseline", "/absent/b.json"), "no folder to write to"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_measured(hpcai500, tmp_path, arguments, message):
    code, out, err = hpcai500("validate", "--output", tmp_path / "v", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not (tmp_path / "v").exists()


def test_a_reader_that_goes_away_leaves_verdict_report_and_baseline(tmp_path):
    words = f"{sys.executable} -m hpcai500.cli.main validate --stages health --output {tmp_path}/v"
    script = f"{words} --save-baseline {tmp_path}/b.json | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120, check=False)
    (folder,) = (tmp_path / "v").glob("*/*")
    verdict = json.loads((folder / "report.json").read_text())["verdict"]
    assert done.stdout.strip() == ("1" if verdict == "fail" else "0")
    assert (folder / "report.html").exists()
    assert (tmp_path / "b.json").exists() == (verdict != "fail")


def test_an_unknown_stage_is_named_with_the_nearest_one(hpcai500):
    code, _, err = hpcai500("validate", "--stages", "health,linsk")
    assert code == 2
    assert "did you mean 'links'" in err


def test_nodes_are_chosen_at_a_site_alone(hpcai500, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    code, _, err = hpcai500("validate", "--nodes", "4")
    assert code == 2
    assert "give --site" in err


def written(folder):
    return [json.loads(line) for path in folder.glob("measurements/*") for line in path.read_text().splitlines()]


def test_two_agents_measure_their_link_and_come_to_the_end(tmp_path):
    nodes = ("n1", "n2")
    (tmp_path / "plan.json").write_text(plan(stages=("health", "links"), nodes=nodes).model_dump_json())
    (tmp_path / "order.json").write_text(Order(members=nodes, step_timeout_sec=60.0).model_dump_json())
    agent = [sys.executable, "-m", "hpcai500.validate.agent.main", tmp_path]
    env = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    started = [subprocess.Popen([*agent, node], env=env) for node in nodes]
    assert [one.wait(120) for one in started] == [0, 0]
    found = written(tmp_path)
    assert [one["nodes"] for one in found if one.get("metric") == "link_bytes_per_sec"] == [["n1", "n2"]]
    assert {one["nodes"][0] for one in found if one.get("metric") == "clock_offset_sec"} == {"n1", "n2"}
    assert not [one for one in found if one["type"] == "trouble" and one["metric"] == "shared_folder"]
    assert all(read_progress(tmp_path, node).finished == ("health", "links") for node in nodes)


def test_an_agent_that_cannot_begin_says_why_and_ends(tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "absent0")
    (tmp_path / "plan.json").write_text(plan(stages=("health", "links"), nodes=("n1", "n2")).model_dump_json())
    (tmp_path / "order.json").write_text(Order(members=("n1", "n2"), step_timeout_sec=60.0).model_dump_json())
    attend(tmp_path, "n1")
    (found,) = written(tmp_path)
    assert (found["type"], found["kind"], found["nodes"]) == ("trouble", "failed", ["n1"])
    assert "no network interface 'absent0'" in found["message"]
    assert read_progress(tmp_path, "n1").ended


def test_the_nodes_of_the_ranks_that_got_something_wrong_are_blamed():
    (first, *_) = _samples("all_reduce", 8, 8, 8, [1e-6], [1, 6, 7])
    assert blamed(first, ["b", "a", "d", "c"], 2) == ("b", "c")
    reworded = first.model_copy(update={"detail": "some ranks are wrong"})
    assert blamed(reworded, ["b", "a", "d", "c"], 2) == ("b", "c")
    unnamed = first.model_copy(update={"wrong_ranks": ()})
    assert blamed(unnamed, ["b", "a"], 4) == ("a", "b")
