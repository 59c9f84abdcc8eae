"""What skfocal costs before it does anything, and while it stays: time, memory, disk space.

    python tests/benchmarks/being_there.py          # half an hour on two cores

Imports and first predictions are fresh processes that take turns, beside the least that their
dependencies allow. A server's memory is that of a process after so many requests, each with a text
of another length. The sizes are of a new environment, which the script makes and removes. Writes
docs/benchmarks/being-there.jsonl and .md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
import warnings
from pathlib import Path

import numpy as np

from common import DOCS, device_name, write_block
from skfocal import BertFocalClassifier, fetch_minilm, fetch_reuters

ROOT = Path(__file__).parents[2]
RESULTS = DOCS / "being-there.jsonl"
TORCH = "torch==2.13.0"
DEPENDENCIES = ["transformers", "scikit-learn", "skorch", "imbalanced-learn"]
REQUESTS = [100, 1_000, 10_000]

IMPORTS = {
    "nothing": "pass",
    "`import skfocal`": "import skfocal",
    "`skfocal --help`": """
import sys
from skfocal.cli import main
sys.argv = ["skfocal", "--help"]
main()
""",
    "`from skfocal import OnnxClassifier`": "from skfocal import OnnxClassifier",
    "`import sklearn`": "import sklearn",
    "`import torch`": "import torch",
    "`import transformers`, which loads little": "import transformers",
    "the least for `BertFocalClassifier`": """
import torch, skorch.net, skorch.callbacks, imblearn.base, sklearn.model_selection, sklearn.metrics
from transformers import AutoModelForSequenceClassification, AutoTokenizer
""",
    "`from skfocal import BertFocalClassifier`": "from skfocal import BertFocalClassifier",
}

TIMED = """
import json, sys, time
times = [time.perf_counter()]
def lap(): times.append(time.perf_counter())
folder, text = sys.argv[1], "Oil prices rose after the cartel agreed to cut output."
{imports}
lap()
{load}
lap()
{predict}
lap()
print(json.dumps([b - a for a, b in zip(times, times[1:])]))
"""
FIRST = {
    "transformers alone": {
        "imports": "import torch\n"
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer",
        "load": "model = AutoModelForSequenceClassification.from_pretrained(folder).eval()\n"
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        "predict": "with torch.inference_mode():\n"
        "    model(**tokenizer([text], return_tensors='pt')).logits.softmax(-1)",
    },
    "`BertFocalClassifier`": {
        "imports": "from skfocal import BertFocalClassifier",
        "load": "clf = BertFocalClassifier.from_pretrained(folder)",
        "predict": "clf.predict_proba([text])",
    },
    "onnxruntime and tokenizers alone": {
        "imports": "import numpy as np, onnxruntime, tokenizers",
        "load": "session = onnxruntime.InferenceSession(folder + '/model.onnx')\n"
        "tokenizer = tokenizers.Tokenizer.from_file(folder + '/tokenizer.json')",
        "predict": "ids = np.array([tokenizer.encode(text).ids])\n"
        "fed = {'input_ids': ids, 'attention_mask': np.ones_like(ids),\n"
        "       'token_type_ids': np.zeros_like(ids), 'pieces': np.zeros((1, 1), ids.dtype)}\n"
        "session.run(None, {i.name: fed[i.name] for i in session.get_inputs()})",
    },
    "`OnnxClassifier`": {
        "imports": "from skfocal import OnnxClassifier",
        "load": "clf = OnnxClassifier(folder)",
        "predict": "clf.predict_proba([text])",
    },
}

SERVER = """
import json, random, re, sys, warnings
warnings.simplefilter("ignore")
folder, texts, counts = sys.argv[1], json.load(open(sys.argv[2])), json.loads(sys.argv[3])
{load}
def megabytes():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
draw, found = random.Random(0), [megabytes()]
for i in range(1, counts[-1] + 1):
    words = draw.choice(texts).split()
    answer(" ".join(words[:draw.randint(1, len(words))]))
    if i in counts:
        found.append(megabytes())
print(json.dumps(found))
"""
SERVERS = {
    "`BertFocalClassifier.predict_proba`": "from skfocal import BertFocalClassifier\n"
    "clf = BertFocalClassifier.from_pretrained(folder)\n"
    "def answer(text): clf.predict_proba([text])",
    "`OnnxClassifier.predict_proba`": "from skfocal import OnnxClassifier\n"
    "clf = OnnxClassifier(folder)\n"
    "def answer(text): clf.predict_proba([text])",
    "`OnnxBatcher.submit`": "from skfocal import OnnxBatcher, OnnxClassifier\n"
    "batcher = OnnxBatcher(OnnxClassifier(folder), max_wait=0)\n"
    "def answer(text): batcher.submit([text]).result()",
    "transformers alone": "import torch\n"
    "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n"
    "model = AutoModelForSequenceClassification.from_pretrained(folder).eval()\n"
    "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
    "def answer(text):\n"
    "    with torch.inference_mode():\n"
    "        model(**tokenizer([text], truncation=True, max_length=128, return_tensors='pt'))",
}


def printed_by(code, *args, python=sys.executable):
    """Return what a fresh process prints."""
    command = [python, "-W", "ignore", "-c", code, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


def folder_of(work, name):
    """Return the folder of the model that a script reads."""
    return work / ("onnx" if "nnx" in name else "model")


def imports(work, options):
    """Yield the seconds of each import, in turns."""
    for _ in range(options.repeats):
        for name, code in IMPORTS.items():
            start = time.perf_counter()
            printed_by(code)
            yield {"name": name, "seconds": time.perf_counter() - start}


def first_predictions(work, options):
    """Yield the seconds of import, load and first prediction, in turns."""
    for _ in range(options.repeats):
        for name, parts in FIRST.items():
            laps = json.loads(printed_by(TIMED.format(**parts), folder_of(work, name)))
            yield {"name": name, "laps": laps}


def memory(work, options):
    """Yield the megabytes of a process that has loaded its model, and after so many requests."""
    texts, _ = fetch_reuters("r8", subset="test", return_X_y=True)
    (work / "texts.json").write_text(json.dumps(list(texts)))
    for name, load in SERVERS.items():
        code = SERVER.replace("{load}", load)
        args = folder_of(work, name), work / "texts.json", json.dumps(REQUESTS)
        yield {"name": name, "megabytes": json.loads(printed_by(code, *args))}


SIZES = """
import json
from importlib.metadata import distributions
def size(d):
    return sum(f.locate().stat().st_size for f in d.files or () if f.locate().is_file())
found = {d.metadata["Name"]: size(d) / 2**20 for d in distributions()}
print(json.dumps({name: n for name, n in found.items() if name != "pip"}))
"""


def sizes(work, options):
    """Yield the megabytes of each package, in an environment that gets one thing after another."""
    venv.create(work / "venv", with_pip=True)
    python = work / "venv" / "bin" / "python"
    for name, asked in {TORCH: [TORCH], "least": DEPENDENCIES, "skfocal": [ROOT]}.items():
        subprocess.run([python, "-m", "pip", "install", "-q", "--no-compile", *asked], check=True)
        yield {"name": name, "packages": json.loads(printed_by(SIZES, python=python))}


def export(work):
    """Fit MiniLM's last layer to a few hundred documents of R8, and write both folders."""
    X, y = fetch_reuters("r8", subset="train", return_X_y=True)
    rows = np.random.RandomState(0).permutation(len(X))[:300]
    clf = BertFocalClassifier(
        fetch_minilm(), pooling="head", freeze=6, max_epochs=1, max_length=128, random_state=0
    )
    clf.fit([X[i] for i in rows], y[rows])
    clf.save_pretrained(work / "model")
    clf.to_onnx(work / "onnx")


def kept():
    """Return the rows of the results."""
    return [json.loads(x) for x in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def of_part(rows, part, key):
    """Return the values of a part by name."""
    names = dict.fromkeys(row["name"] for row in rows if row["part"] == part)
    mine = [row for row in rows if row["part"] == part]
    return {name: [row[key] for row in mine if row["name"] == name] for name in names}


def spread(values):
    """Return the median and the range."""
    return f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def page(rows):
    """Return the tables."""
    lines = [
        "## Imports",
        "",
        "Seconds of a fresh process, the start of Python included: medians, and the range.",
        "",
        "| | s |",
        "|---|---:|",
    ]
    lines += [
        f"| {name} | {spread(v)} |" for name, v in of_part(rows, "imports", "seconds").items()
    ]
    lines += [
        "",
        "## The first prediction",
        "",
        "Seconds in a fresh process, of a folder with MiniLM: medians, and the range.",
        "",
        "| | import | load | predict | together |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, laps in of_part(rows, "first", "laps").items():
        columns = [*np.transpose(laps), np.sum(laps, axis=1)]
        lines.append(f"| {name} | {' | '.join(map(spread, columns))} |")
    counts = " | ".join(f"{n:,}" for n in REQUESTS)
    lines += [
        "",
        "## Memory",
        "",
        "Megabytes in memory (RSS) of a process, after so many requests. Each is the beginning of "
        "another document of R8, of random length, cut at 128 tokens.",
        "",
        f"| | loaded | {counts} | growth from {REQUESTS[-2]:,} to {REQUESTS[-1]:,} |",
        "|---|" + "---:|" * (len(REQUESTS) + 2),
    ]
    for name, found in of_part(rows, "memory", "megabytes").items():
        cells = " | ".join(f"{value:.0f}" for value in found[0])
        lines.append(f"| {name} | {cells} | {found[0][-1] - found[0][-2]:+.1f} |")
    packages = {name: v[0] for name, v in of_part(rows, "sizes", "packages").items()}
    if packages:
        lines += ["", "## Disk space", "", *size_table(packages)]
    device = ", ".join(dict.fromkeys(row["device"] for row in rows))
    return "\n".join([*lines, "", f"On {device}."])


def size_table(packages):
    """Return the lines about the sizes of the packages."""
    whole, least = packages["skfocal"], packages["least"]
    others = sorted(set(whole) - set(least) - {"skfocal"})
    top = sorted(whole, key=whole.get, reverse=True)[:10]
    added = ", ".join(f"{name} {whole[name]:.1f}" for name in others) or "none"
    return [
        f"Megabytes of an environment after `pip install {TORCH}` (the build for CPUs) and "
        "`pip install .`, without extras.",
        "",
        "| | MB |",
        "|---|---:|",
        f"| torch and what it needs | {sum(packages[TORCH].values()):.0f} |",
        f"| with {', '.join(DEPENDENCIES)} | {sum(least.values()):.0f} |",
        f"| with skfocal | {sum(whole.values()):.0f} |",
        f"| skfocal itself | {whole['skfocal']:.1f} |",
        f"| other packages that it adds | {added} |",
        "",
        "The largest: " + ", ".join(f"{name} {whole[name]:.0f}" for name in top) + ".",
    ]


PARTS = {"imports": imports, "first": first_predictions, "memory": memory, "sizes": sizes}


def main():
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        if {"first", "memory"} & {*options.parts}:
            export(work)
        for part in options.parts:
            new = []
            for row in PARTS[part](work, options):
                new.append({"part": part, **row, "device": device_name()})
                print(new[-1], flush=True)
            rows = [row for row in kept() if row["part"] != part] + new
            RESULTS.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_block(DOCS / "being-there.md", "What it costs to be there", page(kept()))


if __name__ == "__main__":
    main()
