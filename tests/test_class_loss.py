"""The share of the training loss that each class carries."""

import numpy as np
import pytest
import torch
from conftest import imbalanced, logits_of
from sklearn.model_selection import PredefinedSplit

from skfocal.losses import (
    AsymmetricLoss,
    CustomLoss,
    DistributionBalancedLoss,
    FocalLoss,
    LDAMLoss,
    SigmoidFocalLoss,
)

LABELS = torch.tensor([[1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 0]]).float()


def per_document(logits, target):
    return (logits - target).square().mean(1)


@pytest.mark.parametrize(
    "loss",
    [
        FocalLoss(2.0, weight=[1.0, 2.0, 3.0], label_smoothing=0.1),
        LDAMLoss([5, 3, 1]),
        SigmoidFocalLoss(2.0, label_smoothing=0.1),
        SigmoidFocalLoss(0.0, weight=[[1.0, 2.0]] * 3),
        AsymmetricLoss(weight=[[1.0, 2.0]] * 3),
        DistributionBalancedLoss([[5, 1], [4, 2], [3, 3]]),
        CustomLoss(per_document),
    ],
)
def test_parts_of_the_classes_are_the_loss(loss):
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    several = loss.multilabel is not False
    target = LABELS if several else torch.tensor([0, 2, 2, 1])
    parts = loss.per_class(logits, target)
    assert parts.shape == logits.shape
    torch.testing.assert_close(parts.sum(1), loss.per_sample(logits, target))
    if not several:
        assert torch.equal(parts != 0, torch.nn.functional.one_hot(target).bool())


def test_shares_are_those_of_the_losses_at_a_rate_of_nearly_zero(make, data):
    X, y = data
    weight = np.where(np.arange(len(y)) % 3, 1.0, 2.5)
    clf = make(alpha="balanced", max_epochs=2, lr=1e-12, sampler=None)
    clf.fit(X, y, sample_weight=weight)
    logits = torch.from_numpy(logits_of(clf, X))
    codes = torch.from_numpy((np.asarray(y) == "spam").astype(np.int64))
    loss = clf.loss_.per_sample(logits, codes).numpy() * weight
    spam = loss[codes == 1].sum() / loss.sum()
    np.testing.assert_allclose(clf.class_loss_, [[1 - spam, spam]] * 2, rtol=1e-4)


def test_more_batches_than_are_kept_are_all_counted(make, monkeypatch):
    X, y = imbalanced(20, 10)
    whole = make(batch_size=2, max_epochs=2).fit(X, y).class_loss_
    monkeypatch.setattr("skfocal.callbacks.ClassLoss._N_KEPT", 4)
    np.testing.assert_allclose(make(batch_size=2, max_epochs=2).fit(X, y).class_loss_, whole)


def test_chunks_add_epochs_and_a_new_fit_begins_anew(make, data):
    X, y = data
    clf = make()
    for n in (1, 2, 3):
        clf.partial_fit(X, y, classes=["ham", "spam"])
        assert clf.class_loss_.shape == (n, 2)
    np.testing.assert_allclose(clf.class_loss_.sum(1), 1)
    np.testing.assert_array_equal(clf.fit(X, y).class_loss_, make().fit(X, y).class_loss_)


def test_labels_carry_their_own_part(make, data):
    X, y = data
    indicator = np.column_stack([np.asarray(y) == c for c in ("ham", "spam")] + [np.zeros(len(y))])
    indicator[0] = 1, 1, 0
    with pytest.warns(UserWarning, match="no document"):
        clf = make(max_epochs=2, lr=1e-12).fit(X, indicator.astype(int))
    target = torch.from_numpy(indicator).float()
    parts = clf.loss_.per_class(torch.from_numpy(logits_of(clf, X)), target).sum(0)
    np.testing.assert_allclose(clf.class_loss_, [(parts / parts.sum()).tolist()] * 2, rtol=1e-4)


def test_epochs_of_chunks_come_in_their_order(make, data):
    X, y = data
    clf = make(lr=3e-2).partial_fit(X[:20], y[:20], classes=["ham", "spam"])
    first = clf.class_loss_.copy()
    clf.partial_fit(X[20:], y[20:])
    assert clf.class_loss_.shape == (2, 2)
    np.testing.assert_array_equal(clf.class_loss_[:1], first)
    assert not np.allclose(clf.class_loss_[1], first)


def test_held_out_documents_do_not_count(make, data):
    X, y = data
    fold = np.where(np.arange(40) < 15, 0, -1)
    with_them = make(train_split=PredefinedSplit(fold), lr=1e-9).fit(X, y)
    without = make(lr=1e-9).fit(X[15:], y[15:])
    np.testing.assert_allclose(with_them.class_loss_, without.class_loss_, rtol=1e-4)
