"""The encoder: from a name or folder to a torch module that maps token ids to logits."""

import contextlib
import json
import os
import tempfile
from pathlib import Path

import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer


class EncoderClassifier(nn.Module):
    """A Hugging Face sequence classifier that gives plain logits.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        What ``AutoModelForSequenceClassification`` returns.
    """

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        """Return logits of shape (n_samples, n_classes)."""
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


# -- loading -------------------------------------------------------------------------------


@contextlib.contextmanager
def _quiet_transformers():
    """Keep the report on the new head and the loading bar off the user's screen."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def load_tokenizer(model, *, trust_remote_code=False):
    """Return the fast tokenizer of `model`; raise as :func:`load_module` does."""
    with _quiet_transformers(), _named(model):
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=trust_remote_code)
    if not tokenizer.is_fast or tokenizer.pad_token_id is None:
        raise ValueError(
            f"model={str(model)!r} must have a fast tokenizer with a padding token. "
            f"Got {type(tokenizer).__name__} with pad_token={tokenizer.pad_token!r}."
        )
    return tokenizer


def load_module(model, labels, *, pad_token_id, dropout=None, trust_remote_code=False):
    """Return the pretrained encoder with a new head of one logit a label.

    Parameters
    ----------
    model : str or path
        A hub name or a folder with config.json and model.safetensors.
    labels : sequence of str
        Names of the classes, for the configuration's ``id2label``.
    pad_token_id : int
        The tokenizer's padding token.
    dropout : float, default=None
        Probability of every dropout in the model; None keeps the configuration's.
    trust_remote_code : bool, default=False
        Whether Python code that comes with the model may run.

    Returns
    -------
    EncoderClassifier

    Raises
    ------
    OSError
        If there is no such model, or it has no safetensors weights.
    ValueError
        If the model has no sequence-classification form.
    """
    with _quiet_transformers(), _named(model):
        config = AutoConfig.from_pretrained(
            model,
            trust_remote_code=trust_remote_code,
            id2label={i: str(label) for i, label in enumerate(labels)},
            label2id={str(label): i for i, label in enumerate(labels)},
        )
        config.pad_token_id = pad_token_id
        config.problem_type = "single_label_classification"
        encoder, info = AutoModelForSequenceClassification.from_pretrained(
            model,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # a head for other classes is replaced
            output_loading_info=True,
            trust_remote_code=trust_remote_code,
        )
    _check_encoder_loaded(model, encoder, info)
    if dropout is not None:
        set_dropout(encoder, dropout)
    return EncoderClassifier(encoder)


@contextlib.contextmanager
def _named(model):
    """Turn the many errors of a failed look-up into one that says what was looked for."""
    try:
        yield
    except (OSError, ValueError, ImportError) as error:
        path = Path(model).expanduser()
        if path.is_dir():
            looked = f"the folder {str(path)!r} holds {sorted(os.listdir(path))[:12]}"
            cure = (
                "It needs config.json, model.safetensors (pickled .bin weights are not read) and "
                "the tokenizer's files, of an architecture that has a "
                "AutoModelForSequenceClassification. Code in the folder runs only with "
                "trust_remote_code=True."
            )
        else:
            looked = "no folder of that name exists and the Hugging Face hub did not give it"
            cure = (
                "Check the spelling, or give the path of a folder with config.json, "
                "model.safetensors and the tokenizer's files. Without a hub, "
                "skfocal.datasets.fetch_minilm() returns such a folder; HF_HUB_OFFLINE=1 in the "
                "environment keeps transformers from asking for it."
            )
        raise OSError(
            f"model={str(model)!r} cannot be loaded: {looked}. {cure} "
            f"transformers said: {' '.join(str(error).split())[:400]}"
        ) from error


def _check_encoder_loaded(model, encoder, info):
    """Refuse weights that leave the encoder itself, not only its head, at random values."""
    prefix = encoder.base_model_prefix + "."
    missing = [
        key for key in info["missing_keys"] if key.startswith(prefix) and "pooler" not in key
    ]
    total = sum(key.startswith(prefix) for key in encoder.state_dict())
    if len(missing) > total // 10:
        raise OSError(
            f"model={str(model)!r} has weights for another architecture: {len(missing)} of the "
            f"encoder's {total} tensors are not in it, for example {missing[0]!r}."
        )


# -- structure -----------------------------------------------------------------------------


def set_dropout(encoder, probability):
    """Give every dropout of the encoder this probability, in modules and in attention calls."""
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability
        # Some attention layers keep a bare number and hand it to the attention function.
        for name in ("attention_dropout", "dropout_prob"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, probability)


def layers_of(encoder):
    """Return the encoder's transformer layers, lowest first."""
    depth = encoder.config.num_hidden_layers
    for module in encoder.base_model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise ValueError(f"{type(encoder).__name__} has no list of {depth} layers to count.")


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
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    return {
        "config": module.model.config.to_json_string(use_diff=False),
        "weights": {k: v.detach().cpu().numpy() for k, v in module.state_dict().items()},
        "tokenizer": files,
    }


def module_from_plain(state, *, trust_remote_code=False):
    """Return ``(module, tokenizer)`` from what :func:`module_to_plain` gave."""
    with tempfile.TemporaryDirectory() as folder, _quiet_transformers():
        for name, content in state["tokenizer"].items():
            Path(folder, name).write_bytes(content)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        settings = json.loads(state["config"])
        config = AutoConfig.for_model(settings.pop("model_type"), **settings)
        encoder = AutoModelForSequenceClassification.from_config(
            config, trust_remote_code=trust_remote_code
        )
    module = EncoderClassifier(encoder)
    module.load_state_dict({k: torch.tensor(v) for k, v in state["weights"].items()})
    return module.eval(), tokenizer
