"""The structure of an encoder: its layers, their depths, its limits."""

import contextlib

from torch import nn


def layers_of(encoder):
    """Return the encoder's transformer layers, lowest first."""
    depth = encoder.config.num_hidden_layers
    for module in encoder.base_model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise ValueError(f"{type(encoder).__name__} has no list of {depth} layers to count.")


def parameter_depths(encoder):
    """Yield ``(parameter, depth)``: 0 for embeddings, 1.. for layers, the top for the head."""
    layers = layers_of(encoder)
    depth_of = {id(p): i + 1 for i, layer in enumerate(layers) for p in layer.parameters()}
    tables = [m for m in encoder.modules() if isinstance(m, nn.Embedding)]
    first = {id(p) for table in tables for p in table.parameters()}
    inside = {id(p) for p in encoder.base_model.parameters()}
    for name, parameter in encoder.named_parameters():
        key = id(parameter)
        if key in depth_of:
            yield parameter, depth_of[key]
        elif key in first or (key in inside and "embed" in name):
            yield parameter, 0
        else:
            yield parameter, len(layers) + 1


def freeze_layers(encoder, n_layers):
    """Freeze the embeddings and the lowest `n_layers` layers; 0 freezes nothing."""
    n_all = len(layers_of(encoder))
    if n_layers > n_all:
        raise ValueError(f"freeze must be at most the {n_all} layers of the model. Got {n_layers}.")
    for parameter, depth in parameter_depths(encoder):
        parameter.requires_grad_(depth > n_layers or not n_layers)


@contextlib.contextmanager
def recomputed_layers(encoder):
    """Within the block, training keeps only the input of each layer and recomputes the rest.

    Raises
    ------
    ValueError
        If the architecture has no such form.
    """
    is_new = hasattr(encoder, "activation_checkpointing_enable")  # transformers has renamed it
    kind = "activation" if is_new else "gradient"
    try:
        getattr(encoder, f"{kind}_checkpointing_enable")({"use_reentrant": False})
    except ValueError as error:
        raise ValueError(
            f"gradient_checkpointing must be False for {type(encoder).__name__}, whose layers "
            f"cannot be computed again. Got True; transformers said: {error}"
        ) from error
    # Only the re-entrant form needs it, and frozen layers would look as if they learned.
    encoder.disable_input_require_grads()
    cache = getattr(encoder.config, "use_cache", None)
    encoder.config.use_cache = False  # transformers would say that it does so
    try:
        yield
    finally:
        encoder.config.use_cache = cache
        if cache is None:
            del encoder.config.use_cache
        getattr(encoder, f"{kind}_checkpointing_disable")()


def has_token_types(encoder, tokenizer):
    """Say whether the encoder tells the second text of a pair from the first."""
    n_types = getattr(encoder.config, "type_vocab_size", 0) or 0
    return n_types > 1 and "token_type_ids" in tokenizer.model_input_names


def length_limit(encoder, tokenizer):
    """Return the maximum number of tokens, by the positions of the model and its tokenizer."""
    limits = [tokenizer.model_max_length, getattr(encoder.config, "max_position_embeddings", None)]
    for module in encoder.base_model.modules():
        table = getattr(module, "position_embeddings", None)
        if isinstance(table, nn.Embedding) and table.padding_idx is not None:
            # RoBERTa counts positions from padding_idx + 1.
            limits.append(table.num_embeddings - table.padding_idx - 1)
    known = [int(limit) for limit in limits if limit and 0 < limit < 1_000_000]
    return min(known) if known else 512
