#!/usr/bin/env python3
"""A real Slurm on one machine: a controller and four nodes, each a host made of Linux namespaces."""

import argparse
import fcntl
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_network
from pathlib import Path
from string import Template

import hosts
from hosts import CGROUP, ETC, LOG, STATE, TestbedError, boot, enter, inside, run, start_daemon, succeeds, wait_until

HERE = Path(__file__).resolve().parent
ETC_NO_ACCOUNTING = STATE / "etc-no-accounting"  # the same cluster for clients that must not find accounting
HOSTS_FILE = STATE / "hosts"

SUBNET = "10.50.0"
CONTROLLER = f"{SUBNET}.1"
LOGIN = f"{SUBNET}.254"  # this machine itself, from which jobs are submitted
LINK = Path("/sys/class/net/hpcai500-tb")  # this machine's network interface to the testbed
NODES = {f"node{i}": f"{SUBNET}.{10 + i}" for i in range(1, 5)}
GPUS_PER_NODE = 2

DAEMONS = [(name, "slurmd") for name in NODES]
DAEMONS += [("controller", daemon) for daemon in ("munged", "mariadbd", "slurmdbd", "slurmctld")]
COMMANDS = ["ip", "mariadbd", "munged", "nsenter", "slurmctld", "slurmd", "slurmdbd", "srun", "unshare"]


def client_env() -> dict[str, str]:
    """Variables of clients. Slurm's commands read the first, and scripts read the others."""
    return {
        "SLURM_CONF": str(ETC / "slurm.conf"),
        "TESTBED_SLURM_CONF_NO_ACCOUNTING": str(ETC_NO_ACCOUNTING / "slurm.conf"),
        "TESTBED_SHARED": str(STATE / "shared"),
    }


def exports() -> str:
    return "".join(f"export {name}={value}\n" for name, value in client_env().items())


def texts() -> dict[Path, str]:
    """The text of each file that is written from a template or a constant."""
    last_bytes = [address.rpartition(".")[2] for address in NODES.values()]
    has_cgroup = os.access(CGROUP, os.W_OK)
    values = {
        "state": str(STATE),
        "controller": CONTROLLER,
        "nodes": f"{SUBNET}.[{last_bytes[0]}-{last_bytes[-1]}]",
        "task_plugin": "task/cgroup" if has_cgroup else "task/none",
        "memory_limit": "NoOverMemoryKill" if has_cgroup else "OverMemoryKill",
    }

    def fill(name: str, **more: str) -> str:
        return Template((HERE / f"{name}.in").read_text()).substitute(values, **more)

    addresses = {"localhost": "127.0.0.1", "controller": CONTROLLER, "login": LOGIN, **NODES}
    return {
        ETC / "slurm.conf": fill("slurm.conf", accounting="slurmdbd"),
        ETC_NO_ACCOUNTING / "slurm.conf": fill("slurm.conf", accounting="none"),
        ETC / "gres.conf": fill("gres.conf"),
        ETC / "cgroup.conf": fill("cgroup.conf"),
        ETC / "slurmdbd.conf": fill("slurmdbd.conf"),
        HOSTS_FILE: "".join(f"{address} {name}\n" for name, address in addresses.items()),
        STATE / "env.sh": exports(),
    }


def texts_are_current() -> bool:
    return all(path.exists() and path.read_text() == text for path, text in texts().items())


def write_files() -> None:
    for folder in ETC, ETC_NO_ACCOUNTING, LOG, STATE / "dev", STATE / "munge", STATE / "shared", STATE / "slurmctld":
        folder.mkdir(parents=True)
    for path, text in texts().items():
        path.write_text(text)
    (ETC / "slurmdbd.conf").chmod(0o600)  # slurmdbd refuses other permissions
    for index in range(GPUS_PER_NODE):
        os.mknod(STATE / f"dev/gpu{index}", stat.S_IFCHR | 0o666, os.makedev(1, 3))  # the numbers of /dev/null
    key = STATE / "munge/key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)


def require_this_machine() -> None:
    """Refuse a machine that cannot run the testbed.

    Raises:
        TestbedError: if it lacks something.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        raise TestbedError("the testbed needs Linux and root: it makes network interfaces and mounts")
    if missing := [name for name in COMMANDS if shutil.which(name, path=hosts.ENV["PATH"]) is None]:
        raise TestbedError(f"{', '.join(missing)} not found: `make testbed-up` installs the Debian packages")


def require_free_subnet() -> None:
    """Refuse a machine with a route to some of our addresses.

    Raises:
        TestbedError: if it has one.
    """
    ours = ip_network(f"{SUBNET}.0/24")
    for line in run("ip", "-4", "-oneline", "route", "show").stdout.splitlines():
        destination = line.split()[0]
        if destination[0].isdigit() and ip_network(destination, strict=False).overlaps(ours):
            raise TestbedError(f"{ours} is taken here ({line.strip()}): change SUBNET in {HERE / 'testbed.py'}")


def boot_controller() -> None:
    """Boot the controller, which is also the network switch of this machine and the nodes."""
    require_free_subnet()
    boot("controller", HOSTS_FILE)
    inside("controller", "ip", "link", "add", "switch", "type", "bridge")
    inside("controller", "ip", "address", "add", f"{CONTROLLER}/24", "dev", "switch")
    inside("controller", "ip", "link", "set", "switch", "up")
    pid = str(hosts.first_processes()["controller"])
    run("ip", "link", "add", LINK.name, "type", "veth", "peer", "name", "login", "netns", pid)
    inside("controller", "ip", "link", "set", "login", "master", "switch", "up")
    run("ip", "address", "add", f"{LOGIN}/24", "dev", LINK.name)
    run("ip", "link", "set", LINK.name, "up")


def start_accounting() -> None:
    munge = STATE / "munge"
    start_daemon(
        "controller", "munged", f"--key-file={munge}/key", f"--socket={munge}/socket", f"--pid-file={munge}/pid",
        f"--log-file={LOG}/munged.log", f"--seed-file={munge}/seed", "--force",
    )  # fmt: skip
    start_database()
    start_daemon("controller", "slurmdbd")
    wait_until(lambda: succeeds("sacctmgr", "show", "cluster"), "slurmdbd's answer")
    run("sacctmgr", "--immediate", "add", "cluster", "testbed")


def start_database() -> None:
    """Start MariaDB, with TCP only on the controller's own loopback interface."""
    data = STATE / "mariadb"
    install = ["--no-defaults", "--user=root", "--auth-root-authentication-method=normal", "--skip-test-db"]
    inside("controller", "mariadb-install-db", *install, f"--datadir={data}")
    background = ["start-stop-daemon", "--start", "--background", "--exec", "/usr/sbin/mariadbd", "--"]
    options = [
        "--no-defaults", "--user=root", f"--datadir={data}", f"--socket={data}/socket", "--bind-address=127.0.0.1",
        f"--pid-file={data}/pid", f"--log-error={LOG}/mariadb.log", "--innodb-flush-log-at-trx-commit=0",
    ]  # fmt: skip
    inside("controller", *background, *options)
    ping = ["mariadb-admin", "--no-defaults", f"--socket={data}/socket", "--user=root", "ping"]
    wait_until(lambda: succeeds(*ping), "MariaDB's answer")


def start_node(node: str) -> None:
    if node not in hosts.first_processes():
        boot(node, HOSTS_FILE)
        controller, pid = enter("controller")[1], str(hosts.first_processes()[node])
        on_switch = ["nsenter", controller, "--net", "ip", "link"]
        run(*on_switch, "delete", node, check=False)  # left by a host that has just ended
        run(*on_switch, "add", node, "type", "veth", "peer", "name", "eth0", "netns", pid)
        run(*on_switch, "set", node, "master", "switch", "up")
        inside(node, "ip", "address", "add", f"{NODES[node]}/24", "dev", "eth0")
        inside(node, "ip", "link", "set", "eth0", "up")
    start_daemon(node, "slurmd", "-N", node)


def nodes_are_ready() -> bool:
    """Whether each node takes jobs. Nodes that Slurm marked as down are resumed."""
    lines = run("sinfo", "--noheader", "--Node", "--partition=debug", "--format=%N %T").stdout.splitlines()
    states = dict(line.split() for line in lines)
    for node, state in states.items():
        if state in {"down", "drained", "draining", "fail", "failing"}:
            run("scontrol", "update", f"nodename={node}", "state=resume", check=False)
    return all(state in {"idle", "mixed", "allocated", "completing"} for state in states.values())


def is_sound() -> bool:
    """Whether it is enough to start slurmctld and nodes."""
    daemons = all(hosts.is_running("controller", daemon) for daemon in ("munged", "mariadbd", "slurmdbd"))
    return daemons and LINK.exists() and texts_are_current()


def is_up() -> bool:
    return (
        is_sound()
        and all(hosts.is_running(host, daemon) for host, daemon in DAEMONS)
        and succeeds("sacctmgr", "show", "cluster")
        and succeeds("scontrol", "ping")
        and nodes_are_ready()
    )


def up() -> None:
    if not is_up():
        if not is_sound():
            down()
            write_files()
            boot_controller()
            start_accounting()
        start_daemon("controller", "slurmctld")
        wait_until(lambda: succeeds("scontrol", "ping"), "slurmctld's answer")
        for node in NODES:
            start_node(node)
        wait_until(nodes_are_ready, "nodes that take jobs", timeout_sec=60)
    print(f"Slurm is up. To use it: . {STATE / 'env.sh'}")


def down() -> None:
    for host in ["controller", *NODES]:
        hosts.power_off(host)
    run("ip", "link", "delete", LINK.name, check=False)  # it may have ended with the controller
    wait_until(lambda: not LINK.exists(), f"the end of {LINK.name}")
    if STATE.exists():
        shutil.rmtree(STATE)


def status() -> None:
    """Print the state of each daemon.

    Raises:
        TestbedError: if not all of them run.
    """
    for host, daemon in DAEMONS:
        print(f"{host} {daemon}: {'runs' if hosts.is_running(host, daemon) else 'does not run'}")
    if not is_up():
        raise TestbedError("not up, or not whole: `make testbed-up` starts what is missing")
    print(run("sinfo").stdout, end="")


def execute(node: str, argv: list[str]) -> None:
    """Replace this process by a command on `node`, in this folder and with this environment."""
    command = [*enter(node), "env", f"--chdir={Path.cwd()}", *argv]
    os.execvp(command[0], command)  # noqa: S606


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Lock the testbed.

    Raises:
        TestbedError: if another process has it locked for over three minutes.
    """
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
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start what does not run, and print what to source")
    commands.add_parser("down", help="end all of it and remove its files")
    commands.add_parser("status", help="print what runs; exit with 1 unless everything does")
    commands.add_parser("env", help="print the lines to source")
    kill_parser = commands.add_parser("kill-node", help="kill everything on a node at once, as a power cut does")
    kill_parser.add_argument("node", choices=NODES)
    commands.add_parser("start-node", help="start a node that was killed").add_argument("node", choices=NODES)
    execute_parser = commands.add_parser("exec", help="run a command inside of a node")
    execute_parser.add_argument("node", choices=["controller", *NODES])
    execute_parser.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- command")
    return parser.parse_args(argv)


def perform(options: argparse.Namespace) -> None:
    match options.command:
        case "up":
            up()
        case "down":
            down()
        case "kill-node":
            hosts.power_off(options.node)
        case "start-node":
            start_node(options.node)
        case "status":
            status()
        case "env":
            print(exports(), end="")


def main() -> int:
    options = parse(sys.argv[1:])
    try:
        require_this_machine()
        if options.command == "exec":
            execute(options.node, options.argv[options.argv[:1] == ["--"] :])
        with one_at_a_time():
            perform(options)
    except TestbedError as error:
        print(f"testbed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
