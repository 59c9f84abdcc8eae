"""Probabilities as targets."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import log_softmax
from sklearn.model_selection import GroupShuffleSplit

from skfocal import BertFocalClassifier, expand_soft_labels

TEXTS = ["win money now", "lunch meeting", "free prize", "project report", "cash team"]
PROBA = np.array([[0.9, 0.1, 0], [0, 1, 0], [0.5, 0.25, 0.25], [0.2, 0.6, 0.2], [0, 0, 1]])
CLASSES = ["spam", "ham", "odd"]


def test_the_loss_is_the_cross_entropy_of_the_soft_targets(tiny):
    """The first loss of a fit, by numpy from the logits of an update of no size."""
    X, y, weight, _ = expand_soft_labels(TEXTS, PROBA, CLASSES)
    settings = {"batch_size": 64, "max_epochs": 1, "lr": 1e-30, "random_state": 0}
    clf = BertFocalClassifier(tiny, loss="cross_entropy", proba="softmax", **settings)
    clf.fit(X, y, sample_weight=weight)
    order = [list(clf.classes_).index(label) for label in CLASSES]
    log_p = log_softmax(np.log(clf.predict_proba(TEXTS)), axis=1)[:, order]
    expected = -(PROBA * log_p).sum(axis=1).mean()
    assert clf.history_[-1, "train_loss"] == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(clf.class_prior_[order], PROBA.mean(axis=0))


def test_the_step_is_that_of_torchs_soft_cross_entropy(tiny):
    X, y, weight, _ = expand_soft_labels(TEXTS, PROBA, CLASSES)
    settings = {"batch_size": 64, "max_epochs": 1, "lr": 1e-2, "random_state": 0}
    settings |= {"schedule": "constant", "warmup": 0.0, "gradient_clip": None, "weight_decay": 0.0}
    settings["net_params"] = {"optimizer": torch.optim.SGD}
    clf = BertFocalClassifier(tiny, loss="cross_entropy", **settings)
    clf.fit(X, y, sample_weight=weight)
    start = BertFocalClassifier(tiny, loss="cross_entropy", **{**settings, "lr": 1e-30})
    start.fit(X, y, sample_weight=weight)
    order = [CLASSES.index(label) for label in clf.classes_]
    module = start.net_.module_
    tokens = start.tokenizer_(TEXTS, padding=True, return_tensors="pt")
    loss = torch.nn.CrossEntropyLoss()(
        module(**tokens), torch.tensor(PROBA[:, order], dtype=torch.float32)
    )
    loss.backward()
    pairs = zip(clf.net_.module_.named_parameters(), module.named_parameters(), strict=True)
    for (name, moved), (_, parameter) in pairs:
        if parameter.grad is not None:
            expected = parameter.detach() - 1e-2 * parameter.grad
            torch.testing.assert_close(moved.detach(), expected, atol=2e-6, rtol=1e-4, msg=name)


def test_certain_labels_are_plain_labels(tiny):
    certain = np.eye(3)[[0, 1, 0, 1, 2]]
    X, y, weight, groups = expand_soft_labels(pd.Series(TEXTS), certain, CLASSES)
    assert X == TEXTS and y.tolist() == ["spam", "ham", "spam", "ham", "odd"]
    assert weight.tolist() == [1.0] * 5 and groups.tolist() == [0, 1, 2, 3, 4]


def test_groups_keep_the_copies_of_a_document_together(tiny):
    texts, proba = TEXTS * 4, np.tile(PROBA, (4, 1))
    X, y, weight, groups = expand_soft_labels(texts, proba, CLASSES)
    seen = []

    class Split(GroupShuffleSplit):
        def split(self, X, y, groups):
            seen.extend(super().split(X, y, groups))
            return iter(seen)

    split = Split(1, test_size=0.3, random_state=0)
    clf = BertFocalClassifier(tiny, max_epochs=1, train_split=split, random_state=0)
    clf.fit(X, y, sample_weight=weight, groups=groups)
    train, held_out = seen[0]
    assert not {*groups[train]} & {*groups[held_out]}


def test_pairs_of_texts_stay_pairs():
    X = expand_soft_labels([("a", "b"), ("c", "d")], [[0.5, 0.5], [1, 0]], ["x", "y"])[0]
    assert X == [("a", "b"), ("a", "b"), ("c", "d")]


@pytest.mark.parametrize(
    ("proba", "classes", "message"),
    [
        (
            [[1, 0]] * 4 + [[0.5, 0.4]],
            ["a", "b"],
            r"sum to 1 in each row\. Got \[0\.5, 0\.4\] in row 4",
        ),
        ([[1.5, -0.5]] + [[1, 0]] * 4, ["a", "b"], r"Got \[1\.5, -0\.5\] in row 0"),
        ([[1, 0]] * 5, ["a"], "each of the 2 columns of proba once"),
        ([[1, 0]] * 5, ["a", "a"], r"each of the 2 columns .* Got \['a', 'a'\]"),
        ([[1, 0]] * 4, ["a", "b"], "inconsistent numbers of samples"),
        ([[1, np.nan]] * 5, ["a", "b"], "contains NaN"),
    ],
)
def test_what_is_no_probability_is_named(proba, classes, message):
    with pytest.raises(ValueError, match=message):
        expand_soft_labels(TEXTS, proba, classes)
