"""
Grid search over gamma and alpha
================================

Cross-validation tells you which focusing parameter gamma and which class weights fit your data.
``BertFocalClassifier`` is a scikit-learn classifier, so you can use ``GridSearchCV``. The texts are
real newswire (Reuters R8), and the encoder is the real all-MiniLM-L6-v2.

``python examples/plot_grid_search_gamma_alpha.py --figure FILE`` saves the figure.
"""

import argparse
import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split

from skfocal import (
    BertFocalClassifier,
    GridSearchDisplay,
    cache_info,
    fetch_minilm,
    fetch_reuters,
)

parser = argparse.ArgumentParser(description="Grid search over gamma and alpha")
parser.add_argument("--figure", help="file for the figure; without it, it is shown")
options, _ = parser.parse_known_args()  # a notebook has arguments of its own

# %%
# We use a stratified part of the training documents. It is large enough that each of the three
# folds has a document of the rarest class. 64 tokens per document are enough here, so we silence
# the warning that documents are cut.
warnings.filterwarnings("ignore", message=".*max_length")
X, y = fetch_reuters("r8", subset="train", return_X_y=True)
X, _, y, _ = train_test_split(X, y, train_size=400, stratify=y, random_state=0)
classes, counts = np.unique(y, return_counts=True)
print({str(label): int(n) for label, n in zip(classes, counts, strict=True)})

# %%
# With ``freeze=5`` only the top layer and the head learn. The output of the five frozen
# layers is computed once for each document, and all folds and candidates use it. With
# ``pooling="head"`` the top layer is computed for the first token alone: less accurate than the
# mean of the tokens, but much faster.
clf = BertFocalClassifier(
    fetch_minilm(),
    pooling="head",
    freeze=5,
    lr=1e-3,
    max_epochs=3,
    max_length=64,
    random_state=0,
)
search = GridSearchCV(
    clf,
    {"gamma": [0, 1, 2, 5], "alpha": [None, "balanced"]},
    cv=StratifiedKFold(3, shuffle=True, random_state=0),
    scoring="f1_macro",
    refit=False,
)
search.fit(X, y)
for params, mean, std in zip(
    search.cv_results_["params"],
    search.cv_results_["mean_test_score"],
    search.cv_results_["std_test_score"],
    strict=True,
):
    print(f"{params!s:40s} macro-F1 {mean:.3f} ± {std:.3f}")
print(cache_info())

# %%
# The frame marks the best cell. If neighbouring cells differ by less than the spread over the
# folds, the search has not shown a difference: prefer the simpler setting, or use more folds.
display = GridSearchDisplay.from_estimator(search)
if options.figure:
    display.figure_.savefig(options.figure, dpi=120)
plt.show()
