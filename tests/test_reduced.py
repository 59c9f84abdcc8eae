"""Prediction in bfloat16 and int8: close to float32, opt-in, and always of the present weights."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from conftest import logits_of
from sklearn.base import clone
from tiny_encoders import FAMILIES

from skfocal import BertFocalClassifier
from skfocal._data.tokenization import TruncationSpec
from skfocal._data.tokens import tokenize
from skfocal._encoder.quantization import reduced_copy
from skfocal._training import inference


@pytest.fixture(params=["bfloat16", "int8"])
def precision(request):
    return request.param


@pytest.fixture(autouse=True)
def fast_bfloat16(monkeypatch):
    monkeypatch.setattr("skfocal._estimator.advice.cpu_has_bfloat16", lambda: True)


@pytest.fixture
def fitted(make, data):
    return make(max_epochs=4).fit(*data)


def logits(clf, X):
    return logits_of(clf, X)


def test_logits_are_near_those_of_float32_and_not_the_same(fitted, data, precision):
    X, _ = data
    plain = logits(fitted, X)
    fitted.set_params(predict_precision=precision)
    reduced = logits(fitted, X)
    assert reduced.dtype == np.float32
    assert not np.array_equal(reduced, plain)
    assert np.abs(reduced - plain).max() < 0.05 * plain.std()
    assert (fitted.predict(X) == fitted.set_params(predict_precision=None).predict(X)).all()
    assert np.array_equal(logits(fitted, X), plain)  # the weights were left as they are


def test_float32_is_the_plain_way_after_training_in_bfloat16(make, data):
    X, y = data
    clf = make(precision="bfloat16").fit(X, y)
    half = logits(clf, X)
    whole = logits(clf.set_params(predict_precision="float32"), X)
    assert not np.array_equal(half, whole)
    expected = logits(pickle.loads(pickle.dumps(clf)).set_params(precision="float32"), X)
    assert np.array_equal(whole, expected)


def test_new_weights_are_used_at_once(fitted, data, precision):
    X, y = data
    fitted.set_params(predict_precision=precision)
    before = logits(fitted, X)
    with torch.no_grad():
        for parameter in fitted.net_.module_.parameters():
            parameter.mul_(1.1)
    after = logits(fitted, X)
    assert np.abs(after - before).max() > 0.01 * after.std()
    assert np.abs(after - fitted.net_.logits(tokens(fitted, X))).max() < 0.05 * after.std()


def tokens(clf, X):
    return tokenize(clf.tokenizer_, X, TruncationSpec(clf.max_length_))


def test_int8_shares_what_it_does_not_quantise(fitted, data):
    module = fitted.net_.module_
    before = {name: value.clone() for name, value in module.state_dict().items()}
    reduced = reduced_copy(module, "int8")
    table = module.model.base_model.embeddings.word_embeddings.weight
    assert reduced.model.base_model.embeddings.word_embeddings.weight is table
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    assert all(p.requires_grad for p in module.parameters())


def test_a_module_in_training_mode_predicts_without_dropout(make, data):
    X, y = data
    clf = make(dropout=0.5, predict_precision="float32").fit(X, y)
    expected = logits(clf, X)
    clf.net_.module_.train()
    assert np.array_equal(logits(clf, X), expected)


def test_the_copy_is_made_once(fitted, data, precision, monkeypatch):
    made = []
    monkeypatch.setattr(
        inference, "reduced_copy", lambda *args: made.append(args) or reduced_copy(*args)
    )
    fitted.set_params(predict_precision=precision)
    for _ in range(3):
        fitted.predict(data[0])
    assert len(made) == 1


def test_pickles_and_clones_carry_the_setting_and_no_copy(fitted, data, precision):
    X, _ = data
    size = len(pickle.dumps(fitted))
    fitted.set_params(predict_precision=precision)
    expected = logits(fitted, X)
    assert abs(len(pickle.dumps(fitted)) - size) < 1000
    assert np.array_equal(logits(pickle.loads(pickle.dumps(fitted)), X), expected)
    assert clone(fitted).predict_precision == precision


@pytest.mark.parametrize("loss", ["ldam", "focal"])
def test_the_head_stays_in_float32(make, data, precision, loss):
    X, y = data
    clf = make(loss=loss).fit(X, y)
    module = clf.set_params(predict_precision=precision)
    module.predict(X[:1])
    _, reduced = clf.net_.reduced_
    head = reduced.model.classifier
    head = getattr(head, "head", head)
    assert head.weight.dtype == torch.float32


def test_all_big_products_are_quantised_but_those_of_one_token(fitted):
    reduced = reduced_copy(fitted.net_.module_, "int8")
    kinds = [
        type(m).__module__ for n, m in reduced.named_modules() if n.endswith(("query", "dense"))
    ]
    assert sum("quantized" in kind for kind in kinds) == 4  # query and three denses of one layer
    assert not any("quantized" in type(m).__module__ for m in fitted.net_.module_.modules())


def test_frozen_layers_do_not_matter(make, data, precision):
    X, y = data
    clf = make(freeze=1).fit(X, y)
    plain = logits(clf, X)
    reduced = logits(clf.set_params(predict_precision=precision), X)
    assert 0 < np.abs(reduced - plain).max() < 0.05 * plain.std()


def test_other_values_are_refused(fitted, data):
    with pytest.raises(ValueError, match="predict_precision.*'int4'"):
        fitted.set_params(predict_precision="int4").predict(data[0])
    with pytest.raises(ValueError, match="predict_precision"):
        clone(fitted).fit(*data)


def test_int8_elsewhere_than_on_a_cpu_is_refused(fitted):
    module = fitted.net_.module_
    with pytest.raises(ValueError, match="int8.*for the CPU.*Got device='meta'"):
        reduced_copy(module.to("meta"), "int8")


def test_a_processor_without_bfloat16_is_told_once(fitted, data, monkeypatch):
    monkeypatch.setattr("skfocal._estimator.advice.cpu_has_bfloat16", lambda: False)
    fitted.set_params(predict_precision="bfloat16")
    with pytest.warns(UserWarning, match="predict_precision='bfloat16' is slower"):
        fitted.predict(data[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted.predict(data[0])


def test_rotary_frequencies_keep_their_digits_in_bfloat16(data, tmp_path):
    FAMILIES["modernbert"](tmp_path)
    clf = BertFocalClassifier(tmp_path, max_epochs=1, random_state=0).fit(*data)
    module = clf.net_.module_
    copy = reduced_copy(module, "bfloat16")
    found = {k: v for k, v in copy.named_buffers() if k.endswith("inv_freq")}
    assert found
    for name, value in module.named_buffers():
        if name in found:
            assert value.dtype == torch.float32 and torch.equal(value, found[name])
    assert {p.dtype for n, p in copy.named_parameters() if ".layers." in n} == {torch.bfloat16}
    clf.set_params(predict_precision="bfloat16")
    assert np.isfinite(clf.predict_proba(data[0])).all()
