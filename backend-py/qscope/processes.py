"""What a process and those it starts owe each other. Imports nothing heavy: it is the first thing they do."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

EXIT_TERMINATED = 143

_PR_SET_PDEATHSIG = 1
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR2)


def die_with(parent: int) -> None:
    """Has the kernel kill this process when its parent ends, however that ends.

    Elsewhere than on Linux only a parent that has ended by now is noticed.

    Args:
        parent: the parent's process id, as it told it: by now that process may be gone and this one be adopted.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


@contextlib.contextmanager
def stops_blocked() -> Iterator[None]:
    """Blocks the stop signals of this thread, for a child to inherit.

    The child opens the mask once its handlers stand: a stop that arrives while Python starts waits instead of killing.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class StopRequest:
    """Remembers that this process was asked to stop, and ends it when it does not.

    Attributes:
        requested: True from the first stop signal on.
    """

    def __init__(self) -> None:
        self.requested = False
        self._seconds = 0.0
        self._signals, self._signals_in = os.pipe()

    def install(self) -> None:
        """Takes the signals over. A worker starts the job with them blocked: none is lost before this moment."""
        os.set_blocking(self._signals_in, False)
        signal.set_wakeup_fd(self._signals_in, warn_on_full_buffer=False)
        for number in _STOP_SIGNALS:
            signal.signal(number, self._handle)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
        os.register_at_fork(after_in_child=_restore_defaults)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # Only a flag: the handler may interrupt any code, and a lock held there would never be freed.
        self.requested = True

    def guard(self, seconds: float) -> None:
        """Ends the process at a second SIGTERM, or `seconds` after the first signal with every stack in the log."""
        self._seconds = seconds

        def watch() -> None:
            # Signals arrive here even while the main thread waits inside a library and runs no handler.
            terminations = 0
            armed = False
            while terminations < 2:
                terminations += os.read(self._signals, 1)[0] == signal.SIGTERM
                if not armed:
                    # A watchdog in C: it works even when some thread never gives the interpreter back.
                    faulthandler.dump_traceback_later(self._seconds, exit=True)
                    armed = True
            os._exit(EXIT_TERMINATED)

        threading.Thread(target=watch, name="stop-guard", daemon=True).start()

    def allow(self, seconds: float) -> None:
        """Adds to the time after the first signal: for one who waits for others that have a guard of their own."""
        self._seconds += seconds


def _restore_defaults() -> None:
    # A data loader's forked workers must die of a SIGTERM as their parent expects.
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
