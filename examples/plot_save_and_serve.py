"""
Saving a classifier and serving it
==================================

You can save a fitted classifier in two ways. ``save_pretrained`` writes the whole classifier, so
that you can continue training, share it or read it with sentence-transformers. ``to_onnx`` writes
only what predictions need, for a machine without torch (``pip install 'skfocal[onnx]'``). Both
predict the same as the estimator, up to rounding. This example checks that, and compares how long a
prediction takes for one document.

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
# First we train on a stratified part of Reuters R8, to have a classifier to save. 64 tokens per
# document are enough here, so we silence the warning that documents are cut.
warnings.filterwarnings("ignore", message=".*max_length")
X, y = fetch_reuters("r8", subset="train", return_X_y=True)
X, _, y, _ = train_test_split(X, y, train_size=300, stratify=y, random_state=0)
X_test, y_test = fetch_reuters("r8", subset="test", return_X_y=True)
X_timed, X_test, y_test = X_test[200:], X_test[:200], y_test[:200]
clf = BertFocalClassifier(
    fetch_minilm(), alpha="balanced", freeze=5, lr=1e-3, max_length=64, random_state=0
)
clf.fit(X, y)


def files_in(folder):
    """Return the paths of all files in a folder and its folders."""
    return sorted(path for path in Path(folder).rglob("*") if path.is_file())


def size(folder):
    """Return the size of the files in a folder and its folders, in megabytes."""
    return sum(file.stat().st_size for file in files_in(folder)) / 1e6


# %%
# The whole estimator
# -------------------
# The folder contains JSON and safetensors files and no pickles, so you can safely open one from a
# stranger. The loaded classifier gives exactly the same probabilities, to the last bit.
work = tempfile.TemporaryDirectory()
folder = Path(work.name, "classifier")
clf.save_pretrained(folder, metrics={"accuracy": clf.score(X_test, y_test)})
print(f"{size(folder):.0f} MB:", *(file.relative_to(folder) for file in files_in(folder)))
again = BertFocalClassifier.from_pretrained(folder)
proba = clf.predict_proba(X_test)
print("the same bits:", np.array_equal(again.predict_proba(X_test), proba))

# %%
# Predictions alone
# -----------------
# The ONNX graph includes the inverse of the loss and the decision. ``OnnxClassifier`` needs only
# numpy, onnxruntime and tokenizers.
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
# A server often gets one document at a time. The two models take turns, so that a busy moment of
# the machine affects both. The times spread because documents differ in length. These documents are
# new to the estimator, which keeps the output of the frozen layers for those that come again.
waits = {"estimator": [], "ONNX Runtime": []}
for text in X_timed[:60]:
    for name, model in {"estimator": clf, "ONNX Runtime": served}.items():
        start = time.perf_counter()
        model.predict([text])
        waits[name].append(1000 * (time.perf_counter() - start))
for name, values in waits.items():
    median, late = np.quantile(values, [0.5, 0.95])
    print(f"{name:13s} half of them within {median:5.1f} ms, 95 % within {late:5.1f} ms")

# %%
# With many documents at once, only the encoder's arithmetic counts. The estimator computes it in
# bfloat16 where the processor is fast in it, the graph in float32. The benchmarks have a larger
# comparison.
for name, model in {"estimator": clf, "ONNX Runtime": served}.items():
    start = time.perf_counter()
    model.predict(X_timed[60:460])
    print(f"{name:13s} {400 / (time.perf_counter() - start):4.0f} documents a second")
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
