"""Compute the last encoder layer for the first token only, if the head reads no other.

A BERT-like classifier computes its last layer for every token and then reads the first. Of that
layer only the attention's keys and values need the others, and with a single query not even those
have to be projected:

``q . (W_k h + b_k) = (W_k' q) . h + q . b_k`` and ``sum p (W_v h + b_v) = W_v (sum p h) + b_v``

are the same numbers but for rounding, and leave next to nothing of the layer to compute.

This rests on names inside transformers: were the mask to come under another one, padding would be
attended to without an error. So the two ways are compared once for each encoder that is built.
"""

import contextlib
import functools

import torch
import torch.nn.functional as F
import transformers
from torch import nn

from skfocal._runtime.warnings import warn

# In these the head, or the pooler before it, reads the first token of the last layer.
_BERT_LIKE = {"bert", "roberta", "xlm-roberta", "camembert", "electra"}


def give_first_token_layer(encoder, layers):
    """Let the last of the encoder's `layers` take ``first_token_only=True``; say whether it can.

    It cannot, and is left as it was, where it would change the logits of two padded rows.
    """
    short = _short_form(encoder.config)
    if short is None:
        return False
    layer = layers[-1]
    own = vars(layer).get("forward")
    try:
        whole = _probe(encoder, layers)
    except Exception:  # the encoder itself fails: its first use says how
        return False
    layer.forward = functools.partial(_forward, layer, short)
    try:
        if all(map(_same, _probe(encoder, layers, first_token_only=True), whole)):
            return True
        why = "its numbers differ"
    except Exception as error:  # a changed layer may fail in any way
        why = f"{error!r:.200}"
    del layer.forward
    if own is not None:
        layer.forward = own
    _warn_once(type(encoder).__name__, why)
    return False


def _short_form(config):
    if getattr(config, "position_embedding_type", "absolute") != "absolute":
        return None
    if config.model_type in _BERT_LIKE and not config.is_decoder:
        return _bert_layer
    return _distilbert_layer if config.model_type == "distilbert" else None


# -- check ---------------------------------------------------------------------------------


def _probe(encoder, layers, **extra):
    """Return the output of the last layer and the logits for rows of five and two tokens."""
    device, pad = next(encoder.parameters()).device, encoder.config.pad_token_id or 0
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]], device=device)
    ids = (pad + 1 + torch.arange(10, device=device).view(2, 5)) % encoder.config.vocab_size
    inputs = {"input_ids": ids.where(mask.bool(), pad), "attention_mask": mask}
    caught: list = []
    handle = layers[-1].register_forward_hook(lambda module, args, output: caught.append(output))
    try:
        with _last_alone(encoder, layers), torch.no_grad():
            with torch.autocast(device.type, enabled=False):
                logits = encoder(**inputs, **extra).logits
    finally:
        handle.remove()
    return caught[0], logits[:, None]


@contextlib.contextmanager
def _last_alone(encoder, layers):
    """Turn dropout off and skip the lower layers, which take nearly all the time.

    They are the same in both ways.
    """
    all_layers = layers._modules
    learning = [module for module in encoder.modules() if module.training]
    encoder.eval()
    layers._modules = dict([*all_layers.items()][-1:])
    try:
        yield
    finally:
        layers._modules = all_layers
        for module in learning:
            module.training = True


def _same(short, whole):
    """Say whether the first token's numbers agree to half of their digits."""
    short, whole = short[:, :1], whole[:, :1]
    if not whole.isfinite().all():  # there is nothing to learn from such weights
        return True
    tolerance = torch.finfo(whole.dtype).eps ** 0.5 * whole.abs().max()
    return bool((short - whole).abs().max() <= tolerance)


@functools.cache
def _warn_once(name, why):
    warn(
        f"The last layer of {name} is computed for all tokens, not for the first alone, because "
        f"the short form does not fit transformers {transformers.__version__} and torch "
        f"{torch.__version__} ({why}). Results are right; training and prediction take longer. "
        "Please report it."
    )


# -- the layer -----------------------------------------------------------------------------


def _forward(layer, short, hidden, attention_mask=None, *args, first_token_only=False, **kwargs):
    mask = _mask_of_first(attention_mask)
    if not first_token_only or mask is NotImplemented:
        return type(layer).forward(layer, hidden, attention_mask, *args, **kwargs)
    return short(layer, hidden, mask)


def _mask_of_first(mask):
    """Return the positions that the first token may attend to, (n, 1, length), from any mask."""
    if mask is None:
        return None
    if not torch.is_tensor(mask):
        return NotImplemented
    return mask[:, 0, :1] if mask.ndim == 4 else mask[:, None].bool()


def _bert_layer(layer, hidden, mask):
    attention = layer.attention.self
    context = _attend(
        hidden,
        mask,
        (attention.query, attention.key, attention.value),
        attention.num_attention_heads,
        attention.dropout,
    )
    return layer.feed_forward_chunk(layer.attention.output(context, hidden[:, :1]))


def _distilbert_layer(layer, hidden, mask):
    attention = layer.attention
    projections = attention.q_lin, attention.k_lin, attention.v_lin
    context = _attend(hidden, mask, projections, attention.n_heads, attention.dropout)
    attended = layer.sa_layer_norm(attention.out_lin(context) + hidden[:, :1])
    return layer.output_layer_norm(layer.ffn(attended) + attended)


def _attend(hidden, mask, projections, n_heads, dropout):
    """Return the attention's output for the first token, of shape (n, 1, width)."""
    query, key, value = projections
    q = query(hidden[:, 0]).unflatten(-1, (n_heads, -1))
    score = _scores(q * q.shape[-1] ** -0.5, hidden, key)
    if mask is not None:
        is_bool = mask.dtype == torch.bool
        score = score.masked_fill(~mask, -torch.inf) if is_bool else score + mask
    return _mixed(dropout(F.softmax(score, dim=-1)), hidden, value).flatten(1)[:, None]


def _scores(q, hidden, key):
    """Return ``q . k`` up to a constant for all tokens, of shape (n, n_heads, length)."""
    if not isinstance(key, nn.Linear):  # an adapter adds to what its weight and bias give
        return torch.einsum("nhs,nlhs->nhl", q, key(hidden).unflatten(-1, q.shape[1:]))
    over_width = torch.einsum("nhs,hsw->nhw", q, key.weight.unflatten(0, q.shape[1:]))
    # The key's bias adds the same to every token's score and is gone in the softmax.
    return over_width @ hidden.transpose(1, 2).to(over_width.dtype)


def _mixed(p, hidden, value):
    """Return the mean of the values with weights `p`, of shape (n, n_heads, size)."""
    n_heads = p.shape[1]
    if not isinstance(value, nn.Linear):
        v = value(hidden).unflatten(-1, (n_heads, -1))
        return torch.einsum("nhl,nlhs->nhs", p.to(v.dtype), v)
    mixed = p.to(hidden.dtype) @ hidden
    context = torch.einsum("nhw,hsw->nhs", mixed, value.weight.unflatten(0, (n_heads, -1)))
    return context + p.sum(-1, keepdim=True) * value.bias.unflatten(0, (n_heads, -1))
