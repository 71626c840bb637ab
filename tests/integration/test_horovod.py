"""Real Horovod and MPI: processes connect, train alike under every backend and launcher, stop, and continue."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from forked_ranks import resume, train
from short_runs import assignments, losses

from hpcai500.events.reader import find, first, read_events
from hpcai500.events.vocabulary import Key
from hpcai500.launch.requirements import missing
from hpcai500.launch.start import TRAINING
from hpcai500.score.record.result import read_result
from hpcai500.spec.run import read_run

TINY = Path(__file__).parent / "tiny"
MPIRUN = ("mpirun", *(["--allow-run-as-root"] if os.geteuid() == 0 else []), "--oversubscribe", "--bind-to", "none")


@pytest.fixture(scope="module")
def _horovod():
    lacks = dict([*missing("horovod", "mpirun"), *missing("torch", "mpirun")])
    if lacks and os.environ.get("HPCAI500_REQUIRE_HOROVOD") == "1":
        pytest.fail(f"HPCAI500_REQUIRE_HOROVOD=1, but {lacks}")
    if lacks:
        pytest.skip(f"not installed: {', '.join(lacks)} ({'; '.join(lacks.values())})")


needs_horovod = pytest.mark.usefixtures("_horovod")


class Bench:
    """The tiny workload on two ranks, with its orders in the folder `data`."""

    def __init__(self, folder):
        self.results = folder / "results"
        self.data = folder / "data"
        self.data.mkdir(parents=True)

    def command(self, place, *arguments):
        command = (
            "run", TINY, "--problem", "mini", "--data", self.data, "--output", self.results / place,
            "--system", "box", "--procs-per-node", "2", "--set", "model.dropout=0.5", *arguments,
        )  # fmt: skip
        return [str(word) for word in command]

    def start(self, place, *arguments):
        command = [sys.executable, "-m", "hpcai500.cli.main", *self.command(place, *arguments)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def forked(self, place, *, ranks=2, **overrides):
        """An equal run by torch's ranks, which is faster."""
        given = {"model.dropout": 0.5, **overrides}
        return train(TINY, self.results / place, data=self.data, ranks=ranks, overrides=given)

    def run(self, place, *arguments):
        """Exit code and stderr."""
        process = self.start(place, *arguments)
        _, err = process.communicate(timeout=120)
        return process.returncode, err

    def trained(self, place, *arguments):
        code, err = self.run(place, *arguments)
        assert code == 0, err
        return self.folder(place)

    def folder(self, place):
        (path,) = (self.results / place).rglob("run.json")
        return path.parent

    def stopped(self, place, *arguments):
        """A run that got a signal in the middle of its second epoch."""
        (self.data / "slow").touch()
        process = self.start(place, *arguments)
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            log = next((self.results / place).rglob("events.log"), None)
            if log and len(find(read_events(log), Key.EPOCH_START)) >= 2:
                break
            time.sleep(0.05)
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        (self.data / "slow").unlink()
        assert process.returncode == 75, err
        assert "stopped in epoch 2 after step" in err
        return self.folder(place)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The tiny problem under each backend with its own launcher."""
    bench = Bench(tmp_path_factory.mktemp("undisturbed"))
    horovod = bench.trained("horovod", *_options(("horovod", "horovodrun")))
    return {"torch": bench.forked("torch"), "horovod": horovod}


@needs_horovod
@pytest.mark.parametrize("workload", ["image_classification", "extreme_weather"])
def test_a_shipped_workload_has_the_same_losses_under_torch_and_horovod(short_run, workload):
    horovod = short_run(workload, 2, "--backend", "horovod", "--launcher", "horovodrun")
    assert losses(horovod) == pytest.approx(losses(short_run(workload, 2)), rel=1e-4)


@needs_horovod
def test_the_same_seed_gives_the_same_losses_on_1_2_and_4_ranks_of_horovod(bench):
    expected = losses(bench.forked("torch", ranks=1, **{"model.dropout": 0.0}))
    for ranks, launcher in {1: "mpirun", 2: "horovodrun", 4: "mpirun"}.items():
        how = (*_options(("horovod", launcher)), "--procs-per-node", str(ranks), "--set", "model.dropout=0.0")
        assert losses(bench.trained(str(ranks), *how)) == pytest.approx(expected, rel=1e-4)


@needs_horovod
def test_launchers_train_alike_and_the_ranking_has_a_row_for_each_backend(bench, undisturbed, hpcai500):
    expected = losses(undisturbed["torch"])
    assert losses(undisturbed["horovod"]) == pytest.approx(expected, rel=1e-5)
    by_mpirun = bench.trained("mpirun", *_options(("torch", "mpirun")))
    assert losses(by_mpirun) == pytest.approx(expected, rel=1e-6)
    code, out, _ = hpcai500("rank", *undisturbed.values(), "--format", "json")
    assert code == 0
    (ranked,) = json.loads(out)["lists"]
    assert sorted(entry["backend"] for entry in ranked["entries"]) == ["horovod", "torch"]
    layers = json.loads((undisturbed["horovod"] / "system.json").read_text())["nodes"][0]["layers"]
    assert layers["5"]["horovod"] == "0.28.1"
    mpi = json.loads((by_mpirun / "system.json").read_text())["nodes"][0]["layers"]["3"]["mpi"]
    assert "Open MPI" in mpi


@needs_horovod
def test_scaled_accumulated_and_compressed_gradients_are_the_same_under_both_backends(bench):
    """fp16 loss scaling, LARS, two micro-batches per step, gradients sent in half precision."""
    settings = {
        "execution.precision": "fp16", "optimizer.name": "lars", "optimizer.learning_rate": 3.0,
        "execution.gradient_compression": "fp16", "execution.deterministic": True,
    }  # fmt: skip
    torch = bench.forked("torch", **settings)
    horovod = bench.trained("horovod", *assignments(settings), "--backend", "horovod", "--launcher", "mpirun")
    assert first(read_events(horovod / "events.log"), Key.GRADIENT_ACCUMULATION_STEPS).value == 2
    assert first(read_events(horovod / "events.log"), Key.WARM_UP).value["warm_up_sec"] > 0
    assert losses(horovod) == pytest.approx(losses(torch), rel=2e-2)  # both round gradients to 11 bits, apart
    assert losses(horovod)[-1] < losses(horovod)[0]


@needs_horovod
def test_momentum_in_fp16_trains_alike_under_both_backends_where_the_first_step_overflows(bench):
    arguments = ("--precision", "fp16", "--set", "batch.micro_batch_size=2", "--procs-per-node", "4")
    torch = bench.forked("torch", ranks=4, **{"execution.precision": "fp16", "batch.micro_batch_size": 2})
    horovod = bench.trained("horovod", *arguments, "--backend", "horovod", "--launcher", "horovodrun")
    assert losses(torch) == pytest.approx(losses(horovod), rel=2e-2)  # both round to 11 bits, apart


@needs_horovod
@pytest.mark.parametrize("backend", ["torch", "horovod"])
def test_a_mean_that_fits_into_half_precision_survives_a_sum_that_does_not(tmp_path, backend):
    """Two ranks' gradients of 40,000: their sum is beyond fp16's 65,504."""
    script = tmp_path / "average.py"
    script.write_text(f"""
import os
from pathlib import Path
import torch
from hpcai500.launch.layout import Layout
from hpcai500.ranks.joining import join
ranks = join(Layout(backend="{backend}", launcher="mpirun", procs_per_node=2, device="cpu", compression="fp16"),
             Path("{tmp_path}"), os.environ)
model = torch.nn.Linear(1, 1, bias=False)
wrapped, optimizer = ranks.wrap(model, torch.optim.SGD(model.parameters(), lr=1.0))
with ranks.accumulate(wrapped, last=True):
    (wrapped(torch.ones(1, 1)) * 40_000).sum().backward()
with ranks.averaged(optimizer):
    Path(f"{tmp_path}/rank{{ranks.rank}}").write_text(str(model.weight.grad.item()))
ranks.barrier()
ranks.close()
""")
    done = subprocess.run(
        [*MPIRUN, "-np", "2", sys.executable, script], capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / f"rank{rank}").read_text() for rank in range(2)] == ["40000.0", "40000.0"]


@needs_horovod
@pytest.mark.parametrize(
    ("first_half", "second_half"),
    [(("torch", "local"), ("horovod", "mpirun")), (("horovod", "mpirun"), ("torch", "local"))],
    ids=["torch to horovod", "horovod to torch"],
)
def test_a_run_goes_on_from_a_checkpoint_that_the_other_backend_wrote(
    bench, undisturbed, hpcai500, first_half, second_half
):
    stopped = bench.stopped("first", *_options(first_half))
    continued = bench.trained("second", *_options(second_half), "--resume-from", stopped)
    expected = losses(undisturbed["torch"])
    assert losses(continued) == pytest.approx(expected[1:], rel=1e-5)
    events = read_events(continued / "events.log")
    begun = first(events, Key.RESUMED_FROM).value
    assert begun["run"] == str(stopped)
    assert begun["step"] > 0
    result, spec = read_result(continued / "result.json"), read_run(continued / "run.json")
    own_steps = spec.steps_per_epoch - begun["step"]  # the others, and their seconds, are the other run's
    assert result.epochs[0].num_samples == own_steps * spec.settings.batch.global_batch_size
    assert result.time.train_sec + result.time.eval_sec <= result.time.total_sec
    for key in (Key.EPOCH_START, Key.EPOCH_STOP, Key.EVAL_STOP):
        assert [event.metadata["epoch_num"] for event in find(events, key)] == [2, 3]
    result = read_result(continued / "result.json")
    assert (result.status, result.unranked) == ("success", ("starts from another run's checkpoint",))

    if first_half[0] == "horovod":  # the run itself continues too, where it stopped
        resumed = bench.trained("first", *_options(first_half), "--resume")
        assert losses(resumed) == pytest.approx(expected, rel=1e-5)
        assert read_result(resumed / "result.json").interruptions[0].graceful

    def again(place, *options):
        code, _, err = hpcai500(*bench.command(place, *_options(second_half), "--resume-from", *options))
        return code, err

    assert again("second", stopped, "--resume")[0] == 0  # done, and kept
    code, err = again("other", continued)
    assert (code, "that run has trained all its epochs" in err) == (2, True), err
    assert not (bench.results / "other").exists()
    code, err = again("other", stopped, "--seed", "4")
    assert (code, "that run's seed is 0" in err) == (2, True)
    code, err = again("other", stopped, "--precision", "bf16")
    assert (code, "differs in more than its backend" in err) == (2, True)


def _options(how):
    return "--backend", how[0], "--launcher", how[1]


@needs_horovod
def test_a_signal_reaches_the_ranks_of_horovodrun(bench):
    folder = bench.stopped("stopped", "--backend", "horovod", "--launcher", "horovodrun")
    assert read_result(folder / "result.json").status == "preempted"


@needs_horovod
@pytest.mark.parametrize("launcher", ["mpirun", "horovodrun"])
def test_a_rank_that_is_killed_is_named(bench, launcher):
    (bench.data / "kill-rank-1-epoch-2").touch()
    code, err = bench.run("killed", "--backend", "horovod", "--launcher", launcher)
    assert code == 1
    assert err.startswith("hpcai500: error: rank 1")
    assert "was ended by SIGKILL" in err
    assert err.count("\n") == 1
    assert read_result(bench.folder("killed") / "result.json").status == "aborted"


def ranks_of(process):
    """The processes of a run's ranks, by rank."""
    found = {}
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            env = child.environ()
            if child.cmdline()[-3:-1] == ["-m", TRAINING]:
                found[env.get("RANK") or env.get("OMPI_COMM_WORLD_RANK") or env.get("HOROVOD_RANK")] = child
    return found


WAYS = [("torch", "local"), ("torch", "mpirun"), ("horovod", "mpirun"), ("horovod", "horovodrun")]


@needs_horovod
@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_a_rank_that_is_killed_before_training_is_no_preemption(bench, way):
    process = bench.start("early", *_options(way))
    deadline = time.monotonic() + 60
    while not (rank := ranks_of(process).get("1")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)
    rank.kill()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.count("\n") == 1
    assert err.startswith("hpcai500: error: rank 1")
    assert "was ended by SIGKILL; the machine may have run out of memory" in err


@needs_horovod
@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_a_stop_that_comes_before_the_ranks_do_reaches_them_too(bench, way):
    process = bench.start("early", *_options(way))
    deadline = time.monotonic() + 60
    while not psutil.Process(process.pid).children():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert "hpcai500: error: stopped by SIG" in err
    folder = bench.folder("early")
    log = folder / "events.log"
    assert not log.exists() or first(read_events(log), Key.RUN_START) is None  # it continues as if it had never begun
    if way == ("torch", "local"):
        resume(folder)


def worker(folder, **env):
    """A rank that somebody starts by hand."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMPI_", "PMI", "HOROVOD_"))}
    return subprocess.Popen(
        [sys.executable, "-m", "hpcai500.train.worker", str(folder / "run.json")],
        env={**clean, **env}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@needs_horovod
@pytest.mark.parametrize("backend", ["torch", "horovod"])
def test_ranks_that_each_believe_to_be_alone_all_fail_at_once_with_the_reason(make_spec, backend):
    spec = make_spec(TINY, backend=backend, launcher="mpirun", procs_per_node=2)
    spec.write()
    alone = [worker(spec.folder), worker(spec.folder), worker(spec.folder, PMI_SIZE="3", PMI_RANK="1")]
    said = [process.communicate(timeout=60)[1] for process in alone]
    assert [process.returncode for process in alone] == [1, 1, 1]
    for err in said[:2]:
        assert "the run asks for 2 ranks, but this process sees a world of 1 through" in err
        assert "its MPI library differs from this mpirun's" in err
    assert "the run asks for 2 ranks, but mpirun started 3" in said[2]
    assert not (spec.folder / "events.log").exists()


@needs_horovod
def test_an_mpirun_that_starts_too_few_ranks_is_refused(make_spec):
    spec = make_spec(TINY, backend="horovod", launcher="mpirun", procs_per_node=2)
    spec.write()
    command = [*MPIRUN, "-np", "1", sys.executable, "-m", "hpcai500.train.worker", str(spec.folder / "run.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "the run asks for 2 ranks, but mpirun started 1" in done.stderr


def test_without_horovod_or_mpi4py_a_run_exits_3_with_the_command_that_installs_it(hpcai500, monkeypatch, tmp_path):
    monkeypatch.setattr("hpcai500.launch.software.find_spec", lambda name: None if name != "torch" else name)
    monkeypatch.setattr("hpcai500.launch.software.which", lambda name: f"/bin/{name}")
    arguments = ("run", TINY, "--problem", "mini", "--data", tmp_path, "--output", tmp_path / "results")
    code, _, err = hpcai500(*arguments, "--backend", "horovod")
    assert (code, "Horovod is not installed here" in err, "run `make horovod`" in err) == (3, True, True)
    code, _, err = hpcai500(*arguments, "--launcher", "mpirun")
    assert (code, "mpi4py is not installed here" in err, "run `pip install mpi4py`" in err) == (3, True, True)
    assert not (tmp_path / "results").exists()


@needs_horovod
def test_an_mpi4py_without_its_mpi_library_is_not_told_to_be_installed(make_spec, tmp_path):
    (tmp_path / "mpi4py").mkdir()
    (tmp_path / "mpi4py" / "__init__.py").touch()
    (tmp_path / "mpi4py" / "MPI.py").write_text("raise ImportError('libmpi.so.40: cannot open shared object file')\n")
    spec = make_spec(TINY, launcher="mpirun")
    spec.write()
    process = worker(spec.folder, PYTHONPATH=str(tmp_path))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "mpi4py cannot be imported: libmpi.so.40: cannot open shared object file" in err
    assert "module load openmpi" in err
    assert "pip install" not in err


@needs_horovod
def test_mpirun_stays_on_this_machine_whatever_hosts_are_its_default(bench, undisturbed, monkeypatch, tmp_path):
    (tmp_path / "hosts").write_text("no.such.host slots=2\n")
    monkeypatch.setenv("OMPI_MCA_orte_default_hostfile", str(tmp_path / "hosts"))
    monkeypatch.setenv("HOROVOD_CPU_OPERATIONS", "gloo")  # as horovodrun sets it, which crashes MPI's ranks
    here = bench.trained("here", *_options(("horovod", "mpirun")))
    assert losses(here) == pytest.approx(losses(undisturbed["torch"]), rel=1e-5)


def test_a_horovod_of_another_torch_exits_3_too(make_spec, tmp_path):
    (tmp_path / "horovod" / "torch").mkdir(parents=True)
    (tmp_path / "horovod" / "__init__.py").touch()
    (tmp_path / "horovod" / "torch" / "__init__.py").write_text("print('Warning! MPI libs are missing')\n")
    spec = make_spec(TINY, backend="horovod")
    spec.write()
    inherited = os.environ.get("PYTHONPATH")
    process = worker(spec.folder, PYTHONPATH=os.pathsep.join([str(tmp_path), *([inherited] if inherited else [])]))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "Horovod cannot be imported" in err
    assert "make horovod" in err
    assert read_run(spec.folder / "run.json").backend == "horovod"
