"""A grid search over gamma and alpha: skfocal and the recipe in skorch's documentation.

python tests/benchmarks/search.py                    # all of it, an hour on one core
python tests/benchmarks/search.py --only skfocal     # one side, without a comparison
python tests/benchmarks/search.py --quality          # scores of both over three seeds, no times

Both sides get the same documents, folds, length (256 tokens, the recipe's default), epochs, batch
size and learning rate. The recipe tokenises in a Pipeline with padding to max_length. Its focal
loss is the plain formula, which works for these gammas. Each result is a line of search.jsonl; a
result that is already there is not measured again.

With --quality the recipe's batches are cut to their longest document. That changes its scores by
rounding only. The grid is 2 x 2, and each seed draws other documents.
"""

import argparse
import json
import os
import time
import warnings

import numpy as np
import torch
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline
from skorch import NeuralNetClassifier
from skorch.callbacks import LRScheduler
from skorch.hf import HuggingfacePretrainedTokenizer
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import AutoModelForSequenceClassification
from transformers.utils import logging

from common import DOCS, device_name
from skfocal import BertFocalClassifier, cache_info, clear_cache, fetch_minilm, fetch_reuters
from skfocal.balance import stratified_holdout

GAMMAS = [0.0, 1.0, 2.0, 5.0]
SETTINGS = {"full fine-tuning": (0, 2e-4), "lower 5 of 6 layers frozen": (5, 1e-3)}
TITLES = {
    "search": "A grid over gamma and alpha, compared with the recipe of skorch",
    "search-quality": "What the candidates of the grid learn, compared with the recipe of skorch",
}
SIDES = ("skfocal", "skorch recipe")
COUNTS = {"texts tokenised": 0, "weights read": 0}


class Recipe(nn.Module):
    """The module of the recipe."""

    def __init__(self, name, num_labels, freeze, trim):
        super().__init__()
        self.trim = trim
        self.bert = AutoModelForSequenceClassification.from_pretrained(name, num_labels=num_labels)
        COUNTS["weights read"] += 1
        if freeze:
            layers = self.bert.base_model.encoder.layer[:freeze]
            for part in (self.bert.base_model.embeddings, *layers):
                part.requires_grad_(False)

    def forward(self, **inputs):
        """Return the logits."""
        if self.trim:
            longest = inputs["attention_mask"].sum(1).max()
            inputs = {name: part[:, :longest] for name, part in inputs.items()}
        return self.bert(**inputs).logits


class PlainFocalLoss(nn.Module):
    """The focal loss with a mean over samples, as you would write it by hand."""

    def __init__(self, gamma=2.0, weight=None):
        super().__init__()
        self.gamma = gamma
        self.weight = weight

    def forward(self, logits, target):
        """Return the mean loss."""
        log_p = logits.log_softmax(1).gather(1, target[:, None])[:, 0]
        loss = -((1 - log_p.exp()) ** self.gamma) * log_p
        return (loss if self.weight is None else self.weight[target] * loss).mean()


class CountingTokenizer(HuggingfacePretrainedTokenizer):
    """The tokenizer of the recipe, which counts the texts."""

    def transform(self, X):
        """Tokenise."""
        COUNTS["texts tokenised"] += len(X)
        return super().transform(X)


def recipe(y, freeze, lr, options):
    """Return the recipe's pipeline and grid."""
    counts = np.bincount(y)
    n_updates = options.epochs * np.ceil(len(y) * 2 / 3 / 16)
    pipeline = Pipeline(
        [
            ("tokenizer", CountingTokenizer(fetch_minilm(), max_length=options.max_length)),
            (
                "net",
                NeuralNetClassifier(
                    Recipe,
                    module__name=fetch_minilm(),
                    module__num_labels=len(counts),
                    module__freeze=freeze,
                    module__trim=options.quality,
                    criterion=PlainFocalLoss,
                    optimizer=torch.optim.AdamW,
                    lr=lr,
                    max_epochs=options.epochs,
                    batch_size=16,
                    train_split=None,
                    iterator_train__shuffle=True,
                    callbacks=[
                        LRScheduler(
                            LambdaLR,
                            lr_lambda=lambda step: max(1 - step / n_updates, 0),
                            step_every="batch",
                        )
                    ],
                    verbose=0,
                ),
            ),
        ]
    )
    balanced = torch.tensor(len(y) / len(counts) / counts, dtype=torch.float32)
    return pipeline, {
        "net__criterion__gamma": options.gammas,
        "net__criterion__weight": [None, balanced],
    }


def skfocal_search(y, freeze, lr, options):
    """Return our estimator and grid."""
    clf = BertFocalClassifier(
        fetch_minilm(),
        pooling="head",
        precision="float32",
        freeze=freeze,
        lr=lr,
        max_epochs=options.epochs,
        max_length=options.max_length,
        random_state=0,
    )
    return clf, {"gamma": options.gammas, "alpha": [None, "balanced"]}


def load(n_documents, seed):
    """Return a stratified part of R8 in which each class has at least three documents."""
    X, y = fetch_reuters("r8", subset="train", return_X_y=True)
    codes = np.unique(y, return_inverse=True)[1]
    rows = stratified_holdout(codes, 1 - n_documents / len(X), np.random.RandomState(seed))[0]
    kept = [row for row in rows if (codes[rows] == codes[row]).sum() >= 3]
    return [X[i] for i in kept], np.unique(codes[kept], return_inverse=True)[1].astype(np.int64)


def measure(side, setting, options, seed=0):
    """Run one search and return its figures."""
    X, y = load(options.documents, seed)
    make = recipe if side == "skorch recipe" else skfocal_search
    estimator, grid = make(y, *SETTINGS[setting], options)
    torch.manual_seed(seed)
    clear_cache()
    before = {**COUNTS}, cache_info()
    folds = StratifiedKFold(3, shuffle=True, random_state=seed)
    search = GridSearchCV(estimator, grid, cv=folds, scoring="f1_macro", refit=False)
    start = time.perf_counter()
    search.fit(X, y)
    seconds = time.perf_counter() - start
    info = cache_info()
    ours = {
        "texts tokenised": info["texts_tokenized"] - before[1]["texts_tokenized"],
        "weights read": info["weights_read"] - before[1]["weights_read"],
    }
    counted = {name: COUNTS[name] - before[0][name] + ours[name] for name in COUNTS}
    scores = search.cv_results_["mean_test_score"]
    return {
        "setting": setting,
        "side": side,
        "seed": seed,
        "documents": len(X),
        "seconds": seconds,
        "best macro-F1 %": 100 * scores.max(),
        "mean macro-F1 %": 100 * scores.mean(),
        **counted,
        "threads": torch.get_num_threads(),
        "device": device_name(),
    }


def table(rows):
    """Return the Markdown table."""
    names = ["seconds", "best macro-F1 %", "mean macro-F1 %", *COUNTS]
    lines = ["| | | times as fast | " + " | ".join(names) + " |"]
    lines.append("|---|---|---:|" + "---:|" * len(names))
    for setting in SETTINGS:
        mine = {row["side"]: row for row in rows if row["setting"] == setting}
        for side, row in mine.items():
            ratio = mine.get("skorch recipe", row)["seconds"] / row["seconds"]
            cells = [f"{row[name]:.1f}" for name in names[:3]]
            cells += [str(row[name]) for name in names[3:]]
            lines.append(f"| {setting} | {side} | {ratio:.1f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def quality_table(rows):
    """Return the Markdown table of the scores, a row per setting and seed with both sides."""
    names = ["best macro-F1 %", "mean macro-F1 %"]
    lines = ["| | seed | " + " | ".join(f"{name}, skfocal | the recipe's" for name in names) + " |"]
    lines.append("|---|---:|" + "---:|" * 2 * len(names))
    pairs: dict = {}
    for row in rows:
        pairs.setdefault((row["setting"], row["seed"]), {})[row["side"]] = row
    for (setting, seed), pair in pairs.items():
        if len(pair) == len(SIDES):
            cells = [f"{pair[side][name]:.1f}" for name in names for side in SIDES]
            lines.append(f"| {setting} | {seed} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    """Run what the options name and the file does not have yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=150)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--only", choices=SIDES)
    parser.add_argument("--setting", choices=SETTINGS)
    parser.add_argument("--quality", action="store_true")
    options = parser.parse_args()
    options.gammas = [0.0, 2.0] if options.quality else GAMMAS
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())))
    name, show = ("search-quality", quality_table) if options.quality else ("search", table)
    path = DOCS / f"{name}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for setting in [options.setting] if options.setting else SETTINGS:
        for seed in range(3 if options.quality else 1):
            for side in [options.only] if options.only else SIDES:
                if (setting, seed, side) in {(r["setting"], r["seed"], r["side"]) for r in rows}:
                    continue
                rows.append(measure(side, setting, options, seed))
                print(rows[-1], flush=True)
                with path.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    (DOCS / f"{name}.md").write_text(f"# {TITLES[name]}\n\n{show(rows)}\n")
    print(show(rows))


if __name__ == "__main__":
    main()
