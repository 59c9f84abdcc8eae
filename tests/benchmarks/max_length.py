"""What a long document costs: time and memory of an update of an encoder like ModernBERT-base.

    OMP_NUM_THREADS=2 python tests/benchmarks/max_length.py

The weights are random, since neither time nor memory depends on them. Each length runs in a process
of its own. Writes the table of docs/benchmarks/max-length.md.
"""

import json
import resource
import subprocess
import sys
import time

import torch
from transformers import ModernBertConfig, ModernBertForSequenceClassification

from common import DOCS, device_name, write_block

LENGTHS = (128, 512, 1024, 2048, 4096)  # about 20 GB for the next, by its growth


def measure(length):
    """Return seconds and gigabytes of an update with one document."""
    torch.manual_seed(0)
    encoder = ModernBertForSequenceClassification(ModernBertConfig()).train()
    optimizer = torch.optim.AdamW(encoder.parameters(), fused=True)
    ids = torch.randint(1000, 50_000, (1, length))
    seconds = []
    for _ in range(2):  # the first one allocates
        start = time.perf_counter()
        encoder(input_ids=ids, labels=torch.tensor([1])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"length": length, "seconds": seconds[-1], "gigabytes": peak}


def main():
    """Measure each length in a new process and write the table."""
    rows = []
    for length in LENGTHS:
        command = [sys.executable, __file__, str(length)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            rows.append(f"| {length} | out of memory | |")
            continue
        row = json.loads(done.stdout)
        rows.append(f"| {length} | {row['seconds']:.1f} | {row['gigabytes']:.1f} |")
        print(rows[-1], flush=True)
    write_block(
        DOCS / "max-length.md",
        "What a long document costs",
        "One update with a single document, an encoder of ModernBERT-base's size (149 million "
        f"parameters) in float32, with AdamW, on {device_name()}.\n\n"
        "| tokens | seconds | peak memory, GB |\n|---:|---:|---:|\n" + "\n".join(rows),
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(int(sys.argv[1]))))
    else:
        main()
