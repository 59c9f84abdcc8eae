"""
Comparing losses fairly
=======================

One number for each loss says little: scores move with the fold and with the random state.
``compare_losses`` runs every setting on the same folds, beside plain cross-entropy and word counts,
and gives intervals that know that folds share training documents.

``python examples/plot_compare_losses.py --figure FILE`` saves the figure.
"""

import argparse
import warnings

import matplotlib.pyplot as plt
from sklearn.model_selection import StratifiedKFold, train_test_split

from skfocal import BertFocalClassifier, compare_losses, fetch_minilm, fetch_reuters

parser = argparse.ArgumentParser(description="Comparing losses fairly")
parser.add_argument("--figure", help="file for the figure; without it, it is shown")
options, _ = parser.parse_known_args()  # a notebook has arguments of its own

# %%
# A stratified part of Reuters R8. 64 tokens of each document are enough here, which the
# classifier would warn of.
warnings.filterwarnings("ignore", message=".*max_length")
X, y = fetch_reuters("r8", subset="train", return_X_y=True)
X, _, y, _ = train_test_split(X, y, train_size=400, stratify=y, random_state=0)

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
    verbose=0,
)
print(comparison)

# %%
# Three folds of some hundred documents give wide intervals, and those that overlap far have told
# nothing apart. Intervals are symmetric and may reach beyond 1. The difference to
# cross-entropy, taken fold by fold, can be sharper than the two scores alone: see the last column.
names = list(comparison.values)
figure, axes = plt.subplots(figsize=(6.4, 4.6), layout="constrained")
for row, name in enumerate(names):
    mean, lower, upper = comparison.interval(name, "f1_macro")
    axes.errorbar(mean, row, xerr=upper - mean, fmt="o", color="#0072B2", capsize=4)
axes.set_yticks(range(len(names)), names)
axes.invert_yaxis()
axes.set(xlabel="macro-F1, mean and 95 % interval", ylabel="setting")
axes.set_xlim(right=1)
axes.grid(axis="x", alpha=0.3)
if options.figure:
    figure.savefig(options.figure, dpi=120)
plt.show()
