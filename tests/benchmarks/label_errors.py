"""Find wrong labels: how many of those that were flipped on purpose does each ranking find?

    OMP_NUM_THREADS=1 python tests/benchmarks/label_errors.py --keep FOLDER
    OMP_NUM_THREADS=1 python tests/benchmarks/label_errors.py --keep FOLDER --fine-tuned --seeds 0

Flips 3 % of the labels of R52's training documents, ranks the documents by how much each label is
in doubt, and looks at as many of them as were flipped. Needs cleanlab. The vectors of the frozen
encoder are kept in FOLDER. Writes docs/benchmarks/label-errors.jsonl and .md.
"""

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.utils import _safe_indexing

from common import DOCS, device_name, write_block
from skfocal import BertFocalClassifier, fetch_minilm, fetch_reuters
from skfocal.data_audit._doubts import judge

SHARE, FOLDS = 0.03, 5
NOISE = {
    "uniform": "The wrong label is any of the other 51, so most rare classes get some.",
    "frequency": "The wrong label is drawn by the frequency of the classes, so most are frequent.",
}
GROUPS = {"fewer than 10": (0, 10), "10 to 49": (10, 50), "50 or more": (50, 10**9)}
RESULTS = DOCS / "label-errors.jsonl"
TUNED = {"max_length": 64, "freeze": 3, "lr": 5e-4, "max_epochs": 3, "refit_head": "balanced"}


def flipped(codes, noise, seed):
    """Return labels of which a share is wrong, and which ones are."""
    random = np.random.RandomState(seed)
    counts = np.bincount(codes)
    rows = random.permutation(len(codes))[: round(SHARE * len(codes))]
    given = codes.copy()
    for row in rows:
        chances = np.ones(len(counts)) if noise == "uniform" else counts.astype(float)
        chances[codes[row]] = 0
        given[row] = random.choice(len(counts), p=chances / chances.sum())
    wrong = np.zeros(len(codes), bool)
    wrong[rows] = True
    return given, wrong


# -- probabilities ---------------------------------------------------------------------------


def vectors(X, keep):
    """Return the vectors of the untouched encoder."""
    file = keep / "label-errors-vectors.npy"
    if not file.exists():
        clf = BertFocalClassifier(fetch_minilm(), max_epochs=0, refit_head="balanced")
        clf.set_params(pooling="mean", max_length=128)
        labels = np.arange(len(X)) % 2  # the layer fitted here is not used
        np.save(file, clf.fit(X[:100], labels[:100]).transform(X))
    return np.load(file)


def folds(seed):
    """Return the folds; classes with fewer documents are absent from some of them."""
    return StratifiedKFold(FOLDS, shuffle=True, random_state=seed)


def out_of_fold(model, X, given, n_classes, seed):
    """Return the probabilities of documents by a model that was fitted without them."""
    proba = np.zeros((len(given), n_classes))
    for train, test in folds(seed).split(X, given):
        model.fit(_safe_indexing(X, train), given[train])
        proba[np.ix_(test, model.classes_)] = model.predict_proba(_safe_indexing(X, test))
    return proba


def probabilities(X, given, n_classes, seed, keep, fine_tuned):
    """Yield the name of each kind of probabilities, and the probabilities."""
    if not fine_tuned:
        F = vectors(X, keep)
        for weight in (None, "balanced"):
            model = LogisticRegression(class_weight=weight, max_iter=500)
            proba = out_of_fold(model, F, given, n_classes, seed)
            yield f"out of fold, frozen encoder{', balanced' if weight else ''}", proba
        yield "frozen encoder, trained on the same documents", _own(model, F, given, n_classes)
        return
    clf = BertFocalClassifier(fetch_minilm(), **TUNED, random_state=seed)
    yield "out of fold, fine-tuned", out_of_fold(clf, X, given, n_classes, seed)
    yield "fine-tuned on the same documents", _own(clf, X, given, n_classes)


def _own(model, X, given, n_classes):
    proba = np.zeros((len(given), n_classes))
    proba[:, np.unique(given)] = model.fit(X, given).predict_proba(X)
    return proba


# -- rankings --------------------------------------------------------------------------------


def audited(X, given, n_classes, keep):
    """Return the order in which `audit` doubts labels."""
    vectors_, rows = vectors(X, keep), np.arange(len(given))
    return judge(vectors_, given, rows, n_classes).rows


def rankings(given, proba, by_cleanlab):
    """Yield the name of each ranking, and the documents, the most doubtful first."""
    own = proba[np.arange(len(given)), given]
    by_own = np.argsort(own, kind="stable")
    yield "probability of the label", by_own  # also cleanlab's "self_confidence"
    if not by_cleanlab:  # it is for probabilities out of fold
        return
    settings = {
        "cleanlab, margin": {"method": "normalized_margin"},
        "cleanlab, adjusted": {"method": "self_confidence", "adjust_pred_probs": True},
        "cleanlab, adjusted margin": {"method": "normalized_margin", "adjust_pred_probs": True},
    }
    for name, setting in settings.items():
        scores = get_label_quality_scores(given, proba, **setting)
        yield name, np.argsort(scores, kind="stable")
    for way in ("prune_by_noise_rate", "prune_by_class", "both", "confident_learning"):
        found = find_label_issues(
            given, proba, filter_by=way, return_indices_ranked_by="self_confidence", n_jobs=1
        )
        yield f"cleanlab, {way}", np.concatenate([found, by_own[~np.isin(by_own, found)]])


def rows_of(order, given, wrong):
    """Return recall and precision among as many documents as are wrong, by class frequency."""
    looked_at = np.zeros(len(given), bool)
    looked_at[order[: wrong.sum()]] = True
    frequency = np.bincount(given)[given]
    for group, (least, most) in {"all": (0, 10**9), **GROUPS}.items():
        mine = (frequency >= least) & (frequency < most)
        found = int((looked_at & wrong & mine).sum())
        yield {
            "group": group,
            "found": found,
            "wrong": int((wrong & mine).sum()),
            "looked_at": int((looked_at & mine).sum()),
        }


def measured(X, codes, noise, seed, keep, fine_tuned):
    """Yield the rows of one flip of the labels."""
    n_classes = codes.max() + 1
    given, wrong = flipped(codes, noise, seed)
    orders = []
    if not fine_tuned:
        orders.append(("random order", "", np.random.RandomState(1000 + seed).permutation(len(X))))
        orders.append(("`audit`", "", audited(X, given, n_classes, keep)))
    for kind, proba in probabilities(X, given, n_classes, seed, keep, fine_tuned):
        found = rankings(given, proba, "out of fold" in kind)
        orders += [(kind, ranking, order) for ranking, order in found]
    for kind, ranking, order in orders:
        for row in rows_of(order, given, wrong):
            head = {"noise": noise, "seed": seed, "proba": kind, "ranking": ranking}
            yield {**head, **row, "device": device_name()}


# -- the page --------------------------------------------------------------------------------


def table(rows, noise):
    """Return the table of one kind of noise: recall / precision by group, over the seeds."""
    lines = [
        f"**{NOISE[noise]}**\n",
        "| probabilities | ranking | seeds | all | " + " | ".join(GROUPS) + " |",
        "|---|---|---:|" + "---:|" * (1 + len(GROUPS)),
    ]
    mine = [row for row in rows if row["noise"] == noise]
    for kind, ranking in dict.fromkeys((row["proba"], row["ranking"]) for row in mine):
        own = [row for row in mine if (row["proba"], row["ranking"]) == (kind, ranking)]
        cells = [_cell([row for row in own if row["group"] == g]) for g in ("all", *GROUPS)]
        seeds = len({row["seed"] for row in own})
        lines.append(f"| {kind} | {ranking} | {seeds} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(rows):
    found, wrong, looked_at = (sum(row[k] for row in rows) for k in ("found", "wrong", "looked_at"))
    precision = f"{100 * found / looked_at:.0f}" if looked_at else "–"
    if rows[0]["group"] != "all":
        return f"{100 * found / wrong:.0f} / {precision}"
    each = [100 * row["found"] / row["wrong"] for row in rows]
    spread = f" ± {np.std(each, ddof=1):.1f}" if len(each) > 1 else ""
    return f"{np.mean(each):.1f}{spread}"


def write_page(rows):
    """Write the tables."""
    device = ", ".join(dict.fromkeys(row["device"] for row in rows))
    block = (
        f"{SHARE:.0%} of the labels of R52's 6,532 training documents were flipped. As many "
        "documents as were flipped are looked at, those first whose label a ranking doubts most. "
        "Recall / precision in per cent, by the number of documents that have the label; over all "
        "classes the two are equal (mean ± standard deviation over seeds). Frozen: "
        "LogisticRegression on the mean of MiniLM's last hidden states, 128 tokens. Fine-tuned: "
        f"{', '.join(f'`{name}={value!r}`' for name, value in TUNED.items())}. Out of fold: "
        f"{FOLDS} folds. {device}.\n\n"
    )
    tables = [table(rows, noise) for noise in NOISE if any(r["noise"] == noise for r in rows)]
    write_block(DOCS / "label-errors.md", "Finding wrong labels", block + "\n\n".join(tables))


def main():
    """Measure what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--noise", nargs="+", default=list(NOISE), choices=NOISE)
    parser.add_argument("--keep", type=Path, required=True, help="folder for vectors")
    parser.add_argument("--fine-tuned", action="store_true", help="train in each fold")
    options = parser.parse_args()
    options.keep.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")  # rare classes are missing from folds, documents are cut
    X, y = fetch_reuters("r52", subset="train", return_X_y=True)
    codes = np.unique(y, return_inverse=True)[1]
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    rows = [json.loads(line) for line in lines]
    done = {(row["noise"], row["seed"], "fine-tuned" in row["proba"]) for row in rows}
    for seed in options.seeds:
        for noise in options.noise:
            if (noise, seed, options.fine_tuned) in done:
                continue
            new = list(measured(X, codes, noise, seed, options.keep, options.fine_tuned))
            with RESULTS.open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in new)
            rows += new
            print(noise, seed, flush=True)
    write_page(rows)


if __name__ == "__main__":
    main()
