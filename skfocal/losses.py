"""Losses on logits that stay right at any confidence and any precision.

Everything here is built from one number, the *margin* of a class: the log-sum-exp of the
other logits minus its own logit. With ``p`` the softmax probability of the class,
``1 - p = sigmoid(margin)`` and ``-log p = softplus(margin)``, so

``(1 - p)**gamma * -log p = exp(gamma * logsigmoid(margin)) * softplus(margin)``.

The right-hand side never forms ``1 - p`` by subtraction: it keeps full relative precision and
a finite gradient for every ``gamma >= 0``, where ``(1 - exp(-ce))**gamma`` underflows or gives
NaN. Two logits or one, softmax or sigmoid, only the margin differs.

This module needs torch alone.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ArrayLike = Tensor | Sequence[float]
NORMALIZATIONS = ("samples", "weights", "sum", None)


def _at_least_float32(logits: Tensor) -> Tensor:
    # In bfloat16 the loss of a confident example would round to exactly zero.
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _focal_term(margin: Tensor, gamma: float) -> Tensor:
    # F.softplus turns linear above 20, which is 1e-10 off in float64; -logsigmoid(-a) does not.
    return torch.exp(gamma * F.logsigmoid(margin)) * -F.logsigmoid(-margin)


def target_margin(logits: Tensor, target: Tensor) -> Tensor:
    """Return the margin of the target class, ``logsumexp(others) - own``, of shape (n,)."""
    index = target[:, None]
    others = logits.scatter(1, index, -math.inf).logsumexp(1)
    return others - logits.gather(1, index)[:, 0]


def class_margins(logits: Tensor) -> Tensor:
    """Return the margin of every class, of shape (n, n_classes).

    For all classes but the largest, the sum of the others still holds the largest term, so
    subtracting one's own term from the total is safe; the largest gets a sum of its own.
    """
    top = logits.argmax(1, keepdim=True)
    is_top = torch.zeros_like(logits, dtype=torch.bool).scatter(1, top, True)
    shift = logits.gather(1, top).detach()
    terms = torch.exp(logits - shift)
    rest = (terms.sum(1, keepdim=True) - terms).masked_fill(is_top, 1.0)
    without_top = logits.masked_fill(is_top, -math.inf).logsumexp(1, keepdim=True)
    return torch.where(is_top, without_top, shift + torch.log(rest)) - logits


def focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float = 2.0,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the focal loss of each sample, ``-w_t (1 - p_t)**gamma log p_t``.

    The class weight multiplies the loss and never enters ``p_t``. With ``gamma=0`` this is
    the (weighted) cross-entropy. With label smoothing ``e`` it is
    ``-sum_c s_c w_c (1 - p_c)**gamma log p_c`` where ``s = (1 - e) onehot + e / n_classes``.

    Parameters
    ----------
    logits : Tensor of shape (n_samples, n_classes), floating point
        Scores before the softmax. Half precisions are computed in float32.
    target : Tensor of shape (n_samples,), int64
        Class codes.
    gamma : float, default=2.0
        Focusing parameter, at least 0.
    weight : Tensor of shape (n_classes,), default=None
        The weight of each class (the paper's alpha). None weighs all classes alike.
    label_smoothing : float, default=0.0
        In [0, 1).

    Returns
    -------
    Tensor of shape (n_samples,), float32 or wider

    Raises
    ------
    ValueError
        If the shapes do not fit or there are fewer than two classes.

    References
    ----------
    Lin, Goyal, Girshick, He, Dollar: Focal Loss for Dense Object Detection, ICCV 2017
    (arXiv:1708.02002), there for a binary sigmoid.

    Examples
    --------
    >>> import torch
    >>> logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 0.0, 0.0]])
    >>> focal_loss(logits, torch.tensor([0, 2]), gamma=2.0)
    tensor([0.0041, 0.4883])
    """
    _check_shapes(logits, target, weight)
    logits = _at_least_float32(logits)
    if not label_smoothing:
        loss = _focal_term(target_margin(logits, target), gamma)
        return loss if weight is None else weight[target] * loss
    each = _focal_term(class_margins(logits), gamma)
    each = each if weight is None else weight * each
    own = each.gather(1, target[:, None])[:, 0]
    return (1 - label_smoothing) * own + label_smoothing * each.mean(1)


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the cross-entropy of each sample, ``-w_t log p_t``.

    The same numbers as ``torch.nn.functional.cross_entropy(reduction="none")``, in the margin
    form: a confidently right sample keeps a small loss instead of rounding to zero.

    Parameters
    ----------
    logits : Tensor of shape (n_samples, n_classes), floating point
        Scores before the softmax. Half precisions are computed in float32.
    target : Tensor of shape (n_samples,), int64
        Class codes.
    weight : Tensor of shape (n_classes,), default=None
        The weight of each class.
    label_smoothing : float, default=0.0
        In [0, 1).

    Returns
    -------
    Tensor of shape (n_samples,), float32 or wider

    Raises
    ------
    ValueError
        If the shapes do not fit or there are fewer than two classes.

    Examples
    --------
    >>> import torch
    >>> cross_entropy(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
    tensor([0.6931])
    """
    return focal_loss(logits, target, gamma=0.0, weight=weight, label_smoothing=label_smoothing)


def sigmoid_focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float = 2.0,
    alpha: float | Tensor | None = None,
) -> Tensor:
    """Return the focal loss of each element, for binary and multi-label targets.

    ``-alpha_t (1 - p_t)**gamma log p_t`` with ``p_t = p t + (1 - p)(1 - t)`` and, as in the
    paper, ``alpha_t = alpha t + (1 - alpha)(1 - t)``: alpha weighs the positive.

    Parameters
    ----------
    logits : Tensor of any shape, floating point
        Scores before the sigmoid. Half precisions are computed in float32.
    target : Tensor of the same shape, values in [0, 1]
        1 where the label applies.
    gamma : float, default=2.0
        Focusing parameter, at least 0.
    alpha : float or Tensor that broadcasts over the last axis, default=None
        In [0, 1]. None weighs positive and negative alike, by 1. Note that 0.5 gives half of
        that, and that the paper's 0.25 goes with gamma=2 and a detector's background class.

    Returns
    -------
    Tensor of the shape of logits, float32 or wider

    Raises
    ------
    ValueError
        If logits and target differ in shape.

    References
    ----------
    Lin, Goyal, Girshick, He, Dollar: Focal Loss for Dense Object Detection, ICCV 2017
    (arXiv:1708.02002), equations 4 and 5.

    Examples
    --------
    >>> import torch
    >>> sigmoid_focal_loss(torch.tensor([0.0, 3.0]), torch.tensor([1.0, 1.0]))
    tensor([1.7329e-01, 1.0928e-04])
    """
    if logits.shape != target.shape:
        raise ValueError(
            "logits and target must have the same shape. "
            f"Got {tuple(logits.shape)} and {tuple(target.shape)}."
        )
    logits = _at_least_float32(logits)
    target = target.to(logits.dtype)
    positive = target * _focal_term(-logits, gamma)
    negative = (1 - target) * _focal_term(logits, gamma)
    return positive + negative if alpha is None else alpha * positive + (1 - alpha) * negative


def _as_weight(weight: ArrayLike) -> Tensor:
    tensor = torch.as_tensor(weight)
    return tensor if tensor.is_floating_point() else tensor.float()


def _check_shapes(logits: Tensor, target: Tensor, weight: Tensor | None) -> None:
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(
            "logits must have shape (n_samples, n_classes) with at least two classes. "
            f"Got {tuple(logits.shape)}."
        )
    if target.shape != logits.shape[:1]:
        raise ValueError(
            f"target must have shape ({logits.shape[0]},), one class code a row of logits. "
            f"Got {tuple(target.shape)}."
        )
    if weight is not None and weight.shape != logits.shape[1:]:
        raise ValueError(
            f"weight must have shape ({logits.shape[1]},), one number a class. "
            f"Got {tuple(weight.shape)}."
        )


class FocalLoss(nn.Module):
    r"""Focal loss of a batch: settings around :func:`focal_loss`.

    Parameters
    ----------
    gamma : float, default=2.0
        Focusing parameter, at least 0. 0 is cross-entropy.
    weight : array-like of shape (n_classes,), default=None
        Class weights. A buffer: it moves with the module and is in its state.
    normalize : {"samples", "weights", "sum"} or None, default="samples"
        What the summed loss is divided by. ``"samples"``: the number of samples, so that a
        sample's gradient does not depend on its batch mates. ``"weights"``: the sum of the
        samples' class weights, as ``nn.CrossEntropyLoss(weight=...)`` does; in small batches
        this takes most of the weights' effect away. ``"sum"``: nothing. None: one loss a
        sample comes back.
    label_smoothing : float, default=0.0
        In [0, 1).

    References
    ----------
    Lin et al.: Focal Loss for Dense Object Detection, ICCV 2017 (arXiv:1708.02002).

    Examples
    --------
    >>> import torch
    >>> logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 0.0, 0.0]])
    >>> FocalLoss(gamma=2.0, weight=[1.0, 2.0, 3.0])(logits, torch.tensor([0, 2]))
    tensor(0.7345)
    """

    weight: Tensor | None

    def __init__(
        self,
        gamma: float = 2.0,
        *,
        weight: ArrayLike | None = None,
        normalize: str | None = "samples",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if not (math.isfinite(gamma) and gamma >= 0):
            raise ValueError(f"gamma must be a finite number of at least 0. Got {gamma!r}.")
        if normalize not in NORMALIZATIONS:
            raise ValueError(f"normalize must be one of {NORMALIZATIONS}. Got {normalize!r}.")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1). Got {label_smoothing!r}.")
        self.gamma = gamma
        self.normalize = normalize
        self.label_smoothing = label_smoothing
        self.register_buffer("weight", None if weight is None else _as_weight(weight))

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each sample, of shape (n_samples,)."""
        return focal_loss(
            logits,
            target,
            gamma=self.gamma,
            weight=self.weight,
            label_smoothing=self.label_smoothing,
        )

    def forward(
        self, logits: Tensor, target: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        """Return the loss of the batch.

        Parameters
        ----------
        logits : Tensor of shape (n_samples, n_classes)
            Scores before the softmax.
        target : Tensor of shape (n_samples,), int64
            Class codes.
        sample_weight : Tensor of shape (n_samples,), default=None
            Multiplies each sample's loss. Scale it to a mean of 1 over the training set: with
            ``normalize="samples"`` the divisor stays the number of samples.

        Returns
        -------
        Tensor, a scalar, or of shape (n_samples,) with ``normalize=None``
        """
        loss = self.per_sample(logits, target)
        if sample_weight is not None:
            loss = sample_weight * loss
        if self.normalize is None:
            return loss
        if self.normalize == "sum":
            return loss.sum()
        if self.normalize == "samples":
            return loss.sum() / max(len(loss), 1)
        total = torch.ones_like(loss) if self.weight is None else self.weight[target]
        total = (total if sample_weight is None else sample_weight * total).sum()
        # A batch whose weights are all zero has loss zero, not 0 / 0.
        return loss.sum() / torch.where(total > 0, total, torch.ones_like(total))

    def extra_repr(self) -> str:
        """Show the settings in the module's repr."""
        return (
            f"gamma={self.gamma}, normalize={self.normalize!r}, "
            f"label_smoothing={self.label_smoothing}"
        )


class CrossEntropyLoss(FocalLoss):
    """Cross-entropy of a batch: the focal loss at gamma 0.

    Parameters
    ----------
    weight : array-like of shape (n_classes,), default=None
        Class weights. A buffer: it moves with the module and is in its state.
    normalize : {"samples", "weights", "sum"} or None, default="samples"
        As in :class:`FocalLoss`. ``"weights"`` is what ``torch.nn.CrossEntropyLoss`` does.
    label_smoothing : float, default=0.0
        In [0, 1).

    Examples
    --------
    >>> import torch
    >>> CrossEntropyLoss()(torch.zeros(2, 4), torch.tensor([0, 3]))
    tensor(1.3863)
    """

    def __init__(
        self,
        *,
        weight: ArrayLike | None = None,
        normalize: str | None = "samples",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(0.0, weight=weight, normalize=normalize, label_smoothing=label_smoothing)


LOSSES = {"cross_entropy": CrossEntropyLoss, "focal": FocalLoss}
