"""Read and set the dropout probabilities of an encoder of any architecture."""

from numbers import Real

from torch import nn

# Some attention layers keep a bare number and hand it to the attention function.
DROPOUT_NUMBERS = ("attention_dropout", "dropout_prob")
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
        if isinstance(module, nn.Dropout):
            yield name, module, "p"
        for attribute in DROPOUT_NUMBERS:
            if isinstance(getattr(module, attribute, None), Real):
                yield name, module, attribute
