"""
Grid search over gamma and alpha
================================

Which focusing parameter and which class weights fit a data set is a question for cross-validation.
``BertFocalClassifier`` is a scikit-learn classifier, so ``GridSearchCV`` answers it. The texts are
real newswire (Reuters R8), the encoder is the real all-MiniLM-L6-v2.

Run it with ``python examples/plot_grid_search_gamma_alpha.py``; ``--figure`` names the file.
"""

import argparse
import warnings

import matplotlib

matplotlib.use("Agg")  # the figure goes to a file
import numpy as np
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from skfocal import (
    BertFocalClassifier,
    GridSearchDisplay,
    cache_info,
    fetch_minilm,
    fetch_reuters,
)
from skfocal.balance import stratified_holdout

parser = argparse.ArgumentParser(description="Grid search over gamma and alpha")
parser.add_argument("--figure", default="grid_search.png")
options = parser.parse_args()

# %%
# A stratified part of the training documents; classes with fewer than three are left out,
# because each of the three folds needs one.
X, y = fetch_reuters("r8", subset="train", return_X_y=True)
codes = np.unique(y, return_inverse=True)[1]
rows, _ = stratified_holdout(codes, 1 - 300 / len(X), np.random.RandomState(0))
rows = [row for row in rows if (codes[rows] == codes[row]).sum() >= 3]
X, y = [X[i] for i in rows], y[rows]
classes, counts = np.unique(y, return_counts=True)
print({str(label): int(n) for label, n in zip(classes, counts, strict=True)})

# %%
# With ``freeze=5`` only the uppermost layer and the head learn. The output of the five frozen
# layers is computed once for each document and used by all folds and candidates.
clf = BertFocalClassifier(
    fetch_minilm(), freeze=5, lr=1e-3, max_epochs=3, max_length=64, random_state=0
)
search = GridSearchCV(
    clf,
    {"gamma": [0, 1, 2, 5], "alpha": [None, "balanced"]},
    cv=StratifiedKFold(3, shuffle=True, random_state=0),
    scoring="f1_macro",
    refit=False,
)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # 64 tokens cut half of these documents: speed is wanted here
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
# The frame marks the best cell. Where neighbours differ by less than the spread over the folds,
# the search has not told them apart: prefer the simpler setting, or use more folds.
display = GridSearchDisplay.from_estimator(search)
display.figure_.savefig(options.figure, dpi=120)
