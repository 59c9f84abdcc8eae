"""
Several labels per document
===========================

The name of a Usenet group lists its topics: a message to ``rec.sport.hockey`` is about ``rec``,
``sport`` and ``hockey``, and one to ``comp.sys.mac.hardware`` shares the label ``hardware`` with
messages about other machines. Give ``fit`` such a collection of labels for each document. Each
label is then a binary problem of its own, and all labels share one encoder. The messages are from
20 Newsgroups, thinned out so that some groups are rare.

``python examples/plot_multilabel.py --figure FILE`` saves the figure.
"""

import argparse
import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import clone
from sklearn.metrics import average_precision_score, f1_score
from sklearn.preprocessing import MultiLabelBinarizer

from skfocal import BertFocalClassifier, fetch_20newsgroups_cachopo, fetch_minilm

parser = argparse.ArgumentParser(description="Several labels per document")
parser.add_argument("--figure", help="file for the figure; without it, it is shown")
options, _ = parser.parse_known_args()  # a notebook has arguments of its own

# %%
# The largest group keeps 80 messages, the smallest 8. 64 tokens per message are enough here, so we
# silence the warning that documents are cut.
warnings.filterwarnings("ignore", message=".*max_length")
X, groups = fetch_20newsgroups_cachopo(subset="train", return_X_y=True)
rng = np.random.RandomState(0)
names = rng.permutation(np.unique(groups))
sizes = np.geomspace(80, 8, len(names)).astype(int)
rows = np.concatenate(
    [
        rng.choice(np.flatnonzero(groups == name), size, replace=False)
        for name, size in zip(names, sizes, strict=True)
    ]
)
X, y = [X[i] for i in rows], [set(groups[i].split(".")) for i in rows]
X_test, groups_test = fetch_20newsgroups_cachopo(subset="test", return_X_y=True)
rows = rng.choice(len(X_test), 400, replace=False)
X_test, y_test = [X_test[i] for i in rows], [set(groups_test[i].split(".")) for i in rows]
print(f"{len(X)} messages, for example {sorted(y[0])}")

# %%
# Most documents lack most labels, so absent labels dominate the loss. With focal loss, easy ones
# count less. ``alpha="effective"`` gives the presence of a label more weight the rarer the label
# is. A label is predicted if its probability is above one half.
base = BertFocalClassifier(
    fetch_minilm(), freeze=5, lr=1e-3, max_epochs=15, max_length=64, random_state=0
)
losses = {
    "cross-entropy": {"loss": "cross_entropy"},
    "focal": {"gamma": 2.0},
    "focal, weighted": {"gamma": 2.0, "alpha": "effective"},
}
binarizer = MultiLabelBinarizer().fit(y)
truth = binarizer.transform(y_test)
counts = binarizer.transform(y).sum(axis=0)
each = {}
print(f"{'':16s} micro-F1  macro-F1  mean average precision  labels a message")
for name, settings in losses.items():
    clf = clone(base).set_params(**settings).fit(X, y)
    proba = clf.predict_proba(X_test)  # each label's own: rows do not sum to 1
    predicted = (proba > 0.5).astype(int)  # as clf.predict does
    each[name] = f1_score(truth, predicted, average=None, zero_division=0)
    print(
        f"{name:16s} {f1_score(truth, predicted, average='micro'):8.3f} {each[name].mean():9.3f}"
        f"{average_precision_score(truth, proba):24.3f} {predicted.sum(axis=1).mean():17.2f}"
    )
print(f"{'truth':16s} {truth.sum(axis=1).mean():62.2f}")

# %%
# These are the labels of three documents:
for row in (0, 1, 2):
    found = binarizer.inverse_transform(predicted[[row]])[0]
    print(f"true {sorted(y_test[row])}, predicted {sorted(found)}")

# %%
# The figure shows the F1 of each label, from the most to the least frequent. In such a short
# training, cross-entropy finds the frequent labels and predicts hardly any others. Focal loss
# finds rarer labels, and the weights help most where a label has hardly a dozen messages.
order = np.argsort(-counts, kind="stable")
figure, axes = plt.subplots(figsize=(6.4, 4.6), layout="constrained")
styles = {"cross-entropy": ("#E69F00", "^"), "focal": ("#009E73", "o")}
styles["focal, weighted"] = ("#0072B2", "s")
for name, (colour, marker) in styles.items():
    axes.plot(each[name][order], marker, color=colour, label=name, markersize=6, clip_on=False)
labels = [f"{binarizer.classes_[i]} ({counts[i]})" for i in order]
axes.set_xticks(range(len(order)), labels, rotation=90, fontsize="small")
axes.set(ylim=(0, 1), ylabel="F1 on the test messages", xlabel="label (training messages)")
axes.grid(axis="y", alpha=0.3)
figure.legend(loc="outside upper center", ncols=3)
if options.figure:
    figure.savefig(options.figure, dpi=120)
plt.show()
