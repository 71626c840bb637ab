#!/usr/bin/env python3
"""A real Slurm on one machine: a controller and four nodes, each in Linux namespaces of its own.

Ending a host's first process ends the host: its processes, its network and its mounts. All its files are below one
state directory.
"""

import argparse
import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_network
from pathlib import Path
from string import Template

HERE = Path(__file__).resolve().parent
STATE = Path(os.environ.get("HPCAI500_TESTBED", "/var/lib/hpcai500-testbed"))
ETC = STATE / "etc"  # what the cluster runs with
ETC_NO_ACCOUNTING = STATE / "etc-no-accounting"  # the same cluster to clients that find no accounting
LOG = STATE / "log"

SUBNET = "10.50.0"
CONTROLLER = f"{SUBNET}.1"
LOGIN = f"{SUBNET}.254"  # this machine itself, from where jobs are submitted
LINK = "hpcai500-tb"  # this machine's network interface to the testbed
LINK_PATH = Path("/sys/class/net", LINK)
NODES = {f"node{i}": f"{SUBNET}.{10 + i}" for i in range(1, 5)}
GPUS_PER_NODE = 2
CGROUP = Path("/sys/fs/cgroup/memory")  # version 1, where slurmd makes slurm_NODE

# A host's first process: it holds the namespaces, and reaps what its daemons leave.
INIT = ["/bin/sh", "-c", "while :; do sleep 3600 & wait $!; done", "hpcai500-testbed", str(STATE)]
COMMANDS = ["ip", "mariadbd", "munged", "nsenter", "slurmctld", "slurmd", "slurmdbd", "srun", "unshare"]
DAEMON_ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root"}


class TestbedError(Exception):
    """What keeps the testbed from running, and how to mend it."""


def run(*argv: str | Path, check: bool = True, timeout_sec: float = 60) -> subprocess.CompletedProcess[str]:
    """A command without input; its output is kept.

    Raises:
        TestbedError: it failed and `check` is set, or took longer than `timeout_sec`.
    """
    command = [str(arg) for arg in argv]
    env = {**DAEMON_ENV, "SLURM_CONF": str(ETC / "slurm.conf")}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=env, cwd="/",
            timeout=timeout_sec, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise TestbedError(f"{' '.join(command)} took longer than {timeout_sec:g} s; see {LOG}") from error
    if check and done.returncode:
        raise TestbedError(f"{' '.join(command)} failed ({done.returncode}): {(done.stderr or done.stdout).strip()}")
    return done


def wait_until(holds: Callable[[], bool], what: str, timeout_sec: float = 30) -> None:
    """Raises: TestbedError, saying what was waited for."""
    deadline = time.monotonic() + timeout_sec
    while not holds():
        if time.monotonic() > deadline:
            raise TestbedError(f"waited {timeout_sec:g} s in vain: {what}; see {LOG}")
        time.sleep(0.1)


# Hosts


def first_processes() -> dict[str, int]:
    """Name of each host that lives, and its first process as this machine numbers it."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            argv = path.read_bytes().decode(errors="replace").split("\0")[:-1]
            if argv[:-1] == INIT:
                found[argv[-1]] = int(path.parent.name)
    return found


def running(host: str, daemon: str) -> bool:
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
    """The start of a command that is to run inside of `host`.

    Not `ip netns exec`, which puts a fresh /sys over the cgroups that slurmd looks for.
    """
    pid = first_processes().get(host)
    if pid is None:
        raise TestbedError(f"{host} is not running: start it with {HERE.name}/testbed.py up")
    return ["nsenter", f"--target={pid}", "--mount", "--uts", "--ipc", "--net", "--pid"]


def inside(host: str, *argv: str | Path, timeout_sec: float = 60) -> None:
    run(*enter(host), *argv, timeout_sec=timeout_sec)


def boot(host: str) -> None:
    """Give `host` its namespaces: a name, processes, /tmp and shared memory of its own, and no network yet."""
    namespaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--mount-proc"]
    subprocess.Popen(
        ["unshare", *namespaces, *INIT, host],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=DAEMON_ENV, cwd="/", start_new_session=True,
    )  # fmt: skip
    wait_until(lambda: host in first_processes(), f"the first process of {host}")
    inside(host, "hostname", host)
    for path in "/tmp", "/dev/shm":  # noqa: S108
        inside(host, "mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", path)
    inside(host, "mount", "--bind", STATE / "hosts", "/etc/hosts")
    inside(host, "ip", "link", "set", "lo", "up")


def remove_cgroup(path: Path) -> None:
    """A control group that lost its processes, and those inside of it."""

    def removed() -> bool:
        with suppress(OSError):  # its processes are still ending
            for folder, _, _ in os.walk(path, topdown=False):
                Path(folder).rmdir()
        return not path.exists()

    wait_until(removed, f"the end of the processes in {path}")


def power_off(host: str) -> None:
    """End all that runs on `host` at once, as a power cut does."""
    pid = first_processes().get(host)
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: host not in first_processes(), f"the end of {host}")
    remove_cgroup(CGROUP / f"slurm_{host}")


def start_daemon(host: str, daemon: str, *argv: str | Path) -> None:
    """Start a daemon that puts itself into the background, unless it runs."""
    if not running(host, daemon):
        inside(host, daemon, *argv)


# Files


def write_files() -> None:
    for folder in ETC, ETC_NO_ACCOUNTING, LOG, STATE / "dev", STATE / "munge", STATE / "shared", STATE / "slurmctld":
        folder.mkdir(parents=True, exist_ok=True)
    for path, text in rendered_files().items():
        path.write_text(text)
    (ETC / "slurmdbd.conf").chmod(0o600)  # or slurmdbd will not read it
    for index in range(GPUS_PER_NODE):
        device = STATE / f"dev/gpu{index}"
        if not device.exists():
            os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))  # the numbers of /dev/null
    key = STATE / "munge/key"
    if not key.exists():
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)


def rendered_files() -> dict[Path, str]:
    """Each file that is written from a template or a constant, and its text."""
    last_bytes = [address.rpartition(".")[2] for address in NODES.values()]
    has_cgroup = os.access(CGROUP, os.W_OK)
    values = {
        "state": str(STATE),
        "controller": CONTROLLER,
        "task_plugin": "task/cgroup" if has_cgroup else "task/none",
        "memory_limit": "NoOverMemoryKill" if has_cgroup else "OverMemoryKill",
        "nodes": f"{SUBNET}.[{last_bytes[0]}-{last_bytes[-1]}]",
    }

    def fill(name: str, **more: str) -> str:
        return Template((HERE / f"{name}.in").read_text()).substitute(values, **more)

    hosts = {"localhost": "127.0.0.1", "controller": CONTROLLER, "login": LOGIN, **NODES}
    return {
        ETC / "slurm.conf": fill("slurm.conf", accounting="slurmdbd"),
        ETC_NO_ACCOUNTING / "slurm.conf": fill("slurm.conf", accounting="none"),
        ETC / "gres.conf": fill("gres.conf"),
        ETC_NO_ACCOUNTING / "gres.conf": fill("gres.conf"),
        ETC / "cgroup.conf": fill("cgroup.conf"),
        ETC / "slurmdbd.conf": fill("slurmdbd.conf"),
        STATE / "hosts": "".join(f"{address} {name}\n" for name, address in hosts.items()),
        STATE / "env.sh": "".join(f"export {name}={value}\n" for name, value in client_env().items()),
    }


def client_env() -> dict[str, str]:
    """What a client needs: Slurm's commands read the first, the others are for scripts."""
    return {
        "SLURM_CONF": str(ETC / "slurm.conf"),
        "TESTBED_SLURM_CONF_NO_ACCOUNTING": str(ETC_NO_ACCOUNTING / "slurm.conf"),
        "TESTBED_SHARED": str(STATE / "shared"),
    }


def files_are_current() -> bool:
    return all(path.exists() and path.read_text() == text for path, text in rendered_files().items())


# The cluster


def require_this_machine() -> None:
    """Raises: TestbedError, if this machine cannot carry the testbed."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise TestbedError("the testbed needs Linux and root: it makes network interfaces and mounts")
    path = DAEMON_ENV["PATH"]
    if missing := [name for name in COMMANDS if shutil.which(name, path=path) is None]:
        raise TestbedError(f"{', '.join(missing)} not found: `make testbed-up` installs the Debian packages")


def require_free_subnet() -> None:
    """Raises: TestbedError, if this machine already has a way to some of our addresses."""
    ours = ip_network(f"{SUBNET}.0/24")
    for line in run("ip", "-4", "-oneline", "route", "show", "table", "all").stdout.splitlines():
        words = [word for word in line.split() if word not in {"broadcast", "local", "unreachable", "blackhole"}]
        if words[0] != "default" and "dev" in words and ip_network(words[0], strict=False).overlaps(ours):
            raise TestbedError(f"{ours} is taken here ({line.strip()}): change SUBNET in {HERE / 'testbed.py'}")


def start_controller() -> None:
    """The controller is also the switch that this machine and the nodes are plugged into."""
    if "controller" not in first_processes():
        run("ip", "link", "delete", LINK, check=False)
        require_free_subnet()
        boot("controller")
        inside("controller", "ip", "link", "add", "switch", "type", "bridge")
        inside("controller", "ip", "address", "add", f"{CONTROLLER}/24", "dev", "switch")
        inside("controller", "ip", "link", "set", "switch", "up")
        pid = str(first_processes()["controller"])
        run("ip", "link", "add", LINK, "type", "veth", "peer", "name", "login", "netns", pid)
        inside("controller", "ip", "link", "set", "login", "master", "switch", "up")
        run("ip", "address", "add", f"{LOGIN}/24", "dev", LINK)
        run("ip", "link", "set", LINK, "up")
    munge = STATE / "munge"
    start_daemon(
        "controller", "munged", f"--key-file={munge}/key", f"--socket={munge}/socket", f"--pid-file={munge}/pid",
        f"--log-file={LOG}/munged.log", f"--seed-file={munge}/seed", "--force",
    )  # fmt: skip
    start_database()
    start_daemon("controller", "slurmdbd")
    wait_until(lambda: run("sacctmgr", "-n", "show", "cluster", check=False).returncode == 0, "slurmdbd's answer")
    if "testbed" not in run("sacctmgr", "-nP", "show", "cluster", "format=cluster").stdout.split():
        run("sacctmgr", "-i", "add", "cluster", "testbed")
    start_daemon("controller", "slurmctld")
    wait_until(lambda: run("scontrol", "ping", check=False).returncode == 0, "slurmctld's answer")


def start_database() -> None:
    """MariaDB, with TCP only on the controller's own loopback interface."""
    if running("controller", "mariadbd"):
        return
    data = STATE / "mariadb"
    if not (data / "mysql").exists():
        install = ["--no-defaults", "--user=root", "--auth-root-authentication-method=normal", "--skip-test-db"]
        inside("controller", "mariadb-install-db", *install, f"--datadir={data}")
    options = [
        "--no-defaults", "--user=root", f"--datadir={data}", f"--socket={data}/socket", "--bind-address=127.0.0.1",
        f"--pid-file={data}/pid", f"--log-error={LOG}/mariadb.log", "--innodb-flush-log-at-trx-commit=0",
    ]  # fmt: skip
    background = ["start-stop-daemon", "--start", "--background", "--exec", "/usr/sbin/mariadbd", "--"]
    inside("controller", *background, *options)
    ping = ["mariadb-admin", "--no-defaults", f"--socket={data}/socket", "--user=root", "ping"]
    wait_until(lambda: run(*ping, check=False).returncode == 0, "MariaDB's answer")


def start_node(node: str) -> None:
    if node not in first_processes():
        boot(node)
        controller, pid = enter("controller")[1], str(first_processes()[node])
        on_switch = ["nsenter", controller, "--net", "ip", "link"]
        run(*on_switch, "delete", node, check=False)  # what a host that just ended has not yet taken with it
        run(*on_switch, "add", node, "type", "veth", "peer", "name", "eth0", "netns", pid)
        run(*on_switch, "set", node, "master", "switch", "up")
        inside(node, "ip", "address", "add", f"{NODES[node]}/24", "dev", "eth0")
        inside(node, "ip", "link", "set", "eth0", "up")
    start_daemon(node, "slurmd", "-N", node)


def node_states() -> dict[str, str]:
    lines = run("sinfo", "--noheader", "--Node", "--partition=debug", "--format=%N %T").stdout.splitlines()
    return dict(line.split() for line in lines)


def is_ready(state: str) -> bool:
    return state in {"idle", "mixed", "allocated", "completing"}


def resume_nodes() -> None:
    """Wait until each node takes jobs; those that Slurm had given up are offered to it again."""

    def ready() -> bool:
        states = node_states()
        for node, state in states.items():
            if state.startswith(("down", "drain", "fail")) and not state.endswith("*"):
                run("scontrol", "update", f"nodename={node}", "state=resume", check=False)
        return all(map(is_ready, states.values()))

    wait_until(ready, "nodes that take jobs", timeout_sec=60)


def is_up() -> bool:
    hosts = first_processes()
    return (
        all(name in hosts for name in ["controller", *NODES])
        and LINK_PATH.exists()
        and files_are_current()
        and run("sacctmgr", "-n", "show", "cluster", check=False).returncode == 0
        and run("scontrol", "ping", check=False).returncode == 0
        and all(map(is_ready, node_states().values()))
    )


def up() -> None:
    require_this_machine()
    if is_up():
        return
    if "controller" not in first_processes() or not LINK_PATH.exists() or not files_are_current():
        down()
    write_files()
    start_controller()
    for node in NODES:
        start_node(node)
    resume_nodes()


def down() -> None:
    for host in ["controller", *NODES]:
        power_off(host)
    run("ip", "link", "delete", LINK, check=False)
    wait_until(lambda: not LINK_PATH.exists(), f"the end of {LINK}")
    if STATE.exists():
        shutil.rmtree(STATE)


def status() -> None:
    """Raises: TestbedError, if not all of it is up."""
    hosts = first_processes()
    for name in ["controller", *NODES]:
        print(f"{name}: {'up' if name in hosts else 'down'}")
    if not is_up():
        raise TestbedError("not up, or not whole: `make testbed-up` starts what is missing")
    print(run("sinfo").stdout, end="")


def execute(node: str, argv: list[str]) -> None:
    """Become a command on `node`, in this folder and with this environment."""
    command = [*enter(node), "env", f"--chdir={Path.cwd()}", *argv]
    os.execvp(command[0], command)  # noqa: S606


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Raises: TestbedError, if another holds the testbed for over three minutes."""
    lock = os.open(HERE, os.O_RDONLY)

    def locked() -> bool:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    try:
        wait_until(locked, "another testbed.py to end", timeout_sec=180)
        yield
    finally:
        os.close(lock)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start what does not run, and say what to source")
    commands.add_parser("down", help="end all of it and remove its files")
    commands.add_parser("status", help="say what runs; exit with 1 unless all of it does")
    for name, does in ("kill-node", "end all that runs on a node at once, as a power cut does"), (
        "start-node", "start a node that was killed"
    ):  # fmt: skip
        commands.add_parser(name, help=does).add_argument("node", choices=NODES)
    execute_parser = commands.add_parser("exec", help="run a command inside of a node")
    execute_parser.add_argument("node", choices=["controller", *NODES])
    execute_parser.add_argument("argv", nargs=argparse.REMAINDER)
    return parser.parse_args(argv)


def main() -> int:
    options = parse(sys.argv[1:])
    try:
        if options.command == "exec":
            execute(options.node, options.argv[options.argv[:1] == ["--"] :])
        elif options.command == "status":
            status()
        else:
            with one_at_a_time():
                {"up": up, "down": down, "kill-node": lambda: power_off(options.node),
                 "start-node": lambda: start_node(options.node)}[options.command]()  # fmt: skip
            if options.command == "up":
                print(f"Slurm is up. To use it: . {STATE / 'env.sh'}")
    except TestbedError as error:
        print(f"testbed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
