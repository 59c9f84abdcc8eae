"""compare_losses, its intervals, the calibration error and the heat map."""

import warnings

import matplotlib
import numpy as np
import pandas as pd
import pytest
from conftest import imbalanced
from scipy import stats
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import RandomForestClassifier, StackingClassifier
from sklearn.exceptions import (
    DataConversionWarning,
    NotFittedError,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, log_loss, recall_score
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    StratifiedKFold,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MultiLabelBinarizer
from sklearn.svm import LinearSVC
from skorch.callbacks import EarlyStopping

from skfocal import (
    BertFocalClassifier,
    GridSearchDisplay,
    compare_losses,
    expected_calibration_error,
)

matplotlib.use("Agg")
C = "logisticregression__C"


def linear():
    return make_pipeline(TfidfVectorizer(), LogisticRegression())


@pytest.fixture
def noisy():
    """Texts of two classes of which some have the wrong label."""
    X, y = imbalanced(60, 30)
    y = y.copy()
    y[::7] = np.where(y[::7] == "ham", "spam", "ham")
    return X, y


# -- calibration error -----------------------------------------------------------------------


def test_calibration_error_is_the_gap_in_each_bin():
    y = np.array(["a", "a", "b", "b"])
    proba = np.array([[0.95, 0.05], [0.97, 0.03], [0.55, 0.45], [0.45, 0.55]])
    # bin of 0.95 and 0.97: all right; bin of 0.55 and 0.55: one of two
    expected = (abs(2 - 1.92) + abs(1 - 1.1)) / 4
    assert expected_calibration_error(y, proba) == pytest.approx(expected)
    swapped = expected_calibration_error(y, proba[:, ::-1], classes=["b", "a"])
    assert swapped == pytest.approx(expected)
    assert expected_calibration_error(["a", "b"], np.eye(2)) == 0
    assert expected_calibration_error(["b", "a"], np.eye(2)) == 1


def test_calibration_error_needs_a_name_for_each_column():
    with pytest.raises(ValueError, match=r"classes must name the 3 columns of proba. Got 2"):
        expected_calibration_error(["a", "b"], np.eye(3)[:2])
    with pytest.raises(ValueError, match="inconsistent"):
        expected_calibration_error(["a"], np.eye(2))
    with pytest.raises(ValueError, match=r"y_true must hold labels of classes only. Got \['c'\]"):
        expected_calibration_error(["a", "c"], np.eye(2), classes=["a", "b"])
    with pytest.raises(ValueError, match=r"proba must be in \[0, 1\]. Got values from -1 to 2"):
        expected_calibration_error(["a", "b"], [[2, -1], [0, 1]])
    with pytest.raises(ValueError, match="n_bins must be at least 1. Got 0"):
        expected_calibration_error(["a", "b"], np.eye(2), n_bins=0)


# -- comparison ------------------------------------------------------------------------------


def test_scores_are_those_of_each_fold(noisy):
    X, y = np.array(noisy[0], dtype=object), noisy[1]
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    settings = {"weak": {C: 0.01}, "strong": {C: 100}}
    result = compare_losses(linear(), X, y, settings, cv=folds, baselines=False, verbose=0)
    for k, (train, test) in enumerate(folds.split(X, y)):
        model = linear().set_params(**{C: 100}).fit(X[train], y[train])
        predicted, proba = model.predict(X[test]), model.predict_proba(X[test])
        values = {name: scores[k] for name, scores in result.values["strong"].items()}
        assert values["f1_macro"] == pytest.approx(f1_score(y[test], predicted, average="macro"))
        assert values["log_loss"] == pytest.approx(log_loss(y[test], proba))
        assert values["ece"] == pytest.approx(expected_calibration_error(y[test], proba))
        recalls = recall_score(y[test], predicted, average=None)
        assert [values["recall:0"], values["recall:1"]] == pytest.approx(recalls.tolist())


def test_interval_widens_for_folds_that_share_documents(noisy):
    result = compare_losses(linear(), *noisy, {"a": {}}, cv=4, baselines=False, verbose=0)
    scores = result.values["a"]["accuracy"]
    mean, lower, upper = result.interval("a", "accuracy")
    assert mean == pytest.approx(scores.mean()) and mean - lower == pytest.approx(upper - mean)
    naive = stats.t.interval(0.95, 3, scores.mean(), scores.std(ddof=1) / 2)
    # four folds: test / train = 1 / 3, so the variance is 1/4 + 1/3 instead of 1/4
    ratio = np.mean([23 / 67, 23 / 67, 22 / 68, 22 / 68])
    widened = (mean - naive[0]) * np.sqrt((1 / 4 + ratio) / (1 / 4))
    assert mean - lower == pytest.approx(widened)


def test_difference_is_taken_fold_by_fold(noisy):
    settings = {"a": {C: 0.1}, "b": {C: 10}}
    result = compare_losses(linear(), *noisy, settings, cv=3, baselines=False, verbose=0)
    difference = result.values["a"]["log_loss"] - result.values["b"]["log_loss"]
    assert result.interval("a", "log_loss", "b")[0] == pytest.approx(difference.mean())
    assert result.interval("a", "log_loss", "a") == (0, 0, 0)


def test_frames_groups_and_thresholds(noisy):
    X, y = noisy
    frame = pd.DataFrame({"text": X})
    plain = compare_losses(linear(), X, y, {"a": {}}, cv=2, verbose=0)
    column = make_pipeline(FunctionTransformer(lambda X: X["text"]), linear())
    framed = compare_losses(column, frame, y, {"a": {}}, cv=2, verbose=0)
    for name in ("a", "TF-IDF", "TF-IDF, balanced"):
        assert framed.interval(name, "log_loss") == plain.interval(name, "log_loss")

    groups = np.arange(len(y)) % 3
    grouped = compare_losses(
        linear(), X, y, {"a": {}}, cv=GroupKFold(3), groups=groups, baselines=False, verbose=0
    )
    folds = list(GroupKFold(3).split(X, y, groups))
    by_hand = compare_losses(linear(), X, y, {"a": {}}, cv=folds, baselines=False, verbose=0)
    for metric, scores in by_hand.values["a"].items():
        np.testing.assert_array_equal(grouped.values["a"][metric], scores)

    strict = FixedThresholdClassifier(linear(), threshold=2.0, response_method="predict_proba")
    never = compare_losses(strict, X, y, {"a": {}}, cv=2, baselines=False, verbose=0)
    assert (never.values["a"]["recall:1"] == 0).all()  # no probability reaches 2


def test_one_fold_has_a_mean_and_no_interval(noisy):
    fold = [(np.arange(60), np.arange(60, 90))]
    result = compare_losses(linear(), *noisy, {"a": {}}, cv=fold, baselines=False, verbose=0)
    mean, lower, upper = result.interval("a", "f1_macro")
    X, y = noisy
    predicted = linear().fit(X[:60], y[:60]).predict(X[60:])
    assert mean == pytest.approx(f1_score(y[60:], predicted, average="macro"))
    assert np.isnan(lower) and np.isnan(upper)
    assert "nan" not in str(result)


def test_labels_of_one_column_and_missing_ones(noisy):
    X, y = noisy
    expected = compare_losses(linear(), X, y, {"a": {}}, cv=2, verbose=0)
    with pytest.warns(DataConversionWarning):
        frame = pd.DataFrame({"label": y})
        found = compare_losses(linear(), X, frame, {"a": {}}, cv=2, verbose=0)
    for metric, scores in expected.values["a"].items():
        np.testing.assert_array_equal(found.values["a"][metric], scores)
    some = [y[0], None, *y[2:]]
    with pytest.raises(ValueError, match="y must have a label for each document.*row 1"):
        compare_losses(linear(), X, some, {"a": {}}, cv=2, verbose=0)


def test_baselines_have_none_of_what_only_a_training_with_another_loss_can_have(make, data):
    params = {"early_stopping": 2, "eval_steps": 2, "max_epochs": 1}
    watching = [EarlyStopping(monitor="valid_score", lower_is_better=False)]
    clf = make(loss="poly1", loss_params={"epsilon": 2.0}, callbacks=watching, **params)
    result = compare_losses(clf, *data, {"a": {}}, cv=2, verbose=0)
    assert {"a", "cross-entropy", "frozen encoder, balanced"} <= set(result.values)
    assert all(np.isfinite(values["f1_macro"]).all() for values in result.values.values())


def test_encoder_beside_its_baselines(make, data):
    clf = make(alpha="sqrt", max_epochs=1)
    seeds = {"random_states": (0, 1), "verbose": 0}
    result = compare_losses(clf, *data, [{"gamma": 2, "alpha": "balanced"}], cv=2, **seeds)
    names = {"gamma=2, alpha='balanced'", "cross-entropy", "TF-IDF", "TF-IDF, balanced"}
    assert set(result.values) == names | {"frozen encoder, balanced"}
    frozen = make(pooling="mean", max_epochs=0, refit_head="balanced", loss="cross_entropy")
    by_hand = compare_losses(frozen, *data, {"x": {}}, cv=2, baselines=False, **seeds)
    for metric, scores in by_hand.values["x"].items():
        np.testing.assert_array_equal(scores, result.values["frozen encoder, balanced"][metric])
    plain = make(loss="cross_entropy", max_epochs=1)
    alone = compare_losses(plain, *data, {"x": {}}, cv=2, baselines=False, **seeds)
    for metric, scores in alone.values["x"].items():
        np.testing.assert_array_equal(scores, result.values["cross-entropy"][metric])
    other = compare_losses(plain, *data, {"x": {}}, cv=2, baselines=False, verbose=0)
    assert (other.values["x"]["log_loss"] != alone.values["x"]["log_loss"]).any()
    table = str(result)
    assert len(table.splitlines()) == 7 and "f1_macro - cross-entropy" in table
    assert "<td>TF-IDF</td>" in result._repr_html_()
    frame = result.to_frame()
    assert len(frame) == 5 * (6 + 3 * 2) and set(frame["class"].dropna()) == {"ham", "spam"}
    row = frame[(frame.setting == "TF-IDF") & (frame.metric == "f1_macro")].iloc[0]
    assert row["difference"] == pytest.approx(
        result.interval("TF-IDF", "f1_macro", "cross-entropy")[0]
    )


def test_a_class_absent_from_a_training_fold_has_probability_zero(noisy):
    X, y = [*noisy[0], "sole words"], np.append(noisy[1], "sole")
    folds = [(np.arange(60), np.arange(60, 91)), (np.arange(30, 91), np.arange(30))]
    result = compare_losses(linear(), X, y, {"a": {}}, cv=folds, baselines=False, verbose=0)
    proba = np.insert(linear().fit(X[:60], y[:60]).predict_proba(X[60:]), 1, 0, axis=1)
    expected = log_loss(y[60:], proba, labels=["ham", "sole", "spam"])
    assert result.values["a"]["log_loss"][0] == pytest.approx(expected)
    assert all(np.isfinite(scores).all() for scores in result.values["a"].values())
    assert result.values["a"]["recall:1"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "settings must hold at least one setting"),
        ([{C: 1}, {C: 1}], r"different names. Got \['logisticregression__C=1'\]"),
        ({"a": {"gama": 1}}, r"'a' has unknown parameters \['gama'\]"),
    ],
)
def test_bad_settings_are_named(noisy, settings, message):
    with pytest.raises(ValueError, match=message):
        compare_losses(linear(), *noisy, settings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"random_states": ()}, r"random_states must be a sequence of at least one int. Got \(\)"),
        ({"random_states": 3}, "random_states must be a sequence of at least one int. Got 3"),
        ({"confidence": 2.0}, r"confidence must be in \(0, 1\). Got 2.0"),
    ],
)
def test_bad_arguments_are_named(noisy, arguments, message):
    with pytest.raises(ValueError, match=message):
        compare_losses(linear(), *noisy, {"a": {}}, **arguments)


def test_unknown_settings_and_metrics_of_an_interval_are_named(noisy):
    result = compare_losses(linear(), *noisy, {"a": {}}, cv=2, baselines=False, verbose=0)
    with pytest.raises(ValueError, match=r"settings are \['a'\]. Got 'b'"):
        result.interval("b", "accuracy")
    with pytest.raises(ValueError, match=r"settings are \['a'\]. Got 'b'"):
        result.interval("a", "accuracy", baseline="b")
    with pytest.raises(ValueError, match="metric must be one of .*'ece'.* Got 'auc'"):
        result.interval("a", "auc")


def test_estimator_must_be_a_classifier(noisy):
    with pytest.raises(ValueError, match="estimator must be a classifier. Got TfidfVectorizer"):
        compare_losses(TfidfVectorizer(), *noisy, {"a": {}})


# -- heat map --------------------------------------------------------------------------------


def svc_search(noisy, grid, kind=GridSearchCV, **kwargs):
    pipeline = make_pipeline(TfidfVectorizer(), LinearSVC(random_state=0))
    return kind(pipeline, grid, cv=2, **kwargs).fit(*noisy)


class Counting(LogisticRegression):
    n_fits = 0

    def fit(self, X, y):
        type(self).n_fits += 1
        return super().fit(X, y)


def counting():
    Counting.n_fits = 0
    return make_pipeline(TfidfVectorizer(), Counting())


def test_a_baseline_without_probabilities_is_refused_before_the_first_fit(noisy):
    svm = {"svm": make_pipeline(TfidfVectorizer(), LinearSVC())}
    with pytest.raises(TypeError, match="'svm' must have predict_proba.* Got Pipeline"):
        compare_losses(counting(), *noisy, {"a": {"counting__C": 1}}, baselines=svm, verbose=0)
    assert Counting.n_fits == 0


def test_a_wrong_value_is_refused_before_the_first_fit(noisy, tiny):
    baselines = {"linear": counting()}
    clf = BertFocalClassifier(tiny, max_epochs=1)
    with pytest.raises(ValueError, match="'gamma' parameter .* Got -1"):
        compare_losses(
            clf, *noisy, {"a": {}, "b": {"gamma": -1}}, baselines=baselines, verbose=0, cv=2
        )
    assert Counting.n_fits == 0


def test_what_takes_seconds_is_fitted_first_and_listed_last(noisy, make):
    fitted = []

    class Noting(LogisticRegression):
        def fit(self, X, y):
            fitted.append("linear")
            return super().fit(X, y)

    def note(y):
        fitted.append("encoder")
        return range(len(y))

    result = compare_losses(
        make(max_epochs=1),
        *noisy,
        {"encoder": {"sampler": note}},
        baselines={"linear": make_pipeline(TfidfVectorizer(), Noting())},
        cv=2,
        verbose=0,
    )
    assert fitted[:2] == ["linear"] * 2 and "encoder" in fitted
    assert [*result.values] == ["encoder", "linear"]


@pytest.mark.parametrize("as_label", [lambda y: y == "spam", lambda y: 3 + (y == "spam")])
def test_numbers_and_truth_values_in_an_array_of_objects_are_one_label_each(noisy, as_label):
    X, y = noisy
    settings = {"a": {C: 1.0}}
    plain, objects = (
        compare_losses(linear(), X, form, settings, baselines=False, cv=2, verbose=0)
        for form in (as_label(y), pd.Series(as_label(y), dtype=object))
    )
    assert objects.classes.tolist() == plain.classes.tolist()
    assert {k: v.tolist() for k, v in objects.values["a"].items()} == {
        k: v.tolist() for k, v in plain.values["a"].items()
    }


@pytest.mark.parametrize("as_y", [list, lambda rows: np.array(rows, dtype=object)])
def test_labels_of_two_kinds_are_refused(as_y):
    X, rows = ["a text", "other words"] * 10, [1, "1", "a", "a"] * 5
    for y, message in ((rows, "of one kind. Got int and str"), ([*rows[:-1], None], "in row 19")):
        with pytest.raises(ValueError, match=message):
            compare_losses(linear(), X, as_y(y), {"a": {}}, cv=2, baselines=False, verbose=0)


def test_a_stack_has_its_probabilities_once_it_is_fitted(noisy):
    stack = make_pipeline(TfidfVectorizer(), StackingClassifier([("l", LogisticRegression())]))
    result = compare_losses(stack, *noisy, {"a": {}}, cv=2, baselines=False, verbose=0)
    assert np.isfinite(result.values["a"]["log_loss"]).all()


def test_heat_map_holds_the_scores_of_the_search(noisy):
    grid = {"linearsvc__C": [10, 0.1, 1], "linearsvc__class_weight": ["balanced", None]}
    search = svc_search(noisy, grid, scoring="f1_macro")
    display = GridSearchDisplay.from_estimator(search, x="C", y="linearsvc__class_weight")
    assert display.x_values == [0.1, 1, 10] and display.y_values == [None, "balanced"]
    for params, score in zip(
        search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True
    ):
        row = display.y_values.index(params["linearsvc__class_weight"])
        assert display.mean[row, display.x_values.index(params["linearsvc__C"])] == score
    assert display.text_[0, 0].get_text().startswith(f"{display.mean[0, 0]:.3f}\n±")
    assert display.ax_.get_xlabel() == "C" and display.metric == "f1_macro"
    frame = display.ax_.patches[0]
    row, column = np.unravel_index(display.mean.argmax(), display.mean.shape)
    assert (frame.get_x() + 0.48, frame.get_y() + 0.46) == pytest.approx((column, row))
    matplotlib.pyplot.close("all")


def test_whole_numbers_are_in_their_order(noisy):
    grid = {"linearsvc__max_iter": [1000, 200, 30], "linearsvc__C": [1, 10]}
    search = svc_search(noisy, grid, scoring="f1_macro")
    display = GridSearchDisplay.from_estimator(search, x="max_iter", y="C")
    assert display.x_values == [30, 200, 1000] and display.y_values == [1, 10]
    matplotlib.pyplot.close("all")


def test_cells_show_the_best_over_other_parameters_and_gaps_stay_blank(noisy):
    grid = {
        "linearsvc__C": [0.1, 1],
        "linearsvc__tol": [1e-3, 10.0],
        "linearsvc__class_weight": [None, "balanced"],
    }
    search = svc_search(noisy, grid)
    display = GridSearchDisplay.from_estimator(search, x="C", y="tol")
    assert display.mean.max() == search.best_score_
    some = svc_search(noisy, grid, RandomizedSearchCV, n_iter=2, random_state=0)
    gaps = GridSearchDisplay.from_estimator(some, x="C", y="tol")
    assert np.isnan(gaps.mean).any() == any(text is None for text in gaps.text_.ravel())
    axes = matplotlib.pyplot.figure().add_subplot()
    assert display.plot(axes, text=False).ax_ is axes and display.text_ is None
    matplotlib.pyplot.close("all")


def test_a_candidate_that_failed_leaves_the_score_of_its_cell(noisy):
    grid = {"linearsvc__C": [0.1, 1], "linearsvc__tol": [1e-3, 0.1], "linearsvc__max_iter": [9, -1]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the fits that fail
        search = svc_search(noisy, grid)
    assert np.isnan(search.cv_results_["mean_test_score"]).sum() == 4
    display = GridSearchDisplay.from_estimator(search, x="C", y="tol")
    assert not np.isnan(display.mean).any() and display.mean.max() == search.best_score_
    matplotlib.pyplot.close("all")


def test_the_only_score_needs_no_name(noisy):
    grid = {"linearsvc__C": [0.1, 1], "linearsvc__tol": [1e-3]}
    search = svc_search(noisy, grid, scoring=["f1_macro"], refit=False)
    display = GridSearchDisplay.from_estimator(search, x="C", y="tol")
    assert display.metric == "f1_macro"
    assert display.mean.max() == search.cv_results_["mean_test_f1_macro"].max()
    matplotlib.pyplot.close("all")


def test_a_halving_search_shows_the_last_iteration_and_frames_its_choice():
    class Scored(ClassifierMixin, BaseEstimator):
        def __init__(self, gamma=0, alpha=0, n=1):
            self.gamma, self.alpha, self.n = gamma, alpha, n

        def fit(self, X, y):
            self.classes_ = np.unique(y)
            return self

        def score(self, X, y):  # gamma=2 leads at first, and falls behind
            return (
                {0: 0.5, 1: 0.6, 2: 0.9}[self.gamma]
                + self.alpha / 100
                - (0.5 * (self.gamma == 2 and self.n > 1))
            )

    X, y = np.zeros((20, 1)), np.arange(20) % 2
    grid = {"gamma": [0, 1, 2], "alpha": [0, 1]}
    halving = HalvingGridSearchCV(
        Scored(), grid, resource="n", min_resources=1, max_resources=2, factor=2, cv=2, refit=False
    ).fit(X, y)
    display = GridSearchDisplay.from_estimator(halving)
    chosen = halving.cv_results_["params"][halving.best_index_]
    place = display.y_values.index(chosen["alpha"]), display.x_values.index(chosen["gamma"])
    frame = display.ax_.patches[0]
    assert (frame.get_y() + 0.46, frame.get_x() + 0.48) == pytest.approx(place)
    assert chosen["gamma"] == 1 and display.mean[place] == halving.best_score_
    np.testing.assert_allclose(display.mean, [[0.5, 0.6, 0.4], [0.51, 0.61, 0.41]])
    matplotlib.pyplot.close("all")


def test_a_search_without_a_score_is_drawn_without_a_best(noisy):
    search = GridSearchCV(linear(), {C: [1.0], "tfidfvectorizer__use_idf": [True]})
    with pytest.raises(NotFittedError):
        GridSearchDisplay.from_estimator(search, x=C, y="tfidfvectorizer__use_idf")
    search.set_params(refit=False, cv=2).fit(*noisy)
    search.cv_results_["mean_test_score"][:] = np.nan
    display = GridSearchDisplay.from_estimator(search, x=C, y="tfidfvectorizer__use_idf")
    assert np.isnan(display.mean).all() and not display.ax_.patches


def test_unknown_names_are_named(noisy):
    search = svc_search(noisy, {"linearsvc__C": [1], "linearsvc__tol": [1e-4]})
    with pytest.raises(ValueError, match=r"must each name one of .*linearsvc__C.* Got 'gamma'"):
        GridSearchDisplay.from_estimator(search)
    with pytest.raises(ValueError, match=r"metric must be one of \['score'\]. Got 'f1'"):
        GridSearchDisplay.from_estimator(search, x="C", y="tol", metric="f1")


# -- several labels --------------------------------------------------------------------------


@pytest.fixture
def labelled():
    """Texts with one label, two or none, and the collections of their labels."""
    rng = np.random.RandomState(0)
    words = {"sport": "goal match team", "money": "bank price stock", "war": "army peace front"}
    rows = [rng.permutation(list(words))[: rng.choice([0, 1, 2])].tolist() for _ in range(90)]
    X = [
        " ".join(["the", *(w for k in row for w in rng.choice(words[k].split(), 2))])
        for row in rows
    ]
    rows[:6] = [["war"]] * 6  # some are wrong, so that scores differ
    return X, rows


def test_scores_of_several_labels_are_those_of_each_fold(labelled):
    X, rows = labelled
    binarizer = MultiLabelBinarizer()
    y = binarizer.fit_transform(rows)
    clf = make_pipeline(TfidfVectorizer(), OneVsRestClassifier(LogisticRegression()))
    result = compare_losses(clf, X, rows, {"a": {}}, cv=3, verbose=0)
    assert result.classes.tolist() == ["money", "sport", "war"]
    assert result.counts.tolist() == y.sum(axis=0).tolist()
    rarest = np.where(y.any(1), (y / y.sum(0)).argmax(1) + 1, 0)
    values = result.values["a"]
    for k, (train, test) in enumerate(StratifiedKFold(3).split(X, rarest)):
        clf.fit([X[i] for i in train], y[train])
        documents = [X[i] for i in test]
        p, proba = clf.predict(documents), clf.predict_proba(documents)
        assert values["f1_macro"][k] == pytest.approx(f1_score(y[test], p, average="macro"))
        assert values["f1_micro"][k] == pytest.approx(f1_score(y[test], p, average="micro"))
        assert values["accuracy"][k] == pytest.approx((y[test] == p).all(axis=1).mean())
        losses = [log_loss(y[test, i], proba[:, i]) for i in range(3)]
        assert values["log_loss"][k] == pytest.approx(np.mean(losses))
        assert values["ece"][k] == expected_calibration_error(y[test], proba)
        assert values["recall:2"][k] == pytest.approx(recall_score(y[test, 2], p[:, 2]))
    assert {"TF-IDF", "TF-IDF, balanced"} < set(result.values)
    assert "f1_micro" in str(result) and "balanced_accuracy" not in str(result)


@pytest.mark.filterwarnings("ignore:Label not 1 is present in all training examples")
def test_an_encoder_of_several_labels_beside_its_baselines(make, labelled):
    X, rows = labelled
    clf = make(max_epochs=1, classes=["money", "none of them", "sport", "war"])
    with pytest.warns(UserWarning, match="no document of 1 declared classes"):
        result = compare_losses(clf, X, rows, {"focal": {}}, cv=2, verbose=0)
    names = {"focal", "cross-entropy", "frozen encoder, balanced", "TF-IDF", "TF-IDF, balanced"}
    assert set(result.values) == names and result.counts.tolist()[1] == 0
    for scores in result.values.values():
        assert all(np.isfinite(values).all() for values in scores.values())
    y = MultiLabelBinarizer(classes=clf.classes).fit_transform(rows)
    with pytest.warns(UserWarning, match="no document of 1 declared classes"):
        again = compare_losses(clf, X, y, {"focal": {}}, cv=2, baselines=False, verbose=0)
    for metric, values in again.values["focal"].items():
        np.testing.assert_array_equal(values, result.values["focal"][metric])


def test_a_class_that_is_only_declared_has_a_column(make, data):
    clf = make(max_epochs=1, classes=["eggs", "ham", "spam"])
    with pytest.warns(UserWarning, match="no document of 1 declared classes"):
        result = compare_losses(clf, *data, {"focal": {}}, cv=2, verbose=0)
    assert result.classes.tolist() == ["eggs", "ham", "spam"]
    assert result.counts.tolist() == [0, 30, 10]
    assert np.isfinite(result.values["focal"]["log_loss"]).all()


@pytest.mark.parametrize("form", ["names", "frame"])
@pytest.mark.parametrize("declared", [None, ["war", "sport", "money"]])
def test_weights_by_name_go_to_their_labels(make, labelled, form, declared):
    X, y = labelled
    alpha = {"war": 5.0, "sport": 1.0, "money": 2.0}
    names = declared or ["money", "sport", "war"]
    if form == "frame":
        y = pd.DataFrame(MultiLabelBinarizer(classes=names).fit_transform(y), columns=names)
    clf = make(max_epochs=1, alpha=alpha, classes=declared)
    result = compare_losses(clf, X, y, {"a": {}}, cv=2, baselines=False, verbose=0)
    codes = MultiLabelBinarizer(classes=result.classes).fit_transform(labelled[1])
    weights = [alpha[name] for name in result.classes]
    by_hand = make(max_epochs=1, alpha=weights)
    plain = compare_losses(by_hand, X, codes, {"a": {}}, cv=2, baselines=False, verbose=0)
    for metric, values in plain.values["a"].items():
        np.testing.assert_array_equal(result.values["a"][metric], values)
    assert clf.classes is declared


def test_a_splitter_sees_the_labels(noisy, labelled):
    class Splitter:
        def split(self, X, y, groups=None):
            seen.append(np.asarray(y))
            yield np.arange(10, 60), np.arange(10)

        def get_n_splits(self, X=None, y=None, groups=None):
            return 1

    seen = []
    compare_losses(linear(), *noisy, {"a": {}}, cv=Splitter(), baselines=False, verbose=0)
    several = make_pipeline(TfidfVectorizer(), OneVsRestClassifier(LogisticRegression()))
    compare_losses(several, *labelled, {"a": {}}, cv=Splitter(), baselines=False, verbose=0)
    assert seen[0].tolist() == noisy[1].tolist() and seen[1].shape == (90, 3)


def test_classes_are_those_of_our_classifiers_only(noisy, make):
    class Words(TfidfVectorizer):
        def __init__(self, classes=("q",)):
            super().__init__()
            self.classes = classes

    steps = make_pipeline(Words(), LogisticRegression())
    dates = np.where(noisy[1] == "ham", np.datetime64("2020-01-01"), np.datetime64("2021-01-01"))
    for y in (noisy[1], dates, [*dates], np.where(noisy[1] == "ham", -1, 0)):
        result = compare_losses(steps, noisy[0], y, {"a": {}}, cv=2, baselines=False, verbose=0)
        assert result.counts.tolist() == np.unique(y, return_counts=True)[1].tolist()
    settings = {"a": {"classes": ["eggs", "ham", "spam"]}, "b": {"classes": ["ham", "spam", "zoo"]}}
    with pytest.warns(UserWarning, match="no document of 1 declared classes"):
        result = compare_losses(
            make(max_epochs=1), *imbalanced(), settings, cv=2, baselines=False, verbose=0
        )
    assert result.classes.tolist() == ["eggs", "ham", "spam", "zoo"]
    assert all(np.isfinite(result.values[name]["log_loss"]).all() for name in "ab")


def test_probabilities_in_lists_are_refused(labelled):
    forest = make_pipeline(TfidfVectorizer(), RandomForestClassifier(5, random_state=0))
    with pytest.raises(TypeError, match="wrap Pipeline in OneVsRestClassifier"):
        compare_losses(forest, *labelled, {"a": {}}, cv=2, baselines=False, verbose=0)
