"""Asking a program of the system for its version, with a time limit."""

import shutil
import subprocess

_PATIENCE_SEC = 5.0


def output_of(*command: str) -> str:
    """The output of `command`; empty if it does not exist, fails, or takes too long."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_SEC, check=False)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def first_line_of(*command: str) -> str | None:
    lines = [line.strip() for line in output_of(*command).splitlines() if line.strip()]
    return lines[0] if lines else None
