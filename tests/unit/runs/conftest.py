"""A Slurm of shell scripts, at the edge of the process."""

import os
import shlex

import pytest

from hpcai500.events.vocabulary import Key, Type
from hpcai500.events.writer import format_line

PROGRAM = """\
#!/bin/sh
cd {folder}
case "${{0##*/}} $*" in
    "squeue --version") echo "slurm 22.05.8" ;;
    squeue*) cat queued.txt ;;
    sacct*) cat ended.txt ;;
    "scontrol show config") echo "MaxArraySize = 4" ;;
    sbatch*) echo "$@" >>sbatch.seen; echo "Submitted batch job $((40 + $(wc -l <sbatch.seen)))" ;;
    srun*) ;;
    *) exit 9 ;;
esac
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Programs on PATH that answer as Slurm does: `queued` and `ended` are the lines of squeue and sacct."""
    tools = tmp_path / "bin"
    tools.mkdir()
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    for name in ("squeue", "sacct", "scontrol", "sbatch", "srun"):
        (tools / name).write_text(PROGRAM.format(folder=shlex.quote(str(tools))))
        (tools / name).chmod(0o755)

    def answer(queued="", ended=""):
        (tools / "queued.txt").write_text(queued)
        (tools / "ended.txt").write_text(ended)
        return tools

    answer()
    return answer


@pytest.fixture
def write_diverged(write_run):
    """Write a run that stopped because its loss was not finite; its folder."""

    def write(spec):
        folder = write_run(spec, [0.5], stop="aborted")
        log = folder / "events.log"
        place = {"time_ms": 1_700_000_020_000, "file": "by_hand.py", "lineno": 1}
        line = format_line(Key.FAILURE, Type.POINT, "the loss is nan", {"status": "diverged"}, **place)
        log.write_text(f"{log.read_text()}{line}\n")
        return folder

    return write
