"""Time and memory per document, from a thousand documents to a million, with a tiny encoder.

python tests/benchmarks/scale.py           # some minutes on two cores

The documents are random passages of R52, with the lengths of its documents up to 64 words. Each
size runs in its own process. Prediction tokenises again. Both peaks of memory are those beyond
what the process needed with the texts.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
import warnings

import numpy as np
import torch

from common import DOCS, device_name, write_block
from contenders import memory_mib, reset_peak
from overhead import tiny_encoder
from skfocal import BertFocalClassifier, clear_cache, fetch_reuters
from skfocal._data.batches import BucketBatchSampler
from skfocal._data.tokenization import TruncationSpec
from skfocal._data.tokens import tokenize


def generated(n, seed=0):
    """Return `n` documents that no cache has seen."""
    X, _ = fetch_reuters("r52", subset="train", return_X_y=True)
    rng = np.random.RandomState(seed)
    words = np.array(" ".join(X).split(), dtype=object)
    lengths = np.minimum([len(x.split()) for x in X], 64)[rng.randint(len(X), size=n)]
    starts = rng.randint(len(words) - 64, size=n)
    return [" ".join(words[s : s + k]) for s, k in zip(starts, lengths, strict=True)]


def measure(n, folder, threads, connection):
    """Measure `n` documents in this process and send the row."""
    warnings.simplefilter("ignore")
    multiprocessing.current_process().name = "MainProcess"  # not a worker that shares tokens
    torch.set_num_threads(threads)
    few = generated(64)
    clf = BertFocalClassifier(folder, max_epochs=1, max_length=64, random_state=0)
    clf.fit(few, np.arange(64) % 2)
    clf.predict(generated(4096, seed=1))  # allocates what does not depend on n
    X = generated(n, seed=2)
    reset_peak()
    before = memory_mib("VmRSS")
    start = time.perf_counter()
    tokens = tokenize(clf.tokenizer_, X, TruncationSpec(64))
    tokenized = time.perf_counter()
    batches = BucketBatchSampler(
        tokens.lengths, 16, lambda e, r: np.arange(n), n, np.random.RandomState(0)
    )
    n_batches = sum(1 for _ in batches)
    batched = time.perf_counter()
    parts = tokens.flat, tokens.starts, tokens.lengths, tokens.full_lengths
    row = {
        "documents": n,
        "tokens": int(tokens.lengths.sum(dtype=np.int64)),
        "token_bytes": sum(part.nbytes for part in parts),
        "tokenize": tokenized - start,
        "batch": batched - tokenized,
        "batches": n_batches,
        "tokenize_peak_mib": memory_mib("VmHWM") - before,
    }
    del tokens, batches, parts
    clear_cache()  # prediction tokenises again
    reset_peak()
    before = memory_mib("VmRSS")
    start = time.perf_counter()
    clf.predict(X)
    row |= {
        "predict": time.perf_counter() - start,
        "predict_peak_mib": memory_mib("VmHWM") - before,
    }
    connection.send(row)


def table(rows):
    """Return the Markdown table."""
    head = (
        "documents", "tokenise, µs/document", "make batches, µs/document", "predict, µs/document",
        "token storage, bytes/document", "of these beyond 4 per token",
        "peak of tokenising beyond the texts, MiB", "peak of predicting, MiB",
    )  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|---:" * len(head) + "|"]
    for row in rows:
        n = row["documents"]
        each = [1e6 * row[key] / n for key in ("tokenize", "batch", "predict")]
        stored = row["token_bytes"] / n
        beyond = stored - 4 * row["tokens"] / n
        cells = [f"{n:,}", *(f"{x:.1f}" for x in each), f"{stored:.0f}", f"{beyond:.1f}"]
        cells += [f"{row[f'{work}_peak_mib']:.0f}" for work in ("tokenize", "predict")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    """Run the sizes and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--largest", type=int, default=1_000_000)
    parser.add_argument("--write", action="store_true", help="docs/benchmarks/scale.md")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        tiny_encoder(folder)
        n = 1000
        while n <= options.largest:
            here, there = context.Pipe(duplex=False)
            process = context.Process(
                target=measure, args=(n, folder, torch.get_num_threads(), there)
            )
            process.start()
            rows.append(here.recv())
            process.join()
            print(rows[-1], flush=True)
            n *= 10
    block = (
        f"A two-layer encoder of width 32, `max_length=64`, {rows[-1]['tokens'] / n * 10:.0f} "
        f"tokens per document; {torch.get_num_threads()} threads on {device_name()}.\n\n"
        + table(rows)
    )
    print(block)
    if options.write:
        (DOCS / "scale.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        write_block(DOCS / "scale.md", "From a thousand documents to a million", block)


if __name__ == "__main__":
    main()
