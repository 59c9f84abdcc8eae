"""Run named configurations over seeds, keep every result, write a table of mean and spread.

Each finished run is one line of a JSON-lines file. A run that is already there is not repeated, so
you can stop a benchmark and resume it later.
"""

import json
import os
import platform
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, delayed
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss

from skfocal import __version__
from skfocal._runtime.devices import cpu_has_bfloat16
from skfocal.datasets import fetch_reuters
from skfocal.metrics import expected_calibration_error

DOCS = Path(__file__).parents[2] / "docs" / "benchmarks"
METRICS = {
    "accuracy": "accuracy %",
    "f1_macro": "macro-F1 %",
    "f1_macro_5": "macro-F1 (5+) %",
    "balanced_accuracy": "balanced acc. %",
    "log_loss": "log-loss",
    "ece": "ECE %",
    "fit_seconds": "fit s",
}
_AS_PERCENT = {"accuracy", "f1_macro", "f1_macro_5", "f1_micro", "balanced_accuracy", "ece"}


def device_name():
    """Return the name of the device that the runs use."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    names = [x.split(":")[1].strip() for x in info.read_text().splitlines() if "model name" in x]
    extra = " with bfloat16 instructions" if cpu_has_bfloat16() else ""
    return f"{os.cpu_count()} cores of {names[0] if names else platform.processor()}{extra}"


def write_block(path, title, block):
    """Replace the text between the markers of a page; the text around them stays."""
    begin, end = "<!-- table: begin -->", "<!-- table: end -->"
    page = path.read_text() if path.exists() else ""
    if begin not in page or end not in page:
        page = f"# {title}\n\n{begin}\n{end}\n"
    before, rest = page.split(begin, 1)
    path.write_text(f"{before}{begin}\n{block.strip()}\n{end}{rest.split(end, 1)[1]}")


def measure(model, train, test):
    """Fit a model and return its scores on the test documents."""
    (X, y), (X_test, y_test) = train, test
    start = time.perf_counter()
    model.fit(X, y)
    seconds = time.perf_counter() - start
    predicted = model.predict(X_test)
    scores = {**scores_of(y_test, predicted), "fit_seconds": seconds}
    if hasattr(model, "predict_proba"):
        proba = model.predict_proba(X_test)
        scores["log_loss"] = log_loss(y_test, proba, labels=model.classes_)
        scores["ece"] = expected_calibration_error(y_test, proba, classes=model.classes_)
    return scores


def scores_of(y_test, predicted):
    """Return the scores of predicted labels."""
    labels, counts = np.unique(y_test, return_counts=True)
    return {
        "accuracy": accuracy_score(y_test, predicted),
        "f1_macro": f1_score(y_test, predicted, average="macro", zero_division=0),
        "f1_macro_5": f1_score(
            y_test, predicted, average="macro", labels=labels[counts >= 5], zero_division=0
        ),
        "balanced_accuracy": balanced_accuracy_score(y_test, predicted),
    }


def _one(name, seed, make, data, part, threads):
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")  # truncation and missing classes are part of the protocol
    train = fetch_reuters(data, subset="train", return_X_y=True)
    model = make(seed)
    if "classes" in model.get_params():
        model.set_params(classes=np.unique(train[1]))  # a part may lack some
    if part:
        rows = np.random.RandomState(seed).permutation(len(train[0]))[:part]
        train = [train[0][i] for i in rows], train[1][rows]
    test = fetch_reuters(data, subset="test", return_X_y=True)
    scores = measure(model, train, test)
    return {"data": data, "part": part, "name": name, "seed": seed, **scores}


def run(configurations, *, results, data, seeds, part=None, jobs=1):
    """Run what the file `results` does not have yet; return all rows of this data and part.

    Parameters
    ----------
    configurations : dict from name to callable ``(seed) -> estimator``
    results : path of the JSON-lines file
    data : {"r8", "r52"}
    seeds : list of int
    part : int, default=None
        Number of random training documents; None takes all.
    jobs : int, default=1
        Number of processes; each gets an equal part of the cores.
    """
    results.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(x) for x in results.read_text().splitlines()] if results.exists() else []
    done = {(row["data"], row["part"], row["name"], row["seed"]) for row in rows}
    todo = [
        delayed(_one)(name, seed, make, data, part, max(len(os.sched_getaffinity(0)) // jobs, 1))
        for seed in seeds
        for name, make in configurations.items()
        if (data, part, name, seed) not in done
    ]
    for row in Parallel(jobs, return_as="generator_unordered")(todo):
        row["device"] = device_name()
        row["version"] = __version__
        rows.append(row)
        with results.open("a") as file:
            file.write(json.dumps(row) + "\n")
        scores = f"accuracy {row['accuracy']:.4f}, macro-F1 {row['f1_macro']:.4f}"
        print(
            f"{row['name']}, seed {row['seed']}: {scores}, {row['fit_seconds']:.0f} s", flush=True
        )
    return [row for row in rows if row["data"] == data and row["part"] == part]


def table(configurations, rows, metrics=METRICS):
    """Return a Markdown table: mean and standard deviation over the seeds, per name."""
    lines = ["| | seeds | " + " | ".join(metrics.values()) + " |"]
    lines.append("|---|" + "---:|" * (len(metrics) + 1))
    for name in configurations:
        mine = [row for row in rows if row["name"] == name]
        if mine:
            cells = [_cell(metric, mine) for metric in metrics]
            lines.append(f"| {name} | {len(mine)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(metric, rows):
    values = np.array([row[metric] for row in rows if metric in row])
    if not len(values):
        return "–"
    values = values * 100 if metric in _AS_PERCENT else values
    digits = 3 if metric == "log_loss" else 1
    if metric == "fit_seconds":  # from milliseconds to hours
        digits = int(values.mean() < 10) + int(values.mean() < 1)
    spread = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"
