"""Convert an encoder and its tokenizer to plain data, and back."""

import json

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from skfocal._encoder.dropout import dropouts, is_dropout
from skfocal._encoder.head import cosine_scale, give_cosine_head
from skfocal._encoder.module import EncoderClassifier
from skfocal._encoder.pooled import with_pooling
from skfocal._encoder.pretrained import quiet_transformers
from skfocal._encoder.structure import found_settings
from skfocal._runtime.devices import OwnGenerator
from skfocal._storage.tokenizer_files import tokenizer_from_plain, tokenizer_to_plain


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
    """Return ``(module, tokenizer)`` from the result of :func:`module_to_plain`."""
    encoder = encoder_of(json.loads(state["config"]), state["cosine_scale"], trust_remote_code)
    parts = dict(encoder.named_modules())
    for name, attribute, probability in state.get("dropouts", ()):
        if is_dropout(parts[name], attribute):
            setattr(parts[name], attribute, probability)
    module = EncoderClassifier(encoder)
    weights = {k: torch.tensor(v) for k, v in state["weights"].items()}
    module.to(next(v.dtype for v in weights.values() if v.is_floating_point()))
    module.load_state_dict(weights)
    return module.eval(), tokenizer_from_plain(state["tokenizer"])


def _config_of_code(settings):
    """Return a configuration whose class comes with the model, as Python code."""
    place = settings.get("skfocal", {}).get("code", "")
    config = get_class_from_dynamic_module(settings["auto_map"]["AutoConfig"], place)(**settings)
    config.name_or_path = place  # where the class of the encoder is looked for
    return config


def encoder_of(settings, cosine_scale=None, trust_remote_code=False):
    """Return the sequence classifier of a configuration, with arbitrary weights."""
    settings = settings.copy()
    kind = settings.pop("model_type")
    # The weights are drawn, and replaced: not from the caller's random numbers.
    with quiet_transformers(), OwnGenerator():
        if trust_remote_code and "auto_map" in settings:
            config = _config_of_code(settings)
        elif "auto_map" in settings:
            raise ValueError(
                "The model brings Python code of its own, which nothing but a pickle or joblib "
                "file may run."
            )
        else:
            config = AutoConfig.for_model(kind, **settings)
        encoder = AutoModelForSequenceClassification.from_config(
            config, trust_remote_code=trust_remote_code
        )
        if pooling := found_settings(encoder).get("pooling"):
            encoder = with_pooling(encoder, pooling)
    if cosine_scale is not None:
        give_cosine_head(encoder, cosine_scale)
    return encoder


def unshared(tensors):
    """Give each tensor its own memory: safetensors rejects tensors that share it."""
    seen: set = set()
    result = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage()
        whole = storage.nbytes() == tensor.nbytes and storage.data_ptr() not in seen
        seen.add(storage.data_ptr())
        result[name] = tensor if whole else tensor.clone()
    return result
