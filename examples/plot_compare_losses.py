"""
Comparing losses fairly
=======================

A single score for each loss says little, because scores change with the fold and the random state.
``compare_losses`` runs every setting, plain cross-entropy and a model of word counts on the same
folds. Its confidence intervals take into account that the folds share training documents.

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
# We use a stratified part of Reuters R8. 64 tokens per document are enough here, so we silence the
# warning that documents are cut.
warnings.filterwarnings("ignore", message=".*max_length")
X, y = fetch_reuters("r8", subset="train", return_X_y=True)
X, _, y, _ = train_test_split(X, y, train_size=400, stratify=y, random_state=0)

# %%
# With ``freeze=5``, the output of the frozen layers is computed once for the whole comparison.
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
# Three folds of about 130 documents give wide intervals. Where two intervals overlap widely, the
# comparison has shown no difference. Intervals are symmetric and may reach beyond 1. The last
# column has the difference from cross-entropy. It is computed fold by fold, so its interval can be
# narrower than those of the two scores suggest.
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
