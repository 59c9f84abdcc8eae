"""What the contenders of speed.py have learned: accuracy and macro-F1 on R8, over seeds.

speed.py --quality runs this. Each seed draws other training documents; the test documents stay the
same. A run that is already in docs/benchmarks/speed-quality.jsonl is not repeated.
"""

import json

import numpy as np
from sklearn.metrics import accuracy_score, f1_score

import contenders
import peers
from common import DOCS, device_name, write_block

TITLE = "What the contenders of the speed comparison learn: R8"
RESULTS = DOCS / "speed-quality.jsonl"
METRICS = {"accuracy": "accuracy %", "f1_macro": "macro-F1 %"}
REFERENCE = "skfocal"


def compare(options, settings, draw, hosts, folder, stack):
    """Run what the file does not have yet, print the table and write it."""
    rows = read() if options.write else []
    setting = {"documents": options.documents, "seeds": range(options.repeats)}
    test = draw("r8", "test", options.documents, 0)
    for seed in range(options.repeats):
        train = draw("r8", "train", options.documents, seed)
        for name, mine in list(hosts.items()):
            if not set(mine) - done(rows, options.documents, seed):
                continue
            try:
                process = running(name, settings, folder, options, stack)
                new = evaluate(process, mine, train, test, seed)
            except peers.ContenderError as error:
                print(f"left out: {error}", flush=True)
                del hosts[name]
                continue
            for row in new:
                rows.append({"documents": options.documents, "seed": seed, **row})
                if options.write:
                    append(rows[-1] | {"device": device_name(), "versions": process.versions})
                scores = ", ".join(f"{metric} {row[metric]:.4f}" for metric in METRICS)
                print(f"{row['name']}, seed {seed}: {scores}", flush=True)
    block = describe(settings, setting) + "\n\n" + table(rows, setting)
    print("", block, sep="\n")
    if options.write:
        write_block(DOCS / "speed-quality.md", TITLE, block)


_RUNNING: dict = {}


def running(name, settings, folder, options, stack):
    """Return the process of a contender; start it at first use."""
    if name not in _RUNNING:
        _RUNNING[name] = peers.start(name, settings, folder, options.peers_env)
        stack.callback(_RUNNING[name].close)
    return _RUNNING[name]


def evaluate(process, names, train, test, seed):
    """Train once; return the scores of each row, and how often it agrees with the first row.

    The first row is the prediction in float32; the others approximate it.
    """
    seconds = process.fit(*train, seed)["seconds"]
    plain, _ = process.predict(test[0])
    rows = []
    for name in names:
        precision = contenders.PRECISIONS.get(name)
        labels = process.predict(test[0], precision)[0] if precision else plain
        row = {
            "name": name,
            "accuracy": accuracy_score(test[1], labels),
            "f1_macro": f1_score(
                test[1], labels, labels=sorted(set(test[1])), average="macro", zero_division=0
            ),
            "fit_seconds": seconds,
        }
        if precision:
            row["agreement"] = float(np.mean(np.array(labels) == np.array(plain)))
        rows.append(row)
    return rows


def read():
    """Return the rows of the file."""
    return [json.loads(x) for x in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def append(row):
    """Add a row to the file."""
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")


def done(rows, documents, seed):
    """Return the names that already have a row."""
    return {r["name"] for r in rows if r["documents"] == documents and r["seed"] == seed}


def by_seed(rows, setting, name, metric):
    """Return a metric's values by seed."""
    return {
        row["seed"]: row[metric]
        for row in rows
        if row["name"] == name
        and row["documents"] == setting["documents"]
        and row["seed"] in setting["seeds"]
        and metric in row
    }


def spread(values, sign=""):
    """Return mean and standard deviation in percent."""
    values = 100 * np.array(values)
    if not len(values):
        return "–"
    deviation = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
    return f"{values.mean():{sign}.1f}{deviation}"


def table(rows, setting):
    """Return the Markdown table."""
    heads = [*METRICS.values(), *(f"{x} − {REFERENCE}" for x in METRICS.values())]
    lines = [f"| | seeds | {' | '.join(heads)} | agrees with float32 % |", "|---|" + "---:|" * 6]
    for name in [*contenders.CONTENDERS, *contenders.PRECISIONS]:
        levels, differences = [], []
        for metric in METRICS:
            mine = by_seed(rows, setting, name, metric)
            ours = by_seed(rows, setting, REFERENCE, metric)
            levels.append(spread(list(mine.values())))
            pairs = [mine[s] - ours[s] for s in mine if s in ours]
            differences.append("–" if name == REFERENCE else spread(pairs, "+"))
        if mine:
            agreement = by_seed(rows, setting, name, "agreement").values()
            cells = [str(len(mine)), *levels, *differences, spread(list(agreement))]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def describe(settings, setting):
    """Return the paragraph above the table."""
    return (
        f"MiniLM, {setting['documents']} random training documents per seed, and "
        f"{setting['documents']} test documents that are the same for all seeds; "
        f"{settings['epochs']} epochs, `max_length={settings['max_length']}`, "
        f"batch {settings['batch_size']}, learning rate {settings['lr']:g}, "
        f"linear schedule with {settings['warmup']:.0%} warm-up, float32. Mean "
        "and standard deviation over the seeds; differences are within a seed."
    )
