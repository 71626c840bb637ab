"""The testbed's hosts: Linux namespaces that their first process holds."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

STATE = Path(os.environ.get("HPCAI500_TESTBED", "/var/lib/hpcai500-testbed"))
ETC = STATE / "etc"  # what the cluster runs with
LOG = STATE / "log"
CLONE = Path(__file__).resolve().parents[2]
CGROUP = Path("/sys/fs/cgroup/memory")  # version 1, in which slurmd creates slurm_NODE

# It reaps orphaned processes of its host.
FIRST_PROCESS = ["/bin/sh", "-c", "while :; do sleep 3600 & wait $!; done", "hpcai500-testbed", str(STATE)]
NAMESPACES = ["--mount", "--uts", "--ipc", "--net", "--pid"]
ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root", "SLURM_CONF": f"{ETC}/slurm.conf"}


class TestbedError(Exception):
    """Why the testbed cannot run, and how to fix it."""


def run(*argv: str | Path, check: bool = True, timeout_sec: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a command without input, in its own environment. Its output is captured.

    Raises:
        TestbedError: if it fails and `check` is set, or takes longer than `timeout_sec`.
    """
    command = [str(arg) for arg in argv]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=ENV, cwd="/",
            timeout=timeout_sec, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise TestbedError(f"{' '.join(command)} took longer than {timeout_sec:g} s; see {LOG}") from error
    if check and done.returncode:
        raise TestbedError(f"{' '.join(command)} failed ({done.returncode}): {(done.stderr or done.stdout).strip()}")
    return done


def succeeds(*argv: str | Path) -> bool:
    return run(*argv, check=False).returncode == 0


def wait_until(holds: Callable[[], bool], what: str, timeout_sec: float = 30) -> None:
    """Wait until `holds` returns true.

    Raises:
        TestbedError: with `what` was waited for.
    """
    deadline = time.monotonic() + timeout_sec
    while not holds():
        if time.monotonic() > deadline:
            raise TestbedError(f"waited {timeout_sec:g} s in vain: {what}; see {LOG}")
        time.sleep(0.1)


def first_processes() -> dict[str, int]:
    """First process of each running host, by its name, with its number on this machine."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            argv = path.read_bytes().decode(errors="replace").split("\0")[:-1]
            if argv[:-1] == FIRST_PROCESS:
                found[argv[-1]] = int(path.parent.name)
    return found


def is_running(host: str, daemon: str) -> bool:
    pid = first_processes().get(host)
    if pid is None:
        return False
    namespace = Path(f"/proc/{pid}/ns/pid").readlink()
    for path in Path("/proc").glob("[0-9]*/comm"):
        with suppress(OSError):
            if path.read_text().strip() == daemon and (path.parent / "ns/pid").readlink() == namespace:
                return True
    return False


def enter(host: str) -> list[str]:
    """The first words of a command that runs inside `host`.

    It does not use `ip netns exec`, which would mount a new /sys over the cgroups.
    """
    pid = first_processes().get(host)
    if pid is None:
        raise TestbedError(f"{host} does not run: start it with `make testbed-up`")
    return ["nsenter", f"--target={pid}", *NAMESPACES]


def inside(host: str, *argv: str | Path) -> None:
    run(*enter(host), *argv)


def boot(host: str, hosts_file: Path) -> None:
    """Create the namespaces of `host`: its own name, processes, /tmp and shared memory, and no network yet."""
    subprocess.Popen(
        ["unshare", *NAMESPACES, "--fork", "--mount-proc", *FIRST_PROCESS, host],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=ENV, cwd="/", start_new_session=True,
    )  # fmt: skip
    wait_until(lambda: host in first_processes(), f"the first process of {host}")
    inside(host, "hostname", host)
    if CLONE.is_relative_to("/tmp"):  # noqa: S108 - nodes see this clone, wherever it lies
        inside(host, "mount", "--bind", CLONE, "/mnt")
    for path in "/tmp", "/dev/shm":  # noqa: S108
        inside(host, "mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", path)
    if CLONE.is_relative_to("/tmp"):  # noqa: S108
        inside(host, "mkdir", "--parents", CLONE)
        inside(host, "mount", "--move", "/mnt", CLONE)
    inside(host, "mount", "--bind", hosts_file, "/etc/hosts")
    inside(host, "ip", "link", "set", "lo", "up")


def power_off(host: str) -> None:
    """Kill everything on `host` at once, as a power cut does, with its network and its mounts."""
    pid = first_processes().get(host)
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: host not in first_processes(), f"the end of {host}")
    remove_cgroup(CGROUP / f"slurm_{host}")


def remove_cgroup(path: Path) -> None:
    def removed() -> bool:
        with suppress(OSError):  # its processes are still ending
            for folder, _, _ in os.walk(path, topdown=False):
                Path(folder).rmdir()
        return not path.exists()

    wait_until(removed, f"the end of the processes in {path}")


def start_daemon(host: str, daemon: str, *argv: str | Path) -> None:
    """Start a daemon, which puts itself into the background, unless it is already running."""
    if not is_running(host, daemon):
        inside(host, daemon, *argv)
