"""The options of `sbatch`, by which a job asks for its resources."""

import shlex
from collections.abc import Sequence
from typing import NamedTuple

from hpcai500.errors import SpecError
from hpcai500.launch.registry import job_launcher
from hpcai500.spec.site import Site


class Header(NamedTuple):
    """The resources of one job, or of one array, at a site."""

    site: Site
    job_name: str
    nodes: int
    tasks_per_node: int
    indices: tuple[int, ...] = ()
    """Indices of an array; empty for a plain job."""
    log: str = ""
    """The pattern for `sbatch --output`, whose folder must exist; empty for Slurm's default."""


def sbatch_options(header: Header) -> list[str]:
    """The options of `sbatch`, unquoted.

    Raises:
        SpecError: if the site's launcher cannot start ranks in a job.
    """
    site, request = header.site, header.site.slurm
    given = {
        "job-name": header.job_name,
        "output": header.log,
        "array": _array(header),
        "partition": request.partition,
        "account": request.account,
        "qos": request.qos,
        "constraint": request.constraint,
        "reservation": request.reservation,
        "time": request.time,
        "nodes": header.nodes,
        "ntasks-per-node": header.tasks_per_node,
        "cpus-per-task": request.cpus_per_task,
        "mem": request.memory,
        **_gpu_option(site),
        "signal": f"{_signal(site)}@{site.preemption.grace_sec}" if site.preemption.grace_sec else "",
        "open-mode": "append",
    }
    flags = ["--exclusive"] if request.exclusive else []
    flags.append("--requeue" if site.preemption.max_requeues else "--no-requeue")
    return [*(f"--{name}={value}" for name, value in given.items() if value), *flags, *request.sbatch_arguments]


def quote_option(option: str) -> str:
    """An option quoted for a `#SBATCH` line, which sbatch reads like a shell.

    Only the backslash differs: it escapes inside every kind of quotes.
    """
    if shlex.quote(option) == option:
        return option
    return '"' + option.replace("\\", "\\\\").replace('"', '\\"') + '"'


def log_pattern(folder: str, name: str) -> str:
    """`name`, a pattern for `sbatch --output`, in `folder`, whose per cent signs are escaped.

    Raises:
        SpecError: for a backslash, after which Slurm would expand no pattern at all.
    """
    if "\\" in folder:
        raise SpecError(f"{folder}: Slurm writes no log below a folder with a backslash", "choose another --output")
    return f"{folder.replace('%', '%%')}/{name}"


def _gpu_option(site: Site) -> dict[str, str]:
    """The option for GPUs per node. An option per task would hide the other ranks' GPUs, which NCCL needs."""
    request = site.slurm
    if not request.gpus_per_node:
        return {}
    count = f"{request.gpu_type}:{request.gpus_per_node}" if request.gpu_type else str(request.gpus_per_node)
    return {"gres": f"gpu:{count}"} if request.gpu_request == "gres" else {"gpus-per-node": count}


def _signal(site: Site) -> str:
    """The signal before the time limit: to the ranks, or with `B:` to the script, which passes it on."""
    launcher = job_launcher(site.slurm.launcher)
    return site.preemption.signal if launcher.gets_job_signals else f"B:{site.preemption.signal}"


def _array(header: Header) -> str:
    """Indices as ranges, `0-3,7`, and how many may run at once."""
    text = ",".join("-".join(map(str, bounds)) for bounds in _ranges(sorted(header.indices)))
    limit = header.site.slurm.max_parallel
    return f"{text}%{limit}" if text and limit else text


def _ranges(numbers: Sequence[int]) -> list[list[int]]:
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][-1] == number - 1:
            ranges[-1] = [ranges[-1][0], number]
        else:
            ranges.append([number])
    return ranges
