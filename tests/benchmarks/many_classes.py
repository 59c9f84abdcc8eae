"""Many classes: tuned decisions and predictions, by the number of classes.

    OMP_NUM_THREADS=1 python tests/benchmarks/many_classes.py

10,000 documents, each row in a process of its own. Decisions are tuned on random logits, of which
the frequent classes are the larger ones. Predictions come from a two-layer encoder of width 32, so
that their time is that of the answers. Writes docs/benchmarks/many-classes.md.
"""

import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertModel

from common import DOCS, device_name, write_block
from contenders import reset_peak

N = 10_000
CASES = {"50 classes": 50, "500 classes": 500, "5,000 classes": 5000, "2,000 labels": -2000}


def codes_and_logits(n_classes, several):
    """Return classes, of which the k-th has a share of 1 / k, and logits."""
    rng = np.random.RandomState(0)
    shares = 1 / np.arange(1, n_classes + 1)
    logits = rng.normal(size=(N, n_classes)).astype(np.float32)
    if several:
        codes = (rng.uniform(size=(N, n_classes)) < shares / 2).astype(np.float32)
        logits += 3 * codes - 2
    else:
        codes = rng.choice(n_classes, N, p=shares / shares.sum())
        logits += 0.5 * np.log(shares).astype(np.float32)
        logits[np.arange(N), codes] += 3
    return codes, logits, shares


def tune(n_classes, several):
    """Return seconds and megabytes of the search for offsets, and the macro-F1 on its documents."""
    from skfocal._utils.offset_search import counted
    from skfocal.calibration import Calibration
    from skfocal.losses import CrossEntropyLoss, SigmoidCrossEntropyLoss

    codes, logits, shares = codes_and_logits(n_classes, several)
    loss, shape = CrossEntropyLoss(), (n_classes,)
    if several:
        loss, shape = SigmoidCrossEntropyLoss(), (n_classes, 2)
    calibration = Calibration(loss, np.arange(n_classes), np.ones(shape), np.ones(shape))
    counts = counted("f1_macro", codes, None, n_classes)
    n_documents = codes.sum(0).astype(int) if several else np.bincount(codes, minlength=n_classes)
    direction = -np.log(shares / shares.mean())
    reset_peak()
    before, start = peak(), time.perf_counter()
    calibration.fit_offset(logits, None, n_documents, N, direction, counts)
    return {
        "seconds": time.perf_counter() - start,
        "mb": peak() - before,
        "answer_mb": logits.nbytes / 1e6,
    }


def predict(method, n_classes, several):
    """Return seconds and megabytes of a prediction, and the megabytes of its answer."""
    from skfocal import BertFocalClassifier, fetch_minilm

    X = [f"document {i} is about topic {i % 97}" for i in range(N)]
    y = np.arange(N) % n_classes
    if several:
        y = np.stack([y[:4] == c for c in range(n_classes)], 1).astype(int)
        y[0, 1] = 1
        X, documents = X[:4], X
    else:
        X, y, documents = X[:64], y[:64], X
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        BertModel(BertConfig(**sizes, intermediate_size=64)).save_pretrained(folder)
        from transformers import AutoTokenizer

        AutoTokenizer.from_pretrained(fetch_minilm()).save_pretrained(folder)
        clf = BertFocalClassifier(folder, max_epochs=1, max_length=16, device="cpu")
        clf.set_params(classes=np.arange(n_classes))
        clf.fit(X, y)
        clf.predict(documents[:1000])  # imports and first allocations
    truth = codes_and_logits(n_classes, several)[0].astype(int)
    reset_peak()
    before, start = peak(), time.perf_counter()
    if method == "report":
        clf.report(documents, truth)
        size = N * n_classes * 8  # of the probabilities
    else:
        size = getattr(clf, method)(documents).nbytes
    return {
        "seconds": time.perf_counter() - start,
        "mb": peak() - before,
        "answer_mb": size / 1e6,
    }


def peak():
    """Return the peak memory of this process since the last reset, in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6


def measured(what, size):
    """Run one measurement in a process of its own."""
    command = [sys.executable, __file__, what, str(size)]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def main():
    """Measure, or write the page."""
    if len(sys.argv) == 3:
        torch.set_num_threads(1)
        warnings.simplefilter("ignore")  # most classes have no document
        what, size = sys.argv[1], int(sys.argv[2])
        sizes = abs(size), size < 0
        print(json.dumps(tune(*sizes) if what == "tune" else predict(what, *sizes)))
        return
    lines = ["| | | seconds | memory beside it MB | the logits or the answer MB |"]
    lines.append("|---|---|---:|---:|---:|")
    titles = {"tune": "tuned decisions"}
    titles |= {method: f"`{method}`" for method in ("predict", "predict_proba", "report")}
    for name, size in CASES.items():
        for what, title in titles.items():
            row = measured(what, size)
            cells = f"{row['seconds']:.1f} | {row['mb']:.0f} | {row['answer_mb']:.0f}"
            lines.append(f"| {name} | {title} | {cells} |")
            print(lines[-1], flush=True)
    about = (
        f"{N} documents, one thread on {device_name()}. The memory is how far the peak of the "
        "process rose: beside the logits for the search, with its answer for a prediction and with "
        "the probabilities for a report. "
        "Predictions are those of a two-layer encoder of width 32."
    )
    title = "Many classes"
    write_block(DOCS / "many-classes.md", title, about + "\n\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
