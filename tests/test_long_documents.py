"""Documents longer than the encoder: what is kept of them, their windows, and the pooled logits."""

import pickle

import numpy as np
import pytest
import torch
from conftest import imbalanced
from sklearn.model_selection import GridSearchCV, cross_val_score
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerFast,
    XLNetConfig,
    XLNetForSequenceClassification,
)

from skfocal import BertFocalClassifier, OnnxClassifier, Windows, clear_cache
from skfocal._data.batches import Collator, TokenDataset
from skfocal._data.tokenization import TruncationSpec, encode, n_windows, window_table
from skfocal._data.tokens import tokenize
from skfocal._encoder.frozen_layers import FrozenLayers
from skfocal._encoder.pooling import POOLINGS, pool, pool_all
from skfocal._estimator.fitted_model import present_truncation
from skfocal._training.microbatches import MicroBatches

WORDS = "the of and to in is on at by for".split()  # that say nothing of the class
LENGTHS = [0, 3, 14, 15, 40, 200]  # words; sixteen tokens hold fourteen


def words(n, seed=0):
    return " ".join(np.random.RandomState(seed).choice(WORDS, n))


TEXTS = [words(n, seed=n) for n in LENGTHS]


@pytest.fixture
def tokenizer(tiny):
    return AutoTokenizer.from_pretrained(tiny)


@pytest.fixture(scope="module")
def data():
    return imbalanced(18, 6)


@pytest.fixture(scope="module")
def texts(data):
    """Twenty-four texts of which every third is of two to six windows of sixteen tokens."""
    X, y = data
    return [f"{x} {words(25 + 2 * i)} {x}" if i % 3 == 0 else x for i, x in enumerate(X)], y


# -- what is kept ----------------------------------------------------------------------------


def ids_of(tokenizer, texts, **settings):
    entries = encode(tokenizer.backend_tokenizer, texts, TruncationSpec(16, **settings))
    return [ids.tolist() for ids, _ in entries], [length for _, length in entries]


@pytest.mark.parametrize("side", ["right", "left"])
def test_truncation_is_that_of_transformers(tokenizer, side):
    tokenizer.truncation_side = side
    expected = tokenizer(TEXTS, truncation=True, max_length=16)["input_ids"]
    found, lengths = ids_of(tokenizer, TEXTS, side=side)
    assert found == expected
    assert lengths == [n + 2 for n in LENGTHS]


@pytest.mark.parametrize(
    ("stride", "side"), [(0, "right"), (5, "right"), (13, "right"), (3, "left")]
)
def test_pieces_are_those_of_transformers(tokenizer, stride, side):
    tokenizer.truncation_side = side
    cut = tokenizer(
        TEXTS, truncation=True, max_length=16, stride=stride, return_overflowing_tokens=True
    )
    documents = cut["overflow_to_sample_mapping"]
    expected: list = [[] for _ in TEXTS]
    for document, ids in zip(documents, cut["input_ids"], strict=True):
        expected[document] += ids
    found, _ = ids_of(tokenizer, TEXTS, long_documents="windows", stride=stride, side=side)
    assert found == expected
    counts = n_windows([len(ids) for ids in found], 16)
    assert counts.tolist() == np.bincount(documents).tolist()


def test_head_and_tail_keep_a_quarter_and_three_quarters(tokenizer):
    found, _ = ids_of(tokenizer, TEXTS, long_documents="head_tail")
    whole = tokenizer(TEXTS)["input_ids"]
    assert found[:3] == whole[:3]
    for ids, full in zip(found[3:], whole[3:], strict=True):
        # [CLS], three of fourteen tokens from the beginning, eleven from the end, [SEP]
        assert ids == [*full[:4], *full[-12:]]


def test_pieces_lie_in_their_order_with_their_documents(tokenizer):
    tokens = tokenize(tokenizer, TEXTS, TruncationSpec(16, "windows", stride=4))
    pieces, counts = tokens.take([4, 0, 5]).windows()
    assert counts.tolist() == [4, 1, 20] and len(pieces) == 25
    assert pieces.lengths.max() == 16 and pieces.lengths.min() == 2
    joined = [ids.tolist() for ids in pieces]
    assert sum(joined[:4], []) == tokens[4].tolist() and sum(joined[5:], []) == tokens[5].tolist()
    assert joined[4] == tokens[0].tolist()
    plain = tokenize(tokenizer, TEXTS, TruncationSpec(16))
    assert plain.windows()[0] is plain and plain.windows()[1].tolist() == [1] * 6


def test_settings_do_not_share_kept_tokens(tokenizer):
    kinds = [
        TruncationSpec(16),
        TruncationSpec(16, "head_tail"),
        TruncationSpec(16, "windows"),
        TruncationSpec(16, "windows", 4),
    ]
    lengths = [tokenize(tokenizer, TEXTS, truncation).lengths.tolist() for truncation in kinds]
    assert lengths[0] == lengths[1] and lengths[1] != lengths[2] != lengths[3]
    ids = [tokenize(tokenizer, TEXTS, truncation)[4].tolist() for truncation in kinds[:2]]
    assert ids[0] != ids[1]


def test_most_pieces_are_kept_and_what_is_lost_is_told(tokenizer):
    truncation = TruncationSpec(16, "windows", stride=4, max_windows=3)
    tokens = tokenize(tokenizer, TEXTS, truncation)
    assert tokens.lengths.tolist() == [2, 5, 16, 16 + 7, 48, 48]
    # Three windows reach to the 14 + 10 + 10 tokens of text.
    assert truncation.reach == 36 and tokens.is_cut.tolist() == [False] * 4 + [True] * 2
    message = tokens.loss_message()
    assert message.startswith(
        "2 of 6 documents have more than the 36 of max_windows=3 windows of 16"
    )
    assert f"{(42 + 202 - 72) / 284:.1%} of all tokens; the longest has 202" in message
    exact = tokenize(tokenizer, [words(34), words(35)], truncation)
    assert exact.lengths.tolist() == [48, 48] and exact.is_cut.tolist() == [False, True]
    assert tokenize(tokenizer, TEXTS, TruncationSpec(16, "windows")).loss_message() is None
    middle = tokenize(tokenizer, TEXTS, TruncationSpec(16, "head_tail")).loss_message()
    assert "3 of 6 documents" in middle and "lose their middle" in middle


# -- pooling ---------------------------------------------------------------------------------


def test_table_names_the_rows_of_each_document():
    assert window_table([1, 3, 2]).tolist() == [[0, -1, -1], [1, 2, 3], [4, 5, -1]]


EXPECTED = {
    "mean": lambda part: part.mean(axis=0),
    "max": lambda part: part.max(axis=0),
    "logsumexp": lambda part: np.log(np.exp(part).mean(axis=0)),
}


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooled_logits_are_those_of_the_formula(pooling):
    counts = np.array([1, 4, 2, 1, 4])
    logits = np.random.RandomState(0).randn(12, 3).astype(np.float32) * 5
    ends = np.cumsum(counts)
    parts = np.split(logits.astype(np.float64), ends[:-1])
    expected = np.array([EXPECTED[pooling](part) for part in parts])
    table = torch.from_numpy(window_table(counts))
    np.testing.assert_allclose(pool(torch.from_numpy(logits), table, pooling), expected, rtol=1e-5)
    found = pool_all(logits, counts, pooling)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.array_equal(found[[0, 3]], logits[[0, 7]]) and found.dtype == np.float32


@pytest.mark.parametrize("pooling", POOLINGS)
def test_gradients_of_pooling_are_finite_and_right(pooling):
    logits = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    table = torch.tensor([[0, -1, -1], [1, 2, 3], [4, 5, -1]])
    assert torch.autograd.gradcheck(lambda x: pool(x, table, pooling), logits)
    far = torch.tensor([[1e4], [-1e4], [0.0]], requires_grad=True)
    pool(far, torch.tensor([[0, 1, 2]]), pooling).sum().backward()
    assert far.grad.isfinite().all() and far.grad.sum() == pytest.approx(1.0)


# -- the classifier --------------------------------------------------------------------------


OF_WINDOWS = {"stride", "pooling", "max_windows"}


def fit(make, texts, **settings):
    windows = {name: settings.pop(name) for name in OF_WINDOWS & set(settings)}
    defaults = {"max_length": 16, "alpha": "balanced"}
    defaults["long_documents"] = Windows(**{"stride": 4, **windows})
    return make(**{**defaults, **settings}).fit(*texts)


def pieces_by_hand(clf, text):
    """Return the encoder's logits of each piece of a document, from transformers alone."""
    cut = clf.tokenizer_(
        text, truncation=True, max_length=16, stride=4, return_overflowing_tokens=True,
        padding=True, return_tensors="pt",
    )  # fmt: skip
    encoder = clf.net_.module_.model
    return encoder(cut["input_ids"], attention_mask=cut["attention_mask"]).logits


def logits_by_hand(clf, X):
    """Return pooled logits in float64, document by document."""
    with torch.no_grad():
        pieces = [pieces_by_hand(clf, text).double().numpy() for text in X]
    return np.array([EXPECTED[clf.long_documents.pooling](logits) for logits in pieces])


@pytest.mark.parametrize("settings", [{}, {"freeze": 1}, {"pooling": "max"}, {"dropout": None}])
def test_predictions_pool_what_the_encoder_says_of_each_piece(make, texts, settings):
    clf = fit(make, texts, max_epochs=6, **settings)
    X = [*texts[0], words(130), ""]
    expected = torch.tensor(logits_by_hand(clf, X[:-2])).softmax(1)
    found = clf.set_params(proba="softmax").predict_proba(X)
    np.testing.assert_allclose(found[:-2], expected, atol=1e-5)
    assert np.array_equal(clf.predict(X), clf.classes_[found.argmax(1)])
    assert clf.score(*texts) > 0.8 and clf.n_truncated_ == 0


@pytest.mark.parametrize("settings", [{}, {"pooling": "logsumexp"}, {"freeze": 1}])
def test_a_batch_has_the_loss_of_pooled_logits_in_training(make, texts, settings):
    """One update goes where transformers and cross-entropy alone send it."""
    X, y = texts[0][:8], texts[1][:8]
    plain = {"loss": "cross_entropy", "alpha": None, "max_epochs": 1, "gradient_clip": None}
    clf = fit(make, (X, y), **plain, **settings, warmup=0.0, weight_decay=0.0)
    start = fit(make, (X, y), **plain, **settings, warmup=0.0, weight_decay=0.0, lr=1e-30)
    encoder = start.net_.module_.model
    assert clf.history_[0]["train_loss"] == pytest.approx(start.history_[0]["train_loss"], rel=1e-6)
    pooled = {
        "mean": lambda logits: logits.mean(0),
        "logsumexp": lambda logits: logits.logsumexp(0) - np.log(len(logits)),
    }[clf.long_documents.pooling]
    by_hand = torch.stack([pooled(pieces_by_hand(start, text)) for text in X])
    codes = torch.tensor(np.searchsorted(start.classes_, y))
    expected = torch.nn.functional.cross_entropy(by_hand, codes)
    assert clf.history_[0]["train_loss"] == pytest.approx(expected.item(), rel=1e-5)
    expected.backward()
    n_moved = 0
    trained = clf.net_.module_.model.parameters()
    for before, after in zip(encoder.parameters(), trained, strict=True):
        if before.grad is None:
            assert torch.equal(before, after)
            continue
        clear = before.grad.abs() > 1e-5  # AdamW's first step is of one size, against the sign
        assert torch.equal((after - before)[clear].sign(), -before.grad[clear].sign())
        n_moved += int(clear.sum())
    assert n_moved > 1000


def gradients(net, batch, n_tokens):
    net.module_.zero_grad(set_to_none=True)
    parts = MicroBatches("training", n_tokens).of(batch)
    for inputs, codes in parts:
        loss = net.get_loss(net.infer(inputs), codes, X=inputs, training=True)
        (loss * len(codes) / len(batch[1])).backward()
    return len(parts), [p.grad.clone() for p in net.module_.parameters() if p.grad is not None]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_parts_of_a_batch_of_long_documents_have_its_gradient(make, texts, pooling):
    clf = fit(make, texts, pooling=pooling)
    net = clf.net_
    tokens = tokenize(clf.tokenizer_, texts[0][:12], present_truncation(clf))
    codes = np.searchsorted(clf.classes_, texts[1][:12])
    batch = Collator(0)(TokenDataset(tokens, codes).__getitems__(np.arange(12)))
    assert len(batch[0]["input_ids"]) > 20 and batch[0]["pieces"].shape[0] == 12
    _, whole = gradients(net, batch, None)
    n_parts, parts = gradients(net, batch, 16 * 7)
    assert n_parts > 3
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)
    n_parts, parts = gradients(net, batch, 1)  # each document by itself
    assert n_parts == 12
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_training_has_no_more_rows_at_once_than_a_batch_or_a_document(make, texts, monkeypatch):
    sizes = []
    forward = torch.nn.Module.__call__

    def counted(module, *args, **kwargs):
        if type(module).__name__ == "EncoderClassifier" and module.training:
            sizes.append(len(kwargs["input_ids"]))
        return forward(module, *args, **kwargs)

    monkeypatch.setattr(torch.nn.Module, "__call__", counted)
    clf = fit(make, texts, batch_size=4)
    counts = n_windows(tokenize(clf.tokenizer_, texts[0], present_truncation(clf)).lengths, 16)
    assert max(sizes) <= max(4, counts.max()) and counts.max() > 4
    assert sum(sizes) == 2 * counts.sum()


def test_frozen_layers_keep_pieces(make, texts):
    clear_cache()
    clf = fit(make, texts, freeze=1)
    net = clf.net_
    tokens = tokenize(clf.tokenizer_, texts[0], present_truncation(clf))
    inputs, _ = Collator(0)(TokenDataset(tokens).__getitems__(np.arange(24)))
    assert isinstance(net.frozen_, FrozenLayers)
    replayed = net.infer(inputs)
    names = "input_ids", "attention_mask"
    plain = net.module_(**{name: inputs[name] for name in names})
    torch.testing.assert_close(
        replayed, pool(plain, inputs["pieces"], clf.long_documents.pooling), atol=1e-5, rtol=1e-5
    )


@pytest.mark.filterwarnings("ignore:.*lose their middle")
@pytest.mark.parametrize(
    "long_documents", [pytest.param("head_tail", marks=pytest.mark.slow), Windows(4)], ids=str
)
@pytest.mark.parametrize("precision", [pytest.param(None, marks=pytest.mark.slow), "int8"])
def test_answers_survive_pickle_folder_and_graph(make, texts, tmp_path, long_documents, precision):
    clf = fit(make, texts, long_documents=long_documents, proba="natural")
    X = [*texts[0], words(700, seed=1)]
    clf.set_params(predict_precision=precision)
    expected = clf.predict_proba(X)
    assert np.array_equal(pickle.loads(pickle.dumps(clf)).predict_proba(X), expected)
    clf.save_pretrained(tmp_path / "folder")
    again = BertFocalClassifier.from_pretrained(tmp_path / "folder")
    assert np.array_equal(again.predict_proba(X), expected)
    card = (tmp_path / "folder" / "README.md").read_text()
    kind = "head_tail" if long_documents == "head_tail" else "windows"
    assert f'`long_documents="{kind}"` is skfocal\'s alone' in card
    # What the parameters say now is of the next fit.
    again.set_params(long_documents="truncate")
    assert np.array_equal(again.predict_proba(X), expected)
    if precision is None:
        clf.to_onnx(tmp_path / "graph")
        served = OnnxClassifier(tmp_path / "graph")
        np.testing.assert_allclose(served.predict_proba(X), expected, atol=1e-5)
        assert served.predict(X[::7]).tolist() == clf.predict(X[::7]).tolist()


def test_several_labels_pool_by_label(make, texts):
    X, y = texts
    Y = np.stack([y == "spam", y == "ham", np.arange(len(y)) % 3 == 0], axis=1).astype(int)
    clf = fit(make, (X, Y), pooling="max", alpha=None, proba="softmax")
    expected = torch.tensor(logits_by_hand(clf, X)).sigmoid()
    np.testing.assert_allclose(clf.predict_proba(X), expected, atol=1e-5)


def test_held_out_documents_are_scored_by_pooled_logits(make, texts):
    scored = []

    def score(answers, X, y):
        scored.append((X, answers.predict_proba(X)))
        return 0.5

    clf = fit(make, texts, train_split=0.5, scoring=score, proba="softmax", max_epochs=1)
    [(held_out, found)] = scored
    assert len(held_out) == 12 and any(len(x.split()) > 14 for x in held_out)
    np.testing.assert_allclose(found, clf.predict_proba(held_out), atol=1e-6)


def test_search_over_ways_and_poolings(make, texts):
    grid = [
        {"long_documents": ["truncate", "head_tail"]},
        {"long_documents": ["windows"], "long_documents__pooling": list(POOLINGS)},
    ]
    clf = make(max_length=16, max_epochs=1)
    search = GridSearchCV(clf, grid, cv=2, scoring="neg_log_loss", refit=False)
    with pytest.warns(UserWarning, match="lose their"):
        search.fit(*texts)
    scores = search.cv_results_["mean_test_score"].tolist()
    assert len(set(scores)) == 5
    clf.set_params(**search.cv_results_["params"][-1])
    by_hand = cross_val_score(clf, *texts, cv=2, scoring="neg_log_loss")
    assert scores[-1] == by_hand.mean()


def test_what_is_lost_beyond_the_most_pieces_is_told(make, texts):
    with pytest.warns(UserWarning, match="the 26 of max_windows=2 windows of 16 tokens and lose"):
        clf = fit(make, texts, max_windows=2)
    lengths = [len(ids) for ids in clf.tokenizer_(texts[0])["input_ids"]]
    assert clf.n_truncated_ == sum(n > 26 for n in lengths) > 0


def test_chunks_of_partial_fit_have_pieces(make, texts):
    X, y = texts
    clf = make(max_length=16, long_documents=Windows(stride=4), proba="softmax")
    for _ in range(2):
        clf.partial_fit(X, y, classes=["ham", "spam"])
    expected = torch.tensor(logits_by_hand(clf, X)).softmax(1)
    np.testing.assert_allclose(clf.predict_proba(X), expected, atol=1e-5)
    assert clf.n_truncated_ == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"long_documents": "cut"}, "'long_documents' parameter"),
        ({"pooling": "sum"}, "'pooling' parameter of Windows"),
        ({"stride": -1}, "'stride' parameter"),
        ({"stride": 14}, "stride must be less than the 14 tokens of text in a window .* Got 14"),
        ({"max_windows": 0}, "'max_windows' parameter"),
    ],
)
def test_wrong_settings_are_refused(make, texts, settings, message):
    with pytest.raises(ValueError, match=message):
        fit(make, texts, **settings)


def test_integers_of_numpy_are_saved_as_others(make, texts, tmp_path):
    counts = {"max_length": 16, "stride": 4, "max_windows": 12, "freeze": 1}
    clf = fit(make, texts, **{name: np.int64(value) for name, value in counts.items()})
    clf.save_pretrained(tmp_path / "folder")
    again = BertFocalClassifier.from_pretrained(tmp_path / "folder")
    assert np.array_equal(again.predict_proba(texts[0]), clf.predict_proba(texts[0]))


def test_progress_counts_documents_and_not_pieces(make, texts):
    clf = fit(make, texts, max_epochs=1)
    told = []
    clf.net_.watch = told.append
    clf.predict(texts[0])
    assert sum(told) == pytest.approx(24)


def test_heads_that_read_the_padding_are_refused(make, tiny_copy, data):
    XLNetForSequenceClassification(
        XLNetConfig(vocab_size=30522, d_model=32, n_layer=2, n_head=2, d_inner=64)
    ).save_pretrained(tiny_copy)
    with pytest.raises(ValueError, match="XLNetForSequenceClassification with summary_type='last'"):
        make(model=str(tiny_copy)).fit(*data)


def test_text_without_any_token_is_named(make, tiny_copy, data):
    tokenizer = AutoTokenizer.from_pretrained(tiny_copy)
    backend = tokenizer.backend_tokenizer
    backend.post_processor = TemplateProcessing(single="$A", special_tokens=[])
    PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", model_max_length=64
    ).save_pretrained(tiny_copy)
    clf = make(model=str(tiny_copy), max_epochs=1).fit(*data)
    with pytest.raises(ValueError, match="X must have a token in each document.* Got ''"):
        clf.predict(["win", ""])
