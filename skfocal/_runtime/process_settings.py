"""Settings of the whole process that several trainings may need at the same time."""

import contextlib
import functools
import threading


def counted(setting):
    """Make a context manager that changes a setting of the process safe to nest and share.

    Among blocks that overlap, in any threads, the first to start enters the context manager and
    the last to end leaves it.

    Parameters
    ----------
    setting : callable without arguments that returns a context manager
        For example, one made by :func:`contextlib.contextmanager`.

    Returns
    -------
    callable
        Returns a context manager for one use of the setting.

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
