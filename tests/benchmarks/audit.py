"""What the audit finds, and how long it takes.

    OMP_NUM_THREADS=2 python tests/benchmarks/audit.py

Documents of R52 get planted near duplicates: some of their words replaced by others of the corpus,
words added at the beginning or the end, or their end cut off. Recall is the share of these pairs
that are found, by the nearest neighbours of MiniLM and the overlap of their words. Random pairs
tell how often documents that are no duplicates would be. Then whole corpora are audited. Writes the
tables of docs/benchmarks/audit.md.
"""

import os
import time

import numpy as np

from common import DOCS, device_name, write_block
from skfocal import audit, clear_cache, fetch_20newsgroups_cachopo, fetch_minilm, fetch_reuters
from skfocal.data_audit import _duplicates, _measure
from skfocal.data_audit._neighbours import Encoder, nearest

DOCUMENTS, PLANTED, RANDOM, SHORTEST = 2500, 100, 500_000, 20
LEAST = (0.4, 0.5, 0.6, 0.7, 0.8)


class Planter:
    """Changes documents by words that it draws from the corpus."""

    def __init__(self, X, rng):
        self.words = [word for text in X for word in text.split()]
        self.rng = rng

    def drawn(self, n):
        """Return `n` words, drawn from all texts."""
        return [self.words[i] for i in self.rng.randint(len(self.words), size=n)]

    def replace(self, share):
        """Return a function that replaces a share of the words of a text."""

        def change(text):
            words = text.split()
            rows = self.rng.choice(len(words), max(1, round(share * len(words))), replace=False)
            for i, word in zip(rows, self.drawn(len(rows)), strict=True):
                words[i] = word
            return " ".join(words)

        return change

    def add(self, text):
        """Return a text with 15 words after it."""
        return " ".join([text, *self.drawn(15)])

    def add_before(self, text):
        """Return a text with 15 words before it."""
        return " ".join([*self.drawn(15), text])

    def cut(self, share):
        """Return a function that keeps the beginning of a text."""
        return lambda text: " ".join(text.split()[: int(share * len(text.split()))])

    def ways(self):
        """Return the kinds of near duplicates."""
        return {
            "5 % of the words replaced": self.replace(0.05),
            "10 % of the words replaced": self.replace(0.1),
            "20 % of the words replaced": self.replace(0.2),
            "15 words added at the end": self.add,
            "15 words added at the beginning": self.add_before,
            "cut to 70 %": self.cut(0.7),
            "cut to 50 %": self.cut(0.5),
        }


def planted_table():
    """Return tables of the recall of each kind and of the share of other pairs that are found."""
    rng = np.random.RandomState(0)
    X, y = fetch_reuters("r52", subset="train", return_X_y=True)
    rows = rng.permutation(len(X))[:DOCUMENTS]
    X, y = [X[i] for i in rows], y[rows]
    long = [i for i, text in enumerate(X) if len(text.split()) >= SHORTEST]
    planter, documents, planted = Planter(X, rng), list(X), {}
    for name, change in planter.ways().items():
        sources = rng.choice(long, PLANTED, replace=False)
        planted[name] = [(int(i), len(documents) + k) for k, i in enumerate(sources)]
        documents += [change(X[i]) for i in sources]
    encoder = Encoder.load(fetch_minilm(), None, False, False)
    vectors = encoder.embed(documents, lambda n: None)
    found = nearest(vectors, vectors, _measure._CANDIDATES, True)
    numbers = np.repeat(np.arange(len(documents)), found.shape[1])
    candidates = np.column_stack([numbers, found.ravel()])
    pairs, overlap = _duplicates.near_pairs(documents, candidates, min(LEAST))
    shares = {(i, j): share for (i, j), share in zip(pairs.tolist(), overlap, strict=True)}
    near = {tuple(sorted(pair)) for pair in candidates.tolist()}
    heads = " | ".join(f"{least:g}" for least in LEAST)
    lines = [f"| near duplicate | among the neighbours | {heads} |", "|---|---:|" + "---:|" * 5]
    for name, each in planted.items():
        shown = np.mean([pair in near for pair in each])
        recalls = [np.mean([shares.get(pair, 0) >= least for pair in each]) for least in LEAST]
        lines.append(f"| {name} | {100 * shown:.0f} | {_percent(recalls)} |")
    return "\n".join(lines) + "\n\n" + other_pairs(X, rng, long, vectors[: len(X)])


def other_pairs(X, rng, long, vectors):
    """Return a table of how many pairs that were not planted overlap so much."""
    words = _duplicates.WordPairs()
    sets = [words.of(text) for text in X]
    drawn = rng.choice(long, (RANDOM, 2))
    drawn = drawn[drawn[:, 0] != drawn[:, 1]]
    found = nearest(vectors, vectors, _measure._CANDIDATES, True)
    near = np.column_stack([np.repeat(np.arange(len(X)), found.shape[1]), found.ravel()])
    heads = " | ".join(f"{least:g}" for least in LEAST)
    lines = [f"| pairs that were not planted | number | {heads} |", "|---|---:|" + "---:|" * 5]
    for name, pairs in {"random": drawn, "nearest neighbours": near}.items():
        pairs = np.unique(np.sort(pairs, axis=1), axis=0)
        shares = np.array([_duplicates.overlap(sets[i], sets[j]) for i, j in pairs.tolist()])
        counts = [int((shares >= least).sum()) for least in LEAST]
        lines.append(f"| {name} | {len(pairs):,} | {' | '.join(f'{n:,}' for n in counts)} |")
    return "\n".join(lines)


def _percent(values):
    return " | ".join(f"{100 * value:.0f}" for value in values)


def timed_table(threads):
    """Return a table of the seconds that 10,000 documents take."""
    lines = ["| documents | tokens of each, mean | seconds | of these computing | load before |"]
    lines.append("|---|---:|---:|---:|---:|")
    X, y = fetch_20newsgroups_cachopo(subset="train", return_X_y=True)
    corpora = {"20 Newsgroups": (X[:10_000], y[:10_000])}
    parts = [fetch_reuters("r52", subset=name, return_X_y=True) for name in ("train", "test")]
    X, y = [text for part in parts for text in part[0]], np.concatenate([p[1] for p in parts])
    corpora["R52, training and test"] = X, y
    for name, (X, y) in corpora.items():
        clear_cache()
        load, start, busy = os.getloadavg()[0], time.perf_counter(), time.process_time()
        found = audit(X, y, model=fetch_minilm())
        found._repr_html_()
        seconds, busy = time.perf_counter() - start, (time.process_time() - busy) / threads
        lines.append(
            f"| {len(X):,} of {name} | {found._lengths.mean():.0f} | {seconds:.0f} | {busy:.0f} | "
            f"{load:.1f} |"
        )
        print(lines[-1], flush=True)
    return "\n".join(lines)


def main():
    """Measure and write the tables."""
    threads = len(os.sched_getaffinity(0))
    quality = planted_table()
    print(quality, flush=True)
    block = (
        f"{DOCUMENTS:,} training documents of R52 and {PLANTED} near duplicates of each kind, of "
        f"documents of at least {SHORTEST} words. Per cent found: among the "
        f"{_measure._CANDIDATES} nearest neighbours by MiniLM, and with an overlap of at least so "
        f"much.\n\n{quality}\n\nSeconds of an audit with MiniLM and its page, on {threads} of "
        f"{device_name()}, from the texts on. The load is the "
        "mean number of processes that wanted a core, and what was computed is processor time per "
        f"core.\n\n{timed_table(threads)}"
    )
    write_block(DOCS / "audit.md", "What an audit finds, and what it costs", block)


if __name__ == "__main__":
    main()
