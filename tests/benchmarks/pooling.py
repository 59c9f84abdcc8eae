"""What the logits are computed from: the architecture's own head or the mean of the tokens.

    OMP_NUM_THREADS=1 python tests/benchmarks/pooling.py      # half an hour on one core

Each result is a line of docs/benchmarks/pooling.jsonl; a run that is already there is not repeated.
Writes docs/benchmarks/pooling.md.
"""

import argparse
import functools
from unittest import mock

from torch import nn

from common import DOCS, device_name, run, table, write_block
from skfocal import BertFocalClassifier, fetch_minilm
from skfocal._encoder import pretrained
from skfocal._encoder.pooled import with_pooling
from skfocal._runtime.devices import cpu_has_bfloat16

PARTS = {"r8": 500, "r52": 700}


class WithoutNorm(BertFocalClassifier):
    """The linear layer reads the mean as it is."""

    def fit(self, X, y):
        with mock.patch.object(pretrained, "with_pooling", _without_norm):
            return super().fit(X, y)


def _without_norm(classifier, pooling):
    encoder = with_pooling(classifier, pooling)
    encoder.norm = nn.Identity()
    return encoder


HEADS = {
    '`"head"`': (BertFocalClassifier, "head"),
    '`"mean"`': (BertFocalClassifier, "mean"),
    '`"mean"` without LayerNorm': (WithoutNorm, "mean"),
}


def make(seed, kind, pooling="head"):
    """Return the estimator of a seed."""
    settings = {"loss": "cross_entropy", "max_length": 64, "random_state": seed}
    settings["precision"] = "bfloat16" if cpu_has_bfloat16() else "float32"
    return kind(fetch_minilm(), pooling=pooling, **settings)


def main():
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    configurations = {
        name: functools.partial(make, kind=kind, pooling=pooling)
        for name, (kind, pooling) in HEADS.items()
    }
    blocks = []
    for data, part in PARTS.items():
        rows = run(
            configurations,
            results=DOCS / "pooling.jsonl",
            data=data,
            seeds=options.seeds,
            part=part,
            jobs=options.jobs,
        )
        blocks.append(
            f"## {data.upper()}, {part} training documents\n\n" + table(configurations, rows)
        )
    write_block(
        DOCS / "pooling.md",
        "What the logits are computed from",
        "MiniLM, cross-entropy without class weights or a sampler, 64 tokens, "
        f"{make(0, BertFocalClassifier).precision}, other documents for each seed, published test "
        f"split, mean ± standard deviation over the seeds, on {device_name()}, {options.jobs} fits "
        "at a time.\n\n" + "\n\n".join(blocks),
    )


if __name__ == "__main__":
    main()
