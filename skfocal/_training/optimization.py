"""Updates of the weights: clipped, scaled for float16, and finite."""

import torch
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from skfocal._encoder.structure import layers_of, parameter_depths
from skfocal._runtime.process_group import full
from skfocal._runtime.warnings import warn

_MOST_SKIPPED = 20  # in a row; float16 begins at a scale of 2**16 and may have to halve it often


class Updates:
    """Turn gradients into updates of the weights.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Updates its weights.
    clip : float or None
        Largest norm of all gradients together.
    nonfinite : {"raise", "skip"}
        Whether an update with a gradient that is not finite is made, for the caller to raise when
        the norm is read, or left out, which has to wait for the device.
    scaler : torch.amp.GradScaler or None
        For float16, in which small gradients are zero. It needs updates to be skipped.

    Attributes
    ----------
    n_skipped, n_in_a_row : int
        Updates that were not made: in all, and just before now.
    """

    def __init__(self, optimizer, *, clip, nonfinite, scaler=None):
        self.optimizer = optimizer
        self.clip = clip
        self.nonfinite = nonfinite
        self.scaler = scaler
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.n_skipped = self.n_in_a_row = 0

    @property
    def may_skip(self):
        """Whether an update can be left out."""
        return self.nonfinite == "skip" or self.scaler is not None

    def backward(self, loss):
        """Add the gradients of a loss to the present ones."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def clip_gradients(self):
        """Undo the scale and clip; return the norm before clipping, on the device."""
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        norm = full(get_total_norm([p.grad for p in self.parameters if p.grad is not None]))
        if self.clip is not None:
            clip_grads_with_norm_(self.parameters, self.clip, norm)
        return norm

    def step(self, norm, where):
        """Update the weights, or skip the update; then clear the gradients.

        Parameters
        ----------
        norm : Tensor
            What :meth:`clip_gradients` returned.
        where : str
            Names the update in a message.

        Raises
        ------
        FloatingPointError
            After 20 skipped updates in a row.
        """
        if self.may_skip and not bool(norm.isfinite()):
            self._skip(where)
        else:
            self.optimizer.step()
            self.n_in_a_row = 0
        if self.scaler is not None:
            self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def _skip(self, where):
        self.n_skipped += 1
        self.n_in_a_row += 1
        if self.n_in_a_row == _MOST_SKIPPED:
            raise FloatingPointError(
                advice(f"{_MOST_SKIPPED} updates in a row had no finite gradient, up to {where}")
            )
        # The scaler finds its scale by trial, so its skipped updates are normal.
        if self.nonfinite == "skip" and self.n_skipped == 1 and self.scaler is None:
            warn(
                f"The gradient is not finite in {where}: this update is skipped, and others like "
                "it without another word; history_ counts them as 'n_skipped'."
            )

    def state_dict(self):
        """Return the state that a continued training needs."""
        scaler = None if self.scaler is None else self.scaler.state_dict()
        return {"skipped": [self.n_skipped, self.n_in_a_row], "scaler": scaler}

    def load_state_dict(self, state):
        """Restore what :meth:`state_dict` returned."""
        self.n_skipped, self.n_in_a_row = state["skipped"]
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])


def make_scaler(precision, device):
    """Return the scaler that a precision needs, or None."""
    return torch.amp.GradScaler(torch.device(device).type) if precision == "float16" else None


def advice(problem):
    """Return the message for numbers that are not finite."""
    return (
        f"Training stopped: {problem}. Try a smaller lr or gradient_clip, a longer warmup, or "
        "precision='float32' if it was 'bfloat16' or 'float16'; nonfinite='skip' leaves out "
        "single updates."
    )


def parameter_groups(encoder, *, lr, weight_decay, layer_decay):
    """Return AdamW's parameter groups.

    Biases and norms (all parameters of one dimension) are not decayed. With `layer_decay` ``d``
    the learning rate shrinks by ``d`` a layer from the head down (Howard and Ruder, ACL 2018).
    """
    top = len(layers_of(encoder)) + 1
    groups: dict[tuple, list] = {}
    for parameter, depth in parameter_depths(encoder):
        if parameter.requires_grad:
            rate = lr * layer_decay ** (top - depth)
            decay = weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": params, "lr": rate, "weight_decay": decay}
        for (rate, decay), params in groups.items()
    ]
