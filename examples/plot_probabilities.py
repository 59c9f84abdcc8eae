"""
Probabilities that can be trusted
=================================

A network that minimises cross-entropy estimates probabilities. Focal loss and class weights change
this estimate: gamma pushes the softmax towards uniform, and balanced weights make every class
count the same. ``proba`` says which probabilities you want. You can set it after ``fit`` without
training again. This example compares the probabilities with the true labels of test documents.

``python examples/plot_probabilities.py --figure FILE`` saves the first figure.
"""

import argparse
import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import clone
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import train_test_split

from skfocal import (
    BertFocalClassifier,
    ReliabilityDisplay,
    expected_calibration_error,
    fetch_minilm,
    fetch_reuters,
)

parser = argparse.ArgumentParser(description="Probabilities that can be trusted")
parser.add_argument("--figure", help="file for the figure; without it, it is shown")
options, _ = parser.parse_known_args()  # a notebook has arguments of its own

# %%
# We use stratified parts of Reuters R8: 400 documents for training, 600 for testing. 64 tokens per
# document are enough here, so we silence the warning that documents are cut.
warnings.filterwarnings("ignore", message=".*max_length")


def part(subset, n_documents):
    """Return `n_documents` documents, with the class shares of the whole subset."""
    X, y = fetch_reuters("r8", subset=subset, return_X_y=True)
    X, _, y, _ = train_test_split(X, y, train_size=n_documents, stratify=y, random_state=0)
    return X, y


X, y = part("train", 400)
X_test, y_test = part("test", 600)

# %%
# What gamma does
# ---------------
# We train one network with cross-entropy and one with focal loss. For the second we look at the
# softmax and at the ``"natural"`` probabilities, which undo gamma in closed form.
base = BertFocalClassifier(
    fetch_minilm(), freeze=5, lr=1e-3, max_epochs=4, max_length=64, random_state=0
)
plain = clone(base).set_params(loss="cross_entropy").fit(X, y)
focal = clone(base).set_params(gamma=5.0).fit(X, y)
probabilities = {
    "cross-entropy": plain.predict_proba(X_test),
    "focal, softmax": focal.set_params(proba="softmax").predict_proba(X_test),
    "focal, natural": focal.set_params(proba="natural").predict_proba(X_test),
}
classes = plain.classes_
print(f"{'':16s} accuracy  log-loss     ECE  mean confidence")
for name, proba in probabilities.items():
    accuracy = accuracy_score(y_test, classes[proba.argmax(axis=1)])
    ece = expected_calibration_error(y_test, proba, classes=classes, n_bins=5)
    print(
        f"{name:16s} {accuracy:8.3f} {log_loss(y_test, proba, labels=classes):9.3f} {ece:7.3f}"
        f"{proba.max(axis=1).mean():17.3f}"
    )

# %%
# The two focal rows are the same network with the same accuracy, because undoing gamma changes no
# decision. But the confidence of the softmax is far below its accuracy, and undoing gamma closes
# most of this gap. Points above the dotted line are under-confident, points below it are
# over-confident. Bins with few documents scatter. The expected calibration error (ECE) in the
# legend weighs each bin by its number of documents.
styles = {"cross-entropy": ("#E69F00", "^"), "focal, softmax": ("#D55E00", "o")}
styles["focal, natural"] = ("#0072B2", "s")
figure, axes = plt.subplots(figsize=(6.4, 4.6), layout="constrained")
for name, (colour, marker) in styles.items():
    ReliabilityDisplay.from_predictions(
        y_test,
        probabilities[name],
        classes=classes,
        n_bins=5,
        name=name,
        ax=axes,
        color=colour,
        marker=marker,
    )
axes.set(xlabel="confidence of the prediction", ylabel="accuracy of such predictions")
if options.figure:
    figure.savefig(options.figure, dpi=120)

# %%
# What class weights do
# ---------------------
# ``alpha="balanced"`` trains as if all classes were equally frequent, so the network finds more
# documents of rare classes. The default probabilities, ``"reweighted"``, make the same assumption.
# ``"natural"`` removes the weights again, so rare classes get smaller probabilities.
balanced = clone(base).set_params(gamma=2.0, alpha="balanced").fit(X, y)
shares = {"test documents": (y_test[:, None] == classes).mean(axis=0)}
losses = {}
for name in ("reweighted", "natural"):
    proba = balanced.set_params(proba=name).predict_proba(X_test)
    shares[name] = proba.mean(axis=0)
    losses[name] = log_loss(y_test, proba, labels=classes)
rare = np.argsort(shares["test documents"])[:6][::-1]
print(f"{'share of':14s}" + "".join(f"{label:>10s}" for label in classes[rare]) + "  log-loss")
for name, values in shares.items():
    loss = f"{losses[name]:10.3f}" if name in losses else ""
    print(f"{name:14s}" + "".join(f"{value:10.3f}" for value in values[rare]) + loss)

# %%
# Which of the two is nearer to the truth depends on the data. In the limit of many documents the
# natural probabilities are right. But weights hardly affect a large network that fits a few hundred
# documents nearly perfectly, and then undoing them in full may be too much. Compare the log-loss on
# documents that took no part in training, as here.
figure, axes = plt.subplots(figsize=(6.4, 4.6), layout="constrained")
colours = ["black", "#E69F00", "#0072B2"]
for i, (name, values) in enumerate(shares.items()):
    axes.bar(np.arange(6) + (i - 1) * 0.27, values[rare], 0.27, label=name, color=colours[i])
axes.set_xticks(range(6), classes[rare])
axes.set(xlabel="class", ylabel="share, mean probability")
axes.legend()
plt.show()
