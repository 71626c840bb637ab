"""Every pair of nodes: latency and bandwidth of the way between them, by TCP, in rounds of disjoint pairs.

What a fabric's own protocol (InfiniBand verbs, NVLink) can do is measured by the collectives between GPUs.
"""

import os
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

from hpcai500.files import write_atomic
from hpcai500.system.addresses import own_address
from hpcai500.validate.agent.meeting import ADDRESSES, read_address
from hpcai500.validate.agent.schedule import rounds
from hpcai500.validate.agent.seat import Found, Place
from hpcai500.validate.files import Measurement, Trouble

MOST_ROUNDS = {1: 15, 2: 255, 3: 100_000}
"""By level, so that the first stays short on a big partition: each node is then measured with so many others."""
MEASURE_SEC = {1: 0.3, 2: 1.0, 3: 2.0}
"""In each direction."""
_PAIR_TIMEOUT_SEC = 10.0
_NUM_PINGS = 200
_BLOCK_BYTES = 1 << 20
_LEAST_SEC = 0.05
"""A transfer that takes less is made larger."""
_MOST_BYTES = 256 << 20
_ACK = b"\x06"


def run(place: Place) -> Iterator[Found]:
    if len(place.members) < 2:
        return
    address = own_address(os.environ, single_node=False)
    with socket.create_server((address, 0)) as server:
        server.settimeout(_PAIR_TIMEOUT_SEC)
        write_atomic(place.folder / ADDRESSES / f"{place.node}.links", f"{address} {server.getsockname()[1]}\n")
        for number, pairs in enumerate(rounds(list(place.members))):
            if number >= MOST_ROUNDS[place.plan.level]:
                return
            place.step("links", f"round {number + 1}")
            place.wait(f"links: round {number}")
            for left, right in pairs:
                if place.node in (left, right) and {left, right} <= set(place.members):
                    yield from _measure_pair(place, server, left, right)


def _measure_pair(place: Place, server: socket.socket, left: str, right: str) -> Iterator[Found]:
    """`left` asks and measures, `right` answers."""
    nodes = tuple(sorted((left, right)))
    try:
        if place.node == right:
            answer(server)
            return
        connection = socket.create_connection(
            read_address(place.folder, f"{right}.links", _PAIR_TIMEOUT_SEC), timeout=_PAIR_TIMEOUT_SEC
        )
        with connection:
            latency_sec, there, back = ask(connection, MEASURE_SEC[place.plan.level])
    except TimeoutError:
        yield Trouble(
            stage="links", nodes=nodes, kind="timeout", metric="link_bytes_per_sec",
            message=f"no answer over this link within {_PAIR_TIMEOUT_SEC:g} s",
            remedy="see cable, port and switch of both nodes",
        )  # fmt: skip
        return
    except OSError as error:
        yield Trouble(
            stage="links", nodes=nodes, kind="failed", metric="link_bytes_per_sec",
            message=f"no way over this link: {error.strerror or error}",
            remedy="see `ip addr` on both, firewalls between them, and network_interface in the site's profile",
        )  # fmt: skip
        return
    detail = f"{left} to {right} {there:.4g} B/s, back {back:.4g} B/s"
    yield Measurement(
        stage="links", metric="link_bytes_per_sec", unit="B/s", value=min(there, back), better="higher", nodes=nodes,
        detail=detail,
    )  # fmt: skip
    yield Measurement(
        stage="links", metric="link_latency_sec", unit="s", value=latency_sec, better="lower", nodes=nodes,
        detail="half of a round trip",
    )  # fmt: skip


def ask(connection: socket.socket, measure_sec: float) -> tuple[float, float, float]:
    """Latency in seconds, and bytes a second to the other side and back: medians.

    The line `send N` announces N bytes, which the other side acknowledges; `want N` asks it for them.
    """
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    round_trips = [_want(connection, 1) for _ in range(_NUM_PINGS)]
    there = _bytes_per_sec(partial(_send, connection), measure_sec)
    back = _bytes_per_sec(partial(_want, connection), measure_sec)
    connection.sendall(b"end 0\n")
    return statistics.median(round_trips) / 2, there, back


def answer(server: socket.socket) -> None:
    """The other side of `ask`, for one visitor."""
    connection, _ = server.accept()
    with connection:
        connection.settimeout(_PAIR_TIMEOUT_SEC)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            word, size = _line(connection).split()
            if word == "end":
                return
            if word == "send":
                _receive(connection, int(size))
                connection.sendall(_ACK)
            else:
                _push(connection, int(size))


def _bytes_per_sec(transfer: Callable[[int], float], measure_sec: float) -> float:
    """The median over transfers that take long enough to be timed, for `measure_sec` in all, three at least."""
    size = _BLOCK_BYTES
    while transfer(size) < _LEAST_SEC and size < _MOST_BYTES:
        size *= 2
    rates: list[float] = []
    deadline = time.perf_counter() + measure_sec
    while len(rates) < 3 or time.perf_counter() < deadline:
        rates.append(size / transfer(size))
    return statistics.median(rates)


def _send(connection: socket.socket, size: int) -> float:
    """Seconds until the other side has `size` bytes, and says so."""
    started = time.perf_counter()
    connection.sendall(f"send {size}\n".encode())
    _push(connection, size)
    _receive(connection, 1)
    return time.perf_counter() - started


def _want(connection: socket.socket, size: int) -> float:
    """Seconds from asking for `size` bytes to having them."""
    started = time.perf_counter()
    connection.sendall(f"want {size}\n".encode())
    _receive(connection, size)
    return time.perf_counter() - started


def _push(connection: socket.socket, size: int) -> None:
    block = memoryview(bytes(min(size, _BLOCK_BYTES)))
    while size:
        part = block[: min(size, len(block))]
        connection.sendall(part)
        size -= len(part)


def _receive(connection: socket.socket, size: int) -> None:
    buffer = memoryview(bytearray(min(size, _BLOCK_BYTES)))
    while size:
        count = connection.recv_into(buffer[: min(size, len(buffer))])
        if not count:
            raise ConnectionError("the other side has gone")
        size -= count


def _line(connection: socket.socket) -> str:
    line = b""
    while not line.endswith(b"\n"):
        letter = connection.recv(1)
        if not letter:
            raise ConnectionError("the other side has gone")
        line += letter
    return line.decode("ascii")
