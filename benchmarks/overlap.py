"""The share of communication time that overlaps with backward passes, from traces of a step.

`python benchmarks/overlap.py` starts two ranks, whose gradients go through DDP and Gloo. If Horovod is installed, it
starts two more, whose gradients go through Horovod's thread and Open MPI. Backward passes and Gloo's all-reduces are
in torch's trace; Horovod writes its all-reduces to its timeline.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hpcai500.launch import launcher
from hpcai500.launch.layout import Layout
from hpcai500.launch.registry import find_launcher
from hpcai500.launch.requirements import missing

NUM_RANKS, BATCH, STEPS = 2, 24, 5
WIDTH = 72
TIMELINE = "timeline.json"
WAYS = {"torch": "DDP through Gloo", "horovod": "Horovod through Open MPI"}

Span = tuple[float, float]
"""Start and end, in microseconds."""


class Step(NamedTuple):
    """One step in the trace of one rank."""

    whole: Span
    backward: Span
    reductions: list[Span]
    """All-reduces, each from its start to its end on the threads of Gloo or Horovod."""

    @property
    def communication(self) -> float:
        return sum(end - start for start, end in merged(self.reductions))

    @property
    def hidden(self) -> float:
        """The part of `communication` during the backward pass."""
        first, last = self.backward
        return sum(max(0.0, min(end, last) - max(start, first)) for start, end in merged(self.reductions))


def merged(spans: Sequence[Span]) -> list[Span]:
    """The union of spans, as spans that do not touch."""
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return found


def read_timeline(timeline: Path) -> list[Span]:
    """The all-reduces of a timeline that Horovod wrote: from the copy into its buffer to the copy out of it."""
    first, *events = json.loads(timeline.read_text())
    epoch = first["args"]["start_time_since_epoch_in_micros"]
    open_spans: dict[int, list[tuple[str, float]]] = {}
    """Activities of each tensor that have begun and not ended."""
    found = []
    for event in events:
        began = open_spans.setdefault(event["pid"], [])
        if event["ph"] == "B":
            began.append((event["name"], event["ts"]))
        elif event["ph"] == "E":
            name, start = began.pop()
            if name == "ALLREDUCE":
                found.append((epoch + start, epoch + event["ts"]))
    return found


def read_steps(trace: Path, timeline: Path | None = None) -> list[Step]:
    """The steps of a Chrome trace from torch.profiler, with the all-reduces of Horovod's timeline if given."""
    content = json.loads(trace.read_text())
    events = [event for event in content["traceEvents"] if event.get("ph") == "X"]

    def spans(name: str) -> list[Span]:
        return [(e["ts"], e["ts"] + e["dur"]) for e in events if e["name"].startswith(name)]

    def within(all_spans: list[Span], whole: Span) -> list[Span]:
        return [span for span in all_spans if whole[0] <= span[0] < whole[1]]

    nodes, reductions = spans("autograd::engine::evaluate_function"), spans("gloo:all_reduce")
    if timeline:
        base = content["baseTimeNanoseconds"] / 1_000
        reductions = [(start - base, end - base) for start, end in read_timeline(timeline)]
    steps = []
    for whole in sorted(spans("one step")):
        backward = within(nodes, whole)
        extent = min(start for start, _ in backward), max(end for _, end in backward)
        steps.append(Step(whole, extent, [span for span in within(reductions, whole) if span[1] > extent[0]]))
    return steps


def timeline(step: Step) -> str:
    """The step from left to right: where the backward pass and the all-reduces are."""
    first, last = step.whole

    def lane(name: str, spans: Sequence[Span], mark: str) -> str:
        cells = [" "] * WIDTH
        for start, end in spans:
            low, high = ((WIDTH * (moment - first) / (last - first)) for moment in (start, end))
            for cell in range(int(low), min(WIDTH, max(int(low) + 1, round(high)))):
                cells[cell] = mark
        return f"{name:>10} |{''.join(cells)}|"

    between = (first, step.backward[0]), step.backward, (step.backward[1], last)
    lanes = [
        lane(name, [span], mark)
        for name, span, mark in zip(("forward", "backward", "optimiser"), between, ">#o", strict=True)
    ]
    return "\n".join([*lanes, lane("all-reduce", merged(step.reductions), "=")])


def trace_rank(folder: Path, backend: str) -> None:
    """Run one rank: build the trainer of a run and trace some of its steps."""
    import torch
    from trainers import train_steps, trainer_of, trial_spec

    ranks: Any
    if backend == "horovod":
        import horovod.torch as hvd

        from hpcai500.ranks.horovod_ranks import HorovodRanks

        ranks = HorovodRanks("cpu", "mpirun", NUM_RANKS)
    else:
        from hpcai500.ranks.torch_ranks import TorchRanks

        ranks = TorchRanks(find_launcher("local").require_rank_environment(os.environ), "cpu")
    overrides = {"batch.global_batch_size": NUM_RANKS * BATCH, "batch.micro_batch_size": BATCH}
    trainer = trainer_of(trial_spec("image_classification", "mini", str(folder), overrides, ranks=NUM_RANKS), ranks)
    train_steps(trainer, 3)
    if backend == "horovod" and ranks.rank == 0:
        hvd.start_timeline(str(folder / TIMELINE))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for _ in range(STEPS):
            with torch.profiler.record_function("one step"):
                train_steps(trainer, 1)
    if backend == "horovod" and ranks.rank == 0:
        hvd.stop_timeline()
    profiler.export_chrome_trace(str(folder / f"rank{ranks.rank}.json"))
    ranks.close()


def measure(backend: str) -> list[Step]:
    """The steps of rank 0."""
    with tempfile.TemporaryDirectory() as folder:
        mpirun = find_launcher("mpirun")
        here = launcher.RankStart(Layout(launcher="mpirun", procs_per_node=NUM_RANKS), as_root=os.geteuid() == 0)
        launchers = {
            "torch": (sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={NUM_RANKS}"),
            "horovod": (*mpirun.tokens(here), sys.executable),
        }
        command = [*launchers[backend], __file__, folder, backend]
        own = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "HOROVOD_TIMELINE": "DYNAMIC"}
        env = {**os.environ, **mpirun.environment(here, os.environ), **own}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=500)
        if done.returncode:
            raise SystemExit(done.stderr)
        return read_steps(Path(folder) / "rank0.json", Path(folder) / TIMELINE if backend == "horovod" else None)


def rows() -> list[tuple[str, str, str, str, str]]:
    """Rows of bench.py's table."""
    lacks = dict(missing("horovod", "mpirun"))
    if lacks:
        print(f"overlap: Horovod not traced, not installed: {', '.join(lacks)} (make horovod)")
    return [row(backend) for backend in WAYS if backend == "torch" or not lacks]


def row(backend: str) -> tuple[str, str, str, str, str]:
    steps = measure(backend)
    print(f"a step of rank 0 of {NUM_RANKS}, ResNet-50 at 32 x 32, batch {BATCH} per rank, {WAYS[backend]}:")
    print(timeline(sorted(steps, key=lambda step: step.whole[1] - step.whole[0])[len(steps) // 2]))
    hidden, whole = sum(step.hidden for step in steps), sum(step.communication for step in steps)
    what = f"communication inside the backward pass / all communication, {NUM_RANKS} ranks, {backend}"
    times = [f"{taken / len(steps) / 1_000:.0f} ms per step" for taken in (hidden, whole)]
    return what, *times, f"{hidden / whole:.2f}", ""


if __name__ == "__main__":
    if len(sys.argv) > 1 and Path(sys.argv[1]).is_dir():
        trace_rank(Path(sys.argv[1]), sys.argv[2])
    else:
        for found in rows():
            print(*found, sep=" | ")
