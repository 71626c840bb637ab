"""Submitting a rendered script to Slurm through submitit, and recording which job runs which run."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError

from hpcai500.errors import InputError, MachineError
from hpcai500.files import lock_file, storage, write_json
from hpcai500.launch.environment import surrounding
from hpcai500.spec.run import RunSpec


class ScriptExecutor(submitit.SlurmExecutor):
    """submitit's submission with our own script.

    submitit's script does not pass `--cpus-per-task` to srun, and runs a pickle even if there is a checkpoint.
    """

    def __init__(self, folder: Path, script: str) -> None:
        super().__init__(folder)
        self._script = script

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        return self._script

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        hidden = [f"--unset={name}" for name in surrounding(os.environ)]
        return ["env", *hidden, *super()._make_submission_command(submission_file_path)]

    def submit_script(self) -> str:
        """Submit the script. Return the number of the job or the array."""
        return str(self._submit_command("").job_id)


def submissions_folder(spec: RunSpec) -> Path:
    """The folder of a results directory for submitted scripts and their own output.

    Raises:
        InputError: for a path that submitit would treat as a pattern.
    """
    if "%" in spec.output:
        raise InputError(f"{spec.output}: no job can be submitted from a path with '%'", "choose another --output")
    folder = Path(spec.output) / "submissions"
    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def one_submitter(output: Path, timeout_sec: float = 60) -> Iterator[None]:
    """Let one process at a time submit the missing runs of a results directory.

    Raises:
        MachineError: if another process takes longer than `timeout_sec`.
    """
    with storage(output):
        output.mkdir(parents=True, exist_ok=True)
    with (output / ".submitting").open("ab") as file:
        lock_file(file, timeout_sec, f"{output}: another `hpcai500 submit` is running there")
        yield


def submit_script(script: str, folder: Path) -> str:
    """Submit `script`, which is kept in `folder`. Return the job's number.

    Raises:
        MachineError: if there is no Slurm here.
        InputError: with the error of `sbatch`.
    """
    output = StringIO()
    try:
        with redirect_stderr(output):  # submitit passes on the errors of sbatch
            return ScriptExecutor(folder, script).submit_script()
    except FailedJobError as error:
        faults = re.findall(r"sbatch: error: (.*)", output.getvalue()) or [" ".join(str(error).split())]
        raise InputError(
            f"sbatch refused the job: {', '.join(faults)}", "`hpcai500 site check` shows what the site lacks"
        ) from error
    except RuntimeError as error:
        raise MachineError("no Slurm on this machine: srun is not on PATH", "submit from a login node") from error


def remember(run_folders: Sequence[Path], job_ids: Sequence[str], script: str) -> None:
    """Write the submitted script and its job's number into each run's folder."""
    for folder, job_id in zip(run_folders, job_ids, strict=True):
        (folder / "job.sbatch").write_text(script, encoding="utf-8")
        record: dict[str, Any] = {"schema_version": 1, "job_id": job_id}
        write_json(folder / "job.json", record)


def split_seeds(seeds: Sequence[int], limit: int) -> list[tuple[int, list[int]]]:
    """Arrays `(offset, seeds)` whose indices, the seeds minus the offset, are all below `limit`."""
    ordered = sorted(seeds)
    if ordered[-1] < limit:
        return [(0, ordered)]
    arrays: list[tuple[int, list[int]]] = []
    for seed in ordered:
        if not arrays or seed - arrays[-1][0] >= limit:
            arrays.append((seed, []))
        arrays[-1][1].append(seed)
    return arrays
