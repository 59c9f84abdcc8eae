"""Token ids and the cache of them."""

import numpy as np
import pytest
from transformers import AutoTokenizer

from skfocal._data import tokens as _tokens
from skfocal._data.tokenization import TruncationSpec
from skfocal._data.tokens import clear_token_cache, tokenize


@pytest.fixture
def tokenizer(tiny):
    clear_token_cache()
    return AutoTokenizer.from_pretrained(tiny)


def test_ids_are_those_of_the_tokenizer(tokenizer):
    texts = ["a short one", "word " * 200, "", "a short one"]
    tokens = tokenize(tokenizer, texts, TruncationSpec(16))
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
    encode = _tokens.encode
    monkeypatch.setattr(
        _tokens, "encode", lambda t, texts, cut: seen.extend(texts) or encode(t, texts, cut)
    )
    tokenize(tokenizer, ["a", "b", "a"], TruncationSpec(16))
    tokenize(tokenizer, ["b", "c"], TruncationSpec(16))
    assert seen == ["a", "b", "c"]
    again = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    tokenize(again, ["a", "c"], TruncationSpec(16))  # another object of the same tokenizer
    assert seen == ["a", "b", "c"]
    tokenize(tokenizer, ["a"], TruncationSpec(32))  # another length
    assert seen == ["a", "b", "c", "a"]


def test_cache_is_emptied_when_it_grows_too_large(tokenizer, monkeypatch):
    monkeypatch.setattr(_tokens._MEMORY, "limit", 40)
    for text in ["a few words", "some other words", "and these too", "one more of them"]:
        assert len(tokenize(tokenizer, [text], TruncationSpec(16))) == 1
    assert len(_tokens._MEMORY.entries) < 3


def test_tokens_take_four_bytes_each_and_sixteen_a_document(tokenizer):
    tokens = tokenize(tokenizer, ["a few words", "some other words"] * 50, TruncationSpec(16))
    parts = tokens.flat, tokens.starts, tokens.lengths, tokens.full_lengths
    assert sum(part.nbytes for part in parts) == 4 * tokens.lengths.sum() + 16 * 100
    assert np.shares_memory(tokens.take([3, 5]).flat, tokens.flat)


def test_very_many_documents_are_not_kept_and_give_the_same(tokenizer, monkeypatch):
    texts = [f"text {i} " + "word " * (i % 9) for i in range(200)]
    plain = tokenize(tokenizer, texts, TruncationSpec(8))
    kept = len(_tokens._MEMORY.entries)
    monkeypatch.setattr(_tokens, "CACHED_DOCUMENTS", 100)
    monkeypatch.setattr(_tokens, "_AT_ONCE", 30)
    for limit in (10**9, 2000, 0):
        monkeypatch.setattr(_tokens, "_MAPPED_BYTES", limit)
        tokens = tokenize(tokenizer, texts, TruncationSpec(8))
        assert isinstance(tokens.flat, np.memmap) == (limit < 10**9)
        for name in ("flat", "starts", "lengths", "full_lengths"):
            assert np.array_equal(getattr(tokens, name), getattr(plain, name))
    tokenize(tokenizer, ["never seen"], TruncationSpec(8), keep=False)
    assert len(_tokens._MEMORY.entries) == kept


def test_truncation_is_told_with_numbers(tokenizer):
    tokens = tokenize(tokenizer, ["word " * 30, "two words"], TruncationSpec(16))
    message = tokens.loss_message()
    assert message.startswith("1 of 2 documents have more than max_length=16 tokens")
    assert "44.4% of all tokens" in message and "longest has 32" in message
    assert tokenize(tokenizer, ["two words"], TruncationSpec(16)).loss_message() is None


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
def test_strange_text_is_that_of_the_tokenizer_without_surrogates(tokenizer, name):
    tokens = tokenize(tokenizer, [STRANGE[name]], TruncationSpec(16))
    plain = STRANGE[name].encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert tokens[0].tolist() == tokenizer(plain)["input_ids"]


@pytest.mark.parametrize(
    ("text", "n_tokens"),
    [
        pytest.param("x" * 10_000_000, 3, marks=pytest.mark.slow),  # one unknown word
        pytest.param("lorem ipsum " * 870_000, 3_480_002, marks=pytest.mark.slow),
    ],
)
def test_ten_megabytes_in_one_string(tokenizer, text, n_tokens):
    tokens = tokenize(tokenizer, [text], TruncationSpec(16))
    assert tokens.lengths.tolist() == [min(n_tokens, 16)]
    assert tokens.full_lengths.tolist() == [n_tokens]
