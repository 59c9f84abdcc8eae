"""Losses on logits that stay right at any confidence and any precision.

Everything here is built from one number, the *margin* of a class: the log-sum-exp of the
other logits minus its own logit. With ``p`` the softmax probability of the class,
``1 - p = sigmoid(margin)`` and ``-log p = softplus(margin)``, so

``(1 - p)**gamma * -log p = exp(gamma * logsigmoid(margin)) * softplus(margin)``.

The right-hand side never forms ``1 - p`` by subtraction: it keeps full relative precision and
a finite gradient for every ``gamma >= 0``, where ``(1 - exp(-ce))**gamma`` underflows or gives
NaN. Two logits or one, softmax or sigmoid, only the margin differs.

It needs torch alone.
"""

from skfocal.losses._base import NORMALIZATIONS, Loss
from skfocal.losses._functional import (
    asymmetric_loss,
    cross_entropy,
    dice_loss,
    focal_loss,
    ldam_loss,
    logit_adjusted_loss,
    poly1_focal_loss,
    sigmoid_focal_loss,
)
from skfocal.losses._make import LOSSES, MULTILABEL_LOSSES, CustomLoss, make_loss
from skfocal.losses._margin import class_margins, target_margin
from skfocal.losses._multi import AsymmetricLoss, SigmoidCrossEntropyLoss, SigmoidFocalLoss
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
    "focal_loss",
    "ldam_loss",
    "logit_adjusted_loss",
    "make_loss",
    "poly1_focal_loss",
    "sigmoid_focal_loss",
    "target_margin",
]
