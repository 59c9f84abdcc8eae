"""The structure of an encoder: its layers, their depths, its limits."""

import contextlib

from torch import nn

_AFFORDABLE = 512  # tokens, as BERT reads


def layers_of(encoder):
    """Return the encoder's transformer layers, lowest first.

    Layers that share all weights (ALBERT) are one. The list is empty if there is none to find.
    """
    shared = getattr(encoder.config, "num_hidden_groups", None)
    depth = shared or getattr(encoder.config, "num_hidden_layers", 0)
    for name, module in encoder.base_model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            if not shared or name.endswith("groups"):
                return module
    return nn.ModuleList()


def parameter_depths(encoder):
    """Yield ``(parameter, depth)``: 0 for embeddings, 1.. for layers, the top for the head.

    A decoder beside the encoder counts as its last layer.
    """
    layers = layers_of(encoder)
    has_decoder = getattr(encoder.config, "is_encoder_decoder", False)
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
        elif has_decoder and key in inside and ".decoder." in f".{name}":
            yield parameter, len(layers)
        else:
            yield parameter, len(layers) + 1


def freeze_layers(encoder, n_layers):
    """Freeze the embeddings and the lowest `n_layers` layers; 0 freezes nothing."""
    n_all = len(layers_of(encoder))
    if n_layers and n_all < getattr(encoder.config, "num_hidden_layers", 1):
        raise ValueError(
            f"freeze must be 0 for {type(encoder).__name__}, which has no list of layers with "
            f"weights of their own. Got {n_layers}."
        )
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
    body = encoder.base_model
    is_new = hasattr(body, "activation_checkpointing_enable")  # transformers has renamed it
    kind = "activation" if is_new else "gradient"
    try:
        getattr(body, f"{kind}_checkpointing_enable")({"use_reentrant": False})
    except ValueError as error:
        raise ValueError(
            f"gradient_checkpointing must be False for {type(encoder).__name__}, whose layers "
            f"cannot be computed again. Got True; transformers said: {error}"
        ) from error
    # Only the re-entrant form needs it, and frozen layers would look as if they learned.
    body.disable_input_require_grads()
    cache = getattr(encoder.config, "use_cache", None)
    encoder.config.use_cache = False  # transformers would say that it does so
    try:
        yield
    finally:
        encoder.config.use_cache = cache
        if cache is None:
            del encoder.config.use_cache
        getattr(body, f"{kind}_checkpointing_disable")()


def found_settings(encoder):
    """Return what was found when the encoder was loaded; its configuration keeps it."""
    found = getattr(encoder.config, "skfocal", None)
    return found if isinstance(found, dict) else {}


def example_ids(encoder, n):
    """Return `n` token ids that end as texts do, for encoders that read the end token."""
    end = getattr(encoder.config, "eos_token_id", None)
    return [*range(3, 2 + n), end if isinstance(end, int) else 1]


def note_by_length(encoder):
    """Let the configuration say that padding changes a document's logits."""
    encoder.config.skfocal = {**found_settings(encoder), "by_length": True}


def needs_equal_lengths(encoder):
    """Say whether padding would change a document's logits: found when the encoder was loaded."""
    return found_settings(encoder).get("by_length", False) is True


def has_token_types(encoder, tokenizer):
    """Say whether the encoder tells the second text of a pair from the first."""
    n_types = getattr(encoder.config, "type_vocab_size", 0) or 0
    return n_types > 1 and "token_type_ids" in tokenizer.model_input_names


def default_length(encoder, limit):
    """Return the maximum number of tokens unless a user asks for another, at most `limit`.

    It is what one can afford: the time of a document grows with its tokens and their pairs.
    """
    return min(limit, _AFFORDABLE, found_settings(encoder).get("max_seq_length", limit))


def length_limit(encoder, tokenizer):
    """Return the maximum number of tokens, by the positions of the model and its tokenizer."""
    known = [n for n in (tokenizer.model_max_length, n_positions(encoder)) if _is_limit(n)]
    return int(min(known)) if known else 512


def n_positions(encoder):
    """Return the number of positions that an encoder tells apart, or None."""
    limits: list = [getattr(encoder.config, "max_position_embeddings", None)]
    for module in encoder.base_model.modules():
        table = getattr(module, "position_embeddings", None)
        if isinstance(table, nn.Embedding) and table.padding_idx is not None:
            # RoBERTa counts positions from padding_idx + 1.
            limits.append(table.num_embeddings - table.padding_idx - 1)
    known = [n for n in limits if _is_limit(n)]
    return int(min(known)) if known else None


def _is_limit(n):
    return n is not None and 0 < n < 1_000_000
