"""Latency and bandwidth between every pair of nodes, by TCP, in rounds of disjoint pairs.

The collectives between GPUs measure a fabric's own protocol (InfiniBand verbs, NVLink).
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
from hpcai500.validate.agent.seat import Seat
from hpcai500.validate.files import Measurement, Observation, Trouble

MOST_ROUNDS = {1: 15, 2: 255, 3: 100_000}
"""Rounds by level: each node is measured with so many others, so that level 1 stays short on a big partition."""
MEASURE_SEC = {1: 0.3, 2: 1.0, 3: 2.0}
"""Time per direction, by level."""
_PAIR_TIMEOUT_SEC = 10.0
_NUM_PINGS = 200
_BLOCK_BYTES = 1 << 20
_LEAST_SEC = 0.05
"""Shortest time of a transfer that is measured; a faster one is made larger."""
_MOST_BYTES = 256 << 20
_ACK = b"\x06"


def run(seat: Seat) -> Iterator[Observation]:
    if len(seat.members) < 2:
        return
    address = own_address(os.environ, single_node=False)
    with socket.create_server((address, 0)) as server:
        server.settimeout(_PAIR_TIMEOUT_SEC)
        write_atomic(seat.folder / ADDRESSES / f"{seat.node}.links", f"{address} {server.getsockname()[1]}\n")
        for number, pairs in enumerate(rounds(list(seat.members))):
            if number >= MOST_ROUNDS[seat.plan.level]:
                return
            seat.step("links", f"round {number + 1}")
            seat.wait(f"links: round {number}")
            for left, right in pairs:
                if seat.node in (left, right) and {left, right} <= set(seat.members):
                    yield from _measure_pair(seat, server, left, right)


def _measure_pair(seat: Seat, server: socket.socket, left: str, right: str) -> Iterator[Observation]:
    """Measurement by `left`; `right` answers."""
    nodes = tuple(sorted((left, right)))
    try:
        if seat.node == right:
            answer(server)
            return
        connection = socket.create_connection(
            read_address(seat.folder, f"{right}.links", _PAIR_TIMEOUT_SEC), timeout=_PAIR_TIMEOUT_SEC
        )
        with connection:
            latency_sec, there, back = ask(connection, MEASURE_SEC[seat.plan.level])
    except TimeoutError:
        yield Trouble(
            stage="links", nodes=nodes, kind="timeout", metric="link_bytes_per_sec",
            message=f"no answer over this link within {_PAIR_TIMEOUT_SEC:g} s",
            remedy="check cable, port and switch of both nodes",
        )  # fmt: skip
        return
    except OSError as error:
        yield Trouble(
            stage="links", nodes=nodes, kind="failed", metric="link_bytes_per_sec",
            message=f"cannot connect over this link: {error.strerror or error}",
            remedy="check `ip addr` on both, firewalls between them, and network_interface in the site's profile",
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
    """Median latency in seconds, and median bytes per second to the other side and back.

    The line `send N` announces N bytes, which the other side acknowledges. `want N` requests N bytes.
    """
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    round_trips = [_want(connection, 1) for _ in range(_NUM_PINGS)]
    there = _bytes_per_sec(partial(_send, connection), measure_sec)
    back = _bytes_per_sec(partial(_want, connection), measure_sec)
    connection.sendall(b"end 0\n")
    return statistics.median(round_trips) / 2, there, back


def answer(server: socket.socket) -> None:
    """The other side of `ask`, for one connection."""
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
    """Median rate of transfers that take long enough to be timed: at least three, for `measure_sec` in total."""
    size = _BLOCK_BYTES
    while transfer(size) < _LEAST_SEC and size < _MOST_BYTES:
        size *= 2
    rates: list[float] = []
    deadline = time.perf_counter() + measure_sec
    while len(rates) < 3 or time.perf_counter() < deadline:
        rates.append(size / transfer(size))
    return statistics.median(rates)


def _send(connection: socket.socket, size: int) -> float:
    """Seconds until the other side has received and acknowledged `size` bytes."""
    started = time.perf_counter()
    connection.sendall(f"send {size}\n".encode())
    _push(connection, size)
    _receive(connection, 1)
    return time.perf_counter() - started


def _want(connection: socket.socket, size: int) -> float:
    """Seconds from requesting `size` bytes to having them."""
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
            raise ConnectionError("the other side closed the connection")
        size -= count


def _line(connection: socket.socket) -> str:
    line = b""
    while not line.endswith(b"\n"):
        letter = connection.recv(1)
        if not letter:
            raise ConnectionError("the other side closed the connection")
        line += letter
    return line.decode("ascii")
