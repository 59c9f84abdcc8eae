"""
Look at your data
=================

Before the first training, :func:`~skfocal.audit` looks at texts and labels: how large the classes
are, what is cut, which documents are there twice, and which of the test are in training. It
compares documents by the embeddings of the pretrained encoder, and trains nothing.

``python examples/plot_look_at_your_data.py --figure FILE`` saves the figure.
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np

from skfocal import audit, fetch_minilm, fetch_reuters

parser = argparse.ArgumentParser(description="Look at your data")
parser.add_argument("--figure", help="file for the figure; without it, it is shown")
options, _ = parser.parse_known_args()  # a notebook has arguments of its own

# %%
# Reuters R52 has 52 topics, some of them with thousands of documents and some with one. To be
# quick, we look at the first 1,500 documents of the training and 500 of the test.
X, y = fetch_reuters("r52", subset="train", return_X_y=True)
X_test, y_test = fetch_reuters("r52", subset="test", return_X_y=True)
found = audit(X[:1500], y[:1500], X_test[:500], y_test[:500], model=fetch_minilm())
print(found)

# %%
# The summary names the trouble; the tables have the rows. These documents are there twice, word for
# word or nearly, with two labels. Reports on interest rates and on money markets are hard to tell
# apart, also for those who have assigned the labels.
pairs = found.duplicates
for i, same in enumerate(pairs["same_label"]):
    if same is False:
        print(f"{pairs['label'][i]} | {pairs['other_label'][i]}: {pairs['document'][i][:60]}")

# %%
# The notices of dividends are another kind: forms, in which a name and a few numbers differ. The
# texts of R52 have no numbers, so that many of them are nearly the same. They all have the same
# label, but a split has to keep them on one side, or it tests what was learned by heart.
groups, sizes = np.unique(found.groups, return_counts=True)
largest = np.flatnonzero(found.groups == groups[sizes.argmax()])
print(f"\nlargest group of duplicates: {len(largest)} documents, such as")
print(*(X[i][:90] for i in largest[:3]), sep="\n")

# %%
# The suggested split does. Its rows go into ``cv=`` of any search of scikit-learn, and
# ``found.grid`` is a first grid for it. ``found.save("audit.html")`` writes everything on one page.
print(found.splitter)
assert not any(set(found.groups[a]) & set(found.groups[b]) for a, b in found.splits)

# %%
# The figure shows each class by its size, and how many of the nearest neighbours of its documents
# belong to it, of as many as there are others in the class. Nothing was trained yet, so the classes
# at the bottom are those that a classifier will find hard.
table = found.per_class
used = table["documents"] > 1
figure, ax = plt.subplots(figsize=(7, 4.5), layout="constrained")
ax.scatter(table["documents"][used], table["own_neighbours"][used], color="#0072B2")
text = {"textcoords": "offset points", "fontsize": 8, "ha": "center"}
for label, n, own in zip(
    table["label"][used], table["documents"][used], table["own_neighbours"][used], strict=True
):
    if n >= 20:
        ax.annotate(label, (n, own), xytext=(0, 6), **text)
ax.set(xscale="log", xlabel="documents of the class", ylim=(-0.03, 1.05))
ax.set_ylabel("share of neighbours of the same class")
ax.grid(alpha=0.3)
if options.figure:
    figure.savefig(options.figure, dpi=120)
plt.show()
