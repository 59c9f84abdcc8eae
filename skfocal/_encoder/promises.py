"""Check by numbers what an architecture only promises.

Two short documents are enough: one alone and beside a longer one, and one computed twice in
training without dropout.
"""

import numpy as np
import torch

from skfocal._data.tokenization import encoder_inputs, laid_out
from skfocal._encoder.dropout import set_dropout

_TEXTS = ("0 1", "9 8 7 6 5 4 3 2 1 0")
_TOLERANCE = 1e-3  # of the distance between the two documents


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


def _ids(tokenizer):
    return [np.array(tokenizer(text)["input_ids"], np.int32) for text in _TEXTS]


def _logits(encoder, rows, pad):
    flat, starts, lengths = laid_out(rows)
    inputs = encoder_inputs(flat, starts, lengths, pad_id=pad)
    with torch.no_grad():
        return encoder(**{name: torch.from_numpy(x) for name, x in inputs.items()}).logits


def _same(logits, others, both):
    """Compare by what tells the two documents apart, which rounding leaves as it is."""
    if not (logits.isfinite().all() and others.isfinite().all()):
        return True  # weights that are broken otherwise
    scale = (both[0] - both[1]).abs().max() * _TOLERANCE + both.abs().max() * 1e-5
    return bool((logits - others).abs().max() <= scale)
