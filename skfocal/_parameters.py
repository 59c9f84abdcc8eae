"""Parameters of the estimator that have a short form, and their values as plain data."""

import os

import numpy as np

from skfocal._excerpt import excerpt
from skfocal._settings import Settings
from skfocal.balance import EffectiveNumber
from skfocal.options import Checkpoint, Windows

_PATIENCE = 3  # epochs, of early_stopping=True
_KINDS = {"long_documents": Windows, "alpha": EffectiveNumber, "checkpoint": Checkpoint}
_SHORT = {"long_documents": "'windows'", "alpha": "'effective'", "checkpoint": "a folder"}


def spelled_out(name, value):
    """Return what the short form of a parameter stands for, and any other value as it is.

    Examples
    --------
    >>> spelled_out("long_documents", "windows")
    Windows()
    >>> spelled_out("early_stopping", True), spelled_out("early_stopping", 5)
    (3, 5)
    """
    if name == "early_stopping" and isinstance(value, bool | np.bool_):
        return _PATIENCE if value else False
    if name == "checkpoint" and isinstance(value, str | os.PathLike):
        return Checkpoint(value)
    if isinstance(value, str) and (name, value) == ("long_documents", "windows"):
        return Windows()
    if isinstance(value, str) and (name, value) == ("alpha", "effective"):
        return EffectiveNumber()
    return value


def spell_out_nested(estimator, names):
    """Spell out the parameters of an estimator that settings such as ``alpha__beta`` belong to."""
    for nested in names:
        name = nested.partition("__")[0]
        if name not in _KINDS:
            continue
        value = spelled_out(name, getattr(estimator, name))
        if not isinstance(value, Settings):
            raise ValueError(
                f"{nested} needs {name} to be {_SHORT[name]} or {_KINDS[name].__name__}(...). "
                f"Got {name}={excerpt(value)}."
            )
        setattr(estimator, name, value)


def to_plain(value):
    """Return settings as ``{"Windows": {"stride": 64, ...}}``, and any other value as it is."""
    if type(value) in _KINDS.values():
        return {type(value).__name__: value.get_params(deep=False)}
    return value


def from_plain(name, value):
    """Return what :func:`to_plain` made plain data of; a parameter takes its own kind only."""
    kind = _KINDS.get(name)
    if kind is None or not isinstance(value, dict) or list(value) != [kind.__name__]:
        return value
    return kind(**value[kind.__name__])
