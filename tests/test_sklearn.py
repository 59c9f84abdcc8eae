"""scikit-learn's own checks, searches, scorers, pipelines, inspection."""

import copy
import functools
import io
import pickle
import warnings

import cloudpickle
import joblib
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import imbalanced
from imblearn.metrics import geometric_mean_score
from imblearn.over_sampling import SMOTE, RandomOverSampler
from imblearn.pipeline import Pipeline as ImbPipeline
from imblearn.pipeline import make_pipeline as make_imb_pipeline
from imblearn.under_sampling import RandomUnderSampler
from scipy.stats import uniform
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import SkipTestWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.inspection import permutation_importance
from sklearn.metrics import (
    ConfusionMatrixDisplay,
    RocCurveDisplay,
    average_precision_score,
    check_scoring,
    f1_score,
    log_loss,
    make_scorer,
    roc_auc_score,
)
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    RepeatedStratifiedKFold,
    StratifiedKFold,
    StratifiedShuffleSplit,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    permutation_test_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import estimator_checks_generator
from sklearn.utils.validation import validate_data
from skorch.callbacks import GradientNormClipping
from tiny_encoders import WORDS

from skfocal import BertFocalClassifier, as_column
from skfocal._encoder import module
from skfocal._estimator import build, fitted_model, inputs


@pytest.fixture(scope="module")
def make(make_of_few_words):
    """Return a function that makes classifiers of few words and of one or two updates a fit.

    Here it counts which documents a fit sees, and that copies are the same: that takes no more.
    """
    return functools.partial(make_of_few_words, max_epochs=1)


@pytest.fixture(scope="module")
def fitted(make):
    """Two fitted classifiers: without frozen layers, and with one."""
    clf = make(gamma=1.5, alpha={"ham": 1, "spam": 3})
    return [clone(clf).set_params(freeze=n).fit(*imbalanced()) for n in (0, 1)]


# -- the checks ------------------------------------------------------------------------------


class NumericDouble(BertFocalClassifier):
    """Takes rows of numbers, which become words: what scikit-learn's checks can feed.

    It trains in float64 on whole batches, so that a weight of 2 is two rows to the last digits.
    """

    def __init__(
        self, model=None, *, gamma=2.0, alpha=None, max_epochs=25, lr=5e-3, random_state=0
    ):
        super().__init__(
            model,
            gamma=gamma,
            alpha=alpha,
            max_epochs=max_epochs,
            random_state=random_state,
            lr=lr,
            batch_size=1000,
            warmup=0.0,
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = False
        tags.input_tags.two_d_array = True
        return tags

    def transform(self, X):
        """Return the first digits of the features: sample weights travel in float32."""
        return super().transform(X).round(2)


def checks_of(estimator):
    """Return the checks that scikit-learn has for an estimator."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkipTestWarning)  # texts: most checks feed numbers
        return [check for _, check in estimator_checks_generator(estimator)]


def name_of(check):
    return getattr(check, "func", check).__name__


CHECKS = checks_of(NumericDouble())


def test_all_of_scikit_learns_checks_run():
    """Sixty-two in scikit-learn 1.9; an estimator of texts is given two."""
    assert len(CHECKS) >= 55
    assert {name_of(check) for check in CHECKS} >= {
        "check_classifiers_train",
        "check_dtype_object",
        "check_estimators_pickle",
        "check_fit2d_1sample",
        "check_sample_weight_equivalence_on_dense_data",
    }


def words_of(estimator, X, *, reset, pairs=None):
    """Return a text for each row of numbers: the word of each column before its number.

    A minus is the one token that the encoder does not know.
    """
    X = validate_data(estimator, X, reset=reset)
    return [" ".join(f"{WORDS[j % 14]} {round(v * 4)}" for j, v in enumerate(r)) for r in X]


@pytest.fixture
def numbers(monkeypatch):
    """Let documents be rows of numbers, and encoders be of float64."""

    def load_module(*args, **kwargs):
        return module.load_module(*args, **kwargs).double()

    monkeypatch.setattr(inputs, "read_documents", words_of)
    monkeypatch.setattr(fitted_model, "read_documents", words_of)
    monkeypatch.setattr(build, "load_module", load_module)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("check", CHECKS, ids=name_of)
def test_numeric_double_passes(check, make, numbers):
    # Few updates, as sample weights travel in float32, but where answers have to be right.
    learns = name_of(check) == "check_classifiers_train"
    settings = {"max_epochs": 25, "lr": 1e-2} if learns else {"max_epochs": 3}
    check(NumericDouble(make().model, **settings))


TEXT_CHECKS = checks_of(BertFocalClassifier())


@pytest.mark.parametrize("check", TEXT_CHECKS, ids=name_of)
def test_estimator_itself_passes(check):
    check(BertFocalClassifier())


def test_an_estimator_of_texts_is_given_few_checks():
    """Why the double is needed."""
    assert 1 <= len(TEXT_CHECKS) < 10


# -- clone, copies, parameters ---------------------------------------------------------------

COPIES = {
    "pickle": lambda clf: pickle.loads(pickle.dumps(clf)),
    "cloudpickle": lambda clf: cloudpickle.loads(cloudpickle.dumps(clf)),
    "deepcopy": copy.deepcopy,
}


def through_joblib(clf):
    file = io.BytesIO()
    joblib.dump(clf, file)
    file.seek(0)
    return joblib.load(file)


@pytest.mark.parametrize("duplicate", [*COPIES.values(), through_joblib], ids=[*COPIES, "joblib"])
@pytest.mark.parametrize("freeze", [0, 1])
def test_copies_predict_the_same_bits(fitted, data, duplicate, freeze):
    X, clf = data[0], fitted[freeze]
    unfitted = clone(clf)
    assert repr(duplicate(unfitted)) == repr(unfitted)
    twin = duplicate(clf)
    assert twin.get_params() == clf.get_params() and repr(twin) == repr(clf)
    assert np.array_equal(twin.predict_proba(X), clf.predict_proba(X))
    assert np.array_equal(duplicate(twin).predict(X), clf.predict(X))


def test_clone_of_a_fitted_estimator_is_unfitted(fitted):
    clf = fitted[1]
    twin = clone(clf)
    assert twin.get_params() == clf.get_params() and not hasattr(twin, "net_")
    assert set(vars(twin)) == set(twin.get_params())


def test_fit_leaves_every_parameter_as_it_was(make, data):
    given = {
        "alpha": {"ham": 1.0, "spam": 2.0},
        "classes": ["spam", "ham"],
        "train_split": StratifiedKFold(4),
        "callbacks": [("clip", GradientNormClipping(0.5))],
        "net_params": {"iterator_train__num_workers": 0},
    }
    clf = make(**given)
    before = {name: pickle.dumps(value) for name, value in clf.get_params().items()}
    clf.fit(*data)
    assert {name: pickle.dumps(value) for name, value in clf.get_params().items()} == before
    for name, value in given.items():
        assert getattr(clf, name) is value


def test_fitted_on_cuda_it_unpickles_where_there_is_none(fitted, data):
    if torch.cuda.is_available():
        pytest.skip("there is CUDA here")
    clf = copy.deepcopy(fitted[0])
    clf.device = "cuda"  # what a fit on CUDA would have left
    twin = pickle.loads(pickle.dumps(clf))
    assert twin.device == "cuda" and twin.net_.device == "cpu"
    assert np.array_equal(twin.predict_proba(data[0]), clf.predict_proba(data[0]))


# -- searches, folds, scorers ----------------------------------------------------------------

GRID = {"gamma": [0, 2], "alpha": [None, "balanced"]}
SCORERS = {
    "f1_macro": "f1_macro",
    "balanced_accuracy": "balanced_accuracy",
    "roc_auc_ovr": "roc_auc_ovr",
    "neg_log_loss": "neg_log_loss",
    "average_precision": "average_precision",
    "geometric mean": make_scorer(geometric_mean_score, average="macro"),
}


@pytest.fixture
def three():
    """Texts of three classes; the last has five."""
    X, y = imbalanced(24, 8)
    return X + [f"eggs bacon number {i}" for i in range(5)], np.append(y, 5 * ["eggs"])


@pytest.mark.parametrize("kind", ["GridSearchCV", "RandomizedSearchCV", "HalvingGridSearchCV"])
def test_searches_find_and_refit(make, data, kind):
    X, y = data
    kwargs = {"cv": 2, "scoring": "f1_macro", "error_score": "raise"}
    clf = make()
    search = {
        "GridSearchCV": lambda: GridSearchCV(clf, GRID, **kwargs),
        "RandomizedSearchCV": lambda: RandomizedSearchCV(
            clf, {"gamma": uniform(0, 5), "alpha": [None, "sqrt"]}, n_iter=2, random_state=0,
            **kwargs,
        ),
        "HalvingGridSearchCV": lambda: HalvingGridSearchCV(
            clf, GRID, factor=2, min_resources=16, random_state=0, **kwargs
        ),
    }[kind]().fit(X, y)  # fmt: skip
    best = clone(clf).set_params(**search.best_params_).fit(X, y)
    assert np.array_equal(search.predict_proba(X), best.predict_proba(X))
    assert search.classes_.tolist() == ["ham", "spam"]


def test_halving_by_epochs_scores_every_rung_as_fits_of_so_many_epochs(make, data):
    X, y = data
    grid = {"gamma": [0, 2], "lr": [1e-4, 3e-3]}
    search = HalvingGridSearchCV(
        make(), grid, resource="max_epochs", min_resources=1, max_resources=4, factor=4, cv=2,
        scoring="neg_log_loss", error_score="raise",
    ).fit(X, y)  # fmt: skip
    assert (search.n_resources_, search.n_candidates_) == ([1, 4], [4, 1])
    results = search.cv_results_
    for params, score in zip(results["params"], results["mean_test_score"], strict=True):
        clf = make(**params)
        assert cross_val_score(clf, X, y, cv=2, scoring="neg_log_loss").mean() == score
    short = results["mean_test_score"][:4]
    chosen = results["params"][short.argmax()]
    assert chosen["lr"] == 3e-3 and short.max() > np.sort(short)[-2]
    assert search.best_params_ == chosen | {"max_epochs": 4}
    assert len(search.best_estimator_.history_) == 4


@pytest.mark.parametrize(
    "cv",
    [
        StratifiedKFold(2),
        RepeatedStratifiedKFold(n_splits=2, n_repeats=2, random_state=0),
        GroupKFold(2),
    ],
)
def test_every_scorer_gives_what_a_fit_by_hand_does(make, data, cv):
    X, y = data[0], (data[1] == "spam").astype(int)  # "average_precision" looks for label 1
    groups = np.arange(40) % 4 if isinstance(cv, GroupKFold) else None
    result = cross_validate(
        make(), X, y, cv=cv, groups=groups, scoring=SCORERS, error_score="raise"
    )
    assert_scores_by_hand(result, make(), X, y, cv.split(X, y, groups))


def test_every_scorer_works_for_many_classes(make, three):
    clf, cv = make(), StratifiedKFold(2)
    result = cross_validate(clf, *three, cv=cv, scoring=SCORERS, error_score="raise")
    assert_scores_by_hand(result, clf, *three, cv.split(*three))


def assert_scores_by_hand(result, clf, X, y, folds):
    for i, (train, test) in enumerate(folds):
        fitted = clone(clf).fit([X[k] for k in train], y[train])
        for name, scoring in SCORERS.items():
            score = check_scoring(clf, scoring)(fitted, [X[k] for k in test], y[test])
            assert result[f"test_{name}"][i] == score, name


def test_scores_are_those_of_a_fit_by_hand(make, three):
    X, y = np.array(three[0], dtype=object), three[1]
    cv = StratifiedKFold(2)
    scores = cross_val_score(make(), X, y, cv=cv, scoring="roc_auc_ovr")
    for score, (train, test) in zip(scores, cv.split(X, y), strict=True):
        proba = make().fit(X[train], y[train]).predict_proba(X[test])
        assert score == roc_auc_score(y[test], proba, multi_class="ovr")


def test_a_class_absent_from_a_training_fold_keeps_its_column(make, three):
    """One document of a class: some training fold must lack it."""
    X, y = three[0] + ["sole document"], np.append(three[1], "sole")
    classes = np.unique(y)

    def score(estimator, texts, labels):
        proba = estimator.predict_proba(texts)
        assert estimator.classes_.tolist() == classes.tolist()
        assert proba.shape == (len(texts), 4)
        present = np.isin(classes, labels)
        one_hot = labels[:, None] == classes
        return {
            "neg_log_loss": -log_loss(labels, proba, labels=classes),
            "f1_macro": f1_score(labels, estimator.predict(texts), average="macro"),
            "roc_auc": roc_auc_score(one_hot[:, present], proba[:, present]),
            "average_precision": average_precision_score(one_hot[:, present], proba[:, present]),
        }

    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        folds = StratifiedKFold(2)
        clf = make(classes=classes, alpha="balanced")
        result = cross_validate(clf, X, y, cv=folds, scoring=score, error_score="raise")
        without = make().fit(X[:-1], y[:-1])
        for i, (train, test) in enumerate(folds.split(X, y)):
            fitted = clone(clf).fit([X[k] for k in train], y[train])
            for name, value in score(fitted, [X[k] for k in test], y[test]).items():
                assert result[f"test_{name}"][i] == value and np.isfinite(value)
    assert without.predict_proba(X).shape[1] == 3


def test_nested_search(make, data):
    inner = GridSearchCV(make(), {"gamma": [0, 2]}, cv=2, error_score="raise")
    X, y = data
    scores = cross_val_score(inner, X, y, cv=2, scoring="neg_log_loss", error_score="raise")
    for score, (train, test) in zip(scores, StratifiedKFold(2).split(X, y), strict=True):
        inner.fit([X[i] for i in train], y[train])
        best = make(**inner.best_params_).fit([X[i] for i in train], y[train])
        expected = -log_loss(y[test], best.predict_proba([X[i] for i in test]))
        assert score == pytest.approx(expected, rel=1e-12)


def test_out_of_fold_predictions_and_learning_curve(make, data):
    X, y = data
    proba = cross_val_predict(make(), X, y, cv=2, method="predict_proba")
    for train, test in StratifiedKFold(2).split(X, y):
        fitted = make().fit([X[i] for i in train], y[train])
        assert np.array_equal(proba[test], fitted.predict_proba([X[i] for i in test]))
    sizes, train, test = learning_curve(
        make(),
        X,
        y,
        cv=2,
        train_sizes=[16, 20],
        scoring="neg_log_loss",
        error_score="raise",
    )
    assert sizes.tolist() == [16, 20]
    folds = StratifiedKFold(2).split(X, y)
    # The scorer takes the second column alone, and the first as what is left.
    whole = [-log_loss(y[rows], proba[rows, 1]) for _, rows in folds]
    np.testing.assert_array_equal(test[1], whole)
    assert (test[0] != whole).all() and (train[0] != train[1]).all()


# -- pipelines -------------------------------------------------------------------------------


def lower(texts):
    return [text.lower() for text in texts]


def test_a_text_cleaner_before_us(make, data):
    X, y = data
    shouted = [text.upper() for text in X]
    pipeline = make_pipeline(FunctionTransformer(lower), make()).fit(shouted, y)
    assert np.array_equal(pipeline.predict_proba(shouted), make().fit(X, y).predict_proba(X))
    grid = GridSearchCV(pipeline, {"bertfocalclassifier__gamma": [0, 2]}, cv=2).fit(shouted, y)
    best = make(gamma=grid.best_params_["bertfocalclassifier__gamma"]).fit(X, y)
    assert np.array_equal(grid.predict_proba(shouted), best.predict_proba(X))


def test_a_column_is_picked_from_a_frame(make, data):
    X, y = data
    frame = pd.DataFrame({"number": range(40), "text": X})
    expected = make().fit(X, y).predict_proba(X)
    columns = ColumnTransformer([("text", "passthrough", ["text"])])
    function = FunctionTransformer(lambda table: table["text"])
    for pick in (columns, function):
        pipeline = make_pipeline(pick, make()).fit(frame, y)
        assert np.array_equal(pipeline.predict_proba(frame), expected)
    framed = make_pipeline(columns, make()).set_output(transform="pandas").fit(frame, y)
    assert framed[-1].feature_names_in_.tolist() == ["text__text"]


@pytest.mark.parametrize("kind", ["frame", "array"])
@pytest.mark.parametrize(
    ("sampler", "counts"), [(RandomOverSampler, (30, 30)), (RandomUnderSampler, (10, 10))]
)
def test_imbalanced_learn_resamples_before_us(make, data, kind, sampler, counts):
    X, y = data
    given = pd.DataFrame({"text": X}) if kind == "frame" else np.array(X, dtype=object)[:, None]
    pipeline = make_imb_pipeline(sampler(random_state=0), make()).fit(given, y)
    resampled = sampler(random_state=0).fit_resample(given, y)
    direct = make().fit(*resampled)
    assert np.unique(resampled[1], return_counts=True)[1].tolist() == list(counts)
    assert np.array_equal(pipeline.predict_proba(given), direct.predict_proba(given))
    assert len(pipeline.predict(given)) == 40  # prediction resamples nothing


def test_the_grid_tunes_the_resampler_and_gamma_together(make, data):
    X, y = data
    steps = [
        ("column", FunctionTransformer(as_column)),
        ("sampler", RandomOverSampler(random_state=0)),
        ("clf", make()),
    ]
    grid = {
        "sampler": [RandomOverSampler(random_state=0), RandomUnderSampler(random_state=0)],
        "sampler__sampling_strategy": [0.5, 1.0],
        "clf__gamma": [0, 2],
    }
    once = StratifiedShuffleSplit(1, test_size=0.5, random_state=0)
    search = GridSearchCV(
        ImbPipeline(steps), grid, cv=once, scoring="f1_macro", error_score="raise"
    ).fit(X, y)  # a plain list
    assert len(search.cv_results_["params"]) == 8
    best = search.best_params_
    drawn = (
        clone(best["sampler"])
        .set_params(sampling_strategy=best["sampler__sampling_strategy"])
        .fit_resample(as_column(X), y)
    )
    by_hand = make(gamma=best["clf__gamma"]).fit(*drawn)
    assert np.array_equal(search.predict_proba(X), by_hand.predict_proba(X))


def test_imbalanced_learns_pipeline_caches_and_keeps_its_steps_apart(make, data, tmp_path):
    X, y = data
    pipeline = make_imb_pipeline(
        FunctionTransformer(as_column),
        RandomUnderSampler(random_state=0),
        make(),
        memory=joblib.Memory(tmp_path, verbose=0),
    )
    first = pipeline.fit(X, y).predict_proba(X)
    assert np.array_equal(clone(pipeline).fit(X, y).predict_proba(X), first)
    pipeline.set_params(randomundersampler="passthrough").fit(X, y)
    assert np.array_equal(pipeline.predict_proba(X), make().fit(X, y).predict_proba(X))


def test_samplers_that_would_invent_rows_say_so(make, data):
    pipeline = make_imb_pipeline(FunctionTransformer(as_column), SMOTE(), make())
    with pytest.raises(ValueError, match="could not convert string to float"):
        pipeline.fit(*data)


# -- inspection ------------------------------------------------------------------------------


def test_inspection_and_displays(make, data):
    X, y = data
    frame = pd.DataFrame({"text": X})
    clf = make(max_epochs=12, batch_size=8).fit(frame, y)
    importance = permutation_importance(clf, frame, y, n_repeats=2, random_state=0)
    assert importance.importances_mean[0] > 0.05
    score, permuted, p = permutation_test_score(
        make(), X, y, cv=2, n_permutations=2, random_state=0
    )
    assert score == cross_val_score(make(), X, y, cv=2).mean()
    assert p == (1 + (permuted >= score).sum()) / 3
    matplotlib.use("Agg")
    assert ConfusionMatrixDisplay.from_estimator(clf, frame, y).confusion_matrix.sum() == 40
    assert 0.9 < RocCurveDisplay.from_estimator(clf, frame, y).roc_auc <= 1
    plt.close("all")
