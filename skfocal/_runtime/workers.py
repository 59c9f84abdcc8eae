"""Whether this process has siblings, and the folder where they meet."""

import atexit
import multiprocessing
import os
import shutil
import sys
import tempfile
from pathlib import Path


def is_worker():
    """Say whether this process works for another one: of loky, multiprocessing, Dask or Ray."""
    if multiprocessing.current_process().name != "MainProcess":
        return True
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized() and ray.get_runtime_context().worker.mode == 1


def is_launched():
    """Say whether torchrun or accelerate started this very process, beside others."""
    names = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    if not names <= os.environ.keys() or int(os.environ["WORLD_SIZE"]) == 1:
        return False
    # Its children inherit the variables, this one too; a launcher among them sets others.
    job = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    if os.environ.get("SKFOCAL_LAUNCHED", "").split(" ")[0] != job:
        os.environ["SKFOCAL_LAUNCHED"] = f"{job} {os.getpid()}"
    return os.environ["SKFOCAL_LAUNCHED"] == f"{job} {os.getpid()}"


is_launched()  # remembered before there are children


def has_siblings():
    """Say whether other processes of this one's parent want the same."""
    return is_worker() or is_launched()


def shared_folder():
    """Return this process's folder for shared files; processes with siblings have their parent's.

    It lies in the folder for temporary files, is readable by its owner only, and goes away with
    the process, or at the next call after a process that was killed.
    """
    root = _root()
    root.mkdir(mode=0o700, exist_ok=True)
    if hasattr(os, "getuid") and root.lstat().st_uid != os.getuid():  # a link is its maker's
        raise PermissionError(f"{str(root)!r} belongs to another user.")
    folder = root / str(os.getppid() if has_siblings() else os.getpid())
    if not folder.exists():
        for other in root.iterdir():
            if other.name.isdigit() and not _is_alive(int(other.name)):
                shutil.rmtree(other, ignore_errors=True)
        folder.mkdir(exist_ok=True)
    return folder


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
    """Remove the folder, which workers may have made, of the process that exits.

    A launcher does not know of its own: the first of those that it started removes it.
    """
    leads = is_launched() and not is_worker() and os.environ["LOCAL_RANK"] == "0"
    for pid in (os.getpid(), os.getppid()) if leads else (os.getpid(),):
        shutil.rmtree(_root() / str(pid), ignore_errors=True)
