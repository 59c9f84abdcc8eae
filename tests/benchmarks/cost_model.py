"""What a number of documents costs: arithmetic on a few measured and a few assumed numbers.

``python tests/benchmarks/cost_model.py`` writes the tables of docs/scaling-out.md. Change what is
assumed to what you pay and measure.
"""

from dataclasses import dataclass

from common import DOCS, write_block

TOKENS = 114  # of a document: the mean of Reuters R52, cut to 256
TOKENISE = 2.8e-6  # core-seconds a token; scale.md: 127 to 170 us for documents of 53
UTILISATION = 0.3  # of a GPU's peak; speed.md: 0.68 in training and 0.77 in prediction on a CPU
BACKWARD = 2 / 3  # of a training step, beside which gradients are exchanged
OVERLAP = 0.8  # of the backward pass: the first layer's gradient comes last
BATCH = 32  # documents of each process in a training step


@dataclass(frozen=True)
class Encoder:
    """An encoder's size.

    Attributes
    ----------
    layers, width : int
        Of the transformer.
    parameters : int
        All, embeddings included: so many gradients are exchanged.
    """

    layers: int
    width: int
    parameters: int

    def operations(self, length):
        """Return floating-point operations a token in the forward pass: products and attention."""
        return self.layers * (2 * 12 * self.width**2 + 4 * length * self.width)


@dataclass(frozen=True)
class Device:
    """A device and what is assumed of it.

    Attributes
    ----------
    peak : float
        Operations a second in bfloat16, dense, as its maker says.
    cores : int
        Of the host, for its tokenizer.
    price : float
        Dollars an hour, with the cores.
    """

    peak: float
    cores: int
    price: float


ENCODERS = {
    "MiniLM (6 layers)": Encoder(6, 384, 22_700_000),
    "BERT-base": Encoder(12, 768, 109_500_000),
    "XLM-R-large": Encoder(24, 1024, 559_900_000),
}
DEVICES = {"L4": Device(121e12, 8, 0.8), "H100": Device(989e12, 16, 3.0)}
# Bytes a second, and batches in an update.
LINKS = {
    "NVLink, 200 GB/s": (200e9, 1),
    "network, 10 GB/s": (10e9, 1),
    "network, `accumulate=8`": (10e9, 8),
}


def prediction_seconds(encoder, device):
    """Return the seconds of a document: the tokenizer's, and then the device's."""
    computing = TOKENS * encoder.operations(TOKENS) / (UTILISATION * device.peak)
    return TOKENS * TOKENISE / device.cores, computing


def training_seconds(encoder, device):
    """Return the seconds of one process's part of a step; its forward pass is a third."""
    return 3 * BATCH * TOKENS * encoder.operations(TOKENS) / (UTILISATION * device.peak)


def efficiency(encoder, seconds, n_processes, bandwidth, accumulate):
    """Return the throughput of so many processes as a part of so many times that of one.

    A ring sends each gradient, of 4 bytes, twice but for one part of it; what the last backward
    pass of the update does not cover comes on top.
    """
    exchange = 2 * (n_processes - 1) / n_processes * 4 * encoder.parameters / bandwidth
    update = accumulate * seconds
    return update / (update + max(exchange - OVERLAP * BACKWARD * seconds, 0))


def prediction_table():
    """Return the table of predictions."""
    lines = [
        f"Prediction, documents of {TOKENS} tokens, {UTILISATION:.0%} of the peak; "
        + ", ".join(f"{n}: ${d.price}/h with {d.cores} cores" for n, d in DEVICES.items())
        + ".",
        "",
        "| encoder | device | tokenise, µs | compute, µs | documents/s | dollars for a billion "
        "| days for a billion on 8 |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for name, encoder in ENCODERS.items():
        for kind, device in DEVICES.items():
            tokenising, computing = prediction_seconds(encoder, device)
            seconds = tokenising + computing
            lines.append(
                f"| {name} | {kind} | {tokenising * 1e6:.0f} | {computing * 1e6:.0f} "
                f"| {1 / seconds:,.0f} | {1e9 * seconds / 3600 * device.price:,.0f} "
                f"| {1e9 * seconds / 8 / 86400:.2f} |"
            )
    return lines


def training_table():
    """Return the table of training."""
    device = DEVICES["H100"]
    counts = [2, 8, 64]
    lines = [
        f"Training on H100s, {BATCH} documents in each one's batch: the throughput as a part of "
        "as many times that of one.",
        "",
        "| encoder | documents/s on one | hours for an epoch of 10 million on 8 | link | "
        + " | ".join(f"{n} processes" for n in counts)
        + " |",
        "|---|---:|---:|---|" + "---:|" * len(counts),
    ]
    for name, encoder in ENCODERS.items():
        seconds = training_seconds(encoder, device)
        for link, of_link in LINKS.items():
            parts = [efficiency(encoder, seconds, n, *of_link) for n in counts]
            hours = 1e7 * seconds / BATCH / 8 / parts[1] / 3600
            cells = " | ".join(f"{part:.0%}" for part in parts)
            lines.append(f"| {name} | {BATCH / seconds:,.0f} | {hours:.2f} | {link} | {cells} |")
    return lines


if __name__ == "__main__":
    page = DOCS.parent / "scaling-out.md"
    write_block(page, "Scaling out", "\n".join([*prediction_table(), "", *training_table()]))
