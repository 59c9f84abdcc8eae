"""Every container of texts, every bad row, the token cache and the batches."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from transformers import AutoTokenizer

from skfocal import _text
from skfocal._text import (
    Collate,
    LengthBatches,
    TokenDataset,
    Tokens,
    as_texts,
    clear_token_cache,
    sorted_batches,
    tokenize,
)

TEXTS = ["first text", "", "third \U0001f600"]
CONTAINERS = {
    "list": TEXTS,
    "tuple": tuple(TEXTS),
    "object array": np.array(TEXTS, dtype=object),
    "unicode array": np.array(TEXTS),
    "column array": np.array(TEXTS, dtype=object)[:, None],
    "unicode column": np.array(TEXTS)[:, None],
    "pandas Series": pd.Series(TEXTS, index=[7, 8, 9]),
    "pandas string": pd.Series(TEXTS, dtype="string"),
    "pandas categorical": pd.Series(TEXTS, dtype="category"),
    "pandas DataFrame": pd.DataFrame({"text": TEXTS}),
    "polars Series": pl.Series(TEXTS),
    "polars DataFrame": pl.DataFrame({"text": TEXTS}),
    "pyarrow array": pa.array(TEXTS),
    "pyarrow large": pa.array(TEXTS, type=pa.large_string()),
    "pyarrow chunked": pa.chunked_array([TEXTS[:1], TEXTS[1:]]),
    "pyarrow table": pa.table({"text": TEXTS}),
    "numpy str": [np.str_(text) for text in TEXTS],
}


@pytest.fixture
def tokenizer(tiny):
    clear_token_cache()
    return AutoTokenizer.from_pretrained(tiny)


# -- containers ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_gives_the_same_list(name):
    texts = as_texts(CONTAINERS[name])
    assert texts == TEXTS
    assert all(type(text) is str for text in texts)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a", None], r"X must hold str only\. Got NoneType in row 1: None\. Fill or drop"),
        (["a", float("nan")], "Got float in row 1: nan.*fillna"),
        (["a", "b", 3], r"Got int in row 2: 3\."),
        ([b"bytes"], r"Got bytes in row 0: b'bytes'\. Decode it"),
        (["a", ["b", "c"]], r"Got list in row 1: \['b', 'c'\]"),
        (np.array([1.5, 2.5]), "Got float in row 0: 1.5"),
        (np.array([["a"], [None]], dtype=object), "row 1"),
        (pd.Series(["a", None]), "row 1"),
        (pd.Series(["a", pd.NA], dtype="string"), "row 1"),
        (pd.DataFrame({"text": ["a", np.nan]}), "row 1"),
        (pl.Series(["a", None]), "row 1"),
        (pa.array(["a", None]), "row 1"),
    ],
)
def test_bad_row_is_named(rows, message):
    with pytest.raises(TypeError, match=message):
        as_texts(rows)


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        ("one text", TypeError, r"not a single str.*give \[document\]"),
        (b"one text", TypeError, "not a single bytes"),
        (None, TypeError, "Got NoneType"),
        (3, TypeError, "Got int"),
        ({"a": "b"}, TypeError, "Got dict"),
        (iter(["a"]), TypeError, "Got list_iterator"),
        (np.array([["a", "b"]]), ValueError, r"one column.*Got shape \(1, 2\)"),
        (pd.DataFrame({"a": ["x"], "b": ["y"]}), ValueError, "one column"),
        (pa.table({"a": ["x"], "b": ["y"]}), ValueError, "one column"),
        (np.array("text"), ValueError, r"Got shape \(\)"),
        ([], ValueError, "0 sample"),
        (pd.Series([], dtype=object), ValueError, "0 sample"),
    ],
)
def test_what_holds_no_texts_is_refused(X, error, message):
    with pytest.raises(error, match=message):
        as_texts(X)


# -- tokens ----------------------------------------------------------------------------------


def test_ids_are_those_of_the_tokenizer(tokenizer):
    texts = ["a short one", "word " * 200, "", "a short one"]
    tokens = tokenize(tokenizer, texts, 16)
    plain = [tokenizer(t, truncation=True, max_length=16)["input_ids"] for t in texts]
    assert [ids.tolist() for ids in tokens] == plain
    assert tokens.full_lengths.tolist() == [5, 202, 2, 5]
    assert tokens.lengths.tolist() == [5, 16, 2, 5]
    assert tokens.flat.tolist() == sum(plain, [])
    some = tokens.take([3, 1])
    assert [ids.tolist() for ids in some] == [plain[3], plain[1]]
    assert some.full_lengths.tolist() == [5, 202]


def test_each_distinct_text_is_tokenised_once(tokenizer, monkeypatch):
    seen = []
    encode = _text._encode
    monkeypatch.setattr(
        _text, "_encode", lambda t, texts, n: seen.extend(texts) or encode(t, texts, n)
    )
    tokenize(tokenizer, ["a", "b", "a"], 16)
    tokenize(tokenizer, ["b", "c"], 16)
    assert seen == ["a", "b", "c"]
    again = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    tokenize(again, ["a", "c"], 16)  # another object of the same tokenizer
    assert seen == ["a", "b", "c"]
    tokenize(tokenizer, ["a"], 32)  # another length
    assert seen == ["a", "b", "c", "a"]


def test_cache_is_emptied_when_it_grows_too_large(tokenizer, monkeypatch):
    monkeypatch.setattr(_text._MEMORY, "limit", 40)
    for text in ["a few words", "some other words", "and these too", "one more of them"]:
        assert len(tokenize(tokenizer, [text], 16)) == 1
    assert len(_text._MEMORY.entries) < 3


def test_tokens_take_four_bytes_each_and_sixteen_a_document(tokenizer):
    tokens = tokenize(tokenizer, ["a few words", "some other words"] * 50, 16)
    parts = tokens.flat, tokens.starts, tokens.lengths, tokens.full_lengths
    assert sum(part.nbytes for part in parts) == 4 * tokens.lengths.sum() + 16 * 100
    assert np.shares_memory(tokens.take([3, 5]).flat, tokens.flat)


def test_very_many_documents_are_not_kept_and_give_the_same(tokenizer, monkeypatch):
    texts = [f"text {i} " + "word " * (i % 9) for i in range(200)]
    plain = tokenize(tokenizer, texts, 8)
    kept = len(_text._MEMORY.entries)
    monkeypatch.setattr(_text, "CACHED_DOCUMENTS", 100)
    monkeypatch.setattr(_text, "_AT_ONCE", 30)
    for limit in (10**9, 2000, 0):
        monkeypatch.setattr(_text, "_MAPPED_BYTES", limit)
        tokens = tokenize(tokenizer, texts, 8)
        assert isinstance(tokens.flat, np.memmap) == (limit < 10**9)
        for name in ("flat", "starts", "lengths", "full_lengths"):
            assert np.array_equal(getattr(tokens, name), getattr(plain, name))
    tokenize(tokenizer, ["never seen"], 8, keep=False)
    assert len(_text._MEMORY.entries) == kept


def test_truncation_is_told_with_numbers(tokenizer):
    tokens = tokenize(tokenizer, ["word " * 30, "two words"], 16)
    message = tokens.truncation_message(16)
    assert message.startswith("1 of 2 documents have more than max_length=16 tokens")
    assert "44.4% of all tokens" in message and "longest has 32" in message
    assert tokenize(tokenizer, ["two words"], 16).truncation_message(16) is None


STRANGE = {
    "lone surrogate": "bad \ud800 text",
    "surrogate pair": "\ud83d\ude00",
    "nul": "nul \x00 byte",
    "emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467 family",
    "right to left": "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd",
    "empty": "",
    "blank": " \t\n ",
    "controls": "\x01\x02\x1b[31m",
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_text_does_not_crash(tokenizer, name):
    tokens = tokenize(tokenizer, [STRANGE[name]], 16)
    assert 2 <= len(tokens[0]) <= 16


@pytest.mark.parametrize(
    ("text", "n_tokens"),
    [
        ("x" * 10_000_000, 3),  # one unknown word
        pytest.param("lorem ipsum " * 870_000, 3_480_002, marks=pytest.mark.slow),
    ],
)
def test_ten_megabytes_in_one_string(tokenizer, text, n_tokens):
    tokens = tokenize(tokenizer, [text], 16)
    assert tokens.lengths.tolist() == [min(n_tokens, 16)]
    assert tokens.full_lengths.tolist() == [n_tokens]


# -- batches ---------------------------------------------------------------------------------


def batches_of(lengths, batch_size=4, seed=0, **kwargs):
    n = len(lengths)
    return LengthBatches(
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

    sampler = LengthBatches(np.array([3, 4]), 2, draw, 3, np.random.RandomState(0))
    assert sorted(row for _ in range(2) for batch in sampler for row in batch) == [0] * 4 + [1] * 2
    assert seen == [0, 1]


def test_prediction_batches_hold_each_row_once_longest_first():
    assert sorted_batches([3, 9, 1, 5], 3) == [[1, 3, 0], [2]]


def test_collate_pads_to_the_longest_of_the_batch():
    flat = np.array([5, 6, 0, 7, 8, 9], np.int32)
    tokens = Tokens(flat, np.array([0, 2, 3]), np.array([2, 1, 3]), np.array([2, 1, 3]))
    data = TokenDataset(tokens, np.array([0, 1, 1]), np.array([0.5, 1, 1.5]))
    inputs, codes = Collate(pad_id=99)(data.__getitems__([0, 2]))
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
