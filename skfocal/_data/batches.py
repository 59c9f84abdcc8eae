"""Batches of documents of similar length, each padded to its longest document."""

import math

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from skfocal._data.tokenization import encoder_inputs, window_table
from skfocal._runtime.process_group import ALONE


class TokenDataset(Dataset):
    """Documents as skorch and torch see them: token ids, class code, sample weight.

    Parameters
    ----------
    tokens : Tokens
        Token ids of each document.
    codes : int64 ndarray of shape (n,) or float32 of shape (n, n_labels), default=None
        Class codes or indicators; None for prediction.
    sample_weight : float ndarray of shape (n,), default=None
        Weights of mean 1; None for ones.
    """

    def __init__(self, tokens, codes=None, sample_weight=None):
        self.tokens = tokens
        self.codes = np.zeros(len(tokens), np.int64) if codes is None else codes
        weight = np.ones(len(tokens)) if sample_weight is None else sample_weight
        self.sample_weight = weight.astype(np.float32)

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, i):
        return self.tokens[i], self.codes[i], self.sample_weight[i]

    def __getitems__(self, rows):
        """Return the documents of a batch, which torch's loaders request all at once."""
        return self.tokens.take(rows), self.codes[rows], self.sample_weight[rows]


class Collator:
    """Pad the documents of a batch to the longest; return ``(inputs, codes)`` for skorch.

    A document of several windows has one row per window; "pieces" gives the rows of each document.
    """

    def __init__(self, pad_id):
        self.pad_id = pad_id

    def __call__(self, batch):
        """Return the encoder's inputs with the sample weights, and the codes."""
        tokens, codes, weight = batch
        rows, counts = tokens.windows()
        inputs = encoder_inputs(rows.flat, rows.starts, rows.lengths, self.pad_id)
        inputs["sample_weight"] = weight
        if len(rows) > len(tokens):
            inputs["pieces"] = window_table(counts)
        inputs = {name: torch.from_numpy(value) for name, value in inputs.items()}
        return inputs, torch.from_numpy(codes)


class BucketBatchSampler(Sampler):
    """Batches of documents of similar length, drawn and shuffled anew for each iteration.

    The epoch's rows are shuffled, cut into pools of `pool` batches, sorted by length within each
    pool and cut into batches, and the batches are shuffled. Padding is a few percent, not the two
    thirds of random batches, and batches still consist of different documents in each epoch.

    Parameters
    ----------
    lengths : int ndarray of shape (n,)
        Tokens of each row.
    batch_size : int
        Documents in a batch; one batch of an epoch may have fewer.
    draw : callable ``(epoch, random_state) -> row numbers``
        The rows of an epoch.
    n_draws : int
        How many rows `draw` returns.
    random_state : numpy.random.RandomState
        Source of all randomness.
    pool : int, default=50
        Number of batches whose rows are sorted together.
    processes : Processes, default=ALONE
        Processes that the batches are for; all of them get the same batches.

    Attributes
    ----------
    batches : list of int64 ndarrays
        Row numbers of each batch of the current epoch, in order.
    """

    def __init__(
        self,
        lengths,
        batch_size,
        draw,
        n_draws,
        random_state,
        pool=50,
        processes=ALONE,
    ):
        self.lengths = lengths
        self.batch_size = batch_size
        self.draw = draw
        self.n_draws = n_draws
        self.random_state = random_state
        self.pool = pool
        self.processes = processes
        self.epoch = 0
        self.batches: list = []
        self._begins: list = []  # per epoch: states of the generators that `draw` may use
        self._n_done: int | None = None

    def __len__(self):
        return math.ceil(self.n_draws / self.batch_size)

    def __iter__(self):
        if self._n_done is None:
            self._begin_epoch()
        first, self._n_done = self._n_done or 0, None
        for rows in self.batches[first:]:
            yield rows.tolist()

    def _begin_epoch(self):
        self._begins.append((self.random_state.get_state(), torch.get_rng_state()))
        # Only one process draws: `draw` may use a generator of its own, or torch's, whose state
        # differs between processes.
        drawn = self.processes.first(self.draw, self.epoch, self.random_state)
        self.processes.sync_rng(self.random_state)
        rows = self.random_state.permutation(drawn)
        self.epoch += 1
        batches = []
        for start in range(0, len(rows), self.batch_size * self.pool):
            some = rows[start : start + self.batch_size * self.pool]
            some = some[np.argsort(self.lengths[some], kind="stable")]
            batches += [some[i : i + self.batch_size] for i in range(0, len(some), self.batch_size)]
        order = self.random_state.permutation(len(batches))
        self.batches = [batches[i] for i in order]

    def state(self):
        """Return the position in the training, for a checkpoint."""
        return {
            "begins": self._begins,
            "rows": np.concatenate([np.zeros(0, np.int64), *self.batches]),
            "sizes": np.array(list(map(len, self.batches)), np.int64),
        }

    def set_state(self, state, n_done):
        """Go on from a result of :meth:`state`, after `n_done` batches of its last epoch.

        The caller has to restore the states of the generators afterwards.
        """
        # A torch sampler may have a state of its own, which only drawing advances.
        for epoch, (own, of_torch) in enumerate(state["begins"]):
            self.random_state.set_state(own)
            torch.set_rng_state(of_torch)
            self.draw(epoch, self.random_state)
        self._begins = state["begins"]
        self.epoch = len(self._begins)
        ends = np.cumsum(state["sizes"])[:-1]
        self.batches = np.split(state["rows"], ends)
        self._n_done = n_done


class Shards(Sampler):
    """One process's shard of each batch: every `size`-th row, so that lengths are alike.

    Parameters
    ----------
    batches : BucketBatchSampler or list of list of int
        Batches of all processes together.
    processes : Processes
        All processes, and the number of this one.
    """

    def __init__(self, batches, processes):
        self.batches = batches
        self.processes = processes

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return map(self.processes.mine, self.batches)

    def whole(self, i):
        """Return all rows of batch `i` of the current pass."""
        return getattr(self.batches, "batches", self.batches)[i]


def sorted_batches(lengths, batch_size, n_tokens=None):
    """Return batches of row numbers for prediction, sorted by length, longest first.

    A batch has at most `batch_size` documents or, if `batch_size` is None, at most `n_tokens`
    tokens including padding, but always at least one document.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    batches, start = [], 0
    while start < len(order):
        size = batch_size or max(n_tokens // max(lengths[order[start]], 1), 1)
        batches.append(order[start : start + size].tolist())
        start += size
    return batches
