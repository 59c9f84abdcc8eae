"""Ctrl-C told from a callback that stops, and SIGTERM held back until a checkpoint is written."""

import contextlib
import signal
import threading


class Signals:
    """What has come since training began.

    Attributes
    ----------
    interrupted, terminated : bool
        Whether Ctrl-C has come, and a SIGTERM that is still held back.
    """

    def __init__(self):
        self.interrupted = self.terminated = False
        self.before = {}

    def watch(self, number, handler):
        """Put a handler in the place of the one there is."""
        self.before[number] = signal.signal(number, handler)

    def on_interrupt(self, number, frame):
        """Take note of Ctrl-C and let it do what it did before."""
        self.interrupted = True
        self.before[number](number, frame)

    def on_termination(self, number, frame):
        """Hold SIGTERM back."""
        self.terminated = True

    def pass_on(self):
        """Let the SIGTERM that was held back do what it does; go on if that was nothing."""
        self.terminated = False
        _set(signal.SIGTERM, self.before[signal.SIGTERM])
        signal.raise_signal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, self.on_termination)

    def let_go(self):
        """Put the handlers back that were there."""
        for number, handler in self.before.items():
            _set(number, handler)
        if self.terminated:
            signal.raise_signal(signal.SIGTERM)


def _set(number, handler):
    # One that was not set from Python reads as None and cannot be put back.
    signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextlib.contextmanager
def watched_signals(hold_termination):
    """Watch Ctrl-C, and SIGTERM if `hold_termination`; yield the :class:`Signals`.

    Outside the main thread nothing is watched: handlers can be set only there.
    """
    seen = Signals()
    if threading.current_thread() is threading.main_thread():
        if callable(signal.getsignal(signal.SIGINT)):
            seen.watch(signal.SIGINT, seen.on_interrupt)
        if hold_termination:
            seen.watch(signal.SIGTERM, seen.on_termination)
    try:
        yield seen
    finally:
        seen.let_go()
