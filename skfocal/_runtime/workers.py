"""Detect worker processes, and give them a folder to share."""

import atexit
import multiprocessing
import os
import shutil
import sys
import tempfile
from pathlib import Path

from skfocal._runtime.array_store import REMOVED, remove_at_once, remove_files

_PARENT = os.getppid()  # that of an orphan is another


def is_worker():
    """Say whether this process is a worker of loky, multiprocessing, Dask or Ray."""
    if multiprocessing.current_process().name != "MainProcess":
        return True
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized() and ray.get_runtime_context().worker.mode == 1


def is_launched():
    """Say whether torchrun or accelerate started this very process, along with others."""
    names = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    if not names <= os.environ.keys() or int(os.environ["WORLD_SIZE"]) == 1:
        return False
    # Children inherit these variables and SKFOCAL_LAUNCHED, which therefore holds the process id.
    # A launcher among the children sets another address.
    job = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    if os.environ.get("SKFOCAL_LAUNCHED", "").split(" ")[0] != job:
        os.environ["SKFOCAL_LAUNCHED"] = f"{job} {os.getpid()}"
    return os.environ["SKFOCAL_LAUNCHED"] == f"{job} {os.getpid()}"


is_launched()  # records the process id before any child exists


def has_siblings():
    """Say whether the parent of this process has started others for the same work."""
    return is_worker() or is_launched()


def shared_folder():
    """Return the folder for shared files: this process's or, if it has siblings, its parent's.

    The folder is in the system's folder for temporary files and readable by its owner only. It is
    removed when the process exits or, if the process was killed, at the next call in another one.
    """
    root = _root()
    root.mkdir(mode=0o700, exist_ok=True)
    if not _is_own(root):
        raise PermissionError(f"{str(root)!r} belongs to another user.")
    folder = _place()
    if not folder.exists():
        for other in root.iterdir():
            if other.name.isdigit() and not _is_alive(int(other.name)):
                remove_at_once(other)
            elif other.name.startswith(REMOVED):  # by a process that was killed meanwhile
                shutil.rmtree(other, ignore_errors=True)
        folder.mkdir(exist_ok=True)
    return folder


def remove_shared(pattern):
    """Remove the files of all stores whose name matches, whichever process has made them."""
    if _root().exists() and _is_own(_root()):
        for path in _place().glob(pattern):
            remove_files(path)


def _is_own(folder):
    # lstat: a link counts as its creator's
    return not hasattr(os, "getuid") or folder.lstat().st_uid == os.getuid()


def _place():
    return _root() / str(_parent() if has_siblings() else os.getpid())


def _parent():
    """Return the process that started this one, even if it has ended since."""
    parent = multiprocessing.parent_process()
    return _PARENT if parent is None else parent.pid


def _root():
    user = os.getuid() if hasattr(os, "getuid") else 0
    return Path(tempfile.gettempdir(), f"skfocal-{user}")


def _is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


@atexit.register
def _remove():
    """Remove the shared folder of the process that exits, even if its workers created it.

    A launcher does not know that it has one, so the first process that it started removes it.
    """
    leads = is_launched() and not is_worker() and os.environ["LOCAL_RANK"] == "0"
    for pid in (os.getpid(), _parent()) if leads else (os.getpid(),):
        remove_at_once(_root() / str(pid))
