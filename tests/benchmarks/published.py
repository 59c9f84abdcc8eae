"""All documents of four corpora by their published splits, beside published scores and our goals.

    OMP_NUM_THREADS=1 python tests/benchmarks/published.py --paths ohsumed=FILE
    python tests/benchmarks/published.py --encoders mpnet --corpora r52 --jobs 1 --threads 2

With MiniLM two hours a seed on two cores, a third of that in bfloat16 and with half of the layers
frozen, and five times that with all-mpnet-base-v2. Each result is a line of
docs/benchmarks/published.jsonl; a run that is already there is not repeated. Writes
docs/benchmarks/published.md.
"""

import argparse
import itertools
import os
import warnings

import numpy as np
import torch
from joblib import Parallel, delayed

import corpora
from common import DOCS, METRICS, device_name, measure, table, write_block
from probabilities import append, read
from quality import linear
from skfocal import (
    BertFocalClassifier,
    __version__,
    clear_cache,
    fetch_minilm,
    fetch_mpnet,
)

RESULTS = DOCS / "published.jsonl"
CORPORA = ("r8", "r52", "ohsumed", "20ng")
ENCODERS = {"minilm": ("MiniLM", fetch_minilm), "mpnet": ("all-mpnet-base-v2", fetch_mpnet)}
COLUMNS = ("accuracy", "f1_macro", "balanced_accuracy", "log_loss", "ece", "fit_seconds")
HALF = {"minilm": {"freeze": 3, "lr": 4e-4}, "mpnet": {"freeze": 6, "lr": 1e-4}}
WORDS = "TF-IDF, SVM"  # no encoder
TRAININGS = {
    "defaults": {},
    "refit": {"alpha": "balanced", "refit_head": "balanced"},
    "refit, half frozen": {"alpha": "balanced", "refit_head": "balanced"},
    "not trained, refit": {"max_epochs": 0, "refit_head": "balanced"},
}
SHARED = {"pooling": "mean", "max_length": 128, "device": "cpu"}
# Accuracy and macro-F1 in percent, None where nobody states it, and who has it.
PUBLISHED = {
    "r8": [(97.8, None, "BERT-base, Lin et al. 2021, arXiv:2105.05727")],
    "r52": [
        (96.4, None, "BERT-base, Lin et al. 2021, arXiv:2105.05727"),
        (95.3, 67.3, "BERT-base, logs of GLEE, arXiv:2205.05461"),
        (95.7, 72.8, "BERT-base, focal loss, logs of GLEE"),
        (96.2, 82.0, "BERT-base, best head, logs of GLEE"),
        (95.7, 85.3, "BERT-base, prompts with label words, logs of GLEE"),
    ],
    "ohsumed": [
        (70.5, None, "BERT-base, Lin et al. 2021, arXiv:2105.05727"),
        (72.8, None, "BertGCN, Lin et al. 2021"),
    ],
    "20ng": [  # the same split, cleaned in another way
        (85.3, None, "BERT-base, Lin et al. 2021, arXiv:2105.05727"),
        (89.3, None, "BertGCN, Lin et al. 2021"),
    ],
}
GOALS = {"r8": (98.0, None), "r52": (96.5, 86.0), "ohsumed": (72.0, None), "20ng": (86.0, None)}


def encoder(name, training, seed, precision):
    """Return a classifier."""
    settings = SHARED | {"precision": precision} | TRAININGS[training]
    if "half frozen" in training:
        settings |= HALF[name]
    return BertFocalClassifier(ENCODERS[name][1](), random_state=seed, **settings)


def name_of(encoder_name, training):
    """Return the name of a row."""
    if training == WORDS:
        return WORDS
    return f"{ENCODERS[encoder_name][0]}, {training}"


def run(data, encoder_name, training, seed, precision, path, threads):
    """Return the row of a training."""
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")  # truncation is part of the protocol
    clear_cache()
    X, y, X_test, y_test, _ = corpora.load(data, path=path)
    if training == WORDS:
        model = linear("balanced", seed)
    else:
        model = encoder(encoder_name, training, seed, precision)
    return {
        "data": data,
        "name": name_of(encoder_name, training),
        "seed": seed,
        **measure(model, (X, y), (X_test, y_test)),
        "lr": getattr(model, "lr_", None),
        "documents": len(X),
        "classes": len(np.unique(y)),
        "threads": threads,
        "precision": precision,
        "device": device_name(),
        "version": __version__,
    }


def page(rows):
    """Return the text of the page."""
    names = [WORDS, *itertools.starmap(name_of, itertools.product(ENCODERS, TRAININGS))]
    columns = {metric: METRICS[metric] for metric in COLUMNS}
    half = "`freeze` of half the layers and twice the learning rate"
    blocks = [
        f"{_spelled(SHARED)}, otherwise the defaults. `refit` has {_spelled(TRAININGS['refit'])}; "
        f"`half frozen` adds {half}; `not trained` has "
        f"{_spelled(TRAININGS['not trained, refit'])}. Published split, all documents; mean ± "
        "standard deviation over the seeds. " + _machines(rows)
    ]
    for data in CORPORA:
        mine = [row for row in rows if row["data"] == data]
        if not mine:
            continue
        title = f"## {corpora.TITLES[data]}\n\n{mine[0]['documents']} training documents with "
        title += f"{mine[0]['classes']} classes."
        blocks += [title, table(names, mine, columns), _elsewhere(data)]
    return "\n\n".join(blocks)


def _spelled(settings):
    shown = {key: value for key, value in settings.items() if key != "device"}
    return ", ".join(f"`{key}={value!r}`" for key, value in shown.items())


def _machines(rows):
    kinds = dict.fromkeys((row["threads"], row["precision"], row["device"]) for row in rows)
    return (
        "Seconds are on "
        + " or ".join(
            f"{threads} {'thread' if threads == 1 else 'threads'} in {precision} on {device}"
            for threads, precision, device in kinds
        )
        + "."
    )


def _elsewhere(data):
    """Return the table of published scores, with our goal."""
    lines = ["| elsewhere | accuracy % | macro-F1 % |", "|---|---:|---:|"]
    for accuracy, f1, who in [*PUBLISHED[data], (*GOALS[data], "our goal with MiniLM")]:
        cells = ("–" if value is None else f"{value:.1f}" for value in (accuracy, f1))
        lines.append(f"| {who} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpora", nargs="+", default=CORPORA, choices=CORPORA)
    parser.add_argument("--encoders", nargs="+", default=["minilm"], choices=ENCODERS)
    trainings = [WORDS, *TRAININGS]
    parser.add_argument("--trainings", nargs="+", default=trainings, choices=trainings)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument(
        "--paths", nargs="+", default=[], type=corpora.named_path, metavar="CORPUS=PATH"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--threads", type=int, default=1, help="of each job")
    options = parser.parse_args()
    paths = dict(options.paths)
    rows = read(RESULTS)
    done = {(row["data"], row["name"], row["seed"]) for row in rows}
    wanted = {  # the linear model once, whatever the encoders
        (data, name_of(encoder_name, training), seed): (data, encoder_name, training, seed)
        for seed, data, encoder_name, training in itertools.product(
            options.seeds, options.corpora, options.encoders, options.trainings
        )
    }
    todo = [
        delayed(run)(*each, options.precision, paths.get(each[0]), options.threads)
        for key, each in wanted.items()
        if key not in done
    ]
    for row in Parallel(options.jobs, return_as="generator_unordered")(todo):
        append(RESULTS, [row])
        rows.append(row)
        print(row["data"], row["name"], f"{row['f1_macro']:.4f}", flush=True)
    write_block(RESULTS.with_suffix(".md"), "All documents of the published splits", page(rows))


if __name__ == "__main__":
    main()
