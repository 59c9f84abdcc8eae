"""
Searches with Optuna, pruned epoch by epoch
===========================================

A grid tries every combination to its end. Optuna draws the next candidate from what the earlier
ones gave, and a pruner ends those that lag behind after an epoch or two. There are two ways, as
``OptunaSearchCV`` keeps its trials to itself: it prunes between calls of ``partial_fit``, a study
of one's own through a callback inside ``fit``. The texts are real newswire (Reuters R8), the
encoder is the real all-MiniLM-L6-v2.

``python examples/plot_optuna_search.py --figure FILE`` saves the figure.
"""

import argparse
import math
import warnings

import matplotlib.pyplot as plt
import numpy as np
import optuna
from matplotlib.ticker import MaxNLocator
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna_integration import OptunaSearchCV, SkorchPruningCallback
from sklearn.model_selection import StratifiedKFold, train_test_split

from skfocal import BertFocalClassifier, cache_info, fetch_minilm, fetch_reuters

parser = argparse.ArgumentParser(description="Searches with Optuna, pruned epoch by epoch")
parser.add_argument("--figure", help="file for the figure; without it, it is shown")
options, _ = parser.parse_known_args()  # a notebook has arguments of its own

# %%
# A stratified part of the training documents. 64 tokens of each are enough here, which the
# classifier would warn of. Optuna warns that its search is experimental, and of its own doings.
warnings.filterwarnings("ignore", message=".*max_length")
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
warnings.filterwarnings("ignore", message=".*optuna.terminator", category=FutureWarning)
optuna.logging.set_verbosity(optuna.logging.WARNING)
X, y = fetch_reuters("r8", subset="train", return_X_y=True)
X, _, y, _ = train_test_split(X, y, train_size=400, stratify=y, random_state=0)
N_EPOCHS, N_TRIALS, N_FOLDS = 4, 8, 2


def new_study():
    """Return a study whose pruner ends a trial that is worse than the median of the earlier."""
    return optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(n_startup_trials=4, seed=0),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=3),
    )


# %%
# Cross-validation, pruned by ``partial_fit``
# -------------------------------------------
# With ``enable_pruning=True`` each step of a trial is an epoch, a ``partial_fit`` on the training
# part of each fold, and the pruner sees the mean score of the folds. ``n_updates`` says how long
# the schedule of all epochs together is. Without ``error_score="raise"`` whatever goes wrong would
# be a score of NaN.
settings = {"freeze": 5, "max_epochs": N_EPOCHS, "max_length": 64, "random_state": 0}
n_updates = N_EPOCHS * math.ceil(len(X) * (1 - 1 / N_FOLDS) / 16)
search = OptunaSearchCV(
    BertFocalClassifier(fetch_minilm(), batch_size=16, n_updates=n_updates, **settings),
    {
        "gamma": FloatDistribution(0, 5),
        "alpha": CategoricalDistribution([None, "sqrt", "balanced"]),
        "lr": FloatDistribution(1e-4, 3e-3, log=True),
    },
    cv=StratifiedKFold(N_FOLDS, shuffle=True, random_state=0),
    enable_pruning=True,
    error_score="raise",
    max_iter=N_EPOCHS,
    n_trials=N_TRIALS,
    refit=False,
    scoring="f1_macro",
    study=new_study(),
)
search.fit(X, y)


def show(study):
    """Print how each trial ended, and the best."""
    for trial in study.trials:
        steps = trial.intermediate_values
        params = ", ".join(
            f"{name}={value:.2g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in trial.params.items()
        )
        print(f"{params:40s} {trial.state.name.lower():9s} {steps[max(steps)]:.3f}")
    n_pruned = sum(trial.state.name == "PRUNED" for trial in study.trials)
    print(f"pruned {n_pruned} of {len(study.trials)}, best macro-F1 {study.best_value:.3f}")


show(search.study_)
print(cache_info())

# %%
# One fit a trial, pruned by a callback
# -------------------------------------
# In a study of one's own the trial is at hand, and Optuna's callback for skorch does the rest: it
# reports the score on the held-out documents after each epoch and raises ``TrialPruned``. One thing
# is to be added: a fit works with copies of its callbacks, and the copy of a trial would report to
# a copy of the study, unheard.


class PruneByEpoch(SkorchPruningCallback):
    """Report each epoch to the trial, which is not copied with the callback."""

    def __deepcopy__(self, memo):
        return self


def objective(trial):
    """Return the score on a quarter of the documents."""
    clf = BertFocalClassifier(
        fetch_minilm(),
        gamma=trial.suggest_float("gamma", 0, 5),
        alpha=trial.suggest_categorical("alpha", [None, "sqrt", "balanced"]),
        lr=trial.suggest_float("lr", 1e-4, 3e-3, log=True),
        train_split=0.25,
        scoring="f1_macro",
        callbacks=[PruneByEpoch(trial, "valid_score")],
        **settings,
    )
    return clf.fit(X, y).history_[-1]["valid_score"]


study = new_study()
study.optimize(objective, n_trials=N_TRIALS)
show(study)

# %%
# A line a trial, from epoch to epoch; those that were pruned are grey and end early.
figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
titles = "OptunaSearchCV: mean of two folds", "Callback: a quarter held out"
for ax, title, trials in zip(axes, titles, (search.study_.trials, study.trials), strict=True):
    for trial in trials:
        pruned = trial.state.name == "PRUNED"
        epochs = np.array(list(trial.intermediate_values)) + 1
        color = "0.6" if pruned else "C0"
        ax.plot(epochs, list(trial.intermediate_values.values()), "o-", color=color)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(title=title, xlabel="epoch")
axes[0].set_ylabel("macro-F1")
if options.figure:
    figure.savefig(options.figure)
else:
    plt.show()
