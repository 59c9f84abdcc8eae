"""Seconds from a cold process to a good classifier: skfocal, Trainer, skorch, simpletransformers.

    python tests/benchmarks/time_to_quality.py --corpora r52 --limit 600
    python tests/benchmarks/time_to_quality.py --corpora 20ng-lt ohsumed --documents 500 \
        --paths ohsumed=FILE

Each contender runs in a process of its own, one at a time, on all cores. Its clock starts with the
process, so imports, reading the weights and tokenising count. The clock stands still while the
present weights are tried on the test documents. Settings of skfocal that end with a second fit of
the head are a whole fit for each point. A training ends after its epochs, or after --limit seconds.
Each result is a line of docs/benchmarks/time-to-quality.jsonl; a result that is already there is
not measured again. Writes docs/benchmarks/time-to-quality.md.
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
from common import DOCS, device_name, scores_of, write_block
from contest import documents
from entrants import TfidfSvm
from probabilities import append, read
from skfocal import __version__, fetch_minilm

RESULTS = DOCS / "time-to-quality.jsonl"
REFIT = {"alpha": "balanced", "refit_head": "balanced"}
HALF = {**REFIT, "freeze": 3, "lr": 4e-4}
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
}
LINEAR = "TF-IDF, SVM"


# -- the runs ----------------------------------------------------------------------------------


def run(order, peer, options):
    """Return the points of a contender, ``(seconds, labels)``, and whether it came to its end."""
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
    """Return seconds and labels of TF-IDF and a linear model, as a warm process computes them."""
    model = TfidfSvm()
    model.prepare()
    start = time.perf_counter()
    model.fit(X, y, seed)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "labels": model.classes[model.answers(test)["predicted"]]}


def measure(corpus, name, options, seed):
    """Return the row of a contender."""
    (X, y), (X_test, y_test), _ = documents(corpus, seed, options)
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
            "labels": [str(label) for label in y],
            "test": X_test,
        }
        for parameters in OURS.get(name, [{}]):
            more, ended = run(order | {"parameters": parameters}, name in timed.PEERS, options)
            found += more
    return {
        "corpus": corpus,
        "name": name,
        "seed": seed,
        "documents": len(X),
        "tested": len(X_test),
        "points": [[point["seconds"], *scores(y_test, point["labels"])] for point in found],
        "ended": ended,
        "device": device_name(),
        "version": __version__,
    }


def scores(y_test, labels):
    """Return macro-F1 and accuracy."""
    found = scores_of(y_test, labels)
    return float(found["f1_macro"]), float(found["accuracy"])


# -- the page ----------------------------------------------------------------------------------


def first(points, target):
    """Return the seconds of the first point with at least this macro-F1, or None."""
    return next((seconds for seconds, macro, _ in points if macro >= target), None)


def shown(seconds, points):
    """Return seconds as text; of a goal that was not reached, how long it was not."""
    return f"not in {points[-1][0]:.0f}" if seconds is None else f"{seconds:.0f}"


def corpus_table(rows):
    """Return the section of a corpus."""
    linear = next(row for row in rows if row["name"] == LINEAR)
    _, target, accuracy = linear["points"][0]
    lines = [
        f"| | s to {100 * target:.1f} % macro-F1 | s to 95 % of its best | best macro-F1 % "
        "| accuracy % | s in all |",
        "|---|" + "---:|" * 5,
    ]
    for name in (*OURS, *timed.PEERS):
        for row in (row for row in rows if row["name"] == name):
            points = row["points"]
            best = max(points, key=lambda point: point[1])
            own = first(points, 0.95 * best[1]) if row["ended"] else None
            cells = [
                shown(first(points, target), points),
                shown(own, points) if row["ended"] else "–",
                f"{100 * best[1]:.1f}",
                f"{100 * best[2]:.1f}",
                f"{points[-1][0]:.0f}" + ("" if row["ended"] else ", stopped"),
            ]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return (
        f"## {corpora.TITLES[rows[0]['corpus']]}\n\n{linear['documents']} training documents, "
        f"{linear['tested']} test documents. TF-IDF with LinearSVC has {100 * target:.1f} % "
        f"macro-F1 and {100 * accuracy:.1f} % accuracy, after {linear['points'][0][0]:.1f} s. On "
        f"{linear['device']}.\n\n" + "\n".join(lines)
    )


def page(rows):
    """Return the text of the page."""
    text = ", ".join(f"`{key}={value!r}`" for key, value in HALF.items())
    sections = [
        "MiniLM, `max_length=128`, four epochs, batches of 16, a learning rate of 2e-4, one seed. "
        "Seconds from the start of a process to a trained model, imports included. The defaults "
        "of skfocal and the peers are tried during the training, at 20 s, 30 s, 45 s and so on. "
        f"`half frozen` is {text}: whole fits of 1, 2 and 4 epochs (with 64 tokens: 1 and 2), each "
        "in a new process; the last row of them sees 300 random documents of each larger class. "
        "`not trained` is the encoder as it is, with `refit_head='balanced'`. skfocal takes "
        "bfloat16 where the processor has it; the peers have float32, their default."
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
    options.paths = dict(options.paths)
    return options


def main():
    """Run what is missing and write the page."""
    options = parse()
    rows = read(RESULTS)
    done = {(row["corpus"], row["name"]) for row in rows}
    for corpus in options.corpora:
        for name in options.contenders:
            if (corpus, name) not in done:
                rows.append(measure(corpus, name, options, seed=0))
                append(RESULTS, rows[-1:])
                print(corpus, name, *(f"{s:.0f}s:{100 * m:.1f}" for s, m, _ in rows[-1]["points"]),
                      flush=True)  # fmt: skip
    write_block(RESULTS.with_suffix(".md"), "Time to a good classifier", page(rows))


if __name__ == "__main__":
    main()
