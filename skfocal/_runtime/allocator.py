"""Keep the C allocator from returning freed memory to the system during training."""

import contextlib
import ctypes
import os
import sys

from skfocal._runtime.process_settings import counted

# glibc's <malloc.h>: M_TRIM_THRESHOLD and M_MMAP_THRESHOLD.
_TRIM, _MMAP = -1, -3
_KEEP = {_MMAP: 2**30, _TRIM: 2**31 - 1}
# The thresholds that glibc itself arrives at once a large block has been freed.
_ADJUSTED = {_MMAP: 32 * 2**20, _TRIM: 64 * 2**20}
# Dask sets this for all its workers by default, which turns glibc's adjustment off.
_DASKS_NAME, _DASKS_VALUE = "MALLOC_TRIM_THRESHOLD_", "65536"
_DASKS = {_MMAP: 128 * 2**10, _TRIM: int(_DASKS_VALUE)}


@counted
@contextlib.contextmanager
def kept_memory():
    """Keep freed memory in the process during a training or a long prediction.

    glibc hands large blocks back to the system as soon as they are freed. The batches of a
    training differ in length, so each step would get fresh pages, each with a page fault. Results
    do not depend on it. The memory is returned at the end. Nothing is changed on other systems,
    with another allocator, or if the environment configures the allocator (except for Dask's
    default).
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    _set(libc, _KEEP)
    yield
    _set(libc, _DASKS if _DASKS_NAME in os.environ else _ADJUSTED)
    libc.malloc_trim(0)


def _glibc():
    """Return the C library if it is glibc and its allocator is not configured otherwise."""
    names = {n for n in os.environ if n.startswith(("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD"))}
    if os.environ.get(_DASKS_NAME) == _DASKS_VALUE:
        names.remove(_DASKS_NAME)
    if names or not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None


def _set(libc, options):
    for option, value in options.items():
        libc.mallopt(option, value)
