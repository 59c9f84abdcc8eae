"""What each technique adds to the speed of a step, and how close the step is to the limit.

python tests/benchmarks/ways.py            # a quarter of an hour on two cores

The steps loop over batches of R52 sorted by length, each padded to its longest document. All ways
take turns on the same batches. The limit is the rate at which the machine multiplies matrices of
the model's shapes, without padding or any other work.
"""

import argparse
import contextlib
import functools
import time
import warnings
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForSequenceClassification
from transformers.utils import logging

from common import DOCS, device_name, write_block
from skfocal import fetch_minilm, fetch_reuters
from skfocal._data.batches import Collator, TokenDataset, sorted_batches
from skfocal._data.tokenization import TruncationSpec
from skfocal._data.tokens import tokenize
from skfocal._encoder import fast_dropout
from skfocal._encoder.dropout import set_attention_dropout, set_dropout
from skfocal._encoder.fast_dropout import FastDropout
from skfocal._encoder.float32_attention import Float32Attention
from skfocal._encoder.module import EncoderClassifier
from skfocal._encoder.pooled import with_pooling
from skfocal._encoder.pretrained import load_tokenizer
from skfocal._encoder.quantization import reduced_copy
from skfocal._runtime.allocator import kept_memory

BATCH = 16
MEAN = "no dropout, mean of the tokens"
DEFAULTS = f"{MEAN}, bfloat16"
ALL_HALF = f"{DEFAULTS} in attention, too"


class Data:
    """Documents of R52 as batches of tensors."""

    def __init__(self, n_documents, max_length):
        X, y = fetch_reuters("r52", subset="train", return_X_y=True)
        rows = np.random.RandomState(0).permutation(len(X))[:n_documents]
        tokenizer = load_tokenizer(fetch_minilm())
        self.tokens = tokenize(tokenizer, [X[i] for i in rows], TruncationSpec(max_length))
        self.codes = np.unique(y, return_inverse=True)[1][rows]
        self.n_classes = len(np.unique(y))
        self.pad_id = tokenizer.pad_token_id

    def batches(self, batch_size=BATCH, n_tokens=None):
        """Return padded batches in random order."""
        dataset, collate = TokenDataset(self.tokens, self.codes), Collator(self.pad_id)
        rows = sorted_batches(self.tokens.lengths, batch_size, n_tokens)
        order = np.random.RandomState(1).permutation(len(rows))
        return [collate(dataset.__getitems__(rows[i])) for i in order]


def build(data, first_token=True, dropout=None, attention=None, mean=False):
    """Return MiniLM with a new head: its own, or one on the mean of the tokens."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(
        fetch_minilm(), num_labels=data.n_classes
    )
    if dropout is not None:
        set_dropout(model, dropout)
    if attention is not None:
        set_attention_dropout(model, attention)
    module = EncoderClassifier(with_pooling(model, "mean") if mean else model)
    if not first_token:
        module.extra = {}
    return module


# -- training ------------------------------------------------------------------------------


class Training:
    """One way to train: an epoch over the same batches."""

    def __init__(
        self, data, *, memory=True, fused=True, first_token=True, fast=True, bits=False,
        rows=False, fused_residual=False, micro=None, budget=None, threads=None, half=False,
        half_attention=False, compile=False, dropout=None, attention=None, mean=False,
    ):  # fmt: skip
        self.batches = data.batches(budget is None and BATCH, budget)
        self.threads = threads or torch.get_num_threads()
        self.module = build(data, first_token, dropout, attention, mean).train()
        if rows:
            self._leave_out_rows()
        if fused_residual:
            _fuse_residuals(self.module)
        self.micro = micro
        self.half = half
        widens = half and not half_attention
        self.attention = Float32Attention if widens else contextlib.nullcontext
        self.memory = kept_memory if memory else contextlib.nullcontext
        self.fast = FastDropout if fast and dropout != 0 else contextlib.nullcontext
        self.masks = _by_bits if bits else fast_dropout._dropout
        kind = {"fused": True} if fused else {"foreach": fused is None}
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=2e-4, **kind)
        self.step = torch.compile(self.module, dynamic=True) if compile else self.module

    def _leave_out_rows(self):
        """Keep only the embeddings of tokens that occur; AdamW moves the others by decay alone."""
        embeddings = self.module.model.base_model.embeddings
        table = embeddings.word_embeddings
        present = torch.cat([x["input_ids"].flatten() for x, _ in self.batches]).unique()
        place = torch.zeros(table.num_embeddings, dtype=torch.int64)
        place[present] = torch.arange(len(present))
        padding = int(place[table.padding_idx])
        few = nn.Embedding(len(present), table.embedding_dim, padding_idx=padding)
        few.weight.data.copy_(table.weight.data[present])
        embeddings.word_embeddings = few
        self.batches = [({**x, "input_ids": place[x["input_ids"]]}, y) for x, y in self.batches]

    def __call__(self):
        """Train one epoch; return documents per second."""
        usual = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        short = {**FastDropout._SHORT, F.dropout: self.masks}
        with self.memory(), self.fast(), mock.patch.object(FastDropout, "_SHORT", short):
            start = time.perf_counter()
            for batch in self.batches:
                for x, y in self._parts(*batch):
                    autocast = torch.autocast("cpu", torch.bfloat16, enabled=self.half)
                    with autocast, self.attention():
                        logits = self.step(x["input_ids"], x["attention_mask"])
                    (F.cross_entropy(logits.float(), y) * len(y) / len(batch[1])).backward()
                self.optimizer.step()
                self.optimizer.zero_grad()
            seconds = time.perf_counter() - start
        torch.set_num_threads(usual)
        return sum(len(y) for _, y in self.batches) / seconds

    def _parts(self, x, y):
        size = len(y) if self.micro is None else max(self.micro // x["input_ids"].shape[1], 1)
        for i in range(0, len(y), size):
            yield {name: value[i : i + size] for name, value in x.items()}, y[i : i + size]


class _Bits(torch.autograd.Function):
    """Dropout by comparing 16 random bits per element with a threshold."""

    @staticmethod
    def forward(ctx, x, p):
        drawn = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        keep = drawn.view(torch.int16)[: x.numel()].view(x.shape) >= round(p * 65536) - 32768
        ctx.save_for_backward(keep)
        ctx.scale = 1 / (1 - p)
        return (x * keep).mul_(ctx.scale)

    @staticmethod
    def backward(ctx, gradient):
        return (gradient * ctx.saved_tensors[0]).mul_(ctx.scale), None


def _by_bits(input, p=0.5, training=True, inplace=False):
    return _Bits.apply(input, p) if training and p else input


class _AddDropped(torch.autograd.Function):
    """``residual + dropout(x)`` in one pass over both, dropout by gaps."""

    @staticmethod
    def forward(ctx, x, residual, p):
        positions = fast_dropout.dropped_positions(x.numel(), p)
        ctx.save_for_backward(positions)
        ctx.p = p
        result = torch.add(residual, x, alpha=1 / (1 - p))
        result.view(-1)[positions] = residual.reshape(-1)[positions]
        return result

    @staticmethod
    def backward(ctx, gradient):
        (positions,) = ctx.saved_tensors
        return fast_dropout._drop(gradient, positions, ctx.p), gradient, None


def _fuse_residuals(module):
    """Let the layers of a BERT add the residual and drop in one operation."""
    for part in module.modules():
        if type(part).__name__ in ("BertSelfOutput", "BertOutput"):
            part.forward = functools.partial(_output_and_residual, part)


def _output_and_residual(part, hidden_states, input_tensor):
    hidden_states = part.dense(hidden_states)
    return part.LayerNorm(_AddDropped.apply(hidden_states, input_tensor, part.dropout.p))


def trainings(data, compile, only):
    """Return the ways to train by name: first those in use, each on top of the ones before."""
    bare = {"memory": False, "fused": False, "first_token": False, "fast": False}
    ways = {
        "bare loop": bare,
        "+ the allocator keeps its memory": {**bare, "memory": True},
        "+ fused AdamW": {**bare, "memory": True, "fused": True},
        "+ last layer for the first token": {"fast": False},
        "+ dropout by gaps": {},
        "+ no attention dropout": {"attention": 0.0},
        "+ no dropout": {"dropout": 0.0},
        "dropout by 16 random bits instead of gaps": {"bits": True},
        "dropout by gaps, fused with the residual add": {"fused_residual": True},
        "no dropout, plain AdamW": {"dropout": 0.0, "fused": False},
        "no dropout, foreach AdamW": {"dropout": 0.0, "fused": None},
        "no dropout, without the rows of absent tokens": {"dropout": 0.0, "rows": True},
        "no dropout, batches in parts of 2048 tokens": {"dropout": 0.0, "micro": 2048},
        "no dropout, batches of 2048 tokens": {"dropout": 0.0, "budget": 2048},
        "no dropout, one thread": {"dropout": 0.0, "threads": 1},
        "no dropout, bfloat16": {"dropout": 0.0, "half": True},
        MEAN: {"dropout": 0.0, "mean": True},
        DEFAULTS: {"dropout": 0.0, "mean": True, "half": True},
        ALL_HALF: {"dropout": 0.0, "mean": True, "half": True, "half_attention": True},
    }
    if compile:
        ways["no dropout, torch.compile"] = {"dropout": 0.0, "compile": True}
    chosen = {name: ways[name] for name in only or ways}
    return {name: Training(data, **settings) for name, settings in chosen.items()}


# -- prediction ----------------------------------------------------------------------------


class Prediction:
    """One way to predict the same documents."""

    def __init__(
        self, data, *, memory=True, first_token=True, size=None, precision="float32", half=False,
        mean=False, documents=4 * BATCH,
    ):  # fmt: skip
        by_count = {"batch_size": documents} if size is None else {"batch_size": None}
        self.batches = data.batches(**by_count, n_tokens=size)
        self.module = reduced_copy(build(data, first_token, mean=mean).eval(), precision)
        self.half = half
        self.memory = kept_memory if memory else contextlib.nullcontext

    def __call__(self):
        """Predict; return documents per second."""
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=self.half)
        with self.memory(), torch.inference_mode(), autocast:
            start = time.perf_counter()
            for x, _ in self.batches:
                self.module(x["input_ids"], x["attention_mask"])
            seconds = time.perf_counter() - start
        return sum(len(y) for _, y in self.batches) / seconds


def predictions(data):
    """Return the ways to predict by name."""
    bare = {"memory": False, "first_token": False}
    ways = {
        "bare loop, 64 documents": bare,
        "bare loop, 32 documents": {**bare, "documents": 2 * BATCH},
        "+ the allocator keeps its memory": {"first_token": False},
        "+ last layer for the first token": {},
        **{f"+ batches of {n} tokens": {"size": n} for n in (512, 1024, 2048, 4096, 8192)},
        "2048 tokens, bfloat16": {"size": 2048, "precision": "bfloat16"},
        "2048 tokens, int8": {"size": 2048, "precision": "int8"},
        "1024 tokens, mean": {"size": 1024, "mean": True},
        "1024 tokens, mean, autocast to bfloat16": {"size": 1024, "mean": True, "half": True},
        "2048 tokens, mean, autocast to bfloat16": {"size": 2048, "mean": True, "half": True},
    }
    return {name: Prediction(data, **settings) for name, settings in ways.items()}


# -- the limit -----------------------------------------------------------------------------


def matmul_rate(width, rows=1024, repeats=30):
    """Return the highest rate of floating-point operations over the shapes of the layers."""
    best = 0.0
    for n, m in ((width, width), (width, 4 * width), (4 * width, width)):
        a, b = torch.randn(rows, n), torch.randn(n, m)
        for _ in range(repeats):
            start = time.perf_counter()
            a @ b
            best = max(best, 2 * rows * n * m / (time.perf_counter() - start))
    return best


def operations(data, module):
    """Return the floating-point operations of one forward pass without padding."""
    config = module.model.config
    width, inner, depth = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    lengths = data.tokens.lengths.astype(float)
    each_token = 2 * (4 * width * width + 2 * width * inner)
    return depth * float((lengths * each_token + 4 * lengths**2 * width).sum())


def limits(data):
    """Return the limits of training and prediction in documents/s, and the rate behind them."""
    module = build(data)
    rate = matmul_rate(module.model.config.hidden_size)
    forward = operations(data, module)
    return len(data.codes) * rate / (3 * forward), len(data.codes) * rate / forward, rate


def profile_step(training):
    """Return the Markdown table of where the time of an epoch goes."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        training()
    events = sorted(profiler.key_averages(), key=lambda e: -e.self_cpu_time_total)
    total = sum(e.self_cpu_time_total for e in events)
    lines = ["| operation | share of the time | calls |", "|---|---:|---:|"]
    for event in events[:9]:
        share = event.self_cpu_time_total / total
        lines.append(f"| `{event.key}` | {100 * share:.1f} % | {event.count} |")
    return "\n".join(lines)


# -- turns and table -----------------------------------------------------------------------


def take_turns(ways, repeats):
    """Run all ways in turn; return documents per second, of shape (n_repeats, n_ways)."""
    for way in ways.values():
        way()
    found = np.zeros((repeats, len(ways)))
    for turn in range(repeats):
        for i in np.roll(np.arange(len(ways)), -turn):  # each turn starts with another
            found[turn, i] = list(ways.values())[i]()
        print(turn, dict(zip(ways, found[turn].round(1).tolist(), strict=True)), flush=True)
    return found


def table(names, found, limit):
    """Return the Markdown table of medians and of the ratios within a turn."""
    ratios = found / found[:, :1]
    lines = ["| | documents/s | × bare loop | from – to | of the limit |"]
    lines.append("|---|---:|---:|---:|---:|")
    for name, speed, ratio in zip(names, found.T, ratios.T, strict=True):
        middle = np.median(speed)
        lines.append(
            f"| {name} | {middle:.1f} | {np.median(ratio):.2f} | {ratio.min():.2f} – "
            f"{ratio.max():.2f} | {100 * middle / limit:.0f} % |"
        )
    return "\n".join(lines)


def main():
    """Let the ways take turns and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=128)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="docs/benchmarks/ways.md")
    parser.add_argument("--compile", action="store_true", help="also torch.compile; needs gcc")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="ways to train; writes nothing")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    data = Data(options.documents, options.max_length)
    train_limit, predict_limit, rate = limits(data)
    training = trainings(data, options.compile, options.only)
    trained = take_turns(training, options.repeats)
    if options.only:
        print(table(training, trained, train_limit))
        return
    where = {
        "in the bare loop": "bare loop",
        "with all techniques and without dropout": "+ no dropout",
        "with the mean of the tokens": MEAN,
        "with the defaults, in bfloat16": DEFAULTS,
        "with attention in bfloat16, too": ALL_HALF,
    }
    profiles = [
        f"## Where the time goes {title}\n\n{profile_step(training[name])}"
        for title, name in where.items()
    ]
    prediction = predictions(data)
    predicted = take_turns(prediction, options.repeats)
    block = (
        f"{options.documents} documents of R52, MiniLM, `max_length={options.max_length}`, "
        f"{data.tokens.lengths.sum():,} tokens, float32 unless the row says otherwise; "
        f"{torch.get_num_threads()} threads on {device_name()}; torch {torch.__version__}; "
        f"{options.repeats} turns. The machine multiplies matrices of the model's shapes at "
        f"{rate / 1e9:.0f} GFLOP/s. Without padding or any other work that would be "
        f"{train_limit:.1f} documents/s in training and {predict_limit:.1f} in prediction.\n\n"
        f"## Training, batches of {BATCH}\n\n{table(training, trained, train_limit)}\n\n"
        f"## Prediction\n\n{table(prediction, predicted, predict_limit)}\n\n"
        + "\n\n".join(profiles)
    )
    print(block)
    if options.write:
        write_block(DOCS / "ways.md", "What each technique adds", block)


if __name__ == "__main__":
    main()
