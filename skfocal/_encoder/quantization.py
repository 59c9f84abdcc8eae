"""Copies of an encoder that predict in bfloat16 or int8; its head stays in float32."""

import copy
import warnings

import torch
from torch import nn

from skfocal._encoder.head import head_of
from skfocal._encoder.structure import example_ids, layers_of

PRECISIONS = ("float32", "bfloat16", "int8")
# Measured: their answers in int8 differ by more than two documents do.
_TOO_COARSE = {"t5", "mt5", "umt5"}


def reduced_copy(module, precision):
    """Return an :class:`EncoderClassifier` for prediction in another precision.

    Parameters
    ----------
    module : EncoderClassifier
        In float32; it is left as it is.
    precision : {"float32", "bfloat16", "int8"}
        "bfloat16" rounds weights and activations of the encoder. "int8" quantises the weights of
        the layers' matrix products row by row, and their inputs as they come by their range.

    Returns
    -------
    EncoderClassifier
        `module` itself for "float32".

    Raises
    ------
    ValueError
        For "int8" on a device other than the CPU.
    """
    if precision == "float32":
        return module
    device = next(module.parameters()).device
    if precision == "int8" and device.type != "cpu":
        raise ValueError(
            "predict_precision='int8' is for the CPU: use 'bfloat16' on a device. "
            f"Got device={str(device)!r}."
        )
    return (_halved if precision == "bfloat16" else _quantised)(module)


class _Float32Head(nn.Module):
    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, input):
        return self.head(input.float())


def _halved(module):
    module = copy.deepcopy(module).eval()
    parent, name = head_of(module.model)
    head = getattr(parent, name)
    setattr(parent, name, nn.Identity())
    # Angles of rotary positions: transformers keeps their frequencies in float32, and so does
    # autocast. Rounded, they are wrong by half a radian after some hundred tokens.
    frequencies = [
        (part, name, value)
        for part in module.modules()
        for name, value in part.named_buffers(recurse=False)
        if name.endswith("inv_freq")
    ]
    module.bfloat16()
    for part, buffer, value in frequencies:
        setattr(part, buffer, value)
    setattr(parent, name, _Float32Head(head))
    return module


def _quantised(module):
    # What is not quantised is shared with the module, not copied.
    module = copy.deepcopy(module, {id(p): p for p in module.parameters()}).eval()
    layers = layers_of(module.model)
    # One token is nothing to quantise for, and its layer reads the weights as matrices.
    layers = layers[:-1] if module.extra else layers
    inside = {part for layer in layers for part in layer.modules() if isinstance(part, nn.Linear)}
    names = {name for name, part in module.named_modules() if part in inside}
    kind = type(module.model).__name__
    why = None if names else "have no linear ones to quantise"
    if module.model.config.model_type in _TOO_COARSE:
        why = "have outliers that no range of int8 holds"
    if why is not None:
        raise ValueError(
            f"predict_precision must be 'float32' or 'bfloat16' for {kind}, whose layers {why}. "
            "Got 'int8'."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather have another package do this
        quantisation = torch.ao.quantization
        how = dict.fromkeys(names, quantisation.per_channel_dynamic_qconfig)
        quantised = quantisation.quantize_dynamic(module, how, inplace=True)
    try:
        ids = torch.tensor([example_ids(module.model, 3)])
        with torch.no_grad():
            quantised(ids, torch.ones_like(ids))
    except Exception as error:  # code that reads weights, which are packed now
        raise ValueError(
            f"predict_precision must be 'float32' or 'bfloat16' for {kind}, which cannot be "
            f"computed with int8 weights ({error!r:.100}). Got 'int8'."
        ) from error
    return quantised
