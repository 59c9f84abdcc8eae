"""Loss modules for one class per sample."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from skfocal.losses._base import (
    LEAST,
    ArrayLike,
    Loss,
    Normalization,
    as_counts,
    check_range,
    is_number,
)
from skfocal.losses._functional import (
    dice_loss,
    focal_loss,
    ldam_loss,
    logit_adjusted_loss,
    poly1_focal_loss,
)
from skfocal.losses._margin import at_least_float32, class_margins, log_slope


class Poly1FocalLoss(Loss):
    """Poly-1 focal loss of a batch, see :func:`poly1_focal_loss`.

    Parameters
    ----------
    gamma : float, default=2.0
        Focusing parameter, at least 0.
    epsilon : float, default=1.0
        Added to the coefficient of ``(1 - p)**(gamma + 1)``, greater than -1. If it is negative
        and gamma is not 0, the loss may not be convex in p and has no inverse.
    weight, normalize : array-like and str, default=None, "samples"
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
        normalize: Normalization = "samples",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight=weight, normalize=normalize)
        check_range("gamma", gamma, 0)
        if not is_number(epsilon) or not -1 < epsilon < math.inf:
            raise ValueError(f"epsilon must be a finite number above -1. Got {epsilon!r}.")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1). Got {label_smoothing!r}.")
        self.gamma = gamma
        self.epsilon = epsilon
        self.label_smoothing = label_smoothing

    @property
    def has_posterior(self) -> bool:
        """Whether the loss is convex in p, so that each minimizer belongs to one posterior."""
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
        probability below its share, becomes 1e-6.
        """
        if not self.has_posterior:
            return super().log_posterior(logits)
        scores = -log_slope(class_margins(at_least_float32(logits)), self.gamma, self.epsilon)
        if self.weight is not None:
            scores = scores - self.weight.to(scores).log()
        return _unsmooth(scores.log_softmax(1), self.label_smoothing)


class FocalLoss(Poly1FocalLoss):
    """Focal loss of a batch, see :func:`focal_loss`.

    Parameters
    ----------
    gamma : float, default=2.0
        Focusing parameter, at least 0; 0 gives cross-entropy.
    weight, normalize : array-like and str, default=None, "samples"
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
        normalize: Normalization = "samples",
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
    weight, normalize : array-like and str, default=None, "samples"
        As in :class:`Loss`. ``normalize="weights"`` behaves as ``torch.nn.CrossEntropyLoss``.
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
        normalize: Normalization = "samples",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(0.0, weight=weight, normalize=normalize, label_smoothing=label_smoothing)


class Poly1Loss(Poly1FocalLoss):
    """Poly-1 cross-entropy of a batch: the Poly-1 focal loss at gamma 0.

    Parameters
    ----------
    epsilon : float, default=1.0
        Added to the coefficient of ``1 - p``, greater than -1.
    weight, normalize : array-like and str, default=None, "samples"
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
        normalize: Normalization = "samples",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(
            0.0, epsilon, weight=weight, normalize=normalize, label_smoothing=label_smoothing
        )


class LogitAdjustedLoss(Loss):
    """Logit-adjusted cross-entropy of a batch, see :func:`logit_adjusted_loss`.

    Parameters
    ----------
    counts : array-like of shape (n_classes,)
        Number of samples of each class that are drawn; 0 counts as 1.
    tau : float, default=1.0
        Strength of the adjustment, at least 0; 0 gives cross-entropy.
    weight, normalize : array-like and str, default=None, "samples"
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
        normalize: Normalization = "samples",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight=weight, normalize=normalize)
        check_range("tau", tau, 0)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1). Got {label_smoothing!r}.")
        shares = as_counts("counts", counts)
        shares = torch.where(shares > 0, shares, torch.ones_like(shares))
        self.register_buffer("log_prior", (shares / shares.sum()).log().float())
        self.tau = tau
        self.label_smoothing = label_smoothing

    @property
    def has_posterior(self) -> bool:
        """Whether :meth:`log_posterior` exists: always."""
        return True

    def implied_class_weight(self) -> Tensor:
        """Return ``prior**-tau``, scaled to a mean of 1 over the drawn samples."""
        log_prior = self.log_prior.cpu().double()
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
        logits = at_least_float32(logits)
        scores = logits + self.tau * self.log_prior.to(logits)
        if self.weight is not None:
            scores = scores - self.weight.to(scores).log()
        return _unsmooth(scores.log_softmax(1), self.label_smoothing)


class LDAMLoss(Loss):
    """Label-distribution-aware margin loss of a batch, see :func:`ldam_loss`.

    The margin of a class is ``max_margin * (min(support) / support)**0.25``, so the rarest class
    has `max_margin`. The logits must be `scale` times a cosine;
    :class:`~skfocal.BertFocalClassifier` gives the encoder such a head when it uses this loss.

    Parameters
    ----------
    support : array-like of shape (n_classes,)
        Number of training samples of each class. A class with none has the margin of the rarest.
    max_margin : float, default=0.5
        The margin of the rarest class, at least 0; 0 gives cross-entropy.
    scale : float, default=30.0
        The factor by which the head multiplies its cosines, greater than 0.
    weight, normalize : array-like and str, default=None, "samples"
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
        normalize: Normalization = "samples",
    ) -> None:
        super().__init__(weight=weight, normalize=normalize)
        check_range("max_margin", max_margin, 0)
        if not is_number(scale) or not 0 < scale < math.inf:
            raise ValueError(f"scale must be a finite number above 0. Got {scale!r}.")
        counts = as_counts("support", support)
        fewest = counts[counts > 0].min() if (counts > 0).any() else counts.new_ones(())
        counts = torch.where(counts > 0, counts, fewest)
        self.register_buffer("margin", (max_margin * (fewest / counts) ** 0.25).float())
        self.max_margin = max_margin
        self.scale = scale

    @property
    def cosine_scale(self) -> float:
        """The factor by which the head multiplies its cosines: `scale`."""
        return self.scale

    @property
    def has_posterior(self) -> bool:
        """Whether :meth:`log_posterior` exists: always."""
        return True

    @property
    def keeps_decision(self) -> bool:
        """Never: different margins can change which class is the largest."""
        return False

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each sample, of shape (n_samples,)."""
        return ldam_loss(logits, target, self.margin, scale=self.scale, weight=self.weight)

    def log_posterior(self, logits: Tensor) -> Tensor:
        """Return the log-posterior of the minimizer; see :meth:`Loss.log_posterior`.

        With q the softmax of the logits,
        ``posterior_c ~ q_c ((1 - q_c) + q_c exp(-scale margin_c)) / w_c`` at the minimum: with
        ``D_c = 1 - q_c (1 - exp(-scale margin_c))``, the gradient is zero where
        ``w_c posterior_c / (q_c D_c)`` is the same for all classes. With a large margin, all but
        the most certain posteriors have nearly the same logits, so the inverse magnifies the
        errors of a trained network.
        """
        margins = class_margins(at_least_float32(logits))
        log_q, log_rest = F.logsigmoid(-margins), F.logsigmoid(margins)
        scores = log_q + torch.logaddexp(log_rest, log_q - self.scale * self.margin.to(log_q))
        if self.weight is not None:
            scores = scores - self.weight.to(scores).log()
        return scores.log_softmax(1)


class DiceLoss(Loss):
    """Self-adjusting dice loss of a batch, see :func:`dice_loss`.

    Parameters
    ----------
    power : float, default=0.1
        In [0, 1); see :func:`dice_loss`.
    smooth : float, default=1.0
        Greater than 0.
    weight, normalize : array-like and str, default=None, "samples"
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
        normalize: Normalization = "samples",
    ) -> None:
        super().__init__(weight=weight, normalize=normalize)
        check_range("power", power, 0, 1)
        if not is_number(smooth) or not 0 < smooth < math.inf:
            raise ValueError(f"smooth must be a finite number above 0. Got {smooth!r}.")
        self.power = power
        self.smooth = smooth

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each sample, of shape (n_samples,)."""
        return dice_loss(logits, target, power=self.power, smooth=self.smooth, weight=self.weight)


def _unsmooth(log_posterior: Tensor, label_smoothing: float) -> Tensor:
    if not label_smoothing:
        return log_posterior
    share = label_smoothing / log_posterior.shape[1]
    raw = (log_posterior.exp() - share) / (1 - label_smoothing)
    return raw.clamp(min=LEAST).log().log_softmax(1)
