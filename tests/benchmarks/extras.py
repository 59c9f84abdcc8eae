"""How dropout and attention dropout change the quality, on R8.

python tests/benchmarks/extras.py          # about an hour on one core

Each result is a line of docs/benchmarks/extras.jsonl; a run that is already there is not repeated.
"""

import functools

from common import DOCS, device_name, run, table, write_block
from skfocal import BertFocalClassifier, fetch_minilm
from skfocal._runtime.devices import cpu_has_bfloat16

PART = 400
DROPOUT = {
    "`dropout=0.0`": {"dropout": 0.0},
    "`dropout=0.1`": {"dropout": 0.1},
    "`dropout=0.1, attention_dropout=0.0`": {"dropout": 0.1, "attention_dropout": 0.0},
    "`dropout=0.0, attention_dropout=0.1`": {"dropout": 0.0, "attention_dropout": 0.1},
}


def make(seed, **params):
    """Return the estimator of a seed."""
    settings = {"gamma": 2.0, "alpha": "balanced", "max_length": 64, "max_epochs": 3}
    settings["precision"] = "bfloat16" if cpu_has_bfloat16() else "float32"
    return BertFocalClassifier(
        fetch_minilm(), pooling="head", random_state=seed, **settings | params
    )


def main():
    """Run what is missing and write the pages."""
    pages = {
        "dropout.md": ("Dropout and attention dropout", DROPOUT, 3, 5),
    }
    for name, (title, settings, epochs, n_seeds) in pages.items():
        configurations = {key: functools.partial(make, **value) for key, value in settings.items()}
        rows = run(
            configurations, results=DOCS / "extras.jsonl", data="r8", seeds=range(n_seeds),
            part=PART,
        )  # fmt: skip
        write_block(
            DOCS / name,
            title,
            f'R8, {PART} random training documents, `gamma=2, alpha="balanced"`, {epochs} '
            f"epochs, 64 tokens, {make(0).precision}, published test split, mean ± standard "
            f"deviation over the seeds, on one of {device_name()}.\n\n"
            + table(configurations, rows),
        )


if __name__ == "__main__":
    main()
