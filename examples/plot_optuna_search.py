"""
A search that learns where to look
==================================

A grid search trains every candidate to the end, even if its first epochs are hopeless. Optuna
chooses each candidate by the scores of earlier ones, and stops candidates that fall behind. This
example shows two ways: Optuna's search for scikit-learn, and your own study with a callback that
reports each epoch. The texts are Reuters R8, and the encoder is all-MiniLM-L6-v2. You need
``pip install optuna optuna-integration``.

``python examples/plot_optuna_search.py --figure FILE`` saves the figure.
"""

import argparse
import warnings

import matplotlib.pyplot as plt
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna_integration import OptunaSearchCV, SkorchPruningCallback
from sklearn.model_selection import StratifiedKFold, train_test_split

from skfocal import BertFocalClassifier, fetch_minilm, fetch_reuters

parser = argparse.ArgumentParser(description="A search with Optuna")
parser.add_argument("--figure", help="file for the figure; without it, it is shown")
options, _ = parser.parse_known_args()  # a notebook has arguments of its own

warnings.filterwarnings("ignore", message=".*max_length")
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
warnings.filterwarnings("ignore", message=".*optuna.terminator")  # OptunaSearchCV itself uses it
optuna.logging.set_verbosity(optuna.logging.WARNING)
X, y = fetch_reuters("r8", subset="train", return_X_y=True)
X, _, y, _ = train_test_split(X, y, train_size=400, stratify=y, random_state=0)
clf = BertFocalClassifier(fetch_minilm(), freeze=5, lr=1e-3, max_length=64, random_state=0)

# %%
# OptunaSearchCV
# --------------
# ``OptunaSearchCV`` replaces ``GridSearchCV`` and takes distributions instead of lists. With
# ``enable_pruning`` it calls ``partial_fit`` once per epoch for all folds, and compares the score
# with the scores of other candidates at the same epoch. ``n_updates`` is the length of the schedule
# that these calls share: three epochs of 267 documents in batches of 16.
search = OptunaSearchCV(
    clf.set_params(n_updates=3 * 17),
    {
        "gamma": FloatDistribution(0, 5),
        "alpha": CategoricalDistribution([None, "sqrt", "balanced"]),
        "lr": FloatDistribution(1e-4, 3e-3, log=True),
    },
    cv=StratifiedKFold(3, shuffle=True, random_state=0),
    enable_pruning=True,
    max_iter=3,
    n_trials=6,
    scoring="f1_macro",
    refit=False,
    random_state=0,
    study=optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=2),
    ),
)
search.fit(X, y)
print(f"search  macro-F1 {search.best_score_:.3f}  {search.best_params_}")

# %%
# Your own study, pruned by a callback
# ------------------------------------
# Here a trial is one ``fit``, scored on held-out documents. After each epoch the callback reports
# their score. It raises ``TrialPruned`` if the trial is not worth continuing, and the estimator is
# then as it was before the fit. A fit copies its callbacks, and a copy of the trial would report to
# a copy of the study. So this callback returns itself when it is copied.


class Pruning(SkorchPruningCallback):
    """Optuna's callback, shared by all copies of a classifier."""

    def __deepcopy__(self, memo):
        """Return itself."""
        return self


def objective(trial):
    """Return the score of the last epoch."""
    candidate = BertFocalClassifier(
        fetch_minilm(),
        gamma=trial.suggest_float("gamma", 0, 5),
        alpha=trial.suggest_categorical("alpha", [None, "sqrt", "balanced"]),
        lr=trial.suggest_float("lr", 1e-4, 3e-3, log=True),
        max_epochs=5,
        train_split=0.3,
        freeze=5,
        max_length=64,
        callbacks=[Pruning(trial, "valid_score")],
        random_state=0,
    )
    return candidate.fit(X, y).history_[-1, "valid_score"]


study = optuna.create_study(
    direction="maximize",
    sampler=optuna.samplers.TPESampler(seed=1),
    pruner=optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=1),
)
study.optimize(objective, n_trials=12)
pruned = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.PRUNED]
print(f"study   macro-F1 {study.best_value:.3f}  {study.best_params}")
print(f"{len(pruned)} of {len(study.trials)} trials ended early")

# %%
# Each line is one trial, epoch by epoch. Lines that end early were pruned.
figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
for trial in study.trials:
    epochs = [epoch + 1 for epoch in trial.intermediate_values]
    is_best, is_pruned = trial.number == study.best_trial.number, trial in pruned
    axes.plot(
        epochs,
        list(trial.intermediate_values.values()),
        color="C1" if is_best else "0.7" if is_pruned else "C0",
        marker="x" if is_pruned else "o",
        markevery=[-1],
        linewidth=2.5 if is_best else 1.2,
        label="best" if is_best else None,
    )
axes.set(xlabel="epoch", ylabel="macro-F1 of held-out documents", xticks=range(1, 6))
axes.plot([], [], color="C0", marker="o", label="to the end")
axes.plot([], [], color="0.7", marker="x", label="pruned")
axes.legend()
if options.figure:
    figure.savefig(options.figure, dpi=120)
plt.show()
