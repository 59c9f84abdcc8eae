"""
Documents longer than the encoder
=================================

Most encoders read at most 512 tokens, and each token costs time. By default, everything beyond
``max_length`` is lost. ``long_documents="head_tail"`` keeps the beginning and the end of a
document. ``"windows"`` reads the whole document in windows and pools their logits.

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
warnings.filterwarnings("ignore", message=".*max_(length|windows)")  # we print what is lost

# %%
# We use messages from four newsgroups on related topics. Two of the groups are rare in training.
GROUPS = {"sci.electronics": 160, "sci.med": 80, "sci.crypt": 25, "sci.space": 25}


def some_of(subset, sizes):
    """Return messages from the four groups, `sizes` says how many of each."""
    X, y = fetch_20newsgroups_cachopo(subset=subset, return_X_y=True)
    rows = np.concatenate([np.flatnonzero(y == group)[:n] for group, n in sizes.items()])
    return [X[i] for i in rows], y[rows]


X, y = some_of("train", GROUPS)
X_test, y_test = some_of("test", dict.fromkeys(GROUPS, 100))

# %%
# Most messages are longer than 64 tokens, and some are longer than any encoder of this kind reads.
tokenizer = AutoTokenizer.from_pretrained(fetch_minilm())
lengths = np.array([len(ids) for ids in tokenizer(X_test, verbose=False)["input_ids"]])
shares = ", ".join(f"{np.mean(lengths > n):.0%} over {n}" for n in (64, 128, 256, 512))
print(f"tokens: {np.median(lengths):.0f} in the median, {shares}")

# %%
# We read them in three ways, with 64 tokens at a time. With ``"windows"``, every window trains the
# encoder: the loss is computed from the pooled logits, one row per document.
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
# The figure shows the accuracy by the length of the test documents. Up to 64 tokens all three read
# the same words, and differ only by what they have learned from longer documents. On all twenty
# groups, windows gained less and a longer ``max_length`` gained more, as the benchmarks show.
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
