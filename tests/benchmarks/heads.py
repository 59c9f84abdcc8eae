"""Pooling, losses and the second fit of the head, on five corpora.

    OMP_NUM_THREADS=1 python tests/benchmarks/heads.py --keep FOLDER \
        --paths ohsumed=FILE reuters90=FILE

A seed takes about an hour on two cores, and 20 minutes with `--poolings mean --precision bfloat16`
where the processor has matrix units for it. The features and logits of each training go into the
folder of --keep, and a training that is there is not repeated. All heads are computed from them.
Writes docs/benchmarks/heads.jsonl and heads.md.
"""

import argparse
import itertools
import json
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, delayed
from scipy import special
from scipy.optimize import minimize
from scipy.special import softmax
from scipy.stats import rankdata
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, log_loss
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MultiLabelBinarizer

import corpora
from common import DOCS, device_name, write_block
from probabilities import cell, read
from quality import encoder
from skfocal import __version__, expected_calibration_error
from skfocal._encoder.head import head_of
from skfocal._estimator.fitted_model import FittedModel
from skfocal._estimator.refit import fit_linear
from skfocal.balance import class_weight, label_weight

RESULTS = DOCS / "heads.jsonl"
DOCUMENTS = {"r8": 500, "r52": 700, "ohsumed": 700, "20ng-lt": 700, "reuters90": 1000}
TESTED = {"ohsumed": 2000, "20ng-lt": 2000}  # all of the others
POOLINGS = ("head", "mean")
SINGLE = {
    "cross-entropy": {"loss": "cross_entropy"},
    "focal, balanced": {"alpha": "balanced"},
    "sqrt sampler": {"loss": "cross_entropy", "sampler": "sqrt"},
}
ONLY_MEAN = {"focal": {}, "focal, balanced, half frozen": {"alpha": "balanced", "freeze": 3}}
SEVERAL = {
    "focal": {},
    "focal, effective": {"alpha": "effective"},
    "distribution-balanced": {"loss": "distribution_balanced"},
}
METRICS = {
    "accuracy": ("accuracy or micro-F1 %", 1, 100),
    "f1_macro": ("macro-F1 %", 1, 100),
    "log_loss": ("log-loss", 3, 1),
    "ece": ("ECE %", 1, 100),
}
WEIGHTS = (None, "sqrt", "balanced")
MEAN = {("mean", name) for name in SINGLE}
RANKED = {
    "Mean rank with the mean of the tokens": MEAN,
    "Mean rank of both poolings": MEAN | {("head", name) for name in SINGLE},
}


def documents_of(data, seed, paths):
    """Return the documents of a seed; several labels as an indicator."""
    whole = data.removesuffix("-lt")  # thinned below
    X, y, X_test, y_test, kind = corpora.load(whole, path=paths.get(data))
    rng = np.random.RandomState(seed)
    rows = np.arange(len(X))
    if data == "20ng-lt":
        rows = corpora.long_tail(y, rng, largest=150, smallest=5)
    rows = rows[rng.permutation(len(rows))[: DOCUMENTS[data]]]
    tested = np.arange(len(X_test))
    if data in TESTED:
        tested = np.random.RandomState(99).permutation(len(X_test))[: TESTED[data]]
    if kind == corpora.SEVERAL:
        binarizer = MultiLabelBinarizer().fit(y)
        y, y_test = binarizer.transform(y), binarizer.transform(y_test)
    return [X[i] for i in rows], y[rows], [X_test[i] for i in tested], y_test[tested]


# -- training ------------------------------------------------------------------------------


def file_of(folder, data, pooling, name, seed):
    """Return the file of a training."""
    stem = f"{data} {pooling} {name} {seed}".replace(", ", "-").replace(" ", "_")
    return folder / f"{stem}.npz"


def train(data, pooling, name, seed, paths, precision, file):
    """Train an encoder; keep what its head is fitted to."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # truncation and missing classes are part of the protocol
    X, y, X_test, y_test = documents_of(data, seed, paths)
    settings = {**(SINGLE | ONLY_MEAN | SEVERAL)[name], "pooling": pooling, "max_length": 64}
    settings["precision"] = precision
    if y.ndim == 1:
        settings["classes"] = np.unique([*y, *y_test])
    clf = encoder(settings, seed)
    start = time.perf_counter()
    clf.fit(X, y)
    seconds = time.perf_counter() - start
    model, weights, biases = last_layer(clf)
    features, tested = clf.transform(X), clf.transform(X_test)
    logits = tested @ weights.T + biases
    np.savez(
        file,
        F=features.astype(np.float16),
        Ft=tested.astype(np.float16),
        y=y,
        yt=y_test,
        classes=clf.classes_,
        logits_t=logits,
        proba_t=model.calibration.answers(logits).predict_proba(),
        eff=clf.effective_class_weight_,
        prior=clf.class_prior_,
        W=weights,
        b=biases,
        seconds=seconds,
        precision=precision,
    )


def last_layer(clf):
    """Return a fitted classifier's model, and the weights and biases of its last layer."""
    model = FittedModel.of(clf)
    linear = getattr(*head_of(model.net.plain_module().model))
    return model, *(p.detach().numpy() for p in (linear.weight, linear.bias))


# -- heads ---------------------------------------------------------------------------------


def heads_of(data, pooling, name, seed, paths, precision, file):
    """Return a row for each head on the features of a training."""
    kept = dict(np.load(file, allow_pickle=True))
    answers = several_heads(kept) if kept["y"].ndim == 2 else single_heads(kept)
    X, _, X_test, _ = documents_of(data, seed, paths)
    words = proba_of_words(X, kept["y"], X_test, kept["classes"])
    answers["words alone"] = words, words
    refitted = answers["refit, balanced"][1]
    answers["refit, balanced; words"] = 2 * ((refitted + words) / 2,)
    common = {"data": data, "pooling": pooling, "name": name, "seed": seed}
    common |= {"seconds": float(kept["seconds"]), "precision": str(kept["precision"])}
    common |= {"device": device_name(), "version": __version__}
    return [
        common | {"head": head, **measured(kept, scores, proba)}
        for head, (scores, proba) in answers.items()
    ]


def single_heads(kept):
    """Return scores that decide and probabilities of each head."""
    features, tested = (kept[name].astype(np.float32) for name in ("F", "Ft"))
    codes = np.searchsorted(kept["classes"], kept["y"])
    n, counts = len(codes), np.bincount(codes, minlength=len(kept["classes"]))
    trained = kept["proba_t"].astype(float)
    natural = np.log(trained) - np.log(kept["eff"])
    prior = np.log(np.maximum(kept["prior"], 0.5 / n))
    answers = {
        "trained": (trained, trained),
        "trained, natural probabilities": (trained, softmax(natural, 1)),
        "trained, decision by prior": (natural - prior, softmax(natural, 1)),
    }
    for alpha in WEIGHTS:
        weight = class_weight(alpha, kept["classes"], counts)
        weights, biases = fit_linear(features, codes, np.ones(n), weight)
        logits = tested @ weights.T + biases
        answers[f"refit, {alpha}"] = logits, softmax(logits, 1)
        if alpha:
            natural = softmax(logits - np.log(weight), 1)
            answers[f"refit, {alpha}, natural probabilities"] = logits, natural
    norms = np.linalg.norm(kept["W"], axis=1, keepdims=True)
    logits = tested @ (kept["W"] / norms).T * norms.mean()
    answers["tau-normalised, tau 1"] = logits, softmax(logits, 1)
    logits = features @ kept["W"].T + kept["b"]
    balanced = class_weight("balanced", kept["classes"], counts)[codes]
    scale = learned_scales(logits, codes, balanced)
    logits = (tested @ kept["W"].T + kept["b"]) * scale
    answers["scales learned, balanced"] = logits, softmax(logits, 1)
    present = np.flatnonzero(counts)
    means = np.stack([features[codes == c].mean(0) for c in present])
    means, unit = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (means, tested))
    logits = np.full((len(tested), len(counts)), -99.0)
    logits[:, present] = 10 * unit @ means.T
    answers["nearest class mean"] = logits, softmax(logits, 1)
    return answers


def learned_scales(logits, codes, weight):
    """Return the factor of each class's logits with the least weighted log-loss (LWS)."""
    own = np.eye(logits.shape[1])[codes]
    weight = weight / weight.sum()

    def loss(scale):
        p = softmax(logits * scale, 1)
        gradient = (weight[:, None] * (p - own) * logits).sum(0)
        return -(weight * np.log(p[own > 0] + 1e-30)).sum(), gradient

    return minimize(loss, np.ones(logits.shape[1]), jac=True, method="L-BFGS-B").x


def several_heads(kept):
    """Return the same for several labels, as probabilities less one half."""
    features, tested = (kept[name].astype(np.float32) for name in ("F", "Ft"))
    codes = kept["y"]
    answers = {"trained": kept["proba_t"].astype(float)}
    counts = np.stack([len(codes) - codes.sum(0), codes.sum(0)], axis=1)
    for alpha in (*WEIGHTS, "effective"):
        weight = label_weight(alpha, kept["classes"], counts)
        weights, biases = fit_linear(features, codes, np.ones(len(codes)), weight)
        logits = tested @ weights.T + biases
        answers[f"refit, {alpha}"] = special.expit(logits)
    return {head: (proba, proba) for head, proba in answers.items()}


def proba_of_words(X, y, X_test, classes):
    """Return the probabilities of a linear model on word counts."""
    logistic = LogisticRegression(class_weight="balanced", C=10, max_iter=300)
    if y.ndim == 2:
        logistic = OneVsRestClassifier(logistic)
        warnings.simplefilter("ignore")  # labels without documents
    model = make_pipeline(TfidfVectorizer(sublinear_tf=True), logistic).fit(X, y)
    proba = model.predict_proba(X_test)
    if y.ndim == 2:
        return proba
    wide = np.full((len(X_test), len(classes)), 1e-6)
    wide[:, np.searchsorted(classes, model.classes_)] = proba
    return wide / wide.sum(1, keepdims=True)


def measured(kept, scores, proba):
    """Return the scores of answers to the test documents."""
    truth, classes = kept["yt"], kept["classes"]
    if truth.ndim == 2:
        predicted, some = scores > 0.5, truth.any(0)
        pairs = np.column_stack([1 - proba.ravel(), proba.ravel()])
        return {
            "accuracy": f1_score(truth, predicted, average="micro"),
            "f1_macro": f1_score(truth[:, some], predicted[:, some], average="macro"),
            "log_loss": log_loss(truth.ravel(), pairs),
            "ece": expected_calibration_error(truth.ravel(), pairs, classes=[0, 1]),
        }
    predicted = classes[scores.argmax(1)]
    return {
        "accuracy": (predicted == truth).mean(),
        "f1_macro": f1_score(truth, predicted, average="macro"),
        "log_loss": log_loss(truth, proba, labels=classes),
        "ece": expected_calibration_error(truth, proba, classes=classes),
    }


# -- the page ------------------------------------------------------------------------------


def table(rows):
    """Return the table of a corpus, the best macro-F1 first."""
    groups = {}
    for row in rows:
        key = (row["head"], "", "") if row["head"] == "words alone" else key_of(row)
        groups.setdefault(key, []).append(row)
    order = sorted(groups, key=lambda key: -np.mean([row["f1_macro"] for row in groups[key]]))
    titles = " | ".join(title for title, _, _ in METRICS.values())
    lines = [f"| training | pooling | head | seeds | {titles} |"]
    lines.append("|---|---|---|---:|" + "---:|" * len(METRICS))
    for head, pooling, name in order:
        mine = groups[head, pooling, name]
        cells = [cell(mine, *metric) for metric in METRICS.items()]
        n_seeds = len({row["seed"] for row in mine})
        cells = [name, pooling, head, str(n_seeds), *cells]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def key_of(row):
    """Return what is the same in all seeds."""
    return row["head"], row["pooling"], row["name"]


def ranks(rows, trainings):
    """Return the table of mean ranks by macro-F1, and how many pairs of corpus and seed it is over.

    Those count for which all trainings, pairs of pooling and name, are there, with the heads that
    all of them have; and only the corpora with one label per document.
    """
    rows = [row for row in rows if (row["pooling"], row["name"]) in trainings]
    rows = [row for row in rows if row["head"] != "words alone"]
    scores = {(key_of(row), row["data"], row["seed"]): row for row in rows}
    heads = {}
    for key, *run in scores:
        heads.setdefault(tuple(run), set()).add(key)
    runs = sorted(run for run, keys in heads.items() if {key[1:] for key in keys} == trainings)
    keys = sorted(set.intersection(*(heads[run] for run in runs))) if runs else []
    found, means = {}, {}
    for metric, sign in (("f1_macro", -1), ("accuracy", -1), ("log_loss", 1)):
        values = np.array([[sign * scores[key, *run][metric] for key in keys] for run in runs])
        found[metric] = np.mean([rankdata(each) for each in values], axis=0)
        means[metric] = sign * values.mean(axis=0)
    lines = ["| training | pooling | head | macro-F1 | accuracy | log-loss | mean macro-F1 % |"]
    lines.append("|---|---|---|---:|---:|---:|---:|")
    for i in np.argsort(found["f1_macro"]):
        head, pooling, name = keys[i]
        cells = " | ".join(f"{each[i]:.1f}" for each in found.values())
        mean = 100 * means["f1_macro"][i]
        lines.append(f"| {name} | {pooling} | {head} | {cells} | {mean:.1f} |")
    return "\n".join(lines), len(runs)


def main():
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpora", nargs="+", default=list(DOCUMENTS), choices=list(DOCUMENTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument(
        "--paths", nargs="+", default=[], type=corpora.named_path, metavar="CORPUS=PATH"
    )
    parser.add_argument("--poolings", nargs="+", default=POOLINGS, choices=POOLINGS)
    trainings = list(dict.fromkeys([*SINGLE, *ONLY_MEAN, *SEVERAL]))
    parser.add_argument("--trainings", nargs="+", default=trainings, choices=trainings)
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--keep", type=Path, required=True, help="folder for features and logits")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only-kept", action="store_true", help="train nothing")
    options = parser.parse_args()
    paths = dict(options.paths)
    options.keep.mkdir(parents=True, exist_ok=True)
    wanted = []
    for seed, data in itertools.product(options.seeds, options.corpora):
        trainings = SEVERAL if data == "reuters90" else SINGLE | ONLY_MEAN
        for name, pooling in itertools.product(trainings, options.poolings):
            if name not in options.trainings or (name in ONLY_MEAN and pooling != "mean"):
                continue
            training = (data, pooling, name, seed)
            file = file_of(options.keep, *training)
            wanted.append((*training, paths, options.precision, file))
    if not options.only_kept:
        missing = [each for each in wanted if not each[-1].exists()]
        Parallel(options.jobs)(delayed(train)(*each) for each in missing)
    kept = [each for each in wanted if each[-1].exists()]
    results = Parallel(options.jobs)(delayed(heads_of)(*each) for each in kept)
    rows = list(itertools.chain.from_iterable(results))
    write_page(with_earlier(rows))


def with_earlier(rows):
    """Return the rows and those of the file from other trainings."""
    keys = ("data", "pooling", "name", "seed")
    done = {tuple(row[key] for key in keys) for row in rows}
    earlier = [row for row in read(RESULTS) if tuple(row[key] for key in keys) not in done]
    return earlier + rows


def write_page(rows):
    """Write the rows and the tables."""
    RESULTS.write_text("".join(json.dumps(row) + "\n" for row in rows))
    blocks = []
    for title, trainings in RANKED.items():
        ranked, n_runs = ranks(rows, trainings)
        if n_runs:
            blocks.append(f"## {title}\n\nOver {n_runs} pairs of corpus and seed.\n\n{ranked}")
    for data in DOCUMENTS:
        mine = [row for row in rows if row["data"] == data]
        if mine:
            title = f"## {corpora.TITLES[data]}, {DOCUMENTS[data]} documents"
            blocks.append(f"{title}\n\n{table(mine)}")
    about = (
        "MiniLM, 64 tokens, otherwise the defaults (the whole encoder, 4 epochs), other documents "
        "for each seed, published test split (2000 documents of it for Ohsumed and 20 Newsgroups), "
        "mean ± standard deviation over the seeds. Natural probabilities are those of log-loss and "
        "ECE; the decision is by the others. Ranks count the heads that all trainings of the table "
        "have, 1 for the best. In float32 or bfloat16 and on "
        f"{' or '.join(sorted({row['device'] for row in rows}))}, see heads.jsonl."
    )
    if any("half frozen" in row["name"] for row in rows):
        about += " `half frozen` trains the upper three of six layers."
    title = "Pooling, losses and the second fit of the head"
    write_block(RESULTS.with_suffix(".md"), title, "\n\n".join([about, *blocks]))


if __name__ == "__main__":
    main()
