"""Too little memory: the same gradient and the same predictions, in parts.

The error is torch's own, raised by hooks where a device would: in the forward pass, or in the
backward pass when some of the gradients are there already.
"""

import contextlib
import gc
import weakref

import numpy as np
import pytest
import torch
from conftest import imbalanced
from skorch.callbacks import Callback
from transformers import AutoTokenizer

from skfocal import clear_cache
from skfocal._encoder import frozen_layers
from skfocal._training.net import FocalNet

LONG = ["win money prize cash now " * 8, "meeting lunch project report team " * 6]


@pytest.fixture(scope="module")
def texts():
    X, y = imbalanced(18, 6)
    return [f"{x} {LONG[i % 2]}" if i % 5 == 0 else x for i, x in enumerate(X)], y


@contextlib.contextmanager
def memory_for(n_tokens, backward=False):
    """Let any pass through the encoder that has more tokens raise; yield a list of the sizes."""
    tried: list = []
    forward = torch.nn.Module.__call__

    def limited(module, *args, **kwargs):
        output = forward(module, *args, **kwargs)
        if type(module).__name__ == "EncoderClassifier":
            ids = kwargs["input_ids"]
            tried.append(ids.numel())
            if ids.numel() > n_tokens:
                if backward and output.requires_grad:
                    # The head's gradients are there when this raises, the encoder's are not.
                    layer = module.model.base_model.pooler.dense.weight
                    layer.register_hook(_raise_once())
                else:
                    raise torch.OutOfMemoryError("CUDA out of memory.")
        return output

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Module, "__call__", limited)
        yield tried


def _raise_once():
    left = [1]

    def hook(gradient):
        if left:
            left.pop()
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return gradient

    return hook


class Gradients(Callback):
    """Keeps the gradient of each update."""

    def on_train_begin(self, net, **kwargs):
        self.seen = []

    def on_grad_computed(self, net, named_parameters, **kwargs):
        grads = [p.grad.flatten() for _, p in named_parameters if p.grad is not None]
        self.seen.append(torch.cat(grads).double())


def first_gradient(clf, X, y, weight, limit=None, backward=False):
    clf.set_params(callbacks=[Gradients()], gradient_clip=None)
    with memory_for(limit, backward) if limit else contextlib.nullcontext():
        clf.fit(X, y, sample_weight=weight)
    return dict(clf.net_.callbacks_)["Gradients"].seen[0]


@pytest.mark.parametrize(
    "settings",
    [
        {"alpha": "balanced"},
        {"alpha": "balanced", "normalize": "weights"},
        {"alpha": {"ham": 1.0, "spam": 3.0}, "normalize": "sum"},
        {"accumulate": 3, "batch_size": 8, "alpha": "balanced", "normalize": "weights"},
        {"freeze": 1},
        {"loss": "dice"},
    ],
)
def test_parts_of_a_batch_have_the_gradient_of_the_whole(make, texts, settings):
    settings = {"max_epochs": 1, "batch_size": 16, "warmup": 0, "lr": 1e-4, **settings}
    X, y = texts
    weight = np.linspace(0.5, 1.5, len(y))

    def gradient(**limits):
        return first_gradient(make(**settings), X, y, weight, **limits)

    whole = gradient()
    assert float(whole.norm()) > 0
    for backward in [False] if settings.get("freeze") else [False, True]:
        message = "too little memory for .* documents of .* in training"
        with pytest.warns(UserWarning, match=message):
            parts = gradient(limit=200, backward=backward)
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6 * float(whole.abs().max()))


def test_the_smaller_size_is_remembered_and_told_once(make, texts):
    clf = make(max_epochs=3, batch_size=16)
    with (
        memory_for(150) as tried,
        pytest.warns(UserWarning, match="too little memory") as caught,
    ):
        clf.fit(*texts)
    assert len(caught) == 1 and caught[0].filename == __file__
    # Halving begins at 16 documents; after that nothing larger is tried.
    too_large = [i for i, n in enumerate(tried) if n > 150]
    assert 1 <= len(too_large) <= 4
    assert len(tried) - too_large[-1] > 10


def test_a_whole_training_in_parts_learns_the_same(make, texts):
    X, y = texts
    whole = make(max_epochs=2, lr=1e-3).fit(X, y)
    with memory_for(100), pytest.warns(UserWarning, match="in training"):
        parts = make(max_epochs=2, lr=1e-3).fit(X, y)
    np.testing.assert_allclose(parts.predict_proba(X), whole.predict_proba(X), atol=1e-3)
    np.testing.assert_allclose(
        parts.history_[:, "train_loss"], whole.history_[:, "train_loss"], rtol=1e-3
    )


@pytest.mark.filterwarnings("ignore:.*is slower than")  # on processors without its instructions
@pytest.mark.parametrize("settings", [{}, {"predict_precision": "bfloat16"}, {"freeze": 1}])
def test_prediction_in_parts_is_the_same_and_in_order(make, texts, settings):
    X, y = texts
    clf = make(**settings).fit(X, y)
    whole = clf.predict_proba(X)
    with memory_for(120) as tried:
        with pytest.warns(UserWarning, match="too little memory for .* in prediction") as caught:
            parts = clf.predict_proba(X)
        again = clf.predict_proba(X[::-1])
    assert len(caught) == 1 and caught[0].filename == __file__
    assert max(tried) > 120
    tolerance = 2e-2 if "predict_precision" in settings else 1e-6
    np.testing.assert_allclose(parts, whole, atol=tolerance)
    np.testing.assert_allclose(again[::-1], whole, atol=tolerance)


def test_held_out_documents_are_scored_in_parts(make, texts):
    settings = {"train_split": 0.4, "batch_size": 16, "scoring": "neg_log_loss", "max_epochs": 1}
    whole = make(**settings).fit(*texts)
    with memory_for(120), pytest.warns(UserWarning, match="too little memory"):
        parts = make(**settings).fit(*texts)
    np.testing.assert_allclose(
        parts.history_[:, "valid_score"], whole.history_[:, "valid_score"], rtol=1e-3
    )


@pytest.mark.parametrize("backward", [False, True])
def test_a_single_document_that_does_not_fit_is_an_error_with_its_length(
    make, tiny, texts, backward
):
    X, y = texts
    longest = max(len(ids) for ids in AutoTokenizer.from_pretrained(tiny)(X)["input_ids"])
    message = f"too little memory for a single document of {longest} tokens in training. Lower max"
    clf = make(max_epochs=1)
    with (
        memory_for(longest - 1, backward),
        pytest.warns(UserWarning, match="too little memory"),
    ):
        with pytest.raises(torch.OutOfMemoryError, match=message):
            clf.fit(X, y)
    assert not hasattr(clf, "net_")
    clf.fit(X, y)
    with memory_for(longest - 1), pytest.warns(UserWarning, match="too little memory"):
        with pytest.raises(torch.OutOfMemoryError, match=f"of {longest} tokens in prediction"):
            clf.predict(X)


def test_frozen_layers_are_computed_for_fewer_documents_at_once(make, texts, monkeypatch):
    """On CUDA they run in a fixed shape of many rows, which a part of a batch does not lessen."""
    X, y = texts
    whole = make(freeze=1).fit(X, y).predict_proba(X)
    clear_cache()
    monkeypatch.setitem(frozen_layers._SHAPES, "cpu", frozen_layers._SHAPES["cuda"])
    run, tried, room = frozen_layers.FrozenLayers._run, [], [300]

    def limited(layers, rows, length):
        tried.append(len(rows) * length)
        if tried[-1] > room[0]:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return run(layers, rows, length)

    monkeypatch.setattr(frozen_layers.FrozenLayers, "_run", limited)
    clf = make(freeze=1).fit(X, y)
    assert max(tried) > 300
    np.testing.assert_allclose(clf.predict_proba(X), whole, atol=1e-4)
    clear_cache()
    room[0] = 20
    with pytest.raises(torch.OutOfMemoryError, match="frozen layers and a single document of"):
        make(freeze=1).fit(X, y)


def test_what_did_not_fit_is_let_go_before_the_next_attempt(make, data, monkeypatch):
    """An error that is kept keeps its frames, and these keep the tensors that filled the memory."""
    filled, alive = [], []
    infer = FocalNet.infer

    def failing(net, x, **kwargs):
        logits = infer(net, x, **kwargs)
        if len(logits) > 4:
            filled.append(weakref.ref(logits))
            raise torch.OutOfMemoryError("CUDA out of memory.")
        alive.append(sum(ref() is not None for ref in filled))
        return logits

    monkeypatch.setattr(FocalNet, "infer", failing)
    gc.disable()
    try:
        with pytest.warns(UserWarning, match="too little memory"):
            make(max_epochs=1).fit(*data)
    finally:
        gc.enable()
    assert filled
    assert set(alive) == {0}
