"""Barrier between the agents of one validation: a leader gathers a word from each, and waits no longer than agreed.

The leader is a thread of the first node's agent. A node that misses a gathering's deadline is left out from then on,
and all others learn of it at once. If the leader is lost, the next node in order becomes leader.
Requests and answers are one line of JSON each, on a connection that stays open.
"""

import json
import socket
import socketserver
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hpcai500.errors import MachineError
from hpcai500.files import write_atomic

ADDRESSES = "addresses"
_MARGIN_SEC = 10.0
"""Time that a node waits for the leader's answer beyond the gathering's deadline."""
_POLL_SEC = 0.1
_CLOCK_QUESTIONS = 8
_LINGER_SEC = 5.0


class LeftOutError(MachineError):
    """This node came too late, and the others continued without it."""


class _Board:
    """The leader's state: words by gathering, and the members still expected."""

    def __init__(self, members: Sequence[str]) -> None:
        self._members = list(members)
        self._words: dict[str, dict[str, Any]] = {}
        self._closed: dict[str, dict[str, Any]] = {}
        self._changed = threading.Condition()

    def leave(self, node: str) -> None:
        """Stop expecting `node`: its connection is gone."""
        with self._changed:
            self._members = [member for member in self._members if member != node]
            self._changed.notify_all()

    def has_members(self) -> bool:
        with self._changed:
            return bool(self._members)

    def gather(self, name: str, node: str, word: Any, timeout_sec: float) -> dict[str, Any] | None:
        """All words of the gathering `name`, once every member has come or `timeout_sec` have passed.

        None if the gathering is over, or if `node` was left out of an earlier one.
        """
        deadline = time.monotonic() + timeout_sec
        with self._changed:
            if node not in self._members or name in self._closed:
                return None
            self._words.setdefault(name, {})[node] = word
            self._changed.notify_all()
            while name not in self._closed:
                if set(self._members) <= set(self._words[name]) or time.monotonic() >= deadline:
                    self._closed[name] = self._words.pop(name)
                    self._members = [member for member in self._members if member in self._closed[name]]
                    self._changed.notify_all()
                    break
                self._changed.wait(deadline - time.monotonic())
            return self._closed[name]


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 4_096
    board: _Board


class _Handler(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self) -> None:
        assert isinstance(self.server, _Server)
        board = self.server.board
        _keep_alive(self.connection)
        node = ""
        with suppress(OSError, ValueError):
            for line in self.rfile:
                asked = json.loads(line)
                answer: Any = time.time()
                if "gather" in asked:
                    node = asked["node"]
                    answer = board.gather(asked["gather"], node, asked["word"], asked["timeout_sec"])
                self.wfile.write(json.dumps(answer).encode() + b"\n")
        board.leave(node)


class Meeting:
    """One node's connection to the other `members`, which find each other by files in `folder`."""

    def __init__(self, members: Sequence[str], node: str, folder: Path, address: str) -> None:
        """Open this node's own server at `address`, and write the address to a file for the others."""
        self.members = list(members)
        self.node = node
        self._folder = folder
        self._order = list(members)
        self._connection: socket.socket | None = None
        self._server = _Server((address, 0), _Handler)
        self._server.board = _Board(members)
        threading.Thread(target=self._server.serve_forever, args=(_POLL_SEC,), daemon=True).start()
        port = self._server.server_address[1]
        write_atomic(folder / ADDRESSES / node, f"{address} {port}\n")

    @property
    def leader(self) -> str:
        return self._order[0]

    def gather(self, name: str, word: Any = None, *, timeout_sec: float) -> dict[str, Any]:
        """Words of the members that came to the gathering `name`; only they are `members` from then on.

        Raises:
            LeftOutError: if the others did not wait for this node.
        """
        asked = {"gather": name, "node": self.node, "word": word, "timeout_sec": timeout_sec}
        while True:
            with suppress(OSError, ValueError):
                answer = self._ask(asked, timeout_sec)
                if answer is None:
                    raise LeftOutError(f"{self.node} came too late to {name}: the others continued without it")
                self.members = [member for member in self.members if member in answer]
                return dict(answer)
            lost = self._order.pop(0)
            self._server.board.leave(lost)  # if this node is the leader now, it must not wait for the lost one
            self.close_connection()
            if lost == self.node or not self._order:
                raise LeftOutError(f"{self.node} reaches no other node")

    def clock_offset(self) -> tuple[float, float]:
        """`(offset, uncertainty)` in seconds of this node's clock to the leader's, estimated as by NTP (RFC 5905, 8).

        The exchange with the shortest round trip counts; half of that round trip is the uncertainty.

        Raises:
            MachineError: if the leader does not answer.
        """
        best = (0.0, float("inf"))
        try:
            for _ in range(_CLOCK_QUESTIONS):
                sent, started = time.time(), time.monotonic()
                there = float(self._ask({"clock": True}, 1.0))
                round_trip = time.monotonic() - started
                if round_trip / 2 < best[1]:
                    best = (sent + round_trip / 2 - there, round_trip / 2)
        except (OSError, ValueError) as error:
            raise MachineError(f"{self.leader} does not answer when asked for the time: {error}") from error
        return best

    def close_connection(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None

    def close(self) -> None:
        """Leave. A leader first waits until the others have their last answer."""
        self.close_connection()
        deadline = time.monotonic() + _LINGER_SEC
        while self._server.board.has_members() and self.leader == self.node and time.monotonic() < deadline:
            time.sleep(_POLL_SEC)
        self.end_server()

    def end_server(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _ask(self, question: dict[str, Any], timeout_sec: float) -> Any:
        if self._connection is None:
            address = read_address(self._folder, self.leader, timeout_sec)
            self._connection = socket.create_connection(address, timeout=min(timeout_sec, _MARGIN_SEC))
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _keep_alive(self._connection)
        self._connection.settimeout(timeout_sec + _MARGIN_SEC)
        self._connection.sendall(json.dumps(question).encode() + b"\n")
        line = b""
        while not line.endswith(b"\n"):
            part = self._connection.recv(1 << 20)
            if not part:
                raise ConnectionError(f"{self.leader} closed the connection")
            line += part
        return json.loads(line)


def _keep_alive(connection: socket.socket) -> None:
    """Let the kernel notice within about 15 s that the other machine is gone."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 5)


def read_address(folder: Path, node: str, timeout_sec: float) -> tuple[str, int]:
    """Address and port on which `node` listens.

    Raises:
        TimeoutError: if it writes no address in time.
    """
    deadline = time.monotonic() + timeout_sec
    while True:
        with suppress(OSError, ValueError):
            address, port = (folder / ADDRESSES / node).read_text(encoding="ascii").split()
            return address, int(port)
        if time.monotonic() > deadline:
            raise TimeoutError(f"{node} has written no address")
        time.sleep(_POLL_SEC)
