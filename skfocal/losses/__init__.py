"""Losses on logits that stay accurate at any confidence and in any precision.

All of them are built from one number, the *margin* of a class: the log-sum-exp of the other
logits minus the class's own logit. With ``p`` the softmax probability of the class,
``1 - p = sigmoid(margin)`` and ``-log p = softplus(margin)``, so

``(1 - p)**gamma * -log p = exp(gamma * logsigmoid(margin)) * softplus(margin)``.

The right-hand side never computes ``1 - p`` by subtraction. It keeps full relative precision and
a finite gradient for every ``gamma >= 0``, where ``(1 - exp(-ce))**gamma`` underflows or gives
NaN. Softmax and sigmoid losses differ only in the margin.

This package depends on torch alone.
"""

from skfocal.losses._base import NORMALIZATIONS, Loss
from skfocal.losses._functional import (
    asymmetric_loss,
    cross_entropy,
    dice_loss,
    distribution_balanced_loss,
    focal_loss,
    ldam_loss,
    logit_adjusted_loss,
    poly1_focal_loss,
    sigmoid_focal_loss,
)
from skfocal.losses._make import LOSSES, MULTILABEL_LOSSES, CustomLoss, make_loss
from skfocal.losses._margin import class_margins, target_margin
from skfocal.losses._multi import (
    AsymmetricLoss,
    DistributionBalancedLoss,
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

__all__ = [
    "AsymmetricLoss",
    "CrossEntropyLoss",
    "CustomLoss",
    "DiceLoss",
    "DistributionBalancedLoss",
    "FocalLoss",
    "LDAMLoss",
    "LOSSES",
    "LogitAdjustedLoss",
    "Loss",
    "MULTILABEL_LOSSES",
    "NORMALIZATIONS",
    "Poly1FocalLoss",
    "Poly1Loss",
    "SigmoidCrossEntropyLoss",
    "SigmoidFocalLoss",
    "asymmetric_loss",
    "class_margins",
    "cross_entropy",
    "dice_loss",
    "distribution_balanced_loss",
    "focal_loss",
    "ldam_loss",
    "logit_adjusted_loss",
    "make_loss",
    "poly1_focal_loss",
    "sigmoid_focal_loss",
    "target_margin",
]
