"""Scorers that are finite on folds that lack classes."""

import warnings

import numpy as np
import pandas as pd
import pytest
from conftest import imbalanced
from scipy import sparse
from sklearn.datasets import make_classification, make_multilabel_classification
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import DataConversionWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, get_scorer, log_loss, roc_auc_score
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.multiclass import OneVsRestClassifier

from skfocal import BertFocalClassifier, expected_calibration_error
from skfocal._utils.arrays import not_among
from skfocal.metrics import average_precision_scorer, neg_log_loss_scorer, roc_auc_scorer

SCORERS = (neg_log_loss_scorer, roc_auc_scorer, average_precision_scorer)
NAMES = np.array(["a", "b", "c", "d"])


@pytest.fixture(scope="module")
def numbers():
    X, y = make_classification(
        400, n_classes=4, n_informative=6, weights=[0.6, 0.2, 0.15, 0.05], random_state=0
    )
    return X, NAMES[y], np.random.RandomState(0).uniform(0.1, 2, 400)


def test_scores_are_scikit_learns_where_all_classes_are_there(numbers):
    X, y, weight = numbers
    clf = LogisticRegression().fit(X, y)
    one_hot = (y[:, None] == NAMES).astype(int)
    for given in (None, weight):
        scores = [scorer(clf, X, y, sample_weight=given) for scorer in SCORERS]
        proba = clf.predict_proba(X)
        expected = [
            -log_loss(y, proba, sample_weight=given),
            roc_auc_score(one_hot, proba, sample_weight=given, average="macro"),
            average_precision_score(one_hot, proba, sample_weight=given, average="macro"),
        ]
        np.testing.assert_allclose(scores, expected, rtol=1e-12)
    assert roc_auc_scorer(clf, X, y) == pytest.approx(get_scorer("roc_auc_ovr")(clf, X, y))


def test_two_classes_have_scikit_learns_area_whatever_their_names(numbers):
    X, y, _ = numbers
    y = np.where(y == "a", "usual", "rare")
    clf = LogisticRegression().fit(X, y)
    assert roc_auc_scorer(clf, X, y) == pytest.approx(get_scorer("roc_auc")(clf, X, y))
    p = clf.predict_proba(X)[:, list(clf.classes_).index("rare")]
    both = [average_precision_score(y == "rare", p), average_precision_score(y == "usual", 1 - p)]
    assert average_precision_scorer(clf, X, y) == pytest.approx(np.mean(both))


def test_several_labels_are_means_over_the_labels():
    X, y = make_multilabel_classification(200, n_classes=3, random_state=0)
    clf = OneVsRestClassifier(LogisticRegression()).fit(X, y)
    p = clf.predict_proba(X)
    scores = [scorer(clf, X, y) for scorer in SCORERS]
    expected = [
        -np.mean([log_loss(y[:, j], p[:, j]) for j in range(3)]),
        roc_auc_score(y, p, average="macro"),
        average_precision_score(y, p, average="macro"),
    ]
    np.testing.assert_allclose(scores, expected, rtol=1e-12)
    y = y.copy()
    y[:, 1] = 0  # a label that no document has
    assert np.isfinite([scorer(clf, X, y) for scorer in SCORERS]).all()
    assert roc_auc_scorer(clf, X, y) == pytest.approx(
        np.mean([roc_auc_score(y[:, j], p[:, j]) for j in (0, 2)])
    )


def test_a_fold_without_a_class_has_the_score_of_its_documents(numbers):
    X, y, _ = numbers
    clf = LogisticRegression().fit(X, y)
    rows = np.flatnonzero(y != "d")
    own = clf.predict_proba(X[rows])[np.arange(len(rows)), np.searchsorted(NAMES, y[rows])]
    assert neg_log_loss_scorer(clf, X[rows], y[rows]) == pytest.approx(np.log(own).mean())
    areas = [roc_auc_score(y[rows] == c, clf.predict_proba(X[rows])[:, j]) for j, c in
             enumerate("abc")]  # fmt: skip
    assert roc_auc_scorer(clf, X[rows], y[rows]) == pytest.approx(np.mean(areas))


def test_a_label_that_the_classifier_does_not_know_has_probability_0(numbers):
    X, y, _ = numbers
    clf = LogisticRegression().fit(X[y != "d"], y[y != "d"])
    share = (y == "d").mean()
    known = neg_log_loss_scorer(clf, X[y != "d"], y[y != "d"])
    smallest = np.log(np.finfo(float).eps)
    expected = (1 - share) * known + share * smallest
    assert neg_log_loss_scorer(clf, X, y) == pytest.approx(expected, rel=1e-6)
    assert 0 < average_precision_scorer(clf, X, y) < 1


def test_every_form_of_y_has_the_same_scores(numbers):
    X, y, _ = numbers
    clf = LogisticRegression().fit(X, y)
    for form in (y.tolist(), y[:, None], pd.Series(y), pd.DataFrame({"y": y})):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataConversionWarning)
            assert [f(clf, X, form) for f in SCORERS] == [f(clf, X, y) for f in SCORERS]
    rows = np.stack([y == "a", y != "c"], 1).astype(int)
    several = OneVsRestClassifier(LogisticRegression()).fit(X, rows)

    class Named:
        classes_ = np.array(["a", "no c"])
        predict_proba = several.predict_proba

    frame = pd.DataFrame(rows, columns=["a", "no c"])
    sets = [{n for n, has in zip(Named.classes_, row, strict=True) if has} for row in rows]
    lists = [sorted(names) for names in sets]
    for form in (frame, frame[["no c", "a"]], sparse.csr_matrix(rows), sets, lists, rows.tolist()):
        assert [f(Named(), X, form) for f in SCORERS] == [f(several, X, rows) for f in SCORERS]


def test_lists_of_one_name_each_are_several_labels(numbers):
    X, y, _ = numbers
    rows = (y[:, None] == np.unique(y)).astype(int)
    clf = OneVsRestClassifier(LogisticRegression()).fit(X, rows)
    clf.classes_ = np.unique(y)
    lists = [[label] for label in y]
    assert [f(clf, X, lists) for f in SCORERS] == [f(clf, X, rows) for f in SCORERS]


def test_labels_that_are_missing_or_of_another_kind_are_refused(numbers):
    X, y, _ = numbers
    clf = LogisticRegression().fit(X, y)
    gap = y.astype(object)
    gap[3] = None
    codes = np.unique(y, return_inverse=True)[1]
    for scorer in SCORERS:
        with pytest.raises(ValueError, match="Got none in row 3"):
            scorer(clf, X, gap)
        with pytest.raises(ValueError, match="Got labels of type int64"):
            scorer(clf, X, codes)
        with pytest.raises(ValueError, match="Got 2 columns"):
            scorer(clf, X, np.eye(2)[codes % 2])
    with pytest.raises(ValueError, match="Got none in row 0"):
        roc_auc_scorer(
            LogisticRegression().fit(X, codes), X, np.where(codes == codes[0], np.nan, codes)
        )


def test_numbers_in_an_array_of_objects_are_numbers(numbers):
    X, y, _ = numbers
    for labels in (np.unique(y, return_inverse=True)[1], y == "a"):
        clf = LogisticRegression().fit(X, labels)
        as_objects = labels.astype(object)
        assert [f(clf, X, as_objects) for f in SCORERS] == [f(clf, X, labels) for f in SCORERS]


def test_documents_of_no_weight_are_not_there():
    X, y = [[0]] * 6, np.array(list("aabbcc"))
    clf = DummyClassifier(strategy="prior").fit(X, y)
    weight = np.array([1, 2, 1, 1, 0, 0])
    for scorer in SCORERS:
        expected = scorer(clf, X[:4], y[:4], sample_weight=weight[:4])
        assert scorer(clf, X, y, sample_weight=weight) == pytest.approx(expected)
        assert np.isfinite(expected)


def test_numbers_are_not_found_in_strings_however_many():
    names = np.array([str(i) for i in range(40)])
    assert not_among(np.arange(40), names).tolist() == list(range(40))
    assert not_among(names, np.arange(40)).tolist() == sorted(names)
    assert not_among(names[:3].astype(object), names).tolist() == []
    assert not_among([3, 50], np.arange(40).astype(object)).tolist() == [50]
    of_numpy = np.array(["a", "b"], dtype=np.dtypes.StringDType())
    assert not_among(of_numpy, ["a", "b"]).tolist() == []
    assert not_among(["a", "c"], of_numpy).tolist() == ["c"]
    with pytest.raises(ValueError, match="labels of classes only"):
        expected_calibration_error(np.arange(40), np.eye(40), classes=names)


def test_documents_of_one_class_have_no_area(numbers):
    X, y, _ = numbers
    clf = LogisticRegression().fit(X, y)
    assert np.isnan(roc_auc_scorer(clf, X[y == "a"], y[y == "a"]))
    assert np.isfinite(neg_log_loss_scorer(clf, X[y == "a"], y[y == "a"]))


@pytest.mark.parametrize("scorer", SCORERS)
def test_a_class_that_is_rarer_than_the_folds_leaves_every_score_finite(tiny, scorer):
    X, y = imbalanced(9, 9)
    X, y = [*X, "one of a kind"], np.array([*y, "single"])
    clf = BertFocalClassifier(
        tiny, max_epochs=1, classes=np.unique(y), random_state=0, scoring=scorer
    )
    with pytest.warns(UserWarning, match="no document of 1 declared"):
        scores = cross_val_score(
            clf, X, y, scoring=scorer, cv=KFold(3, shuffle=True, random_state=0)
        )
    assert np.isfinite(scores).all()
    with pytest.warns(UserWarning, match="no document of 1 declared"):
        search = GridSearchCV(
            clf, {"gamma": [0, 2]}, scoring=scorer, cv=KFold(3, shuffle=True, random_state=0)
        ).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize("scorer", SCORERS)
def test_a_scorer_scores_the_held_out_documents_of_each_epoch(tiny, scorer):
    X, y = imbalanced(12, 4)
    clf = BertFocalClassifier(
        tiny, max_epochs=2, train_split=0.4, scoring=scorer, temperature=3.0, random_state=0
    ).fit(X, y)
    assert np.isfinite(clf.history_[:, "valid_score"]).all()
    assert len(set(clf.history_[:, "valid_score"])) == 2 or scorer is not neg_log_loss_scorer
