"""Seconds from a cold process to a good classifier: skfocal, Trainer, skorch, simpletransformers.

    python tests/benchmarks/time_to_quality.py --corpora r52 --limit 600
    python tests/benchmarks/time_to_quality.py --corpora 20ng-lt ohsumed --documents 500 \
        --paths ohsumed=FILE

Each contender runs in a process of its own, one at a time, on all cores. Its clock starts with the
process, so imports, reading the weights and tokenising count. The clock stands still while the
present weights are tried on the test documents. Settings of skfocal that end with a second fit of
the head are a whole fit for each point. Other trainings end after their epochs, or after --limit
seconds. Each result is a line of docs/benchmarks/time-to-quality.jsonl; a result that is already
there is not measured again. Writes docs/benchmarks/time-to-quality.md.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import contenders
import corpora
import peers
import timed
from common import DOCS, device_name, write_block
from contest import SCORES, documents
from corpora import SEVERAL, SINGLE
from entrants import TfidfSvm
from probabilities import append, read
from skfocal import __version__, fetch_minilm

RESULTS = DOCS / "time-to-quality.jsonl"
HALF = {"refit_head": "balanced", "freeze": 3, "lr": 4e-4}
SHORT = {**HALF, "max_length": 64}
# Of each setting of skfocal the whole fits; a single one is tried during the training.
OURS = {
    "skfocal, defaults": [{}],
    "skfocal, not trained": [{"max_epochs": 0, "refit_head": "balanced"}],
    "skfocal, half frozen": [{**HALF, "max_epochs": n} for n in (1, 2, 4)],
    "skfocal, half frozen, 64 tokens": [{**SHORT, "max_epochs": n} for n in (1, 2)],
    "skfocal, half frozen, 64 tokens, at most 300 of a class": [
        {**SHORT, "max_epochs": n, "largest": 300} for n in (1, 2)
    ],
    "skfocal, half frozen, 64 tokens, at most 100 of a class": [
        {**SHORT, "max_epochs": n, "largest": 100} for n in (1, 2, 3)
    ],
}
LINEAR = "TF-IDF, SVM"
# No form for several labels. (Leaving documents out for one class takes them from others, too.)
ONLY_SINGLE = (
    *(name for name in OURS if "of a class" in name),
    "skorch recipe",
    "simpletransformers",
)
# The score over all documents beside macro-F1, and its title.
ALL_TOGETHER = {SINGLE: ("accuracy", "accuracy %"), SEVERAL: ("f1_micro", "micro-F1 %")}


# -- the runs ----------------------------------------------------------------------------------


def run(order, peer, options):
    """Return the points of a contender, as timed.py sends them, and whether it came to its end."""
    command, environment = peers.launch(timed, peer, options.peers_env)
    with tempfile.TemporaryDirectory() as folder, open(f"{folder}/log", "w") as log:
        order["started"] = time.time()
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=folder,
            env=environment,
        )
        out, _ = process.communicate(json.dumps(order) + "\n")
        lines = [json.loads(line) for line in out.splitlines()]
        if process.returncode or not lines or "ended" not in lines[-1]:
            raise SystemExit(f"{order['name']} failed:\n{Path(folder, 'log').read_text()[-2000:]}")
    return lines[:-1], lines[-1]["ended"]


def linear_point(X, y, test, seed):
    """Return the point of TF-IDF and a linear model, as a warm process computes it."""
    model = TfidfSvm()
    model.prepare()
    start = time.perf_counter()
    model.fit(X, y, seed)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "classes": model.classes, **model.answers(test)}


def measure(corpus, name, data, options, seed):
    """Return the row of a contender that is trained and tested on the given documents."""
    (X, y), (X_test, y_test), kind = data
    found, ended = [], True
    if name == LINEAR:
        found = [linear_point(X, y, X_test, seed)]
    else:
        settings = contenders.TRAINING | {"model": fetch_minilm(), "max_length": 128, "epochs": 4}
        order = {
            "name": name,
            "settings": settings | {"threads": None, "device": "cpu"},
            "seed": seed,
            "limit": options.limit,
            "texts": X,
            "labels": list(y),
            "test": X_test,
        }
        for parameters in OURS.get(name, [{}]):
            if kind == SINGLE and "freeze" in parameters:
                parameters = parameters | {"alpha": "balanced"}
            more, ended = run(order | {"parameters": parameters}, name in timed.PEERS, options)
            found += more
    points = [(point["seconds"], SCORES[kind](y_test, point)) for point in found]
    score, _ = ALL_TOGETHER[kind]
    return {
        "corpus": corpus,
        "kind": kind,
        "name": name,
        "seed": seed,
        "documents": len(X),
        "tested": len(X_test),
        "points": [[s, float(scores["f1_macro"]), float(scores[score])] for s, scores in points],
        "ended": ended,
        "limit": options.limit,
        "device": device_name(),
        "version": __version__,
    }


# -- the page ----------------------------------------------------------------------------------


def first(points, target):
    """Return the first point with at least this macro-F1, or None."""
    return next((point for point in points if point[1] >= target), None)


def shown(point, points):
    """Return the seconds of a point as text; if a goal was not reached, how long it was not."""
    return f"not in {points[-1][0]:.0f}" if point is None else f"{point[0]:.0f}"


def corpus_table(rows):
    """Return the section of a corpus."""
    linear = next(row for row in rows if row["name"] == LINEAR)
    _, target, together = linear["points"][0]
    _, title = ALL_TOGETHER[linear["kind"]]
    lines = [
        f"| | s to {100 * target:.1f} % macro-F1 | {title} then | s to 95 % of its best "
        f"| best macro-F1 % | {title} then | s in all |",
        "|---|" + "---:|" * 6,
    ]
    for name in (*OURS, *timed.PEERS):
        for row in (row for row in rows if row["name"] == name):
            points = row["points"]
            best = max(points, key=lambda point: point[1])
            good = first(points, target)
            own = first(points, 0.95 * best[1]) if row["ended"] else None
            cells = [
                shown(good, points),
                f"{100 * good[2]:.1f}" if good else "–",
                shown(own, points) if row["ended"] else "–",
                f"{100 * best[1]:.1f}",
                f"{100 * best[2]:.1f}",
                f"{points[-1][0]:.0f}" if row["ended"] else f"stopped after {row['limit']:.0f}",
            ]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return (
        f"## {corpora.TITLES[rows[0]['corpus']]}\n\n{linear['documents']} training documents, "
        f"{linear['tested']} test documents. TF-IDF with LinearSVC has {100 * target:.1f} % "
        f"macro-F1 and {100 * together:.1f} % {title[:-2]}, after {linear['points'][0][0]:.1f} s. "
        f"On {linear['device']}.\n\n" + "\n".join(lines)
    )


def page(rows):
    """Return the text of the page."""
    text = ", ".join(f"`{key}={value!r}`" for key, value in HALF.items())
    epochs = "; ".join(
        f"{', '.join(str(fit['max_epochs']) for fit in fits)} ({name.removeprefix('skfocal, ')})"
        for name, fits in OURS.items()
        if "freeze" in fits[0]
    )
    sections = [
        "MiniLM, `max_length=128`, four epochs, batches of 16, a learning rate of 2e-4, one seed. "
        "Seconds from the start of a process to a trained model, imports included. The defaults "
        "of skfocal and the peers are tried during the training, at 20 s, 30 s, 45 s and so on. "
        f"`half frozen` is {text} and, where a document has one label, `alpha='balanced'`: whole "
        f"fits of {epochs} epochs, each in a new process. With `at most 300 of a class`, 300 "
        "random documents of each larger class are left. `not trained` is the encoder as it is, "
        "with `refit_head='balanced'`. skfocal computes in bfloat16 where the processor is said "
        "to have its instructions, else in float32; the peers in float32, their default."
    ]
    for corpus in dict.fromkeys(row["corpus"] for row in rows):
        sections.append(corpus_table([row for row in rows if row["corpus"] == corpus]))
    return "\n\n".join(sections)


def parse():
    """Return the options."""
    names = [LINEAR, *OURS, *timed.PEERS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpora", nargs="+", default=["r52"], choices=corpora.TITLES)
    parser.add_argument("--contenders", nargs="+", default=names, choices=names)
    parser.add_argument("--documents", type=int, help="random training documents; all by default")
    parser.add_argument("--test-documents", type=int, help="all by default")
    parser.add_argument("--limit", type=float, default=1800, help="seconds of the clock")
    parser.add_argument(
        "--paths", nargs="+", default=[], type=corpora.named_path, metavar="CORPUS=PATH"
    )
    parser.add_argument("--peers-env", metavar="FOLDER", help="by default in skfocal's data folder")
    options = parser.parse_args()
    if options.limit <= timed.MARKS[0]:
        parser.error(f"--limit: {timed.MARKS[0]} seconds pass before the weights are first tried")
    options.paths = dict(options.paths)
    return options


def missing(corpus, data, rows, options):
    """Return the contenders without a row; refuse documents other than those of the rows."""
    (X, _), (X_test, _), kind = data
    rows = [row for row in rows if row["corpus"] == corpus]
    for row in rows:
        if (row["documents"], row["tested"]) != (len(X), len(X_test)):
            raise SystemExit(
                f"{RESULTS.name} has rows of {corpus} with {row['documents']} training and "
                f"{row['tested']} test documents, not {len(X)} and {len(X_test)}: remove them, or "
                "pass --documents and --test-documents as they were."
            )
    done = {row["name"] for row in rows}
    if kind == SEVERAL:
        done.update(ONLY_SINGLE)
    return [name for name in options.contenders if name not in done]


def main():
    """Run what is missing and write the page."""
    options, seed = parse(), 0
    rows = read(RESULTS)
    for corpus in options.corpora:
        data = documents(corpus, seed, options)
        for name in missing(corpus, data, rows, options):
            found = measure(corpus, name, data, options, seed)
            rows.append(found)
            append(RESULTS, [found])
            points = (f"{s:.0f}s:{100 * m:.1f}" for s, m, _ in found["points"])
            print(corpus, name, *points, flush=True)
    write_block(RESULTS.with_suffix(".md"), "Time to a good classifier", page(rows))


if __name__ == "__main__":
    main()
