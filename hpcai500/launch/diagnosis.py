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
"""The line that begins each start of a run in its logs, to which a resumed run appends."""

_TORCHRUN_END = re.compile(r"local_rank: (\d+)\)\s*exitcode\s*:\s*(-?\d+)")
_SRUN_END = re.compile(r"srun: error: (\S+): tasks? ([\d,-]+): Exited with exit code (\d+)$", re.MULTILINE)
_SRUN_STOP = re.compile(r"srun: error: \S+: tasks? [\d,-]+: User defined signal [12]$", re.MULTILINE)
_SRUN_DEATH = re.compile(r"srun: error: (\S+): tasks? ([\d,-]+): ([A-Z][a-z ]+?)(?: \(core dumped\))?$", re.MULTILINE)
_MPIRUN_DEATH = re.compile(
    r"mpirun noticed that process rank (\d+) with PID \d+ on node (\S+) exited on signal (\d+)"
)
_FIRST_OF_ALL = re.compile(r"Process name: (?:\[\[\d+,\d+\],)?(\d+)\]?\s+Exit code:\s+(\d+)")
"""The report of mpirun and of horovodrun, whose shells turn signal N into exit code 128 + N."""
_BOX = re.compile(r"^[-*]{40,}\n(.+?)^[-*]{40,}$", re.MULTILINE | re.DOTALL)
"""A message of mpirun itself, which is printed between two lines of dashes."""
_NO_PLUGIN = re.compile(r"The application appears to have been direct launched using")
_LOST_PEER = re.compile(r"connection (closed|reset|refused)|broken pipe|NCCL|HorovodInternalError", re.IGNORECASE)
_OUT_OF_MEMORY = re.compile(r"(?:slurmstepd\S*|srun): error: .*(?:oom[-_ ]kill|Out Of Memory|exceeded memory limit)")
_NODE_FAILURE = re.compile(
    r"(?:srun: error: Node failure on|slurmstepd\S*: error: .*DUE TO NODE FAILURE|NODE FAILURE) ?(\S*)"
)
_STOPS = {signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}
"""The signals that ask a rank to stop. They kill it only before it has installed its handlers."""
_CANCELLED = re.compile(r"(?:slurmstepd\S*|srun): error: .*CANCELLED AT \S+ (DUE TO TIME LIMIT|DUE TO PREEMPTION)?")


def explain(failures: Sequence[Failure], tail: str, code: int, log: Path, *, is_rank: bool = False) -> HpcAi500Error:
    """The reason that a rank reported, or that its launcher reported, or else the path of the log.

    A launcher stops the peers of a failed rank, and a rank whose peer died reports a lost connection.
    So a rank's own reason comes first, then the launcher's report, then our bug, then a stop.

    With `is_rank`, the process that ended with `code` is itself the only rank.
    """
    ends = [("rank 0", code)] if is_rank else _ends(tail)
    cause = min(failures, key=_distance, default=None)
    if cause and _distance(cause) == 0:
        return as_error(cause)
    for seen in (_out_of_memory, _node_failure, _wrong_plugin):
        if error := seen(tail):
            return error
    if error := _death(ends, tail):
        return error
    if cause and cause.exit_code == PreemptedError.exit_code and (error := _silent_end(ends, log)):
        return error
    if cause and not _lost_peer(cause):
        return as_error(cause)
    if error := _early_stop(ends, tail):
        return error
    if cause:
        return as_error(cause)
    if error := _cancelled(tail):
        return error
    if box := _BOX.search(tail):
        return RankError(f"mpirun: {_first_paragraph(box[1])}", f"see {log}")
    lines = [line.strip() for line in tail.splitlines() if line.strip() and line.strip() != START_MARK]
    last = lines[-1] if lines else "no output"
    if is_rank:
        return RankError(f"rank 0 ended with exit code {code}: {last}", f"see {log}")
    how = f"was ended by {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
    return HpcAi500Error(f"the launcher {how}: {last}", f"see {log}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have no name
        return f"signal {number}"


def _distance(failure: Failure) -> int:
    """Distance from the first cause: 0 for a rank's own reason, 1 for our bug, 2 for a stop, 3 for a lost peer."""
    if _lost_peer(failure):
        return 3
    return {HpcAi500Error.exit_code: 1, PreemptedError.exit_code: 2}.get(failure.exit_code, 0)


def _lost_peer(failure: Failure) -> bool:
    of_library = failure.of_library or failure.exit_code == HpcAi500Error.exit_code
    return of_library and bool(_LOST_PEER.search(failure.message))


def as_error(failure: Failure) -> HpcAi500Error:
    """A rank's failure as an exception."""
    classes: dict[int, type[HpcAi500Error]] = {
        1: ShortfallError, 2: InputError, 3: MachineError, 75: PreemptedError,
    }  # fmt: skip
    kind = classes.get(failure.exit_code, HpcAi500Error)
    # All ranks stop together: the number of the one that reported it does not matter.
    prefix = "" if kind is PreemptedError else f"rank {failure.rank}: "
    return kind(f"{prefix}{failure.message}", failure.hint)


def _out_of_memory(tail: str) -> HpcAi500Error | None:
    if not _OUT_OF_MEMORY.search(tail):
        return None
    return MachineError("a rank exceeded the job's memory", "ask for more memory, or lower batch.micro_batch_size")


def _node_failure(tail: str) -> HpcAi500Error | None:
    match = _NODE_FAILURE.search(tail)
    return RankError(f"node {match[1] or 'of the job'} failed", "--resume continues it") if match else None


def _wrong_plugin(tail: str) -> HpcAi500Error | None:
    if not _NO_PLUGIN.search(tail):
        return None
    return RankError(
        "srun's plugin does not fit the MPI library of the ranks",
        "set `mpi` in the site's [slurm] to another one that `srun --mpi=list` shows (pmix, pmi2), "
        'or launcher = "mpirun"',
    )


def _ends(tail: str) -> list[tuple[str, int]]:
    """Ranks and their ends as the launcher reports them, the first cause first: an exit code, or minus a signal."""
    of_torchrun = [(f"rank {match[1]}", int(match[2])) for match in _TORCHRUN_END.finditer(tail)]
    ends = of_torchrun[::-1]  # its report closes with the root cause
    ends += [(f"rank {match[1]} on {match[2]}", -int(match[3])) for match in _MPIRUN_DEATH.finditer(tail)]
    for match in _FIRST_OF_ALL.finditer(tail):
        code = int(match[2])
        ends.append((f"rank {match[1]}", 128 - code if code > 128 else code))
    return ends + [(f"rank {match[2]} on {match[1]}", int(match[3])) for match in _SRUN_END.finditer(tail)]


def _death(ends: Sequence[tuple[str, int]], tail: str) -> HpcAi500Error | None:
    """The error for a rank that was killed by a signal other than those that ask it to stop."""
    for rank, code in ends:
        if code < 0 and -code not in _STOPS:
            name = _signal_name(-code)
            return RankError(f"{rank} was ended by {name}", _hint(name == "SIGKILL"))
    # srun ends the others with SIGTERM and reports each death: the first death of another kind is the cause
    deaths = [match for match in _SRUN_DEATH.finditer(tail) if match[3].strip() not in ("Terminated", "Exited with")]
    if deaths:
        node, ranks, word = deaths[0][1], deaths[0][2], deaths[0][3].strip()
        return RankError(f"rank {ranks} on {node}: {word.lower()}", _hint(word == "Killed"))
    return None


def _hint(killed: bool) -> str:
    return "the machine may have run out of memory" if killed else ""


def _silent_end(ends: Sequence[tuple[str, int]], log: Path) -> HpcAi500Error | None:
    """The error for a rank that ended without a reason, after which its peers were stopped."""
    for rank, code in ends:
        if code > 0 and code != PreemptedError.exit_code:
            return RankError(f"{rank} ended with exit code {code} and gave no reason", f"see {log}")
    return None


def _early_stop(ends: Sequence[tuple[str, int]], tail: str) -> HpcAi500Error | None:
    """The error for a stop that reached a rank before it could report it."""
    if any(-code in _STOPS for _, code in ends) or _SRUN_STOP.search(tail):
        return PreemptedError("stopped before training began", "`--resume` starts it")
    return None


def _first_paragraph(text: str) -> str:
    """The first paragraph as one line, with the next one if it ends in a colon."""
    words = ""
    for paragraph in text.strip().split("\n\n"):
        words = " ".join([words, *paragraph.split()]).strip()
        if not words.endswith(":"):
            break
    return words.rstrip(".:")


def _cancelled(tail: str) -> HpcAi500Error | None:
    match = _CANCELLED.search(tail)
    if not match:
        return None
    reason = (match[1] or "from outside").lower()
    return PreemptedError(f"the job was cancelled {reason}", "--resume continues it")
