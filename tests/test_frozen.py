"""Outputs of frozen layers: kept or not, the same bits; close to the plain forward pass."""

import collections
import copy
import math
import pickle
import warnings

import numpy as np
import pytest
import torch
from conftest import imbalanced
from sklearn.base import clone
from skorch.callbacks import Callback

from skfocal import BertFocalClassifier, cache_info, clear_cache
from skfocal._encoder import frozen_layers
from skfocal._encoder.frozen_layers import FrozenLayers
from skfocal._encoder.module import load_module
from skfocal._encoder.structure import freeze_layers
from skfocal._estimator.build import learning_rate
from skfocal._estimator.parameters import parameters_of
from skfocal._training.net import FocalNet


@pytest.fixture(scope="module")
def make(make_of_few_words):
    """Return a function that makes classifiers of few words, which are read fast."""
    return make_of_few_words


@pytest.fixture
def data():
    """Twenty texts of two classes."""
    return imbalanced(14, 6)


def weights_of(clf):
    return {k: v.clone() for k, v in clf.net_.module_.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(autouse=True)
def fresh():
    clear_cache()
    yield
    clear_cache()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_keeping_changes_no_bit(make, data, monkeypatch, precision):
    monkeypatch.setattr("skfocal._estimator.advice.cpu_has_bfloat16", lambda: True)
    X, y = data
    settings = {"freeze": 1, "precision": precision, "dropout": 0.1, "train_split": 0.2}
    kept = make(**settings).fit(X, y)
    again = make(**settings).fit(X, y)
    monkeypatch.setattr(frozen_layers.FrozenLayers, "prepare", lambda self, ids: None)
    clear_cache()
    computed = make(**settings).fit(X, y)
    assert same(weights_of(kept), weights_of(again))
    assert same(weights_of(kept), weights_of(computed))
    assert np.array_equal(kept.predict_proba(X), computed.predict_proba(X))


@pytest.mark.parametrize("freeze", [1, 2])
def test_training_is_that_of_the_plain_forward_pass(make, data, monkeypatch, freeze):
    replayed = make(freeze=freeze, lr=1e-3).fit(*data)
    monkeypatch.setattr(FocalNet, "frozen_layers", lambda self: None)
    plain = make(freeze=freeze, lr=1e-3).fit(*data)
    np.testing.assert_allclose(
        replayed.predict_proba(data[0]), plain.predict_proba(data[0]), atol=1e-4
    )
    start, end = weights_of(make(net_params={"max_epochs": 0}).fit(*data)), weights_of(replayed)
    moved = {name for name in start if not torch.equal(start[name], end[name])}
    assert all(f"layer.{i}." not in name for name in moved for i in range(freeze))
    assert any("classifier" in name for name in moved)


def test_each_distinct_document_is_computed_once_for_all_folds_and_candidates(make, data):
    X, y = data
    before = cache_info()["documents_frozen"]
    for gamma in (0, 2):
        for rows in (np.arange(20) % 2 == 0, np.arange(20) % 2 == 1):
            make(freeze=1, gamma=gamma).fit(np.array(X)[rows], y[rows])
    assert cache_info()["documents_frozen"] - before == len(set(X))
    make(freeze=2).fit(X, y)  # other layers, other outputs
    assert cache_info()["documents_frozen"] - before == 2 * len(set(X))


def test_held_out_documents_are_computed_once_for_all_epochs(make, data, monkeypatch):
    X, y = data
    computed, compute = [], frozen_layers.FrozenLayers.compute

    def counted(self, ids):
        computed.extend(row.tobytes() for row in ids)
        return compute(self, ids)

    monkeypatch.setattr(frozen_layers.FrozenLayers, "compute", counted)
    make(freeze=1, max_epochs=3, train_split=0.2).fit(X, y)
    assert len(computed) == len(set(computed)) == len(set(X))


def test_a_single_prediction_keeps_nothing(make, data):
    clf = make(freeze=1).fit(*data)
    before = cache_info()["documents_frozen"]
    clf.predict(imbalanced(seed=1)[0])
    assert cache_info()["documents_frozen"] == before


def test_documents_that_fits_are_scored_on_are_computed_twice_and_no_more(make, data, monkeypatch):
    X, y = data
    held_out = imbalanced(seed=1)[0]
    asked, compute = collections.Counter(), FrozenLayers.compute

    def counted(self, ids):
        asked.update(row.tobytes() for row in ids)
        return compute(self, ids)

    monkeypatch.setattr(FrozenLayers, "compute", counted)
    kept = [make(freeze=1, gamma=gamma).fit(X, y).predict_proba(held_out) for gamma in range(4)]
    assert sorted(set(asked.values())) == [1, 2]
    assert sum(n == 1 for n in asked.values()) == len(set(X))
    monkeypatch.setattr(frozen_layers, "_REPEATED_LIMIT", 0)
    clear_cache()
    computed = [make(freeze=1, gamma=gamma).fit(X, y).predict_proba(held_out) for gamma in range(4)]
    np.testing.assert_array_equal(kept, computed)
    assert max(asked.values()) > 4


def no_place(*args):
    raise FileNotFoundError("no temporary folder")


def test_a_prediction_does_not_fail_where_nothing_can_be_kept(make, data, monkeypatch):
    clf, X = make(freeze=1).fit(*data), imbalanced(seed=1)[0]
    proba = clf.predict_proba(X)
    monkeypatch.setattr(frozen_layers.shutil, "disk_usage", no_place)
    for _ in range(2):
        np.testing.assert_array_equal(clf.predict_proba(X), proba)


def test_what_is_kept_of_some_documents_is_their_own(make, data):
    clf, X = make(freeze=1).fit(*data), imbalanced(seed=1)[0]
    expected = pickle.loads(pickle.dumps(clf)).predict_proba(X)
    before = cache_info()["documents_frozen"]
    clf.predict(X[1::2])
    clf.predict(X)  # the second time for every other document
    assert 0 < cache_info()["documents_frozen"] - before < len(set(X) - set(data[0]))
    np.testing.assert_array_equal(clf.predict_proba(X), expected)


def test_what_one_encoder_predicts_another_has_not(make, data):
    clf, other = (make(freeze=freeze).fit(*data) for freeze in (1, 2))
    before = cache_info()["documents_frozen"]
    for model in (clf, other):
        model.predict(imbalanced(seed=1)[0])
    assert cache_info()["documents_frozen"] == before


def test_a_cleared_cache_stays_empty(make, data):
    clf = make(freeze=1).fit(*data)
    folder = clf.net_.frozen_layers().store.folder
    assert folder.exists()
    clear_cache()
    for _ in range(3):
        clf.predict(imbalanced(seed=1)[0])
    assert not list(folder.rglob("*.data"))


def test_a_classifier_from_a_file_keeps_nothing(make, data, monkeypatch):
    clf = pickle.loads(pickle.dumps(make(freeze=1).fit(*data)))
    monkeypatch.setattr(frozen_layers, "shared_folder", no_place)
    before = cache_info()["documents_frozen"]
    for _ in range(3):
        clf.predict(imbalanced(seed=1)[0])
    assert cache_info()["documents_frozen"] == before


def test_predictions_of_a_full_cache_do_not_warn(make, data, monkeypatch):
    clf = make(freeze=1).fit(*data)
    before = cache_info()["documents_frozen"]
    monkeypatch.setattr(frozen_layers, "_LIMIT", 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            clf.predict(imbalanced(seed=1)[0])
    assert cache_info()["documents_frozen"] == before


def test_pickle_predicts_the_same_bits_without_the_kept_outputs(make, data):
    clf = make(freeze=1).fit(*data)
    proba = clf.predict_proba(data[0])
    blob = pickle.dumps(clf)
    clear_cache()
    assert np.array_equal(pickle.loads(blob).predict_proba(data[0]), proba)
    assert np.array_equal(clf.predict_proba(data[0]), proba)


@pytest.mark.parametrize("freeze", [0, 1])
def test_a_copied_net_has_layers_of_its_own(make, data, freeze):
    clf = make(freeze=freeze).fit(*data)
    proba = clf.predict_proba(data[0])
    copied = copy.copy(clf)
    copied.net_ = copy.deepcopy(clf.net_)
    with torch.no_grad():
        for parameter in clf.net_.module_.parameters():
            parameter.zero_()
    np.testing.assert_array_equal(copied.predict_proba(data[0]), proba)


def test_changed_weights_are_noticed(make, data):
    clf = make(freeze=1).fit(*data)
    proba = clf.predict_proba(data[0])
    with torch.no_grad():
        for parameter in clf.net_.module_.model.base_model.embeddings.parameters():
            parameter.add_(torch.linspace(0, 9, parameter.shape[-1]).sin())
    assert abs(clf.predict_proba(data[0]) - proba).max() > 1e-4


def test_a_full_cache_warns_and_computes(make, data, monkeypatch):
    expected = weights_of(make(freeze=1).fit(*data))
    clear_cache()
    monkeypatch.setattr(frozen_layers, "_LIMIT", 1000)
    with pytest.warns(UserWarning, match="clear_cache"):
        clf = make(freeze=1).fit(*data)
    assert same(weights_of(clf), expected)


def test_clone_and_other_freeze_start_afresh(make, data):
    clf = make(freeze=1).fit(*data)
    other = clone(clf).set_params(freeze=0).fit(*data)
    assert same(weights_of(other), weights_of(make().fit(*data)))
    assert other.net_.frozen_layers() is None


def test_fixed_shapes_give_what_single_documents_give(make, data, monkeypatch):
    clf = make(freeze=1).fit(*data)
    frozen = clf.net_.frozen_layers()
    ids = [np.arange(5, 5 + n, dtype=np.int32) for n in (3, 9, 5, 30, 4, 7)]
    together = frozen.compute(ids)
    monkeypatch.setattr(frozen, "shape", (1, 1))
    for one, other in zip(frozen.compute(ids), together, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(4, 16), (32, 32)])
def test_no_bit_depends_on_the_documents_beside(minilm, precision, shape):
    module = load_module(minilm, ["a", "b"], pad_token_id=0)
    freeze_layers(module.model, 2)
    frozen = FrozenLayers(module.model, 2, precision)
    frozen.shape = shape
    # Four rows as on a CPU; thirty-two as on CUDA, the last of them padded to fewer than 96.
    frozen.longest_together, frozen.limit = (64, 512) if shape[0] == 4 else (math.inf, 70)
    rng = np.random.RandomState(0)
    ids = [rng.randint(1000, 9000, n).astype(np.int32) for n in (3, 15, 16, 17, 31, 40, 64, 69)]
    alone = [frozen.compute([row])[0] for row in ids]
    for rows in (range(8), [7, 0, 3, 2], [5, 6, 5, 7, 1]):
        for row, output in zip(rows, frozen.compute([ids[i] for i in rows]), strict=True):
            np.testing.assert_array_equal(output, alone[row])


def test_a_callback_may_freeze_everything_at_the_end(make, data):
    class Freeze(Callback):
        def on_train_end(self, net, **kwargs):
            net.module_.requires_grad_(False)

    X, y = data
    clf = make(callbacks=[Freeze()]).fit(X, y)
    assert same(weights_of(clf), weights_of(make().fit(X, y)))


# -- the rate ------------------------------------------------------------------------------


@pytest.mark.parametrize(("freeze", "lr"), [(0, 2e-4), (5, 2e-4), (6, 5e-3)])
def test_auto_rate_is_higher_for_the_head_alone(minilm, freeze, lr):
    module = load_module(minilm, ["a", "b"], pad_token_id=0)
    given = parameters_of(BertFocalClassifier(minilm))
    assert learning_rate(given, module, freeze) == pytest.approx(lr)


def test_a_restored_net_keeps_the_rate_of_its_fit(make, data):
    clf = make(freeze=1, lr="auto", max_epochs=1).fit(*data)
    assert clf.net_.lr == clf.lr_ == 1e-3  # a narrow encoder has the highest rate
    again = pickle.loads(pickle.dumps(clf.set_params(freeze=2)))
    assert again.net_.lr == again.lr_ == 1e-3
    assert again.fit(*data).net_.lr == again.lr_ == 5e-3
