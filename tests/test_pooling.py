"""Logits from the mean, the first or the last token: right in numbers, in files and in graphs."""

import json
import pickle
import shutil
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from conftest import imbalanced
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file
from tiny_encoders import FAMILIES
from transformers import AutoModel, AutoTokenizer, BertConfig, BertForSequenceClassification
from transformers.models.bert.modeling_bert import BertSelfAttention

from skfocal import BertFocalClassifier, OnnxClassifier, Windows, fetch_minilm
from skfocal._encoder.pooled import POOLINGS, PooledEncoder, pool_tokens

TEXTS = ["win money now", "lunch with the whole team at noon", "report"]


# -- numbers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("mean", [[2.0, 20.0], [1.5, 15.0]]),
        ("first", [[1.0, 10.0], [1.0, 10.0]]),
        ("last", [[3.0, 30.0], [2.0, 20.0]]),
    ],
)
def test_padding_does_not_count(pooling, expected):
    hidden = torch.tensor([[[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]]]).repeat(2, 1, 1)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    assert pool_tokens(hidden, mask, pooling).tolist() == expected


def test_a_mean_of_many_tokens_has_the_digits_of_its_type():
    hidden = torch.full((1, 500, 1), 1.0, dtype=torch.bfloat16)
    hidden[0, 0] = 256.0
    mean = pool_tokens(hidden, torch.ones(1, 500), "mean")
    assert mean.dtype == torch.bfloat16
    assert mean.item() == torch.tensor(755 / 500).bfloat16().item()  # their sum has no such digits


@pytest.fixture(scope="module", params=POOLINGS)
def fitted(request, tiny):
    """A classifier for each pooling; no test changes it."""
    return make(tiny, request.param).fit(*imbalanced())


def make(model, pooling="auto", **params):
    settings = {"max_epochs": 2, "lr": 3e-3, "batch_size": 8, "random_state": 0}
    settings |= {"proba": "softmax"}
    return BertFocalClassifier(model, pooling=pooling, **{**settings, **params})


@pytest.fixture(scope="module")
def saved(fitted, tmp_path_factory):
    """The folder of the classifier."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    fitted.save_pretrained(folder)
    return folder


def test_logits_are_those_of_the_formula(fitted, saved):
    encoder = AutoModel.from_pretrained(saved / "encoder", add_pooling_layer=False).eval()
    tokenizer = AutoTokenizer.from_pretrained(saved / "encoder")
    norm = load_file(saved / "2_LayerNorm" / "model.safetensors")
    linear = load_file(saved / "3_Dense" / "model.safetensors")
    answers = fitted.predict_proba(TEXTS)
    for text, proba in zip(TEXTS, answers, strict=True):
        with torch.no_grad():
            hidden = encoder(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        way = {"mean": hidden.mean(0), "first": hidden[0], "last": hidden[-1]}
        vector = way[fitted.pooling_]
        vector = (vector - vector.mean()) / (vector.var(unbiased=False) + 1e-5).sqrt()
        vector = vector * norm["norm.weight"] + norm["norm.bias"]
        logits = linear["linear.weight"] @ vector + linear["linear.bias"]
        np.testing.assert_allclose(proba, logits.softmax(-1), atol=1e-6)


def test_each_way_learns(fitted):
    X, y = imbalanced(seed=1)
    assert fitted.pooling_ == fitted.pooling
    assert fitted.score(X, y) >= 0.75
    assert fitted.history_[-1, "train_loss"] < fitted.history_[0, "train_loss"]


def test_only_the_first_token_is_computed_where_only_it_is_read(fitted):
    assert bool(fitted.net_.module_.extra) == (fitted.pooling_ == "first")


def test_what_nobody_reads_is_left_out(fitted):
    assert not [name for name in fitted.net_.module_.state_dict() if "pooler" in name]


# -- what is stored ------------------------------------------------------------------------


def test_pickles_and_folders_answer_with_the_same_bits(fitted, saved):
    expected = fitted.predict_proba(TEXTS)
    assert np.array_equal(pickle.loads(pickle.dumps(fitted)).predict_proba(TEXTS), expected)
    clf = BertFocalClassifier.from_pretrained(saved)
    assert clf.pooling_ == fitted.pooling_
    assert np.array_equal(clf.predict_proba(TEXTS), expected)


def test_graphs_answer_alike(fitted, tmp_path):
    pytest.importorskip("onnxscript")
    fitted.to_onnx(tmp_path / "graph")
    found = OnnxClassifier(tmp_path / "graph").predict_proba(TEXTS)
    np.testing.assert_allclose(found, fitted.predict_proba(TEXTS), atol=1e-5)


def test_sentence_transformers_gives_the_logits(fitted, saved):
    package = pytest.importorskip("sentence_transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has renamed what it reads
        model = package.SentenceTransformer(str(saved), device="cpu")
        logits = model.encode(TEXTS, convert_to_tensor=True)
    expected = fitted.predict_proba(TEXTS)
    np.testing.assert_allclose(F.softmax(logits, -1), expected, atol=1e-6)


def test_transformers_refuses_the_folder(saved):
    with pytest.raises(ValueError, match="Unrecognized model|model_type"):
        transformers.pipeline("text-classification", str(saved))


def test_the_card_says_who_reads_the_folder(saved):
    assert "sentence_transformers" in (saved / "README.md").read_text()


def test_a_folder_is_replaced_by_one_of_the_other_layout(fitted, tiny, tmp_path):
    fitted.save_pretrained(tmp_path / "model")
    make(tiny, "head", max_epochs=1).fit(*imbalanced()).save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model" / "encoder").exists()
    fitted.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model" / "config.json").exists()
    assert BertFocalClassifier.from_pretrained(tmp_path / "model").pooling_ == fitted.pooling_


@pytest.mark.parametrize("order", [("head", "mean"), ("mean", "head")], ids=str)
def test_an_upload_leaves_nothing_of_an_earlier_layout(tiny, tmp_path, monkeypatch, order):
    hub = tmp_path / "hub"

    class Hub:
        def __init__(self, token=None):
            pass

        def create_repo(self, repo_id, **settings):
            return mock.MagicMock(repo_id=repo_id)

        def upload_folder(self, *, folder_path, delete_patterns, **settings):
            present = [name for name in files_of(hub) if name != ".gitattributes"]
            for name in filter_repo_objects(present, allow_patterns=delete_patterns):
                (hub / name).unlink()
            shutil.copytree(folder_path, hub, dirs_exist_ok=True)

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    hub.mkdir()
    for pooling in order:
        clf = make(tiny, pooling, max_epochs=1).fit(*imbalanced())
        clf.push_to_hub("me/model")
    clf.save_pretrained(tmp_path / "alone")
    assert files_of(hub) == files_of(tmp_path / "alone")


def files_of(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("place", ["encoder/mine.txt", "1_Pooling/more/config.json", "mine/a"])
def test_a_folder_with_files_of_others_is_not_replaced(fitted, tmp_path, place):
    fitted.save_pretrained(tmp_path / "model")
    file = tmp_path / "model" / place
    file.parent.mkdir(exist_ok=True)
    file.write_text("kept")
    with pytest.raises(FileExistsError, match="must be new, empty or written by the same method"):
        fitted.save_pretrained(tmp_path / "model")
    assert file.read_text() == "kept"


# -- damaged folders -----------------------------------------------------------------------


def change_json(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def change_state(folder, change):
    state = json.loads((folder / "skfocal.json").read_text())
    state["sha256"] = {}
    change(state)
    (folder / "skfocal.json").write_text(json.dumps(state))


def claim(pooling):
    return lambda folder: change_state(
        folder, lambda state: state["attributes"].update(pooling_=pooling)
    )


def other_pooling(folder):
    change_state(folder, lambda state: None)
    change_json(folder / "encoder" / "config.json", skfocal={"pooling": "max"})


def other_weights(folder):
    change_state(folder, lambda state: None)
    save_file({"weight": torch.zeros(2, 32)}, folder / "3_Dense" / "model.safetensors")


def wide_head(folder):
    change_state(folder, lambda state: None)
    head = {"linear.weight": torch.zeros(2, 33), "linear.bias": torch.zeros(2)}
    save_file(head, folder / "3_Dense" / "model.safetensors")


def link_out(folder):
    change_state(folder, lambda state: None)
    other = Path(folder.parent / "elsewhere.json")
    (folder / "encoder" / "config.json").rename(other)
    (folder / "encoder" / "config.json").symlink_to(other)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (claim("max"), "pooling_ must be a pooling. Got 'max'"),
        (claim("first"), "pooling_ in skfocal.json must be 'mean', by config.json. Got 'first'"),
        (other_pooling, r"pooling must be one of .* Got 'max'"),
        (other_weights, "3_Dense/model.safetensors must hold weights named linear..."),
        (wide_head, r"'classifier.weight' must have shape \(2, 32\)"),
        (link_out, "encoder/config.json must lie in the folder"),
    ],
)
def test_a_damaged_folder_is_refused(tiny, tmp_path, damage, message):
    make(tiny, "mean", max_epochs=1).fit(*imbalanced()).save_pretrained(tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(ValueError, match=message):
        BertFocalClassifier.from_pretrained(tmp_path / "model")


# -- together with what else changes an encoder ----------------------------------------------


def test_layers_that_are_computed_again_change_nothing(tiny, data):
    calls = []
    forward = BertSelfAttention.forward

    def counted(self, *args, **kwargs):
        calls.append(self)
        return forward(self, *args, **kwargs)

    with mock.patch.object(BertSelfAttention, "forward", counted):
        expected = make(tiny, "mean").fit(*data).predict_proba(data[0])
        plain = len(calls)
        found = make(tiny, "mean", gradient_checkpointing=True).fit(*data).predict_proba(data[0])
    assert np.array_equal(found, expected)
    assert len(calls) - plain > plain


def test_frozen_layers_are_replayed(tiny, data, monkeypatch):
    clf = make(tiny, "mean", freeze=1).fit(*data)
    frozen = clf.net_.frozen_layers()
    assert frozen is not None
    kept = clf.predict_proba(data[0])
    monkeypatch.setattr(frozen, "is_constant", False)
    np.testing.assert_allclose(clf.predict_proba(data[0]), kept, atol=1e-6)


def test_windows_pool_what_the_encoder_says_of_each(tiny, data):
    clf = make(tiny, "mean", max_length=3)
    clf.set_params(long_documents=Windows(stride=0, pooling="mean")).fit(*data)

    def log_odds(texts):
        proba = clf.predict_proba(texts)
        return np.log(proba[:, 1] / proba[:, 0])

    words = ["win", "money", "lunch", "report"]  # a token each, and so a window each
    assert np.ptp(log_odds(words)) > 0.01
    np.testing.assert_allclose(log_odds([" ".join(words)]), log_odds(words).mean(), atol=1e-5)


def test_pairs_adapters_and_int8_answer(tiny, data):
    X, y = data
    pairs = [(text, text[:5]) for text in X]
    clf = make(tiny, "mean", max_epochs=6).fit(pairs, y)
    assert clf.score(pairs, y) > 0.9
    adapted = make(tiny, "mean", peft={"peft_type": "LORA", "r": 4}, max_epochs=12).fit(X, y)
    assert adapted.score(X, y) > 0.9
    exact = adapted.predict_proba(X)
    coarse = adapted.set_params(predict_precision="int8").predict_proba(X)
    np.testing.assert_allclose(coarse, exact, atol=0.05)
    assert not np.array_equal(coarse, exact)


def test_a_checkpoint_goes_on_with_the_same_bits(tiny, data, tmp_path):
    expected = make(tiny, "mean").fit(*data).predict_proba(data[0])
    make(tiny, "mean", checkpoint=str(tmp_path / "run")).fit(*data)
    again = make(tiny, "mean", checkpoint=str(tmp_path / "run")).fit(*data)
    assert np.array_equal(again.predict_proba(data[0]), expected)
    with pytest.raises(ValueError, match='pooling was "mean" and is "first"'):
        make(tiny, "first", checkpoint=str(tmp_path / "run")).fit(*data)


def test_a_fit_that_goes_on_keeps_its_head(tiny, data):
    clf = make(tiny, "mean", max_epochs=1, warm_start=True).fit(*data)
    clf.set_params(pooling="auto").fit(*data)
    assert clf.pooling_ == "mean" and isinstance(clf.net_.module_.model, PooledEncoder)
    with pytest.raises(ValueError, match="last fit, with pooling='mean'. Got 'first'"):
        clf.set_params(pooling="first").fit(*data)


@pytest.mark.parametrize("change", [{"pooling": "first"}, {"model": "another/encoder"}], ids=str)
def test_chunks_do_not_go_on_with_another_encoder_or_head(tiny, data, change):
    clf = make(tiny, "mean").partial_fit(*data, classes=["ham", "spam"])
    weights = clf.predict_proba(TEXTS)
    with pytest.raises(ValueError, match="partial_fit goes on from the weights of the last fit"):
        clf.set_params(**change).partial_fit(*data)
    assert np.array_equal(clf.predict_proba(TEXTS), weights)


# -- which way -----------------------------------------------------------------------------


def publish(folder, **settings):
    """Let a folder say how sentence-transformers pools."""
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    modules = [
        {"idx": i, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_cls_token": True}, "first"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": "cls"}, "first"),
        ({"pooling_mode": ["cls", "mean"]}, "head"),
        ({"pooling_mode": ["mean"]}, "mean"),
        ({"pooling_mode": "max", "pooling_mode_mean_tokens": True}, "head"),
        ({"pooling_mode": 3}, "head"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, "head"),
        ({"pooling_mode_max_tokens": True}, "head"),
        ({}, "head"),
    ],
)
def test_auto_is_the_way_the_encoder_was_trained_with(tiny_copy, data, settings, expected):
    assert make(str(tiny_copy), max_epochs=1).fit(*data).pooling_ == "head"
    publish(tiny_copy, **settings)
    clf = make(str(tiny_copy), max_epochs=1).fit(*data)
    assert clf.pooling_ == expected
    expected_bits = make(str(tiny_copy), expected, max_epochs=1).fit(*data).predict_proba(TEXTS)
    assert np.array_equal(clf.predict_proba(TEXTS), expected_bits)


@pytest.mark.parametrize("path", [None, "", "1_Pooling/", "a/1_Pooling", "nowhere"])
def test_a_pooling_that_cannot_be_read_is_none(tiny_copy, data, path):
    publish(tiny_copy, pooling_mode_mean_tokens=True)
    modules = json.loads((tiny_copy / "modules.json").read_text())
    modules[1]["path"] = path
    (tiny_copy / "modules.json").write_text(json.dumps(modules))
    assert make(str(tiny_copy), max_epochs=1).fit(*data).pooling_ == "head"


def test_a_saved_classifier_as_model_gives_its_encoder_and_says_so(saved, data):
    with pytest.warns(UserWarning, match="whose head on pooled tokens is not kept"):
        clf = make(str(saved), max_epochs=1).fit(*data)
    assert not clf.pretrained_head_


def test_several_labels_and_cosines_are_stored(tiny, data, tmp_path):
    X, y = data
    rows = np.stack([y == "ham", y == "spam"], 1).astype(int)
    rows[0] = 1
    several = make(tiny, "mean").fit(X, rows)
    cosines = make(tiny, "mean", loss="ldam").fit(X, y)
    for name, clf in {"several": several, "cosines": cosines}.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the cosines
            clf.save_pretrained(tmp_path / name)
        again = BertFocalClassifier.from_pretrained(tmp_path / name)
        assert np.array_equal(again.predict_proba(X), clf.predict_proba(X))
    dense = json.loads((tmp_path / "cosines" / "3_Dense" / "config.json").read_text())
    assert dense["bias"] is False


def test_minilm_is_pooled_as_it_was_trained(data):
    clf = make(fetch_minilm(), max_epochs=1, freeze=6, max_length=16).fit(*data)
    assert clf.pooling_ == "mean"


def test_a_published_head_comes_first(tiny_copy, data):
    config = BertConfig.from_pretrained(tiny_copy, id2label={0: "ham", 1: "spam"})
    config.label2id = {"ham": 0, "spam": 1}
    BertForSequenceClassification(config).save_pretrained(tiny_copy)
    publish(tiny_copy, pooling_mode_mean_tokens=True)
    clf = make(str(tiny_copy), max_epochs=1).fit(*data)
    assert clf.pooling_ == "head" and clf.pretrained_head_
    with pytest.warns(UserWarning, match="has a classifier of these labels, which pooling='mean'"):
        clf = make(str(tiny_copy), "mean", max_epochs=1).fit(*data)
    assert clf.pooling_ == "mean" and not clf.pretrained_head_


def test_an_encoder_that_classifies_by_its_decoder_is_refused(tmp_path, data):
    FAMILIES["bart"](tmp_path)
    publish(tmp_path, pooling_mode_mean_tokens=True)
    assert make(str(tmp_path), max_epochs=1).fit(*data).pooling_ == "head"
    with pytest.raises(ValueError, match="pooling must be 'auto' or 'head' for BartFor"):
        make(str(tmp_path), "mean").fit(*data)
