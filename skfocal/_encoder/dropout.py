"""Read and set the dropout probabilities of an encoder of any architecture."""

import re
from numbers import Real

from torch import nn

# Some modules keep a bare number and hand it to a function: "dropout", "attention_dropout",
# "activation_dropout"; "layerdrop" leaves out whole layers.
_NUMBER = re.compile(r"\w*(dropout|layerdrop)\w*")
# Names of the query projection in attention layers.
_QUERIES = {"query", "q_lin", "q_proj", "query_proj", "q", "Wqkv"}
_ATTENTION_DROPOUTS = {"dropout", "attn_dropout", "attention_dropout"}


def set_dropout(encoder, probability):
    """Set the probability of every dropout in the encoder, also in attention functions."""
    for _, module, attribute in _dropout_places(encoder):
        setattr(module, attribute, float(probability))


def set_attention_dropout(encoder, probability):
    """Set the probability of the dropout of attention weights only."""
    found = False
    for attention in encoder.modules():
        children = attention.named_children()
        if not _QUERIES & {name for name, child in children if isinstance(child, nn.Linear)}:
            continue
        for name, module, attribute in _dropout_places(attention):
            if module is attention or name in _ATTENTION_DROPOUTS:
                setattr(module, attribute, float(probability))
                found = True
    if not found:
        raise ValueError(
            f"attention_dropout must be None for {type(encoder).__name__}, whose dropout of "
            f"attention weights cannot be told from the others. Got {probability}."
        )


def dropouts(encoder):
    """Return ``[module's name, attribute, probability]`` of every dropout."""
    return [
        [name, attribute, float(getattr(module, attribute))]
        for name, module, attribute in _dropout_places(encoder)
    ]


def has_dropout(encoder):
    """Say whether anything is dropped in training."""
    return any(probability > 0 for *_, probability in dropouts(encoder))


def _dropout_places(encoder):
    """Yield ``(name, module, attribute)`` of every probability of dropout."""
    for name, module in encoder.named_modules():
        for attribute in vars(module):
            if is_dropout(module, attribute):
                yield name, module, attribute


def is_dropout(module, attribute):
    """Say whether an attribute of a module is a probability of dropout."""
    if attribute == "p":
        return isinstance(module, nn.Dropout)
    value = vars(module).get(attribute)
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return is_number and 0 <= float(value) <= 1 and _NUMBER.fullmatch(attribute) is not None
