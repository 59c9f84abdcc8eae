"""Searches with Optuna: epoch by epoch, and what a pruned fit leaves."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import get_scorer
from sklearn.model_selection import StratifiedKFold

optuna = pytest.importorskip("optuna")
integration = pytest.importorskip("optuna_integration")


class PruneByEpoch(integration.SkorchPruningCallback):
    """As in the guide."""

    def __deepcopy__(self, memo):
        return self


def pruned_after(n_epochs):
    """Return a study that prunes every trial after so many epochs."""
    pruner = optuna.pruners.ThresholdPruner(lower=2, n_warmup_steps=n_epochs - 1)
    return optuna.create_study(direction="maximize", pruner=pruner)


def reporting(make, trial, kind=PruneByEpoch):
    return make(max_epochs=4, train_split=0.25, callbacks=[kind(trial, "valid_score")])


def test_each_epoch_is_reported(make, data):
    study = optuna.create_study(pruner=optuna.pruners.NopPruner())
    trial = study.ask()
    clf = clone(reporting(make, trial)).fit(*data)
    scores = clf.history_[:, "valid_score"]
    assert study.trials[0].intermediate_values == dict(enumerate(scores))


def test_optunas_callback_alone_is_not_heard(make, data):
    """Which the guide says; without this the subclass is not needed any more."""
    study = pruned_after(2)
    trial = study.ask()
    with pytest.raises(optuna.TrialPruned):
        reporting(make, trial, integration.SkorchPruningCallback).fit(*data)
    assert study.trials[0].intermediate_values == {}


def test_a_pruned_fit_leaves_the_estimator_as_it_was(make, data):
    clf, fresh = make().fit(*data), make()
    proba, net = clf.predict_proba(data[0]), clf.net_
    estimators = iter([clf, fresh])

    def objective(trial):
        estimator = next(estimators).set_params(**reporting(make, trial).get_params())
        return estimator.fit(*data).score(*data)

    study = pruned_after(3)
    study.optimize(objective, n_trials=2)
    for trial in study.trials:
        assert trial.state.name == "PRUNED"
        assert sorted(trial.intermediate_values) == [0, 1, 2]
    assert not hasattr(fresh, "classes_") and not hasattr(fresh, "net_")
    assert clf.net_ is net and np.array_equal(clf.predict_proba(data[0]), proba)


@pytest.mark.filterwarnings("ignore:.*(experimental|optuna.terminator)")
def test_optunas_search_reports_the_mean_of_the_folds_after_each_epoch(make, data):
    X, y = data
    cv = StratifiedKFold(2)
    clf = make(n_updates=9)
    search = integration.OptunaSearchCV(
        clf,
        {"gamma": optuna.distributions.FloatDistribution(0, 5)},
        cv=cv,
        enable_pruning=True,
        error_score="raise",
        max_iter=3,
        n_trials=1,
        random_state=0,
        refit=False,
        scoring="neg_log_loss",
    ).fit(X, y)
    scores = np.zeros((2, 3))
    for i, (train, test) in enumerate(cv.split(X, y)):
        fold = clone(clf).set_params(**search.best_params_)
        for epoch in range(3):
            fold.partial_fit([X[j] for j in train], y[train], classes=["ham", "spam"])
            scores[i, epoch] = get_scorer("neg_log_loss")(fold, [X[j] for j in test], y[test])
    values = search.best_trial_.intermediate_values
    assert [values[epoch] for epoch in range(3)] == pytest.approx(scores.mean(0), rel=1e-12)
