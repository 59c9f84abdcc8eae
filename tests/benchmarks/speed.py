"""One epoch and one prediction on R52: skfocal beside a bare PyTorch loop over sorted batches.

python tests/benchmarks/speed.py            # some minutes on two cores

All train the same documents from the same weights, in batches of the same size, in float32. The
bare loop is what one writes by hand: batches sorted by length, each padded to its longest, AdamW.
The contenders take turns; the table has medians over the turns and the median of the ratios
within a turn. A step towards the full comparison: Trainer, skorch's recipe and simpletransformers
are not in it.
"""

import argparse
import contextlib
import json
import time
import warnings
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoModelForSequenceClassification
from transformers.utils import logging

from common import DOCS, device_name
from skfocal import BertFocalClassifier, _net, fetch_minilm, fetch_reuters
from skfocal._module import EncoderClassifier
from skfocal._pretrained import load_tokenizer
from skfocal._text import Collate, TokenDataset, sorted_batches, tokenize


class BareLoop:
    """Train and predict as in a notebook."""

    def __init__(self, options, n_classes, dropout=None):
        self.options = options
        torch.manual_seed(0)
        self.model = AutoModelForSequenceClassification.from_pretrained(
            fetch_minilm(), num_labels=n_classes
        )
        for module in self.model.modules():
            if dropout is not None and isinstance(module, torch.nn.Dropout):
                module.p = dropout
        self.tokenizer = load_tokenizer(fetch_minilm())

    def _batches(self, X, codes, size):
        ids = tokenize(self.tokenizer, X, self.options.max_length).ids
        data, collate = TokenDataset(ids, codes), Collate(self.tokenizer.pad_token_id)
        for rows in sorted_batches([len(row) for row in ids], size):
            yield rows, *collate([data[i] for i in rows])

    def fit(self, X, y):
        """Train one epoch, batches in random order."""
        codes = np.unique(y, return_inverse=True)[1]
        batches = list(self._batches(X, codes, 16))
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=2e-4)
        self.model.train()
        for i in np.random.RandomState(0).permutation(len(batches)):
            _, x, target = batches[i]
            logits = self.model(x["input_ids"], attention_mask=x["attention_mask"]).logits
            F.cross_entropy(logits, target).backward()
            optimizer.step()
            optimizer.zero_grad()

    def predict(self, X):
        """Return class codes."""
        self.model.eval()
        found = np.zeros(len(X), int)
        with torch.inference_mode():
            for rows, x, _ in self._batches(X, None, 64):
                logits = self.model(x["input_ids"], attention_mask=x["attention_mask"]).logits
                found[rows] = logits.argmax(1).numpy()
        return found


def skfocal(options, **params):
    """Return our estimator."""
    settings = {"loss": "cross_entropy", "max_epochs": 1, "batch_size": 16, "lr": 2e-4}
    settings |= {"max_length": options.max_length, "random_state": 0}
    return BertFocalClassifier(fetch_minilm(), **settings | params)


@contextlib.contextmanager
def without_shortcuts():
    """Let the last layer run whole and the allocator do as it likes."""
    forward = EncoderClassifier.forward

    def whole(self, *args, **kwargs):
        self.extra = {}
        return forward(self, *args, **kwargs)

    with (
        mock.patch.object(EncoderClassifier, "forward", whole),
        mock.patch.object(_net, "kept_memory", contextlib.nullcontext),
    ):
        yield


def contenders(options, n_classes):
    """Return the name, the estimator and the context of each."""
    plain = contextlib.nullcontext
    return {
        "bare loop, BERT's dropout": (BareLoop(options, n_classes), plain),
        "bare loop, no dropout": (BareLoop(options, n_classes, 0.0), plain),
        "skfocal, BERT's dropout": (skfocal(options, dropout=None), plain),
        "skfocal": (skfocal(options), plain),
        "skfocal without its shortcuts": (skfocal(options), without_shortcuts),
    }


def measure(estimator, context, train, test):
    """Return documents a second in training and in prediction."""
    with context():
        start = time.perf_counter()
        estimator.fit(*train)
        fitted = time.perf_counter()
        estimator.predict(test)
        predicted = time.perf_counter()
    return len(train[0]) / (fitted - start), len(test) / (predicted - fitted)


def table(results):
    """Return the Markdown table."""
    values = {name: np.array(rows) for name, rows in results.items()}
    first = next(iter(values.values()))
    lines = ["| | training, documents/s | times | prediction, documents/s | times |"]
    lines.append("|---|---:|---:|---:|---:|")
    for name, rows in values.items():
        medians, ratios = np.median(rows, axis=0), np.median(rows / first, axis=0)
        cells = [f"{medians[0]:.1f}", f"{ratios[0]:.2f}", f"{medians[1]:.1f}", f"{ratios[1]:.2f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    """Let the contenders take turns and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=192)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    X, y = fetch_reuters("r52", subset="train", return_X_y=True)
    rows = np.random.RandomState(0).permutation(len(X))[: 2 * options.documents]
    train = [X[i] for i in rows[: options.documents]], y[rows[: options.documents]]
    test = [X[i] for i in rows[options.documents :]]
    fetch_minilm()
    tokenize(load_tokenizer(fetch_minilm()), train[0] + test, options.max_length)  # once, for all
    results: dict = {}
    for turn in range(options.repeats):
        for name, (estimator, context) in contenders(options, len(np.unique(train[1]))).items():
            results.setdefault(name, []).append(measure(estimator, context, train, test))
            print(turn, name, *(f"{value:.1f}" for value in results[name][-1]), flush=True)
    rows = [
        {
            "turn": turn,
            "name": name,
            "documents": options.documents,
            "train": fit,
            "predict": predict,
        }
        for name, turns in results.items()
        for turn, (fit, predict) in enumerate(turns)
    ]
    (DOCS / "speed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = (
        f"# One epoch and one prediction: R52, MiniLM, {options.documents} documents each, "
        f"`max_length={options.max_length}`, batch 16, float32\n\n"
        f"{torch.get_num_threads()} threads on {device_name()}; medians of {options.repeats} "
        "turns; texts were tokenised before.\n\n" + table(results) + "\n"
    )
    (DOCS / "speed.md").write_text(page)
    print(page)


if __name__ == "__main__":
    main()
