"""Recomputed layers: the same weights from less memory, and no trace of it after the training."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from conftest import imbalanced
from skorch.callbacks import Callback
from tiny_encoders import BERT, wordpiece
from torch.autograd.graph import saved_tensors_hooks
from transformers import (
    BertModel,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from skfocal import BertFocalClassifier, Checkpoint
from skfocal._encoder.structure import recomputed_layers


@pytest.fixture(scope="module")
def tiny(few_words):
    """Folder of an encoder that knows few words, so that it is stored and read soon."""
    return few_words


@pytest.fixture(scope="module")
def data():
    """Three batches of texts of two easily told classes, and their labels."""
    return imbalanced(18, 6)


class Flags(Callback):
    """Remember whether the layers compute again while they are trained."""

    def on_batch_end(self, net, training=False, **kwargs):
        if training:
            layers = net.plain_module().model.base_model.encoder.layer
            self.seen_ = [layer.gradient_checkpointing for layer in layers]


def weights_of(clf):
    return {k: v.clone() for k, v in clf.net_.plain_module().state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def seen(clf):
    return next(c for _, c in clf.net_.callbacks_ if isinstance(c, Flags)).seen_


def is_clean(clf):
    modules = clf.net_.plain_module().modules()
    return not any(getattr(m, "gradient_checkpointing", False) for m in modules) and not any(
        m._forward_hooks for m in clf.net_.plain_module().modules()
    )


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"freeze": 1},
        {"accumulate": 2, "layer_decay": 0.8},
        {"precision": "bfloat16"},
        {"precision": "float16"},
        {"loss": "ldam", "dropout": 0.0},
        {"long_documents": "windows", "max_length": 8},
    ],
    ids=str,
)
def test_the_weights_are_those_of_the_plain_training(make, data, monkeypatch, settings):
    monkeypatch.setattr("skfocal._estimator.advice.cpu_has_bfloat16", lambda: True)
    if "precision" in settings:  # layers that run twice have no attention in float32
        monkeypatch.setattr("skfocal._training.loop.TrainingLoop._fast_ways", lambda self: [])
    plain = make(**settings, train_split=0.2).fit(*data)
    saving = make(**settings, train_split=0.2, gradient_checkpointing=True, callbacks=[Flags()])
    saving.fit(*data)
    assert all(seen(saving))
    assert is_clean(saving)
    assert same(weights_of(plain), weights_of(saving))
    assert np.array_equal(plain.predict_proba(data[0]), saving.predict_proba(data[0]))


@pytest.mark.filterwarnings("ignore:The head of model")
@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (DistilBertForSequenceClassification, DistilBertConfig(
            dim=32, n_layers=2, n_heads=2, hidden_dim=64)),
        (RobertaForSequenceClassification, RobertaConfig(**BERT)),
    ],
)  # fmt: skip
def test_other_architectures_do_it_too(tmp_path, data, kind, config):
    torch.manual_seed(0)
    config.vocab_size = wordpiece(tmp_path, length=32)
    kind(config).save_pretrained(tmp_path)
    settings = {"max_epochs": 1, "lr": 3e-3, "random_state": 0}
    plain = BertFocalClassifier(tmp_path, **settings).fit(*data)
    saving = BertFocalClassifier(tmp_path, gradient_checkpointing=True, **settings).fit(*data)
    assert same(weights_of(plain), weights_of(saving))


def test_dropped_elements_are_the_same_in_both_passes(make, data, monkeypatch):
    """With torch's own dropout both trainings draw alike, so their weights must be equal."""
    monkeypatch.setattr("skfocal._training.loop.TrainingLoop._fast_ways", lambda self: [])
    plain = make(dropout=0.3).fit(*data)
    saving = make(dropout=0.3, gradient_checkpointing=True).fit(*data)
    assert same(weights_of(plain), weights_of(saving))


def test_the_short_way_to_drop_is_not_taken(make, data, monkeypatch):
    monkeypatch.setattr(
        "skfocal._encoder.fast_dropout.dropped_positions", lambda n, p: pytest.fail("the short way")
    )
    make(dropout=0.3, gradient_checkpointing=True, max_epochs=1).fit(*data)


def test_fewer_bytes_are_kept_for_the_backward_pass(make, data):
    encoder = make(max_epochs=1).fit(*data).net_.plain_module().model.train()
    ids = torch.arange(120).view(4, 30) % 60

    def kept():
        sizes = {}

        def pack(x):
            sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with saved_tensors_hooks(pack, lambda x: x):
            loss = encoder(input_ids=ids).logits.sum()
        del loss
        weights = {p.untyped_storage().data_ptr() for p in encoder.parameters()}
        return sum(n for address, n in sizes.items() if address not in weights)

    plain = kept()
    with recomputed_layers(encoder):
        saving = kept()
    assert saving < plain / 2
    assert kept() == plain


def test_frozen_layers_are_still_replayed(make, data):
    """A hook that lets the embeddings' output require a gradient would end that."""
    clf = make(freeze=1, gradient_checkpointing=True).fit(*data)
    assert clf.net_.frozen_layers().is_constant


def test_partial_fit_and_warm_start_may_switch_it(make, data):
    X, y = data
    plain, mixed = make(warm_start=True), make(warm_start=True)
    for clf, on in ((plain, (False, False)), (mixed, (True, False))):
        for value in on:
            clf.set_params(gradient_checkpointing=value).fit(X, y)
        for value in on:
            clf.set_params(gradient_checkpointing=not value and clf is mixed)
            clf.partial_fit(X, y)
    assert same(weights_of(plain), weights_of(mixed))


class Crash(Callback):
    """End the training in its second epoch, in the first run only."""

    def __init__(self, crashes=True):
        self.crashes = crashes

    def on_epoch_begin(self, net, **kwargs):
        if self.crashes and len(net.history) == 2:
            raise RuntimeError("crash")


def test_a_checkpoint_is_continued_without_it(make, data, tmp_path):
    expected = weights_of(make().fit(*data))
    settings = {"checkpoint": Checkpoint(tmp_path / "c", steps=1)}
    with pytest.raises(RuntimeError, match="crash"):
        make(**settings, gradient_checkpointing=True, callbacks=[Crash()]).fit(*data)
    # Callbacks are part of what a fit is: the same one, which no longer crashes.
    Crash.on_epoch_begin, crash = Callback.on_epoch_begin, Crash.on_epoch_begin
    try:
        continued = make(**settings, callbacks=[Crash()]).fit(*data)
    finally:
        Crash.on_epoch_begin = crash
    assert same(weights_of(continued), expected)


def test_pickles_copies_and_folders_know_nothing_of_it(make, data, tmp_path):
    X, _ = data
    clf = make(gradient_checkpointing=True).fit(*data)
    proba = clf.predict_proba(X)
    clf.save_pretrained(tmp_path / "saved")
    for other in (
        pickle.loads(pickle.dumps(clf)),
        copy.deepcopy(clf),
        BertFocalClassifier.from_pretrained(tmp_path / "saved"),
    ):
        assert other.gradient_checkpointing is True
        assert is_clean(other)
        assert np.array_equal(other.predict_proba(X), proba)


def test_an_architecture_that_cannot_is_refused(make, data, monkeypatch):
    monkeypatch.setattr(BertModel, "supports_gradient_checkpointing", False)
    with pytest.raises(ValueError, match="gradient_checkpointing must be False for Bert.*Got True"):
        make(gradient_checkpointing=True).fit(*data)


@pytest.mark.slow
def test_a_compiled_module_does_it(make, data):
    plain = make(max_epochs=1).fit(*data)
    traced = {"net_params": {"compile": True, "compile__backend": "aot_eager"}}  # in seconds
    compiled = make(max_epochs=1, gradient_checkpointing=True, **traced)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled.fit(*data)
    np.testing.assert_allclose(
        compiled.predict_proba(data[0]), plain.predict_proba(data[0]), atol=1e-4
    )
