"""How faithful explanations are: what deleting the words that they name does to the log-odds.

    OMP_NUM_THREADS=1 python tests/benchmarks/explain.py      # half an hour on one core

Needs captum and lime. Each trained model and each way to explain is a line of
docs/benchmarks/explain.jsonl; a model that is already there is not repeated. Writes
docs/benchmarks/explain.md.
"""

import argparse
import functools
import json
import time
import warnings

import numpy as np
import torch
from lime.lime_text import LimeTextExplainer

from common import DOCS, device_name, write_block
from skfocal import BertFocalClassifier, __version__, fetch_minilm, fetch_reuters
from skfocal._data.tokenization import encode_with_places
from skfocal._estimator.fitted_model import FittedModel
from skfocal._runtime.devices import cpu_has_bfloat16
from skfocal.explanation import _explain
from skfocal.explanation._gradients import Document

RESULTS = DOCS / "explain.jsonl"
TITLES = {"r8": "Reuters R8", "short": "Short texts: the first twelve words of Reuters R52"}
SIZES = {"r8": 600, "short": 1200}  # training documents
SHARE = 0.2  # of the words that are deleted
SAMPLES = 500  # variations of a document that LIME asks about
STEPS = 32
DRAWS = 10  # of random words


def load(name, seed, n_test):
    """Return the training texts and labels, and test texts without those that are too short."""
    n_train = SIZES[name]
    corpus = "r52" if name == "short" else name
    parts = []
    for subset, n in (("train", n_train), ("test", n_test)):
        X, y = fetch_reuters(corpus, subset=subset, return_X_y=True)
        if name == "short":
            X = [" ".join(text.split()[:12]) for text in X]
        rows = np.random.RandomState(seed).permutation(len(X))
        rows = [i for i in rows if len(X[i].split()) >= 10][:n]
        parts += [[X[i] for i in rows], y[rows]]
    return parts


# -- ways to find the words ------------------------------------------------------------------


def by_gradients(clf, document, code, *, baseline="pad"):
    """Return the attributions that `explain` gives, with another baseline if need be."""
    own = _explain._baseline_id
    if baseline != "pad":
        _explain._baseline_id = lambda tokenizer: tokenizer.mask_token_id
    try:
        (found,) = clf.explain([document.text], [clf.classes_[code]], n_steps=STEPS)
    finally:
        _explain._baseline_id = own
    return found.attributions


def gradient_times_input(clf, document, code):
    """Return the gradient at the document times its embeddings, summed over each word."""
    model = FittedModel.of(clf)
    score = functools.partial(_explain._score, code=code, multilabel=False)
    ids, to_words = tokens_of(model, document)
    with _explain._explaining(model) as embeddings:
        part = Document(embeddings, ids, model.truncation.max_length, model.net.pooling)
        values = part.values[None].clone().requires_grad_()
        (slope,) = torch.autograd.grad(score(part.logits(values)).sum(), values)
        return to_words((slope * values)[0].sum(-1).detach().numpy())


def by_attention(clf, document, code, *, rollout=False):
    """Return how much attention words get: in the last layer, or through all of them."""
    model = FittedModel.of(clf)
    ids, to_words = tokens_of(model, document)
    encoder = model.net.plain_module().model.base_model
    own = encoder.config._attn_implementation
    encoder.set_attn_implementation("eager")  # the only one that tells
    try:
        with torch.no_grad():
            tensor = torch.from_numpy(ids.astype(np.int64))[None]
            layers = encoder(tensor, torch.ones_like(tensor), output_attentions=True).attentions
    finally:
        encoder.set_attn_implementation(own)
    heads = [layer[0].mean(0) for layer in layers]
    if not rollout:
        return to_words(heads[-1].mean(0).numpy())  # the classifier reads the mean of all tokens
    flow = torch.eye(len(ids))
    for layer in heads:  # half of it goes past the attention (Abnar and Zuidema, 2020)
        flow = (layer + torch.eye(len(ids))) / 2 @ flow
    return to_words(flow.mean(0).numpy())


def tokens_of(model, document):
    """Return token ids, and a function that sums values of tokens over the words."""
    backend = model.tokenizer.backend_tokenizer
    ids, rows, places = encode_with_places(backend, document.text, model.truncation)
    word_of = _explain._words(document.text, places)[2][rows]
    own = word_of >= 0
    return ids, lambda values: np.bincount(word_of[own], values[own], len(document.words))


def by_lime(clf, document, code, *, of="probability"):
    """Return LIME's weights; each word at its place is a feature."""
    explainer = LimeTextExplainer(
        class_names=clf.classes_.tolist(), split_expression=r"\s+", bow=False, random_state=0
    )
    n = len(document.words)

    def answer(texts):
        logits = _logits(clf, tuple(texts))
        if of == "probability":
            return FittedModel.of(clf).calibration.answers(logits).predict_proba()
        return np.tile(_log_odds(logits, code)[:, None], len(clf.classes_))

    found = explainer.explain_instance(
        document.text, answer, labels=[code], num_features=n, num_samples=SAMPLES
    )
    weights = np.zeros(n)
    for word, weight in found.as_map()[code]:
        weights[word] = weight
    return weights


def one_by_one(clf, document, code):
    """Return how much the log-odds fall when a word alone is deleted."""
    n = len(document.words)
    texts = [without(document, [i]) for i in range(n)]
    scores = log_odds(clf, [document.text, *texts], code)
    return scores[0] - scores[1:]


WAYS = {
    "`explain`: integrated gradients, padding as baseline": by_gradients,
    "integrated gradients, the mask token as baseline": functools.partial(
        by_gradients, baseline="mask"
    ),
    "gradient times input": gradient_times_input,
    "attention of the last layer": by_attention,
    "attention rollout": functools.partial(by_attention, rollout=True),
    f"LIME of the probability, {SAMPLES} samples": by_lime,
    f"LIME of the log-odds, {SAMPLES} samples": functools.partial(by_lime, of="log-odds"),
    "each word deleted alone": one_by_one,
}
RANDOM = f"random words, mean of {DRAWS} draws"


# -- what deletion does ----------------------------------------------------------------------


class Words:
    """A document as a sequence of words with single blanks between them."""

    def __init__(self, text):
        self.text = text
        self.words = text.split()


def without(document, words):
    """Return the text without some of its words."""
    gone = set(words)
    return " ".join(word for i, word in enumerate(document.words) if i not in gone)


def log_odds(clf, texts, code):
    """Return the log-odds of a class in the softmax of the logits."""
    return _log_odds(FittedModel.of(clf).logits(texts), code)


def _log_odds(logits, code):
    logits = torch.from_numpy(logits).double()
    return _explain._score(logits, code=code, multilabel=False).numpy()


@functools.lru_cache(100)
def _logits(clf, texts):
    """Return logits; LIME asks about the same variations a second time."""
    return FittedModel.of(clf).logits(list(texts))


def readable(clf, texts):
    """Return documents of plain words of which the classifier reads all."""
    documents = []
    for found in clf.explain(texts, n_steps=1):
        stop = found.spans[-1, 1]
        words = [word for word in found.text[:stop].split() if word.isalnum()]
        documents.append(Words(" ".join(words[:-2] if found.n_unread else words)))
    return documents


def drops(clf, documents, codes, find):
    """Return the mean fall of the log-odds, and the seconds per document."""
    start = time.perf_counter()
    each = [find(clf, *both) for both in zip(documents, codes, strict=True)]
    seconds = (time.perf_counter() - start) / len(documents)
    falls = []
    for document, code, values in zip(documents, codes, each, strict=True):
        n = max(round(SHARE * len(document.words)), 1)
        top = np.argsort(-values, kind="stable")[:n]
        before, after = log_odds(clf, [document.text, without(document, top)], code)
        falls.append(before - after)
    return float(np.mean(falls)), seconds


def random_words(seed):
    """Return a function that gives words random values."""
    rng = np.random.RandomState(seed)
    return lambda clf, document, code: rng.rand(len(document.words))


def measure(name, seed, n_test):
    """Train a model and yield a result for each way to explain it."""
    X, y, texts, _ = load(name, seed, n_test)
    settings = {"max_length": 64, "random_state": seed}
    settings["precision"] = "bfloat16" if cpu_has_bfloat16() else "float32"
    clf = BertFocalClassifier(fetch_minilm(), classes=np.unique(y), **settings).fit(X, y)
    documents = readable(clf, texts)
    predicted = clf.predict([document.text for document in documents])
    codes = np.searchsorted(clf.classes_, predicted)
    common = {"data": name, "seed": seed, "documents": len(documents)}
    common["words"] = float(np.mean([len(document.words) for document in documents]))
    for way, find in WAYS.items():
        drop, seconds = drops(clf, documents, codes, find)
        if "of the probability" in way:
            for_lime = seconds
        elif "of the log-odds" in way:  # whose logits are already there
            seconds = for_lime
        print(f"{name}, seed {seed}: {way} {drop:.2f}, {seconds:.2f} s", flush=True)
        yield {**common, "way": way, "drop": drop, "seconds": seconds}
    random = [drops(clf, documents, codes, random_words(draw))[0] for draw in range(DRAWS)]
    yield {**common, "way": RANDOM, "drop": float(np.mean(random)), "seconds": 0.0}


def block(rows):
    """Return the tables of the page."""
    parts = [
        f"MiniLM trained with the defaults of skfocal on at most 64 tokens, three seeds with other "
        f"documents each, on one thread of {device_name()}. Log-odds are in nats, mean ± standard "
        "deviation over the seeds."
    ]
    for name, title in TITLES.items():
        mine = [row for row in rows if row["data"] == name]
        if not mine:
            continue
        counts = " or ".join(map(str, sorted({row["documents"] for row in mine})))
        parts.append(
            f"## {title}\n\n{SIZES[name]} training documents, {counts} explained "
            f"documents for each seed, {np.mean([row['words'] for row in mine]):.0f} words on "
            "average.\n\n| words to delete by | seeds | fall of the log-odds | s per document |\n"
            "|---|---:|---:|---:|"
        )
        lines = []
        for way in [*WAYS, RANDOM]:
            own = [row for row in mine if row["way"] == way]
            if not own:
                continue
            falls = [row["drop"] for row in own]
            seconds = np.mean([row["seconds"] for row in own])
            lines.append(
                f"| {way} | {len(own)} | {np.mean(falls):.2f} ± {np.std(falls, ddof=1):.2f} | "
                f"{'–' if way == RANDOM else f'{seconds:.2g}'} |"
            )
        parts[-1] += "\n" + "\n".join(lines)
    return "\n\n".join(parts)


def main():
    """Measure what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--documents", nargs=2, type=int, default=[40, 80], help="of each corpus")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # truncation, missing classes, one step
    torch.set_num_threads(1)
    rows = [json.loads(x) for x in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    for seed in options.seeds:
        for name, n_test in zip(SIZES, options.documents, strict=True):
            if any((row["data"], row["seed"]) == (name, seed) for row in rows):
                continue
            own = [{**row, "version": __version__} for row in measure(name, seed, n_test)]
            rows += own
            with RESULTS.open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in own)
    write_block(DOCS / "explain.md", "How faithful explanations are", block(rows))


if __name__ == "__main__":
    main()
