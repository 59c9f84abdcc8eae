"""
Word counts and an encoder together
===================================

TF-IDF with a linear model knows every word that it has seen, but no meaning. The encoder knows
meaning, but with few documents it is unsure about names and jargon. scikit-learn's
``StackingClassifier`` learns from cross-validated probabilities how far to trust each of them.

``python examples/plot_stacking.py --figure FILE`` saves the figure.
"""

import argparse
import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.ensemble import StackingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, log_loss
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline

from skfocal import BertFocalClassifier, fetch_20newsgroups_cachopo, fetch_minilm

parser = argparse.ArgumentParser(description="Word counts and an encoder together")
parser.add_argument("--figure", help="file for the figure; without it, it is shown")
options, _ = parser.parse_known_args()  # a notebook has arguments of its own

# %%
# We use messages from the five computer groups of 20 Newsgroups, which are hard to tell apart. 64
# tokens per message are enough for the encoder here, so we silence the warning that documents are
# cut. The word counts use the whole message.
warnings.filterwarnings("ignore", message=".*max_length")


def part(subset, n_documents):
    """Return `n_documents` messages to the computer groups."""
    X, y = fetch_20newsgroups_cachopo(subset=subset, return_X_y=True)
    rows = np.flatnonzero(np.char.startswith(y, "comp."))
    rows = np.random.RandomState(0).choice(rows, n_documents, replace=False)
    return [X[i] for i in rows], y[rows]


X, y = part("train", 500)
X_test, y_test = part("test", 500)

# %%
# The final model sees ten columns: five probabilities from each of the two models. These come from
# cross-validation, so the final model learns how far to trust each model on new documents.
words = make_pipeline(
    TfidfVectorizer(sublinear_tf=True), LogisticRegression(C=10, class_weight="balanced")
)
encoder = BertFocalClassifier(
    fetch_minilm(), freeze=5, lr=1e-3, max_epochs=4, max_length=64, random_state=0
)
stack = StackingClassifier(
    [("words", words), ("encoder", encoder)],
    final_estimator=LogisticRegression(),
    cv=StratifiedKFold(3, shuffle=True, random_state=0),
    stack_method="predict_proba",
)
stack.fit(X, y)
rivals = {"words": stack.named_estimators_["words"], "encoder": stack.named_estimators_["encoder"]}
rivals["both, stacked"] = stack
scores, right = {}, {}
print(f"{'':14s} accuracy  macro-F1  log-loss")
for name, model in rivals.items():
    proba = model.predict_proba(X_test)
    predicted = stack.classes_[proba.argmax(axis=1)]
    scores[name] = f1_score(y_test, predicted, average=None)
    right[name] = predicted == y_test
    print(
        f"{name:14s} {accuracy_score(y_test, predicted):8.3f} {scores[name].mean():9.3f} "
        f"{log_loss(y_test, proba):9.3f}"
    )
print(f"{(right['words'] & ~right['encoder']).sum()} messages that only the words get right")
print(f"{(right['encoder'] & ~right['words']).sum()} messages that only the encoder gets right")

# %%
# Stacking helps if the models make different mistakes. A weight of the final model says how much a
# model's probability for a class adds to the score of that class. A model with cautious
# probabilities gets large weights, so the weights do not say which model is better.
coefficients = stack.final_estimator_.coef_
n = len(stack.classes_)
for i, label in enumerate(stack.classes_):
    print(f"{label:26s} words {coefficients[i, i]:5.2f}  encoder {coefficients[i, n + i]:5.2f}")

# %%
# The figure shows the F1 of each group.
figure, axes = plt.subplots(figsize=(6.4, 4.6), layout="constrained")
styles = {"words": ("#E69F00", "^"), "encoder": ("#009E73", "o"), "both, stacked": ("#0072B2", "s")}
for i, (name, (colour, marker)) in enumerate(styles.items()):
    position = np.arange(n) + (i - 1) * 0.15
    axes.plot(scores[name], position, marker, color=colour, label=name, markersize=8)
axes.set_yticks(range(n), [label.removeprefix("comp.") for label in stack.classes_])
axes.invert_yaxis()
axes.set(xlabel="F1 on the test messages", ylabel="group of comp.")
axes.grid(axis="x", alpha=0.3)
figure.legend(loc="outside upper center", ncols=3)
if options.figure:
    figure.savefig(options.figure, dpi=120)
plt.show()
