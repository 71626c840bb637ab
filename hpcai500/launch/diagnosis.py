"""The first cause of a failed start, from what its ranks and its launcher printed."""

import re
import signal
from collections.abc import Sequence
from pathlib import Path

from hpcai500.errors import (
    Failure,
    HpcAi500Error,
    InputError,
    MachineError,
    PreemptedError,
    RankError,
    ShortfallError,
)

START_MARK = "=== start"
"""Begins a start's part of a run's logs, which a run that goes on appends to."""

_TORCHRUN_DEATH = re.compile(r"local_rank: (\d+)\)\s*exitcode\s*:\s*(-\d+)")
_SRUN_DEATH = re.compile(r"srun: error: (\S+): tasks? ([\d,-]+): ([A-Z][a-z ]+?)(?: \(core dumped\))?$", re.MULTILINE)
_MPIRUN_DEATH = re.compile(
    r"mpirun noticed that process rank (\d+) with PID \d+ on node (\S+) exited on signal (\d+)"
)
_FIRST_OF_ALL = re.compile(r"Process name: (?:\[\[\d+,\d+\],)?(\d+)\]?\s+Exit code:\s+(\d+)")
"""By mpirun, and by horovodrun, whose shells make of signal N an exit code of 128 + N."""
_BOX = re.compile(r"^[-*]{40,}\n(.+?)^[-*]{40,}$", re.MULTILINE | re.DOTALL)
"""What mpirun itself has to say stands between two rulers."""
_NO_PLUGIN = re.compile(r"The application appears to have been direct launched using")
_LOST_PEER = re.compile(r"connection (closed|reset|refused)|broken pipe|NCCL", re.IGNORECASE)
_OUT_OF_MEMORY = re.compile(r"(?:slurmstepd\S*|srun): error: .*(?:oom[-_ ]kill|Out Of Memory|exceeded memory limit)")
_NODE_FAILURE = re.compile(
    r"(?:srun: error: Node failure on|slurmstepd\S*: error: .*DUE TO NODE FAILURE|NODE FAILURE) ?(\S*)"
)
_CANCELLED = re.compile(r"(?:slurmstepd\S*|srun): error: .*CANCELLED AT \S+ (DUE TO TIME LIMIT|DUE TO PREEMPTION)?")


def explain(told: Sequence[Failure], tail: str, code: int, log: Path) -> HpcAi500Error:
    """What a rank said of itself, else what the launcher saw, else the log's place.

    A rank whose peer died reports a lost connection: one that knows a reason of its own is preferred, then the
    launcher's word, then that report.
    """
    bug = HpcAi500Error.exit_code
    stopped = PreemptedError.exit_code  # what a launcher does to the peers of a rank that failed, too
    if told:
        cause = min(told, key=lambda failure: (failure.exit_code == bug, failure.exit_code == stopped))
        if cause.exit_code == stopped and (error := _wrong_plugin(tail)):
            return error
        if cause.exit_code != bug:
            return as_error(cause)
    for seen in (_out_of_memory, _node_failure, _wrong_plugin, _death):
        if error := seen(tail):
            return error
    if told:
        return as_error(min(told, key=lambda failure: bool(_LOST_PEER.search(failure.message))))
    if error := _cancelled(tail):
        return error
    if box := _BOX.search(tail):
        paragraph = box[1].strip().split("\n\n")[0]
        return RankError(f"mpirun: {' '.join(paragraph.split()).rstrip('.')}", f"see {log}")
    last = next((line.strip() for line in reversed(tail.splitlines()) if line.strip()), "no output")
    return HpcAi500Error(f"the launcher ended with exit code {code}: {last}", f"see {log}")


def as_error(failure: Failure) -> HpcAi500Error:
    """The exception that a rank's failure stands for."""
    classes: dict[int, type[HpcAi500Error]] = {
        1: ShortfallError, 2: InputError, 3: MachineError, 75: PreemptedError,
    }  # fmt: skip
    kind = classes.get(failure.exit_code, HpcAi500Error)
    # Ranks stop together: which of them says so does not matter.
    prefix = "" if kind is PreemptedError else f"rank {failure.rank}: "
    return kind(f"{prefix}{failure.message}", failure.hint)


def _out_of_memory(tail: str) -> HpcAi500Error | None:
    if not _OUT_OF_MEMORY.search(tail):
        return None
    return MachineError("a rank exceeded the job's memory", "ask for more memory, or lower batch.micro_batch_size")


def _node_failure(tail: str) -> HpcAi500Error | None:
    match = _NODE_FAILURE.search(tail)
    return RankError(f"node {match[1] or 'of the job'} failed", "--resume goes on with it") if match else None


def _wrong_plugin(tail: str) -> HpcAi500Error | None:
    if not _NO_PLUGIN.search(tail):
        return None
    return RankError(
        "srun's plugin does not fit the MPI library of the ranks",
        "take another `mpi` in the site's [slurm], of those that `srun --mpi=list` shows (pmix, pmi2), "
        'or launcher = "mpirun"',
    )


def _death(tail: str) -> HpcAi500Error | None:
    hint = "the machine may have run out of memory"
    if match := _TORCHRUN_DEATH.search(tail):
        return _ended_by(f"rank {match[1]}", -int(match[2]))
    if match := _MPIRUN_DEATH.search(tail):
        return _ended_by(f"rank {match[1]} on {match[2]}", int(match[3]))
    if match := _FIRST_OF_ALL.search(tail):
        code = int(match[2])
        return _ended_by(f"rank {match[1]}", code - 128) if code > 128 else None
    # srun ends the others with SIGTERM and names each that died: the first of another kind is the cause
    deaths = [match for match in _SRUN_DEATH.finditer(tail) if match[3].strip() not in ("Terminated", "Exited with")]
    if deaths:
        node, ranks, word = deaths[0][1], deaths[0][2], deaths[0][3].strip()
        return RankError(f"rank {ranks} on {node}: {word.lower()}", hint if word == "Killed" else "")
    return None


def _ended_by(rank: str, number: int) -> HpcAi500Error:
    name = signal.Signals(number).name
    hint = "the machine may have run out of memory" if name == "SIGKILL" else ""
    return RankError(f"{rank} was ended by {name}", hint)


def _cancelled(tail: str) -> HpcAi500Error | None:
    match = _CANCELLED.search(tail)
    if not match:
        return None
    reason = (match[1] or "from outside").lower()
    return PreemptedError(f"the job was cancelled {reason}", "--resume goes on with it")
