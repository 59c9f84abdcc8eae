"""Compare training and prediction: skfocal, a bare loop, Trainer, skorch, simpletransformers.

    python tests/benchmarks/speed.py            # R52, about an hour on two cores
    python tests/benchmarks/speed.py --quick    # a few minutes; writes nothing
    python tests/benchmarks/speed.py --base     # an encoder of BERT-base's size
    python tests/benchmarks/speed.py --quality  # what each has learned on R8, over seeds

All contenders get the same documents, weights, batch sizes, learning rate, schedule and seed. They
run on the CPU, in float32 but for skfocal's defaults and the rows that name a precision. Each runs
in its own process, which is ready before anything is timed. Training is timed from texts and labels
to a trained model, including the time to read the weights; prediction is timed from texts to
labels. The contenders take turns, so that anything that slows the machine down for a while slows
all of them. Ratios are taken within a turn.

All contenders but skfocal and the bare loops run in an environment with peers-requirements.txt,
which is created at first use. Writes docs/benchmarks/speed.jsonl and .md, with --base speed-base.
"""

import argparse
import contextlib
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, BertConfig, BertModel

import contenders
import peers
import speed_quality
from common import DOCS, device_name, write_block
from skfocal import BertFocalClassifier, fetch_minilm, fetch_reuters

TITLE = "Speed: one epoch and one prediction on R52"
BASE_TITLE = "Speed at the size of BERT-base"
GOALS = [  # work, contender, contender to compare with, how many times as fast
    ("fit", "skfocal, BERT's dropout", "bare loop", 1.4),
    ("fit", "skfocal", "bare loop", 1.8),
    ("fit", "skfocal", "skorch recipe", 3.5),
    ("fit", "skfocal", "Trainer", 3.5),
    ("fit", "skfocal", "Trainer, grouped by length", 1.9),
    ("predict", "skfocal", "bare loop", 1.2),
    ("predict", "skfocal", "Trainer", 2.5),
    ("predict", "skfocal", "skorch recipe", 2.5),
    ("predict", "skfocal, bfloat16", "skfocal", 1.5),
    ("predict", "skfocal, int8", "skfocal", 1.5),
    ("fit", "skfocal, defaults", "bare loop", 2.5),
    ("predict", "skfocal, defaults", "bare loop", 2.8),
]
# Of the size of BERT-base, a few documents for each contender.
BASE_GOALS = [
    ("fit", "skfocal, defaults", "bare loop", 2.2),
    ("predict", "skfocal, defaults", "bare loop", 2.2),
]
BASE_NAMES = ("bare loop", "bare loop, no dropout", "Trainer, grouped by length", "skfocal",
              "skfocal, mean of the tokens", "skfocal, defaults")  # fmt: skip
WORK = {"fit": "training", "predict": "prediction"}


# -- settings and documents --------------------------------------------------------------------


def base_size(folder):
    """Return a folder with random weights of the size of BERT-base, and MiniLM's tokenizer."""
    folder = str(Path(folder, "base"))
    torch.manual_seed(0)
    BertModel(BertConfig()).save_pretrained(folder)
    AutoTokenizer.from_pretrained(fetch_minilm()).save_pretrained(folder)
    return folder


def settings_of(options, folder):
    """Return the settings that all contenders share."""
    return {
        "model": base_size(folder) if options.base else fetch_minilm(),
        "max_length": 64 if options.quality else 128 if options.base else 256,
        "epochs": 3 if options.quality else 1,
        **contenders.TRAINING,
        "threads": options.torch_threads,
        "device": "cpu",
    }


def draw(data, subset, n_documents, seed):
    """Return `n_documents` random documents and their labels."""
    X, y = fetch_reuters(data, subset=subset, return_X_y=True)
    rows = np.random.RandomState(seed).permutation(len(X))[:n_documents]
    return [X[i] for i in rows], y[rows].tolist()


def count_tokens(texts, settings):
    """Return the number of tokens of the documents, special tokens included."""
    tokenizer = AutoTokenizer.from_pretrained(settings["model"])
    rows = tokenizer(texts, truncation=True, max_length=settings["max_length"])["input_ids"]
    return sum(map(len, rows))


def hosts_of(names):
    """Return the processes that the rows need: names, each with the rows it predicts for."""
    hosts = {name: [name] for name in contenders.CONTENDERS if name in names}
    for name in contenders.PRECISIONS:
        if name in names:
            hosts.setdefault("skfocal", []).append(name)
    return hosts


# -- measuring ---------------------------------------------------------------------------------


def start_all(hosts, settings, folder, options, stack):
    """Start the processes and warm them up; leave out those that fail, and say so."""
    running = {}
    for name in hosts:
        try:
            process = peers.start(name, settings, folder, options.peers_env)
            stack.callback(process.close)
            texts, labels = draw("r52", "train", 8, 0)
            process.fit(texts, labels, 0)
            process.predict(texts)
        except peers.ContenderError as error:
            print(f"left out: {error}", flush=True)
            continue
        running[name] = process
        print(f"ready: {name}", flush=True)
    return running


def take_turn(process, names, train, test, seed):
    """Let one contender train and predict; return a result per measurement."""
    report = process.fit(*train, seed)
    results = [{"name": process.name, "work": "fit", "documents": len(train[0]), **report}]
    for name in names:
        labels, report = process.predict(test[0], contenders.PRECISIONS.get(name))
        right = float(np.mean(np.array(labels) == np.array(test[1])))
        results.append(
            {"name": name, "work": "predict", "documents": len(test[0]), **report}
            | {"accuracy": right}
        )
    return results


def take_turns(running, hosts, train, test, repeats):
    """Return the results of all repeats; each starts with another contender."""
    results = []
    for repeat in range(repeats):
        names = list(running)
        first = repeat % max(len(names), 1)
        for name in names[first:] + names[:first]:
            try:
                mine = take_turn(running[name], hosts[name], train, test, repeat)
            except peers.ContenderError as error:
                print(f"left out from here: {error}", flush=True)
                del running[name]
                continue
            for row in mine:
                speed = row["documents"] / row["seconds"]
                what = f"{row['name']}, {WORK[row['work']]}"
                print(f"{repeat} {what}: {speed:.1f}/s, {row['peak_mib']:.0f} MiB", flush=True)
            results += [{"repeat": repeat, **row} for row in mine]
    return results


# -- tables ------------------------------------------------------------------------------------


def pick(results, work, name, field):
    """Return a field's values by repeat."""
    return {
        row["repeat"]: row[field]
        for row in results
        if row["work"] == work and row["name"] == name and field in row
    }


def ratios(results, work, name, other):
    """Return how many times as fast a contender was as the other, in each repeat."""
    mine = pick(results, work, name, "seconds")
    theirs = pick(results, work, other, "seconds")
    return np.array([theirs[r] / mine[r] for r in sorted(mine.keys() & theirs.keys())])


def cell(values, text="{:.1f}"):
    """Return the median as text."""
    return text.format(np.median(values)) if len(values) else "–"


def ratio_cell(values):
    """Return the median with the range."""
    return cell(values, "{:.2f}") + (
        f" ({values.min():.2f}–{values.max():.2f})" if len(values) else ""
    )


def table(results):
    """Return the Markdown table of the contenders."""
    lines = [
        "| | training, documents/s | × bare loop | prediction, documents/s | × bare loop "
        "| peak MiB, training | prediction |",
        "|---|" + "---:|" * 6,
    ]
    names = dict.fromkeys([*contenders.CONTENDERS, *contenders.PRECISIONS])
    for name in names:
        cells = []
        for work in WORK:
            seconds = pick(results, work, name, "seconds").values()
            documents = pick(results, work, name, "documents").values()
            speeds = [n / s for n, s in zip(documents, seconds, strict=True)]
            cells += [cell(speeds), ratio_cell(ratios(results, work, name, "bare loop"))]
        cells += [
            cell([*pick(results, work, name, "peak_mib").values()], "{:.0f}") for work in WORK
        ]
        if pick(results, "predict", name, "seconds"):
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def goals(results, wanted):
    """Return ``(work, name, other, goal, ratios)`` of the goals whose contenders ran."""
    found = [(*goal, ratios(results, *goal[:3])) for goal in wanted]
    return [goal for goal in found if len(goal[-1])]


def goal_lines(results, wanted):
    """Return the goals as lines to print."""
    return [
        f"{name} / {other}: {WORK[work]} {np.median(values):.2f} (goal {goal})"
        for work, name, other, goal, values in goals(results, wanted)
    ]


def goal_table(results, wanted):
    """Return the Markdown table of the goals."""
    lines = ["| | times as fast | goal |", "|---|---:|---:|"]
    for work, name, other, goal, values in goals(results, wanted):
        lines.append(f"| {WORK[work]}: {name} / {other} | {ratio_cell(values)} | {goal} |")
    return "\n".join(lines)


def describe(settings, machine, train, test):
    """Return the paragraph above the table."""
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    is_minilm = settings["model"] == fetch_minilm()
    encoder = "MiniLM" if is_minilm else "Random weights of the size of BERT-base"
    return (
        f"{encoder}, `max_length={settings['max_length']}`, float32 (`skfocal, defaults` takes "
        "bfloat16 where the processor has fast instructions for it, and the mean of the tokens), "
        f"{settings['epochs']} epoch in batches of {settings['batch_size']}; prediction in batches "
        f"of {settings['predict_batch_size']}, except that skfocal sizes its batches by tokens. "
        f"{machine['threads']} threads on {machine['device']}. {versions}.\n\n"
        f"{len(train[0])} training documents with {count_tokens(train[0], settings)} tokens and "
        f"{len(set(train[1]))} classes, {len(test[0])} test documents with "
        f"{count_tokens(test[0], settings)} tokens."
    )


def summarise(results, repeats):
    """Return the paragraph about the repeats and the other work on the machine."""
    others = [row["others"] for row in results]
    return (
        f"{repeats} repeats, each with its own seed; the contenders take turns. Medians, with the "
        "lowest and the highest ratio within a repeat in brackets. In the meantime "
        f"other processes used {np.median(others):.2f} cores in the median and {max(others):.2f} "
        "at most."
    )


def report_machine(running):
    """Return the device, threads and versions of the contenders that ran."""
    found: dict = {}
    for process in running.values():
        found = process.versions | found
    threads = next(iter(running.values())).threads
    return {"device": device_name(), "threads": threads, "versions": found}


# -- command -----------------------------------------------------------------------------------


def parse():
    """Return the options."""
    every = [*contenders.CONTENDERS, *contenders.PRECISIONS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, help="192 by default; 800 with --quality")
    parser.add_argument("--repeats", type=int, help="5 by default; seeds with --quality")
    parser.add_argument("--quick", action="store_true", help="32 documents, 2 repeats, no writing")
    parser.add_argument("--base", action="store_true", help="of BERT-base's size, 64 documents")
    parser.add_argument("--quality", action="store_true", help="accuracy and macro-F1 on R8")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=every, help="; ".join(every))
    parser.add_argument("--write", action="store_true", help="write even with --quick or --only")
    parser.add_argument("--peers-env", metavar="FOLDER", help="by default in skfocal's data folder")
    parser.add_argument("--torch-threads", type=int, help="by default torch chooses")
    options = parser.parse_args()
    small, usual = (32, 800 if options.quality else 64 if options.base else 192), (2, 5)
    options.documents = options.documents or small[not options.quick]
    options.repeats = options.repeats or usual[not options.quick]
    options.write = options.write or not (options.quick or options.only)
    options.names = options.only or (BASE_NAMES if options.base else every)
    if "predict_precision" not in BertFocalClassifier().get_params():
        options.names = [name for name in options.names if name not in contenders.PRECISIONS]
    return options


def compare_speed(options, settings, folder, stack):
    """Measure, print and write."""
    train = draw("r52", "train", options.documents, 0)
    test = draw("r52", "test", options.documents, 0)
    hosts = hosts_of(options.names)
    wanted = BASE_GOALS if options.base else GOALS
    running = start_all(hosts, settings, folder, options, stack)
    if not running:
        raise SystemExit("No contender runs.")
    machine = report_machine(running)
    results = take_turns(running, hosts, train, test, options.repeats)
    block = "\n\n".join(
        [
            describe(settings, machine, train, test),
            summarise(results, options.repeats),
            table(results),
            goal_table(results, wanted),
        ]
    )
    print("", block, "", *goal_lines(results, wanted), sep="\n")
    if options.write:
        lines = [json.dumps(row | machine) + "\n" for row in results]
        name, title = ("speed-base", BASE_TITLE) if options.base else ("speed", TITLE)
        (DOCS / f"{name}.jsonl").write_text("".join(lines))
        write_block(DOCS / f"{name}.md", title, block)


def main():
    """Compare speed, or with --quality what the contenders learn."""
    options = parse()
    os.environ.update(peers.QUIET)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        settings = settings_of(options, folder)
        if options.quality:
            speed_quality.compare(options, settings, draw, hosts_of(options.names), folder, stack)
        else:
            compare_speed(options, settings, folder, stack)


if __name__ == "__main__":
    main()
