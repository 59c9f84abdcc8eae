"""Numbers that go wrong: named, or skipped and counted, and float16 with its scale."""

import math

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback

from skfocal import Checkpoint
from skfocal._training.optimization import Updates


class Spoils(torch.nn.Module):
    """Cross-entropy whose value, or gradient alone, is not finite in some of its calls."""

    def __init__(self, calls, value=math.nan, gradient_only=False):
        super().__init__()
        self.calls = set(calls)
        self.value = value
        self.gradient_only = gradient_only
        self.n = 0

    def forward(self, logits, target):
        loss = torch.nn.functional.cross_entropy(logits, target, reduction="none")
        if logits.requires_grad:
            self.n += 1
            if self.n in self.calls and self.gradient_only:
                # The square root of zero: a value of 0, a slope without end.
                return loss + (logits.sum() * 0).abs().sqrt()
            if self.n in self.calls:
                return loss * self.value
        return loss


def weights(clf):
    return list(clf.net_.module_.state_dict().values())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_named_with_its_batch(make, data, value):
    clf = make(loss=Spoils([7], value))
    with pytest.raises(FloatingPointError, match=f"the loss is {value} in epoch 2, train batch 2"):
        clf.fit(*data)
    assert not hasattr(clf, "net_")


def test_a_gradient_that_is_not_finite_is_named_where_the_loss_is_finite(make, data):
    clf = make(loss=Spoils([7], gradient_only=True))
    message = "the norm of the gradient is nan in epoch 2, train batch 2. Try a smaller lr"
    with pytest.raises(FloatingPointError, match=message):
        clf.fit(*data)


def test_of_accumulated_batches_the_last_of_the_update_is_named(make, data):
    clf = make(loss=Spoils([2], gradient_only=True), accumulate=3)
    with pytest.raises(FloatingPointError, match="gradient is nan in epoch 1, train batch 3"):
        clf.fit(*data)


def test_numbers_read_later_are_named_by_their_own_batch(make, data, monkeypatch):
    """On CUDA losses are read so many batches at a time."""
    monkeypatch.setattr("skfocal._training.loop._BATCHES_PER_READ", {"cpu": 4})
    for spoils, what in ((Spoils([6]), "loss"), (Spoils([6], gradient_only=True), "gradient")):
        with pytest.raises(FloatingPointError, match=f"{what} is nan in epoch 2, train batch 1"):
            make(loss=spoils).fit(*data)


@pytest.mark.parametrize("gradient_only", [False, True])
def test_skipped_updates_are_told_once_counted_and_leave_the_weights(make, data, gradient_only):
    kept: list = []

    class Watches(Callback):
        def on_batch_end(self, net, training=False, **kwargs):
            if training:
                kept.append(torch.cat([p.detach().flatten() for p in net.module_.parameters()]))

    spoils = Spoils([2, 3, 7], gradient_only=gradient_only)
    clf = make(loss=spoils, nonfinite="skip", callbacks=[Watches()])
    with pytest.warns(UserWarning, match="not finite in epoch 1, train batch 2") as caught:
        clf.fit(*data)
    assert len(caught) == 1
    assert clf.history_[:, "n_skipped"] == [2, 1]
    changed = [not torch.equal(a, b) for a, b in zip(kept, kept[1:], strict=False)]
    assert [i + 2 for i, moved in enumerate(changed) if not moved] == [2, 3, 7]
    assert all(weight.isfinite().all() for weight in weights(clf) if weight.is_floating_point())
    assert np.isfinite(clf.history_[:, "train_loss"]).all()
    assert np.isfinite(clf.class_loss_).all()
    np.testing.assert_allclose(clf.class_loss_.sum(1), 1)


def test_an_infinite_loss_with_a_finite_gradient_is_skipped_too(make, data):
    class Infinite(Spoils):
        def forward(self, logits, target):
            loss = torch.nn.functional.cross_entropy(logits, target, reduction="none")
            self.n += logits.requires_grad
            return loss + math.inf if self.n in self.calls and logits.requires_grad else loss

    with pytest.warns(UserWarning, match="not finite in epoch 1, train batch 3"):
        clf = make(loss=Infinite([3]), nonfinite="skip").fit(*data)
    assert clf.history_[:, "n_skipped"] == [1, 0]


def test_twenty_skipped_updates_in_a_row_end_the_fit(make, data):
    clf = make(loss=Spoils(range(5, 100)), nonfinite="skip", max_epochs=8)
    message = "20 updates in a row had no finite gradient, up to epoch 5, train batch 4"
    with pytest.warns(UserWarning, match="epoch 1, train batch 5"):
        with pytest.raises(FloatingPointError, match=message):
            clf.fit(*data)


def test_nineteen_in_a_row_do_not(make, data):
    clf = make(loss=Spoils(set(range(5, 100)) - {24}), nonfinite="skip", max_epochs=5)
    with pytest.warns(UserWarning, match="not finite"):
        clf.fit(*data)
    assert sum(clf.history_[:, "n_skipped"]) == 20


def test_weights_are_those_of_the_finite_updates_alone(make, data):
    """Of one epoch with a full batch, a skipped second epoch changes nothing."""
    settings = {"batch_size": 40, "schedule": "constant", "warmup": 0, "lr": 1e-3}
    with pytest.warns(UserWarning, match="not finite"):
        two = make(loss=Spoils([2]), nonfinite="skip", **settings).fit(*data)
    one = make(loss=Spoils([]), **settings | {"max_epochs": 1}).fit(*data)
    assert all(map(torch.equal, weights(two), weights(one)))


@pytest.mark.parametrize("clip", [None, 0.1, 1e9])
def test_clipping_is_that_of_torch(clip):
    torch.manual_seed(0)
    layers = [torch.nn.Linear(5, 3), torch.nn.Linear(5, 3)]
    layers[1].load_state_dict(layers[0].state_dict())
    x = torch.randn(7, 5)
    for layer in layers:
        (10 * layer(x).square().sum()).backward()
    updates = Updates(torch.optim.SGD(layers[0].parameters(), lr=1.0), clip=clip, nonfinite="raise")
    norm = updates.clip_gradients()
    expected = torch.nn.utils.clip_grad_norm_(layers[1].parameters(), clip or math.inf)
    torch.testing.assert_close(norm, expected)
    for ours, theirs in zip(*(layer.parameters() for layer in layers), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_float16_learns_with_a_scale(make, data):
    X, y = data
    half = make(precision="float16", max_epochs=12).fit(X, y)
    whole = make(precision="float32", max_epochs=12).fit(X, y)
    assert half.score(X, y) == whole.score(X, y) == 1.0
    assert half.net_.module_.model.bert.pooler.dense.weight.dtype == torch.float32
    np.testing.assert_allclose(half.predict_proba(X), whole.predict_proba(X), atol=0.15)
    assert half.history_[:, "n_skipped"][-1] == 0


def test_float16_keeps_gradients_that_it_could_not_hold_without_a_scale(make, data, monkeypatch):
    """A loss a million times smaller: its gradient is below the least float16."""

    class Faint(torch.nn.Module):
        def forward(self, logits, target):
            return 1e-6 * torch.nn.functional.cross_entropy(logits, target, reduction="none")

    class Gradient(Callback):
        def on_grad_computed(self, net, named_parameters, **kwargs):
            if not hasattr(self, "first"):
                gradients = [p.grad for _, p in named_parameters if p.grad is not None]
                self.first = torch.cat([g.flatten() for g in gradients])

    def gradient(precision):
        settings = {"loss": Faint(), "gradient_clip": None, "callbacks": [Gradient()]}
        clf = make(precision=precision, **settings).fit(*data)
        return dict(clf.net_.callbacks_)["Gradient"].first

    whole = gradient("float32")
    error = (gradient("float16") - whole).norm() / whole.norm()
    assert error < 0.02
    monkeypatch.setattr("skfocal._training.loop.make_scaler", lambda precision, device: None)
    assert (gradient("float16") - whole).norm() / whole.norm() > 10 * error


def test_float16_finds_its_scale_without_a_word(make, data):
    """A large loss overflows at first; those updates are skipped until the scale is small."""

    class Loud(torch.nn.Module):
        def forward(self, logits, target):
            return 1e4 * torch.nn.functional.cross_entropy(logits, target, reduction="none")

    clf = make(precision="float16", loss=Loud(), max_epochs=12).fit(*data)
    assert clf.history_[0, "n_skipped"] >= 1
    assert clf.history_[-1, "n_skipped"] == 0
    assert clf.score(*data) == 1.0


def test_float16_goes_on_from_a_checkpoint_with_its_scale(make, data, tmp_path):
    class Ends(Callback):
        n = 6

        def on_grad_computed(self, net, named_parameters, **kwargs):
            Ends.n -= 1
            if Ends.n == 0:
                raise KeyError("end")

    settings = {"precision": "float16", "dropout": 0.1, "callbacks": [Ends()]}
    checkpoint = {"checkpoint": Checkpoint(tmp_path, steps=1)}
    with pytest.raises(KeyError):
        make(**settings, **checkpoint).fit(*data)
    parts = make(**settings, **checkpoint).fit(*data)
    whole = make(**settings).fit(*data)
    assert all(map(torch.equal, weights(parts), weights(whole)))
