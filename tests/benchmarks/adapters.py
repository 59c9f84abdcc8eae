"""Memory, time and quality of gradient checkpointing and LoRA beside plain fine-tuning.

python tests/benchmarks/adapters.py        # half an hour on one core

Quality is measured with MiniLM on a part of R8. Each result is a line of
docs/benchmarks/adapters.jsonl, and a run that is already there is not repeated. Memory and time are
measured with an encoder as large as BERT-base with random weights, which take as long as any
others. Each way has its own process to measure memory; for the time, the ways take turns.
"""

import argparse
import contextlib
import functools
import resource
import statistics
import subprocess
import sys
import time

import peft
import torch
import torch.nn.functional as F
from transformers import BertConfig, BertForSequenceClassification

from common import DOCS, run, table, write_block
from skfocal import BertFocalClassifier, fetch_minilm
from skfocal._encoder.adapters import Adapters
from skfocal._encoder.module import EncoderClassifier
from skfocal._encoder.structure import freeze_layers, recomputed_layers
from skfocal._runtime.allocator import kept_memory

BATCH, LENGTH, N_CLASSES = 16, 128, 10
PART, EPOCHS = 500, 4
LORA = peft.LoraConfig(r=8)
LORA_ALL = peft.LoraConfig(r=8, target_modules="all-linear")
WAYS = {
    "full": {},
    "full, `gradient_checkpointing=True`": {"recomputes": True},
    "`freeze=6`": {"freeze": 6},
    "LoRA `r=8`": {"adapters": LORA},
    "LoRA `r=8`, `gradient_checkpointing=True`": {"adapters": LORA, "recomputes": True},
    'LoRA `r=8, target_modules="all-linear"`': {"adapters": LORA_ALL},
}
QUALITY = {
    'full, `lr="auto"` (2e-4)': {},
    "LoRA `r=8`, `lr=2e-4`": {"peft": LORA, "lr": 2e-4},
    "LoRA `r=8`, `lr=1e-3`": {"peft": LORA, "lr": 1e-3},
    'LoRA `r=8`, `lr="auto"` (2e-3)': {"peft": LORA},
    "LoRA `r=8`, `lr=5e-3`": {"peft": LORA, "lr": 5e-3},
    'LoRA `r=8, target_modules="all-linear"`, `lr="auto"` (2e-3)': {"peft": LORA_ALL},
    "head alone (`freeze=6`), `lr=2e-3`": {"freeze": 6, "lr": 2e-3},
}


# -- memory and time -----------------------------------------------------------------------


class Training:
    """One way to train an encoder as large as BERT-base."""

    def __init__(self, freeze=0, adapters=None, recomputes=False):
        torch.manual_seed(0)
        encoder = BertForSequenceClassification(BertConfig(num_labels=N_CLASSES))
        self.module = EncoderClassifier(encoder).train()
        freeze_layers(encoder, freeze)
        if adapters is not None:
            Adapters(encoder, adapters, freeze)
        self.learning = [p for p in encoder.parameters() if p.requires_grad]
        self.recomputed = recomputed_layers(encoder) if recomputes else contextlib.nullcontext()
        self.recomputed.__enter__()
        self.optimizer = torch.optim.AdamW(self.learning, lr=1e-4, fused=True)
        for module in encoder.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        self.ids = torch.randint(1000, 30000, (BATCH, LENGTH))
        self.codes = torch.randint(N_CLASSES, (BATCH,))

    def update(self):
        """Return the seconds of an update."""
        start = time.perf_counter()
        F.cross_entropy(self.module(self.ids, torch.ones_like(self.ids)), self.codes).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - start

    def moments(self):
        """Return the bytes of the optimizer's state."""
        states = self.optimizer.state.values()
        return sum(x.nbytes for state in states for x in state.values() if torch.is_tensor(x))


def peak(name):
    """Print the peak memory of this process in megabytes after two updates."""
    training = Training(**WAYS[name])
    training.update()
    training.update()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)


def costs(n_repeats):
    """Return a table of memory and time."""
    memory = {}
    for name in WAYS:
        done = subprocess.run(
            [sys.executable, __file__, "--peak", name], capture_output=True, text=True, check=True
        )
        memory[name] = float(done.stdout.split()[-1])
    trainings = {name: Training(**way) for name, way in WAYS.items()}
    seconds = {name: [] for name in WAYS}
    with kept_memory():
        for turn in range(n_repeats + 1):
            for name, training in trainings.items():
                taken = training.update()
                if turn:  # the first makes the moments
                    seconds[name].append(taken)
    lines = [
        "| | weights that learn | AdamW's state MB | peak memory of the process MB "
        "| s per update |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, training in trainings.items():
        n = sum(p.numel() for p in training.learning)
        cells = [f"{n:,}", f"{training.moments() / 1e6:,.0f}", f"{memory[name]:,.0f}"]
        least, most = min(seconds[name]), max(seconds[name])
        cells.append(f"{statistics.median(seconds[name]):.2f} ({least:.2f}–{most:.2f})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


# -- quality -------------------------------------------------------------------------------


def make(seed, **params):
    """Return the estimator of a seed."""
    settings = {"loss": "cross_entropy", "max_length": 64, "max_epochs": EPOCHS}
    return BertFocalClassifier(
        fetch_minilm(), pooling="head", random_state=seed, **settings | params
    )


def main():
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peak", help="measure only the memory, of this way")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    if args.peak:
        peak(args.peak)
        return
    configurations = {key: functools.partial(make, **value) for key, value in QUALITY.items()}
    rows = run(
        configurations, results=DOCS / "adapters.jsonl", data="r8", seeds=range(args.seeds),
        part=PART,
    )  # fmt: skip
    write_block(
        DOCS / "adapters.md",
        "Gradient checkpointing and adapters",
        f"An encoder as large as BERT-base, {BATCH} documents of {LENGTH} tokens, float32, one of "
        f"2 CPU cores. Time: median and range of {args.repeats} updates, taken in turns.\n\n"
        + costs(args.repeats)
        + f"\n\nMiniLM on R8, {PART} random training documents, cross-entropy, {EPOCHS} epochs, "
        "64 tokens, published test split, mean ± standard deviation over the seeds.\n\n"
        + table(configurations, rows),
    )


if __name__ == "__main__":
    main()
