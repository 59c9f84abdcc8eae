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
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # at the end: no file here may hide a package

import contenders  # noqa: E402

MARKS = [round(20 * 1.5**i) for i in range(12)]  # seconds at which the weights are tried
REFIT = {"alpha": "balanced", "refit_head": "balanced"}
HALF = {**REFIT, "freeze": 3, "lr": 4e-4}
SHORT = {**HALF, "max_length": 64}
# Of each setting of skfocal the whole fits; a single one is tried during the training.
OURS = {
    "skfocal, defaults": [{}],
    "skfocal, not trained": [{"max_epochs": 0, "refit_head": "balanced"}],
    "skfocal, half frozen": [{**HALF, "max_epochs": n} for n in (1, 2, 4)],
    "skfocal, half frozen, 64 tokens": [{**SHORT, "max_epochs": n} for n in (1, 2)],
    "skfocal, the same, at most 300 of a class": [
        {**SHORT, "max_epochs": n, "largest": 300} for n in (1, 2)
    ],
}
PEERS = {
    "Trainer, grouped by length": contenders.TrainerGrouped,
    "skorch recipe": contenders.SkorchRecipe,
    "simpletransformers": contenders.SimpleTransformers,
}
LINEAR = "TF-IDF, SVM"


# -- the process of a contender ----------------------------------------------------------------


class TimeIsUp(Exception):
    """Ends a training."""


class Clock:
    """Seconds since the process was started, without those in which the clock stood still."""

    def __init__(self, started):
        self.started = started

    def __call__(self):
        return time.time() - self.started

    def stand_still(self, work):
        """Return the result of `work`, which does not count."""
        begin = time.time()
        result = work()
        self.started += time.time() - begin
        return result


def module_of(contender):
    """Return the network of a contender that is training."""
    for path in ("trainer.model", "pipeline.steps.1.1.module_.bert", "model.model", "net.module_"):
        found = contender
        for name in path.split("."):
            found = found[int(name)] if name.isdigit() else getattr(found, name, None)
            if found is None:
                break
        else:
            return found
    raise AttributeError(f"{type(contender).__name__} has no network yet.")


def codes_of(module, batches):
    """Return the predicted codes of tokenised documents."""
    import torch

    training, codes = module.training, {}
    module.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for rows, inputs in batches:
            output = module(inputs["input_ids"], inputs["attention_mask"])
            logits = getattr(output, "logits", output)
            codes |= dict(zip(rows, logits.argmax(1).tolist(), strict=True))
    module.train(training)
    return [codes[row] for row in range(len(codes))]


def watch(contender, clock, order, send):
    """Try the weights after the first update beyond each mark."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    marks = list(MARKS)
    batches = clock.stand_still(lambda: contender_batches(order))

    def after_update(*_):
        seconds = clock()
        if marks and seconds >= marks[0]:
            while marks and seconds >= marks[0]:
                marks.pop(0)
            codes = clock.stand_still(lambda: codes_of(module_of(contender), batches))
            send({"seconds": seconds, "labels": [str(contender.classes[code]) for code in codes]})
        if seconds > order["limit"]:
            raise TimeIsUp

    register_optimizer_step_post_hook(after_update)
    return batches


def contender_batches(order):
    """Return the test documents as batches of like length."""
    from types import SimpleNamespace

    from transformers import AutoTokenizer

    loop = contenders.BareLoop()
    loop.settings = SimpleNamespace(**order["settings"])
    loop.tokenizer = AutoTokenizer.from_pretrained(order["settings"]["model"])
    return loop._batches(order["test"], 16)


class Skfocal(contenders.Contender):
    """BertFocalClassifier with the parameters of a setting, otherwise its defaults."""

    def __init__(self, parameters):
        self.parameters = parameters

    def fit(self, texts, labels, seed):
        from skorch.callbacks import Callback

        from skfocal import BertFocalClassifier

        class Show(Callback):
            """Lets the contender see the net that is training."""

            def __deepcopy__(self, memo):
                return self

            def on_train_begin(show, net, **kwargs):
                self.net = net

        self.classes = sorted(set(labels))
        parameters = {"max_length": self.settings.max_length, **self.parameters}
        if largest := parameters.pop("largest", None):
            texts, labels = self.cut(texts, labels, largest, seed)
        self.model = None
        self.model = BertFocalClassifier(
            self.settings.model, random_state=seed, callbacks=[Show()], **parameters
        ).fit(texts, labels)

    def cut(self, texts, labels, largest, seed):
        """Return a part of the documents with at most so many of a class."""
        from collections import Counter

        import numpy as np
        from imblearn.under_sampling import RandomUnderSampler

        def counts(y):
            return {label: min(n, largest) for label, n in Counter(y).items()}

        sampler = RandomUnderSampler(sampling_strategy=counts, random_state=seed)
        rows, labels = sampler.fit_resample(np.arange(len(texts))[:, None], np.array(labels))
        return [texts[i] for i in rows[:, 0]], labels


def run_child():
    """Train as the order on standard input says; answer with a line for each point."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print; keep their lines out of the answers

    def send(message):
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    order = json.loads(sys.stdin.readline())
    clock = Clock(order["started"])
    peer = PEERS.get(order["name"])
    contender = peer() if peer else Skfocal(order["parameters"])
    if not peer:
        import skfocal  # noqa: F401  before torch, as a user of skfocal would
    contenders.start(contender, order["settings"])
    contenders.seed_all(order["seed"])
    tried = not order["parameters"] or peer
    batches = watch(contender, clock, order, send) if tried else None
    try:
        contender.fit(order["texts"], order["labels"], order["seed"])
    except TimeIsUp:
        send({"ended": False})
        return
    seconds = clock()
    if tried:
        codes = codes_of(module_of(contender), batches)
        labels = [contender.classes[code] for code in codes]
    else:
        labels = contender.model.predict(order["test"])
    send({"seconds": seconds, "labels": list(map(str, labels))})
    send({"ended": True})


# -- the runs ----------------------------------------------------------------------------------


def run(order, peer, options):
    """Return the points of a contender, ``(seconds, labels)``, and whether it came to its end."""
    import peers

    python = peers.peers_python(options.peers_env).absolute() if peer else sys.executable
    environment = {k: v for k, v in os.environ.items() if not (peer and k == "PYTHONPATH")}
    with tempfile.TemporaryDirectory() as folder, open(f"{folder}/log", "w") as log:
        order["started"] = time.time()
        process = subprocess.Popen(
            [str(python), "-P", __file__, "--child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=folder,
            env=environment | peers.QUIET,
        )
        out, _ = process.communicate(json.dumps(order) + "\n")
        lines = [json.loads(line) for line in out.splitlines()]
        if process.returncode or not lines or "ended" not in lines[-1]:
            raise SystemExit(f"{order['name']} failed:\n{Path(folder, 'log').read_text()[-2000:]}")
    return lines[:-1], lines[-1]["ended"]


def scores(y_test, labels):
    """Return macro-F1 and accuracy."""
    from sklearn.metrics import accuracy_score, f1_score

    macro = f1_score(y_test, labels, average="macro", zero_division=0)
    return float(macro), float(accuracy_score(y_test, labels))


def documents_of(corpus, options, seed):
    """Return training and test documents."""
    import numpy as np

    import corpora

    X, y, X_test, y_test, _ = corpora.load(corpus, path=options.paths.get(corpus), seed=seed)
    rng = np.random.RandomState(seed)
    rows = rng.permutation(len(X))[: options.documents]
    tested = np.random.RandomState(99).permutation(len(X_test))[: options.test_documents]
    return (
        [X[i] for i in rows],
        [str(y[i]) for i in rows],
        [X_test[i] for i in tested],
        [str(y_test[i]) for i in tested],
    )


def linear_points(X, y, X_test, y_test):
    """Return the point of TF-IDF and a linear model, as a warm process computes it."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    start = time.perf_counter()
    model = make_pipeline(TfidfVectorizer(sublinear_tf=True), LinearSVC(class_weight="balanced"))
    model.fit(X, y)
    return [[time.perf_counter() - start, *scores(y_test, model.predict(X_test))]]


def measure(corpus, name, options, seed):
    """Return the row of a contender."""
    from common import device_name
    from skfocal import __version__, fetch_minilm

    X, y, X_test, y_test = documents_of(corpus, options, seed)
    points, ended = [], True
    if name == LINEAR:
        points = linear_points(X, y, X_test, y_test)
    else:
        settings = contenders.TRAINING | {"model": fetch_minilm(), "max_length": 128, "epochs": 4}
        order = {
            "name": name,
            "settings": settings | {"threads": None, "device": "cpu"},
            "seed": seed,
            "limit": options.limit,
            "texts": X,
            "labels": y,
            "test": X_test,
        }
        for parameters in OURS.get(name, [{}]):
            found, ended = run(order | {"parameters": parameters}, name in PEERS, options)
            points += [[p["seconds"], *scores(y_test, p["labels"])] for p in found]
    return {
        "corpus": corpus,
        "name": name,
        "seed": seed,
        "documents": len(X),
        "tested": len(X_test),
        "points": points,
        "ended": ended,
        "device": device_name(),
        "version": __version__,
    }


# -- the page ----------------------------------------------------------------------------------


def first(points, target):
    """Return the seconds of the first point with at least this macro-F1, or None."""
    return next((seconds for seconds, macro, _ in points if macro >= target), None)


def shown(seconds, points):
    """Return seconds as text; of a goal that was not reached, how long it was not."""
    return f"not in {points[-1][0]:.0f}" if seconds is None else f"{seconds:.0f}"


def corpus_table(rows):
    """Return the section of a corpus."""
    import corpora

    linear = next(row for row in rows if row["name"] == LINEAR)
    _, target, accuracy = linear["points"][0]
    lines = [
        f"| | s to {100 * target:.1f} % macro-F1 | s to 95 % of its best | best macro-F1 % "
        "| accuracy % | s in all |",
        "|---|" + "---:|" * 5,
    ]
    for name in (*OURS, *PEERS):
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
    import corpora

    names = [LINEAR, *OURS, *PEERS]
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
    from common import DOCS, write_block
    from probabilities import append, read

    options, results = parse(), DOCS / "time-to-quality.jsonl"
    rows = read(results)
    done = {(row["corpus"], row["name"]) for row in rows}
    for corpus in options.corpora:
        for name in options.contenders:
            if (corpus, name) not in done:
                rows.append(measure(corpus, name, options, seed=0))
                append(results, rows[-1:])
                print(corpus, name, *(f"{s:.0f}s:{100 * m:.1f}" for s, m, _ in rows[-1]["points"]),
                      flush=True)  # fmt: skip
    write_block(results.with_suffix(".md"), "Time to a good classifier", page(rows))


if __name__ == "__main__":
    run_child() if sys.argv[1:] == ["--child"] else main()
