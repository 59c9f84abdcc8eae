"""The layer that computes the logits: linear, or based on cosines."""

import threading

import torch
import torch.nn.functional as F
from torch import nn


class CosineLinear(nn.Linear):
    """A head whose logits are a scale times the cosine of its input and each class's vector.

    Parameters
    ----------
    linear : torch.nn.Linear
        The head to replace, whose weights are taken over.
    scale : float
        The logits lie between minus and plus this.
    """

    def __init__(self, linear, scale):
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight = linear.weight
        self.register_parameter("bias", None)
        self.scale = scale

    def forward(self, input):
        """Return the logits, in float32 under any autocast."""
        # The scale would make 30 / 256 of a bfloat16 cosine's rounding.
        with torch.autocast(input.device.type, enabled=False):
            weight = F.normalize(self.weight, dim=-1)
            return self.scale * F.linear(F.normalize(input.to(weight.dtype), dim=-1), weight)

    def extra_repr(self):
        """Show the scale in the module's repr."""
        return f"{super().extra_repr()}, scale={self.scale}"


def cosine_scale(encoder):
    """Return the scale of the encoder's cosine head, None if its head is linear."""
    return next((m.scale for m in encoder.modules() if isinstance(m, CosineLinear)), None)


def give_cosine_head(encoder, scale):
    """Replace the encoder's linear head by a :class:`CosineLinear`."""
    parent, name = head_of(encoder)
    setattr(parent, name, CosineLinear(getattr(parent, name), scale))


def head_of(encoder):
    """Return the module that has the last linear layer, and the layer's name in it."""
    inside = set(encoder.base_model.modules())
    found = [
        (module, name)
        for module in encoder.modules()
        if module not in inside or module is encoder
        for name, child in module.named_children()
        if isinstance(child, nn.Linear) and child.out_features == encoder.config.num_labels
    ]
    if not found:
        raise ValueError(f"{type(encoder).__name__} has no linear layer that gives the logits.")
    return found[-1]


def has_bias(encoder):
    """Say whether the layer that computes the logits has biases, or can get them."""
    layer = getattr(*head_of(encoder))
    return isinstance(layer, CosineLinear) or layer.bias is not None


def set_linear(encoder, weights, biases):
    """Give the layer that computes the logits other weights, of shape (n_classes, width)."""
    parent, name = head_of(encoder)
    layer = getattr(parent, name)
    if isinstance(layer, CosineLinear):
        layer = nn.Linear(layer.in_features, layer.out_features).to(layer.weight)
        setattr(parent, name, layer)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weights))
        if layer.bias is not None:
            layer.bias.copy_(torch.from_numpy(biases))


def head_inputs(encoder, inputs):
    """Return what the last linear layer computes the logits of `inputs` from.

    Returns
    -------
    tensor of shape (n, width)

    Raises
    ------
    ValueError
        If that is not one vector for each document.
    """
    thread, caught = threading.get_ident(), []

    def catch(module, args):
        if threading.get_ident() == thread:  # another one may predict with the same encoder
            caught.append(args[0])

    handle = getattr(*head_of(encoder)).register_forward_pre_hook(catch)
    try:
        encoder(**inputs)
    finally:
        handle.remove()
    if len(caught) != 1 or caught[0].ndim != 2:
        raise ValueError(
            f"The head of {type(encoder).__name__} computes the logits of a document from more "
            "than one vector: set pooling='mean' or 'last' for one."
        )
    return caught[0]
