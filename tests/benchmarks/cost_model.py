"""Compute what many documents cost, from a few measured and a few assumed numbers.

``python tests/benchmarks/cost_model.py`` writes the tables of docs/scaling-out.md. Replace the
assumptions with your own prices and measurements. ``--measure`` measures the time of the tokenizer
and of Python.
"""

import sys
import time
import warnings
from dataclasses import dataclass
from unittest import mock

import numpy as np

from common import DOCS, write_block
from skfocal import BertFocalClassifier, fetch_minilm, fetch_reuters
from skfocal._data import tokens as _tokens

TOKENS = 114  # per document: the mean of Reuters R52, cut to 256
TOKENISE = 2.4e-6  # core-seconds per token, for WordPiece: --measure
SERIAL = 15e-6  # seconds of Python per document, which more cores do not reduce: --measure
UTILISATION = 0.3  # of a GPU's peak; speed.md: on a CPU 0.68, and 0.76 in prediction
BACKWARD = 2 / 3  # of a training step; gradients are exchanged at the same time
OVERLAP = 0.8  # of the backward pass: the first layer's gradient comes last
BATCH = 32  # documents of each process in a training step


@dataclass(frozen=True)
class Encoder:
    """An encoder's size.

    Attributes
    ----------
    layers, width : int
        Of the transformer.
    parameters : int
        All of them, with the embeddings: as many gradients are exchanged.
    """

    layers: int
    width: int
    parameters: int

    def operations(self, length):
        """Return the operations per token of a forward pass: products and attention."""
        return self.layers * (2 * 12 * self.width**2 + 4 * length * self.width)


@dataclass(frozen=True)
class Device:
    """A device, with the assumptions about it.

    Attributes
    ----------
    peak : float
        Operations per second in dense bfloat16, according to its maker.
    cores : int
        Of the host, for the tokenizer.
    price : float
        Dollars per hour, cores included.
    """

    peak: float
    cores: int
    price: float


ENCODERS = {
    "MiniLM (6 layers)": Encoder(6, 384, 22_700_000),
    "BERT-base": Encoder(12, 768, 109_500_000),
    "XLM-R-large": Encoder(24, 1024, 559_900_000),
}
DEVICES = {"L4": Device(121e12, 8, 0.8), "H100": Device(989e12, 16, 3.0)}
# Bytes per second, and batches per update.
LINKS = {
    "NVLink, 200 GB/s": (200e9, 1),
    "network, 10 GB/s": (10e9, 1),
    "network, `accumulate=8`": (10e9, 8),
}


def prediction_seconds(encoder, device):
    """Return the seconds per document: of tokenizer and Python, and of the device."""
    computing = TOKENS * encoder.operations(TOKENS) / (UTILISATION * device.peak)
    return TOKENS * TOKENISE / device.cores + SERIAL, computing


def training_seconds(encoder, device):
    """Return the seconds of one process in a step; the forward pass is a third of them."""
    return 3 * BATCH * TOKENS * encoder.operations(TOKENS) / (UTILISATION * device.peak)


def efficiency(encoder, seconds, n_processes, bandwidth, accumulate):
    """Return the throughput of `n_processes` as a part of `n_processes` times that of one.

    A ring sends each gradient (4 bytes) almost twice: ``2 (P - 1) / P`` times. The part of the
    exchange that does not overlap with the last backward pass of the update is added to its time.
    """
    exchange = 2 * (n_processes - 1) / n_processes * 4 * encoder.parameters / bandwidth
    update = accumulate * seconds
    return update / (update + max(exchange - OVERLAP * BACKWARD * seconds, 0))


def prediction_table():
    """Return the table of predictions."""
    lines = [
        f"Prediction, documents of {TOKENS} tokens, {UTILISATION:.0%} of the peak; "
        + ", ".join(f"{n}: ${d.price}/h with {d.cores} cores" for n, d in DEVICES.items())
        + ".",
        "",
        "| encoder | device | tokenise and Python, µs | compute, µs | documents/s "
        "| dollars for a billion | days for a billion on 8 |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for name, encoder in ENCODERS.items():
        for kind, device in DEVICES.items():
            tokenising, computing = prediction_seconds(encoder, device)
            seconds = tokenising + computing
            lines.append(
                f"| {name} | {kind} | {tokenising * 1e6:.0f} | {computing * 1e6:.0f} "
                f"| {1 / seconds:,.0f} | {1e9 * seconds / 3600 * device.price:,.0f} "
                f"| {1e9 * seconds / 8 / 86400:.2f} |"
            )
    return lines


def training_table():
    """Return the table of training."""
    device = DEVICES["H100"]
    counts = [2, 8, 64]
    lines = [
        f"Training on H100s, {BATCH} documents in the batch of each: the throughput, in percent of "
        "a perfect speed-up over one process.",
        "",
        "| encoder | documents/s on one | hours for an epoch of 10 million on 8 | link | "
        + " | ".join(f"{n} processes" for n in counts)
        + " |",
        "|---|---:|---:|---|" + "---:|" * len(counts),
    ]
    for name, encoder in ENCODERS.items():
        seconds = training_seconds(encoder, device)
        for link, of_link in LINKS.items():
            parts = [efficiency(encoder, seconds, n, *of_link) for n in counts]
            hours = 1e7 * seconds / BATCH / 8 / parts[1] / 3600
            cells = " | ".join(f"{part:.0%}" for part in parts)
            lines.append(f"| {name} | {BATCH / seconds:,.0f} | {hours:.2f} | {link} | {cells} |")
    return lines


class Replayed:
    """A tokenizer's backend that records the answers of another one and replays them."""

    def __init__(self, backend):
        self.backend = backend
        self.answers = []
        self.calls = iter(())

    def __getattr__(self, name):
        return getattr(self.backend, name)

    def encode_batch_fast(self, *args, **kwargs):
        """Replay an answer, or ask the backend and record its answer."""
        found = next(self.calls, None)
        if found is None:
            found = self.backend.encode_batch_fast(*args, **kwargs)
            self.answers.append(found)
        return found


def measure(n=8192):
    """Return the core-seconds per token in the tokenizer, and per document in Python.

    The first of two predictions tokenises; the second replays the tokens. Neither runs the encoder.
    """
    warnings.simplefilter("ignore")
    X, y = fetch_reuters("r52", subset="train", return_X_y=True)
    clf = BertFocalClassifier(fetch_minilm(), pooling="head", max_epochs=1, max_length=256).fit(
        X[:32], y[:32]
    )
    X = (2 * X)[:n]
    backend, encode = Replayed(clf.tokenizer_.backend_tokenizer), _tokens.encode
    zeros = mock.patch.object(
        clf.net_, "logits", lambda tokens, _: np.zeros((len(tokens), len(clf.classes_)))
    )
    replayed = mock.patch.object(_tokens, "encode", lambda _, *args: encode(backend, *args))
    kept = mock.patch("skfocal.classifier.CACHED_DOCUMENTS", 0)
    with zeros, replayed, kept:
        start = time.process_time()
        clf.predict(X)
        first = time.process_time() - start
        backend.calls = iter(backend.answers)
        start = time.process_time()
        clf.predict(X)
        second = time.process_time() - start
    n_tokens = sum(min(len(row.ids) + 2, 256) for answer in backend.answers for row in answer)
    return (first - second) / n_tokens, second / n


if __name__ == "__main__":
    if "--measure" in sys.argv:
        token, document = np.median([measure() for _ in range(3)], axis=0) * 1e6
        print(f"{token:.2f} us per token (tokenizer), {document:.1f} us per document (Python)")
        sys.exit()
    page = DOCS.parent / "scaling-out.md"
    write_block(page, "Scaling out", "\n".join([*prediction_table(), "", *training_table()]))
