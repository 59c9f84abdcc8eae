"""Micro-batches: the parts of a batch that fit into the memory of a device."""

import torch

from skfocal._runtime.warnings import warn


class MicroBatches:
    """Split batches into micro-batches, which become smaller each time the memory runs out.

    Parameters
    ----------
    purpose : str
        Names the use of the batches in messages: "training" or "prediction".
    n_tokens : int, default=None
        The most tokens of a micro-batch, padding included, unless a single document has more.
        None: no limit until the memory runs out.
    """

    def __init__(self, purpose, n_tokens=None):
        self.purpose = purpose
        self.n_tokens = n_tokens
        self.may_shrink = True
        self.has_warned = False

    def of(self, batch):
        """Return the micro-batches of ``(inputs, codes)``, each padded to its longest row."""
        n_rows, length = batch[0]["input_ids"].shape
        if self.n_tokens is None or n_rows * length <= self.n_tokens:
            return [batch]
        ends = _ends(_rows_of_documents(batch), self.n_tokens // length)
        return [_documents(batch, i, j) for i, j in zip([0, *ends], ends, strict=False)]

    def run(self, step, batch):
        """Apply `step` to each micro-batch of a batch; return the concatenated results."""
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
        """Halve the size after a micro-batch did not fit; raise if it was a single document."""
        n_rows, length = part[0]["input_ids"].shape
        n = len(part[1])
        if not self.may_shrink:  # the other processes would compute a different number of parts
            raise torch.OutOfMemoryError(
                f"The device has too little memory for {n} documents of {length} tokens in "
                f"{self.purpose}, and with several processes no batch is computed in parts. Take "
                "a smaller batch_size and a larger accumulate, or a lower max_length."
            )
        if n == 1:
            raise torch.OutOfMemoryError(
                f"The device has too little memory for a single document of {n_rows * length} "
                f"tokens in {self.purpose}. Lower max_length or max_windows, or take "
                "precision='bfloat16', freeze or a smaller model."
            )
        self.n_tokens = (n_rows + 1) // 2 * length
        if not self.has_warned:
            self.has_warned = True
            warn(
                f"The device has too little memory for {n} documents of {length} tokens at once "
                f"in {self.purpose}: they are computed in parts, with the same result. A smaller "
                "batch_size or max_length spares the attempt."
            )


def _rows_of_documents(batch):
    """Return how many rows of the inputs each document has."""
    inputs, codes = batch
    if "pieces" not in inputs:
        return [1] * len(codes)
    return (inputs["pieces"] >= 0).sum(1).tolist()


def _ends(counts, most):
    """Return behind which documents to cut, so that a part has `most` rows or one document."""
    ends, n_rows = [], 0
    for i, count in enumerate(counts):
        if n_rows and n_rows + count > most:
            ends.append(i)
            n_rows = 0
        n_rows += count
    return [*ends, len(counts)]


def _documents(batch, start, stop):
    """Return some documents of a batch."""
    inputs, codes = batch
    part = {"sample_weight": inputs["sample_weight"][start:stop]}
    rows = slice(start, stop)
    if "pieces" in inputs:
        table = inputs["pieces"][start:stop]
        rows = slice(int(table[0, 0]), int(table.max()) + 1)
        part["pieces"] = torch.where(table >= 0, table - rows.start, -1)
    length = int(inputs["attention_mask"][rows].sum(1).max())
    of_tokens = inputs.keys() - {"sample_weight", "pieces"}
    part |= {name: inputs[name][rows, :length] for name in of_tokens}
    return part, codes[start:stop]
