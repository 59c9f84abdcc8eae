"""Meta-estimators around the classifier, sample weights and metadata routing."""

import functools

import numpy as np
import pytest
import sklearn
from conftest import imbalanced
from imblearn.ensemble import BalancedBaggingClassifier, EasyEnsembleClassifier
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    StratifiedKFold,
    TunedThresholdClassifierCV,
    cross_val_score,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.semi_supervised import SelfTrainingClassifier

from skfocal import as_column


@pytest.fixture(scope="module")
def make(make_of_few_words):
    """Return a function that makes classifiers of few words."""
    return functools.partial(make_of_few_words, max_epochs=1)


def three_classes():
    X, y = imbalanced(24, 12)
    return X + [f"eggs bacon number {i}" for i in range(8)], np.append(y, 8 * ["eggs"])


@pytest.fixture
def three():
    """Texts of three classes."""
    return three_classes()


def column(X):
    return as_column(X)


def tfidf():
    return make_pipeline(TfidfVectorizer(), LogisticRegression())


# -- probabilities and thresholds ------------------------------------------------------------


@pytest.fixture(scope="module", params=[2, 3])
def by_hand(request, make):
    """Documents, a classifier fitted to each half of them, and a better one fitted to all."""
    X, y = imbalanced() if request.param == 2 else three_classes()
    halves = [
        make().fit([X[i] for i in train], y[train]) for train, _ in StratifiedKFold(2).split(X, y)
    ]
    return X, y, halves, make(max_epochs=6, batch_size=8).fit(X, y)


@pytest.mark.parametrize("method", ["sigmoid", "isotonic", "temperature"])
def test_calibration(make, by_hand, method):
    if method == "temperature" and sklearn.__version__ < "1.8":
        pytest.skip("scikit-learn has it from 1.8")
    X, y, halves, fitted = by_hand
    model = CalibratedClassifierCV(make(), method=method, cv=2).fit(X, y)
    for part, half in zip(model.calibrated_classifiers_, halves, strict=True):
        assert np.array_equal(part.estimator.predict_proba(X), half.predict_proba(X))
    mean = np.mean([part.predict_proba(X) for part in model.calibrated_classifiers_], axis=0)
    np.testing.assert_allclose(model.predict_proba(X), mean)
    held_out = CalibratedClassifierCV(FrozenEstimator(fitted), method=method).fit(X, y)
    assert held_out.calibrated_classifiers_[0].estimator.estimator is fitted
    before, after = (log_loss(y, clf.predict_proba(X)) for clf in (fitted, held_out))
    assert after < before


def test_thresholds(make, data):
    X, y = data
    tuned = TunedThresholdClassifierCV(
        make(max_epochs=6, batch_size=8), scoring="balanced_accuracy", cv=2
    )
    tuned.fit(X, y)
    assert 0 <= tuned.best_threshold_ <= 1 and tuned.score(X, y) > 0.9
    low = FixedThresholdClassifier(make(), threshold=0.0, pos_label="spam").fit(X, y)
    assert (low.predict(X) == "spam").all()
    high = FixedThresholdClassifier(make(), threshold=1.1, pos_label="spam").fit(X, y)
    assert (high.predict(X) == "ham").all()


def test_threshold_of_many_classes_is_refused_by_scikit_learn(make, three):
    with pytest.raises(ValueError, match="Only binary classification is supported"):
        TunedThresholdClassifierCV(make()).fit(*three)


# -- ensembles -------------------------------------------------------------------------------


def test_soft_vote_is_the_mean(make, data):
    X, y = data
    members = [("a", make(gamma=0)), ("b", make(gamma=5)), ("words", tfidf())]
    model = VotingClassifier(members, voting="soft").fit(X, y)
    mean = np.mean([clone(clf).fit(X, y).predict_proba(X) for _, clf in members], axis=0)
    np.testing.assert_allclose(model.predict_proba(X), mean)


def test_stacking_beside_tfidf(make, three):
    X, y = three
    model = StackingClassifier([("encoder", make()), ("words", tfidf())], cv=2).fit(X, y)
    members = [make().fit(X, y).predict_proba(X), tfidf().fit(X, y).predict_proba(X)]
    np.testing.assert_array_equal(model.transform(X), np.hstack(members))
    assert model.score(X, y) > 0.9


@pytest.fixture(scope="module")
def of_each_class(make):
    """Shares of three classes by three classifiers, each of one class against the rest."""
    X, y = three_classes()
    alone = [make().fit(X, (y == c).astype(int)) for c in ("eggs", "ham", "spam")]
    proba = np.stack([clf.predict_proba(X)[:, 1] for clf in alone], axis=1)
    return proba / proba.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("texts", [list, column])
def test_one_classifier_for_each_class_or_pair(make, of_each_class, three, texts):
    X, y = three
    rest = OneVsRestClassifier(make()).fit(texts(X), y)
    expected = of_each_class
    np.testing.assert_allclose(rest.predict_proba(texts(X)), expected)


def ensembles(clf):
    return [
        BaggingClassifier(clf, n_estimators=2, random_state=0),
        BalancedBaggingClassifier(clf, n_estimators=2, random_state=0),
        EasyEnsembleClassifier(2, clf, random_state=0),
        AdaBoostClassifier(clf, n_estimators=2, random_state=0),
    ]


def test_bags_of_a_column_of_texts(make, data):
    X, y = data
    bag, balanced, easy, boosted = (
        ensemble.fit(column(X), y) for ensemble in ensembles(make(alpha="balanced"))
    )
    for ensemble in (bag, balanced, easy):
        mean = np.mean([m.predict_proba(column(X)) for m in ensemble.estimators_], axis=0)
        np.testing.assert_allclose(ensemble.predict_proba(column(X)), mean)
        assert len(ensemble.estimators_) == 2
    assert len(boosted.estimators_) <= 2  # it stops at one without an error
    np.testing.assert_allclose(boosted.predict_proba(column(X)).sum(axis=1), 1)
    for member in balanced.estimators_:
        assert member[-1].class_weight_.tolist() == [1, 1]  # it saw as many of each class


def test_bags_of_a_list_are_refused_by_scikit_learn(make, data):
    for ensemble in ensembles(make()):
        with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
            ensemble.fit(*data)


def test_several_outputs(make, data):
    X, y = data
    both = np.column_stack([y == "spam", np.arange(40) % 2]).astype(int)
    model = MultiOutputClassifier(make()).fit(X, both)
    for output, proba in zip(both.T, model.predict_proba(X), strict=True):
        expected = make().fit(X, output).predict_proba(X)
        np.testing.assert_array_equal(proba, expected)


@pytest.mark.parametrize(
    "kind", ["OneVsOneClassifier", "ClassifierChain", "SelfTrainingClassifier"]
)
def test_those_that_turn_texts_into_numbers_first_say_so(make, three, kind):
    """They do not ask the classifier what it takes."""
    X, y = three
    model, y = {
        "OneVsOneClassifier": (OneVsOneClassifier(make()), y),
        "ClassifierChain": (ClassifierChain(make()), (y[:, None] == ["ham", "spam"]).astype(int)),
        "SelfTrainingClassifier": (SelfTrainingClassifier(make()), np.where(y == "ham", -1, 1)),
    }[kind]
    with pytest.raises(ValueError, match="could not convert string to float"):
        model.fit(column(X), y)


# -- sample weights and metadata routing -----------------------------------------------------


def test_weights_and_groups_are_routed_through_pipeline_and_search(make, data):
    X, y = data
    weight = 1.0 + np.arange(40) % 3
    with sklearn.config_context(enable_metadata_routing=True):
        clf = make().set_fit_request(sample_weight=True, groups=False)
        clf.set_score_request(sample_weight=True)
        pipeline = make_pipeline(FunctionTransformer(), clf)
        routed = pipeline.fit(X, y, sample_weight=weight).predict_proba(X)
        grid = GridSearchCV(pipeline, {"bertfocalclassifier__gamma": [2.0]}, cv=2)
        searched = grid.fit(X, y, sample_weight=weight).predict_proba(X)
    direct = make().fit(X, y, sample_weight=weight).predict_proba(X)
    assert np.array_equal(routed, direct) and np.array_equal(searched, direct)
    assert not np.array_equal(direct, make().fit(X, y).predict_proba(X))


def test_unrequested_weights_are_an_error(make, data):
    X, y = data
    with (
        sklearn.config_context(enable_metadata_routing=True),
        pytest.raises(sklearn.exceptions.UnsetMetadataPassedError, match="sample_weight"),
    ):
        make_pipeline(FunctionTransformer(), make()).fit(X, y, sample_weight=np.ones(40))


def test_groups_are_routed_to_the_outer_and_to_the_inner_split(make, data):
    X, y = data
    seen = []

    class Split(sklearn.model_selection.GroupShuffleSplit):
        def split(self, X, y=None, groups=None):
            seen.append(len(np.unique(groups)))
            return super().split(X, y, groups)

    inner = Split(1, test_size=0.3, random_state=0)
    with sklearn.config_context(enable_metadata_routing=True):
        clf = make(train_split=inner, classes=["ham", "spam"])
        scores = cross_val_score(
            clf.set_fit_request(groups=True).set_score_request(sample_weight=False),
            X,
            y,
            cv=sklearn.model_selection.GroupKFold(2),
            params={"groups": np.arange(40) % 10},
        )
    assert len(scores) == 2 and seen == [5, 5]


def test_weights_without_routing_go_by_the_steps_name(make, data):
    X, y = data
    weight = 1.0 + np.arange(40) % 3
    pipeline = make_pipeline(FunctionTransformer(), make())
    pipeline.fit(X, y, bertfocalclassifier__sample_weight=weight)
    direct = make().fit(X, y, sample_weight=weight)
    assert np.array_equal(pipeline.predict_proba(X), direct.predict_proba(X))
