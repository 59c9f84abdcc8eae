"""Make the loss module that the parameters of an estimator describe."""

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from skfocal.losses._base import ArrayLike, Loss, Normalization, as_weight, label_weight
from skfocal.losses._margin import at_least_float32
from skfocal.losses._multi import (
    AsymmetricLoss,
    DistributionBalancedLoss,
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

LOSSES: dict[str, type[Loss]] = {
    "cross_entropy": CrossEntropyLoss,
    "focal": FocalLoss,
    "poly1": Poly1Loss,
    "poly1_focal": Poly1FocalLoss,
    "logit_adjusted": LogitAdjustedLoss,
    "balanced_softmax": LogitAdjustedLoss,
    "ldam": LDAMLoss,
    "dice": DiceLoss,
}

MULTILABEL_LOSSES: dict[str, type[Loss]] = {
    "cross_entropy": SigmoidCrossEntropyLoss,
    "focal": SigmoidFocalLoss,
    "asymmetric": AsymmetricLoss,
    "distribution_balanced": DistributionBalancedLoss,
}
_KINDS = {False: "one label per document", True: "several labels per document"}


class CustomLoss(Loss):
    """Add class weights and normalization to a loss function of your own.

    Parameters
    ----------
    function : callable ``(logits, target) -> Tensor of the shape of target``
        A function or module; a module becomes a submodule. It must not average over samples.
        With multi-label targets it may average over the labels.
    weight, normalize : array-like and str, default=None, "samples"
        As in :class:`Loss`. The class weight multiplies the values that `function` returns.

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
        function: Callable[[Tensor, Tensor], Tensor],
        *,
        weight: ArrayLike | None = None,
        normalize: Normalization = "samples",
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
                "alpha weighs each label: loss must then return one value per label, of shape "
                f"{tuple(target.shape)}. Got {tuple(loss.shape)}."
            )
        if not torch.is_tensor(loss) or loss.shape != target.shape:
            got = tuple(loss.shape) if torch.is_tensor(loss) else type(loss).__name__
            raise ValueError(
                f"loss must return one value per sample, of shape {tuple(target.shape)}; "
                f"torch's modules do with reduction='none'. Got {got}."
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
    normalize: Normalization,
    weight: ArrayLike | None,
    counts: ArrayLike,
    support: ArrayLike | None = None,
    params: dict[str, Any] | None = None,
    multilabel: bool = False,
) -> Loss:
    """Return the loss module that the parameters of an estimator describe.

    Parameters
    ----------
    loss : str, class, module or callable
        A name in `LOSSES`; a class of losses, from this package or another; an instance, which is
        copied; or a function ``(logits, target) -> one value per sample``.
    gamma, label_smoothing : float
        Passed to losses that have these parameters, unless a partial has bound them or an
        instance has its own. It is an error to smooth the labels of any other loss.
    normalize, weight : str or None, array-like
        As in :class:`Loss`. An instance of it keeps its own normalization unless that is None.
    counts : array-like of shape (n_classes,), or (n_labels, 2)
        Number of samples of each class that are drawn, passed to losses that have this parameter.
        With several labels per sample: of the absence and of the presence of each label.
    support : array-like of the same shape, default=None
        Number of samples of each class in the data, passed to losses that have this parameter.
        None: `counts`.
    params : dict, default=None
        Further parameters of the name, class or function.
    multilabel : bool, default=False
        Whether to look a name up in `MULTILABEL_LOSSES` instead.

    Returns
    -------
    Loss

    Raises
    ------
    ValueError
        If the loss has no such parameter, or a parameter contradicts the loss.
    """
    params = dict(params or {})
    loss = _named(loss, multilabel)
    bound: dict[str, Any] = {}
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
    """Return the class with a name; any other value as it is."""
    if not isinstance(loss, str):
        return loss
    table = MULTILABEL_LOSSES if multilabel else LOSSES
    if loss not in table:
        raise ValueError(
            f"loss for {_KINDS[multilabel]} must be one of {list(table)}. Got {repr(loss)[:100]}."
        )
    return table[loss]


def _from_instance(
    loss: nn.Module,
    params: dict[str, Any],
    label_smoothing: float,
    normalize: Normalization,
    weight: ArrayLike | None,
) -> Loss:
    """Return a copy of an instance, which keeps its own settings."""
    if params:
        raise ValueError(
            f"loss_params must go with a name, a class or a function. Got {sorted(params)} with an "
            f"instance of {type(loss).__name__}, which already has its settings."
        )
    own = getattr(loss, "label_smoothing", 0)
    if label_smoothing and own != label_smoothing:
        raise ValueError(
            f"label_smoothing={label_smoothing} cannot be set on an instance: pass it to "
            f"{type(loss).__name__} when you make it. Got one with label_smoothing={own}."
        )
    loss = copy.deepcopy(loss)
    if isinstance(loss, Loss):
        return _completed(_checked(loss), normalize, weight)
    return CustomLoss(_checked(loss), weight=weight, normalize=normalize)


def _settings(
    loss: Callable[..., Any],
    offered: dict[str, Any],
    bound: dict[str, Any],
    params: dict[str, Any],
) -> dict[str, Any]:
    """Return the settings of a class or function; `bound` and `params` override `offered`."""
    names = _setting_names(loss)
    if reserved := sorted({*params, *bound} & {"weight", "normalize"}):
        raise ValueError(
            f"loss_params must not set {reserved}: use alpha= and normalize= of the estimator."
        )
    unknown = sorted(set(params) - set(names)) if None not in names else []
    if unknown:
        own = sorted({str(name) for name in names} - {"weight", "normalize", "counts", "support"})
        raise ValueError(f"loss_params must be among {own}. Got {str(unknown)[:300]}.")
    _check_label_smoothing(loss, names, offered["label_smoothing"], bound)
    given = {**bound, **params}
    for name in {"counts", "support"} & set(given):
        value = given[name]
        has_length = hasattr(value, "__len__") and getattr(value, "ndim", 1) != 0
        if has_length and len(value) != len(offered["counts"]):
            where = "in loss_params" if name in params else "of the loss"
            raise ValueError(
                f"{name} {where} must have one number for each of the "
                f"{len(offered['counts'])} classes. Got {len(value)}."
            )
    return {name: value for name, value in offered.items() if name in names} | bound | params


def _check_label_smoothing(
    loss: Any, names: list[str | None], label_smoothing: float, bound: dict[str, Any]
) -> None:
    if label_smoothing and bound.get("label_smoothing", label_smoothing) != label_smoothing:
        raise ValueError(
            f"label_smoothing={label_smoothing} and the {bound['label_smoothing']} of the loss "
            "are both given: leave out one of the two."
        )
    if label_smoothing and "label_smoothing" not in names:
        raise ValueError(
            f"label_smoothing={label_smoothing} is not defined for loss="
            f"{getattr(loss, '__name__', loss)!r}."
        )


def _made(
    loss: Any, settings: dict[str, Any], normalize: Normalization, weight: ArrayLike | None
) -> Loss:
    """Return the loss that a class or function gives with its settings."""
    if isinstance(loss, type) and issubclass(loss, Loss):
        own: Loss = _checked(loss(**settings, weight=weight, normalize=normalize))
        return own
    if isinstance(loss, type):
        if "reduction" in _setting_names(loss):
            settings.setdefault("reduction", "none")
        function = _checked(loss(**settings))
    else:
        function = copy.deepcopy(loss)
        function = functools.partial(function, **settings) if settings else function
    return CustomLoss(function, weight=weight, normalize=normalize)


def _taken_apart(partial: functools.partial[Any]) -> tuple[Any, dict[str, Any]]:
    """Return the function of a partial and the settings that it binds."""
    if partial.args:
        raise ValueError(
            "loss as a partial must bind its settings by name: the first arguments are the logits "
            f"and the target. Got {partial!r}."
        )
    return partial.func, dict(partial.keywords)


def _checked(loss: Any) -> Any:
    """Return a loss; refuse one with weights, which the optimizer would not train."""
    if isinstance(loss, nn.Module) and any(p.requires_grad for p in loss.parameters()):
        raise ValueError(
            f"loss must not have trainable weights: those of {type(loss).__name__} are not passed "
            "to the optimizer. Make them buffers, or call requires_grad_(False)."
        )
    return loss


def _check_kind(loss: Any, multilabel: bool) -> None:
    kind = loss if isinstance(loss, type) else type(loss)
    if loss in (Loss, MultilabelLoss, CustomLoss):
        raise ValueError(
            f"loss={kind.__name__} is only a base for losses: give a loss made from it."
        )
    own = kind.multilabel if issubclass(kind, Loss) else None
    if own is not None and own != multilabel:
        raise ValueError(
            f"loss={kind.__name__} is for {_KINDS[own]} and y has {_KINDS[multilabel]}: give one "
            f"of {list(MULTILABEL_LOSSES if multilabel else LOSSES)}, or their classes."
        )


def _setting_names(loss: Any) -> list[str | None]:
    """Return the names of a loss's settings, and None if it takes any keyword."""
    parameters = list(inspect.signature(loss).parameters.values())
    if not isinstance(loss, type):
        parameters = parameters[2:]  # logits and target, whatever they are called
    return [None if p.kind is p.VAR_KEYWORD else p.name for p in parameters]


def _completed(loss: Loss, normalize: Normalization, weight: ArrayLike | None) -> Loss:
    """Give a copied loss the class weight, and the normalization if it has none."""
    if weight is not None:
        if loss.weight is not None:
            raise ValueError(
                "alpha and the weight of the loss are both given: leave out one of the two."
            )
        loss.weight = as_weight(weight)
    if loss.normalize is None:
        loss.normalize = normalize
    return loss
