"""
The features of a fine-tuned encoder
====================================

``transform`` returns one vector per document: what the last layer computes the logits from. So a
fine-tuned encoder can be a step before any other estimator. Here it is a step before nearest
neighbours, which answer with documents that are alike, and it stands beside a column of numbers.
It needs pandas.

``python examples/plot_features.py --figure FILE`` saves the figure.
"""

import argparse
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.metrics import accuracy_score, f1_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skfocal import BertFocalClassifier, fetch_minilm, fetch_reuters

parser = argparse.ArgumentParser(description="The features of a fine-tuned encoder")
parser.add_argument("--figure", help="file for the figure; without it, it is shown")
options, _ = parser.parse_known_args()  # a notebook has arguments of its own

# %%
# We use Reuters R8, whose eight classes are very unequal. 32 tokens per story are enough here, so
# we silence the warning that documents are cut.
warnings.filterwarnings("ignore", message=".*max_length")


def part(subset, n_documents):
    """Return `n_documents` stories."""
    X, y = fetch_reuters("r8", subset=subset, return_X_y=True)
    rows = np.random.RandomState(0).choice(len(X), n_documents, replace=False)
    return [X[i] for i in rows], y[rows]


X, y = part("train", 300)
X_test, y_test = part("test", 500)

# %%
# With ``max_epochs=0``, the encoder stays as it was pretrained, and `refit_head` fits a balanced
# linear layer to it. This takes seconds, and is the first thing to beat.
settings = {"pooling": "mean", "max_length": 32, "random_state": 0}
frozen = BertFocalClassifier(fetch_minilm(), max_epochs=0, refit_head="balanced", **settings)
frozen.fit(X, y)

# Of the fine-tuned one, only the upper three layers are trained. That is faster.
tuned = BertFocalClassifier(
    fetch_minilm(), sampler="sqrt", freeze=3, lr=5e-4, max_epochs=3, **settings
)

# %%
# Nearest neighbours follow the encoder in a pipeline. Its ``fit`` trains the encoder first.
neighbours = make_pipeline(tuned, KNeighborsClassifier(5, metric="cosine")).fit(X, y)
tuned = neighbours[0]

# %%
# A ``ColumnTransformer`` puts the features beside a column of numbers: the length of the whole
# story, of which the encoder reads only the beginning. ``FrozenEstimator`` keeps the encoder that
# has already been trained.
table, table_test = (
    pd.DataFrame({"text": texts, "words": [np.log(len(text.split())) for text in texts]})
    for texts in (X, X_test)
)
columns = make_column_transformer((FrozenEstimator(tuned), "text"), (StandardScaler(), ["words"]))
both = make_pipeline(columns, LogisticRegression(class_weight="balanced", C=0.1, max_iter=1000))
both.fit(table, y)

predicted = {
    "frozen encoder": frozen.predict(X_test),
    "fine-tuned": tuned.predict(X_test),
    "fine-tuned, neighbours": neighbours.predict(X_test),
    "fine-tuned, beside a number": both.predict(table_test),
}
print(f"{'':28s} accuracy  macro-F1")
for name, labels in predicted.items():
    accuracy, macro = accuracy_score(y_test, labels), f1_score(y_test, labels, average="macro")
    print(f"{name:28s} {accuracy:8.3f} {macro:9.3f}")

# %%
# Neighbours are documents, so you can read why a story got its label.
distances, rows = neighbours[-1].kneighbors(tuned.transform(X_test[:1]), n_neighbors=3)
print(f"{y_test[0]}: {X_test[0][:70]}")
for distance, row in zip(distances[0], rows[0], strict=True):
    print(f"  {distance:.3f}  {y[row]}: {X[row][:60]}")

# %%
# The figure shows the test stories in the plane, before and after fine-tuning. t-SNE keeps near
# what is near.
figure, panels = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
colours = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#999999"]
for axes, (title, model) in zip(
    panels, {"pretrained": frozen, "fine-tuned": tuned}.items(), strict=True
):
    points = TSNE(metric="cosine", random_state=0).fit_transform(model.transform(X_test))
    for label, colour in zip(np.unique(y), colours, strict=True):
        axes.scatter(*points[y_test == label].T, s=14, color=colour, label=label)
    axes.set(title=title, xticks=[], yticks=[])
figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=8)
if options.figure:
    figure.savefig(options.figure, dpi=120)
plt.show()
