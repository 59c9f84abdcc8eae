"""Warnings point at the line that called, and a search shows each once."""

import ast
import re
import subprocess
import sys
import warnings
from pathlib import Path

import joblib
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import VotingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.metrics import get_scorer
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
)
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback, EarlyStopping

import skfocal
from skfocal import (
    BertFocalClassifier,
    ClassPrecisionRecallDisplay,
    FrequencyConfusionMatrixDisplay,
    ReliabilityDisplay,
    compare_losses,
)
from skfocal._encoder import frozen_layers
from skfocal._runtime.warnings import warn

GRID = {"lr": [1e-3, 3e-3]}
QUICK = {"max_epochs": 1, "batch_size": 20}
CUT = {**QUICK, "max_length": 8}


def lines_of(call, message):
    """Return file and line of each warning of a call that has this message."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [(w.filename, w.lineno) for w in caught if re.search(message, str(w.message))]


def line_of(call):
    """Return file and line of a function of one line."""
    return __file__, call.__code__.co_firstlineno


class Stop(Callback):
    def on_epoch_end(self, net, **kwargs):
        net.loop_.stop = True


def spoiled(logits, target):
    """Return a loss that is finite and has a gradient that is not."""
    loss = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    return loss + (0 * logits[:, 0]).sqrt()


SETTINGS = {
    "documents have more than max_length=8 tokens": CUT,
    "gamma=6 leaves a document": {"gamma": 6},
    "no document of 1 declared classes": {"classes": ["ham", "spam", "zebra"]},
    "all correct the imbalance": {"alpha": {"ham": 1, "spam": 3}, "sampler": "balanced"},
    "alpha='balanced' has no effect": {"alpha": "balanced", "sampler": "balanced"},
    "has no effect without alpha": {"defer": 0.5},
    "less than half of one epoch": {"defer": 0.1, "alpha": "balanced", "max_epochs": 2},
    "lets the classes wait": {
        "defer": 0.5,
        "alpha": {"ham": 1, "spam": 3},
        "sampler": "balanced",
        "max_epochs": 2,
    },
    "before the 3 epochs without alpha": {
        "alpha": "balanced",
        "defer": 0.8,
        "max_epochs": 4,
        "callbacks": [Stop()],
    },
    "early_stopping watches": {
        "early_stopping": True,
        "train_split": 0.4,
        "scoring": get_scorer("neg_log_loss"),
        "alpha": "balanced",
        "proba": "softmax",
    },
    "EarlyStopping watches 'valid_loss'": {
        "callbacks": [EarlyStopping()],
        "alpha": "balanced",
        "train_split": 0.3,
    },
    "decision='tuned' has no effect": {"decision": "tuned", "scoring": "roc_auc"},
    "exact for a mean over samples": {
        "proba": "natural",
        "normalize": "weights",
        "alpha": "balanced",
    },
    "undoes the distribution of the last epoch": {"proba": "natural", "sampler": "progressive"},
    "undoes alpha as if": {"proba": "natural", "alpha": "balanced", "defer": 0.5, "max_epochs": 2},
    "^precision='bfloat16' is slower": {"precision": "bfloat16"},
    "The gradient is not finite": {"loss": spoiled, "nonfinite": "skip"},
    "The kept outputs of frozen layers": {"freeze": 1},
}


@pytest.mark.parametrize("message", SETTINGS)
def test_what_fit_warns_of_is_at_the_line_that_called(make, data, monkeypatch, message):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)  # an older processor
    monkeypatch.setattr(frozen_layers, "_LIMIT", 1000)
    X, y = data
    clf = make(**{**QUICK, **SETTINGS[message]})
    steps = make_pipeline("passthrough", clf)
    grid = GridSearchCV(steps, {"bertfocalclassifier__lr": [1e-3]}, cv=2)
    direct, in_pipeline_in_grid = (lambda: clf.fit(X, y), lambda: grid.fit(X, y))
    for call in (direct, in_pipeline_in_grid):
        assert lines_of(call, message) == [line_of(call)]


def test_what_fit_in_a_pipeline_warns_of_is_at_the_line_that_called(make, data):
    steps = make_pipeline("passthrough", make(**CUT))
    call = lambda: steps.fit(*data)  # noqa: E731
    assert lines_of(call, "more than max_length=8") == [line_of(call)]


def test_what_answers_and_displays_warn_of_is_at_the_line_that_called(make, data):
    X, y = data
    clf = make(**QUICK, sampler="progressive").fit(X, y)
    steps = make_pipeline("passthrough", clf)
    grid = GridSearchCV(clf, GRID, cv=2)
    grid.best_estimator_, grid.refit = clf, True
    for call in (
        lambda: clf.predict(X),
        lambda: clf.predict_proba(X),
        lambda: clf.decision_function(X),
        lambda: clf.score(X, y),
        lambda: steps.predict(X),
        lambda: grid.predict(X),
        lambda: ReliabilityDisplay.from_estimator(clf, X, y),
        lambda: ClassPrecisionRecallDisplay.from_estimator(clf, X, y),
        lambda: FrequencyConfusionMatrixDisplay.from_estimator(clf, X, y),
    ):
        clf.set_params(proba="softmax").predict(X)
        clf.set_params(proba="natural")  # of which the next answer warns
        assert lines_of(call, "undoes the distribution of the last epoch") == [line_of(call)]


def test_what_partial_fit_warns_of_is_at_the_line_that_called(make, data):
    clf = make(n_updates=1).partial_fit(*data, classes=["ham", "spam"])
    call = lambda: clf.partial_fit(*data)  # noqa: E731
    assert lines_of(call, "n_updates=1 has ended") == [line_of(call)]


def test_what_saving_and_loading_warn_of_is_at_the_line_that_called(make, data, tmp_path):
    clf = make(max_epochs=1, loss="ldam", net_params={"max_epochs": 1}).fit(*data)
    save = lambda: clf.save_pretrained(tmp_path)  # noqa: E731
    load = lambda: BertFocalClassifier.from_pretrained(tmp_path)  # noqa: E731
    assert lines_of(save, "transformers does not know") == [line_of(save)]
    assert lines_of(load, "were not stored") == [line_of(load)]


def test_the_package_warns_through_nothing_else():
    for path in Path(skfocal.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                is_warn = node.func.attr == "warn"
                assert not is_warn or ast.unparse(node.func) != "warnings.warn", path


def test_an_example_in_a_docstring_is_its_readers_line():
    scope = {"__name__": "skfocal.metrics", "warn": warn}
    code = compile("warn('seldom meant')", "<doctest skfocal.metrics.f[0]>", "exec")
    found = lines_of(lambda: exec(code, scope), "seldom meant")
    assert found == [("<doctest skfocal.metrics.f[0]>", 1)]


def test_pythons_filters_see_the_module_and_the_line_that_called():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(2):
            warn("at one line")
        warnings.filterwarnings("ignore", module=__name__.replace(".", r"\."))
        warn("at another")
    assert [str(w.message) for w in caught] == ["at one line"]


# -- searches ----------------------------------------------------------------------------------


class Shouting(ClassifierMixin, BaseEstimator):
    """A user's own estimator around a classifier."""

    def __init__(self, clf, lr=1e-3):
        self.clf = clf
        self.lr = lr

    def fit(self, X, y):
        self.clf.set_params(lr=self.lr).fit([text.upper() for text in X], y)
        self.classes_ = self.clf.classes_
        return self

    def predict(self, X):
        return self.clf.predict([text.upper() for text in X])


def halving(clf, X, y):
    search = HalvingGridSearchCV(clf, GRID, cv=2, factor=2, min_resources=20, random_state=0)
    return search.fit(X, y)


def study(clf, X, y):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.RandomSampler(0)
    optuna.create_study(sampler=sampler).optimize(
        lambda trial: clf.set_params(lr=trial.suggest_float("lr", 1e-3, 1e-2)).fit(X, y).lr, 3
    )


SEARCHES = {
    "GridSearchCV": lambda clf, X, y: GridSearchCV(clf, GRID, cv=2).fit(X, y),
    "a grid of lengths": lambda clf, X, y: GridSearchCV(clf, {"max_length": [6, 8]}, cv=2).fit(
        X, y
    ),
    "RandomizedSearchCV": lambda clf, X, y: RandomizedSearchCV(clf, GRID, n_iter=2, cv=2).fit(X, y),
    "HalvingGridSearchCV": halving,
    "cross_validate": lambda clf, X, y: cross_validate(clf, X, y, cv=2),
    "cross_val_score": lambda clf, X, y: cross_val_score(clf, X, y, cv=2),
    "cross_val_predict": lambda clf, X, y: cross_val_predict(clf, X, y, cv=2),
    "learning_curve": lambda clf, X, y: learning_curve(clf, X, y, cv=2, train_sizes=[0.7, 1.0]),
    "nested": lambda clf, X, y: cross_val_score(GridSearchCV(clf, GRID, cv=2), X, y, cv=2),
    "votes": lambda clf, X, y: VotingClassifier([("a", clf), ("b", clf)]).fit(X, y),
    "a user's estimator": lambda clf, X, y: GridSearchCV(Shouting(clf), GRID, cv=2).fit(X, y),
    "Optuna": study,
    "compare_losses": lambda clf, X, y: compare_losses(
        clf, X, y, {"a": {"gamma": 0}, "b": {"gamma": 1}}, cv=2, baselines=False, verbose=0
    ),
}


@pytest.mark.parametrize("search", SEARCHES)
def test_a_search_says_it_once(make, data, search):
    found = lines_of(lambda: SEARCHES[search](make(**CUT), *data), "more than max_length")
    assert [filename for filename, _ in found] == [__file__]


def test_the_next_search_says_it_again(make, data):
    grid = GridSearchCV(make(**CUT), {"gamma": [0]}, cv=2)
    call = lambda: grid.fit(*data)  # noqa: E731
    for _ in range(2):
        assert lines_of(call, "more than max_length") == [line_of(call)]


def test_jobs_in_threads_say_it_once_at_the_line_that_waits_for_them(make, data):
    grid = GridSearchCV(make(**CUT), GRID, cv=2, n_jobs=2)
    call = lambda: grid.fit(*data)  # noqa: E731
    with joblib.parallel_config("threading"):
        assert lines_of(call, "more than max_length") == [line_of(call)]


def test_a_search_says_different_things(make, data):
    call = lambda: cross_validate(make(gamma=6, **CUT), *data, cv=2)  # noqa: E731
    for message in ("more than max_length", "gamma=6 leaves"):
        assert lines_of(call, message) == [line_of(call)]


def test_a_filter_that_makes_errors_of_warnings_stops_each_fit(make, data):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*documents have more than max_length")
        with pytest.raises(UserWarning, match="documents have more than max_length=8"):
            make(**CUT).fit(*data)
        with pytest.raises(ValueError, match="All the 4 fits failed"):
            GridSearchCV(make(**CUT), GRID, cv=2).fit(*data)


IN_WORKERS = """
import sys
from sklearn.model_selection import GridSearchCV, cross_validate
from skfocal import BertFocalClassifier, compare_losses

clf = BertFocalClassifier(sys.argv[1], max_epochs=1, max_length=6, random_state=0)
X = ["win money prize cash now"] * 6 + ["lunch"] * 3 + ["meeting at lunch on this project"] * 9
y = ["spam"] * 9 + ["ham"] * 9
grid = GridSearchCV(clf, {"max_length": [5, 6]}, cv=2, n_jobs=2)

def say(text):
    print(text, file=sys.stderr, flush=True)

say("GRID"); grid.fit(X, y)
say("AGAIN"); grid.fit(X, y)
say("CROSS"); cross_validate(clf, X, y, cv=2, n_jobs=2)
say("OTHER"); cross_validate(clf.set_params(max_length=5), X, y, cv=2, n_jobs=2)
clf.set_params(max_length=4)
settings = {"a": {"gamma": 0}, "b": {"gamma": 1}}
say("LOSSES"); compare_losses(clf, X, y, settings, cv=2, baselines=False, verbose=0, n_jobs=2)
say("DIRECT"); clf.fit(X, y)
"""


@pytest.mark.slow
def test_workers_and_the_refit_say_it_once_together(tiny, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(IN_WORKERS)
    done = subprocess.run(
        [sys.executable, script, tiny], capture_output=True, text=True, check=True
    )
    names, told = [], {}
    for line in done.stderr.splitlines():
        if line.isupper():
            names.append(line)
        elif "more than max_length" in line:
            told.setdefault(names[-1], []).append(line.partition(": ")[0])
    assert [len(told[name]) for name in names] == [1] * 6, done.stderr
    for name in names[:-1]:
        assert re.fullmatch(r"<LokyProcess-\d+>:0", told[name][0])
    assert re.fullmatch(rf"{re.escape(str(script))}:\d+", told["DIRECT"][0])
