"""
Where the classes meet
======================

Which classes does a classifier confuse, and why? ``ConfusedPairsDisplay`` names the pairs of
classes that are most often taken for each other. For each it shows the most typical documents of
both sides, and the words that tell them apart. ``FeatureMapDisplay`` draws the documents in the
plane, by the features of the fine-tuned encoder.

``python examples/plot_where_classes_meet.py --figure FILE`` saves the figure.
"""

import argparse
import warnings

import matplotlib.pyplot as plt
import numpy as np

from skfocal import (
    BertFocalClassifier,
    ConfusedPairsDisplay,
    FeatureMapDisplay,
    fetch_minilm,
    fetch_reuters,
)

parser = argparse.ArgumentParser(description="Where the classes meet")
parser.add_argument("--figure", help="file for the figure; without it, it is shown")
options, _ = parser.parse_known_args()  # a notebook has arguments of its own

# %%
# Reuters R52 has 52 classes: "earn" has 2,840 training stories, others one or two. We take a part
# of it, of which we leave out the test stories whose class is not among the training stories. 32
# tokens per story are enough here, so we silence the warning that documents are cut.
warnings.filterwarnings("ignore", message=".*max_length")


def part(subset, n_documents):
    """Return `n_documents` stories."""
    X, y = fetch_reuters("r52", subset=subset, return_X_y=True)
    rows = np.random.RandomState(0).choice(len(X), n_documents, replace=False)
    return [X[i] for i in rows], y[rows]


X, y = part("train", 500)
X_test, y_test = part("test", 500)
known = np.isin(y_test, y)
X_test, y_test = [x for x, is_known in zip(X_test, known, strict=True) if is_known], y_test[known]

# %%
# Only the upper layer is trained, which takes half a minute on two cores.
clf = BertFocalClassifier(
    fetch_minilm(),
    alpha="sqrt",
    pooling="mean",
    max_length=32,
    freeze=5,
    lr=1e-3,
    max_epochs=3,
    random_state=0,
)
clf.fit(X, y)
print(f"accuracy {clf.score(X_test, y_test):.3f}")

# %%
# Pairs of classes that are confused
# ----------------------------------
# The words come from the stories themselves. If they do not tell the two classes apart for you
# either, the labels may overlap. A notebook shows longer excerpts, side by side.
figure, (left, right) = plt.subplots(
    1, 2, figsize=(11, 4.4), layout="constrained", width_ratios=(2, 3)
)
pairs = ConfusedPairsDisplay.from_estimator(clf, X_test, y_test, ax=left)
print(pairs)

# %%
# A map of the features
# ---------------------
# The axes of this map show only a part of the variance, as their labels say, so groups that overlap
# here may lie apart in other dimensions. With umap-learn, ``method="umap"`` draws a map that keeps
# neighbours together. We give colours to the classes of the first two pairs; without `labels`, the
# most frequent classes and some rare ones would have them.
confused = [*pairs.pairs["first"][:2], *pairs.pairs["second"][:2]]
map_ = FeatureMapDisplay.from_estimator(
    clf, X_test, y_test, labels=list(dict.fromkeys(confused)), ax=right
)
print(f"shown: {100 * map_.explained_variance_ratio.sum():.0f} % of the variance")
left.set_title("taken for each other", y=1.12)
right.set_title("features of the test stories", y=1.12)
if options.figure:
    figure.savefig(options.figure, dpi=120)
plt.show()
