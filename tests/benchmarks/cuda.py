"""One epoch of BERT-base on CUDA: skfocal beside skorch's recipe and Trainer, in turn.

    python tests/benchmarks/cuda.py --write          # R52, and 20 Newsgroups at 512 tokens
    python tests/benchmarks/cuda.py --device cpu --small --documents 32 --repeats 1   # a trial

BERT-base has random weights here, because speed does not depend on them. All contenders get the
same documents, batch sizes, learning rate and schedule. skorch's recipe computes in float32, as it
is published; the others use bfloat16. Utilisation compares the floating-point operations of the
model without padding (for a training step three times those of the forward pass) with the
device's rate for dense bfloat16.
Needs skorch, datasets and accelerate in addition to skfocal's own packages. Writes
docs/benchmarks/cuda.md.
"""

import argparse
import json
import tempfile
import time
import warnings
from types import SimpleNamespace

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoTokenizer, BertConfig, BertModel
from transformers.utils import logging

import contenders
from common import DOCS, device_name, write_block
from skfocal import clear_cache, fetch_20newsgroups_cachopo, fetch_minilm, fetch_reuters

NAMES = (
    "skorch recipe",
    "Trainer",
    "Trainer, grouped by length",
    "skfocal, BERT's dropout",
    "skfocal",
)
# Operations per second in dense bfloat16, according to the makers' data sheets.
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L4": 121e12, "T4": 65e12}
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
}


def make_encoder(folder, small):
    """Save a BERT of base size, or a small one, with random weights and MiniLM's tokenizer."""
    torch.manual_seed(0)
    BertModel(BertConfig(**(SMALL if small else {}))).save_pretrained(folder)
    AutoTokenizer.from_pretrained(fetch_minilm(), model_max_length=512).save_pretrained(folder)
    return folder


def documents(data, n):
    """Return `n` training documents and their labels."""
    if data == "r52":
        X, y = fetch_reuters("r52", subset="train", return_X_y=True)
    else:
        X, y = fetch_20newsgroups_cachopo(subset="train", return_X_y=True)
    rows = np.random.RandomState(0).permutation(len(X))[:n]
    return [X[i] for i in rows], np.asarray(y)[rows].tolist()


def operations(texts, folder, max_length):
    """Return the floating-point operations of a forward pass over all texts, without padding."""
    config = BertConfig.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]
    lengths = np.array(list(map(len, ids)), float)
    width, inner = config.hidden_size, config.intermediate_size
    each_token = 2 * (4 * width * width + 2 * width * inner)
    return config.num_hidden_layers * float((lengths * each_token + 4 * lengths**2 * width).sum())


def time_fit(contender, texts, labels, seed):
    """Return the seconds of a fit and the device's peak memory in MiB."""
    contender.forget()
    contenders.seed_all(seed)
    clear_cache()
    cuda = contender.settings.device == "cuda"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    contender.fit(texts, labels, seed)
    if cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    return seconds, torch.cuda.max_memory_allocated() / 2**20 if cuda else float("nan")


def count_waits(contender, texts, labels, n_updates):
    """Return how often per update the host waits for the device in a fit, by kind of wait."""
    contender.forget()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        contender.fit(texts, labels, 0)
    events = {event.key: event.count for event in profiler.key_averages()}
    return {name: round(events.get(name, 0) / n_updates, 3) for name in WAITS}


def compare(data, folder, options):
    """Let the contenders take turns; return a result per fit, and the waits of skfocal."""
    texts, labels = documents(data, options.documents)
    settings = {
        "model": folder, "max_length": 512, "epochs": 1, "batch_size": 32, "lr": 5e-5,
        "predict_batch_size": 128, "weight_decay": 0.01, "warmup": 0.1, "clip": 1.0,
        "device": options.device,
    }  # fmt: skip
    running = {}
    for name in NAMES:
        running[name] = contenders.CONTENDERS[name]()
        precision = "float32" if name == "skorch recipe" else "bfloat16"
        running[name].settings = SimpleNamespace(**settings, precision=precision)
        running[name].prepare()
        running[name].fit(texts[:64], labels[:64], 0)  # chooses and loads kernels
    forward = operations(texts, folder, settings["max_length"])
    results = []
    for repeat in range(options.repeats):
        for i in np.roll(np.arange(len(NAMES)), -repeat):
            name = NAMES[i]
            seconds, peak = time_fit(running[name], texts, labels, repeat)
            row = {"data": data, "name": name, "repeat": repeat, "documents": len(texts)}
            row |= {"seconds": seconds, "peak_mib": peak, "flops": 3 * forward}
            print(json.dumps(row), flush=True)
            results.append(row)
    n_updates = running["skfocal"].n_updates(len(texts))
    return results, count_waits(running["skfocal"], texts, labels, n_updates)


def table(results, peak):
    """Return the Markdown table of one data set."""
    lines = [
        "| | documents/s | skfocal is times as fast | utilisation | peak MiB |",
        "|---|---:|---:|---:|---:|",
    ]
    seconds = {n: np.array([r["seconds"] for r in results if r["name"] == n]) for n in NAMES}
    for name in NAMES:
        rows = [row for row in results if row["name"] == name]
        ratio = seconds[name] / seconds["skfocal"]
        used = np.median([row["flops"] / row["seconds"] for row in rows]) / peak
        lines.append(
            f"| {name} | {np.median(rows[0]['documents'] / seconds[name]):.0f} | "
            f"{np.median(ratio):.2f} ({ratio.min():.2f}–{ratio.max():.2f}) | {100 * used:.0f} % | "
            f"{np.median([row['peak_mib'] for row in rows]):.0f} |"
        )
    return "\n".join(lines)


def main():
    """Measure, print, and with --write write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="a small encoder, for a trial")
    parser.add_argument("--data", nargs="+", default=["r52", "20ng"])
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    peak = next((rate for name, rate in PEAKS.items() if name in device_name()), float("nan"))
    parts = [
        f"BERT-base (random weights), batches of 32, one epoch of {options.documents} documents, "
        f"up to 512 tokens, from texts to a trained model; torch {torch.__version__} on "
        f"{device_name()}, {peak / 1e12:.0f} TFLOP/s. {options.repeats} turns: medians, with the "
        "range of the ratios in brackets. The goals: 3 times as fast as skorch's recipe and 1.3 "
        "times as Trainer with grouped lengths, a utilisation of 45 % on 20 Newsgroups, and no "
        "more memory than Trainer."
    ]
    with tempfile.TemporaryDirectory() as folder:
        make_encoder(folder, options.small)
        for data in options.data:
            results, waits = compare(data, folder, options)
            parts += [f"## {data}", table(results, peak)]
            parts.append(f"Waits of the host for the device, per update of skfocal: {waits}.")
    block = "\n\n".join(parts)
    print(block)
    if options.write:
        write_block(DOCS / "cuda.md", "Training on CUDA", block)


if __name__ == "__main__":
    main()
