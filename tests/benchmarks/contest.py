"""Compare skfocal with linear models, frozen and static embeddings, SetFit, Trainer and skorch.

    python tests/benchmarks/contest.py --documents 1000
    python tests/benchmarks/contest.py --corpora ohsumed reuters90 --documents 1000 \
        --paths ohsumed=ohsumed.jsonl.gz reuters90=nltk_data/corpora/reuters
    python tests/benchmarks/contest.py --documents 1000 --figure    # runs nothing

Each training runs in its own process, on one thread, and is timed from texts to a fitted model. The
other packages have an environment of their own; see peers-requirements.txt. A run whose line is
already in docs/benchmarks/contest.jsonl, with the same settings, is not repeated. Writes that file,
contest.md next to it, and with --figure docs/images/contest.svg.
"""

import argparse
import functools
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from scipy.stats import rankdata
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss
from sklearn.preprocessing import MultiLabelBinarizer

import contenders
import corpora
import entrants
import peers
from common import DOCS, METRICS, device_name, scores_of, table, write_block
from contest_figure import draw
from corpora import SEVERAL, SINGLE
from probabilities import append, read
from skfocal import __version__, expected_calibration_error, fetch_minilm

TITLE = "skfocal and its alternatives"
RESULTS, FIGURE = DOCS / "contest.jsonl", DOCS.parent / "images" / "contest.svg"

# What all share that train the encoder.
TRAINING = {"max_length": 128, "epochs": 4, **contenders.TRAINING}
# Parameters of BertFocalClassifier by name. The first has the head of Trainer and skorch.
PLAIN = {"pooling": "head", "loss": "cross_entropy"}
REFIT = {"alpha": "balanced", "refit_head": "balanced"}
REFIT_LABELS = {"refit_head": "balanced"}
FROZEN = {"freeze": 3}
SKFOCAL = {
    SINGLE: {
        "skfocal, cross-entropy": PLAIN,
        "skfocal, defaults": {},
        "skfocal, refit": REFIT,
        "skfocal, refit, half frozen": REFIT | FROZEN,
    },
    SEVERAL: {
        "skfocal, cross-entropy": PLAIN,
        "skfocal, defaults": {},
        "skfocal, refit": REFIT_LABELS,
        "skfocal, refit, half frozen": REFIT_LABELS | FROZEN,
    },
}
# Settings of the others by name.
OTHERS = {
    "TF-IDF, SVM": {},
    "TF-IDF, logistic": {},
    "frozen MiniLM": {"max_length": TRAINING["max_length"], "predict_batch_size": 64},
    "model2vec": {},
    "model2vec, tuned": {},
    # The passes are twice the epochs of the others, at SetFit's own batch size and learning rate.
    "SetFit": {"max_length": TRAINING["max_length"], "passes": 8, "batch_size": 16, "lr": 2e-5},
    "skorch recipe": TRAINING,
    "Trainer": TRAINING,
}
ONLY_SINGLE = ("skorch recipe",)  # skorch's documentation has none for several labels
MEASURED = ("f1_macro", "balanced_accuracy", "log_loss", "ece", "fit_seconds")
METRICS_OF = {
    SINGLE: {metric: METRICS[metric] for metric in ("accuracy", *MEASURED)},
    SEVERAL: {"f1_micro": "micro-F1 %"} | {metric: METRICS[metric] for metric in MEASURED},
}


def contenders_of(kind):
    """Return by name the process of each contender and its settings."""
    others = [name for name in OTHERS if kind == SINGLE or name not in ONLY_SINGLE]
    ours = {name: {**TRAINING, "parameters": own} for name, own in SKFOCAL[kind].items()}
    found = {name: (name, OTHERS[name]) for name in others}
    return found | {name: ("skfocal", settings) for name, settings in ours.items()}


NAMES = list(contenders_of(SINGLE) | contenders_of(SEVERAL))


# -- scores ------------------------------------------------------------------------------------


def scores_single(y, answers):
    """Return the scores with one label per document."""
    classes = np.array(answers["classes"])
    if "predicted" in answers:
        return scores_of(y, classes[answers["predicted"]])
    proba = np.array(answers["proba"], dtype=float)
    proba /= proba.sum(axis=1, keepdims=True)
    trained = np.isin(y, classes)
    every = np.unique([*classes, *y])
    wide = np.zeros((len(y), len(every)))
    wide[:, np.searchsorted(every, classes)] = proba
    return scores_of(y, classes[proba.argmax(axis=1)]) | {
        "log_loss": log_loss(y[trained], proba[trained], labels=classes),
        "ece": expected_calibration_error(y, wide, classes=every),
    }


def scores_several(y, answers):
    """Return the scores with several labels per document, over the labels of the test documents.

    Balanced accuracy is the mean over labels. Log-loss and ECE are of the question, for each
    document and label, of whether it applies.
    """
    every = sorted({label for labels in y for label in labels}.union(answers["classes"]))
    truth = MultiLabelBinarizer(classes=every).fit_transform(y)
    trained = np.searchsorted(every, answers["classes"])
    predicted = np.zeros_like(truth)
    scores = {}
    if "predicted" in answers:
        predicted[:, trained] = answers["predicted"]
    else:
        p, applies = np.array(answers["proba"], dtype=float), truth[:, trained].ravel()
        predicted[:, trained] = p > 0.5
        pairs = np.column_stack([1 - p.ravel(), p.ravel()])
        scores["log_loss"] = log_loss(applies, pairs, labels=[0, 1])
        scores["ece"] = expected_calibration_error(applies, pairs, classes=[0, 1])
    columns = np.flatnonzero(truth.any(axis=0))
    by_label = [balanced_accuracy_score(truth[:, i], predicted[:, i]) for i in columns]
    return scores | {
        "f1_micro": f1_score(truth, predicted, average="micro"),
        "f1_macro": f1_score(truth, predicted, average="macro", labels=columns, zero_division=0),
        "balanced_accuracy": float(np.mean(by_label)),
    }


SCORES = {SINGLE: scores_single, SEVERAL: scores_several}


# -- runs --------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4)
def load(corpus, path, seed):
    """Return the corpus, which several contenders share; only one depends on the seed."""
    return corpora.load(corpus, path=path, seed=seed)


def documents(corpus, seed, options):
    """Return the training and test documents of a run, and the kind of their labels."""
    own_seed = seed if corpus == "20ng-lt" else 0
    X, y, X_test, y_test, kind = load(corpus, options.paths.get(corpus), own_seed)
    train = _part(X, y, options.documents, seed)
    return train, _part(X_test, y_test, options.test_documents, 0), kind


def _part(X, y, n_documents, seed):
    """Return as many random documents, or all."""
    if n_documents is None or n_documents >= len(X):
        return X, y
    rows = np.random.RandomState(seed).permutation(len(X))[:n_documents]
    return [X[i] for i in rows], [y[i] for i in rows] if isinstance(y, list) else y[rows]


def plan(options):
    """Return what identifies each wanted run: dicts that a row of the results begins with."""
    runs = []
    for corpus in options.corpora:
        kind = load(corpus, options.paths.get(corpus), 0)[-1]
        runs += [
            {
                "corpus": corpus,
                "kind": kind,
                "part": options.documents,
                "test_part": options.test_documents,
                "name": name,
                "seed": seed,
                "threads": options.threads,
                "settings": settings,
            }
            for seed in options.seeds
            for name, (_, settings) in contenders_of(kind).items()
            if name in options.contenders
        ]
    return runs


def same(row, run):
    """Say whether a row is the result of a run."""
    return all(row[key] == value for key, value in run.items())


def compete(run, options):
    """Train and score one contender; return its row, or None if it fails."""
    corpus, name, seed = run["corpus"], run["name"], run["seed"]
    (X, y), (X_test, y_test), kind = documents(corpus, seed, options)
    settings = run["settings"] | {"threads": run["threads"], "device": "cpu"}
    settings["model"] = fetch_minilm()
    process_name, _ = contenders_of(kind)[name]
    with tempfile.TemporaryDirectory() as folder:
        try:
            process = peers.start(process_name, settings, folder, options.peers_env, entrants)
            try:
                report = process.fit(X, y, seed)
                answers = process.answers(X_test)
            finally:
                process.close()
        except peers.ContenderError as error:
            print(f"left out: {corpus}, seed {seed}: {error}", flush=True)
            return None
    return run | {
        **SCORES[kind](y_test, answers),
        "fit_seconds": report["seconds"],
        "peak_mib": report["peak_mib"],
        "others": report["others"],
        "documents": len(X),
        "test_documents": len(X_test),
        "classes": len(answers["classes"]),
        "device": device_name(),
        "version": __version__,
        "versions": process.versions,
    }


def run_all(options, rows):
    """Run what the results do not have yet; add it to the rows and the file."""
    todo = [run for run in plan(options) if not any(same(row, run) for row in rows)]
    if any(entrants.CONTENDERS.get(run["name"], entrants.Skfocal).peer for run in todo):
        peers.peers_python(options.peers_env)  # once, before several processes want it
    options.results.parent.mkdir(parents=True, exist_ok=True)
    work = Parallel(options.jobs, prefer="threads", return_as="generator_unordered")
    for row in work(delayed(compete)(run, options) for run in todo):
        if row:
            rows.append(row)
            append(options.results, [row])
            print(
                f"{row['corpus']}, {row['name']}, seed {row['seed']}: macro-F1 "
                f"{row['f1_macro']:.4f}, {row['fit_seconds']:.2f} s",
                flush=True,
            )


# -- page --------------------------------------------------------------------------------------


def chosen(rows, options):
    """Return the rows with the sizes and threads of the options and the settings of this file."""
    return [
        row
        for row in rows
        if row["part"] == options.documents
        and row["test_part"] in (None, options.test_documents)  # all are more
        and row["threads"] == options.threads
        and row["name"] in contenders_of(row["kind"])
        and row["settings"] == contenders_of(row["kind"])[row["name"]][1]
    ]


def describe(rows, options):
    """Return the paragraphs above the tables."""
    versions = functools.reduce(dict.__or__, [row["versions"] for row in rows])
    part = "All training documents"
    if options.documents:
        part = f"{options.documents} random training documents, others for each seed"
    tested = "the published test split"
    if options.test_documents:
        tested += f", or {options.test_documents} random documents of it"
    return (
        f"{part}; {tested}. Mean ± standard deviation over the seeds. Seconds are "
        "from texts to a fitted model, the reading of weights included, "
        f"on {options.threads} thread{'s' * (options.threads > 1)}, one fit for each core at a "
        "time, and to be compared within a corpus: not all ran on the same machine. skfocal "
        f"{rows[-1]['version']}, "
        + ", ".join(f"{name} {number}" for name, number in versions.items())
        + f".\n\nAll encoders are MiniLM. Those that are trained have {_python(TRAINING)}. "
        "`skfocal, cross-entropy` has BERT's head, as Trainer and skorch have; the other settings "
        "of skfocal have the mean of the tokens, its default. None of them has dropout, also its "
        f"default. `skfocal, refit` has {_python(REFIT)} or, with several labels, "
        f"{_python(REFIT_LABELS)}; `half frozen` adds {_python(FROZEN)}. SetFit reads each "
        f"document {OTHERS['SetFit']['passes']} times in pairs, with its own learning rate. "
        'The linear models and model2vec have `class_weight="balanced"`. model2vec is distilled '
        "from MiniLM beforehand, which takes 20 seconds. The log-loss leaves out the labels that "
        "no training document has; the other scores count them."
    )


def _python(parameters):
    return ", ".join(f"`{key}={value!r}`" for key, value in parameters.items())


def corpus_table(corpus, rows):
    """Return the section of a corpus."""
    mine = [row for row in rows if row["corpus"] == corpus]
    kind = mine[0]["kind"]
    note = ""
    if kind == SEVERAL:
        note = " Each document has several labels; balanced accuracy is the mean over labels."
    sizes = {key: _range(mine, key) for key in ("documents", "test_documents", "classes")}
    devices = " and ".join(sorted({row["device"] for row in mine}))
    return (
        f"## {corpora.TITLES[corpus]}\n\n{sizes['documents']} training documents with "
        f"{sizes['classes']} classes, {sizes['test_documents']} test documents.{note} On "
        f"{devices}.\n\n" + table(contenders_of(kind), mine, METRICS_OF[kind])
    )


def _range(rows, key):
    low, high = (function(row[key] for row in rows) for function in (min, max))
    return str(low) if low == high else f"{low} to {high}"


def ranks(rows):
    """Return by name and corpus the mean rank by macro-F1 over seeds, 1 for the best.

    Only the seeds for which all contenders of the corpus have a row count.
    """
    found = {}
    for corpus in dict.fromkeys(row["corpus"] for row in rows):
        mine = {(r["name"], r["seed"]): r["f1_macro"] for r in rows if r["corpus"] == corpus}
        names, seeds = (sorted({key[i] for key in mine}) for i in (0, 1))
        full = [seed for seed in seeds if all((name, seed) in mine for name in names)]
        if full:
            scores = np.array([[mine[name, seed] for name in names] for seed in full])
            means = rankdata(-scores, axis=1).mean(axis=0)
            found |= {(name, corpus): rank for name, rank in zip(names, means, strict=True)}
    return found


def rank_table(rows):
    """Return the table of mean ranks; the mean is over the corpora with one label per document."""
    found = ranks(rows)
    in_order = [c for c in corpora.TITLES if any(corpus == c for _, corpus in found)]
    kinds = {row["corpus"]: row["kind"] for row in rows}
    single = [corpus for corpus in in_order if kinds[corpus] == SINGLE]
    titles = " | ".join(corpora.TITLES[corpus] for corpus in in_order)
    lines = [f"| | {titles} | mean |", "|---|" + "---:|" * (len(in_order) + 1)]
    for name in NAMES:
        mine = {corpus: found[name, corpus] for corpus in in_order if (name, corpus) in found}
        cells = [f"{mine[corpus]:.1f}" if corpus in mine else "–" for corpus in in_order]
        full = single and all(corpus in mine for corpus in single)
        mean = f"{np.mean([mine[corpus] for corpus in single]):.1f}" if full else "–"
        if mine:
            lines.append(f"| {name} | {' | '.join(cells)} | {mean} |")
    return "\n".join(lines)


def page(rows, options):
    """Return the text of the page."""
    in_order = [c for c in corpora.TITLES if any(row["corpus"] == c for row in rows)]
    return "\n\n".join(
        [
            describe(rows, options),
            "## Ranks\n\nRank by macro-F1, 1 for the best, as the mean over the seeds; the mean "
            "over the corpora with one label per document.",
            rank_table(rows),
            *(corpus_table(corpus, rows) for corpus in in_order),
        ]
    )


# -- command -----------------------------------------------------------------------------------


def parse():
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpora", nargs="+", choices=corpora.TITLES, metavar="CORPUS",
                        help=", ".join(corpora.TITLES) + "; by default those that need no path "
                        "or have one")  # fmt: skip
    parser.add_argument("--contenders", nargs="+", choices=NAMES, default=NAMES, metavar="NAME",
                        help="; ".join(NAMES))  # fmt: skip
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--documents", type=int, help="random training documents; all by default")
    parser.add_argument("--test-documents", type=int, help="for a trial; all by default")
    parser.add_argument("--paths", nargs="+", default=[], type=corpora.named_path,
                        metavar="CORPUS=PATH",
                        help=f"file or folder of {' and '.join(corpora.YOURS)}")  # fmt: skip
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--peers-env", metavar="FOLDER", help="by default in skfocal's data folder")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE")
    parser.add_argument("--figure", type=Path, nargs="?", const=FIGURE, metavar="FILE",
                        help="draw the results and run nothing")  # fmt: skip
    options = parser.parse_args()
    options.paths = dict(options.paths)
    reachable = [c for c in corpora.TITLES if c not in corpora.YOURS or c in options.paths]
    options.corpora = options.corpora or reachable
    lacking = [corpus for corpus in options.corpora if corpus not in reachable]
    if lacking and not options.figure:
        parser.error(f"name what holds it: --paths {lacking[0]}=PATH")
    return options


def main():
    """Run what the file does not have yet and write the page, or draw the figure."""
    options = parse()
    os.environ.update(peers.QUIET)
    warnings.simplefilter("ignore")  # classes that few documents lack are part of the protocol
    rows = read(options.results)
    if not options.figure:
        run_all(options, rows)
    rows = chosen(rows, options)
    if not rows:
        raise SystemExit(f"{options.results} has no row with these sizes and settings.")
    if options.figure:
        draw(rows, corpora.TITLES, options.figure)
    else:
        write_block(options.results.with_suffix(".md"), TITLE, page(rows, options))


if __name__ == "__main__":
    main()
