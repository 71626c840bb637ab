"""Signals that ask a run to stop: noted while it trains, obeyed at once before that."""

import os
import signal
import threading
from types import FrameType

from hpcai500.errors import PreemptedError, format_failure

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""What schedulers send some time before they kill."""


class StopRequest:
    """Whether this process was asked to stop. Installs itself as the handler of `STOP_SIGNALS`."""

    def __init__(self) -> None:
        self.requested = False
        self.training = False
        """Set by the engine: from then on a stop waits for the end of the step."""
        self._pid = os.getpid()
        for number in STOP_SIGNALS:
            signal.signal(number, self._note)

    def _note(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a data loader's process inherits handlers: its parent decides
            return
        self.requested = True
        if not self.training:  # there is nothing to keep, and what is being imported or built cannot be waited for
            name = signal.Signals(number).name
            error = PreemptedError(f"stopped by {name} before training began", "`--resume` starts it")
            os.write(2, f"{format_failure(error, 0)}\n".encode())
            os._exit(error.exit_code)


def ignore_stops() -> None:
    """Of a rank whose work is done: Python gives handlers up while it ends, and a late stop would be its death."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def leave_signals_to_parent(_: int = 0) -> None:
    """For a data loader's process: only its parent ends it, not a stop that a scheduler sends to all processes."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN if number != signal.SIGTERM else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_obey_parent, daemon=True).start()


def _obey_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
