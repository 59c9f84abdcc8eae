"""Searches of 32 candidates: all in full, successive halving by epochs, Optuna's pruner.

    OMP_NUM_THREADS=1 python tests/benchmarks/halving.py --paths ohsumed=FILE
    python tests/benchmarks/halving.py --jobs-only    # n_jobs and threads, on two idle cores

The first takes about an hour on one core. Times are CPU seconds of the one thread, since another
process on the machine would stretch any other clock. Each candidate of the full grid and each
search is a line of docs/benchmarks/halving.jsonl, and what is there is not measured again. Writes
docs/benchmarks/halving.md.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import warnings

import numpy as np
import optuna
import torch
from optuna_integration import SkorchPruningCallback
from sklearn.base import clone
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.metrics import f1_score
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    ParameterGrid,
    cross_val_score,
)
from transformers.utils import logging

import corpora
from common import DOCS, device_name, write_block
from heads import documents_of
from probabilities import append, read
from skfocal import BertFocalClassifier, __version__, clear_cache, fetch_minilm
from skfocal.balance import stratified_holdout

RESULTS = DOCS / "halving.jsonl"
CORPORA = ("r52", "ohsumed", "20ng-lt")
GRID = {
    "gamma": [0, 1, 2, 5],
    "alpha": [None, "sqrt", "balanced", "effective"],
    "sampler": [None, "sqrt"],
}
CANDIDATES = list(ParameterGrid(GRID))
EPOCHS, DOCUMENTS, TESTED, MAX_LENGTH = 8, 300, 1000, 32


class Task:
    """A corpus with its folds and its classifier."""

    def __init__(self, data, paths):
        self.data = data
        X, y, X_test, y_test = documents_of(data, 0, paths)
        self.X, self.y = np.array(X[:DOCUMENTS], object), y[:DOCUMENTS]
        rows = np.random.RandomState(0).permutation(len(y_test))[:TESTED]
        self.X_test, self.y_test = np.array(X_test, object)[rows], y_test[rows]
        classes, codes = np.unique(self.y, return_inverse=True)
        # Halves, in which each class has at least one document to train on.
        self.folds = [stratified_holdout(codes, 0.5, np.random.RandomState(i)) for i in (0, 1)]
        self.clf = BertFocalClassifier(
            fetch_minilm(),
            classes=classes,
            freeze=5,
            lr=1e-3,
            max_epochs=EPOCHS,
            max_length=MAX_LENGTH,
            precision="bfloat16",
            device="cpu",
            random_state=0,
        )
        self.common = {"data": data, "device": device_name(), "version": __version__}

    def cold(self):
        """Return the CPU seconds of a plain fit of all documents, with nothing kept before it."""
        clear_cache()
        start = time.process_time()
        clone(self.clf).fit(self.X, self.y)
        return time.process_time() - start

    def candidate(self, params):
        """Return the row of a candidate in full length, over both folds."""
        start = time.process_time()
        scores = cross_val_score(
            clone(self.clf).set_params(**params),
            self.X,
            self.y,
            cv=self.folds,
            scoring="f1_macro",
            error_score="raise",
        )
        row = {"kind": "candidate", "params": params, "scores": scores.tolist()}
        return self.common | row | {"seconds": time.process_time() - start}

    def search(self, way):
        """Return the row of a search."""
        plain = self.cold()
        clear_cache()
        start = time.process_time()
        params, rungs = WAYS[way](self)
        seconds = time.process_time() - start
        row = {"kind": "search", "way": way, "params": params, "rungs": rungs}
        return self.common | row | {"seconds": seconds, "plain": plain}

    def test(self, params):
        """Return the row of a candidate that is fitted to all training documents."""
        clf = clone(self.clf).set_params(**params).fit(self.X, self.y)
        f1 = f1_score(self.y_test, clf.predict(self.X_test), average="macro")
        return self.common | {"kind": "test", "params": params, "f1": f1}


# -- the searches --------------------------------------------------------------------------


def halving(task, cv, factor):
    """Search by successive halving of the candidates, with more epochs for those that stay."""
    search = HalvingGridSearchCV(
        task.clf,
        GRID,
        resource="max_epochs",
        min_resources=1,
        max_resources=EPOCHS,
        factor=factor,
        cv=cv,
        scoring="f1_macro",
        return_train_score=False,
        refit=False,
        random_state=0,
        error_score="raise",
    ).fit(task.X, task.y)
    found = search.cv_results_
    rungs = [
        {"params": shown, "epochs": shown.pop("max_epochs"), "score": score}
        for shown, score in zip(map(dict, found["params"]), found["mean_test_score"], strict=True)
    ]
    best = rungs[search.best_index_]
    return best["params"], rungs


class PruneByEpoch(SkorchPruningCallback):
    """Reports to the trial that it was given, though a fit copies its callbacks."""

    def __deepcopy__(self, memo):
        """Return itself."""
        return self


def pruned(task):
    """Search with Optuna's asynchronous successive halving, on the first fold."""
    train, held_out = task.folds[0]
    eval_set = task.X[held_out], task.y[held_out]

    def objective(trial):
        params = {name: trial.suggest_categorical(name, grid) for name, grid in GRID.items()}
        clf = clone(task.clf).set_params(**params, scoring="f1_macro")
        clf.set_params(callbacks=[PruneByEpoch(trial, "valid_score")])
        clf.fit(task.X[train], task.y[train], eval_set=eval_set)
        return clf.history_[-1, "valid_score"]

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.GridSampler(GRID, seed=0),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=4),
    )
    study.optimize(objective, n_trials=len(CANDIDATES))
    rungs = [
        {"params": trial.params, "epochs": epoch, "score": score}
        for trial in study.trials
        for epoch, score in trial.intermediate_values.items()
    ]
    return study.best_params, rungs


WAYS = {
    "halving, 1 split": lambda task: halving(task, task.folds[:1], 8),
    "halving, 2 folds": lambda task: halving(task, task.folds, 8),
    "Optuna, 1 split": pruned,
}


# -- jobs ----------------------------------------------------------------------------------

JOBS = {"1 job, 1 thread": (1, 1), "1 job, 2 threads": (1, 2), "2 jobs, 1 thread each": (2, 1)}


def jobs():
    """Return the rows of a small grid with one job and with two; each in a process of its own."""
    rows = []
    for repeat in range(3):
        for name, (n_jobs, threads) in JOBS.items():
            command = [sys.executable, __file__, "--one-job", str(n_jobs)]
            env = os.environ | {"OMP_NUM_THREADS": str(threads)}
            found = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
            row = {"kind": "jobs", "name": name, "repeat": repeat}
            row |= json.loads(found.stdout.splitlines()[-1])
            rows.append(row | {"device": device_name(), "version": __version__})
            print(rows[-1], flush=True)
    return rows


def one_job(n_jobs):
    """Print the wall seconds of a small grid."""
    task = Task("r52", {})
    task.clf.set_params(max_epochs=2)
    # Workers and weights are there before the clock starts, but nothing of the documents.
    other = np.array([f"another text: {text}" for text in task.X], object)
    GridSearchCV(task.clf, {"gamma": [0, 1]}, cv=task.folds[:1], n_jobs=n_jobs, refit=False).fit(
        other, task.y
    )
    grid = {"gamma": [0, 2], "alpha": [None, "sqrt"]}
    search = GridSearchCV(task.clf, grid, cv=task.folds, n_jobs=n_jobs, refit=False)
    start = time.perf_counter()
    search.fit(task.X, task.y)
    print(json.dumps({"seconds": time.perf_counter() - start}))


COLUMNS = (
    "search",
    "CPU seconds",
    "in plain fits",
    "chosen",
    "its score in the full grid %",
    "less than the best by",
    "macro-F1 on test documents %",
)


# -- the page ------------------------------------------------------------------------------


def key(params):
    """Return a text of the parameters of a candidate."""
    return json.dumps(params, sort_keys=True)


def shown(params):
    """Return the parameters of a candidate for readers."""
    return ", ".join(f"{name} {params[name]}" for name in GRID)


def table(rows, data):
    """Return the table of a corpus; without what needs the full grid while that is not complete."""
    mine = [row for row in rows if row.get("data") == data]
    candidates, searches, tests = (
        [row for row in mine if row["kind"] == kind] for kind in ("candidate", "search", "test")
    )
    if not searches:
        return ""
    full = {key(row["params"]): np.mean(row["scores"]) for row in candidates}
    tested = {key(row["params"]): row["f1"] for row in tests}
    is_complete = len(full) == len(CANDIDATES)
    ways = [*searches]
    if candidates:
        ways.insert(0, full_grid(candidates, np.mean([row["plain"] for row in searches])))
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|---:|---:|---|---:|---:|---:|"]
    for row in ways:
        cells = [row["way"], f"{row['seconds']:.0f}", f"{row['seconds'] / row['plain']:.1f}"]
        params = key(row["params"]) if row["params"] else None
        cells += [shown(row["params"]) if params else ""]
        score = full.get(params)
        cells += [f"{100 * score:.1f}" if score else ""]
        cells += [f"{100 * (max(full.values()) - score):.1f}" if is_complete else ""]
        cells += [f"{100 * tested[params]:.1f}" if params in tested else ""]
        lines.append(f"| {' | '.join(cells)} |")
    spread = 100 * np.mean([abs(np.diff(row["scores"])) for row in candidates] or [np.nan])
    return "\n".join(lines) + (
        f"\n\nOf the full grid, {len(full)} of {len(CANDIDATES)} candidates are measured. The two "
        f"folds of a candidate differ by {spread:.1f} points on average."
    )


def full_grid(candidates, plain):
    """Return the row of the full grid, its seconds scaled to all candidates."""
    best = max(candidates, key=lambda row: np.mean(row["scores"]))
    is_complete = len(candidates) == len(CANDIDATES)
    seconds = len(CANDIDATES) * np.mean([row["seconds"] for row in candidates])
    row = {"way": "the full grid, 2 folds", "seconds": seconds, "plain": plain}
    return row | {"params": best["params"] if is_complete else None}


def jobs_table(rows):
    """Return the table of jobs and threads."""
    times = {
        name: np.array([r["seconds"] for r in rows if r["kind"] == "jobs" and r["name"] == name])
        for name in JOBS
    }
    if not all(map(len, times.values())):
        return ""
    lines = ["| | seconds of 3 runs | times as fast as 1 job, 1 thread |", "|---|---|---:|"]
    for name, seconds in times.items():
        ratio = np.median(times["1 job, 1 thread"]) / np.median(seconds)
        lines.append(f"| {name} | {', '.join(f'{s:.1f}' for s in seconds)} | {ratio:.2f} |")
    return "## Jobs and threads\n\n" + "\n".join(lines)


def page(rows):
    """Return the text of the page."""
    about = (
        f"{len(CANDIDATES)} candidates: gamma {GRID['gamma']} x alpha {GRID['alpha']} x sampler "
        f"{GRID['sampler']}, by macro-F1. MiniLM with `freeze=5` of 6 layers, `lr=1e-3`, "
        f"{MAX_LENGTH} tokens, bfloat16, {EPOCHS} epochs, otherwise the defaults; {DOCUMENTS} "
        "training documents. The folds are stratified halves; 1 split is the first of the 2 folds. "
        "A plain fit is one of all training documents with nothing kept before it; one was timed "
        "before each search. Searches are without the last fit. The test score is that of the "
        f"chosen candidate, fitted to all training documents, on {TESTED} test documents. One "
        f"thread on {' and '.join(sorted({row['device'] for row in rows}))}."
    )
    tables = [(corpora.TITLES[data], table(rows, data)) for data in CORPORA]
    blocks = [f"## {title}\n\n{text}" for title, text in tables if text]
    return "\n\n".join([about, *blocks, jobs_table(rows)])


def keep(row):
    """Write a row to the file, and show it."""
    append(RESULTS, [row])
    print({k: v for k, v in row.items() if k not in ("rungs", "device", "version")}, flush=True)


def measure(data, paths):
    """Measure what the file does not have yet of a corpus."""
    task = Task(data, paths)
    mine = [row for row in read(RESULTS) if row.get("data") == data]
    done = {(row["kind"], row.get("way"), key(row["params"])) for row in mine}
    ways = {row["way"]: row["params"] for row in mine if row["kind"] == "search"}
    for way in [way for way in WAYS if way not in ways]:
        row = task.search(way)
        ways[way] = row["params"]
        keep(row)
    for params in CANDIDATES:
        if ("candidate", None, key(params)) not in done:
            keep(task.candidate(params))
    found = [row for row in read(RESULTS) if row.get("data") == data]
    found = [row for row in found if row["kind"] == "candidate"]
    best = max(found, key=lambda row: np.mean(row["scores"]))["params"]
    for params in {key(params): params for params in [best, *ways.values()]}.values():
        if ("test", None, key(params)) not in done:
            keep(task.test(params))


def main():
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpora", nargs="+", default=CORPORA, choices=CORPORA)
    parser.add_argument(
        "--paths", nargs="+", default=[], type=corpora.named_path, metavar="CORPUS=PATH"
    )
    parser.add_argument("--jobs-only", action="store_true")
    parser.add_argument("--one-job", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if options.one_job:
        return one_job(options.one_job)
    torch.set_num_threads(1)
    if options.jobs_only:
        append(RESULTS, jobs())
    else:
        for data in options.corpora:
            measure(data, dict(options.paths))
    write_block(RESULTS.with_suffix(".md"), "Searches of many candidates", page(read(RESULTS)))


if __name__ == "__main__":
    main()
