"""How the defaults were chosen: one parameter changed at a time, on 500 documents of R8.

    python tests/benchmarks/defaults.py

Writes docs/benchmarks/defaults.jsonl and .md. All rows: MiniLM, cross-entropy, 64 tokens.
"""

import argparse
from functools import partial

from common import DOCS, device_name, run, table
from quality import encoder

VARIANTS = {
    "defaults": {},
    "lr=1e-4": {"lr": 1e-4},
    "lr=4e-4": {"lr": 4e-4},
    "max_epochs=2": {"max_epochs": 2},
    "max_epochs=8": {"max_epochs": 8},
    "batch_size=8": {"batch_size": 8},
    "batch_size=32": {"batch_size": 32},
    "warmup=0": {"warmup": 0.0},
    "schedule=cosine": {"schedule": "cosine"},
    "schedule=constant": {"schedule": "constant"},
    "dropout=None (0.1)": {"dropout": None},
    "freeze=3, lr=5e-4": {"freeze": 3, "lr": 5e-4},
    "layer_decay=0.8, lr=4e-4": {"layer_decay": 0.8, "lr": 4e-4},
}


def main():
    """Run the benchmark and write its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--part", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    common = {"loss": "cross_entropy", "max_length": 64}
    configurations = {
        name: partial(encoder, {**common, **change}) for name, change in VARIANTS.items()
    }
    rows = run(
        configurations,
        results=DOCS / "defaults.jsonl",
        data="r8",
        part=options.part,
        seeds=options.seeds,
        jobs=options.jobs,
    )
    (DOCS / "defaults.md").write_text(
        f"# Defaults, one parameter changed at a time\n\nR8, {options.part} random training "
        "documents (different ones for each seed), the whole test set, MiniLM, cross-entropy, 64 "
        f"tokens, {device_name()}, {options.jobs} fits at a time.\n\n"
        + table(configurations, rows)
        + "\n"
    )


if __name__ == "__main__":
    main()
