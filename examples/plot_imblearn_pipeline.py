"""
Resampling before the classifier, or in it
==========================================

imbalanced-learn's samplers repeat or drop documents before the classifier sees them. The classifier
can also correct the imbalance itself, with class weights (``alpha``) or with a sampler that draws
each epoch anew. This example compares them on real newswire (Reuters R8), and tunes the resampler
and gamma together in one grid.

``python examples/plot_imblearn_pipeline.py --figure FILE`` saves the figure.
"""

import argparse
import warnings

import matplotlib.pyplot as plt
import numpy as np
from imblearn.over_sampling import RandomOverSampler
from imblearn.pipeline import Pipeline
from imblearn.under_sampling import RandomUnderSampler
from sklearn.base import clone
from sklearn.metrics import balanced_accuracy_score, f1_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split
from sklearn.preprocessing import FunctionTransformer

from skfocal import BertFocalClassifier, as_column, fetch_minilm, fetch_reuters

parser = argparse.ArgumentParser(description="Resampling before the classifier, or in it")
parser.add_argument("--figure", help="file for the figure; without it, it is shown")
options, _ = parser.parse_known_args()  # a notebook has arguments of its own

# %%
# We use stratified parts of the training documents and of the test documents. 64 tokens per
# document are enough here, so we silence the warning that documents are cut.
warnings.filterwarnings("ignore", message=".*max_length")


def part(subset, n_documents):
    """Return `n_documents` documents, with the class shares of the whole subset."""
    X, y = fetch_reuters("r8", subset=subset, return_X_y=True)
    X, _, y, _ = train_test_split(X, y, train_size=n_documents, stratify=y, random_state=0)
    return X, y


X, y = part("train", 300)
X_test, y_test = part("test", 400)
classes, counts = np.unique(y, return_counts=True)
print({str(label): int(n) for label, n in zip(classes, counts, strict=True)})

# %%
# ``as_column`` turns the list of texts into the column that the samplers need.
clf = BertFocalClassifier(
    fetch_minilm(), freeze=5, lr=1e-3, max_epochs=3, max_length=64, random_state=0
)


def resampled(sampler):
    """Return a pipeline with a sampler from imbalanced-learn before the classifier."""
    return Pipeline(
        [("column", FunctionTransformer(as_column)), ("sampler", sampler), ("clf", clone(clf))]
    )


rivals = {
    "nothing": clf,
    "RandomUnderSampler": resampled(RandomUnderSampler(random_state=0)),
    "RandomOverSampler": resampled(RandomOverSampler(random_state=0)),
    'alpha="balanced"': clone(clf).set_params(alpha="balanced"),
    'sampler="balanced"': clone(clf).set_params(sampler="balanced"),
}
scores = {}
for name, model in rivals.items():
    predicted = model.fit(X, y).predict(X_test)
    scores[name] = (
        f1_score(y_test, predicted, average="macro"),
        balanced_accuracy_score(y_test, predicted),
    )
    print(f"{name:20s} macro-F1 {scores[name][0]:.3f}  balanced accuracy {scores[name][1]:.3f}")

# %%
# An oversampled epoch is longer, so part of its gain comes from more training. An undersampled
# epoch sees only a few documents of each class. One grid tunes the resampler and gamma together.
search = GridSearchCV(
    resampled(RandomOverSampler(random_state=0)),
    {"sampler": ["passthrough", RandomOverSampler(random_state=0)], "clf__gamma": [0, 2]},
    cv=StratifiedKFold(2, shuffle=True, random_state=0),
    scoring="f1_macro",
    refit=False,
)
search.fit(X, y)
for params, mean in zip(
    search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True
):
    print(f"gamma={params['clf__gamma']}, {params['sampler']}: macro-F1 {mean:.3f}")

# %%
# The figure shows one run of each on small data, so differences of a few points are noise.
figure, axes = plt.subplots(figsize=(6.4, 4.6), layout="constrained")
position = np.arange(len(scores))
for i, (metric, colour) in enumerate(
    {"macro-F1": "#0072B2", "balanced accuracy": "#E69F00"}.items()
):
    values = [score[i] for score in scores.values()]
    axes.barh(position + (i - 0.5) * 0.38, values, 0.38, label=metric, color=colour)
axes.set_yticks(position, scores)
axes.invert_yaxis()
axes.set(xlim=(0, 1), xlabel="score on the test documents", ylabel="correction")
figure.legend(loc="outside upper center", ncols=2)
if options.figure:
    figure.savefig(options.figure, dpi=120)
plt.show()
