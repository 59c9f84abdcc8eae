"""Batches of near-equal length."""

import numpy as np
import torch

from skfocal._data.batches import BucketBatchSampler, Collator, TokenDataset, sorted_batches
from skfocal._data.tokenization import TruncationSpec
from skfocal._data.tokens import Tokens


def batches_of(lengths, batch_size=4, seed=0, **kwargs):
    n = len(lengths)
    return BucketBatchSampler(
        np.asarray(lengths), batch_size, lambda e, r: np.arange(n), n,
        np.random.RandomState(seed), **kwargs,
    )  # fmt: skip


def test_an_epoch_has_each_row_once_in_batches_of_near_equal_length():
    lengths = np.random.RandomState(0).randint(2, 500, 1000)
    sampler = batches_of(lengths, 16)
    batches = list(sampler)
    assert sorted(row for batch in batches for row in batch) == list(range(1000))
    assert len(batches) == len(sampler) == 63
    padded = sum(lengths[b].max() * len(b) for b in batches)
    assert padded < 1.1 * lengths.sum()
    shuffled = np.random.RandomState(0).permutation(1000).reshape(-1, 20)
    assert padded < 0.7 * (lengths[shuffled].max(axis=1) * 20).sum()


def test_epochs_differ_and_the_seed_decides():
    lengths = np.random.RandomState(0).randint(2, 50, 100)
    sampler = batches_of(lengths)
    first, second = list(sampler), list(sampler)
    assert first != second
    assert {frozenset(b) for b in first} != {frozenset(b) for b in second}
    assert list(batches_of(lengths)) == first
    assert list(batches_of(lengths, seed=1)) != first


def test_epoch_number_reaches_the_draw():
    seen = []

    def draw(epoch, rng):
        seen.append(epoch)
        return np.array([0, 0, 1])

    sampler = BucketBatchSampler(np.array([3, 4]), 2, draw, 3, np.random.RandomState(0))
    assert sorted(row for _ in range(2) for batch in sampler for row in batch) == [0] * 4 + [1] * 2
    assert seen == [0, 1]


def test_prediction_batches_hold_each_row_once_longest_first():
    assert sorted_batches([3, 9, 1, 5], 3) == [[1, 3, 0], [2]]


def test_collate_pads_to_the_longest_of_the_batch():
    flat = np.array([5, 6, 0, 7, 8, 9], np.int32)
    lengths = np.array([2, 1, 3])
    tokens = Tokens(flat, np.array([0, 2, 3]), lengths, lengths, TruncationSpec(4))
    data = TokenDataset(tokens, np.array([0, 1, 1]), np.array([0.5, 1, 1.5]))
    inputs, codes = Collator(pad_id=99)(data.__getitems__([0, 2]))
    assert inputs["input_ids"].tolist() == [[5, 6, 99], [7, 8, 9]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert inputs["sample_weight"].tolist() == [0.5, 1.5]
    assert codes.tolist() == [0, 1] and codes.dtype == torch.int64
    assert len(data) == 3
    ids, code, weight = data[2]
    assert ids.tolist() == [7, 8, 9] and code == 1 and weight == 1.5


def test_prediction_batches_by_tokens_keep_to_them():
    lengths = np.random.RandomState(0).randint(2, 300, 500)
    batches = sorted_batches(lengths, None, 1000)
    assert sorted(row for batch in batches for row in batch) == list(range(500))
    assert all(lengths[b].max() * len(b) <= 1000 for b in batches)
    assert [lengths[b].max() for b in batches] == sorted(lengths[b].max() for b in batches)[::-1]
    assert sorted_batches([5, 2000], None, 1000) == [[1], [0]]
    assert sorted_batches([], 4) == []
