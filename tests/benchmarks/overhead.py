"""The overhead of the estimator: import, a fit of 100 documents, a prediction of one document.

python tests/benchmarks/overhead.py        # a minute

The bare loop reads the same weights, tokenises the same texts and takes the same steps. The encoder
is tiny, so that the overhead shows. Both take turns.
"""

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
import warnings

import numpy as np
import torch
import torch.nn.functional as F
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
)
from transformers.utils import logging

from common import DOCS, device_name, write_block
from skfocal import BertFocalClassifier, clear_cache, fetch_minilm, fetch_reuters

EPOCHS, BATCH, MAX_LENGTH = 4, 16, 32


def tiny_encoder(folder):
    """Put a two-layer BERT of width 32 with MiniLM's tokenizer into a folder."""
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(fetch_minilm()).save_pretrained(folder)
    return folder


def short_documents(n):
    """Return the first words of documents of R52, and whether they are in its largest class."""
    X, y = fetch_reuters("r52", subset="train", return_X_y=True)
    rows = np.random.RandomState(0).permutation(len(X))[:n]
    return [" ".join(X[i].split()[:20]) for i in rows], (y[rows] == "earn").astype(int)


def same_length(texts):
    """Return the documents with 24 tokens, so that all forward passes cost the same."""
    tokenizer = AutoTokenizer.from_pretrained(fetch_minilm())
    return [text for text in texts if len(tokenizer(text)["input_ids"]) == 24]


def bare_fit(folder, tokenizer, X, y, fused):
    """Train as in a notebook: batches sorted by length, linear schedule, clipped gradient."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    ids = tokenizer(X, truncation=True, max_length=MAX_LENGTH)["input_ids"]
    order = sorted(range(len(X)), key=lambda i: len(ids[i]))
    batches = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=fused)
    n_steps = EPOCHS * len(batches)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / n_steps)
    for epoch in range(EPOCHS):
        for i in np.random.RandomState(epoch).permutation(len(batches)):
            padded = tokenizer.pad({"input_ids": [ids[j] for j in batches[i]]}, return_tensors="pt")
            F.cross_entropy(model(**padded).logits, torch.tensor(y[batches[i]])).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return model


def our_fit(folder, X, y):
    """Train the same with skfocal, which tokenises again."""
    clear_cache()
    clf = BertFocalClassifier(
        folder, loss="cross_entropy", max_epochs=EPOCHS, batch_size=BATCH, max_length=MAX_LENGTH,
        lr=1e-3, precision="float32", random_state=0,
    )  # fmt: skip
    return clf.fit(X, y)


def take_turns(ways, repeats):
    """Return the milliseconds of each way in each turn."""
    for way in ways.values():
        way()
    found = []
    for _ in range(repeats):
        found.append([])
        for way in ways.values():
            start = time.perf_counter()
            way()
            found[-1].append(1000 * (time.perf_counter() - start))
    return np.array(found)


def one_document(clf, texts):
    """Return ways to predict one document, a new one each time: bare and with the estimator."""
    model, tokenizer = clf.net_.module_.model, clf.tokenizer_
    bare, ours = itertools.cycle(texts), itertools.cycle(texts[::-1])
    encoded = tokenizer(texts[0], return_tensors="pt")

    def forward():
        with torch.inference_mode():
            return model(**{k: encoded[k] for k in ("input_ids", "attention_mask")}).logits

    def with_tokenizer():
        inputs = tokenizer(next(bare), truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
        with torch.inference_mode():
            return int(model(**inputs).logits.argmax())

    return {
        "forward pass": forward,
        "tokenizer and forward pass": with_tokenizer,
        "predict": lambda: clf.predict([next(ours)]),
    }


def seconds_of(code):
    """Return the median seconds that a new interpreter takes for `code`, without its start."""
    times = []
    for what in [code, "pass"] * 5:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", what], check=True)
        times.append(time.perf_counter() - start)
    return np.median(times[::2]) - np.median(times[1::2])


def rows_of(title, ways, repeats):
    """Return a line of the table for each way."""
    found = take_turns(ways, repeats)
    ratios = found / found[:, :1]
    return [
        f"| {title}: {name} | {np.median(ms):.1f} | {np.median(ratio):.2f} |"
        for name, ms, ratio in zip(ways, found.T, ratios.T, strict=True)
    ]


def main():
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--write", action="store_true", help="docs/benchmarks/overhead.md")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    X, y = short_documents(100)
    several = same_length(short_documents(4000)[0])
    lines = ["| | ms | × the first |", "|---|---:|---:|"]
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = AutoTokenizer.from_pretrained(tiny_encoder(folder))
        fits = {
            "bare loop": lambda: bare_fit(folder, tokenizer, X, y, None),
            "bare loop, fused AdamW": lambda: bare_fit(folder, tokenizer, X, y, True),
            "skfocal": lambda: our_fit(folder, X, y),
        }
        lines += rows_of("fit, tiny encoder", fits, options.repeats)
        tiny = our_fit(folder, X, y)
        lines += rows_of(
            "one document, tiny encoder", one_document(tiny, several), 10 * options.repeats
        )
        minilm = our_fit(fetch_minilm(), X[:20], y[:20])
        lines += rows_of(
            "one document, MiniLM", one_document(minilm, several), 10 * options.repeats
        )
    lines.append(f"| `import skfocal` | {1000 * seconds_of('import skfocal'):.0f} | |")
    block = (
        f"100 documents of 20 words, {EPOCHS} epochs, batches of {BATCH}; "
        f"{torch.get_num_threads()} threads on {device_name()}; medians of {options.repeats} "
        f"turns, and of {10 * options.repeats} for one document.\n\n" + "\n".join(lines)
    )
    print(block)
    if options.write:
        write_block(DOCS / "overhead.md", "Overhead of the estimator", block)


if __name__ == "__main__":
    main()
