"""Check by numbers what an architecture only promises.

Two short documents are enough: one alone and beside a longer one, one computed twice in training
without dropout, and both in another precision.
"""

import numpy as np
import torch

from skfocal._data.tokenization import encoder_inputs, laid_out
from skfocal._encoder.dropout import set_dropout
from skfocal._encoder.pooled import pool_tokens
from skfocal._encoder.structure import example_ids, found_settings
from skfocal._runtime.devices import has_fast_bfloat16

_TEXTS = ("0 1", "9 8 7 6 5 4 3 2 1 0")
# Of the distance between the two documents. What bfloat16 changes is a fiftieth of it for MiniLM,
# a fifth for the random weights of some tiny encoders.
_TOLERANCE, _TOLERANCE_OF_BFLOAT16 = 1e-3, 0.3


def ignores_padding(encoder, tokenizer):
    """Say whether a document has the same logits alone and beside a longer one."""
    short, long = _ids(tokenizer)
    together = _logits(encoder, [short, long], tokenizer.pad_token_id)
    alone = _logits(encoder, [short], tokenizer.pad_token_id)
    return _same(together[:1], alone, together)


def is_steady(encoder, tokenizer):
    """Say whether two passes in training agree, once dropout is off."""
    set_dropout(encoder, 0.0)
    encoder.train()
    ids, pad = _ids(tokenizer), tokenizer.pad_token_id
    first, second = (_logits(encoder, ids[1:], pad) for _ in range(2))
    encoder.eval()
    return _same(first, second, _logits(encoder, ids, pad))


def best_precision(encoder, pad_id, device):
    """Return the precision that is fast on a device and harmless for an encoder.

    Parameters
    ----------
    encoder : transformers.PreTrainedModel or PooledEncoder
    pad_id : int
    device : str

    Returns
    -------
    {"bfloat16", "float32"}
        bfloat16 if the device is fast in it, and :func:`bears_bfloat16`.
    """
    fast = has_fast_bfloat16(device) and bears_bfloat16(encoder, pad_id)
    return "bfloat16" if fast else "float32"


def bears_bfloat16(encoder, pad_id):
    """Say whether two documents have nearly the same vectors under autocast as in float32.

    They are computed where the encoder is, which for one that was trained before may be another
    device than that of the next training. The configuration keeps the answer, so that no
    training, pickle or folder changes it.
    """
    found = found_settings(encoder)
    if not isinstance(found.get("bfloat16"), bool):
        found = {**found, "bfloat16": _agrees_in_bfloat16(encoder, pad_id)}
        encoder.config.skfocal = found
    return found["bfloat16"]


def _agrees_in_bfloat16(encoder, pad_id):
    if any(p.is_floating_point() and p.dtype != torch.float32 for p in encoder.parameters()):
        return False
    rows = [np.array(example_ids(encoder, n), np.int32) for n in (4, 12)]
    training = encoder.training
    encoder.eval()
    try:
        full = _vectors(encoder, rows, pad_id)
        with torch.autocast(full.device.type, torch.bfloat16):
            half = _vectors(encoder, rows, pad_id).float()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # DeBERTa fills its masks with a number that bfloat16 does not have
        return False
    finally:
        encoder.train(training)
    if full.isfinite().all() and not half.isfinite().all():
        return False
    return _same(half, full, full, _TOLERANCE_OF_BFLOAT16)


def _vectors(encoder, rows, pad):
    """Return the mean of the tokens: a new head would add its own chance to the comparison."""
    if getattr(encoder.config, "is_encoder_decoder", False):
        return _logits(encoder, rows, pad)
    inputs = _inputs(encoder, rows, pad)
    with torch.no_grad():
        hidden = encoder.base_model(**inputs)[0]
    return pool_tokens(hidden, inputs["attention_mask"], "mean")


def _ids(tokenizer):
    return [np.array(tokenizer(text)["input_ids"], np.int32) for text in _TEXTS]


def _logits(encoder, rows, pad):
    with torch.no_grad():
        return encoder(**_inputs(encoder, rows, pad)).logits


def _inputs(encoder, rows, pad):
    device = next(encoder.parameters()).device
    flat, starts, lengths = laid_out(rows)
    inputs = encoder_inputs(flat, starts, lengths, pad_id=pad)
    return {name: torch.from_numpy(x).to(device) for name, x in inputs.items()}


def _same(logits, others, both, tolerance=_TOLERANCE):
    """Compare by what tells the two documents apart, which rounding leaves as it is."""
    if not (logits.isfinite().all() and others.isfinite().all()):
        return True  # weights that are broken otherwise
    scale = (both[0] - both[1]).abs().max() * tolerance + both.abs().max() * 1e-5
    return bool((logits - others).abs().max() <= scale)
