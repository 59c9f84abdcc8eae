"""How often intervals of a comparison hold the truth, and how stable the words of classes are.

    OMP_NUM_THREADS=1 python tests/benchmarks/comparisons.py

Simulates pairs of classifiers, a minute on one core, and reads the training stories of Reuters R52.
Writes docs/benchmarks/comparisons.md.
"""

from unittest import mock

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.feature_selection import chi2
from sklearn.linear_model import LogisticRegression

from common import DOCS, write_block
from skfocal import fetch_reuters
from skfocal.displays import _pairs
from skfocal.report import _paired
from skfocal.report._paired import Outcomes, compared

SETTINGS = ((2, 200), (8, 400), (8, 2000), (52, 2500))
RULES = {"10 documents": (10, 0), "and 5 that differ": (10, 5)}
DRAWS = 300


def simulated(random, n_documents, n_classes):
    """Return codes of true classes, and of the answers of two classifiers that err alike."""
    share = 1 / np.arange(1, n_classes + 1) ** 1.5
    draw = lambda: random.choice(n_classes, n_documents, p=share / share.sum())  # noqa: E731
    y, wrong = draw(), draw()
    other = np.where(random.rand(n_documents) < 0.5, wrong, draw())
    hardness = 0.6 * random.rand(n_documents) + 0.4 * random.rand(n_documents)
    noise = 0.05 * (random.rand(n_documents) - 0.5)
    a = np.where(hardness < np.linspace(0.9, 0.5, n_classes)[y], y, wrong)
    b = np.where(hardness < np.linspace(0.9, 0.65, n_classes)[y] + noise, y, other)
    return y, a, b


def coverage(n_classes, n_documents):
    """Return how often intervals hold the truth, those of the F1 of a class by rule."""
    random = np.random.RandomState(0)
    many = Outcomes.of(*simulated(random, 1_000_000, n_classes), n_classes)
    overall_truth, truth = compared(many, 100, 0.95, random)
    held = {name: [] for name in ("accuracy", "F1, macro", *RULES)}
    for _ in range(DRAWS):
        outcomes = Outcomes.of(*simulated(random, n_documents, n_classes), n_classes)
        for rule, (few, different) in RULES.items():
            with (
                mock.patch.object(_paired, "FEW", few),
                mock.patch.object(_paired, "FEW_DIFFERENT", different),
            ):
                overall, each = compared(outcomes, 400, 0.95, random)
                enough = _paired._enough(outcomes)["f1"]
            f1 = each["f1"]
            # Ends that are equal are NaN here: they would be [0, 0], which is not the truth.
            inside = (f1.low <= truth["f1"].difference) & (truth["f1"].difference <= f1.high)
            held[rule].append(inside[enough])
        for name in ("accuracy", "F1, macro"):
            found = overall[name]
            held[name].append([found.low <= overall_truth[name].difference <= found.high])
    return {name: np.concatenate(values).mean() for name, values in held.items()}


def by_chi2(first, second):
    """Return the words of the second class by chi-squared of their presence."""
    vectorizer = CountVectorizer(binary=True, min_df=2)
    vectors = vectorizer.fit_transform([*first, *second])
    is_second = np.repeat([0, 1], [len(first), len(second)])
    scores = chi2(vectors, is_second)[0]
    parts = vectors[is_second == 1], vectors[is_second == 0]
    more = np.greater(*(np.asarray(part.mean(axis=0)).ravel() for part in parts))
    return vectorizer.get_feature_names_out()[np.argsort(-np.where(more, scores, 0))[:8]]


def by_logistic_regression(first, second):
    """Return the words of the second class by the weights of a logistic regression on TF-IDF."""
    vectorizer = _pairs.TfidfVectorizer(sublinear_tf=True, min_df=2)
    vectors = vectorizer.fit_transform([*first, *second])
    is_second = np.repeat([0, 1], [len(first), len(second)])
    model = LogisticRegression(class_weight="balanced", max_iter=1000).fit(vectors, is_second)
    return vectorizer.get_feature_names_out()[np.argsort(-model.coef_[0])[:8]]


WAYS = {
    "difference of mean TF-IDF": lambda first, second: _pairs._telling_words(first, second)[1],
    "chi-squared": by_chi2,
    "logistic regression": by_logistic_regression,
}


def agreement(way, X, y, rare, frequent):
    """Return the share of words that halves of the documents agree on, and how they tell."""
    shares, rates = [], []
    for seed, label in enumerate(rare):
        random = np.random.RandomState(seed)
        own, others = (random.permutation(np.flatnonzero(y == c)) for c in (label, frequent))
        halves = [(others[half::2][:250], own[half::2]) for half in (0, 1)]
        found = [[*way(X[first].tolist(), X[second].tolist())] for first, second in halves]
        shares.append(len({*found[0]} & {*found[1]}) / 8)
        rare_texts, frequent_texts = ([set(x.split()) for x in X[r]] for r in halves[1][::-1])
        rates += [
            np.mean([w in x for x in rare_texts]) - np.mean([w in x for x in frequent_texts])
            for w in found[0]
        ]
    return np.mean(shares), np.mean(rates)


def main():
    """Measure, and write the page."""
    lines = [
        f"{DRAWS} samples of documents, level 95 %. Share of intervals that hold the truth:",
        "",
        "| classes | documents | accuracy | macro-F1 | F1 of a class with 10 documents | "
        "and 5 that differ |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for n_classes, n in SETTINGS:
        held = coverage(n_classes, n)
        cells = " | ".join(f"{100 * value:.0f} %" for value in held.values())
        lines.append(f"| {n_classes} | {n} | {cells} |")
    X, y = fetch_reuters("r52", subset="train", return_X_y=True)
    X = np.array(X, dtype=object)
    labels, counts = np.unique(y, return_counts=True)
    rare = labels[(counts >= 8) & (counts <= 20)]
    lines += [
        "",
        f"Eight words of each of {len(rare)} classes of R52 with 8 to 20 documents, beside another "
        "class:",
        "",
        "| words by | the same from the other half, beside earn | beside acq | more frequent in "
        "the other half by, beside earn | beside acq |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, way in WAYS.items():
        found = [agreement(way, X, y, rare, frequent) for frequent in ("earn", "acq")]
        same = " | ".join(f"{100 * share:.0f} %" for share, _ in found)
        more = " | ".join(f"{100 * rate:.0f} %" for _, rate in found)
        lines.append(f"| {name} | {same} | {more} |")
    write_block(DOCS / "comparisons.md", "Intervals and words", "\n".join(lines))


if __name__ == "__main__":
    main()
