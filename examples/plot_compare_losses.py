"""
Comparing losses fairly
=======================

One number for each loss says little: scores move with the fold and with the random state.
``compare_losses`` runs every setting on the same folds, beside plain cross-entropy and word counts,
and gives intervals that know that folds share training documents.

Run it with ``python examples/plot_compare_losses.py``; ``--figure`` names the file.
"""

import argparse
import warnings

import matplotlib

matplotlib.use("Agg")  # the figure goes to a file
import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import StratifiedKFold

from skfocal import BertFocalClassifier, compare_losses, fetch_minilm, fetch_reuters
from skfocal.balance import stratified_holdout

parser = argparse.ArgumentParser(description="Comparing losses fairly")
parser.add_argument("--figure", default="compare_losses.png")
options = parser.parse_args()
warnings.simplefilter("ignore")  # 64 tokens cut half of these documents: speed is wanted here

# %%
# A stratified part of Reuters R8; classes with fewer than three documents are left out.
X, y = fetch_reuters("r8", subset="train", return_X_y=True)
codes = np.unique(y, return_inverse=True)[1]
rows, _ = stratified_holdout(codes, 1 - 300 / len(X), np.random.RandomState(0))
rows = [row for row in rows if (codes[rows] == codes[row]).sum() >= 3]
X, y = [X[i] for i in rows], y[rows]

# %%
# With ``freeze=5`` the frozen layers are computed once for all of it.
clf = BertFocalClassifier(fetch_minilm(), freeze=5, lr=1e-3, max_epochs=3, max_length=64)
comparison = compare_losses(
    clf,
    X,
    y,
    {
        "focal": {"gamma": 2.0},
        "balanced focal": {"gamma": 2.0, "alpha": "balanced"},
        "balanced cross-entropy": {"loss": "cross_entropy", "alpha": "balanced"},
        "cross-entropy, balanced sampler": {"loss": "cross_entropy", "sampler": "balanced"},
    },
    cv=StratifiedKFold(3, shuffle=True, random_state=0),
    random_states=(0, 1),
)
print(comparison)

# %%
# Three folds of a hundred documents give wide intervals, and those that overlap far have told
# nothing apart. The difference to cross-entropy, taken fold by fold, can be sharper than the two
# scores alone: see the last column.
names = list(comparison.values)
figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
for row, name in enumerate(names):
    mean, lower, upper = comparison.interval(name, "f1_macro")
    axes.errorbar(mean, row, xerr=upper - mean, fmt="o", color="#0072B2", capsize=4)
axes.set_yticks(range(len(names)), names)
axes.invert_yaxis()
axes.set(xlabel="macro-F1, mean and 95 % interval over three folds", ylabel="setting")
axes.set_xlim(right=1)
axes.grid(axis="x", alpha=0.3)
figure.savefig(options.figure, dpi=120)
