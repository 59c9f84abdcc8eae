"""Peak memory while documents on disk are predicted, tokenised and trained on.

OMP_NUM_THREADS=1 python tests/benchmarks/out_of_memory.py --write     # an hour on one core

The documents are generated from passages of R52 and written some at a time into a Parquet file
and into the memory-mapped file of a `datasets.Dataset`. Each row of the table has its own process.
The peak of resident memory counts the pages of mapped files that the process has read; the system
can take these back whenever it needs the memory. It cannot take back anonymous memory, whose peak
is sampled every 20 ms.
"""

import argparse
import contextlib
import json
import multiprocessing
import tempfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from common import DOCS, device_name, write_block
from contenders import memory_mib, reset_peak
from overhead import tiny_encoder
from skfocal import BertFocalClassifier, fetch_reuters
from skfocal._data.batches import BucketBatchSampler
from skfocal._data.tokenization import TruncationSpec
from skfocal._data.tokens import tokenize

TITLE = "Documents that do not fit in memory"
AT_ONCE = 50_000  # documents that are generated, or read from the Parquet file, at a time
BATCH = 256


def write_parquet(path, n, seed=0):
    """Write `n` documents of 12 to 24 words, of which one in twenty is of class 1."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    X, _ = fetch_reuters("r52", subset="train", return_X_y=True)
    rng = np.random.RandomState(seed)
    words = np.array(" ".join(X).split(), dtype=object)
    schema = pa.schema({"text": pa.string(), "label": pa.int64()})
    with pq.ParquetWriter(path, schema) as file:
        for _ in range(0, n, AT_ONCE):
            starts = rng.randint(len(words) - 24, size=AT_ONCE)
            lengths = rng.randint(12, 25, size=AT_ONCE)
            texts = [" ".join(words[s : s + k]) for s, k in zip(starts, lengths, strict=True)]
            labels = (rng.rand(AT_ONCE) < 0.05).astype(np.int64)
            file.write_table(pa.table({"text": texts, "label": labels}, schema))


def as_dataset(path):
    """Return the memory-mapped `datasets.Dataset` of a Parquet file."""
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    return Dataset.from_parquet(str(path), cache_dir=str(path.parent / f"{path.stem}-cache"))


def chunks(path):
    """Yield the texts of a Parquet file, some at a time."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(AT_ONCE, columns=["text"])


# -- what is measured ------------------------------------------------------------------------


def predict_dataset(clf, path, n):
    """Predict the memory-mapped documents."""
    assert len(clf.predict(as_dataset(path)["text"])) == n


def predict_list(clf, path, n):
    """Predict a list of all documents."""
    assert len(clf.predict(as_dataset(path)["text"][:])) == n


def predict_chunks(clf, path, n):
    """Predict the documents of a Parquet file, chunk by chunk."""
    assert len(clf.predict(chunks(path))) == n


def tokenise(clf, path, n):
    """Tokenise as `fit` does, and make the batches of an epoch."""
    tokens = tokenize(clf.tokenizer_, as_dataset(path)["text"], TruncationSpec(64))
    batches = BucketBatchSampler(
        tokens.lengths, BATCH, lambda e, r: np.arange(n), n, np.random.RandomState(0)
    )
    assert sum(1 for _ in batches) == -(-n // BATCH)
    return int(tokens.lengths.sum(dtype=np.int64))


def fit(clf, path, n):
    """Train an epoch on the memory-mapped documents."""
    rows = as_dataset(path)
    clf.fit(rows["text"], rows["label"])


WORK = {
    "predict, a list of str": predict_list,
    "predict, `datasets.Dataset`": predict_dataset,
    "predict, chunks of a Parquet file": predict_chunks,
    "tokenise and make batches, `datasets.Dataset`": tokenise,
    "fit, one epoch, `datasets.Dataset`": fit,
}


@contextlib.contextmanager
def sampled_anonymous(found):
    """Put the peak of this process's anonymous memory in MiB into the list `found`."""
    done = threading.Event()

    def sample():
        while not done.wait(0.02):
            found[0] = max(found[0], memory_mib("RssAnon"))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def measure(name, path, n, encoder, connection):
    """Measure a row in this process and send it."""
    warnings.simplefilter("ignore")
    multiprocessing.current_process().name = "MainProcess"  # not a worker that shares tokens
    few = [batch["text"].to_pylist() for _, batch in zip(range(1), chunks(path), strict=False)][0]
    clf = BertFocalClassifier(
        encoder, max_epochs=1, max_length=64, batch_size=BATCH, random_state=0, lr=1e-4
    )
    clf.fit(few[:512], np.arange(512) % 2)
    clf.predict(few)  # allocates all that does not depend on the number of documents
    del few
    reset_peak()
    before, found = memory_mib("RssAnon"), [0.0]
    rss = memory_mib("VmRSS")
    start = time.perf_counter()
    with sampled_anonymous(found):
        n_tokens = WORK[name](clf, path, n)
    connection.send(
        {
            "work": name,
            "documents": n,
            "tokens": n_tokens,
            "seconds": time.perf_counter() - start,
            "before_rss_mib": rss,
            "before_anonymous_mib": before,
            "peak_rss_mib": memory_mib("VmHWM"),
            "peak_anonymous_mib": found[0],
        }
    )


def table(rows):
    """Return the Markdown table; the slope is that from the last row of the same work."""
    head = (
        "work", "documents", "minutes", "before, MiB", "peak, MiB", "anonymous before, MiB",
        "anonymous peak, MiB", "bytes per additional document",
    )  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    fewer: dict = {}
    for row in rows:
        last = fewer.get(row["work"])
        slope = "–"
        if last is not None:
            more = row["peak_anonymous_mib"] - last["peak_anonymous_mib"]
            slope = f"{more * 2**20 / (row['documents'] - last['documents']):.0f}"
        fewer[row["work"]] = row
        sizes = ("before_rss", "peak_rss", "before_anonymous", "peak_anonymous")
        cells = [row["work"], f"{row['documents']:,}", f"{row['seconds'] / 60:.1f}"]
        cells += [f"{row[f'{size}_mib']:,.0f}" for size in sizes] + [slope]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def block_of(rows):
    """Return the block of the page: a paragraph and the table."""
    tokens = [row["tokens"] / row["documents"] for row in rows if row["tokens"]]
    return (
        f"A two-layer encoder of width 32, `max_length=64`, {np.mean(tokens):.0f} tokens per "
        f"document, two classes; {torch.get_num_threads()} thread on {device_name()}, with other "
        "work at the same time.\n\n" + table(rows)
    )


def main():
    """Run what the file of results does not have yet and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", nargs="+", default=list(WORK), choices=list(WORK))
    parser.add_argument("--sizes", type=int, nargs="+", default=[500_000, 5_000_000])
    parser.add_argument("--fit-sizes", type=int, nargs="+", default=[500_000, 2_000_000])
    parser.add_argument("--results", type=Path, default=DOCS / "out-of-memory.jsonl")
    parser.add_argument("--write", action="store_true", help="docs/benchmarks/out-of-memory.md")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    path = options.results
    rows = [json.loads(x) for x in path.read_text().splitlines()] if path.exists() else []
    done = {(row["work"], row["documents"]) for row in rows}
    with tempfile.TemporaryDirectory() as folder:
        encoder = tiny_encoder(folder)
        for name in options.work:
            for n in options.fit_sizes if WORK[name] is fit else options.sizes:
                if (name, n) in done:
                    continue
                data = Path(folder) / f"{n}.parquet"
                if not data.exists():
                    write_parquet(data, n)
                    as_dataset(data)
                here, there = context.Pipe(duplex=False)
                process = context.Process(target=measure, args=(name, data, n, encoder, there))
                process.start()
                there.close()
                rows.append(here.recv())
                process.join()
                print(rows[-1], flush=True)
                with path.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    rows.sort(key=lambda row: (list(WORK).index(row["work"]), row["documents"]))
    print(block_of(rows))
    if options.write:
        write_block(DOCS / "out-of-memory.md", TITLE, block_of(rows))


if __name__ == "__main__":
    main()
