"""Batches of near-equal length, padded to their own longest."""

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
        """Return the documents of a batch; torch's loaders ask for all of them at once."""
        return self.tokens.take(rows), self.codes[rows], self.sample_weight[rows]


class Collator:
    """Pad documents to the longest of their batch: ``(inputs, codes)`` as skorch wants them.

    Documents of several windows take a row for each of them; "pieces" says which.
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
    """Batches of near-equal length, drawn and shuffled anew each time they are iterated.

    The epoch's rows are shuffled, cut into pools of `pool` batches, sorted by length within each
    pool, cut into batches, and the batches shuffled. Padding is a few percent instead of the
    two thirds of random batches, and which documents meet still changes from epoch to epoch.

    Parameters
    ----------
    lengths : int ndarray of shape (n,)
        Tokens of each row.
    batch_size : int
        Documents in a batch; the last one of an epoch's cut may be smaller.
    draw : callable ``(epoch, random_state) -> row numbers``
        The rows of an epoch.
    n_draws : int
        How many rows `draw` returns.
    random_state : numpy.random.RandomState
        Source of all randomness.
    pool : int, default=50
        Batches sorted together.
    processes : Processes, default=ALONE
        Those that the batches are for: all get the same.

    Attributes
    ----------
    batches : list of int64 ndarrays
        Row numbers of the batches of the present epoch, in their order.
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
        self._begins: list = []  # of the epochs: states of the generators that `draw` can use
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
        # By one process: what draws may have a generator of its own, or torch's, of which each
        # process has another state.
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

    def forget(self):
        """Let go of all that grew with the training."""
        self.batches, self._begins = [], []

    def state(self):
        """Return where in the training the batches are."""
        return {
            "begins": self._begins,
            "rows": np.concatenate([np.zeros(0, np.int64), *self.batches]),
            "sizes": np.array(list(map(len, self.batches)), np.int64),
        }

    def set_state(self, state, n_done):
        """Go on from what :meth:`state` returned, after `n_done` batches of that epoch.

        The states of the generators are the caller's to put back afterwards.
        """
        # A torch sampler has a state of its own that only drawing brings forward.
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
    """One process's part of each batch: every `size`-th row, so that all have as long ones.

    Parameters
    ----------
    batches : BucketBatchSampler or list of list of int
        Batches of all processes together.
    processes : Processes
        Those, and which this one is.
    """

    def __init__(self, batches, processes):
        self.batches = batches
        self.processes = processes

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return map(self.processes.mine, self.batches)

    def whole(self, i):
        """Return all rows of a batch of the present pass."""
        return getattr(self.batches, "batches", self.batches)[i]


def sorted_batches(lengths, batch_size, n_tokens=None):
    """Return batches of row numbers in order of length, longest first, for prediction.

    A batch has at most `batch_size` documents, or `n_tokens` tokens with its padding where that
    is given; one document at least.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    batches, start = [], 0
    while start < len(order):
        size = batch_size or max(n_tokens // max(lengths[order[start]], 1), 1)
        batches.append(order[start : start + size].tolist())
        start += size
    return batches
