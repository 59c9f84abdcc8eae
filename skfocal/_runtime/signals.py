"""Tell Ctrl-C from a callback that stops; hold signals until the work is in a good state."""

import contextlib
import signal
import threading


class Signals:
    """Signals that have arrived since training began.

    Attributes
    ----------
    interrupted, terminated : bool
        Whether Ctrl-C has arrived, and whether a SIGTERM is held back.
    holds_interrupt : bool
        Whether the first Ctrl-C is held back; a second one never is.
    """

    def __init__(self, holds_interrupt=False):
        self.interrupted = self.terminated = False
        self.holds_interrupt = holds_interrupt
        self.before = {}

    @property
    def raised(self):
        """Whether Ctrl-C has raised KeyboardInterrupt."""
        return self.interrupted and not self.holds_interrupt

    @property
    def held(self):
        """Whether Ctrl-C has been held back."""
        return self.interrupted and self.holds_interrupt

    def watch(self, number, handler):
        """Replace the handler of a signal, remembering the previous one."""
        self.before[number] = signal.signal(number, handler)

    def on_interrupt(self, number, frame):
        """Record Ctrl-C; call the previous handler unless this one is held back."""
        held = self.holds_interrupt and not self.interrupted
        self.interrupted = True
        if not held:
            self.before[number](number, frame)

    def on_termination(self, number, frame):
        """Hold SIGTERM back."""
        self.terminated = True

    def pass_on(self):
        """Deliver the SIGTERM that was held back; go on if its handler does nothing."""
        self.terminated = False
        _set(signal.SIGTERM, self.before[signal.SIGTERM])
        signal.raise_signal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, self.on_termination)

    def let_go(self):
        """Restore the previous handlers."""
        for number, handler in self.before.items():
            _set(number, handler)
        if self.terminated:
            signal.raise_signal(signal.SIGTERM)


def _set(number, handler):
    # A handler that was not set from Python reads as None and cannot be restored.
    signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextlib.contextmanager
def watched_signals(hold_termination, hold_interrupt=False):
    """Watch Ctrl-C, and SIGTERM if `hold_termination`; yield the :class:`Signals`.

    Outside the main thread nothing is watched, since handlers can be set only in that thread.
    """
    seen = Signals(hold_interrupt)
    if threading.current_thread() is threading.main_thread():
        if callable(signal.getsignal(signal.SIGINT)):
            seen.watch(signal.SIGINT, seen.on_interrupt)
        if hold_termination:
            seen.watch(signal.SIGTERM, seen.on_termination)
    try:
        yield seen
    finally:
        seen.let_go()
