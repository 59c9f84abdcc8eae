"""The C allocator, told to keep the memory that tensors of changing size give back."""

import contextlib
import ctypes
import os
import sys
import threading

# glibc's <malloc.h>: M_TRIM_THRESHOLD and M_MMAP_THRESHOLD.
_TRIM, _MMAP = -1, -3
_KEEP = {_MMAP: 2**30, _TRIM: 2**31 - 1}
# Where glibc's own adjustment ends after one large block was freed.
_ADJUSTED = {_MMAP: 32 * 2**20, _TRIM: 64 * 2**20}

_lock = threading.Lock()
_n_users = 0


@contextlib.contextmanager
def kept_memory():
    """Keep freed memory in the process for the time of a training or a long prediction.

    glibc hands large blocks back to the system as soon as they are freed. The batches of a
    training differ in length, so each step would get fresh pages, all of which fault. No result
    depends on it. Memory goes back at the end. Settings of the allocator in the environment,
    another allocator and other systems are left alone.
    """
    global _n_users
    libc = _glibc()
    with _lock:
        _n_users += 1
        if libc and _n_users == 1:
            _set(libc, _KEEP)
    try:
        yield
    finally:
        with _lock:
            _n_users -= 1
            if libc and _n_users == 0:
                _set(libc, _ADJUSTED)
                libc.malloc_trim(0)


def _glibc():
    """Return the C library if it is glibc and nobody else has settled how it allocates."""
    settled = any(name.startswith("MALLOC_") for name in os.environ)
    settled = settled or "GLIBC_TUNABLES" in os.environ or "LD_PRELOAD" in os.environ
    if settled or not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None


def _set(libc, options):
    for option, value in options.items():
        libc.mallopt(option, value)
