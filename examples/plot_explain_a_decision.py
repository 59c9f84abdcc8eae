"""
Explain a decision
==================

Which words made the classifier decide? ``explain`` attributes the log-odds of a class to the words
of a document, by integrated gradients. This example looks at newswire stories, at the
errors among them, and then tests the explanations: without the words that they name, the log-odds
have to fall. It needs captum: ``pip install 'skfocal[explain]'``.

``python examples/plot_explain_a_decision.py --figure FILE`` saves the figure.
"""

import argparse
import warnings

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import logsumexp

from skfocal import BertFocalClassifier, fetch_minilm, fetch_reuters

parser = argparse.ArgumentParser(description="Explain a decision")
parser.add_argument("--figure", help="file for the figure; without it, it is shown")
options, _ = parser.parse_known_args()  # a notebook has arguments of its own

# %%
# We use Reuters R8. 48 tokens per story are enough here, so we silence the warning that documents
# are cut.
warnings.filterwarnings("ignore", message=".*max_length")


def part(subset, n_documents):
    """Return `n_documents` stories."""
    X, y = fetch_reuters("r8", subset=subset, return_X_y=True)
    rows = np.random.RandomState(0).choice(len(X), n_documents, replace=False)
    return [X[i] for i in rows], y[rows]


X, y = part("train", 400)
X_test, y_test = part("test", 200)
clf = BertFocalClassifier(
    fetch_minilm(), sampler="sqrt", freeze=3, lr=5e-4, max_epochs=3, max_length=48, random_state=0
)
clf.fit(X, y)
predicted = clf.predict(X_test)
print(f"accuracy {(predicted == y_test).mean():.2f}")

# %%
# Right decisions
# ---------------
# One story of each of three classes. A notebook shows the texts, a terminal the strongest words.
rows = [np.flatnonzero((predicted == c) & (y_test == c))[0] for c in ("acq", "crude", "trade")]
explanation = clf.explain([X_test[i] for i in rows])
print(explanation)
explanation  # noqa: B018

# %%
# Wrong decisions
# ---------------
# An error is easier to understand if we ask for both classes: what speaks for the one that was
# predicted, and what for the one in ``y``.
wrong = np.flatnonzero(predicted != y_test)[:2]
texts = [X_test[i] for i in wrong]
for of_predicted, of_label in zip(
    clf.explain(texts), clf.explain(texts, y_test[wrong]), strict=True
):
    for found in (of_predicted, of_label):
        words = ", ".join(f"{word} {value:+.2f}" for word, value in found.strongest(5).items())
        print(f"{found.target:9s} log-odds {found.log_odds:+.2f}: {words}")

# %%
# Do the words matter?
# --------------------
# We delete the fifth of the words that add most to the decided class, and as many random words.
# The attributions are about the softmax of the logits, so we set ``proba`` to it.
clf.set_params(proba="softmax")


def log_odds(texts, labels):
    """Return the log-odds of one class of each text."""
    scores = clf.decision_function(texts)  # logarithms of the probabilities
    own = np.equal(np.array(labels)[:, None], clf.classes_)
    return scores[own] - logsumexp(np.where(own, -np.inf, scores), axis=1)


def without(found, words):
    """Return the words that a story has left without some of them."""
    return " ".join(np.delete(found.words, words))


rng = np.random.RandomState(0)
named, random = [], []
explained = clf.explain(X_test[:30])
for found in explained:
    n = max(len(found.words) // 5, 1)
    named.append(without(found, np.argsort(-found.attributions)[:n]))
    random.append(without(found, rng.choice(len(found.words), n, replace=False)))
decided = [found.target for found in explained]
whole = log_odds([" ".join(found.words) for found in explained], decided)
falls = {"named": whole - log_odds(named, decided), "random": whole - log_odds(random, decided)}
for name, fall in falls.items():
    print(f"without the {name} words, log-odds fall by {fall.mean():.2f} on average")

# %%
# Each dot is a story.
figure, ax = plt.subplots(figsize=(6.4, 3), layout="constrained")
for place, (name, colour) in enumerate({"named": "#0072B2", "random": "#E69F00"}.items()):
    jitter = rng.uniform(-0.15, 0.15, len(explained))
    ax.plot(falls[name], place + jitter, "o", color=colour, alpha=0.7)
    ax.plot(falls[name].mean(), place, "|", color="black", markersize=30, markeredgewidth=2)
ax.set_yticks([0, 1], ["words that\nexplain names", "random words"])
ax.set_ylim(1.5, -0.5)
ax.set(xlabel="fall of the log-odds without a fifth of the words (line: mean)")
ax.grid(axis="x", alpha=0.3)
if options.figure:
    figure.savefig(options.figure, dpi=120)
plt.show()
