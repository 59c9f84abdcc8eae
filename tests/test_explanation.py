"""Explanations: attributions against computations of their own, words against the text."""

import random
import re
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from conftest import WORDS, imbalanced, logits_of
from scipy.special import logsumexp
from test_report import EVIL, Page
from tiny_encoders import FAMILIES
from torch import nn

from skfocal import BertFocalClassifier, Explanation, Report, Windows
from skfocal._data.tokenization import encodable, encode_with_places
from skfocal._data.words import word_spans, words_of_tokens
from skfocal._estimator.build import copied_encoder
from skfocal._estimator.fitted_model import present_truncation
from skfocal.explanation import _gradients
from skfocal.explanation._gradients import Document, Embeddings, integrated_gradients

TEXT = "Win money now, team: don't miss the project-report (cash)!"


def log_odds(logits):
    """Return the log-odds of all classes of each row."""
    others = [logsumexp(np.delete(logits, c, axis=1), axis=1) for c in range(logits.shape[1])]
    return logits - np.column_stack(others)


def texts_of(document):
    return (document.text,) if isinstance(document.text, str) else document.text


def check(document, clf, X):
    """Hold an explanation to its text and to the logits of the classifier."""
    for i, (start, stop), word in zip(document.texts, document.spans, document.words, strict=True):
        assert texts_of(document)[i][start:stop] == word
        assert word.strip() == word != ""
    logits = logits_of(clf, X).astype(float)
    scores = logits if clf.multilabel_ else log_odds(logits)
    code = clf.classes_.tolist().index(document.target)
    assert document.log_odds == pytest.approx(scores[document.row, code], abs=2e-5)
    change = document.log_odds - document.baseline_log_odds
    assert document.attributions.sum() == pytest.approx(change, abs=2e-3 + 0.02 * abs(change))
    assert document.completeness_error == pytest.approx(document.attributions.sum() - change)


@pytest.fixture(scope="module")
def fitted(tiny):
    """Return a classifier of short texts, and its documents."""
    X, y = imbalanced()
    clf = BertFocalClassifier(tiny, max_epochs=12, lr=3e-3, batch_size=8, random_state=0)
    assert clf.fit(X, y).score(X, y) == 1
    return clf, X, y


@pytest.fixture(scope="module")
def real(minilm):
    """Return MiniLM, fitted to the same documents."""
    X, y = imbalanced()
    clf = BertFocalClassifier(minilm, max_epochs=3, lr=3e-4, random_state=0, batch_size=8)
    assert clf.fit(X, y).score(X, y) == 1
    return clf


# -- numbers ---------------------------------------------------------------------------------


def by_hand(clf, text, code, n_steps=300):
    """Return the attributions of tokens in float64, by the midpoint rule and transformers' own
    way to take embeddings, and the offsets of the tokens.
    """
    model = clf.net_.plain_module().model.double()
    encoded = clf.tokenizer_(text, return_offsets_mapping=True, return_special_tokens_mask=True)
    ids, special = (torch.tensor(encoded[k]) for k in ("input_ids", "special_tokens_mask"))
    table = model.get_input_embeddings().weight.detach()
    ends = table[ids], table[ids.where(special == 1, clf.tokenizer_.pad_token_id)]
    t = (torch.arange(n_steps, dtype=torch.float64) + 0.5)[:, None, None] / n_steps
    path = (ends[1] + t * (ends[0] - ends[1])).requires_grad_()
    logits = model(inputs_embeds=path, attention_mask=torch.ones(path.shape[:2])).logits
    others = [c for c in range(logits.shape[1]) if c != code]
    score = logits[:, code] - logits[:, others].logsumexp(1)
    (slope,) = torch.autograd.grad(score.sum(), path)
    model.float()
    return ((ends[0] - ends[1]) * slope.mean(0)).sum(1).numpy(), encoded["offset_mapping"]


@pytest.mark.parametrize("code", [0, 1, 2])
def test_attributions_are_integrated_gradients_computed_by_hand(code, make):
    X, y = imbalanced()
    clf = make(pooling="head", max_epochs=12).fit(X, [*y[:-6], *["other"] * 6])
    (found,) = clf.explain([TEXT], clf.classes_[code], n_steps=64)
    tokens, offsets = by_hand(clf, TEXT, code)
    words = [
        sum(v for v, (a, b) in zip(tokens, offsets, strict=True) if start <= a < b <= stop)
        for start, stop in found.spans
    ]
    np.testing.assert_allclose(found.attributions, words, rtol=1e-3, atol=2e-6)
    assert np.abs(words).max() > 1e-3
    assert found.completeness_error == pytest.approx(0, abs=1e-4)


def test_attributions_are_those_of_captums_layer_integrated_gradients(fitted):
    from captum.attr import LayerIntegratedGradients

    clf = fitted[0]
    module, tokenizer = clf.net_.plain_module(), clf.tokenizer_
    ids = torch.tensor([tokenizer(TEXT)["input_ids"]])
    is_text = ~torch.isin(ids, torch.tensor(tokenizer.all_special_ids))

    def score(ids):
        logits = module(ids, torch.ones_like(ids))
        return logits[:, 1] - logits[:, 0]

    layer = LayerIntegratedGradients(score, module.model.get_input_embeddings())
    tokens = layer.attribute(ids, ids.where(~is_text, tokenizer.pad_token_id), n_steps=32)
    (found,) = clf.explain([TEXT], "spam")
    assert found.attributions.sum() == pytest.approx(tokens.sum().item(), abs=1e-5)
    whole = [i for i, word in enumerate(found.words) if word.lower() in tokenizer.vocab]
    places = [tokenizer(TEXT).char_to_token(int(found.spans[i, 0])) for i in whole]
    by_token = tokens[0].sum(1).detach().numpy()[places]
    np.testing.assert_allclose(found.attributions[whole], by_token, atol=1e-6)


class MeanOfWords(nn.Module):
    """A linear classifier of the mean of its embeddings."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(9, 4), nn.Linear(4, 3)
        self.model = self
        self.base_model = None

    def get_input_embeddings(self):
        return self.table

    def forward(self, input_ids, attention_mask):
        return self.head(self.table(input_ids).mean(1))


def test_one_step_is_exact_for_a_linear_model():
    torch.manual_seed(0)
    linear = MeanOfWords()
    embeddings = Embeddings(linear)
    ids = np.array([1, 5, 6, 7, 5, 2], np.int32)
    is_text = np.array([False, True, True, True, True, False])
    with embeddings.replaced():
        document = Document(embeddings, ids, 8, "mean")
        tokens, end, begin = integrated_gradients(
            document, is_text, 0, lambda logits: logits[:, 2], 1
        )
    table, weight = linear.table.weight.detach(), linear.head.weight.detach()
    expected = (table[ids] - table[np.where(is_text, 0, ids)]) @ weight[2] / len(ids)
    np.testing.assert_allclose(tokens, expected, atol=1e-6)
    assert tokens.sum() == pytest.approx(end - begin, abs=1e-6)


def test_a_word_that_decides_the_class_gets_the_highest_attribution(real):
    clf = real
    neutral = "the of and it was on at by"
    for word, label in [("money", "spam"), ("prize", "spam"), ("lunch", "ham")]:
        (found,) = clf.explain([f"{neutral} {word} {neutral}"], label)
        assert found.words[found.attributions.argmax()] == word
        (against,) = clf.explain([found.text], {"spam": "ham", "ham": "spam"}[label])
        np.testing.assert_allclose(against.attributions, -found.attributions, atol=1e-4)


def test_parts_that_fit_into_memory_give_the_same(fitted, monkeypatch):
    clf, X, _ = fitted
    clf.set_params()
    whole = clf.explain(X[:3])
    monkeypatch.setitem(_gradients._AT_ONCE, "cpu", 10)  # fewer tokens than a document has
    for document, other in zip(whole, clf.explain(X[:3]), strict=True):
        np.testing.assert_allclose(document.attributions, other.attributions, atol=1e-5)


# -- kinds of documents ------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "max", "logsumexp"])
def test_windows_are_explained_as_pooled(pooling, make, monkeypatch):
    X, y = imbalanced()
    long_ = " ".join(X[:6])
    clf = make(max_length=12, long_documents=Windows(stride=4, pooling=pooling)).fit(X, y)
    (found,) = clf.explain([long_], n_steps=64)
    check(found, clf, [long_])
    assert found.words == long_.split() and found.n_unread == 0
    monkeypatch.setitem(_gradients._AT_ONCE, "cpu", 24)  # two windows at once
    (parts,) = clf.explain([long_], n_steps=64)
    np.testing.assert_allclose(parts.attributions, found.attributions, atol=1e-5)


def test_a_word_in_two_windows_gets_the_sum_of_both(make):
    X, y = imbalanced()
    indicator = np.column_stack([y == "ham", y == "spam", [len(text) > 30 for text in X]])
    settings = {"max_length": 8, "long_documents": Windows(stride=3)}
    clf = make(**settings).fit(X, indicator.astype(int))
    words = (WORDS["spam"].split() * 3)[:12]  # each is one token: windows of six, three shared
    (found,) = clf.explain([" ".join(words)], 1)
    windows = [words[:6], words[3:9], words[6:12]]
    expected = np.zeros(12)
    for i, document in enumerate(clf.explain([" ".join(window) for window in windows], 1)):
        expected[3 * i : 3 * i + 6] += document.attributions / 3
    np.testing.assert_allclose(found.attributions, expected, atol=1e-5)


def test_only_what_is_read_is_explained(make):
    X, y = imbalanced()
    text = "win money prize, cash now; lunch project report team meeting"
    for settings, read in [
        ({"max_length": 6}, "win money prize ,"),
        (
            {"max_length": 10, "long_documents": "head_tail"},
            "win money ; lunch project report team meeting",
        ),
    ]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            clf = make(**settings).fit(X, y)
        (found,) = clf.explain([text])
        check(found, clf, [text])
        assert found.words == read.split()
        assert len(found.words) + found.n_unread == len(word_spans(text))


def test_pairs_have_words_in_both_texts(make):
    X, y = imbalanced()
    pairs = [(text, f"{text.split()[0]}, re: lunch") for text in X]
    clf = make().fit(pairs, y)
    found = clf.explain(pd.DataFrame(pairs, columns=["a", "b"])[:4], n_steps=64)
    for document, pair in zip(found, pairs[:4], strict=True):
        check(document, clf, pairs)
        assert document.text == pair
        assert [w for w, i in zip(document.words, document.texts, strict=True) if i == 1] == [
            pair[1].split(",")[0], ",", "re", ":", "lunch",
        ]  # fmt: skip


def several_labels(make):
    X, y = imbalanced()
    labels = [
        {"long"} & {"long" if len(text) > 40 else ""} | {label}
        for text, label in zip(X, y, strict=True)
    ]
    return make(max_epochs=4).fit(X, labels), X


def test_each_decided_label_is_explained(make):
    clf, X = several_labels(make)
    found = clf.explain(X, n_steps=16)
    decided = clf.predict(X)
    proba = clf.predict_proba(X)
    for row in range(len(X)):
        mine = [document for document in found if document.row == row]
        expected = clf.classes_[decided[row] == 1].tolist()
        assert [d.target for d in mine] == (expected or [clf.classes_[proba[row].argmax()]])
    check(found[0], clf, X)
    clf.set_params(decision="prior", prior=dict.fromkeys(clf.classes_, 1e-06))
    none = clf.explain(X[:3], n_steps=1)
    assert not clf.predict(X[:3]).any() and [d.row for d in none] == [0, 1, 2]


def test_several_labels_may_be_asked_for(make):
    clf, X = several_labels(make)
    X = X[:3]
    wanted = [["ham"], ["long", "spam"], []]
    indicator = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0]])
    assert clf.classes_.tolist() == ["ham", "long", "spam"]
    pairs = [(0, "ham"), (1, "long"), (1, "spam")]
    named = pd.DataFrame(indicator[:, [2, 0, 1]], columns=["spam", "ham", "long"])
    for target in (wanted, indicator, pd.DataFrame(indicator), named, pl.from_pandas(named)):
        found = clf.explain(X, target, n_steps=2)
        assert [(d.row, d.target) for d in found] == pairs
    assert [d.target for d in clf.explain(X, "long", n_steps=2)] == ["long"] * 3
    assert [d.target for d in clf.explain(X, ["long", "ham", "ham"], n_steps=2)][1:] == ["ham"] * 2


def test_the_decided_class_is_that_of_predict(make):
    X, y = imbalanced()
    clf = make(decision="tuned", train_split=0.3, scoring="f1_macro").fit(X, y)
    clf.set_params(decision="prior", prior={"ham": 0.001, "spam": 0.999})
    found = clf.explain(X, n_steps=1)
    predicted = clf.predict(X)
    assert [d.target for d in found] == predicted.tolist()
    assert (predicted != clf.set_params(decision="argmax").predict(X)).any()


@pytest.mark.parametrize(
    "labels, wanted", [([3, 7], np.int64(7)), ([False, True], True), (["a", "b"], np.str_("b"))]
)
def test_a_target_may_have_any_type_of_label(labels, wanted, make):
    X, y = imbalanced()
    clf = make(max_epochs=1).fit(X, np.where(y == "ham", *labels))
    as_series = pd.Series([wanted] * 2, index=[5, 9])
    for target in (wanted, [wanted] * 2, as_series, pa.array(as_series), np.array(wanted)):
        assert [d.target for d in clf.explain(X[:2], target, n_steps=1)] == [wanted] * 2


# -- encoders ----------------------------------------------------------------------------------

SPECIAL = ("albert", "big_bird", "convbert", "longformer", "own_code", "roberta", "t5")
NAMES = [pytest.param(name, marks=() if name in SPECIAL else pytest.mark.slow) for name in FAMILIES]
REFUSED = {
    "bart": "BartModel, whose embeddings are not read",
    "t5": "T5Model, whose embeddings are not read",
}


BLANK = ["", " ", " \n\t ", "\x00", ("", ""), (" ", "win"), ("win money", "  \n "), (" ", " ")]


@pytest.mark.parametrize("name", ["bert", "roberta", "xlm_roberta", "modernbert"])
@pytest.mark.parametrize("pairs", [False, True])
def test_blanks_belong_to_no_word(name, pairs, tmp_path):
    FAMILIES[name](tmp_path)
    X, y = imbalanced()
    X = [(text, text) for text in X] if pairs else X
    clf = BertFocalClassifier(str(tmp_path), max_epochs=1, random_state=0).fit(X[:20], y[:20])
    texts = [text for text in BLANK if isinstance(text, tuple) == pairs]
    for text, document in zip(texts, clf.explain(texts, n_steps=100), strict=True):
        parts = text if pairs else (text,)
        assert document.words == " ".join(parts).replace("\x00", "").split()
        for i, (start, stop), word in zip(
            document.texts, document.spans, document.words, strict=True
        ):
            assert parts[i][start:stop] == word
        # What blanks add is in neither end of the integral.
        assert abs(document.completeness_error) < 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_encoders_are_explained_or_refused(name, tmp_path):
    FAMILIES[name](tmp_path)
    X, y = imbalanced()
    settings = {"trust_remote_code": True} if name == "own_code" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clf = BertFocalClassifier(str(tmp_path), max_epochs=1, random_state=0, **settings)
        clf.fit(X[:20], y[:20])
    if name in REFUSED:
        with pytest.raises(ValueError, match=f"explain needs an encoder .* {REFUSED[name]}"):
            clf.explain(X[:2])
        return
    texts = ["win money prize, now: free 7", "lunch"]
    found = clf.explain(texts, n_steps=300)
    for document in found:
        check(document, clf, texts)
    assert found[0].words == ["win", "money", "prize", ",", "now", ":", "free", "7"]
    assert np.abs(found[0].attributions).min() > 0


def test_an_encoder_without_known_embeddings_is_refused(fitted, monkeypatch):
    clf, X, _ = fitted
    kind = type(clf.net_.plain_module().model.base_model)

    def hidden(self):
        raise NotImplementedError

    monkeypatch.setattr(kind, "get_input_embeddings", hidden)
    with pytest.raises(ValueError, match="whose get_input_embeddings.. returns a module. Got None"):
        clf.explain(X[:2])


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "bfloat16"},
        {"predict_precision": "int8"},
        {"predict_precision": "bfloat16"},
        {"freeze": 1},
        {"pooling": "mean"},
        {"peft": {"peft_type": "LORA", "r": 2, "target_modules": ["query"]}},
        {"head_scale": 10.0} if "head_scale" in BertFocalClassifier().get_params() else {},
    ],
    ids=str,
)
def test_settings_of_training_and_prediction_do_not_matter(settings, make):
    X, y = imbalanced()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clf = make(**settings).fit(X, y)
        found = clf.explain(X[:2], n_steps=64)
        assert [d.target for d in found] == clf.predict(X[:2]).tolist()
        clf.set_params(predict_precision="float32")
    for document in found:
        check(document, clf, X)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_what_the_cpu_does(make):
    X, y = imbalanced()
    clf = make(device="cpu").fit(X, y)
    own = clf.explain(X[:4])
    clf.net_.set_params(device="cuda")
    clf.net_.module_.cuda()
    for document, other in zip(own, clf.explain(X[:4]), strict=True):
        np.testing.assert_allclose(document.attributions, other.attributions, atol=1e-3)


# -- what stays as it was ------------------------------------------------------------------------


def test_nothing_about_the_estimator_or_the_generators_changes(fitted):
    clf, X, _ = fitted
    module = clf.net_.plain_module()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    learns = [p.requires_grad for p in module.parameters()]
    before, attributes = clf.predict_proba(X), set(vars(clf))
    generators = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    module.model.train()  # as somebody may have left it
    modes = [part.training for part in module.modules()]
    clf.explain(X[:3])
    assert [part.training for part in module.modules()] == modes
    module.eval()
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert [p.requires_grad for p in module.parameters()] == learns
    assert all(p.grad is None for p in module.parameters())
    assert not any(part._forward_hooks for part in module.modules())
    assert set(vars(clf)) == attributes
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert (np.random.get_state()[1] == generators[1]).all()
    assert random.getstate() == generators[2]
    assert (clf.predict_proba(X) == before).all()


def test_results_are_the_same_to_the_bit_whatever_is_explained_beside(fitted):
    clf, X, _ = fitted
    found = clf.explain(X[:5])
    for row in range(5):
        (alone,) = clf.explain([X[row]])
        assert (alone.attributions == found[row].attributions).all()
        assert alone.log_odds == found[row].log_odds


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_modes_without_gradients_do_not_matter(mode, fitted):
    clf, X, _ = fitted
    with mode(), torch.autocast("cpu", torch.bfloat16):
        found = clf.explain(X[:1])
    assert (found[0].attributions == clf.explain(X[:1])[0].attributions).all()


def test_a_loaded_classifier_gives_the_same(fitted, tmp_path):
    clf, X, _ = fitted
    clf.save_pretrained(tmp_path / "folder")
    loaded = BertFocalClassifier.from_pretrained(tmp_path / "folder")
    for document, other in zip(clf.explain(X[:3]), loaded.explain(X[:3]), strict=True):
        assert (document.attributions == other.attributions).all()
        assert document.target == other.target


@pytest.mark.parametrize("freeze", [0, 1])
def test_another_thread_predicts_as_ever(freeze, make):
    X, y = imbalanced()
    clf = make(freeze=freeze).fit(X, y)
    expected, alone = clf.predict_proba(X), clf.explain(X[:4])
    results, done = [], threading.Event()

    def predict():
        while not done.is_set():
            results.append(clf.predict_proba(X))

    thread = threading.Thread(target=predict)
    thread.start()
    found = clf.explain(X[:4])
    done.set()
    thread.join()
    assert results and all((result == expected).all() for result in results)
    for document, other in zip(alone, found, strict=True):
        assert (document.attributions == other.attributions).all()


def test_two_threads_explain_at_once(fitted):
    clf, X, _ = fitted
    alone = clf.explain(X[:6])
    with ThreadPoolExecutor(2) as pool:
        parts = [*pool.map(lambda start: clf.explain(X[start : start + 3]), (0, 3))]
    for document, other in zip(alone, [*parts[0], *parts[1]], strict=True):
        assert (document.attributions == other.attributions).all()
    assert not clf.net_.plain_module().training


def test_copies_that_are_made_meanwhile_are_whole(fitted):
    clf, X, _ = fitted
    with ThreadPoolExecutor(1) as pool:
        explained = pool.submit(clf.explain, X[:6])
        while not explained.done():
            module, _ = copied_encoder(clf, clf)  # which has the parameters
            assert not module.model.get_input_embeddings()._forward_hooks
    assert len(explained.result()) == 6


# -- texts that are hard ---------------------------------------------------------------------------

HARD = [
    "",
    "   \n\t ",
    "\u2603\u2603 \u2603",
    "lunch",
    "a\ud83d b \ud83d\ude00 win \ude00 money",
    "win \U0001f469\u200d\U0001f4bb money \U0001f44d\U0001f3fd now",
    "\u0646\u0641\u0637 \u062e\u0627\u0645 win money",
    "\u4e2d\u56fd\u4eba\u6c11\u3002 win",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 lunch",
    "\u0939\u093f\u0928\u094d\u0926\u0940 lunch",
    "cafe\u0301 Zoe\u0308 na\u00efve",
    EVIL,
    "\x00\x07win\x1b[31m money\u202e now",
    "[SEP] win [PAD] money [MASK]",
    "x" * 5000,
]


@pytest.mark.parametrize("text", HARD, ids=ascii)
def test_hard_texts_are_explained_in_words_of_the_text(text, fitted):
    clf, *_ = fitted
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cut
        (found,) = clf.explain([text], n_steps=128)
        check(found, clf, [text])
    assert str(found) and found.n_unread >= 0
    page = Page(Explanation([found], n_steps=1, baseline="[PAD]")._repr_html_())
    assert "script" not in {tag for tag, _ in page.elements}
    assert not re.search(r"[\x00-\x08\x1b\u202e\ud800-\udfff]", page.text + str(found))


def test_ten_thousand_words_are_read_in_windows(make_of_few_words):
    rng = np.random.RandomState(0)
    text = " ".join(rng.choice("win money lunch team report now".split(), 10_000))
    X, y = imbalanced()
    clf = make_of_few_words(long_documents=Windows(max_windows=None)).fit(X, y)
    (found,) = clf.explain([text], n_steps=2)
    assert len(found.words) == 10_000 and found.n_unread == 0
    assert np.isfinite(found.attributions).all()


SPANS = {
    "I don't, said Zo\u00eb (U.S.).": ["I", "don't", ",", "said", "Zo\u00eb", "(", "U.S", ".)."],
    "e-mail me@x.org 3.5%": ["e-mail", "me", "@", "x.org", "3.5", "%"],
    "\u4e2d\u56fd\u3002ok": ["\u4e2d", "\u56fd", "\u3002", "ok"],
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u092d\u093e\u0937\u093e": [
        "\u0939\u093f\u0928\u094d\u0926\u0940",
        "\u092d\u093e\u0937\u093e",
    ],
    "'tis\u00a0- fine": ["'", "tis", "-", "fine"],
    "": [],
}


@pytest.mark.parametrize("text, words", SPANS.items())
def test_words_are_runs_of_letters_and_runs_of_marks(text, words):
    assert [text[start:stop] for start, stop in word_spans(text)] == words


def test_words_that_share_a_token_are_one():
    text = "new york is big"
    spans, words = words_of_tokens(text, np.array([0, 8, 11, 12]), np.array([8, 11, 12, 15]))
    assert [text[start:stop] for start, stop in spans] == ["new york", "is", "big"]
    assert words.tolist() == [0, 1, 2, 2]  # a blank goes to the word after it


def test_places_of_tokens_are_in_the_text_as_it_was_given(fitted):
    clf, *_ = fitted
    text = "a \ud83d\ude00 win \ud83d x \ud83d\ude00\ud83d\ude00 money \ude00"
    truncation = present_truncation(clf)
    assert len(encodable(text)) == len(text) - 3
    _, rows, places = encode_with_places(clf.tokenizer_.backend_tokenizer, text, truncation)
    pieces = [text[start:stop] for owner, start, stop in places[rows] if owner == 0]
    assert "win" in pieces and "money" in pieces and "x" in pieces and "a" in pieces


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("n_steps", [0, -1, 2.5, True, "many", None])
def test_a_wrong_number_of_steps_is_refused(n_steps, fitted):
    clf, X, _ = fitted
    with pytest.raises(ValueError, match=r"n_steps must be an int of at least 1\. Got "):
        clf.explain(X, n_steps=n_steps)


@pytest.mark.parametrize(
    "target, message",
    [
        ("egg", r"only labels of the fit, \['ham', 'spam'\]\. Got 'egg' for row 0"),
        (["ham", "egg"], "Got 'egg' for row 1"),
        ([["ham"], ["spam"]], r"Got \['ham'\] for row 0"),
        (["ham"], "one label, or one per document, 2 in all. Got 1"),
        ([], "Got 0"),
        (1, "Got 1 for row 0"),
        ({"ham": 1}, "an entry for each document. Got dict"),
        ({"ham", "spam"}, "an entry for each document. Got set"),
        (np.nan, "Got nan for row 0"),
    ],
)
def test_a_wrong_target_is_refused(target, message, fitted):
    clf, X, _ = fitted
    with pytest.raises(ValueError, match=f"^target must .*{message}"):
        clf.explain(X[:2], target)


def test_a_wrong_indicator_is_refused(make):
    clf, X = several_labels(make)
    for wrong, got in (
        (np.ones((2, 2)), r"the shape \(2, 2\)"),
        (np.full((2, 3), 0.5), r"the shape \(2, 3\)"),
        (np.ones((3, 3)), r"the shape \(3, 3\)"),
        (pd.DataFrame(np.ones((2, 3), int), columns=["ham", "spam", "eggs"]), r"\['ham', 'spam', "),
    ):
        with pytest.raises(ValueError, match=rf"^target .* 'long', 'spam'\]. Got {got}"):
            clf.explain(X[:2], wrong)


def test_documents_are_checked_as_in_predict(fitted):
    clf, X, _ = fitted
    with pytest.raises(TypeError, match="not a single str"):
        clf.explain("win money")
    with pytest.raises(ValueError, match="X holds no document"):
        clf.explain([])
    with pytest.raises(TypeError, match="Got int in row 1"):
        clf.explain(["win", 3])
    with pytest.raises(ValueError, match="one text per document, as in fit"):
        clf.explain([("win", "money")])


def test_a_missing_captum_names_the_extra(fitted, monkeypatch):
    clf, X, _ = fitted
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ImportError, match="explain needs captum: pip install 'skfocal.explain"):
        clf.explain(X[:1])


def test_too_few_steps_are_told(real):
    X, clf = imbalanced()[0], real
    with pytest.warns(UserWarning, match=r"n_steps=1 is too few for \d of 5 explanations.*Raise"):
        clf.explain(X[:5], n_steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for document in clf.explain(X[:5]):
            change = document.log_odds - document.baseline_log_odds
            assert abs(document.completeness_error) < 0.05 * abs(change)


# -- what is shown ---------------------------------------------------------------------------------


def test_the_table_has_all_words(fitted):
    clf, X, _ = fitted
    found = clf.explain(X[:3])
    table = pd.DataFrame(found.table)
    assert table["word"].tolist() == " ".join(X[:3]).split()
    sums = table.groupby("row")["attribution"].sum()
    np.testing.assert_allclose(sums, [d.attributions.sum() for d in found])
    assert [X[r][a:b] for r, a, b in table[["row", "start", "stop"]].to_numpy()] == [*table["word"]]
    assert len(found[1:]) == 2 and isinstance(found[1:], Explanation)


def test_the_strongest_words_are_summed_over_their_occurrences(fitted):
    clf, *_ = fitted
    (found,) = clf.explain(["Money lunch money, MONEY the"], "spam")
    sums = {}
    for word, value in zip(found.words, found.attributions, strict=True):
        sums[word.lower()] = sums.get(word.lower(), 0) + value
    strongest = found.strongest(2)
    expected = sorted(sums, key=lambda word: -abs(sums[word]))[:2]
    assert [word.lower() for word in strongest] == expected
    assert [*strongest.values()] == pytest.approx([sums[word] for word in expected])


def test_a_terminal_lists_words_with_signs(real):
    X, clf = imbalanced()[0], real
    found = clf.explain(["money lunch"], "spam")
    lines = str(found).splitlines()
    assert lines[0] == repr(found)
    assert repr(found).startswith("<Explanation of 1 document: integrated gradients, 32 steps, ")
    (money,) = [line for line in lines if line.endswith("money")]
    (lunch,) = [line for line in lines if line.endswith("lunch")]
    assert re.fullmatch(r"  +\+\d+\.\d{3}  \++ +money", money)
    assert re.fullmatch(r"  +-\d+\.\d{3}  -+ +lunch", lunch)
    assert str(clf.explain(X[:12])).splitlines()[-1] == "and 2 more"


def test_the_page_marks_words_for_and_against(real, tmp_path):
    clf = real
    found = clf.explain([f"money the lunch {EVIL}"], "spam")
    found.save(tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert EVIL not in html and "<script" not in html and "http" not in html.split("</style>")[-1]
    marks = {tuple(m) for m in re.findall(r'<mark class="(\w+)" title="[^"]+">(\w+)</mark>', html)}
    assert ("against3", "lunch") in marks
    assert any(kind.startswith("for") and word == "money" for kind, word in marks)
    text = Page(html).text
    assert "Solid and blue" in text and "dashed and orange" in text
    value = found[0].attributions[0]
    assert f'title="+{value:.3f}">money' in html


def test_the_report_marks_the_hardest_documents(fitted, tmp_path):
    clf, X, y = fitted
    wrong = np.where(np.arange(len(y)) == 7, np.where(y == "ham", "spam", "ham"), y)
    report = clf.report(X, wrong, n_hardest=3, explain=True)
    assert [d.row for d in report.explanation] == report.hardest["row"]
    assert [d.target for d in report.explanation] == report.hardest["predicted"]
    (alone,) = clf.explain([X[7]])
    assert (alone.attributions == report.explanation[0].attributions).all()
    assert report.explanation[0].row == 7
    html = report._repr_html_()
    assert re.search(r'<mark class="(for|against)\d" title', html)
    assert "<mark" not in clf.report(X, wrong, n_hardest=3)._repr_html_()
    assert clf.report(X, y, n_hardest=0, explain=True).explanation is None


def test_the_report_of_several_labels_explains_the_label_that_is_judged(make):
    clf, X = several_labels(make)
    y = [[str(clf.classes_[i % 3])] for i in range(len(X))]
    report = clf.report(X, y, n_hardest=4, explain=True)
    assert [d.target for d in report.explanation] == report.hardest["label"]


def test_a_report_of_another_classifier_cannot_explain():
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    X, y = imbalanced()
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(X, y)
    with pytest.raises(TypeError, match="explain must be False for other.*LogisticRegression"):
        Report.from_estimator(model, X, y, explain=True)
