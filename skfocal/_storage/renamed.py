"""Renamed parameters of earlier versions, in calls and in stored files."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

_Init = TypeVar("_Init", bound=Callable[..., None])

# By the parameter that has them now: how it is written with them, and for each old name what it
# is written as there, with the default it had.
_NOW: dict[str, tuple[str, dict[str, tuple[str, Any]]]] = {
    "long_documents": (
        "Windows({})",
        {
            "stride": ("stride=", 0),
            "pooling": ("pooling=", "logsumexp"),  # the name is a parameter of its own again
            "max_chunks": ("max_windows=", 16),
        },
    ),
    "checkpoint": (
        "Checkpoint(folder, {})",
        {"checkpoint_steps": ("steps=", None), "checkpoint_minutes": ("minutes=", 10.0)},
    ),
    "alpha": ("EffectiveNumber({})", {"beta": ("beta=", 0.999)}),
    "early_stopping": ("{}", {"patience": ("", 3)}),
    "net_params": ("{{{}}}", {"compile": ("'compile': ", False)}),
}
_REMOVED = {"prune": "it gained nothing where it was measured"}
_WORDS = {"chunk": "windows", "max_chunks": "max_windows"}  # of `long_documents` and `_cutting`
# Names that are parameters again, old where one that is none any more is beside them.
AGAIN = {"pooling": {"stride", "max_chunks"}}
OLD = {*_REMOVED, *(name for _, settings in _NOW.values() for name in settings)}


# -- in a call -----------------------------------------------------------------------------


def refuse(params, kind):
    """Raise an error of a kind if a parameter has an old name, or ValueError for an old value.

    Parameters
    ----------
    params : dict
        Of a call.
    kind : type
        TypeError or ValueError.
    """
    for name, reason in _REMOVED.items():
        if name in params:
            raise kind(f"{name} has been removed: {reason}. Leave it out.")
    for name, (written, settings) in _NOW.items():
        given = {old: new for old, (new, _) in settings.items() if _is_old(old, params)}
        if given:
            values = (f"{new}{params[old]!r}" for old, new in given.items())
            raise kind(
                f"{' and '.join(given)} {'is' if len(given) == 1 else 'are'} now written "
                f"{name}={written.format(', '.join(values))}."
            )
    if isinstance(params.get("long_documents"), str) and params["long_documents"] == "chunk":
        raise ValueError("long_documents='chunk' is now written long_documents='windows'.")


def _is_old(name, params):
    """Say whether a name among parameters is an old one."""
    if name not in params or name not in AGAIN:
        return name in params and name in OLD
    return bool(AGAIN[name] & params.keys()) or params[name] in ("max", "logsumexp")


def refusing(init: _Init) -> _Init:
    """Let a constructor explain the new form of an old parameter; keep its signature."""

    @functools.wraps(init)
    def checked(self, *args, **params):
        refuse(params, TypeError)
        init(self, *args, **params)

    return cast(_Init, checked)


# -- in what was stored --------------------------------------------------------------------


def renewed(params):
    """Return stored parameters as this version stores them; those of its own stay as they are.

    Examples
    --------
    >>> renewed({"long_documents": "chunk", "stride": 2, "patience": 3, "gamma": 1.0})
    {'long_documents': {'Windows': {'stride': 2, 'pooling': 'logsumexp', 'max_windows': 16}}, \
'gamma': 1.0}
    """
    old = {name: value for name, value in params.items() if _is_old(name, params)}
    new = {name: value for name, value in params.items() if name not in old}
    if new.get("early_stopping") and params.get("patience", 3) != 3:
        new["early_stopping"] = params["patience"]
    if params.get("compile"):
        new["net_params"] = {**(new.get("net_params") or {}), "compile": params["compile"]}
    if isinstance(new.get("long_documents"), str):
        new["long_documents"] = _WORDS.get(new["long_documents"], new["long_documents"])
        if new["long_documents"] == "windows":
            new["long_documents"] = _spelled_out(old, "long_documents") or "windows"
    if isinstance(new.get("alpha"), str) and new["alpha"] == "effective":
        new["alpha"] = _spelled_out(old, "alpha") or "effective"
    if new.get("checkpoint") is not None:
        of_folder = _spelled_out(old, "checkpoint", folder=new["checkpoint"])
        new["checkpoint"] = of_folder or new["checkpoint"]
    return new


def _spelled_out(params, name, **others):
    """Return a parameter with its old settings, or None if there are no others than defaults."""
    written, settings = _NOW[name]
    values = {new[:-1]: params.get(old, default) for old, (new, default) in settings.items()}
    if list(values.values()) == [default for _, default in settings.values()]:
        return None
    return {written.partition("(")[0]: {**others, **values}}


def renewed_cutting(cutting):
    """Return the stored settings for long documents under the names of this version."""
    if not isinstance(cutting, dict):
        return cutting
    cutting = {_WORDS.get(name, name): value for name, value in cutting.items()}
    if isinstance(cutting.get("long_documents"), str):
        cutting["long_documents"] = _WORDS.get(cutting["long_documents"], cutting["long_documents"])
    return cutting
