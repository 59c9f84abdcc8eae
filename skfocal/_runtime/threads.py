"""How many threads torch computes with on a CPU."""

import contextlib
import os

import torch

from skfocal._runtime.processors import available_processors, said_threads

_SAID = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_AT_IMPORT = torch.get_num_threads()


@contextlib.contextmanager
def available_threads():
    """Compute with no more threads than there are processors for this process, in the block.

    torch counts the processors of the machine. A container may have the time of a few of them, and
    with more threads than that each waits for the others. What the user has said is left alone: a
    variable of the environment, or another number than torch had when this module was imported.
    The number is as before after the block.
    """
    mind_fork()  # the number after the block is that of a forked process
    n = torch.get_num_threads()
    is_said = n != _AT_IMPORT or any(map(said_threads, _SAID))
    available = n if is_said else available_processors()
    if available >= n:
        yield
        return
    torch.set_num_threads(available)  # of this thread of Python's
    try:
        yield
    finally:
        torch.set_num_threads(n)


_computing_pid = None


def mind_fork():
    """Compute with one thread in a forked process, which lacks the threads of its parent.

    OpenMP would wait for those threads forever. Call this before any computation.
    """
    global _computing_pid
    if _computing_pid not in (None, os.getpid()) and torch.get_num_threads() > 1:
        torch.set_num_threads(1)
    _computing_pid = os.getpid()
