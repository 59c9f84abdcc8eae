"""The encoder as a torch module that maps token ids to logits, and its structure."""

import contextlib
import json
from numbers import Real

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from skfocal._first_token import give_first_token_layer
from skfocal._pretrained import load_encoder, quiet_transformers
from skfocal._tokenizer import tokenizer_from_plain, tokenizer_to_plain


class EncoderClassifier(nn.Module):
    """A Hugging Face sequence classifier that gives plain logits.

    Where the architecture allows it, the last layer computes the first token only, which is all
    that the head reads.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        What ``AutoModelForSequenceClassification`` returns.

    Raises
    ------
    ValueError
        If its head reads the last position (XLNet).
    """

    def __init__(self, model):
        super().__init__()
        if getattr(model.config, "summary_type", None) == "last":
            raise ValueError(
                f"model must not be a {type(model).__name__} with summary_type='last', whose head "
                "reads the last position: batches are padded there. Take a BERT-like encoder."
            )
        self.model = model
        short = give_first_token_layer(model, layers_of(model))
        self.extra = {"first_token_only": True} if short else {}

    def forward(self, input_ids, attention_mask, token_type_ids=None):
        """Return logits of shape (n_samples, n_classes)."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:  # not all encoders know the word
            inputs["token_type_ids"] = token_type_ids
        return self.model(**inputs, **self.extra).logits


class CosineLinear(nn.Linear):
    """A head whose logits are a scale times the cosine of its input and each class's vector.

    Parameters
    ----------
    linear : torch.nn.Linear
        The head that it takes the place and the weights of.
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


def load_module(
    model, labels, *, pad_token_id, dropout=None, attention_dropout=None, trust_remote_code=False
):
    """Return the pretrained encoder with a new head; see :func:`skfocal._pretrained.load_encoder`.

    Parameters
    ----------
    dropout : float, default=None
        Probability of every dropout in the model; None keeps the configuration's.
    attention_dropout : float, default=None
        Probability of the dropout of attention weights, if it is to be another.

    Returns
    -------
    EncoderClassifier
    """
    encoder = load_encoder(
        model, labels, pad_token_id=pad_token_id, trust_remote_code=trust_remote_code
    )
    if dropout is not None:
        set_dropout(encoder, dropout)
    if attention_dropout is not None:
        set_attention_dropout(encoder, attention_dropout)
    return EncoderClassifier(encoder)


# -- structure -----------------------------------------------------------------------------


# Some attention layers keep a bare number and hand it to the attention function.
DROPOUT_NUMBERS = ("attention_dropout", "dropout_prob")
# What attention layers call the matrix of the queries.
_QUERIES = {"query", "q_lin", "q_proj", "query_proj", "q", "Wqkv"}
_ATTENTION_DROPOUTS = {"dropout", "attn_dropout", "attention_dropout"}


def _dropout_places(encoder):
    """Yield ``(name, module, attribute)`` of every probability of dropout."""
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Dropout):
            yield name, module, "p"
        for attribute in DROPOUT_NUMBERS:
            if isinstance(getattr(module, attribute, None), Real):
                yield name, module, attribute


def set_dropout(encoder, probability):
    """Give every dropout of the encoder this probability, in modules and in attention calls."""
    for _, module, attribute in _dropout_places(encoder):
        setattr(module, attribute, float(probability))


def set_attention_dropout(encoder, probability):
    """Give the dropout of attention weights another probability than the rest."""
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


def layers_of(encoder):
    """Return the encoder's transformer layers, lowest first."""
    depth = encoder.config.num_hidden_layers
    for module in encoder.base_model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise ValueError(f"{type(encoder).__name__} has no list of {depth} layers to count.")


def has_token_types(encoder, tokenizer):
    """Say whether the encoder tells the second text of a pair from the first."""
    n_types = getattr(encoder.config, "type_vocab_size", 0) or 0
    return n_types > 1 and "token_type_ids" in tokenizer.model_input_names


def length_limit(encoder, tokenizer):
    """Return the most tokens that the model can take, by its positions and its tokenizer."""
    limits = [tokenizer.model_max_length, getattr(encoder.config, "max_position_embeddings", None)]
    for module in encoder.base_model.modules():
        table = getattr(module, "position_embeddings", None)
        if isinstance(table, nn.Embedding) and table.padding_idx is not None:
            # RoBERTa counts positions from padding_idx + 1.
            limits.append(table.num_embeddings - table.padding_idx - 1)
    known = [int(limit) for limit in limits if limit and 0 < limit < 1_000_000]
    return min(known) if known else 512


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


def cosine_scale(encoder):
    """Return the scale of the encoder's cosine head, None if its head is linear."""
    return next((m.scale for m in encoder.modules() if isinstance(m, CosineLinear)), None)


def give_cosine_head(encoder, scale):
    """Put a :class:`CosineLinear` in the place of the encoder's linear head."""
    parent, name = head_of(encoder)
    setattr(parent, name, CosineLinear(getattr(parent, name), scale))


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
    """Stop the embeddings and the lowest `n_layers` layers from learning; 0 freezes nothing."""
    n_all = len(layers_of(encoder))
    if n_layers > n_all:
        raise ValueError(f"freeze must be at most the {n_all} layers of the model. Got {n_layers}.")
    for parameter, depth in parameter_depths(encoder):
        parameter.requires_grad_(depth > n_layers or not n_layers)


@contextlib.contextmanager
def recomputed_layers(encoder):
    """Let training keep only each layer's input for a while, and compute the rest once more.

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


# -- plain data, for pickles ---------------------------------------------------------------


def module_to_plain(module, tokenizer):
    """Return the fitted module and tokenizer as JSON text, bytes and numpy arrays only."""
    return {
        "config": module.model.config.to_json_string(use_diff=False),
        "weights": {k: v.detach().cpu().numpy() for k, v in module.state_dict().items()},
        "tokenizer": tokenizer_to_plain(tokenizer),
        "cosine_scale": cosine_scale(module.model),
        "dropouts": dropouts(module.model),
    }


def module_from_plain(state, *, trust_remote_code=False):
    """Return ``(module, tokenizer)`` from what :func:`module_to_plain` gave."""
    encoder = encoder_of(json.loads(state["config"]), state["cosine_scale"], trust_remote_code)
    parts = dict(encoder.named_modules())
    for name, attribute, probability in state.get("dropouts", ()):
        setattr(parts[name], attribute, probability)
    module = EncoderClassifier(encoder)
    weights = {k: torch.tensor(v) for k, v in state["weights"].items()}
    module.to(next(v.dtype for v in weights.values() if v.is_floating_point()))
    module.load_state_dict(weights)
    return module.eval(), tokenizer_from_plain(state["tokenizer"])


def encoder_of(settings, cosine_scale=None, trust_remote_code=False):
    """Return the sequence classifier of a configuration, with weights that mean nothing yet."""
    settings = settings.copy()
    # The weights are drawn, and replaced: not from the caller's random numbers.
    with quiet_transformers(), torch.random.fork_rng(devices=[]):
        encoder = AutoModelForSequenceClassification.from_config(
            AutoConfig.for_model(settings.pop("model_type"), **settings),
            trust_remote_code=trust_remote_code,
        )
    if cosine_scale is not None:
        give_cosine_head(encoder, cosine_scale)
    return encoder
