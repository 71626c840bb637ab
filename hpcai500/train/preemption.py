"""Signals that ask a run to stop: recorded while it trains, and obeyed at once before that."""

import os
import signal
import threading
from types import FrameType

from hpcai500.errors import PreemptedError, format_failure

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that schedulers send some time before they kill."""


class StopRequest:
    """The record of whether this process was asked to stop. It installs itself as the handler of `STOP_SIGNALS`."""

    def __init__(self) -> None:
        self.requested = False
        self.training = False
        """Set by the worker. From then on a stop waits for the end of the step."""
        self._pid = os.getpid()
        for number in STOP_SIGNALS:
            signal.signal(number, self._note)

    def _note(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a data loader's process inherits the handler, but its parent decides
            return
        self.requested = True
        if not self.training:  # there is nothing to save, and imports take too long to wait for
            name = signal.Signals(number).name
            error = PreemptedError(f"stopped by {name} before training began", "`--resume` starts it")
            os.write(2, f"{format_failure(error, 0)}\n".encode())
            os._exit(error.exit_code)


def ignore_stops() -> None:
    """Ignore stop signals once work is done.

    Python drops handlers at shutdown, and a late signal would kill the rank.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def leave_signals_to_parent(_: int = 0) -> None:
    """Let only its parent end a data loader's process, not a stop that a scheduler sends to all processes."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN if number != signal.SIGTERM else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_obey_parent, daemon=True).start()


def _obey_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
