"""The last encoder layer for the first token alone, where the head reads no other.

A BERT-like classifier computes its last layer for every token and then reads the first. Of that
layer only the attention's keys and values need the others, and with a single query not even those
have to be projected:

``q . (W_k h + b_k) = (W_k' q) . h + q . b_k`` and ``sum p (W_v h + b_v) = W_v (sum p h) + b_v``

are the same numbers but for rounding, and leave next to nothing of the layer to compute.
"""

import functools

import torch
import torch.nn.functional as F
from torch import nn

# In these the head, or the pooler before it, reads the first token of the last layer.
_BERT_LIKE = {"bert", "roberta", "xlm-roberta", "camembert", "electra"}


def give_first_token_layer(encoder, layer):
    """Let the encoder's last `layer` take ``first_token_only=True``; return whether it can."""
    kind = encoder.config.model_type
    if getattr(encoder.config, "position_embedding_type", "absolute") != "absolute":
        return False
    if kind in _BERT_LIKE and not encoder.config.is_decoder:
        layer.forward = functools.partial(_forward, layer, _bert_layer)
    elif kind == "distilbert":
        layer.forward = functools.partial(_forward, layer, _distilbert_layer)
    else:
        return False
    return True


def _forward(layer, short, hidden, attention_mask=None, *args, first_token_only=False, **kwargs):
    mask = _mask_of_first(attention_mask)
    if not first_token_only or mask is NotImplemented:
        return type(layer).forward(layer, hidden, attention_mask, *args, **kwargs)
    return short(layer, hidden, mask)


def _mask_of_first(mask):
    """Return what the first token may attend to, (n, 1, length), in any form of mask there is."""
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
    """Return ``q . k`` but for what is the same for all tokens, of shape (n, n_heads, length)."""
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
