"""The base class of the loss modules, and checks of their parameters."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, Literal, Protocol, TypeAlias

import torch
from torch import Tensor, nn


class SupportsArray(Protocol):
    """An ndarray or a Series, without an import of numpy."""

    def __array__(self) -> Any: ...


ArrayLike: TypeAlias = Tensor | SupportsArray | Sequence[float] | Sequence[Sequence[float]]
Normalization: TypeAlias = Literal["samples", "weights", "sum"] | None
# Returned for a posterior that a loss cannot tell from 0. It is not 0: trained networks give such
# logits to real documents.
LEAST = 1e-6
NORMALIZATIONS = ("samples", "weights", "sum", None)


class Loss(nn.Module):
    """Base class of the loss modules: the loss of a batch from the losses of its samples.

    A subclass implements `per_sample` and, if the loss has an inverse, `log_posterior`. Its
    attribute `multilabel` says whether a sample may have several labels; None allows both.

    Parameters
    ----------
    weight : array-like of shape (n_classes,), default=None
        Class weights. They are a buffer: they move with the module and are part of its state.
    normalize : {"samples", "weights", "sum"} or None, default="samples"
        The divisor of the summed loss. ``"samples"`` divides by the number of samples, so that
        the gradient of a sample does not depend on the rest of its batch. ``"weights"`` divides
        by the sum of the samples' class weights, as ``nn.CrossEntropyLoss(weight=...)`` does;
        in small batches this removes most of the effect of the weights. ``"sum"`` does not
        divide. None returns one loss per sample.
    """

    weight: Tensor | None
    multilabel: bool | None = False

    def __init__(
        self, *, weight: ArrayLike | None = None, normalize: Normalization = "samples"
    ) -> None:
        super().__init__()
        if normalize not in NORMALIZATIONS:
            raise ValueError(f"normalize must be one of {NORMALIZATIONS}. Got {normalize!r}.")
        self.normalize: Normalization = normalize
        self.register_buffer("weight", None if weight is None else as_weight(weight))

    @property
    def has_posterior(self) -> bool:
        """Whether :meth:`log_posterior` exists."""
        return False

    @property
    def keeps_decision(self) -> bool:
        """Whether the reweighted posterior has its largest value where the logits have theirs."""
        return self.has_posterior and not getattr(self, "label_smoothing", 0)

    @property
    def cosine_scale(self) -> float | None:
        """The factor by which the head multiplies its cosines; None for a linear head."""
        return None

    def implied_class_weight(self) -> Tensor | None:
        """Return the class weights that equal the loss's own adjustment; None without one."""
        return None

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each sample, class weight included.

        Parameters
        ----------
        logits, target : Tensor
            As in :meth:`forward`.

        Returns
        -------
        Tensor of shape (n_samples,)
        """
        raise NotImplementedError

    def per_class(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each sample, split by class.

        The whole loss of a sample belongs to its own class. With several labels per sample, each
        label has its own part.

        Parameters
        ----------
        logits, target : Tensor
            As in :meth:`forward`.

        Returns
        -------
        Tensor of shape (n_samples, n_classes)
        """
        loss = self.per_sample(logits, target)
        if target.ndim == 2:
            return (loss / target.shape[1])[:, None].expand(target.shape)
        return loss.new_zeros(logits.shape).scatter(1, target[:, None], loss[:, None])

    def log_posterior(self, logits: Tensor) -> Tensor:
        """Return the log-probabilities of the classes in the population that was drawn.

        With a gamma, a class weight or an adjustment, the softmax of the logits that minimise the
        expected loss is not the posterior. This method undoes all three. It is exact for the
        minimizer of the mean over samples.

        Parameters
        ----------
        logits : Tensor of shape (n_samples, n_classes)
            Pass float64 if the last digits matter.

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
            Factor of each sample's loss. Scale it to a mean of 1 over the training set: with
            ``normalize="samples"`` the divisor remains the number of samples.

        Returns
        -------
        Tensor
            A scalar, or of shape (n_samples,) with ``normalize=None``.
        """
        loss = self.per_sample(logits, target)
        if sample_weight is not None:
            loss = sample_weight * loss
        if self.normalize is None:
            return loss
        return loss.sum() / self.divisor(target, sample_weight)

    def divisor(self, target: Tensor, sample_weight: Tensor | None = None) -> Tensor | float:
        """Return the divisor of the summed loss of a batch.

        Parameters
        ----------
        target : Tensor
        sample_weight : Tensor, default=None
            As in :meth:`forward`.

        Returns
        -------
        Tensor or float
        """
        if self.normalize != "weights":
            return max(len(target), 1) if self.normalize == "samples" else 1.0
        total = self.total_weight(target, sample_weight)
        # The loss of a batch whose weights are all zero is zero, not 0 / 0.
        return torch.where(total > 0, total, torch.ones_like(total))

    def total_weight(self, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the sum over a batch of class weight times sample weight.

        Parameters
        ----------
        target : Tensor
        sample_weight : Tensor, default=None
            As in :meth:`forward`.

        Returns
        -------
        Tensor
            A scalar.
        """
        total = torch.ones_like(target[..., 0] if target.ndim == 2 else target, dtype=torch.float32)
        if self.weight is not None:
            total = self._weight_of(target)
        return (total if sample_weight is None else sample_weight * total).sum()

    def _weight_of(self, target: Tensor) -> Tensor:
        assert self.weight is not None
        if target.ndim == 1:
            return self.weight[target]
        return label_weight(self.weight, target).mean(1)

    def extra_repr(self) -> str:
        """Show the settings in the module's repr."""
        hidden = {"training", "weight"}
        settings = {k: v for k, v in vars(self).items() if k[0] != "_" and k not in hidden}
        return ", ".join(f"{name}={value!r}" for name, value in settings.items())


def label_weight(weight: Tensor, target: Tensor) -> Tensor:
    """Return the weight of each element, that of the label's absence or of its presence."""
    present = target.to(weight.dtype)
    return weight[:, 0] * (1 - present) + weight[:, 1] * present


def as_weight(weight: ArrayLike) -> Tensor:
    """Return class weights as a floating-point tensor; refuse all but positive finite numbers."""
    tensor = torch.as_tensor(weight)
    if not (tensor.isfinite().all() and (tensor > 0).all()):
        raise ValueError(f"weight must hold positive finite numbers. Got {tensor.tolist()}.")
    return tensor if tensor.is_floating_point() else tensor.float()


def as_counts(name: str, counts: ArrayLike) -> Tensor:
    """Return the counts in float64."""
    tensor = torch.as_tensor(counts, dtype=torch.float64)
    if not (tensor.isfinite().all() and (tensor >= 0).all()):
        raise ValueError(f"{name} must be finite and at least 0. Got {tensor.tolist()}.")
    return tensor


def is_number(value: object) -> bool:
    """Say whether a value is a real number; a bool is not."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_range(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Raise a ValueError unless a value is a number in ``[low, high)``."""
    if not is_number(value) or not low <= value < high:
        bounds = f"of at least {low:g}" if high == math.inf else f"in [{low:g}, {high:g})"
        raise ValueError(f"{name} must be a finite number {bounds}. Got {value!r}.")
