"""
Saving a classifier and serving it
==================================

A fitted classifier leaves Python's memory in two ways. ``save_pretrained`` writes all of it, to be
trained on, shared or read by transformers. ``to_onnx`` writes what predictions need, for a machine
without torch. Both answer as the estimator does; this example checks it, and compares how long one
document has to wait.

``python examples/plot_save_and_serve.py --figure FILE`` saves the figure.
"""

import argparse
import tempfile
import time
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.model_selection import train_test_split

from skfocal import BertFocalClassifier, OnnxClassifier, fetch_minilm, fetch_reuters

parser = argparse.ArgumentParser(description="Saving a classifier and serving it")
parser.add_argument("--figure", help="file for the figure; without it, it is shown")
options, _ = parser.parse_known_args()  # a notebook has arguments of its own

# %%
# Something to save: a stratified part of Reuters R8. 64 tokens of each document are enough here,
# which the classifier would warn of.
warnings.filterwarnings("ignore", message=".*max_length")
X, y = fetch_reuters("r8", subset="train", return_X_y=True)
X, _, y, _ = train_test_split(X, y, train_size=300, stratify=y, random_state=0)
X_test, y_test = fetch_reuters("r8", subset="test", return_X_y=True)
X_test, y_test = X_test[:200], y_test[:200]
clf = BertFocalClassifier(
    fetch_minilm(), alpha="balanced", freeze=5, lr=1e-3, max_length=64, random_state=0
)
clf.fit(X, y)


def size(folder):
    """Return the megabytes of a folder's files."""
    return sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e6


# %%
# The whole estimator
# -------------------
# The folder holds JSON and safetensors, no pickles, so it is safe to open one from a stranger.
# What comes back gives the same bits.
work = tempfile.TemporaryDirectory()
folder = Path(work.name, "classifier")
clf.save_pretrained(folder, metrics={"accuracy": clf.score(X_test, y_test)})
print(f"{size(folder):.0f} MB:", *sorted(file.name for file in folder.iterdir()))
again = BertFocalClassifier.from_pretrained(folder)
proba = clf.predict_proba(X_test)
print("the same bits:", np.array_equal(again.predict_proba(X_test), proba))

# %%
# Predictions alone
# -----------------
# The graph has the inverse of the loss and the decision in it. ``OnnxClassifier`` needs numpy,
# onnxruntime and tokenizers.
folder = Path(work.name, "served")
clf.to_onnx(folder)
print(f"{size(folder):.0f} MB:", *sorted(file.name for file in folder.iterdir()))
served = OnnxClassifier(folder, n_threads=torch.get_num_threads())  # as many as the estimator
print("the same labels:", np.array_equal(served.predict(X_test), clf.predict(X_test)))
difference = np.abs(served.predict_proba(X_test) - proba).max()
print(f"largest difference of a probability: {difference:.1e}")

# %%
# How long a request takes
# ------------------------
# A server often gets one document at a time. The two take turns, so that a busy moment of the
# machine meets both. Each document has its own length, hence the spread.
waits = {"estimator": [], "ONNX Runtime": []}
for text in X_test[:60]:
    for name, model in {"estimator": clf, "ONNX Runtime": served}.items():
        start = time.perf_counter()
        model.predict([text])
        waits[name].append(1000 * (time.perf_counter() - start))
for name, values in waits.items():
    median, late = np.quantile(values, [0.5, 0.95])
    print(f"{name:13s} half of them within {median:5.1f} ms, 95 % within {late:5.1f} ms")

# %%
# Many documents at once are another matter: there the encoder's arithmetic is all that counts. A
# comparison with more of it is in the benchmarks.
for name, model in {"estimator": clf, "ONNX Runtime": served}.items():
    start = time.perf_counter()
    model.predict(X_test)
    print(f"{name:13s} {len(X_test) / (time.perf_counter() - start):4.0f} documents a second")
work.cleanup()

figure, axes = plt.subplots(figsize=(6.4, 4.6), layout="constrained")
styles = {"estimator": ("#E69F00", "--"), "ONNX Runtime": ("#0072B2", "-")}
for name, (colour, line) in styles.items():
    axes.ecdf(waits[name], color=colour, linestyle=line, linewidth=2, label=name)
axes.set(xlabel="time for one document, ms", ylabel="share of the requests answered")
axes.set_xlim(left=0)
axes.grid(alpha=0.3)
axes.legend(loc="lower right")
if options.figure:
    figure.savefig(options.figure, dpi=120)
plt.show()
