"""From an estimator's settings to a loss module."""

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from skfocal.losses._base import ArrayLike, Loss, as_weight, label_weight
from skfocal.losses._margin import at_least_float32
from skfocal.losses._multi import (
    AsymmetricLoss,
    MultilabelLoss,
    SigmoidCrossEntropyLoss,
    SigmoidFocalLoss,
)
from skfocal.losses._single import (
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    LDAMLoss,
    LogitAdjustedLoss,
    Poly1FocalLoss,
    Poly1Loss,
)

LOSSES = {
    "cross_entropy": CrossEntropyLoss,
    "focal": FocalLoss,
    "poly1": Poly1Loss,
    "poly1_focal": Poly1FocalLoss,
    "logit_adjusted": LogitAdjustedLoss,
    "balanced_softmax": LogitAdjustedLoss,
    "ldam": LDAMLoss,
    "dice": DiceLoss,
}

MULTILABEL_LOSSES = {
    "cross_entropy": SigmoidCrossEntropyLoss,
    "focal": SigmoidFocalLoss,
    "asymmetric": AsymmetricLoss,
}
_KINDS = {False: "one label a document", True: "several labels a document"}


class CustomLoss(Loss):
    """A loss of one's own, with class weights and a normalisation around it.

    Parameters
    ----------
    function : callable ``(logits, target) -> Tensor of the shape of target``
        A function or module; a module is part of this one. It must not take the mean over
        samples; of multi-label targets it may take that over labels.
    weight, normalize : array-like and str, default=None, "samples"
        As in :class:`Loss`; the class weight multiplies what `function` returns.

    Examples
    --------
    >>> import torch
    >>> hinge = CustomLoss(torch.nn.MultiMarginLoss(reduction="none"))
    >>> hinge(torch.zeros(2, 2), torch.tensor([0, 1]))
    tensor(0.5000)
    """

    multilabel = None

    def __init__(
        self,
        function: Callable,
        *,
        weight: ArrayLike | None = None,
        normalize: str | None = "samples",
    ) -> None:
        super().__init__(weight=weight, normalize=normalize)
        self.function = function

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each sample, of shape (n_samples,)."""
        loss = self.function(at_least_float32(logits), target)
        if torch.is_tensor(loss) and target.ndim == 2 and loss.shape == target.shape[:1]:
            if self.weight is None:
                return loss
            raise ValueError(
                "alpha weighs each label: loss must then give one value a label, of shape "
                f"{tuple(target.shape)}. Got {tuple(loss.shape)}."
            )
        if not torch.is_tensor(loss) or loss.shape != target.shape:
            got = tuple(loss.shape) if torch.is_tensor(loss) else type(loss).__name__
            raise ValueError(
                f"loss must give one value a sample, of shape {tuple(target.shape)}; with "
                f"reduction='none' torch's modules do. Got {got}."
            )
        if target.ndim == 2:
            weighted = loss if self.weight is None else label_weight(self.weight, target) * loss
            return weighted.mean(1)
        return loss if self.weight is None else self.weight[target] * loss


def make_loss(
    loss: Any,
    *,
    gamma: float,
    label_smoothing: float,
    normalize: str,
    weight: ArrayLike | None,
    counts: ArrayLike,
    support: ArrayLike | None = None,
    params: dict | None = None,
    multilabel: bool = False,
) -> Loss:
    """Return the module for an estimator's settings.

    Parameters
    ----------
    loss : str, class, module or callable
        A name in `LOSSES`; a class of this module or another; an instance, which is copied; or
        a function ``(logits, target) -> one value a sample``.
    gamma, label_smoothing
        Given to losses that have them, unless a partial has bound them or an instance has its
        own. Label smoothing of any other raises.
    normalize, weight
        As in :class:`Loss`. An instance of it keeps its own normalisation unless that is None.
    counts : array-like of shape (n_classes,)
        What is drawn of each class; given to losses that have it.
    support : array-like of shape (n_classes,), default=None
        What there is of each class; given to losses that have it. None: the same.
    params : dict, default=None
        Further settings of the name, class or function.
    multilabel : bool, default=False
        Whether a name is one of `MULTILABEL_LOSSES` instead.

    Returns
    -------
    Loss

    Raises
    ------
    ValueError
        If a setting is unknown to the loss or clashes with it.
    """
    params = dict(params or {})
    loss = _named(loss, multilabel)
    bound: dict = {}
    if isinstance(loss, functools.partial):
        loss, bound = _taken_apart(loss)
    _check_kind(loss, multilabel)
    if isinstance(loss, nn.Module):
        return _from_instance(loss, params, label_smoothing, normalize, weight)
    offered = {
        "gamma": gamma,
        "label_smoothing": label_smoothing,
        "counts": counts,
        "support": counts if support is None else support,
    }
    return _made(loss, _settings(loss, offered, bound, params), normalize, weight)


def _named(loss: Any, multilabel: bool) -> Any:
    """Return the class that a name stands for, or what is no name."""
    if not isinstance(loss, str):
        return loss
    table = MULTILABEL_LOSSES if multilabel else LOSSES
    if loss not in table:
        raise ValueError(
            f"loss for {_KINDS[multilabel]} must be one of {list(table)}. Got {repr(loss)[:100]}."
        )
    return table[loss]


def _from_instance(
    loss: nn.Module, params: dict, label_smoothing: float, normalize: str, weight: Any
) -> Loss:
    """Return a copy of an instance, whose settings are its own."""
    if params:
        raise ValueError(
            f"loss_params are for a name, a class or a function. Got {sorted(params)} with an "
            f"instance of {type(loss).__name__}, which has its settings already."
        )
    own = getattr(loss, "label_smoothing", 0)
    if label_smoothing and own != label_smoothing:
        raise ValueError(
            f"label_smoothing={label_smoothing} is not given to an instance: give it to "
            f"{type(loss).__name__} when you make it. Got one with label_smoothing={own}."
        )
    loss = copy.deepcopy(loss)
    if isinstance(loss, Loss):
        return _completed(loss, normalize, weight)
    return CustomLoss(_checked(loss), weight=weight, normalize=normalize)


def _settings(loss: Callable, offered: dict, bound: dict, params: dict) -> dict:
    """Return the settings of a class or function: bound and given ones win over offered ones."""
    names = _setting_names(loss)
    if reserved := sorted({*params, *bound} & {"weight", "normalize"}):
        raise ValueError(
            f"loss_params must leave {reserved} to alpha= and normalize= of the estimator."
        )
    unknown = sorted(set(params) - set(names)) if None not in names else []
    if unknown:
        own = sorted(set(names) - {"weight", "normalize", "counts", "support"})
        raise ValueError(f"loss_params must be among {own}. Got {str(unknown)[:300]}.")
    _check_label_smoothing(loss, names, offered["label_smoothing"], bound)
    for name in {"counts", "support"} & set(params):
        if len(params[name]) != len(offered["counts"]):
            raise ValueError(
                f"{name} in loss_params must have one number for each of the "
                f"{len(offered['counts'])} classes. Got {len(params[name])}."
            )
    return {name: value for name, value in offered.items() if name in names} | bound | params


def _check_label_smoothing(loss: Any, names: list, label_smoothing: float, bound: dict) -> None:
    if label_smoothing and bound.get("label_smoothing", label_smoothing) != label_smoothing:
        raise ValueError(
            f"label_smoothing={label_smoothing} and the {bound['label_smoothing']} of the loss "
            "are both given: leave one of the two out."
        )
    if label_smoothing and "label_smoothing" not in names:
        raise ValueError(
            f"label_smoothing={label_smoothing} is not defined for loss="
            f"{getattr(loss, '__name__', loss)!r}."
        )


def _made(loss: Any, settings: dict, normalize: str, weight: Any) -> Loss:
    """Return the loss of a class or function with its settings."""
    if isinstance(loss, type) and issubclass(loss, Loss):
        return loss(**settings, weight=weight, normalize=normalize)
    if isinstance(loss, type):
        if "reduction" in _setting_names(loss):
            settings.setdefault("reduction", "none")
        function = _checked(loss(**settings))
    else:
        function = copy.deepcopy(loss)
        function = functools.partial(function, **settings) if settings else function
    return CustomLoss(function, weight=weight, normalize=normalize)


def _taken_apart(partial: functools.partial) -> tuple[Any, dict]:
    """Return what a partial calls and the settings it is bound to, which win over offered ones."""
    if partial.args:
        raise ValueError(
            f"loss as a partial must bind its settings by name. Got {partial!r}, whose first "
            "arguments would stand where logits and target belong."
        )
    return partial.func, dict(partial.keywords)


def _checked(loss: Any) -> Any:
    """Refuse weights that nobody would train."""
    if isinstance(loss, nn.Module) and any(p.requires_grad for p in loss.parameters()):
        raise ValueError(
            f"loss must not have weights that learn: those of {type(loss).__name__} are not given "
            "to the optimizer. Make them buffers, or call requires_grad_(False)."
        )
    return loss


def _check_kind(loss: Any, multilabel: bool) -> None:
    kind = loss if isinstance(loss, type) else type(loss)
    if loss in (Loss, MultilabelLoss, CustomLoss):
        raise ValueError(f"loss={kind.__name__} is what losses are made from: give one of them.")
    own = kind.multilabel if issubclass(kind, Loss) else None
    if own is not None and own != multilabel:
        raise ValueError(
            f"loss={kind.__name__} is for {_KINDS[own]} and y has {_KINDS[multilabel]}: give one "
            f"of {list(MULTILABEL_LOSSES if multilabel else LOSSES)}, or their classes."
        )


def _setting_names(loss: Any) -> list:
    """Return the names of a loss's settings; None among them if it takes any."""
    parameters = list(inspect.signature(loss).parameters.values())
    if not isinstance(loss, type):
        parameters = parameters[2:]  # logits and target, whatever they are called
    return [None if p.kind is p.VAR_KEYWORD else p.name for p in parameters]


def _completed(loss: Loss, normalize: str, weight: ArrayLike | None) -> Loss:
    if weight is not None:
        if loss.weight is not None:
            raise ValueError(
                "alpha and the weight of the loss are both given: leave one of the two out."
            )
        loss.weight = as_weight(weight)
    if loss.normalize is None:
        loss.normalize = normalize
    return loss
