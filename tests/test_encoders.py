"""Encoders of each family fit, answer and are kept, or are refused in a sentence."""

import contextlib
import copy
import io
import json
import pickle
import warnings
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV
from tiny_encoders import FAMILIES, WORDS

from skfocal import BertFocalClassifier, OnnxClassifier
from skfocal._encoder.frozen_layers import FrozenLayers
from skfocal._encoder.structure import layers_of, needs_equal_lengths
from skfocal._storage.encoder_state import encoder_of, module_to_plain
from skfocal._training.optimization import parameter_groups

# In the suite: one of each kind that needs special care. The others run with the slow tests.
SPECIAL = ("albert", "big_bird", "convbert", "gpt2", "own_code", "t5")
NAMES = [pytest.param(name, marks=() if name in SPECIAL else pytest.mark.slow) for name in FAMILIES]

# What a family cannot do, and the sentence that says so.
REFUSED = {
    ("t5", "mean"): "pooling must be 'auto' or 'head' for T5ForSequenceClassification, which class",
    ("bart", "mean"): "pooling must be 'auto' or 'head' for BartForSequenceClassification",
    ("own_code", "mean"): "gives no last_hidden_state, which pooling='mean' needs",
    ("albert", "freeze"): "freeze must be 0 for AlbertForSequenceClassification, which has no list",
    ("own_code", "save"): "A folder holds no code, and model=",
    ("own_code", "int8"): "which cannot be computed with int8 weights",
    ("gpt2", "int8"): "have no linear ones to quantise",
    ("t5", "int8"): "outliers that no range of int8 holds",
    ("convbert", "onnx"): "padding changes the answers of ConvBertForSequenceClassification",
    ("longformer", "onnx"): "LongformerForSequenceClassification has computations that torch",
}

rng = np.random.RandomState(0)
y = np.array(["ham"] * 12 + ["spam"] * 6)
X = [" ".join(rng.choice(WORDS[: 7 if label == "spam" else 14], rng.randint(2, 20))) for label in y]
NEW = ["win a prize", "the project report was moved to monday " * 3, "cash now", "lunch"]


@pytest.fixture(scope="module")
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param)
    FAMILIES[request.param](path)
    return path


@pytest.fixture(scope="module")
def unfitted(folder):
    return BertFocalClassifier(
        str(folder),
        lr=3e-3,
        max_epochs=1,
        random_state=0,
        trust_remote_code=folder.name.startswith("own_code"),
    )


@pytest.fixture(scope="module")
def clf(unfitted):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return copy.deepcopy(unfitted).fit(X, y)


of_each = pytest.mark.parametrize("folder", NAMES, indirect=True)


def refusal(folder, step):
    """Return what expects the sentence of a family that cannot do a step, or None."""
    name = folder.name[:-1]  # without the number of the temporary folder
    if (name, step) in REFUSED:
        return pytest.raises((ValueError, OSError), match=REFUSED[name, step])
    return None


def log_odds(proba):
    return np.log(proba[:, 1]) - np.log(proba[:, 0])


def assert_same(proba, others, tolerance=1e-3):
    """Compare by what tells the documents apart: a part of the distance between them."""
    odds, other_odds = log_odds(proba), log_odds(others)
    assert abs(odds - other_odds).max() < tolerance * odds.std()


def test_the_page_names_families_that_are_built():
    page = (Path(__file__).parents[1] / "docs" / "which-encoder.md").read_text()
    table = page.partition("## By need")[2].partition("## What was tried")[0]
    rows = [line.split("|")[-2].strip() for line in table.splitlines() if line[:2] == "| "]
    rows = [name for name in rows if name != "family"]
    assert len(rows) > 20
    assert set(rows) <= set(FAMILIES)


@of_each
def test_a_document_has_the_same_answer_alone_and_in_a_batch(clf):
    proba = clf.predict_proba(NEW)
    assert log_odds(proba).std() > 0
    assert_same(proba, np.vstack([clf.predict_proba([text]) for text in NEW]))


@of_each
def test_pooled_tokens_are_those_of_the_document_alone(unfitted, folder):
    clf = copy.deepcopy(unfitted).set_params(pooling="mean")
    with refusal(folder, "mean") or contextlib.nullcontext():
        clf.fit(X, y)
        proba = clf.predict_proba(NEW)
        assert log_odds(proba).std() > 0
        assert_same(proba, np.vstack([clf.predict_proba([text]) for text in NEW]))
        again = pickle.loads(pickle.dumps(clf))
        assert np.array_equal(again.predict_proba(NEW), proba)


@of_each
def test_answers_are_those_of_transformers_document_by_document(clf):
    encoder, rows = clf.net_.plain_module().model, []
    for text in NEW:
        ids = clf.tokenizer_(text, return_tensors="pt", truncation=True, max_length=64)
        ids.pop("token_type_ids", None)
        with torch.no_grad():
            rows.append(encoder(**ids).logits.numpy()[0])
    probabilities = torch.tensor(np.array(rows)).softmax(-1).numpy()
    assert_same(clf.set_params(proba="softmax").predict_proba(NEW), probabilities)


@of_each
def test_pickles_open_again(clf):
    expected = clf.predict_proba(NEW)
    assert np.array_equal(pickle.loads(pickle.dumps(clf)).predict_proba(NEW), expected)
    buffer = io.BytesIO()
    joblib.dump(clf, buffer)
    buffer.seek(0)
    assert np.array_equal(joblib.load(buffer).predict_proba(NEW), expected)


@of_each
def test_an_encoder_is_built_without_the_random_numbers_of_the_process(clf):
    settings = json.loads(module_to_plain(clf.net_.plain_module(), clf.tokenizer_)["config"])
    before = torch.get_rng_state()
    encoder_of(settings, trust_remote_code="auto_map" in settings)
    assert torch.equal(torch.get_rng_state(), before)


@of_each
def test_a_folder_comes_back(clf, folder, tmp_path):
    if expected := refusal(folder, "save"):
        with expected:
            clf.save_pretrained(tmp_path / "saved")
        return
    clf.save_pretrained(tmp_path / "saved")
    again = BertFocalClassifier.from_pretrained(tmp_path / "saved")
    assert np.array_equal(again.predict_proba(NEW), clf.predict_proba(NEW))


@of_each
def test_a_grid_search_fits_it(unfitted):
    search = GridSearchCV(unfitted, {"gamma": [0.0, 2.0]}, cv=2, error_score="raise").fit(X, y)
    assert len(search.predict(NEW)) == len(NEW)
    assert (search.cv_results_["mean_test_score"] >= 0.3).all()


@of_each
def test_frozen_layers_give_the_weights_of_layers_computed_in_each_epoch(
    unfitted, folder, monkeypatch
):
    frozen = copy.deepcopy(unfitted).set_params(freeze=1, max_epochs=2)
    if expected := refusal(folder, "freeze"):
        with expected:
            frozen.fit(X, y)
        return
    kept = frozen.fit(X, y).predict_proba(NEW)
    assert any(not p.requires_grad for p in frozen.net_.plain_module().model.parameters())
    monkeypatch.setattr(FrozenLayers, "_can_be_replayed", lambda self: False)
    assert_same(kept, copy.deepcopy(frozen).fit(X, y).predict_proba(NEW), 2e-2)


@of_each
def test_layer_decay_slows_lower_layers(unfitted):
    clf = copy.deepcopy(unfitted).set_params(layer_decay=0.5).fit(X, y)
    encoder = clf.net_.plain_module().model
    groups = parameter_groups(encoder, lr=1.0, weight_decay=0.0, layer_decay=0.5)
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    layers = layers_of(encoder)
    rates = [rate[id(next(layer.parameters()))] for layer in layers]
    assert rates == [0.5 ** (len(layers) - i) for i in range(len(layers))]
    assert max(rate.values()) == 1.0  # of the head


@of_each
def test_without_dropout_training_leaves_nothing_to_chance(clf):
    module = copy.deepcopy(clf.net_.plain_module()).train()
    ids = torch.tensor([clf.tokenizer_(NEW[0])["input_ids"]])
    first, second = (module(ids, torch.ones_like(ids)) for _ in range(2))
    assert torch.equal(first, second)


@of_each
def test_adapters_learn(unfitted):
    pytest.importorskip("peft")
    clf = copy.deepcopy(unfitted).set_params(peft={"peft_type": "LORA", "r": 2}).fit(X, y)
    assert log_odds(clf.predict_proba(NEW)).std() > 0


@of_each
def test_int8_gives_nearly_the_same(clf, folder):
    expected = clf.predict_proba(NEW)
    reduced = copy.deepcopy(clf).set_params(predict_precision="int8")
    if refused := refusal(folder, "int8"):
        with refused:
            reduced.predict_proba(NEW)
        return
    found = reduced.predict_proba(NEW)
    assert not np.array_equal(found, expected)
    assert_same(expected, found, 1.0)  # of weights at random, whose documents differ little


@of_each
@pytest.mark.slow
def test_a_graph_gives_the_same(clf, folder, tmp_path):
    pytest.importorskip("onnxscript")
    if refused := refusal(folder, "onnx"):
        with refused:
            clf.to_onnx(tmp_path / "graph")
        return
    clf.to_onnx(tmp_path / "graph")
    found = OnnxClassifier(tmp_path / "graph", n_threads=1).predict_proba(NEW)
    assert_same(clf.predict_proba(NEW), found)


@of_each
def test_nothing_is_printed(unfitted, capfd):
    copy.deepcopy(unfitted).fit(X, y).predict(NEW)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("folder", ["convbert"], indirect=True)
def test_an_encoder_that_reads_padding_gets_batches_of_one_length(clf, monkeypatch):
    module = clf.net_.plain_module()
    assert needs_equal_lengths(module.model)
    ids = torch.tensor([[5, 6, 7, 8], [5, 6, 0, 0], [7, 8, 9, 0]])
    mask = (ids > 0).long()
    with torch.no_grad():
        together = module(ids, mask)
        alone = [module.model(row[row > 0][None]).logits[0] for row in ids]
        padded = module.model(ids, attention_mask=mask).logits
    torch.testing.assert_close(together, torch.stack(alone))
    assert (padded[1] - alone[1]).abs().max() > 1e-3 * (alone[0] - alone[1]).abs().max()
