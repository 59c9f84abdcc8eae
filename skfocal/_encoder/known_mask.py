"""Move a batch to its device, so that the encoder need not ask the device about the mask."""

import torch


def to_device(inputs, device):
    """Return the inputs of an encoder on a device, without waiting for it.

    transformers asks of each batch whether its attention mask hides anything, by ``mask.all()``
    or ``mask.to(bool).all()``. To read the answer from CUDA would wait until all that was asked
    before is done. The host knows it.

    Parameters
    ----------
    inputs : dict of name to tensor
        Of a batch; its sample weights are left out.
    device : device or str

    Returns
    -------
    dict of name to tensor
    """
    moved = {
        name: value.to(device, non_blocking=True)
        for name, value in inputs.items()
        if name != "sample_weight"
    }
    mask = inputs["attention_mask"]
    if mask.device.type == "cpu" and torch.device(device).type != "cpu":
        _tell(moved["attention_mask"], mask.all())
    return moved


def _tell(mask, all_true):
    """Let a mask answer `all` with what is known, also after a conversion to bool."""
    plain = mask.detach()  # a tensor that referred to itself would keep its memory

    def all_of(*args, **kwargs):
        return plain.all(*args, **kwargs) if args or kwargs else all_true

    def to(*args, **kwargs):
        converted = plain.to(*args, **kwargs)
        if converted.dtype == torch.bool and plain.dtype != torch.bool:
            _tell(converted, all_true)
        return converted

    mask.all, mask.to = all_of, to
