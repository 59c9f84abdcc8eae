"""What people report elsewhere who fine-tune encoders on imbalanced text, each with its thread."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from imblearn import FunctionSampler
from imblearn.pipeline import make_pipeline
from imblearn.under_sampling import RandomUnderSampler

from skfocal import BertFocalClassifier
from skfocal._estimator.advice import warn_counts_as_weights
from skfocal._training.loop import TrainingLoop

QUICK = {"max_epochs": 1, "batch_size": 20}
COUNTS = "alpha holds the counts or shares"


@pytest.fixture(scope="module")
def three():
    """Texts of three classes, with 2, 6 and 20 documents."""
    y = np.repeat(["rare", "some", "usual"], [2, 6, 20])
    return [f"{label} text {i}" for i, label in enumerate(y)], y


@pytest.mark.parametrize(
    "alpha",
    [
        [2, 6, 20],
        {"usual": 20, "some": 6, "rare": 2},
        [0.07, 0.21, 0.71],
        pd.Series([20, 6, 2], ["usual", "some", "rare"]),
        torch.tensor([2.0, 6.0, 20.0]),
    ],
    ids=["counts", "dict", "rounded shares", "value_counts", "tensor"],
)
def test_weights_that_are_counts(make, three, alpha):
    # github.com/ThilinaRajapakse/simpletransformers/issues/117
    with pytest.warns(UserWarning, match=f"{COUNTS}.*the most frequent one weighs 10 times"):
        make(**QUICK, alpha=alpha).fit(*three)


def test_label_weights_that_are_counts(make, three):
    # github.com/ThilinaRajapakse/simpletransformers/issues/159
    X, y = three
    Y = np.stack([y == "rare", y == "some", y == "usual"], axis=1).astype(int)
    Y[-1] = [0, 1, 1]  # one row at least has several
    with pytest.warns(UserWarning, match=COUNTS):
        make(**QUICK, alpha=Y.sum(axis=0)).fit(X, Y)
    make(**QUICK, alpha=[10, 20 / 6, 1]).fit(X, Y)  # warnings are errors here
    make(**QUICK, alpha=[[2, 2], [6, 6], [20, 20]]).fit(X, Y)  # absence weighs as much


@pytest.mark.parametrize("alpha", [[1, 1, 1], [10, 3, 1], [1, 2, 4]])
def test_weights_that_are_not_counts(make, three, alpha):
    make(**QUICK, alpha=alpha).fit(*three)


@pytest.mark.parametrize("power", [0, -1])
def test_no_weights_of_many_rare_classes_are_taken_for_counts(power):
    counts = np.random.RandomState(0).randint(4, 9, 150)
    warn_counts_as_weights(counts, counts.astype(float) ** power)


def test_a_single_number_is_a_choice(make, data):
    make(**QUICK, alpha=0.25).fit(*data)  # as in the paper, and the share of the second class


def test_equal_weights_of_almost_equal_classes_are_not_counts(make):
    y = np.repeat(["a", "b"], [21, 20])
    make(**QUICK, alpha=[1, 1]).fit([f"text {i}" for i in range(41)], y)


def test_the_order_of_a_list_of_weights_is_said(make, three):
    # github.com/ThilinaRajapakse/simpletransformers/issues/1369
    with pytest.raises(ValueError, match="an array of 3 weights in the order of classes_"):
        make(alpha=[1, 5]).fit(*three)


def test_weights_by_the_wrong_kind_of_label(make, three):
    # github.com/flairNLP/flair/issues/2543
    X, y = three
    codes = np.unique(y, return_inverse=True)[1]
    with pytest.raises(ValueError, match=r"unknown: \['0', '1', '2'\]; missing: \[0, 1, 2\]"):
        make(alpha={"0": 10.0, "1": 3.0, "2": 1.0}).fit(X, codes)


def test_an_encoder_that_answers_the_same_to_everything(minilm, data):
    # github.com/dmis-lab/biobert/issues/44
    X, y = data
    clf = BertFocalClassifier(minilm, lr=0.1, max_epochs=3, max_length=16, random_state=0)
    with pytest.warns(UserWarning, match=r"The training collapsed:.*lower lr than 0\.1"):
        clf.fit(X, y)
    assert np.ptp(clf.predict_proba(X), axis=0).max() < 1e-3
    clf.set_params(lr=2e-4).fit(X, y)  # warnings are errors here
    assert np.ptp(clf.predict_proba(X), axis=0).max() > 0.9


def test_batches_that_differ_in_nothing_say_nothing_about_a_collapse():
    loop = TrainingLoop(None, None, None, None, None)
    loop._record_spread({"input_ids": torch.ones(4, 5)}, torch.eye(4))
    loop._record_spread({"input_ids": torch.eye(4)[:1]}, torch.eye(4)[:1])
    assert loop.first_spread is None and loop.spread is None
    loop._record_spread({"input_ids": torch.eye(4)}, 2 * torch.eye(4))
    loop._record_spread({"input_ids": torch.eye(4)}, torch.ones(4, 4))
    assert loop.first_spread == 1 and loop.spread == 1  # the most in the epoch


def test_a_batch_of_one_class_is_no_collapse(minilm, data):
    X, y = data
    clf = BertFocalClassifier(minilm, max_length=16, batch_size=2, random_state=0, warm_start=True)
    for _ in range(2):
        clf.fit(X, y)  # warnings are errors here


def test_a_class_of_one_document_is_kept(make, three):
    # github.com/autogluon/autogluon/issues/201
    X, y = three
    X, y = [*X, "one more"], [*y, "alone"]
    clf = make(**QUICK, train_split=0.2).fit(X, y)
    assert clf.classes_.tolist() == ["alone", "rare", "some", "usual"]
    assert clf.predict_proba(X[:1]).shape == (1, 4)


def test_a_function_that_samples_texts(make, three):
    # github.com/scikit-learn-contrib/imbalanced-learn/issues/581
    X, y = pd.DataFrame({"text": three[0]}), three[1]

    def draw(X, y):
        return RandomUnderSampler(random_state=0).fit_resample(X, y)

    steps = make_pipeline(FunctionSampler(func=draw, validate=False), make(**QUICK)).fit(X, y)
    np.testing.assert_allclose(steps[-1].class_prior_, [1 / 3] * 3)


def test_a_sampler_that_wants_numbers_is_on_the_page_of_errors(make, three):
    steps = make_pipeline(RandomUnderSampler(), make(**QUICK))
    with pytest.raises(ValueError, match=re.escape("Expected 2D array, got 1D array instead")):
        steps.fit(*three)
