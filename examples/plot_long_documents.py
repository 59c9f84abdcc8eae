"""
Documents longer than the encoder
=================================

An encoder reads so many tokens and no more, 512 for most, and each token costs time. What lies
beyond ``max_length`` is lost, unless ``long_documents`` says otherwise: ``"head_tail"`` keeps the
beginning and the end, ``"windows"`` reads everything in windows and pools what it thinks of each.

``python examples/plot_long_documents.py --figure FILE`` saves the figure.
"""

import argparse
import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import f1_score
from transformers import AutoTokenizer

from skfocal import BertFocalClassifier, fetch_20newsgroups_cachopo, fetch_minilm

parser = argparse.ArgumentParser(description="Documents longer than the encoder")
parser.add_argument("--figure", help="file for the figure; without it, it is shown")
options, _ = parser.parse_known_args()  # a notebook has arguments of its own
warnings.filterwarnings("ignore", message=".*max_(length|windows)")  # what is lost is shown here

# %%
# Messages of four newsgroups on related matters, the third and the fourth of them rare in
# training.
GROUPS = {"sci.electronics": 160, "sci.med": 80, "sci.crypt": 25, "sci.space": 25}


def some_of(subset, sizes):
    """Return messages of the four groups, so many of each."""
    X, y = fetch_20newsgroups_cachopo(subset=subset, return_X_y=True)
    rows = np.concatenate([np.flatnonzero(y == group)[:n] for group, n in sizes.items()])
    return [X[i] for i in rows], y[rows]


X, y = some_of("train", GROUPS)
X_test, y_test = some_of("test", dict.fromkeys(GROUPS, 100))

# %%
# Most of them are longer than 64 tokens, and some are longer than any encoder of this kind reads.
tokenizer = AutoTokenizer.from_pretrained(fetch_minilm())
lengths = np.array([len(ids) for ids in tokenizer(X_test, verbose=False)["input_ids"]])
shares = ", ".join(f"{np.mean(lengths > n):.0%} over {n}" for n in (64, 128, 256, 512))
print(f"tokens: {np.median(lengths):.0f} in the median, {shares}")

# %%
# Three ways to read them with windows of 64 tokens. Every window trains the encoder: the loss is
# that of the pooled logits, one row for each document.
WAYS = {
    "truncate": {},
    "head_tail": {"long_documents": "head_tail"},
    "windows": {"long_documents": "windows"},
}
settings = {"max_length": 64, "freeze": 5, "lr": 1e-3, "max_epochs": 6, "alpha": "balanced"}
answers = {}
for name, way in WAYS.items():
    clf = BertFocalClassifier(fetch_minilm(), **settings, **way, random_state=0, verbose=0)
    answers[name] = clf.fit(X, y).predict(X_test)
    score = f1_score(y_test, answers[name], average="macro")
    print(
        f"{name:12} macro-F1 {score:.3f}, {clf.n_truncated_} of {len(X)} documents cut in training"
    )

# %%
# By the length of the test documents. Up to 64 tokens the three read the same words, and differ by
# what they have learned from the longer ones. Over all twenty groups windows gained less, and a
# longer ``max_length`` gained more: the benchmarks have the table.
edges = [0, 64, 128, 256, np.inf]
labels = ["to 64", "65 to 128", "129 to 256", "over 256"]
groups = np.digitize(lengths, edges, right=True) - 1
figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
looks = [("#56B4E9", "o", ":"), ("#E69F00", "s", "--"), ("#0072B2", "D", "-")]
for (name, predicted), (color, marker, line) in zip(answers.items(), looks, strict=True):
    shares = [100 * np.mean((predicted == y_test)[groups == g]) for g in range(len(labels))]
    axes.plot(shares, color=color, marker=marker, linestyle=line, label=name)
counts = [f"{label}\n({np.sum(groups == g)})" for g, label in enumerate(labels)]
axes.set_xticks(range(len(labels)), counts)
axes.set(xlabel="tokens (test documents)", ylabel="accuracy, %")
axes.legend(title="long_documents")
axes.grid(axis="y", alpha=0.3)
if options.figure:
    figure.savefig(options.figure, dpi=120)
plt.show()
