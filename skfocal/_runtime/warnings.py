"""Warnings that point at the user's line and are shown once per search."""

import contextlib
import itertools
import multiprocessing
import operator
import re
import sys
import threading
import warnings

from skfocal._runtime.workers import is_worker, shared_folder
from skfocal._utils.hashing import digest
from skfocal._utils.messages import excerpt

# Packages that may stand between the user's code and skfocal.
_BETWEEN = sys.stdlib_module_names | {
    *("skfocal", "sklearn", "imblearn", "skorch", "torch", "joblib", "dask", "distributed", "ray"),
    *("optuna", "optuna_integration", "skopt", "mlflow"),
}
# Modules of these packages that fit many times.
_SEARCHES = ("sklearn.model_selection", "skfocal.comparison", "joblib", "optuna")
_REFITS = "sklearn.model_selection._search"


def warn(message):
    """Issue a UserWarning at the innermost line outside this package and those that call it.

    A search (scikit-learn's, Optuna's, :func:`skfocal.compare_losses`, anything joblib runs) shows
    a warning once, even if its numbers differ between fits. A warning that a filter turns into an
    error is always raised.

    Parameters
    ----------
    message : str
    """
    frames = _frames()
    line = next(filter(_is_users, frames), None)
    if line is None:
        process, thread = multiprocessing.current_process(), threading.current_thread()
        filename, number = f"<{process.name if is_worker() else thread.name}>", 0
        module, registry = "skfocal", None
    else:
        filename, number = line.f_code.co_filename, line.f_lineno
        module = line.f_globals.get("__name__") or "<string>"
        registry = line.f_globals.setdefault("__warningregistry__", {})
    if _action(message, module, number) != "error" and any(map(_is_search, frames)):
        told = _is_told_by_workers if is_worker() else _is_told
        if told(message, frames):
            return
    warnings.warn_explicit(message, UserWarning, filename, number, module, registry)


def _action(message, module, number):
    """Return what the filters would do with a warning."""
    for action, text, category, of_module, of_number in warnings.filters:
        if (
            issubclass(UserWarning, category)
            and re.match(text or "", message)
            and re.match(of_module or "", module)
            and of_number in (0, number)
        ):
            return action
    return "default"


def _frames():
    """Return the calls that led to a warning, innermost first.

    In a thread of joblib's, the calls of the thread that waits for it follow.
    """
    frames = list(_outwards(sys._getframe(2)))
    if any(map(_is_users, frames)) or not any(map(_is_search, frames)):
        return frames
    for other in map(list, map(_outwards, sys._current_frames().values())):
        inner = list(itertools.takewhile(lambda frame: not _is_users(frame), other))
        if len(inner) < len(other) and any(_name(frame).startswith("joblib") for frame in inner):
            return frames + other
    return frames


def _outwards(frame):
    while frame is not None:
        yield frame
        frame = frame.f_back


def _name(frame):
    """Return the name of a frame's module, even if ``python -m`` started it."""
    spec = frame.f_globals.get("__spec__")
    return getattr(spec, "name", None) or frame.f_globals.get("__name__") or ""


def _is_users(frame):
    is_doctest = frame.f_code.co_filename.startswith(
        "<doctest"
    )  # its globals are those of the module
    return is_doctest or _name(frame).partition(".")[0] not in _BETWEEN


def _is_search(frame):
    return _name(frame).startswith(_SEARCHES)


def _is_told(message, frames):
    """Say whether a search has shown a warning of this kind before; if not, record it."""
    searches = [i for i, frame in enumerate(frames) if _is_search(frame)]
    called = [i - 1 for i, frame in enumerate(frames) if _is_users(frame)][:1]
    search = frames[max(searches + called)]
    # An extra name among a call's locals lives as long as the call, and keeps nothing else alive.
    mine = object()
    if search.f_locals.setdefault(f"told: {_kind(message)}", mine) is not mine:
        return True
    refit = next((f for f in frames if _name(f) == _REFITS and _has_documents(f)), None)
    if refit is None:
        return False
    with contextlib.suppress(OSError):
        _marker(_kind(message), refit).unlink()  # the next search shows it again
        return True
    return False


def _is_told_by_workers(message, frames):
    """Say whether a worker has shown a warning of this kind; if not, record it in a file."""
    outer = next((f for f in reversed(frames) if not _is_users(f) and _has_documents(f)), None)
    if outer is None:
        return False
    # Within a grid search, parameter values vary. Elsewhere they may distinguish two searches.
    kind = _kind(message, values=not outer.f_locals.get("parameters"))
    try:
        _marker(kind, outer).open("x").close()
    except FileExistsError:
        return True
    except OSError:
        pass
    return False


def _has_documents(frame):
    return "X" in frame.f_code.co_varnames


def _marker(kind, frame):
    """Return the file that records that a search of these documents has shown a warning."""
    X = frame.f_locals.get("X")
    size = getattr(X, "shape", operator.length_hint(X))
    return shared_folder() / f"told-{digest(kind, size, excerpt(X, limit=2000)).hex()}"


def _kind(message, values=False):
    """Return a message without lists and numbers; `values` keeps those of ``name=number``."""
    number = r"\d[\w.+-]*"
    return re.sub(rf"\[.*?\]|(?<![=\w.]){number}" if values else rf"\[.*?\]|{number}", "#", message)
