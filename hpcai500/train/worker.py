"""One rank of a run: `python -m hpcai500.train.worker run.json`, started by a launcher."""

# ruff: noqa: E402
from hpcai500.train.preemption import StopRequest, ignore_stops

STOP = StopRequest() if __name__ == "__main__" else None  # before torch is imported, which takes seconds

import os
import sys
import traceback
from pathlib import Path

import torch

from hpcai500.errors import (
    DivergedError,
    HpcAi500Error,
    MachineError,
    PreemptedError,
    RankError,
    format_failure,
)
from hpcai500.events import payloads as events
from hpcai500.events.vocabulary import RunStatus
from hpcai500.files import storage_error
from hpcai500.launch.layout import layout_of
from hpcai500.launch.registry import find_launcher
from hpcai500.ranks.joining import join
from hpcai500.ranks.torch_ranks import Ranks, first_line, read_once
from hpcai500.score.record.manifest import seal
from hpcai500.score.record.result import write_result
from hpcai500.spec.run import RunSpec, read_spec
from hpcai500.train.build import build
from hpcai500.train.data_tools import forbid_data_tools
from hpcai500.train.journal import SilentJournal, log_submission, open_journal
from hpcai500.train.resumption import find_resumption


def run(spec: RunSpec, stop: StopRequest) -> None:
    """Everything that one rank does, from the rendezvous to the last event."""
    if spec.settings.execution.deterministic:  # this call imports torch's compiler, which takes a second
        torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = not spec.settings.execution.deterministic
    ranks = join(layout_of(spec), spec.folder, os.environ)
    resumption = read_once(ranks, lambda: find_resumption(spec))
    if resumption.finished:
        ranks.close()
        return
    journal = open_journal(spec, ranks.rank)
    start_up = SilentJournal() if resumption.resumes else journal  # an earlier start has logged it
    log_submission(start_up, spec)
    trainer = build(spec, ranks, start_up, stop, resumption)
    trainer.journal = journal
    journal.set_flops_per_sample(trainer.flops_per_sample)
    start_up.log(events.InitStop())
    ranks.barrier()
    if resumption.resumes:
        journal.log(resumption.event())
    else:
        if resumption.from_other_run:
            origin = events.Origin(run=spec.resume_from, epoch=resumption.epoch, step=resumption.step)
            journal.log(events.ResumedFrom(value=origin))
        journal.log(events.RunStart())
    if resumption.from_other_run and resumption.step > 0:  # this log has no start of the epoch yet
        journal.log(events.EpochStart.of(resumption.epoch))
    stop.training = True
    try:
        trainer.train()
    except DivergedError as error:
        journal.log(events.RunFailure.of(str(error), "diverged"))
        journal.log(events.RunStop.of(RunStatus.ABORTED))
        ranks.barrier()  # when a rank leaves, its launcher ends the others: not before this is written
        raise
    journal.log(events.RunStop.of(RunStatus.SUCCESS))
    trainer.save(keep=1)  # the trained model, outside the clock
    journal.log(events.PeakMemory(value=peak_memory(ranks)))
    trainer.checkpoints.wait()
    journal.close()
    ranks.close()


def peak_memory(ranks: Ranks) -> events.MostBytes:
    """The most memory of any rank, in bytes: on the host, and allocated on its GPU."""
    import resource

    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    device = torch.cuda.max_memory_allocated() if ranks.device.type == "cuda" else None
    gathered = ranks.gather((host, device))
    return events.MostBytes(
        host_bytes=max((h for h, _ in gathered), default=0),
        device_bytes=max((d for _, d in gathered if d is not None), default=None),
    )


def main() -> int:
    spec = read_spec(Path(sys.argv[1]))
    rank = find_launcher(spec.launcher).rank(os.environ)
    try:
        forbid_data_tools(Path(spec.workload.folder).name)
        run(spec, STOP or StopRequest())
        if rank == 0:
            write_result(spec.folder)
            seal(spec.folder)
        ignore_stops()
        return 0
    except Exception as error:
        failure = as_failure(error, spec)
        if not isinstance(error, PreemptedError):
            traceback.print_exc()
        ignore_stops()  # a launcher that ends the others must not change the exit code
        sys.stderr.flush()
        os.write(2, f"{format_failure(failure, rank)}\n".encode())  # one write: ranks share the stream
        # Other ranks may wait in a collective that will never end, so leave without them.
        os._exit(failure.exit_code)


def as_failure(error: Exception, spec: RunSpec) -> HpcAi500Error:
    """The error that a user should see for any exception."""
    if isinstance(error, HpcAi500Error):
        return error
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return MachineError(f"out of memory: {first_line(error)}", "lower batch.micro_batch_size, or use more ranks")
    if "DataLoader worker" in str(error):
        hint = "the machine may have run out of memory"
        return RankError(f"a data loader's process died: {first_line(error)}", hint)
    if isinstance(error, OSError):
        return storage_error(Path(error.filename or spec.folder), error)
    return HpcAi500Error(f"{type(error).__name__}: {first_line(error)}", "`--debug` shows the traceback")


if __name__ == "__main__":
    sys.exit(main())
