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

import copy
import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

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
    return _separable_loss(
        logits, target, lambda margin: _focal_term(margin, gamma), weight, label_smoothing
    )


def _separable_loss(
    logits: Tensor,
    target: Tensor,
    term: Callable[[Tensor], Tensor],
    weight: Tensor | None,
    label_smoothing: float,
) -> Tensor:
    """Return ``sum_c s_c w_c term(margin_c)`` with the smoothed one-hot ``s``."""
    _check_shapes(logits, target, weight)
    logits = _at_least_float32(logits)
    if not label_smoothing:
        loss = term(target_margin(logits, target))
        return loss if weight is None else weight[target] * loss
    each = term(class_margins(logits))
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


def poly1_focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float = 2.0,
    epsilon: float = 1.0,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the Poly-1 focal loss, ``w_t (focal_t + epsilon (1 - p_t)**(gamma + 1))``.

    The first term of the focal loss's expansion in powers of ``1 - p_t`` gets the coefficient
    ``1 + epsilon``. With ``gamma=0`` it is Poly-1 cross-entropy.

    Parameters
    ----------
    logits : Tensor of shape (n_samples, n_classes), floating point
        Scores before the softmax. Half precisions are computed in float32.
    target : Tensor of shape (n_samples,), int64
        Class codes.
    gamma : float, default=2.0
        Focusing parameter, at least 0.
    epsilon : float, default=1.0
        Greater than -1; 0 is the focal loss.
    weight : Tensor of shape (n_classes,), default=None
        The weight of each class; it multiplies both terms.
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
    Leng et al.: PolyLoss, ICLR 2022 (arXiv:2204.12511).

    Examples
    --------
    >>> import torch
    >>> poly1_focal_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([1]), gamma=0.0)
    tensor([1.1931])
    """
    return _separable_loss(
        logits,
        target,
        lambda margin: _poly1_focal_term(margin, gamma, epsilon),
        weight,
        label_smoothing,
    )


def _poly1_focal_term(margin: Tensor, gamma: float, epsilon: float) -> Tensor:
    extra = torch.exp((gamma + 1) * F.logsigmoid(margin))
    return _focal_term(margin, gamma) + epsilon * extra


def logit_adjusted_loss(
    logits: Tensor,
    target: Tensor,
    log_prior: Tensor,
    *,
    tau: float = 1.0,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the cross-entropy of ``logits + tau * log_prior``.

    The plain logits, without the adjustment, then decide for the balanced error. ``tau=1`` is
    the balanced softmax, where ``log_prior`` may be the logarithm of the counts: a constant
    changes nothing.

    Parameters
    ----------
    logits : Tensor of shape (n_samples, n_classes), floating point
        Scores before the softmax. Half precisions are computed in float32.
    target : Tensor of shape (n_samples,), int64
        Class codes.
    log_prior : Tensor of shape (n_classes,)
        Logarithm of the share of each class among the samples drawn.
    tau : float, default=1.0
        At least 0; 0 is cross-entropy.
    weight : Tensor of shape (n_classes,), default=None
        The weight of each class. Both correct the imbalance: rarely right together.
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
    Menon et al.: Long-Tail Learning via Logit Adjustment, ICLR 2021 (arXiv:2007.07314).
    Ren et al.: Balanced Meta-Softmax for Long-Tailed Visual Recognition, NeurIPS 2020
    (arXiv:2007.10740).

    Examples
    --------
    >>> import torch
    >>> log_prior = torch.tensor([0.9, 0.1]).log()
    >>> logit_adjusted_loss(torch.zeros(2, 2), torch.tensor([0, 1]), log_prior)
    tensor([0.1054, 2.3026])
    """
    _check_shapes(logits, target, log_prior, name="log_prior")
    adjusted = _at_least_float32(logits) + tau * log_prior
    return cross_entropy(adjusted, target, weight=weight, label_smoothing=label_smoothing)


def ldam_loss(
    logits: Tensor,
    target: Tensor,
    margin: Tensor,
    *,
    scale: float = 30.0,
    weight: Tensor | None = None,
) -> Tensor:
    """Return the label-distribution-aware margin loss of each sample.

    The cross-entropy of ``logits - scale * margin_t`` at the target and of the plain logits
    elsewhere. It is made for logits that are `scale` times a cosine: on those of a linear layer a
    margin means nothing, because the layer may grow.

    Parameters
    ----------
    logits : Tensor of shape (n_samples, n_classes), floating point
        `scale` times the cosine of features and class vector. Half precisions are computed in
        float32.
    target : Tensor of shape (n_samples,), int64
        Class codes.
    margin : Tensor of shape (n_classes,)
        How much larger the target's cosine has to be; see :class:`LDAMLoss`.
    scale : float, default=30.0
        What the cosines were multiplied by.
    weight : Tensor of shape (n_classes,), default=None
        The weight of each class.

    Returns
    -------
    Tensor of shape (n_samples,), float32 or wider

    Raises
    ------
    ValueError
        If the shapes do not fit or there are fewer than two classes.

    References
    ----------
    Cao, Wei, Gaidon, Arechiga, Ma: Learning Imbalanced Datasets with Label-Distribution-Aware
    Margin Loss, NeurIPS 2019 (arXiv:1906.07413).

    Examples
    --------
    >>> import torch
    >>> cosines = torch.tensor([[0.6, 0.5], [0.6, 0.5]])
    >>> ldam_loss(30 * cosines, torch.tensor([0, 1]), torch.tensor([0.2, 0.5]))
    tensor([ 3.0486, 18.0000])
    """
    _check_shapes(logits, target, margin, name="margin")
    _check_shapes(logits, target, weight)
    logits = _at_least_float32(logits)
    behind = target_margin(logits, target) + scale * margin.to(logits)[target]
    loss = _focal_term(behind, 0.0)
    return loss if weight is None else weight[target] * loss


def dice_loss(
    logits: Tensor,
    target: Tensor,
    *,
    power: float = 0.1,
    smooth: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """Return the self-adjusting dice loss of each sample, the mean over its classes.

    With ``d_c = (1 - p_c)**power p_c`` and ``y`` one-hot:
    ``w_t mean_c(1 - (2 d_c y_c + smooth) / (d_c + y_c + smooth))``. No function of it gives the
    posterior: it is not a proper loss.

    Parameters
    ----------
    logits : Tensor of shape (n_samples, n_classes), floating point
        Scores before the softmax. Half precisions are computed in float32.
    target : Tensor of shape (n_samples,), int64
        Class codes.
    power : float, default=0.1
        At least 0; 0 is the plain dice loss. ``d_c`` is largest at ``p_c = 1 / (1 + power)`` and
        falls beyond it. The paper's 1 cannot tell a right from a wrong class that is certain, and
        for two classes the loss is then the same whatever the label.
    smooth : float, default=1.0
        Greater than 0.
    weight : Tensor of shape (n_classes,), default=None
        The weight of each class.

    Returns
    -------
    Tensor of shape (n_samples,), float32 or wider

    Raises
    ------
    ValueError
        If the shapes do not fit or there are fewer than two classes.

    References
    ----------
    Li, Sun, Meng, Liang, Wu, Li: Dice Loss for Data-imbalanced NLP Tasks, ACL 2020
    (arXiv:1911.02855).

    Examples
    --------
    >>> import torch
    >>> dice_loss(torch.zeros(1, 2), torch.tensor([1]), power=0.0)
    tensor([0.2667])
    """
    _check_shapes(logits, target, weight)
    margins = class_margins(_at_least_float32(logits))
    d = torch.exp(power * F.logsigmoid(margins) + F.logsigmoid(-margins))
    y = F.one_hot(target, logits.shape[1]).to(d.dtype)
    loss = (1 - (2 * d * y + smooth) / (d + y + smooth)).mean(1)
    return loss if weight is None else weight[target] * loss


def asymmetric_loss(
    logits: Tensor,
    target: Tensor,
    *,
    gamma_pos: float = 1.0,
    gamma_neg: float = 4.0,
    clip: float = 0.05,
) -> Tensor:
    """Return the asymmetric loss of each element, for multi-label targets.

    ``-(1 - p)**gamma_pos log p`` for a positive and, with ``m = max(p - clip, 0)``,
    ``-m**gamma_neg log(1 - m)`` for a negative. The gradient goes through every factor, as in
    the paper; the authors' own module detaches the focusing weight.

    Parameters
    ----------
    logits : Tensor of any shape, floating point
        Scores before the sigmoid. Half precisions are computed in float32.
    target : Tensor of the same shape, values in [0, 1]
        1 where the label applies.
    gamma_pos, gamma_neg : float, default=1.0, 4.0
        Focusing of positives and negatives, at least 0.
    clip : float, default=0.05
        Negatives of smaller probability cost nothing; in [0, 1).

    Returns
    -------
    Tensor of the shape of logits, float32 or wider

    Raises
    ------
    ValueError
        If logits and target differ in shape.

    References
    ----------
    Ridnik et al.: Asymmetric Loss For Multi-Label Classification, ICCV 2021
    (arXiv:2009.14119).

    Examples
    --------
    >>> import torch
    >>> asymmetric_loss(torch.tensor([0.0, -4.0]), torch.tensor([1.0, 0.0]))
    tensor([0.3466, 0.0000])
    """
    _check_same_shape(logits, target)
    logits = _at_least_float32(logits)
    target = target.to(logits.dtype)
    negative = _clipped_negative(logits, gamma_neg, clip)
    return target * _focal_term(-logits, gamma_pos) + (1 - target) * negative


def _clipped_negative(logits: Tensor, gamma: float, clip: float) -> Tensor:
    if not clip:
        return _focal_term(logits, gamma)
    # Where p is at most clip the value is 0. The power of a number just above 0 has an infinite
    # slope for gamma < 1, and where() would turn what it hides into NaN: hide it before, too.
    above = torch.sigmoid(logits) > clip
    p = torch.where(above, torch.sigmoid(logits), torch.ones_like(logits))
    # 1 - m = (1 - p) + clip, without a subtraction from 1.
    rest = torch.sigmoid(torch.where(above, -logits, torch.full_like(logits, -math.inf))) + clip
    return torch.where(above, (p - clip) ** gamma * -torch.log(rest), torch.zeros_like(logits))


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
    _check_same_shape(logits, target)
    logits = _at_least_float32(logits)
    target = target.to(logits.dtype)
    positive = target * _focal_term(-logits, gamma)
    negative = (1 - target) * _focal_term(logits, gamma)
    return positive + negative if alpha is None else alpha * positive + (1 - alpha) * negative


def _as_weight(weight: ArrayLike) -> Tensor:
    tensor = torch.as_tensor(weight)
    return tensor if tensor.is_floating_point() else tensor.float()


def _as_counts(name: str, counts: ArrayLike) -> Tensor:
    """Return the counts in float64, those of absent classes as 1."""
    tensor = torch.as_tensor(counts, dtype=torch.float64)
    if not (tensor.isfinite().all() and (tensor >= 0).all()):
        raise ValueError(f"{name} must be finite and at least 0. Got {tensor.tolist()}.")
    return torch.where(tensor > 0, tensor, torch.ones_like(tensor))


def _check_same_shape(logits: Tensor, target: Tensor) -> None:
    if logits.shape != target.shape:
        raise ValueError(
            "logits and target must have the same shape. "
            f"Got {tuple(logits.shape)} and {tuple(target.shape)}."
        )


def _check_shapes(
    logits: Tensor, target: Tensor, weight: Tensor | None, name: str = "weight"
) -> None:
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
            f"{name} must have shape ({logits.shape[1]},), one number a class. "
            f"Got {tuple(weight.shape)}."
        )


def _check_range(name: str, value: float, low: float, high: float = math.inf) -> None:
    if not (low <= value < high):
        least = f"of at least {low:g}" if high == math.inf else f"in [{low:g}, {high:g})"
        raise ValueError(f"{name} must be a finite number {least}. Got {value!r}.")


# -- modules -------------------------------------------------------------------------------


class Loss(nn.Module):
    """Loss of a batch from the losses of its samples: what all the modules share.

    A subclass gives `per_sample` and, where there is an inverse, `log_posterior`.

    Parameters
    ----------
    weight : array-like of shape (n_classes,), default=None
        Class weights. A buffer: it moves with the module and is in its state.
    normalize : {"samples", "weights", "sum"} or None, default="samples"
        What the summed loss is divided by. ``"samples"``: the number of samples, so that a
        sample's gradient does not depend on its batch mates. ``"weights"``: the sum of the
        samples' class weights, as ``nn.CrossEntropyLoss(weight=...)`` does; in small batches
        this takes most of the weights' effect away. ``"sum"``: nothing. None: one loss a
        sample comes back.

    """

    weight: Tensor | None

    def __init__(
        self, *, weight: ArrayLike | None = None, normalize: str | None = "samples"
    ) -> None:
        super().__init__()
        if normalize not in NORMALIZATIONS:
            raise ValueError(f"normalize must be one of {NORMALIZATIONS}. Got {normalize!r}.")
        self.normalize = normalize
        self.register_buffer("weight", None if weight is None else _as_weight(weight))

    @property
    def has_posterior(self) -> bool:
        """Whether :meth:`log_posterior` exists."""
        return False

    @property
    def cosine_scale(self) -> float | None:
        """What the head has to multiply its cosines by; None: the head is linear."""
        return None

    def implied_class_weight(self) -> Tensor | None:
        """Return what the loss's own adjustment is worth as class weights, None for nothing."""
        return None

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each sample, class weight included, of shape (n_samples,)."""
        raise NotImplementedError

    def per_class(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the part of each sample's loss that each class carries.

        The whole lies with the sample's own class; with several labels a sample each has its own
        part.

        Returns
        -------
        Tensor of shape (n_samples, n_classes)
        """
        loss = self.per_sample(logits, target)
        if target.ndim == 2:
            return (loss / target.shape[1])[:, None].expand(target.shape)
        return loss.new_zeros(logits.shape).scatter(1, target[:, None], loss[:, None])

    def log_posterior(self, logits: Tensor) -> Tensor:
        """Return log-probabilities of the classes in the population that was drawn.

        The logits that minimise the expected loss are not the posterior's as soon as there is a
        gamma, a class weight or an adjustment; this undoes them. Exact for the minimiser of the
        mean over samples.

        Parameters
        ----------
        logits : Tensor of shape (n_samples, n_classes)
            Give float64 where the last digits matter.

        Returns
        -------
        Tensor of shape (n_samples, n_classes)

        Raises
        ------
        NotImplementedError
            If this loss has no inverse.
        """
        raise NotImplementedError(f"{type(self).__name__} has no inverse to the posterior.")

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
        total = torch.ones_like(loss) if self.weight is None else self._weight_of(target)
        total = (total if sample_weight is None else sample_weight * total).sum()
        # A batch whose weights are all zero has loss zero, not 0 / 0.
        return loss.sum() / torch.where(total > 0, total, torch.ones_like(total))

    def _weight_of(self, target: Tensor) -> Tensor:
        assert self.weight is not None
        if target.ndim == 1:
            return self.weight[target]
        return _label_weight(self.weight, target).mean(1)

    def extra_repr(self) -> str:
        """Show the settings in the module's repr."""
        hidden = {"training", "weight"}
        settings = {k: v for k, v in vars(self).items() if k[0] != "_" and k not in hidden}
        return ", ".join(f"{name}={value!r}" for name, value in settings.items())


class Poly1FocalLoss(Loss):
    """Poly-1 focal loss of a batch: settings around :func:`poly1_focal_loss`.

    Parameters
    ----------
    gamma : float, default=2.0
        Focusing parameter, at least 0.
    epsilon : float, default=1.0
        Added to the coefficient of ``(1 - p)**(gamma + 1)``, greater than -1. Where it is
        negative and gamma is not 0, the loss may be bent such that it has no inverse.
    weight, normalize
        As in :class:`Loss`.
    label_smoothing : float, default=0.0
        In [0, 1).

    References
    ----------
    Leng et al.: PolyLoss, ICLR 2022 (arXiv:2204.12511).

    Examples
    --------
    >>> import torch
    >>> Poly1FocalLoss(gamma=0.0)(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
    tensor(1.1931)
    """

    def __init__(
        self,
        gamma: float = 2.0,
        epsilon: float = 1.0,
        *,
        weight: ArrayLike | None = None,
        normalize: str | None = "samples",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight=weight, normalize=normalize)
        _check_range("gamma", gamma, 0)
        if not -1 < epsilon < math.inf:
            raise ValueError(f"epsilon must be a finite number above -1. Got {epsilon!r}.")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1). Got {label_smoothing!r}.")
        self.gamma = gamma
        self.epsilon = epsilon
        self.label_smoothing = label_smoothing

    @property
    def has_posterior(self) -> bool:
        """Whether the loss is convex in p, so that one posterior belongs to each minimiser."""
        return self.epsilon >= 0 or self.gamma == 0

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each sample, of shape (n_samples,)."""
        return poly1_focal_loss(
            logits,
            target,
            gamma=self.gamma,
            epsilon=self.epsilon,
            weight=self.weight,
            label_smoothing=self.label_smoothing,
        )

    def log_posterior(self, logits: Tensor) -> Tensor:
        """Return the posterior of the minimiser; see :meth:`Loss.log_posterior`.

        At the minimum the probabilities q of the logits and the posterior have the ratio
        ``-w_c f'(q_c)``, the slope of a class's loss: ``posterior_c ~ 1 / (-w_c f'(q_c))``. For
        the focal loss this is the closed form of Charoenphakdee et al., CVPR 2021
        (arXiv:2011.09172). Label smoothing is undone last; what it could not have made, a
        probability below its share, becomes the smallest positive number.
        """
        if not self.has_posterior:
            return super().log_posterior(logits)
        scores = -_log_slope(class_margins(_at_least_float32(logits)), self.gamma, self.epsilon)
        if self.weight is not None:
            scores = scores - self.weight.to(scores).log()
        return _unsmooth(scores.log_softmax(1), self.label_smoothing)


def _log_slope(margin: Tensor, gamma: float, epsilon: float) -> Tensor:
    """Return ``log(-f'(p))`` of the Poly-1 focal term as a function of p, at the p of a margin."""
    log_p, log_rest = F.logsigmoid(-margin), F.logsigmoid(margin)
    # p * -log(p) / (1 - p), which goes to 1 as p does; the exponentials would overflow there.
    near = margin < -36
    safe = torch.where(near, torch.zeros_like(margin), margin)
    ratio = torch.exp(F.logsigmoid(-safe) - F.logsigmoid(safe)) * -F.logsigmoid(-safe)
    ratio = torch.where(near, torch.ones_like(ratio), ratio)
    p = torch.exp(log_p)
    return gamma * log_rest - log_p + torch.log1p(gamma * ratio + epsilon * (gamma + 1) * p)


def _unsmooth(log_posterior: Tensor, label_smoothing: float) -> Tensor:
    if not label_smoothing:
        return log_posterior
    share = label_smoothing / log_posterior.shape[1]
    tiny = torch.finfo(log_posterior.dtype).tiny
    raw = (log_posterior.exp() - share) / (1 - label_smoothing)
    return raw.clamp(min=tiny).log().log_softmax(1)


class FocalLoss(Poly1FocalLoss):
    r"""Focal loss of a batch: settings around :func:`focal_loss`.

    Parameters
    ----------
    gamma : float, default=2.0
        Focusing parameter, at least 0. 0 is cross-entropy.
    weight, normalize
        As in :class:`Loss`.
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

    def __init__(
        self,
        gamma: float = 2.0,
        *,
        weight: ArrayLike | None = None,
        normalize: str | None = "samples",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(
            gamma, 0.0, weight=weight, normalize=normalize, label_smoothing=label_smoothing
        )

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each sample, of shape (n_samples,)."""
        return focal_loss(
            logits,
            target,
            gamma=self.gamma,
            weight=self.weight,
            label_smoothing=self.label_smoothing,
        )


class CrossEntropyLoss(FocalLoss):
    """Cross-entropy of a batch: the focal loss at gamma 0.

    Parameters
    ----------
    weight, normalize
        As in :class:`Loss`. ``normalize="weights"`` is what ``torch.nn.CrossEntropyLoss`` does.
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


class Poly1Loss(Poly1FocalLoss):
    """Poly-1 cross-entropy of a batch: the Poly-1 focal loss at gamma 0.

    Parameters
    ----------
    epsilon : float, default=1.0
        Added to the coefficient of ``1 - p``, greater than -1.
    weight, normalize
        As in :class:`Loss`.
    label_smoothing : float, default=0.0
        In [0, 1).

    References
    ----------
    Leng et al.: PolyLoss, ICLR 2022 (arXiv:2204.12511).

    Examples
    --------
    >>> import torch
    >>> Poly1Loss(epsilon=2.0)(torch.zeros(2, 2), torch.tensor([0, 1]))
    tensor(1.6931)
    """

    def __init__(
        self,
        epsilon: float = 1.0,
        *,
        weight: ArrayLike | None = None,
        normalize: str | None = "samples",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(
            0.0, epsilon, weight=weight, normalize=normalize, label_smoothing=label_smoothing
        )


class LogitAdjustedLoss(Loss):
    """Logit-adjusted cross-entropy of a batch: settings around :func:`logit_adjusted_loss`.

    Parameters
    ----------
    counts : array-like of shape (n_classes,)
        How many samples of each class are drawn. A class with none counts as one.
    tau : float, default=1.0
        At least 0.
    weight, normalize
        As in :class:`Loss`.
    label_smoothing : float, default=0.0
        In [0, 1).

    References
    ----------
    Menon et al.: Long-Tail Learning via Logit Adjustment, ICLR 2021 (arXiv:2007.07314).

    Examples
    --------
    >>> import torch
    >>> LogitAdjustedLoss([90, 10])(torch.zeros(2, 2), torch.tensor([0, 1]))
    tensor(1.2040)
    """

    log_prior: Tensor

    def __init__(
        self,
        counts: ArrayLike,
        tau: float = 1.0,
        *,
        weight: ArrayLike | None = None,
        normalize: str | None = "samples",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight=weight, normalize=normalize)
        _check_range("tau", tau, 0)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1). Got {label_smoothing!r}.")
        shares = _as_counts("counts", counts)
        self.register_buffer("log_prior", (shares / shares.sum()).log().float())
        self.tau = tau
        self.label_smoothing = label_smoothing

    @property
    def has_posterior(self) -> bool:
        """Always."""
        return True

    def implied_class_weight(self) -> Tensor:
        """Return ``prior**-tau``, with mean 1 over what is drawn."""
        log_prior = self.log_prior.double()
        return torch.exp(-self.tau * log_prior - ((1 - self.tau) * log_prior).logsumexp(0))

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each sample, of shape (n_samples,)."""
        return logit_adjusted_loss(
            logits,
            target,
            self.log_prior,
            tau=self.tau,
            weight=self.weight,
            label_smoothing=self.label_smoothing,
        )

    def log_posterior(self, logits: Tensor) -> Tensor:
        """Return the log-softmax of the adjusted logits; see :meth:`Loss.log_posterior`."""
        logits = _at_least_float32(logits)
        scores = logits + self.tau * self.log_prior.to(logits)
        if self.weight is not None:
            scores = scores - self.weight.to(scores).log()
        return _unsmooth(scores.log_softmax(1), self.label_smoothing)


class LDAMLoss(Loss):
    """Label-distribution-aware margin loss of a batch: settings around :func:`ldam_loss`.

    The margin of a class is ``max_margin * (min(support) / support)**0.25``: the rarest class
    gets `max_margin`. It needs logits that are `scale` times a cosine, which
    :class:`~skfocal.BertFocalClassifier` makes of the encoder's head when it meets this loss.

    Parameters
    ----------
    support : array-like of shape (n_classes,)
        Training samples of each class. A class with none counts as one.
    max_margin : float, default=0.5
        At least 0; 0 is cross-entropy.
    scale : float, default=30.0
        Greater than 0.
    weight, normalize
        As in :class:`Loss`.

    References
    ----------
    Cao et al.: Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss, NeurIPS
    2019 (arXiv:1906.07413).

    Examples
    --------
    >>> import torch
    >>> loss = LDAMLoss([1600, 100])
    >>> loss.margin
    tensor([0.2500, 0.5000])
    >>> loss(torch.tensor([[27.0, 3.0]]), torch.tensor([1]))
    tensor(39.)
    """

    margin: Tensor

    def __init__(
        self,
        support: ArrayLike,
        max_margin: float = 0.5,
        scale: float = 30.0,
        *,
        weight: ArrayLike | None = None,
        normalize: str | None = "samples",
    ) -> None:
        super().__init__(weight=weight, normalize=normalize)
        _check_range("max_margin", max_margin, 0)
        if not 0 < scale < math.inf:
            raise ValueError(f"scale must be a finite number above 0. Got {scale!r}.")
        counts = _as_counts("support", support)
        self.register_buffer("margin", (max_margin * (counts.min() / counts) ** 0.25).float())
        self.max_margin = max_margin
        self.scale = scale

    @property
    def cosine_scale(self) -> float:
        """The scale."""
        return self.scale

    @property
    def has_posterior(self) -> bool:
        """Always."""
        return True

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each sample, of shape (n_samples,)."""
        return ldam_loss(logits, target, self.margin, scale=self.scale, weight=self.weight)

    def log_posterior(self, logits: Tensor) -> Tensor:
        """Return the posterior of the minimiser; see :meth:`Loss.log_posterior`.

        At the minimum the probabilities q of the logits and the posterior have
        ``posterior_c ~ q_c ((1 - q_c) + q_c exp(-scale margin_c)) / w_c``: with
        ``D_c = 1 - q_c (1 - exp(-scale margin_c))`` the gradient is zero where
        ``posterior_c / (q_c D_c)`` is the same for all classes. A large margin draws all
        posteriors but the surest into logits that differ little, so that a trained network's
        error comes back magnified.
        """
        margins = class_margins(_at_least_float32(logits))
        log_q, log_rest = F.logsigmoid(-margins), F.logsigmoid(margins)
        scores = log_q + torch.logaddexp(log_rest, log_q - self.scale * self.margin.to(log_q))
        if self.weight is not None:
            scores = scores - self.weight.to(scores).log()
        return scores.log_softmax(1)


class DiceLoss(Loss):
    """Self-adjusting dice loss of a batch: settings around :func:`dice_loss`.

    Parameters
    ----------
    power : float, default=0.1
        In [0, 1); see :func:`dice_loss`.
    smooth : float, default=1.0
        Greater than 0.
    weight, normalize
        As in :class:`Loss`.

    References
    ----------
    Li et al.: Dice Loss for Data-imbalanced NLP Tasks, ACL 2020 (arXiv:1911.02855).

    Examples
    --------
    >>> import torch
    >>> DiceLoss(power=0.0)(torch.zeros(1, 2), torch.tensor([1]))
    tensor(0.2667)
    """

    def __init__(
        self,
        power: float = 0.1,
        smooth: float = 1.0,
        *,
        weight: ArrayLike | None = None,
        normalize: str | None = "samples",
    ) -> None:
        super().__init__(weight=weight, normalize=normalize)
        _check_range("power", power, 0, 1)
        if not 0 < smooth < math.inf:
            raise ValueError(f"smooth must be a finite number above 0. Got {smooth!r}.")
        self.power = power
        self.smooth = smooth

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each sample, of shape (n_samples,)."""
        return dice_loss(logits, target, power=self.power, smooth=self.smooth, weight=self.weight)


def _label_weight(weight: Tensor, target: Tensor) -> Tensor:
    """Return the weight of each element: of the label's absence or of its presence."""
    return weight[:, 0] * (1 - target) + weight[:, 1] * target


class SigmoidFocalLoss(Loss):
    """Focal loss of a batch of multi-label targets, the mean over the labels.

    Parameters
    ----------
    gamma : float, default=2.0
        Focusing parameter, at least 0. 0 is the binary cross-entropy of each label.
    weight : array-like of shape (n_labels, 2), default=None
        Weights of a label's absence and presence.
    normalize
        As in :class:`Loss`.
    label_smoothing : float, default=0.0
        In [0, 1): a target becomes ``(1 - e) target + e / 2``.

    References
    ----------
    Lin et al.: Focal Loss for Dense Object Detection, ICCV 2017 (arXiv:1708.02002).

    Examples
    --------
    >>> import torch
    >>> target = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    >>> SigmoidFocalLoss(gamma=0.0)(torch.zeros(2, 2), target)
    tensor(0.6931)
    """

    def __init__(
        self,
        gamma: float = 2.0,
        *,
        weight: ArrayLike | None = None,
        normalize: str | None = "samples",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight=weight, normalize=normalize)
        _check_range("gamma", gamma, 0)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1). Got {label_smoothing!r}.")
        self.gamma = gamma
        self.label_smoothing = label_smoothing

    @property
    def has_posterior(self) -> bool:
        """Always."""
        return True

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each sample, of shape (n_samples,)."""
        return self.per_class(logits, target).sum(1)

    def per_class(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the part of each label; see :meth:`Loss.per_class`."""
        target = target.to(_at_least_float32(logits).dtype)
        target = (1 - self.label_smoothing) * target + self.label_smoothing / 2
        if self.weight is None:
            return sigmoid_focal_loss(logits, target, gamma=self.gamma) / target.shape[1]
        both = _at_least_float32(logits)
        positive = self.weight[:, 1] * target * _focal_term(-both, self.gamma)
        negative = self.weight[:, 0] * (1 - target) * _focal_term(both, self.gamma)
        return (positive + negative) / target.shape[1]

    def log_posterior(self, logits: Tensor) -> Tensor:
        """Return the log-odds of each label's posterior; see :meth:`Loss.log_posterior`."""
        logits = _at_least_float32(logits)
        odds = _log_slope(logits, self.gamma, 0.0) - _log_slope(-logits, self.gamma, 0.0)
        if self.weight is not None:
            log_weight = self.weight.to(odds).log()
            odds = odds - log_weight[:, 1] + log_weight[:, 0]
        return _unsmooth_odds(odds, self.label_smoothing)


def _unsmooth_odds(log_odds: Tensor, label_smoothing: float) -> Tensor:
    if not label_smoothing:
        return log_odds
    tiny = torch.finfo(log_odds.dtype).tiny
    sides = [(torch.sigmoid(side) - label_smoothing / 2) for side in (log_odds, -log_odds)]
    positive, negative = (side.clamp(min=tiny).log() for side in sides)
    return positive - negative


class SigmoidCrossEntropyLoss(SigmoidFocalLoss):
    """Binary cross-entropy of a batch of multi-label targets: the focal loss at gamma 0.

    Parameters
    ----------
    weight, normalize, label_smoothing
        As in :class:`SigmoidFocalLoss`.

    Examples
    --------
    >>> import torch
    >>> SigmoidCrossEntropyLoss()(torch.zeros(2, 3), torch.zeros(2, 3))
    tensor(0.6931)
    """

    def __init__(
        self,
        *,
        weight: ArrayLike | None = None,
        normalize: str | None = "samples",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(0.0, weight=weight, normalize=normalize, label_smoothing=label_smoothing)


class AsymmetricLoss(Loss):
    """Asymmetric loss of a batch of multi-label targets, the mean over the labels.

    Parameters
    ----------
    gamma_pos, gamma_neg : float, default=1.0, 4.0
        At least 0.
    clip : float, default=0.05
        In [0, 1).
    weight : array-like of shape (n_labels, 2), default=None
        Weights of a label's absence and presence.
    normalize
        As in :class:`Loss`.

    References
    ----------
    Ridnik et al.: Asymmetric Loss For Multi-Label Classification, ICCV 2021
    (arXiv:2009.14119).

    Examples
    --------
    >>> import torch
    >>> AsymmetricLoss(0.0, 0.0, 0.0)(torch.zeros(2, 3), torch.zeros(2, 3))
    tensor(0.6931)
    """

    def __init__(
        self,
        gamma_pos: float = 1.0,
        gamma_neg: float = 4.0,
        clip: float = 0.05,
        *,
        weight: ArrayLike | None = None,
        normalize: str | None = "samples",
    ) -> None:
        super().__init__(weight=weight, normalize=normalize)
        _check_range("gamma_pos", gamma_pos, 0)
        _check_range("gamma_neg", gamma_neg, 0)
        _check_range("clip", clip, 0, 1)
        self.gamma_pos = gamma_pos
        self.gamma_neg = gamma_neg
        self.clip = clip

    @property
    def has_posterior(self) -> bool:
        """Always; see :meth:`log_posterior` for its limit."""
        return True

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each sample, of shape (n_samples,)."""
        return self.per_class(logits, target).sum(1)

    def per_class(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the part of each label; see :meth:`Loss.per_class`."""
        loss = asymmetric_loss(
            logits,
            target,
            gamma_pos=self.gamma_pos,
            gamma_neg=self.gamma_neg,
            clip=self.clip,
        )
        if self.weight is not None:
            loss = _label_weight(self.weight, target.to(loss.dtype)) * loss
        return loss / target.shape[1]

    def log_posterior(self, logits: Tensor) -> Tensor:
        """Return the log-odds of each label's posterior; see :meth:`Loss.log_posterior`.

        A probability q of at most `clip` belongs to a posterior of 0: the log-odds are then those
        of the smallest positive number. With ``gamma_pos=0`` and a clip, all posteriors above
        some value have q = 1 and cannot be told apart.
        """
        logits = _at_least_float32(logits)
        tiny = torch.finfo(logits.dtype).tiny
        positive = -_log_slope(-logits, self.gamma_pos, 0.0)
        if self.clip:
            m = (torch.sigmoid(logits) - self.clip).clamp(min=0)
            rest = torch.sigmoid(-logits) + self.clip
            ratio = rest * -rest.log() / m.clamp(min=tiny)
            negative = rest.log() - self.gamma_neg * m.log() - torch.log1p(self.gamma_neg * ratio)
            odds = torch.where(m > 0, positive - negative, math.log(tiny))
        else:
            odds = positive + _log_slope(logits, self.gamma_neg, 0.0)
        if self.weight is not None:
            log_weight = self.weight.to(odds).log()
            odds = odds - log_weight[:, 1] + log_weight[:, 0]
        return odds


class CustomLoss(Loss):
    """A loss of one's own, with class weights and a normalisation around it.

    Parameters
    ----------
    function : callable ``(logits, target) -> Tensor of the shape of target``
        A function or module; a module is part of this one. It must not take the mean over
        samples; of multi-label targets it may take that over labels.
    weight, normalize
        As in :class:`Loss`; the class weight multiplies what `function` returns.

    Examples
    --------
    >>> import torch
    >>> hinge = CustomLoss(torch.nn.MultiMarginLoss(reduction="none"))
    >>> hinge(torch.zeros(2, 2), torch.tensor([0, 1]))
    tensor(0.5000)
    """

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
        loss = self.function(_at_least_float32(logits), target)
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
            weighted = loss if self.weight is None else _label_weight(self.weight, target) * loss
            return weighted.mean(1)
        return loss if self.weight is None else self.weight[target] * loss


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
        Given to losses that have them. Label smoothing of any other raises.
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
    if isinstance(loss, str):
        table, kind = (MULTILABEL_LOSSES, "multi-label") if multilabel else (LOSSES, "single-label")
        if loss not in table:
            raise ValueError(f"loss of {kind} targets must be one of {list(table)}. Got {loss!r}.")
        loss = table[loss]
    if isinstance(loss, nn.Module):
        if params:
            raise ValueError(
                f"loss_params are for a name, a class or a function. Got {sorted(params)} with an "
                f"instance of {type(loss).__name__}, which has its settings already."
            )
        loss = copy.deepcopy(loss)
        if isinstance(loss, Loss):
            return _completed(loss, normalize, weight)
    names = _setting_names(loss)
    unknown = sorted(set(params) - set(names)) if None not in names else []
    if unknown:
        own = sorted(set(names) - {"weight", "normalize", "logits", "target", "counts", "support"})
        raise ValueError(f"loss_params must be among {own}. Got {unknown}.")
    if label_smoothing and "label_smoothing" not in names:
        raise ValueError(
            f"label_smoothing={label_smoothing} is not defined for loss="
            f"{getattr(loss, '__name__', loss)!r}."
        )
    offered = {
        "gamma": gamma,
        "label_smoothing": label_smoothing,
        "counts": counts,
        "support": counts if support is None else support,
    }
    settings = {name: value for name, value in offered.items() if name in names} | params
    if isinstance(loss, type) and issubclass(loss, Loss):
        return loss(**settings, weight=weight, normalize=normalize)
    if isinstance(loss, type):
        if "reduction" in names:
            settings.setdefault("reduction", "none")
        function = loss(**settings)
    else:
        function = functools.partial(loss, **settings) if settings else loss
    return CustomLoss(function, weight=weight, normalize=normalize)


def _setting_names(loss: Any) -> list:
    """Return the names of a loss's arguments; None among them if it takes any."""
    if isinstance(loss, nn.Module):
        return []
    signature = inspect.signature(loss).parameters.values()
    return [None if p.kind is p.VAR_KEYWORD else p.name for p in signature]


def _completed(loss: Loss, normalize: str, weight: ArrayLike | None) -> Loss:
    if weight is not None:
        if loss.weight is not None:
            raise ValueError(
                "alpha and the weight of the loss are both given: leave one of the two out."
            )
        loss.weight = _as_weight(weight)
    if loss.normalize is None:
        loss.normalize = normalize
    return loss
