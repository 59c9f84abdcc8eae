"""Dropout on a CPU at a fraction of its cost: draw which elements go, not whether each one does.

Elements are dropped by independent trials, so the gaps between the dropped ones are geometric. With
a probability of 0.1 that takes a tenth of the random numbers, and the mask is never written down.
The distribution is that of ``torch.nn.functional.dropout``; the random numbers are others.
"""

import math

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

# Below, a gap has more digits than a float32; above, one number an element is cheaper.
_LOWEST, _HIGHEST = 1e-4, 0.5


def dropped_positions(n, probability):
    """Return the increasing positions, int64, of those of `n` elements that are dropped."""
    mean = n * probability
    n_gaps = int(mean + 6 * math.sqrt(mean) + 20)
    parts, end = [], -1
    while end < n:  # one turn, but for one call in a billion
        # 1 - u lies in (0, 1]: P(gap > k) = P(1 - u <= (1 - p)**k).
        logs = torch.rand(n_gaps).neg_().log1p_()
        gaps = logs.mul_(1 / math.log1p(-probability)).floor_().to(torch.int64).add_(1)
        parts.append(gaps.cumsum_(0).add_(end))
        end = int(parts[-1][-1])
    positions = torch.cat(parts) if len(parts) > 1 else parts[0]
    return positions[: int(torch.searchsorted(positions, n))]


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, probability):
        positions = dropped_positions(x.numel(), probability)
        ctx.save_for_backward(positions)
        ctx.probability = probability
        return _drop(x, positions, probability)

    @staticmethod
    def backward(ctx, gradient):
        (positions,) = ctx.saved_tensors
        return _drop(gradient, positions, ctx.probability), None


def _drop(x, positions, probability):
    scaled = x.contiguous() * (1 / (1 - probability))
    scaled.view(-1).index_fill_(0, positions, 0.0)
    return scaled


def _dropout(input, p=0.5, training=True, inplace=False):
    if not training or not _LOWEST <= p <= _HIGHEST or input.device.type != "cpu":
        return F.dropout(input, p, training, inplace)
    return _Dropout.apply(input, p)


def _attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    """Attention with dropout, written out: torch has no fused form of it on a CPU either."""
    if not dropout_p or is_causal or enable_gqa or query.device.type != "cpu":
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    score = (query * scale) @ key.transpose(-2, -1)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        # Not -inf: padding may be allowed nothing at all, and nothing of it is read.
        score = score.masked_fill(~attn_mask, torch.finfo(score.dtype).min)
    elif attn_mask is not None:
        score = score + attn_mask.clamp(min=torch.finfo(score.dtype).min)
    return _dropout(F.softmax(score, dim=-1), dropout_p) @ value


class FastDropout(TorchFunctionMode):
    """Within the context, dropout and attention with dropout take the fast way on a CPU."""

    _SHORT = {F.dropout: _dropout, F.scaled_dot_product_attention: _attention}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Call the fast form of a function, if it has one."""
        return self._SHORT.get(func, func)(*args, **(kwargs or {}))
