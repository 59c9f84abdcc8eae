"""Batches cut into parts that fit into a device's memory."""

import warnings

import torch


class Parts:
    """How large a part of a batch may be; smaller each time the memory was not enough.

    Parameters
    ----------
    purpose : str
        What the batches are for, in the warning.

    Attributes
    ----------
    n_tokens : int or None
        Most tokens of a part, padding included; None until the memory was too small.
    """

    def __init__(self, purpose):
        self.purpose = purpose
        self.n_tokens = None

    def of(self, batch):
        """Return the parts of a batch ``(inputs, codes)``, each padded to its own longest."""
        n, length = batch[0]["input_ids"].shape
        size = n if self.n_tokens is None else max(self.n_tokens // length, 1)
        return [batch] if size >= n else [_rows(batch, i, i + size) for i in range(0, n, size)]

    def run(self, step, batch):
        """Return what `step` gives for each part of a batch, one behind the other."""
        todo, done = self.of(batch), []
        while todo:
            part = todo.pop(0)
            try:
                done.append(step(part))
                continue
            except torch.OutOfMemoryError:
                self.shrink(part)
            todo = self.of(part) + todo
        return done[0] if len(done) == 1 else torch.cat(done)

    def shrink(self, part):
        """Halve the parts after one did not fit; raise if it was a single document."""
        n, length = part[0]["input_ids"].shape
        if n == 1:
            raise torch.OutOfMemoryError(
                f"The device has not enough memory for a single document of {length} tokens in "
                f"{self.purpose}. Lower max_length, or take precision='bfloat16', freeze or a "
                "smaller model."
            )
        first = self.n_tokens is None
        self.n_tokens = (n + 1) // 2 * length
        if first:
            warnings.warn(
                f"The device has not enough memory for {n} documents of {length} tokens at once "
                f"in {self.purpose}: they are computed in parts, with the same result. A smaller "
                "batch_size or max_length spares the attempt.",
                stacklevel=2,
            )


def _rows(batch, start, stop):
    inputs, codes = batch
    inputs = {name: value[start:stop] for name, value in inputs.items()}
    length = int(inputs["attention_mask"].sum(1).max())
    for name in ("input_ids", "attention_mask"):
        inputs[name] = inputs[name][:, :length]
    return inputs, codes[start:stop]
