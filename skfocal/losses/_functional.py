"""Losses of the single samples, as functions."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from skfocal.losses._margin import (
    at_least_float32,
    class_margins,
    clipped_negative,
    focal_term,
    rebalanced_weight,
    target_margin,
    tolerance_shift,
)


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
        Scores before the softmax. Half precision is computed in float32.
    target : Tensor of shape (n_samples,), int64
        Class codes.
    gamma : float, default=2.0
        Focusing parameter, at least 0.
    weight : Tensor of shape (n_classes,), default=None
        The weight of each class, alpha in the paper. None gives all classes the same weight.
    label_smoothing : float, default=0.0
        In [0, 1).

    Returns
    -------
    Tensor of shape (n_samples,), float32 or wider

    Raises
    ------
    ValueError
        If the shapes do not match or there are fewer than two classes.

    References
    ----------
    Lin, Goyal, Girshick, He, Dollar: Focal Loss for Dense Object Detection, ICCV 2017
    (arXiv:1708.02002), which defines it for a binary sigmoid.

    Examples
    --------
    >>> import torch
    >>> logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 0.0, 0.0]])
    >>> focal_loss(logits, torch.tensor([0, 2]), gamma=2.0)
    tensor([0.0041, 0.4883])
    """
    return _separable_loss(
        logits, target, lambda margin: focal_term(margin, gamma), weight, label_smoothing
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
    logits = at_least_float32(logits)
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

    The values are those of ``torch.nn.functional.cross_entropy(reduction="none")``, computed in
    the margin form: a sample that is confidently right has a small loss instead of exactly zero.

    Parameters
    ----------
    logits : Tensor of shape (n_samples, n_classes), floating point
        Scores before the softmax. Half precision is computed in float32.
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
        If the shapes do not match or there are fewer than two classes.

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

    In the expansion of the focal loss in powers of ``1 - p_t``, the coefficient of the first term
    becomes ``1 + epsilon``. With ``gamma=0`` this is the Poly-1 cross-entropy.

    Parameters
    ----------
    logits : Tensor of shape (n_samples, n_classes), floating point
        Scores before the softmax. Half precision is computed in float32.
    target : Tensor of shape (n_samples,), int64
        Class codes.
    gamma : float, default=2.0
        Focusing parameter, at least 0.
    epsilon : float, default=1.0
        Greater than -1; 0 gives the focal loss.
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
        If the shapes do not match or there are fewer than two classes.

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
    return focal_term(margin, gamma) + epsilon * extra


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

    A model trained with it minimizes the balanced error if its plain logits, without the
    adjustment, decide. ``tau=1`` is the balanced softmax; there ``log_prior`` may also be the
    logarithm of the counts, as a constant changes nothing.

    Parameters
    ----------
    logits : Tensor of shape (n_samples, n_classes), floating point
        Scores before the softmax. Half precision is computed in float32.
    target : Tensor of shape (n_samples,), int64
        Class codes.
    log_prior : Tensor of shape (n_classes,)
        Logarithm of the share of each class among the samples drawn.
    tau : float, default=1.0
        At least 0; 0 gives cross-entropy.
    weight : Tensor of shape (n_classes,), default=None
        The weight of each class. It corrects the same imbalance as the adjustment, so the two are
        rarely useful together.
    label_smoothing : float, default=0.0
        In [0, 1).

    Returns
    -------
    Tensor of shape (n_samples,), float32 or wider

    Raises
    ------
    ValueError
        If the shapes do not match or there are fewer than two classes.

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
    adjusted = at_least_float32(logits) + tau * log_prior
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

    It is the cross-entropy after ``scale * margin_t`` is subtracted from the target's logit. The
    logits must be `scale` times a cosine: a margin has no meaning for a linear layer, whose
    weights can grow to make up for it.

    Parameters
    ----------
    logits : Tensor of shape (n_samples, n_classes), floating point
        `scale` times the cosine between the features and the class vector. Half precision is
        computed in float32.
    target : Tensor of shape (n_samples,), int64
        Class codes.
    margin : Tensor of shape (n_classes,)
        By how much the target's cosine must exceed the others; see :class:`LDAMLoss`.
    scale : float, default=30.0
        The factor by which the cosines were multiplied.
    weight : Tensor of shape (n_classes,), default=None
        The weight of each class.

    Returns
    -------
    Tensor of shape (n_samples,), float32 or wider

    Raises
    ------
    ValueError
        If the shapes do not match or there are fewer than two classes.

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
    logits = at_least_float32(logits)
    behind = target_margin(logits, target) + scale * margin.to(logits)[target]
    loss = focal_term(behind, 0.0)
    return loss if weight is None else weight[target] * loss


def dice_loss(
    logits: Tensor,
    target: Tensor,
    *,
    power: float = 0.1,
    smooth: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """Return the self-adjusting dice loss of each sample, averaged over the classes.

    It is ``w_t mean_c(1 - (2 d_c y_c + smooth) / (d_c + y_c + smooth))`` with
    ``d_c = (1 - p_c)**power p_c`` and ``y`` one-hot. It is not a proper loss: the posterior cannot
    be computed from the logits that minimize it.

    Parameters
    ----------
    logits : Tensor of shape (n_samples, n_classes), floating point
        Scores before the softmax. Half precision is computed in float32.
    target : Tensor of shape (n_samples,), int64
        Class codes.
    power : float, default=0.1
        At least 0; 0 gives the plain dice loss. ``d_c`` is largest at ``p_c = 1 / (1 + power)``
        and falls beyond it. With 1, as in the paper, the loss cannot tell whether a certain
        prediction is right, and with two classes it does not depend on the label at all.
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
        If the shapes do not match or there are fewer than two classes.

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
    margins = class_margins(at_least_float32(logits))
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

    It is ``-(1 - p)**gamma_pos log p`` for a positive and ``-m**gamma_neg log(1 - m)`` with
    ``m = max(p - clip, 0)`` for a negative. The gradient flows through every factor, as in the
    paper; the authors' own module detaches the focusing weight.

    Parameters
    ----------
    logits : Tensor of any shape, floating point
        Scores before the sigmoid. Half precision is computed in float32.
    target : Tensor of the same shape, values in [0, 1]
        1 if the label applies.
    gamma_pos, gamma_neg : float, default=1.0, 4.0
        Focusing parameters of positives and negatives, at least 0.
    clip : float, default=0.05
        In [0, 1). The loss of a negative with a smaller probability is 0.

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
    logits = at_least_float32(logits)
    target = target.to(logits.dtype)
    negative = _clipped_negative(logits, gamma_neg, clip)
    return target * focal_term(-logits, gamma_pos) + (1 - target) * negative


def _clipped_negative(logits: Tensor, gamma: float, clip: float) -> Tensor:
    if not clip:
        return focal_term(logits, gamma)
    m, nll = clipped_negative(logits, clip)
    # For gamma < 1 the power has an infinite slope at 0, and the gradient of where() turns that
    # into NaN even in elements that it does not select. So 0 is replaced before the power, too.
    above = m > 0
    power = torch.where(above, m, torch.ones_like(m)) ** gamma
    return torch.where(above, power * nll, torch.zeros_like(m))


def distribution_balanced_loss(
    logits: Tensor,
    target: Tensor,
    support: Tensor,
    *,
    gamma: float = 2.0,
    rebalance: bool = True,
    floor: float = 0.1,
    beta: float = 10.0,
    mu: float = 0.9,
    negative_scale: float = 2.0,
    kappa: float = 0.05,
) -> Tensor:
    """Return the distribution-balanced loss of each element, for multi-label targets.

    With ``s = z - kappa * log(absent / present)`` and ``q`` the sigmoid of ``s``, it is
    ``-r (1 - q)**gamma log q`` for a positive. For a negative it is
    ``-r / negative_scale * q**gamma log(1 - q)``, and there ``q`` is the sigmoid of
    ``negative_scale * s``. It has three parts, each of which can be switched off:

    - The rebalanced weight ``r`` (``rebalance=False``). A sampler that draws all labels equally
      often would draw a document for each of its labels. ``x_i = (1 / n_i) / sum_j(y_j / n_j)`` is
      how often a document is drawn for label ``i``, divided by how often this one is drawn in
      all; ``n`` counts the documents with a label. For positives and negatives alike
      ``r_i = floor + sigmoid(beta (x_i - mu))``. In a document with a rare label, the frequent
      ones weigh little more than `floor`; in one with frequent labels alone, the rare ones weigh
      nearly ``1 + floor``.
    - The tolerance for negatives (``negative_scale=1.0, kappa=0.0``). Their loss flattens sooner,
      and the logits of rare labels are pushed down less.
    - The focal factor (``gamma=0.0``). Without all three parts it is the binary cross-entropy.

    Parameters
    ----------
    logits : Tensor of shape (n_samples, n_labels), floating point
        Scores before the sigmoid. Half precision is computed in float32.
    target : Tensor of the same shape, values in [0, 1]
        1 if the label applies.
    support : Tensor of shape (n_labels, 2)
        Number of training documents without and with each label. A label that all or no documents
        have gets no shift, and in `r` a label of no document counts as one of a single document.
    gamma : float, default=2.0
        Focusing parameter, at least 0.
    rebalance : bool, default=True
        Whether to multiply by `r`. It is ``1 + floor``, its limit, in a document without labels.
    floor : float, default=0.1
        The least weight, at least 0. It is alpha in the papers.
    beta, mu : float, default=10.0, 0.9
        How steeply `r` rises with ``x``, and where; at least 0.
    negative_scale : float, default=2.0
        The factor of a negative's logit, lambda in the papers, at least 1.
    kappa : float, default=0.05
        The strength of the shift, at least 0.

    Returns
    -------
    Tensor of the shape of logits, float32 or wider

    Raises
    ------
    ValueError
        If the shapes do not match.

    Notes
    -----
    The defaults are those of Huang et al. The public code of both papers also multiplies the whole
    loss by a constant, 1/2 for text and 2 for images, which is left out here.

    References
    ----------
    Wu, Huang, Liu, Wang, Lin: Distribution-Balanced Loss for Multi-Label Classification in
    Long-Tailed Datasets, ECCV 2020 (arXiv:2007.09654).
    Huang, Giledereli, Koksal, Ozgur, Ozkirimli: Balancing Methods for Multi-label Text
    Classification with Long-Tailed Class Distribution, EMNLP 2021 (arXiv:2109.04712).

    Examples
    --------
    A document with a rare label counts little at the frequent one:

    >>> import torch
    >>> support = torch.tensor([[10.0, 90.0], [95.0, 5.0]])
    >>> target = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    >>> distribution_balanced_loss(torch.zeros(2, 2), target, support)
    tensor([[0.1187, 0.0558],
            [0.0143, 0.1588]])
    """
    _check_same_shape(logits, target)
    if logits.ndim != 2 or support.shape != (logits.shape[1], 2):
        raise ValueError(
            "logits must have shape (n_samples, n_labels) and support (n_labels, 2). "
            f"Got {tuple(logits.shape)} and {tuple(support.shape)}."
        )
    logits = at_least_float32(logits)
    target, support = target.to(logits.dtype), support.to(logits)
    shifted = logits - tolerance_shift(support, kappa)
    positive = focal_term(-shifted, gamma)
    negative = focal_term(negative_scale * shifted, gamma) / negative_scale
    loss = target * positive + (1 - target) * negative
    if not rebalance:
        return loss
    return rebalanced_weight(target, support, floor=floor, beta=beta, mu=mu) * loss


def sigmoid_focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float = 2.0,
    alpha: float | Tensor | None = None,
) -> Tensor:
    """Return the focal loss of each element, for binary and multi-label targets.

    It is ``-alpha_t (1 - p_t)**gamma log p_t`` with ``p_t = p t + (1 - p)(1 - t)`` and, as in the
    paper, ``alpha_t = alpha t + (1 - alpha)(1 - t)``: alpha is the weight of the positives.

    Parameters
    ----------
    logits : Tensor of any shape, floating point
        Scores before the sigmoid. Half precision is computed in float32.
    target : Tensor of the same shape, values in [0, 1]
        1 if the label applies.
    gamma : float, default=2.0
        Focusing parameter, at least 0.
    alpha : float or Tensor that broadcasts over the last axis, default=None
        In [0, 1]. None gives positives and negatives the weight 1, while 0.5 gives both the
        weight 0.5. The 0.25 of the paper belongs to gamma=2 and the background class of an
        object detector.

    Returns
    -------
    Tensor of the shape of logits, float32 or wider

    Raises
    ------
    ValueError
        If logits and target differ in shape, or if alpha is a number outside [0, 1].

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
    if isinstance(alpha, float | int) and not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], or None for no weights. Got {alpha}.")
    logits = at_least_float32(logits)
    target = target.to(logits.dtype)
    positive = target * focal_term(-logits, gamma)
    negative = (1 - target) * focal_term(logits, gamma)
    return positive + negative if alpha is None else alpha * positive + (1 - alpha) * negative


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
            f"target must have shape ({logits.shape[0]},), one class code per row of logits. "
            f"Got {tuple(target.shape)}."
        )
    if weight is not None and weight.shape != logits.shape[1:]:
        raise ValueError(
            f"{name} must have shape ({logits.shape[1]},), one number per class. "
            f"Got {tuple(weight.shape)}."
        )
