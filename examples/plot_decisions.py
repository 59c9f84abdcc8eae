"""
Decisions that fit what they cost
=================================

Choosing the class with the largest probability gives the best accuracy. It may still be the wrong
rule, if rare classes matter as much as frequent ones, or if a missed document costs more than a
false alarm. This example changes the decision for both cases without training again.

``python examples/plot_decisions.py --figure FILE`` saves the first figure.
"""

import argparse
import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, make_scorer
from sklearn.model_selection import TunedThresholdClassifierCV, train_test_split

from skfocal import BertFocalClassifier, fetch_minilm, fetch_reuters

parser = argparse.ArgumentParser(description="Decisions that fit what they cost")
parser.add_argument("--figure", help="file for the figure; without it, it is shown")
options, _ = parser.parse_known_args()  # a notebook has arguments of its own

# %%
# We use a stratified part of Reuters R8. 64 tokens per document are enough here, so we silence the
# warning that documents are cut.
warnings.filterwarnings("ignore", message=".*max_length")


def part(subset, n_documents):
    """Return `n_documents` documents, with the class shares of the whole subset."""
    X, y = fetch_reuters("r8", subset=subset, return_X_y=True)
    X, _, y, _ = train_test_split(X, y, train_size=n_documents, stratify=y, random_state=0)
    return X, y


X, y = part("train", 500)
X_test, y_test = part("test", 400)

# %%
# When all classes matter equally
# -------------------------------
# We train one network without class weights and let it decide in three ways. ``"argmax"`` chooses
# the largest probability. ``"prior"`` decides as if the classes had the shares in ``prior``.
# ``"tuned"`` adds offsets that maximise ``scoring`` on held-out documents. ``fit`` looks for them,
# so set ``"tuned"`` before ``fit``; you can set the other two afterwards.
base = BertFocalClassifier(
    fetch_minilm(), freeze=5, lr=1e-3, max_epochs=3, max_length=64, random_state=0
)
clf = clone(base).set_params(decision="tuned", train_split=0.2, scoring="f1_macro").fit(X, y)
ways = {"argmax": {}, "prior": {"prior": "uniform"}, "tuned": {}}
each = {}
print("decision  accuracy  balanced accuracy  macro-F1")
for way, settings in ways.items():
    predicted = clf.set_params(decision=way, **settings).predict(X_test)
    each[way] = f1_score(y_test, predicted, average=None, labels=clf.classes_, zero_division=0)
    print(
        f"{way:8s} {accuracy_score(y_test, predicted):9.3f} "
        f"{balanced_accuracy_score(y_test, predicted):18.3f} {each[way].mean():9.3f}"
    )

# %%
# The rarest classes change most. The rarest have only one or two test documents, so each document
# makes a large step. The benchmarks compare these decisions over several seeds.
order = np.argsort(-clf.class_prior_)
names = [f"{clf.classes_[i]} ({(y == clf.classes_[i]).sum()})" for i in order]
figure, axes = plt.subplots(figsize=(6.4, 4.6), layout="constrained")
styles = {"argmax": ("#E69F00", "^"), "prior": ("#0072B2", "s"), "tuned": ("#009E73", "o")}
for i, (way, (colour, marker)) in enumerate(styles.items()):
    position = np.arange(len(order)) + (i - 1) * 0.2
    axes.plot(
        each[way][order], position, marker, color=colour, label=way, markersize=8, clip_on=False
    )
axes.set_yticks(range(len(order)), names)
axes.invert_yaxis()
axes.set(xlim=(0, 1), xlabel="F1 on the test documents", ylabel="class (training documents)")
axes.grid(axis="x", alpha=0.3)
figure.legend(loc="outside upper center", ncols=3, title="decision")
if options.figure:
    figure.savefig(options.figure, dpi=120)

# %%
# A threshold for two classes
# ---------------------------
# "Is this story about shipping, trade or grain?" Suppose that somebody reads each flagged story. A
# false alarm costs one minute, and a missed story costs twenty. scikit-learn's
# ``TunedThresholdClassifierCV`` finds the threshold with the least cost. We train the network once,
# on half of the documents, and freeze it. The other half is for tuning the threshold.
wanted = ("ship", "trade", "grain")
target, target_test = np.isin(y, wanted).astype(int), np.isin(y_test, wanted).astype(int)
half, tuning, target_half, target_tuning = train_test_split(
    X, target, test_size=0.5, stratify=target, random_state=0
)


def negative_cost(target, predicted):
    """Return minus the minutes, per document."""
    missed, false_alarm = (target > predicted).mean(), (target < predicted).mean()
    return -(20 * missed + false_alarm)


binary = clone(base).fit(half, target_half)
tuned = TunedThresholdClassifierCV(
    FrozenEstimator(binary),
    scoring=make_scorer(negative_cost),
    cv="prefit",
    refit=False,
    store_cv_results=True,
).fit(tuning, target_tuning)
print(f"threshold {tuned.best_threshold_:.3f}")
for name, model in {"one half": binary, "tuned": tuned}.items():
    predicted = model.predict(X_test)
    print(
        f"{name:9s} missed {(target_test > predicted).sum()} of {target_test.sum()}, "
        f"false alarms {(target_test < predicted).sum()}, "
        f"minutes a document {-negative_cost(target_test, predicted):.3f}"
    )

# %%
# If the probabilities are right, theory gives the threshold without a search: flag a story if
# ``20 p > 1 - p``, that is, if ``p`` is above 1 / 21. The search finds the best threshold for its
# documents. Where its curve is flat, many thresholds are equally good and it may find any of them.
figure, axes = plt.subplots(figsize=(6.4, 4.6), layout="constrained")
results = tuned.cv_results_
axes.plot(results["thresholds"], -results["scores"], color="#0072B2", label="tuning documents")
axes.axvline(tuned.best_threshold_, color="#D55E00", linestyle="--", label="tuned")
axes.axvline(0.5, color="black", linestyle=":", label="one half")
axes.axvline(1 / 21, color="#009E73", linestyle="-.", label="theory, 1 / 21")
axes.set(xlabel="threshold of the probability", ylabel="cost, minutes a document", xlim=(0, 1))
axes.legend()
plt.show()
