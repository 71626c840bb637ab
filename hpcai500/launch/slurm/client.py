"""The only module that runs Slurm's commands."""

import subprocess
from typing import NamedTuple

from hpcai500.errors import MachineError

_TIMEOUT_SEC = 60.0
"""Time limit for an answer; a busy controller is slow."""


class Answer(NamedTuple):
    code: int
    out: str
    err: str


def ask(*argv: str, timeout_sec: float = _TIMEOUT_SEC) -> Answer:
    """The answer of one of Slurm's commands.

    Raises:
        MachineError: if it is not installed, or does not end in time.
    """
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_sec, check=False)
    except OSError as error:
        raise MachineError(
            f"no Slurm on this machine: {argv[0]} is not on PATH", "log in to the cluster, or load its module"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise MachineError(f"{argv[0]} did not answer in {timeout_sec:g} s", "see `scontrol ping`") from error
    return Answer(done.returncode, done.stdout, done.stderr)


def ask_or_raise(*argv: str) -> str:
    """The output of one of Slurm's commands.

    Raises:
        MachineError: also if it fails, with its last error line.
    """
    answer = ask(*argv)
    if answer.code:
        fault = last_line(answer.err, f"exit code {answer.code}")
        raise MachineError(f"{' '.join(argv[:3])}: {fault}", "see `scontrol ping`")
    return answer.out


def last_line(text: str, default: str) -> str:
    return text.strip().splitlines()[-1] if text.strip() else default
