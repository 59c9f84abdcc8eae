"""Which device a fit runs on while others of the same search run too."""

import contextlib
import os
import threading
import time

import torch
from filelock import FileLock, Timeout

from skfocal._runtime.process_settings import counted
from skfocal._runtime.warnings import warn
from skfocal._runtime.workers import shared_folder
from skfocal._utils.messages import excerpt

# What autocast computes in, by `precision`.
AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_CPU = threading.RLock()
_HELD = threading.local()
_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


def resolve_device(device):
    """Return the name of a torch device that can be used here; "auto" prefers CUDA."""
    if str(device) == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return str(torch.empty(0, device=device).device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device={excerpt(str(device))} is not a device that torch can use here: "
            f"{excerpt(str(error), 300)}"
        ) from error


@contextlib.contextmanager
def hold_device(device):
    """Yield the device that a fit runs on, which is its own meanwhile.

    On a CPU the fits of one process take turns: each uses all the threads that the process has,
    and torch's generator, from which the new head is drawn. Processes share no generator, and
    joblib gives each its part of the threads. With "auto" on CUDA the fits of a search, in
    threads or processes, spread over the devices that they see, one to each; a fit that finds
    none free waits.
    """
    name = resolve_device(device)
    if str(device) != "auto" or name == "cpu":
        with _CPU if name == "cpu" else contextlib.nullcontext():
            yield name
    elif getattr(_HELD, "name", None):  # a fit within a fit, from a callback
        yield _HELD.name
    else:
        identities = [
            str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count())
        ]
        number, lock = _first_free(shared_folder(), identities)
        _HELD.name = f"cuda:{number}"
        try:
            yield _HELD.name
        finally:
            _HELD.name = None
            lock.release()


def _first_free(folder, identities, poll=0.2):
    """Lock the first of these that no thread or process holds; return its number and the lock."""
    locks = [FileLock(folder / f"device-{name}.lock", thread_local=False) for name in identities]
    warned = False
    while True:
        for number, lock in enumerate(locks):
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=0)
                return number, lock
        if not warned:
            warned = True
            warn(
                f"More jobs than the {len(locks)} CUDA devices: this one waits until a device is "
                f"free. Give n_jobs={len(locks)}, or let the jobs share a device with "
                "device='cuda'."
            )
        time.sleep(poll)


_computing_pid = None


def mind_fork():
    """Compute in one thread where the threads of the process that was forked are missing.

    OpenMP waits forever for those of the parent. Called before any computation.
    """
    global _computing_pid
    if _computing_pid not in (None, os.getpid()) and torch.get_num_threads() > 1:
        torch.set_num_threads(1)
    _computing_pid = os.getpid()


# -- the same result in every run ------------------------------------------------------------


@contextlib.contextmanager
def deterministic_algorithms():
    """Let torch compute only in ways that give the same bits in every run; then put all back.

    Raises
    ------
    RuntimeError
        For an operation that has no such way; torch names it.

    Notes
    -----
    The setting is the process's: other threads have it meanwhile.
    """
    try:
        with _deterministic_torch():
            yield
    except RuntimeError as error:
        if "use_deterministic_algorithms" not in str(error):
            raise
        raise RuntimeError(f"deterministic=True cannot be had: {error}") from error


@counted
@contextlib.contextmanager
def _deterministic_torch():
    found = _torch_settings()
    _set_torch(True, False, False, _deterministic_workspace())
    yield
    _set_torch(*found)


def _torch_settings():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        os.environ.get(_CUBLAS),
    )


def _set_torch(enabled, warn_only, benchmark, workspace):
    torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
    torch.backends.cudnn.benchmark = benchmark
    if workspace is None:
        os.environ.pop(_CUBLAS, None)
    else:
        os.environ[_CUBLAS] = workspace


def _deterministic_workspace():
    """Return the setting of cuBLAS that torch asks for: the user's, if it is one of the two."""
    present = os.environ.get(_CUBLAS)
    return present if present in (":4096:8", ":16:8") else ":4096:8"
