"""Loss modules for several labels per sample."""

import math

import torch
from torch import Tensor

from skfocal.losses._base import (
    LEAST,
    ArrayLike,
    Loss,
    Normalization,
    as_counts,
    check_range,
    label_weight,
)
from skfocal.losses._functional import (
    asymmetric_loss,
    distribution_balanced_loss,
    sigmoid_focal_loss,
)
from skfocal.losses._margin import (
    at_least_float32,
    clipped_negative,
    focal_term,
    log_slope,
    log_slope_of_margin,
    rebalanced_weight,
    tolerance_shift,
)

# With gamma, beyond about 25 the odds of a label would no longer rise everywhere with its logit.
_MOST_INVERTIBLE_SCALE = 20


class MultilabelLoss(Loss):
    """Base class of the losses for several labels per sample: weights of absence and presence."""

    multilabel = True

    def __init__(self, *, weight: ArrayLike | None, normalize: Normalization) -> None:
        super().__init__(weight=weight, normalize=normalize)
        if self.weight is not None and (self.weight.ndim != 2 or self.weight.shape[1] != 2):
            raise ValueError(
                "weight must have shape (n_labels, 2): weights of absence and presence per label. "
                f"Got {tuple(self.weight.shape)}."
            )

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each sample, of shape (n_samples,)."""
        return self.per_class(logits, target).sum(1)

    def _weighted_mean(self, loss: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each label by its weight, as a part of the mean over the labels."""
        if self.weight is not None:
            loss = label_weight(self.weight, target.to(loss.dtype)) * loss
        return loss / target.shape[1]

    def _unweighted(self, odds: Tensor) -> Tensor:
        """Return log-odds without what the weights have added to them."""
        if self.weight is None:
            return odds
        log_weight = self.weight.to(odds).log()
        return odds - log_weight[:, 1] + log_weight[:, 0]


class SigmoidFocalLoss(MultilabelLoss):
    """Focal loss of a batch of multi-label targets, averaged over the labels.

    Parameters
    ----------
    gamma : float, default=2.0
        Focusing parameter, at least 0; 0 gives the binary cross-entropy of each label.
    weight : array-like of shape (n_labels, 2), default=None
        Weights of the absence and of the presence of each label.
    normalize : {"samples", "weights", "sum"} or None, default="samples"
        As in :class:`Loss`.
    label_smoothing : float, default=0.0
        In [0, 1). With label smoothing ``e`` a target becomes ``(1 - e) target + e / 2``.

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
        normalize: Normalization = "samples",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight=weight, normalize=normalize)
        check_range("gamma", gamma, 0)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1). Got {label_smoothing!r}.")
        self.gamma = gamma
        self.label_smoothing = label_smoothing

    @property
    def has_posterior(self) -> bool:
        """Whether :meth:`log_posterior` exists: always."""
        return True

    def per_class(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each sample, split by label; see :meth:`Loss.per_class`."""
        target = target.to(at_least_float32(logits).dtype)
        target = (1 - self.label_smoothing) * target + self.label_smoothing / 2
        if self.weight is None:
            return sigmoid_focal_loss(logits, target, gamma=self.gamma) / target.shape[1]
        both = at_least_float32(logits)
        positive = self.weight[:, 1] * target * focal_term(-both, self.gamma)
        negative = self.weight[:, 0] * (1 - target) * focal_term(both, self.gamma)
        return (positive + negative) / target.shape[1]

    def log_posterior(self, logits: Tensor) -> Tensor:
        """Return the log-odds of each label's posterior; see :meth:`Loss.log_posterior`."""
        logits = at_least_float32(logits)
        odds = log_slope(logits, self.gamma, 0.0) - log_slope(-logits, self.gamma, 0.0)
        return _unsmooth_odds(self._unweighted(odds), self.label_smoothing)


class SigmoidCrossEntropyLoss(SigmoidFocalLoss):
    """Binary cross-entropy of a batch of multi-label targets: the focal loss at gamma 0.

    Parameters
    ----------
    weight, normalize, label_smoothing : array-like, str and float, default=None, "samples", 0.0
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
        normalize: Normalization = "samples",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(0.0, weight=weight, normalize=normalize, label_smoothing=label_smoothing)


class AsymmetricLoss(MultilabelLoss):
    """Asymmetric loss of a batch of multi-label targets, averaged over the labels.

    Parameters
    ----------
    gamma_pos, gamma_neg : float, default=1.0, 4.0
        Focusing parameters of positives and negatives, at least 0.
    clip : float, default=0.05
        In [0, 1). The loss of a negative with a smaller probability is 0.
    weight : array-like of shape (n_labels, 2), default=None
        Weights of the absence and of the presence of each label.
    normalize : {"samples", "weights", "sum"} or None, default="samples"
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
        normalize: Normalization = "samples",
    ) -> None:
        super().__init__(weight=weight, normalize=normalize)
        check_range("gamma_pos", gamma_pos, 0)
        check_range("gamma_neg", gamma_neg, 0)
        check_range("clip", clip, 0, 1)
        self.gamma_pos = gamma_pos
        self.gamma_neg = gamma_neg
        self.clip = clip

    @property
    def has_posterior(self) -> bool:
        """Whether :meth:`log_posterior` exists: always, but see its limit."""
        return True

    @property
    def keeps_decision(self) -> bool:
        """Only if both sides are treated alike: otherwise the threshold of one half moves."""
        return self.gamma_pos == self.gamma_neg and not self.clip

    def per_class(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each sample, split by label; see :meth:`Loss.per_class`."""
        loss = asymmetric_loss(
            logits,
            target,
            gamma_pos=self.gamma_pos,
            gamma_neg=self.gamma_neg,
            clip=self.clip,
        )
        return self._weighted_mean(loss, target)

    def log_posterior(self, logits: Tensor) -> Tensor:
        """Return the log-odds of each label's posterior; see :meth:`Loss.log_posterior`.

        A probability q of at most `clip` belongs to a posterior of 0 and is returned as 1e-6. With
        ``gamma_pos=0`` and a clip, all posteriors above some value have q = 1 and cannot be
        distinguished.
        """
        logits = at_least_float32(logits)
        positive = -log_slope(-logits, self.gamma_pos, 0.0)
        if self.clip:
            m, nll = clipped_negative(logits, self.clip)
            ratio = torch.exp(-nll) * nll / m.clamp(min=torch.finfo(m.dtype).tiny)
            negative = -nll - self.gamma_neg * m.log() - torch.log1p(self.gamma_neg * ratio)
            odds = (positive - negative).clamp(min=math.log(LEAST))
            odds = torch.where(m > 0, odds, math.log(LEAST))
        else:
            odds = positive + log_slope(logits, self.gamma_neg, 0.0)
        return self._unweighted(odds)


class DistributionBalancedLoss(MultilabelLoss):
    """Distribution-balanced loss of a batch of multi-label targets, averaged over the labels.

    See :func:`distribution_balanced_loss` for the formula. The other losses of the two papers are
    special cases:

    - DB: the defaults
    - R-FL: ``negative_scale=1.0, kappa=0.0``
    - R-BCE: the same with ``gamma=0.0``
    - NTR-FL: ``rebalance=False``
    - CB-NTR: ``rebalance=False`` and a `weight`

    Parameters
    ----------
    support : array-like of shape (n_labels, 2)
        Number of training documents without and with each label.
    gamma : float, default=2.0
        Focusing parameter, at least 0.
    rebalance : bool, default=True
        Whether to weigh each label of a document by how rare it is among the document's labels.
        Then the loss has no inverse: the weight of a label depends on the other labels.
    floor, beta, mu : float, default=0.1, 10.0, 0.9
        Settings of these weights, at least 0; see :func:`distribution_balanced_loss`.
    negative_scale : float, default=2.0
        The factor of a negative's logit, at least 1; 1 treats both sides alike. Beyond 20 the
        loss has no inverse unless gamma is 0.
    kappa : float, default=0.05
        The strength of the shift of rare labels' logits, at least 0; 0 gives none.
    weight : array-like of shape (n_labels, 2), default=None
        Weights of the absence and of the presence of each label. They multiply the rebalanced
        weights.
    normalize : {"samples", "weights", "sum"} or None, default="samples"
        As in :class:`Loss`. The divisor of "weights" includes the rebalanced weights.

    References
    ----------
    Wu et al.: Distribution-Balanced Loss for Multi-Label Classification in Long-Tailed Datasets,
    ECCV 2020 (arXiv:2007.09654).
    Huang et al.: Balancing Methods for Multi-label Text Classification with Long-Tailed Class
    Distribution, EMNLP 2021 (arXiv:2109.04712).

    Examples
    --------
    >>> import torch
    >>> loss = DistributionBalancedLoss([[10, 90], [95, 5]])
    >>> loss(torch.zeros(2, 2), torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    tensor(0.0869)
    """

    support: Tensor

    def __init__(
        self,
        support: ArrayLike,
        gamma: float = 2.0,
        *,
        rebalance: bool = True,
        floor: float = 0.1,
        beta: float = 10.0,
        mu: float = 0.9,
        negative_scale: float = 2.0,
        kappa: float = 0.05,
        weight: ArrayLike | None = None,
        normalize: Normalization = "samples",
    ) -> None:
        super().__init__(weight=weight, normalize=normalize)
        check_range("gamma", gamma, 0)
        if rebalance not in (True, False):
            raise ValueError(f"rebalance must be True or False. Got {rebalance!r}.")
        check_range("floor", floor, 0)
        check_range("beta", beta, 0)
        check_range("mu", mu, 0)
        check_range("negative_scale", negative_scale, 1)
        check_range("kappa", kappa, 0)
        counts = as_counts("support", support)
        if counts.ndim != 2 or counts.shape[1] != 2:
            raise ValueError(
                "support must have shape (n_labels, 2): documents without and with each label. "
                f"Got {tuple(counts.shape)}."
            )
        self.register_buffer("support", counts.float())
        self.gamma = gamma
        self.rebalance = bool(rebalance)
        self.floor = floor
        self.beta = beta
        self.mu = mu
        self.negative_scale = negative_scale
        self.kappa = kappa

    @property
    def has_posterior(self) -> bool:
        """Whether the odds of a label depend on its logit alone and rise with it."""
        invertible = not self.gamma or self.negative_scale <= _MOST_INVERTIBLE_SCALE
        return invertible and not self.rebalance

    def implied_class_weight(self) -> Tensor | None:
        """Return the weights that move a label's threshold as far as `kappa` does.

        They are scaled to a mean of 1 over the training documents. None with `rebalance`, whose
        weights differ between documents.
        """
        if not self.has_posterior:
            return None
        support = self.support.cpu().double()
        zero = support.new_zeros(1, len(support))
        presence = torch.exp(-self._log_odds(zero, support)[0])
        weight = torch.stack([torch.ones_like(presence), presence], 1)
        documents = torch.where(support.sum(1, keepdim=True) > 0, support, torch.ones_like(support))
        shares = documents / documents.sum(1, keepdim=True)
        return weight / (shares * weight).sum(1, keepdim=True)

    def per_class(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each sample, split by label; see :meth:`Loss.per_class`."""
        loss = distribution_balanced_loss(
            logits,
            target,
            self.support,
            gamma=self.gamma,
            rebalance=self.rebalance,
            floor=self.floor,
            beta=self.beta,
            mu=self.mu,
            negative_scale=self.negative_scale,
            kappa=self.kappa,
        )
        return self._weighted_mean(loss, target)

    def total_weight(self, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the sum over a batch of all weights; see :meth:`Loss.total_weight`."""
        if not self.rebalance:
            return super().total_weight(target, sample_weight)
        target = target.to(torch.promote_types(target.dtype, self.support.dtype))
        support = self.support.to(target)
        each = rebalanced_weight(target, support, floor=self.floor, beta=self.beta, mu=self.mu)
        if self.weight is not None:
            each = label_weight(self.weight, target) * each
        total = each.mean(1)
        return (total if sample_weight is None else sample_weight * total).sum()

    def log_posterior(self, logits: Tensor) -> Tensor:
        """Return the log-odds of each label's posterior; see :meth:`Loss.log_posterior`.

        With ``f(a)`` the focal term of a margin ``a`` and ``s`` the shifted logit, the expected
        loss of a label is least where the odds are ``f'(negative_scale s) / f'(-s)``. They rise
        with ``s`` for every `negative_scale` up to 20, and for any if gamma is 0.
        """
        if not self.has_posterior:
            return super().log_posterior(logits)
        logits = at_least_float32(logits)
        return self._unweighted(self._log_odds(logits, self.support.to(logits)))

    def _log_odds(self, logits: Tensor, support: Tensor) -> Tensor:
        shifted = logits - tolerance_shift(support, self.kappa)
        negative = log_slope_of_margin(self.negative_scale * shifted, self.gamma)
        return negative - log_slope_of_margin(-shifted, self.gamma)


def _unsmooth_odds(log_odds: Tensor, label_smoothing: float) -> Tensor:
    if not label_smoothing:
        return log_odds
    sides = [(torch.sigmoid(side) - label_smoothing / 2) for side in (log_odds, -log_odds)]
    positive, negative = (side.clamp(min=LEAST).log() for side in sides)
    return positive - negative
