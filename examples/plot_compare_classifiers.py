"""
Comparing two classifiers on the same documents
===============================================

Is the fine-tuned encoder better than words and a linear model? In which classes, and how sure is
that? ``compare_classifiers`` answers with differences that have intervals, with a test, and with
the documents that changed sides.

``python examples/plot_compare_classifiers.py --figure FILE`` saves the figure.
"""

import argparse
import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from skfocal import BertFocalClassifier, compare_classifiers, fetch_minilm, fetch_reuters

parser = argparse.ArgumentParser(description="Comparing two classifiers")
parser.add_argument("--figure", help="file for the figure; without it, it is shown")
options, _ = parser.parse_known_args()  # a notebook has arguments of its own

# %%
# We take a part of Reuters R52, with 52 classes of which most are rare. 32 tokens per story are
# enough here, so we silence the warning that documents are cut.
warnings.filterwarnings("ignore", message=".*max_length")


def part(subset, n_documents):
    """Return `n_documents` stories."""
    X, y = fetch_reuters("r52", subset=subset, return_X_y=True)
    rows = np.random.RandomState(0).choice(len(X), n_documents, replace=False)
    return [X[i] for i in rows], y[rows]


X, y = part("train", 500)
X_test, y_test = part("test", 800)
known = np.isin(y_test, y)
X_test, y_test = [x for x, is_known in zip(X_test, known, strict=True) if is_known], y_test[known]

# %%
# The two classifiers. Of the encoder, only the upper layer is trained.
words = make_pipeline(
    TfidfVectorizer(sublinear_tf=True),
    LogisticRegression(C=10, class_weight="balanced", max_iter=1000),
).fit(X, y)
bert = BertFocalClassifier(
    fetch_minilm(),
    alpha="sqrt",
    pooling="mean",
    max_length=32,
    freeze=5,
    lr=1e-3,
    max_epochs=3,
    random_state=0,
).fit(X, y)

# %%
# The differences are those of the second minus the first. If an interval includes 0, these
# documents have not shown a difference. McNemar's test looks at the documents that only one of the
# two gets right.
comparison = compare_classifiers(words, bert, X_test, y_test, names=("words", "MiniLM"))
print(comparison)

# %%
# For most rare classes, no interval would be worth its name, but you can count.
table = comparison.per_class
print("\nclass             documents  only words  only MiniLM    F1")
for k in np.flatnonzero(table["only_a"] + table["only_b"] >= 2)[:12]:
    print(
        f"{table['label'][k]:18s} {table['support'][k]:8d} {table['only_a'][k]:11d} "
        f"{table['only_b'][k]:12d}  {table['f1_difference'][k]:+.3f}"
    )

# %%
# The documents that changed sides, those of rare classes first. ``comparison.save("page.html")``
# writes all of this into one page.
changed = comparison.changed
for side, name in (("b", "MiniLM"), ("a", "words")):
    rows = [i for i, right in enumerate(changed["right"]) if right == side]
    print(f"\nonly {name} is right: {len(rows)}")
    for i in rows[:3]:
        print(f"  {changed['true'][i]}, not {changed['a' if side == 'b' else 'b'][i]}: ", end="")
        print(changed["document"][i][:60])

# %%
# A point without a line stands for a class with too few documents for an interval.
figure, axes = plt.subplots(figsize=(6.4, 7), layout="constrained")
comparison.plot(ax=axes)
if options.figure:
    figure.savefig(options.figure, dpi=120)
plt.show()
