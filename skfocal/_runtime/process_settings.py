"""Settings of the whole process, which several trainings may want at the same time."""

import contextlib
import functools
import threading


def counted(setting):
    """Let a context manager set something of the process once, however many use it.

    It is entered for the first of those that use it at the same time, in any threads, and left
    after the last.

    Parameters
    ----------
    setting : callable without arguments that returns a context manager
        As :func:`contextlib.contextmanager` makes it.

    Returns
    -------
    callable
        Returns a context manager for one of those that use the setting.

    Examples
    --------
    >>> @counted
    ... @contextlib.contextmanager
    ... def loud():
    ...     print("on")
    ...     yield
    ...     print("off")
    >>> with loud(), loud():
    ...     print("used")
    on
    used
    off
    """
    lock = threading.Lock()
    n_users = 0
    present = contextlib.ExitStack()

    @contextlib.contextmanager
    @functools.wraps(setting)
    def used():
        nonlocal n_users
        with lock:
            if n_users == 0:
                present.enter_context(setting())
            n_users += 1
        try:
            yield
        finally:
            with lock:
                n_users -= 1
                if n_users == 0:
                    present.close()

    return used
