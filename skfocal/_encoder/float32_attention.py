"""Attention in float32 within an autocast on a CPU, where its backward pass in bfloat16 is slow.

Without dropout, torch takes a fused form, which has no matrix units to gain from: forward, both
precisions take the same time, backward bfloat16 takes two to three times as long as float32, up to
128 tokens (docs/benchmarks/speed.md). It is also the more exact way.
"""

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode


class Float32Attention(TorchFunctionMode):
    """Within the context, scaled dot-product attention runs outside of autocast."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Call attention with float32 tensors if it has a backward pass, all else as it is."""
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            return func(*map(_widened, args), **{name: _widened(x) for name, x in kwargs.items()})


def _widened(value):
    return value.float() if torch.is_tensor(value) and value.is_floating_point() else value
