"""What all loss modules share."""

import math
from collections.abc import Sequence
from numbers import Real

import torch
from torch import Tensor, nn

ArrayLike = Tensor | Sequence[float]
# The posterior of what a loss cannot tell from 0: a trained network gives it to real documents.
LEAST = 1e-6
NORMALIZATIONS = ("samples", "weights", "sum", None)


class Loss(nn.Module):
    """Loss of a batch from the losses of its samples: what all the modules share.

    A subclass gives `per_sample` and, where there is an inverse, `log_posterior`; its attribute
    `multilabel` says whether it is for several labels a sample (None: for either).

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
    multilabel: bool | None = False

    def __init__(
        self, *, weight: ArrayLike | None = None, normalize: str | None = "samples"
    ) -> None:
        super().__init__()
        if normalize not in NORMALIZATIONS:
            raise ValueError(f"normalize must be one of {NORMALIZATIONS}. Got {normalize!r}.")
        self.normalize = normalize
        self.register_buffer("weight", None if weight is None else as_weight(weight))

    @property
    def has_posterior(self) -> bool:
        """Whether :meth:`log_posterior` exists."""
        return False

    @property
    def keeps_decision(self) -> bool:
        """Whether the posterior of the reweighted classes has the decisions of the logits."""
        return self.has_posterior and not getattr(self, "label_smoothing", 0)

    @property
    def cosine_scale(self) -> float | None:
        """What the head has to multiply its cosines by; None: the head is linear."""
        return None

    def implied_class_weight(self) -> Tensor | None:
        """Return what the loss's own adjustment is worth as class weights, None for nothing."""
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
        """Return the part of each sample's loss that each class carries.

        The whole lies with the sample's own class; with several labels a sample each has its own
        part.

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
        return loss.sum() / self.divisor(target, sample_weight)

    def divisor(self, target: Tensor, sample_weight: Tensor | None = None) -> Tensor | float:
        """Return what the summed loss of a batch is divided by.

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
        # A batch whose weights are all zero has loss zero, not 0 / 0.
        return torch.where(total > 0, total, torch.ones_like(total))

    def total_weight(self, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the sum of the weights of a batch's samples, of classes and their own.

        Parameters
        ----------
        target : Tensor
        sample_weight : Tensor, default=None
            As in :meth:`forward`.

        Returns
        -------
        Tensor, a scalar
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
    """Return the weight of each element: of the label's absence or of its presence."""
    return weight[:, 0] * (1 - target) + weight[:, 1] * target


def as_weight(weight: ArrayLike) -> Tensor:
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
    return isinstance(value, Real) and not isinstance(value, bool)


def check_range(name: str, value: float, low: float, high: float = math.inf) -> None:
    if not is_number(value) or not low <= value < high:
        least = f"of at least {low:g}" if high == math.inf else f"in [{low:g}, {high:g})"
        raise ValueError(f"{name} must be a finite number {least}. Got {value!r}.")
