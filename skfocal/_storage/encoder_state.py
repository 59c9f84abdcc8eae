"""Convert an encoder and its tokenizer to plain data, and back."""

import json

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from skfocal._encoder.dropout import dropouts
from skfocal._encoder.head import cosine_scale, give_cosine_head
from skfocal._encoder.module import EncoderClassifier
from skfocal._encoder.pretrained import quiet_transformers
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
        setattr(parts[name], attribute, probability)
    module = EncoderClassifier(encoder)
    weights = {k: torch.tensor(v) for k, v in state["weights"].items()}
    module.to(next(v.dtype for v in weights.values() if v.is_floating_point()))
    module.load_state_dict(weights)
    return module.eval(), tokenizer_from_plain(state["tokenizer"])


def encoder_of(settings, cosine_scale=None, trust_remote_code=False):
    """Return the sequence classifier of a configuration, with arbitrary weights."""
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
