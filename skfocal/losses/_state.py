"""Losses as plain data: a name, settings and arrays. Reading them runs no stored code."""

import inspect
from typing import Any, TypeGuard

import torch
from torch import Tensor

from skfocal.losses._base import Loss
from skfocal.losses._make import LOSSES, MULTILABEL_LOSSES, CustomLoss

_KINDS: dict[str, type[Loss]] = {
    kind.__name__: kind for kind in [*LOSSES.values(), *MULTILABEL_LOSSES.values(), CustomLoss]
}


def unknown_function(logits: Tensor, target: Tensor) -> Tensor:
    """Take the place of the function of a loss that was stored without it."""
    raise NotImplementedError(
        "The function of this loss was not stored with the estimator: pass it as loss= again."
    )


def is_own(loss: object) -> TypeGuard[Loss | type[Loss]]:
    """Say whether :func:`loss_to_plain` can turn a loss or a class of losses into plain data."""
    if isinstance(loss, CustomLoss):
        return type(loss) is CustomLoss and loss.function is unknown_function
    return (loss if isinstance(loss, type) else type(loss)) in [
        kind for kind in _KINDS.values() if kind is not CustomLoss
    ]


def forgotten(loss: Loss) -> CustomLoss:
    """Return the part of a user's own loss that can be stored: all but its code."""
    weight = None if loss.weight is None else loss.weight.detach().cpu()
    return CustomLoss(unknown_function, weight=weight, normalize=loss.normalize)


def loss_to_plain(loss: Any) -> Any:
    """Return a loss of this package, or its class, as plain data; any other value as it is.

    Examples
    --------
    >>> from skfocal import FocalLoss
    >>> loss_to_plain(FocalLoss(1.0))["settings"]
    {'normalize': 'samples', 'gamma': 1.0, 'epsilon': 0.0, 'label_smoothing': 0.0}
    """
    if not is_own(loss):
        return loss
    if isinstance(loss, type):
        return {"class": loss.__name__}
    buffers = {name: value.detach().cpu().numpy() for name, value in loss.named_buffers()}
    return {"class": type(loss).__name__, "settings": _settings(loss), "buffers": buffers}


def _settings(loss: Loss) -> dict[str, Any]:
    hidden = {"training", "function"}
    return {name: v for name, v in vars(loss).items() if name[0] != "_" and name not in hidden}


def loss_from_plain(plain: Any) -> Any:
    """Return the loss or class from the plain data of :func:`loss_to_plain`.

    Any other value is returned as it is.

    Raises
    ------
    ValueError
        If the data does not describe a loss of this package.
    """
    if not isinstance(plain, dict):
        return plain
    kind = _KINDS.get(str(plain.get("class")))
    if kind is None:
        raise ValueError(f"loss must be one of {list(_KINDS)}. Got {plain.get('class')!r:.40}.")
    return _built(kind, plain["settings"], plain["buffers"]) if "settings" in plain else kind


def _built(kind: type[Loss], settings: dict[str, Any], arrays: dict[str, Any]) -> Loss:
    """Make the loss with its own constructor, which checks the settings, and fill its buffers."""
    buffers = {name: torch.from_numpy(value.copy()) for name, value in arrays.items()}
    names = inspect.signature(kind).parameters
    n = max((len(value) for value in buffers.values()), default=1)
    given = {name: value for name, value in settings.items() if name in names}
    needed = [name for name in ("counts", "support") if name in names]
    given |= {name: buffers.get(name, torch.ones(n)) for name in needed}
    if kind is CustomLoss:
        given["function"] = unknown_function
    loss = kind(**given, weight=buffers.pop("weight", None))
    made = _settings(loss)
    # A setting that is no parameter of the constructor follows from the class.
    wrong = {name: v for name, v in settings.items() if name not in made or made[name] != v}
    if wrong:
        raise ValueError(f"{kind.__name__} has no such settings: {wrong!r:.80}.")
    for name, value in buffers.items():
        expected = getattr(loss, name, None)
        if not torch.is_tensor(expected) or expected.shape != value.shape:
            raise ValueError(f"{kind.__name__} has no {name!r:.40} of shape {tuple(value.shape)}.")
        setattr(loss, name, value)
    return loss
