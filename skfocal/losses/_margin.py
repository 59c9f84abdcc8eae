"""The margin of a class, and the terms that the losses consist of."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def at_least_float32(logits: Tensor) -> Tensor:
    """Return logits in float32, or in their own precision if that is higher.

    In bfloat16 the loss of a confident example would round to exactly zero.
    """
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def target_margin(logits: Tensor, target: Tensor) -> Tensor:
    """Return the margin of the target class, ``logsumexp(others) - own``.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes)
    target : Tensor of shape (n,), int64

    Returns
    -------
    Tensor of shape (n,)
    """
    index = target[:, None]
    others = logits.scatter(1, index, -math.inf).logsumexp(1)
    return others - logits.gather(1, index)[:, 0]


def class_margins(logits: Tensor) -> Tensor:
    """Return the margin of every class.

    For every class but the one with the largest logit, the sum over the other classes contains the
    largest term, so subtracting the class's own term from the total is safe. The class with the
    largest logit gets a sum of its own.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes)

    Returns
    -------
    Tensor of shape (n, n_classes)
    """
    top = logits.argmax(1, keepdim=True)
    is_top = torch.zeros_like(logits, dtype=torch.bool).scatter(1, top, True)
    shift = logits.gather(1, top).detach()
    terms = torch.exp(logits - shift)
    rest = (terms.sum(1, keepdim=True) - terms).masked_fill(is_top, 1.0)
    without_top = logits.masked_fill(is_top, -math.inf).logsumexp(1, keepdim=True)
    return torch.where(is_top, without_top, shift + torch.log(rest)) - logits


def focal_term(margin: Tensor, gamma: float) -> Tensor:
    """Return ``(1 - p)**gamma * -log p`` at the p of a margin."""
    # F.softplus is linear above 20, an error of 1e-10 in float64; -logsigmoid(-a) has no such cut.
    return torch.exp(gamma * F.logsigmoid(margin)) * -F.logsigmoid(-margin)


def log_slope(margin: Tensor, gamma: float, epsilon: float) -> Tensor:
    """Return ``log(-f'(p))`` at the p of a margin, with f the Poly-1 focal term of p."""
    log_p, log_rest = F.logsigmoid(-margin), F.logsigmoid(margin)
    # p * -log(p) / (1 - p), which approaches 1 as p does; there the exponentials would overflow.
    near = margin < -36
    safe = torch.where(near, torch.zeros_like(margin), margin)
    ratio = torch.exp(F.logsigmoid(-safe) - F.logsigmoid(safe)) * -F.logsigmoid(-safe)
    ratio = torch.where(near, torch.ones_like(ratio), ratio)
    p = torch.exp(log_p)
    return gamma * log_rest - log_p + torch.log1p(gamma * ratio + epsilon * (gamma + 1) * p)


def log_slope_of_margin(margin: Tensor, gamma: float) -> Tensor:
    """Return the logarithm of the slope of :func:`focal_term` in the margin."""
    # dp / da = -p (1 - p), with p the sigmoid of -a.
    return log_slope(margin, gamma, 0.0) + F.logsigmoid(margin) + F.logsigmoid(-margin)


def tolerance_shift(support: Tensor, kappa: float) -> Tensor:
    """Return ``kappa * log(absent / present)`` of each label; 0 if all or no documents have it."""
    absent, present = support.log().unbind(1)
    varies = (support > 0).all(1)
    return kappa * torch.where(varies, absent - present, torch.zeros_like(absent))


def rebalanced_weight(
    target: Tensor, support: Tensor, *, floor: float, beta: float, mu: float
) -> Tensor:
    """Return the weight of each label of each document in the distribution-balanced loss.

    Parameters
    ----------
    target : Tensor of shape (n, n_labels), floating point
    support : Tensor of shape (n_labels, 2)
    floor, beta, mu : float
        As in :func:`distribution_balanced_loss`.

    Returns
    -------
    Tensor of shape (n, n_labels)
    """
    present = support[:, 1]
    rarity = 1 / torch.where(present > 0, present, torch.ones_like(present))
    repeats = (target * rarity).sum(1, keepdim=True)
    smooth = torch.sigmoid(beta * (rarity / repeats - mu))
    return floor + smooth.masked_fill(repeats == 0, 1.0)


def clipped_negative(logits: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """Return ``m = max(p - clip, 0)``, with p the sigmoid of the logits, and ``-log(1 - m)``."""
    m = (torch.sigmoid(logits) - clip).clamp(min=0)
    # Each form is used where it is accurate: one near m = 0; the other, which subtracts nothing
    # from 1, near p = 1.
    near_zero = -torch.log1p(-m.clamp(max=0.5))
    near_one = -torch.log(torch.sigmoid(-logits) + clip)
    return m, torch.where(m < 0.5, near_zero, near_one)
