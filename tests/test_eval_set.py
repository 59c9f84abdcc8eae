"""Documents of one's own to validate on."""

import pickle

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import sklearn
from conftest import imbalanced
from sklearn.metrics import check_scoring, f1_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from skorch.callbacks import Callback

from skfocal import BertFocalClassifier, Checkpoint, TrainingHistoryDisplay
from skfocal.metrics import neg_log_loss_scorer


@pytest.fixture(scope="module")
def parts():
    """Training documents and others."""
    X, y = imbalanced(40, 16)
    rows = np.random.RandomState(0).permutation(56)
    X, y = [X[i] for i in rows], y[rows]
    return (X[:36], y[:36]), (X[36:], y[36:])


@pytest.fixture
def make(tiny):
    def make(**parameters):
        settings = {"max_epochs": 2, "lr": 3e-3, "random_state": 0, "device": "cpu", **parameters}
        return BertFocalClassifier(tiny, **settings)

    return make


def joined(parts):
    (X, y), (X_val, y_val) = parts
    fold = PredefinedSplit([-1] * len(X) + [0] * len(X_val))
    return [*X, *X_val], np.concatenate([y, y_val]), fold


def same(one, other):
    assert [dict(row) for row in clean(one)] == [dict(row) for row in clean(other)]
    for a, b in zip(one.net_.module_.parameters(), other.net_.module_.parameters(), strict=True):
        assert (a == b).all()


def clean(clf):
    return [{k: v for k, v in row.items() if k not in ("dur", "batches")} for row in clf.history_]


USES = {"early_stopping": 1, "temperature": "auto", "decision": "tuned", "max_epochs": 3}


def test_eval_set_is_a_predefined_split_of_joined_documents(make, parts):
    (X, y), eval_set = parts
    X_all, y_all, split = joined(parts)
    clf = make(**USES).fit(X, y, eval_set=eval_set)
    plain = make(**USES, train_split=split).fit(X_all, y_all)
    same(clf, plain)
    assert clf.temperature_ == plain.temperature_ != 1
    np.testing.assert_array_equal(clf.decision_offset_, plain.decision_offset_)
    same(clf, make(**USES).fit(X, y, eval_set=[eval_set]))  # as LightGBM and XGBoost take it


def test_eval_set_changes_nothing_that_is_learned(make, parts):
    (X, y), (X_val, y_val) = parts
    scored = make(alpha="balanced", sampler="sqrt").fit(X, y, eval_set=(X_val, y_val))
    plain = make(alpha="balanced", sampler="sqrt").fit(X, y)
    for a, b in zip(scored.net_.module_.parameters(), plain.net_.module_.parameters(), strict=True):
        assert (a == b).all()
    np.testing.assert_array_equal(scored.class_prior_, plain.class_prior_)
    assert "valid_score" not in plain.history_[-1]


def test_the_scores_are_those_of_the_documents(make, parts):
    (X, y), (X_val, y_val) = parts
    clf = make().fit(X, y, eval_set=(X_val, y_val))
    expected = f1_score(y_val, clf.predict(X_val), average="macro")
    assert clf.history_[-1, "valid_score"] == pytest.approx(expected)
    weight = np.arange(len(y_val))
    clf = make().fit(X, y, eval_set=(X_val, y_val, weight))
    expected = f1_score(y_val, clf.predict(X_val), average="macro", sample_weight=weight)
    assert clf.history_[-1, "valid_score"] == pytest.approx(expected)


def test_the_best_epoch_is_named(make, parts):
    (X, y), eval_set = parts
    scores = iter([0.2, 0.9, 0.5, 0.4])
    clf = make(early_stopping=2, max_epochs=5, scoring=lambda *args: next(scores))
    assert clf.fit(X, y, eval_set=eval_set).best_epoch_ == 2
    assert len(clf.history_) == 4
    assert make().fit(X, y, eval_set=eval_set).best_epoch_ == 2  # the last one


def test_several_labels(make, parts):
    (X, y), (X_val, y_val) = parts
    rows, rows_val = (np.stack([part == "ham", np.ones(len(part))], 1).astype(int)
                      for part in (y, y_val))  # fmt: skip
    rows[0] = 0
    clf = make(**USES).fit(X, rows, eval_set=(X_val, rows_val))
    X_all, _, split = joined(parts)
    plain = make(**USES, train_split=split).fit(X_all, np.concatenate([rows, rows_val]))
    same(clf, plain)
    names = pd.DataFrame(rows, columns=["ham", "all"])
    swapped = pd.DataFrame(rows_val, columns=["ham", "all"])[["all", "ham"]]
    same(clf, make(**USES).fit(X, names, eval_set=(X_val, swapped)))


@pytest.mark.parametrize("form", [pa.array, pd.Series, lambda X: pd.DataFrame({"text": X})])
def test_containers_that_are_read_in_parts(make, parts, form):
    (X, y), (X_val, y_val) = parts
    plain = make(**USES).fit(X, y, eval_set=(X_val, y_val))
    same(plain, make(**USES).fit(form(X), y, eval_set=(form(X_val), y_val)))


def test_pairs_of_texts(make, parts):
    (X, y), (X_val, y_val) = parts
    pairs, pairs_val = ([(text, "a second text") for text in part] for part in (X, X_val))
    assert "valid_score" in make().fit(pairs, y, eval_set=(pairs_val, y_val)).history_[-1]
    with pytest.raises(ValueError, match="In eval_set: X must hold pairs of texts, as in fit"):
        make().fit(pairs, y, eval_set=(X_val, y_val))


@pytest.mark.parametrize(
    ("eval_set", "kind", "message"),
    [
        ((["a text"],), TypeError, r"one pair \(X, y\) of documents and labels"),
        ([(["a"], ["ham"]), (["b"], ["ham"])], TypeError, r"one pair \(X, y\).* Got \["),
        ("a text", TypeError, r"one pair \(X, y\).* Got 'a text'"),
        (([], []), ValueError, "In eval_set: Found array with 0 sample"),
        ((["a", 5], ["ham", "spam"]), TypeError, "In eval_set: X must hold str only.* row 1"),
        ((["a", "b"], ["ham"]), ValueError, "In eval_set: Found input variables with incons"),
        ((["a", "b"], ["ham", None]), ValueError, "In eval_set: y must have a label .* row 1"),
        ((["a", "b"], ["ham", "eggs"]), ValueError, r"eval_set has labels that y .*: \['eggs'\]"),
        (
            (["a", "b"], ["ham", "spam"], [0, 0]),
            ValueError,
            "In eval_set: .* at least one non-zero",
        ),
        ((["a", "b"], [[1, 0], [0, 1]]), ValueError, "In eval_set: y must have one label"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_the_training(make, parts, eval_set, kind, message):
    X, y = parts[0]
    with pytest.raises(kind, match=message):
        make().fit(X, y, eval_set=eval_set)


def test_one_of_the_two_holds_documents_out(make, parts):
    (X, y), eval_set = parts
    with pytest.raises(ValueError, match=r"train_split must be None\. Got train_split=0\.2"):
        make(train_split=0.2).fit(X, y, eval_set=eval_set)
    with pytest.raises(ValueError, match="groups are for a splitter in train_split"):
        make().fit(X, y, groups=np.arange(len(y)), eval_set=eval_set)


def test_a_class_that_only_the_declared_labels_name(make, parts):
    (X, y), (X_val, y_val) = parts
    y_val = np.append(y_val[:-1], "eggs")
    clf = make(classes=["eggs", "ham", "spam"])
    with pytest.warns(UserWarning, match=r"no document of 1 declared classes: \['eggs'\]"):
        clf.fit(X, y, eval_set=(X_val, y_val))
    assert clf.class_prior_[0] == 0


# -- within an epoch -------------------------------------------------------------------------


def test_scores_within_an_epoch_change_nothing_that_is_learned(make, parts):
    (X, y), eval_set = parts
    plain = make(dropout=0.1, batch_size=4).fit(X, y, eval_set=eval_set)
    clf = make(dropout=0.1, batch_size=4, eval_steps=2).fit(X, y, eval_set=eval_set)
    same(clf, plain)
    assert scored(clf) == [[2, 4, 6, 8], [1, 3, 5, 7]]  # nine updates an epoch
    assert scored(plain) == [[], []]
    accumulated = make(batch_size=4, eval_steps=2, accumulate=2).fit(X, y, eval_set=eval_set)
    assert scored(accumulated) == [[4, 8], [2, 6]]  # batches; five updates


def scored(clf):
    """Return by epoch which training batches have a score of the held-out documents."""
    return [
        [i for i, batch in enumerate(row["batches"], start=1) if "valid_score" in batch]
        for row in clf.history_
    ]


class Keeps(Callback):
    """Keeps the weights after an update."""

    def __init__(self, step):
        self.step = step
        self.n_updates = 0

    def on_batch_end(self, net, training, **kwargs):
        self.n_updates += training
        if training and self.n_updates == self.step:
            self.weights = {k: v.clone() for k, v in net.module_.state_dict().items()}


def test_the_weights_of_the_best_step_are_kept(make, parts):
    (X, y), eval_set = parts
    scores = iter([0.2, 0.4, 0.9, 0.8, 0.7, 0.6, 0.5])
    keeps = Keeps(6)
    clf = make(
        batch_size=4,
        eval_steps=2,
        early_stopping=3,
        max_epochs=5,
        callbacks=[("keeps", keeps)],
        scoring=lambda *args: next(scores),
    ).fit(X, y, eval_set=eval_set)
    assert (clf.best_epoch_, clf.best_step_) == (1, 6)
    assert scored(clf) == [[2, 4, 6, 8], [1]]  # 0.8, then 0.7 at the epoch's end, then 0.6
    assert clf.history_[-1, "valid_score"] == 0.5  # of the epoch that ended early
    kept = dict(clf.net_.callbacks_)["keeps"].weights
    for name, value in clf.net_.module_.state_dict().items():
        assert (value == kept[name]).all()
    again = pickle.loads(pickle.dumps(clf.set_params(scoring="f1_macro", callbacks=None)))
    assert (again.best_epoch_, again.best_step_) == (1, 6)


def test_the_score_of_a_step_is_that_of_its_weights(make, parts):
    (X, y), (X_val, y_val) = parts
    settings = {"batch_size": 4, "scoring": neg_log_loss_scorer, "proba": "softmax"}
    settings["schedule"] = "constant"
    clf = make(**settings, eval_steps=4, early_stopping=99).fit(X, y, eval_set=(X_val, y_val))
    batch = clf.history_[0, "batches"][3]
    stopped = make(**settings, callbacks=[Stops(4)]).fit(X, y, eval_set=(X_val, y_val))
    expected = neg_log_loss_scorer(stopped, X_val, y_val)
    assert batch["valid_score"] == pytest.approx(expected, rel=1e-5)


class Stops(Callback):
    def __init__(self, step):
        self.step = step
        self.n_updates = 0

    def on_grad_computed(self, net, named_parameters, **kwargs):
        self.n_updates += 1
        if self.n_updates > self.step:
            for group in net.optimizer_.param_groups:
                group["lr"] = group["weight_decay"] = 0.0


class Fails(Callback):
    left = 0  # updates; of the class, so that a checkpoint sees the same callback

    def on_grad_computed(self, net, named_parameters, **kwargs):
        Fails.left -= 1
        if Fails.left == 0:
            raise RuntimeError("power cut")


def test_a_killed_fit_goes_on_between_two_scores(make, parts, tmp_path):
    (X, y), eval_set = parts
    settings = {"batch_size": 4, "eval_steps": 2, "early_stopping": 99, "max_epochs": 3}
    checkpoint = Checkpoint(tmp_path / "fit", steps=3)
    Fails.left = 13
    with pytest.raises(RuntimeError, match="power cut"):
        make(**settings, checkpoint=checkpoint, callbacks=[("c", Fails())]).fit(
            X, y, eval_set=eval_set
        )
    clf = make(**settings, checkpoint=checkpoint, callbacks=[("c", Fails())])
    clf.fit(X, y, eval_set=eval_set)
    whole = make(**settings).fit(X, y, eval_set=eval_set)
    same(clf, whole)
    assert clf.best_step_ == whole.best_step_ and scored(clf) == scored(whole)


def test_steps_need_documents_to_score(make, parts):
    with pytest.raises(ValueError, match=r"eval_steps needs documents to score: .* eval_steps=2\."):
        make(eval_steps=2).fit(*parts[0])
    with pytest.raises(ValueError, match="partial_fit needs eval_steps=None"):
        make(eval_steps=2).partial_fit(*parts[0], classes=["ham", "spam"])


# -- several scores --------------------------------------------------------------------------

NAMED = {"recall": "recall_macro", "ece": lambda clf, X, y: -clf.predict_proba(X).max(1).mean()}


def both(clf, X, y):
    return {"f1_macro": f1_score(y, clf.predict(X), average="macro"), "n": len(y)}


@pytest.mark.parametrize(
    ("scoring", "names"),
    [
        (["f1_macro", "accuracy", "neg_log_loss"], ["f1_macro", "accuracy", "neg_log_loss"]),
        (("accuracy", "roc_auc"), ["accuracy", "roc_auc"]),
        (NAMED, ["recall", "ece"]),
        (both, ["f1_macro", "n"]),
    ],
)
def test_several_scores_are_in_the_history_and_the_first_decides(make, parts, scoring, names):
    (X, y), (X_val, y_val) = parts
    clf = make(scoring=scoring, early_stopping=1, max_epochs=3)
    clf.fit(X, y, eval_set=(X_val, y_val))
    row = clf.history_[-1]
    assert [key for key in row if key[6:] in names] == [f"valid_{name}" for name in names]
    assert row["valid_score"] == row[f"valid_{names[0]}"]
    first = max(row["valid_score"] for row in clf.history_)
    assert clf.history_[clf.best_epoch_ - 1]["valid_score"] == first
    # As scikit-learn scores the same epoch's weights.
    last = make(scoring=scoring).fit(X, y, eval_set=(X_val, y_val))
    if scoring is both:
        expected = both(last, X_val, y_val)
    else:
        given = scoring if isinstance(scoring, dict) else {name: name for name in scoring}
        expected = {n: check_scoring(last, scoring=s)(last, X_val, y_val) for n, s in given.items()}
    for name, value in expected.items():
        assert last.history_[-1, f"valid_{name}"] == pytest.approx(value, rel=1e-5)


def test_several_scores_are_on_the_progress_line_and_in_a_pickle(make, parts, capsys):
    (X, y), eval_set = parts
    clf = make(scoring=["f1_macro", "accuracy"], verbose=1).fit(X, y, eval_set=eval_set)
    score, accuracy = clf.history_[-1, ("valid_score", "valid_accuracy")]
    assert f"f1_macro {score:.4f}  accuracy {accuracy:.4f}" in capsys.readouterr().out
    again = pickle.loads(pickle.dumps(clf))
    assert again.scoring == ["f1_macro", "accuracy"]
    assert again.history_[-1, "valid_accuracy"] == accuracy
    assert TrainingHistoryDisplay.from_estimator(again).score_name == "f1_macro"


def test_tuned_decisions_go_by_the_first_score(make, parts):
    (X, y), eval_set = parts
    one = make(scoring="recall_macro", decision="tuned").fit(X, y, eval_set=eval_set)
    several = make(scoring=["recall_macro", "accuracy"], decision="tuned")
    several.fit(X, y, eval_set=eval_set)
    np.testing.assert_array_equal(one.decision_offset_, several.decision_offset_)


@pytest.mark.parametrize(
    "scoring", [[], {}, {"loss": "accuracy", "f1": "f1_macro"}, {1: "accuracy"}]
)
def test_names_of_scores_are_checked_before_the_training(make, parts, scoring):
    with pytest.raises(ValueError, match="scoring must be a scorer, a list of names of scorers"):
        make(scoring=scoring).fit(*parts[0])
    with pytest.raises(ValueError, match="Got 'acuracy': did you mean 'accuracy'"):
        make(scoring=["f1_macro", "acuracy"]).fit(*parts[0])


# -- scikit-learn ----------------------------------------------------------------------------


def test_through_a_pipeline_and_a_search(make, parts):
    (X, y), eval_set = parts
    pipeline = Pipeline([("same", FunctionTransformer()), ("clf", make(early_stopping=1))])
    pipeline.fit(X, y, clf__eval_set=eval_set)
    same(pipeline["clf"], make(early_stopping=1).fit(X, y, eval_set=eval_set))
    search = GridSearchCV(pipeline, {"clf__gamma": [0.0, 2.0]}, cv=2)
    search.fit(X, y, clf__eval_set=eval_set)
    gamma = search.best_params_["clf__gamma"]
    again = make(early_stopping=1, gamma=gamma).fit(X, y, eval_set=eval_set)
    same(search.best_estimator_["clf"], again)


def test_through_metadata_routing(make, parts):
    (X, y), eval_set = parts
    with sklearn.config_context(enable_metadata_routing=True):
        clf = make(early_stopping=1).set_fit_request(eval_set=True)
        pipeline = Pipeline([("same", FunctionTransformer()), ("clf", clf)])
        search = GridSearchCV(pipeline, {"clf__gamma": [2.0]}, cv=2).fit(X, y, eval_set=eval_set)
    same(search.best_estimator_["clf"], make(early_stopping=1).fit(X, y, eval_set=eval_set))


def test_a_split_made_for_other_documents_is_named(make, parts):
    X, y, split = joined(parts)
    with pytest.raises(
        ValueError, match=r"Got row \d+: a split that was made for other doc.*eval_set"
    ):
        make(train_split=split).fit(X[:20], y[:20])
    everything = [(np.arange(20), np.arange(5))]

    class Overlapping:
        def split(self, *args):
            return iter(everything)

    with pytest.raises(ValueError, match="Got 20 and 5, 5 of them in both"):
        make(train_split=Overlapping()).fit(X[:20], y[:20])


def test_a_checkpoint_of_other_documents_to_score_is_refused(make, parts, tmp_path):
    (X, y), (X_val, y_val) = parts
    make(checkpoint=tmp_path / "fit").fit(X, y, eval_set=(X_val, y_val))
    with pytest.raises(ValueError, match="documents"):
        make(checkpoint=tmp_path / "fit").fit(X, y, eval_set=(X_val[1:], y_val[1:]))
