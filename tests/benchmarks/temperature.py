"""How many documents a temperature needs: with a prior, and without one.

    OMP_NUM_THREADS=1 python tests/benchmarks/temperature.py --keep FOLDER --paths ohsumed=FILE

Takes the trainings of heads.py, or makes them: twelve minutes a seed on one core. Random documents
of the test split fit the temperature; the rest is scored. Writes docs/benchmarks/temperature.md.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
from sklearn.metrics import f1_score, log_loss

import corpora
import heads
from common import DOCS, write_block
from skfocal import calibration, expected_calibration_error
from skfocal._estimator.refit import fit_linear
from skfocal.balance import class_weight
from skfocal.calibration import Calibration
from skfocal.losses import CrossEntropyLoss

TRAINING, POOLING = "focal, balanced", "mean"
CORPORA = ("r8", "r52", "ohsumed", "20ng-lt")
HELD_OUT = (50, 100, 200, 500)
DRAWS = 20


def refitted(kept):
    """Return the calibration after the second fit, the test documents' logits and codes."""
    classes, features = kept["classes"], kept["F"].astype(np.float32)
    codes, tested = (np.searchsorted(classes, kept[name]) for name in ("y", "yt"))
    weight = class_weight("balanced", classes, np.bincount(codes, minlength=len(classes)))
    weights, biases = fit_linear(features, codes, np.ones(len(codes)), weight)
    logits = kept["Ft"].astype(np.float32) @ weights.T + biases
    ones, loss = np.ones_like(weight), CrossEntropyLoss(weight=weight)
    return Calibration(loss, np.arange(len(classes)), weight, ones), logits, tested


def scores(plain, logits, codes):
    """Return macro-F1, log-loss and ECE."""
    answers = plain.answers(logits)
    proba = answers.predict_proba()
    return (
        100 * f1_score(codes, answers.predict(), average="macro"),
        log_loss(codes, proba, labels=plain.classes),
        100 * expected_calibration_error(codes, proba, classes=plain.classes),
    )


def draws_of(plain, logits, codes, n):
    """Return the scores of each draw, of shape (DRAWS, 3)."""
    found = []
    for draw in range(DRAWS):
        rows = np.random.RandomState(draw).permutation(len(codes))
        held_out, rest = rows[:n], rows[n:]
        temperature = plain.fit_temperature(logits[held_out], codes[held_out], np.ones(n))
        found.append(scores(replace(plain, temperature=temperature), logits[rest], codes[rest]))
    return np.array(found)


def lines_of(title, plain, logits, codes):
    """Return the rows of the table for one training."""
    natural = replace(plain, proba="natural")
    f1, loss, error = scores(plain, logits, codes)
    lines = [f'| {title} | `"softmax"` | none | | {f1:.1f} | {loss:.3f} | {error:.1f} |']
    f1, loss, error = scores(natural, logits, codes)
    lines.append(f'| | `"natural"` | none | | {f1:.1f} | {loss:.3f} | {error:.1f} |')
    flat = mock.patch.object(calibration, "_TEMPERATURE_SPREAD", 1e6)
    for n in HELD_OUT:
        with flat:
            found = [('`"softmax"`', "without prior", draws_of(plain, logits, codes, n))]
        found.append(('`"softmax"`', "with prior", draws_of(plain, logits, codes, n)))
        found.append(('`"natural"`', "with prior", draws_of(natural, logits, codes, n)))
        for proba, prior, (f1, loss, error) in ((*x[:2], x[2].T) for x in found):
            spread = f"{error.mean():.1f} (at most {error.max():.1f})"
            lines.append(
                f"| | {proba} | {prior} | {n} | {f1.mean():.1f} | {loss.mean():.3f} | {spread} |"
            )
    return lines


def main():
    """Train what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpora", nargs="+", default=CORPORA, choices=CORPORA)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--paths", nargs="+", default=[], type=corpora.named_path, metavar="CORPUS=PATH"
    )
    parser.add_argument("--keep", type=Path, required=True, help="folder of heads.py")
    options = parser.parse_args()
    options.keep.mkdir(parents=True, exist_ok=True)
    lines = [
        "| corpus | `proba` | temperature | held out | macro-F1 % | log-loss | ECE % |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for data in options.corpora:
        training = (data, POOLING, TRAINING, options.seed)
        file = heads.file_of(options.keep, *training)
        if not file.exists():
            heads.train(*training, dict(options.paths), "float32", file)
        plain, logits, codes = refitted(dict(np.load(file, allow_pickle=True)))
        title = f"{corpora.TITLES[data]}, {heads.DOCUMENTS[data]} documents"
        lines += lines_of(title, plain, logits, codes)
        print(data, flush=True)
    write_block(
        DOCS / "temperature.md",
        "How many documents a temperature needs",
        'MiniLM, 64 tokens, `alpha="balanced"`, `refit_head="balanced"`, otherwise the defaults; '
        f"seed {options.seed}. The temperature is fitted to random documents of the published "
        f"test split, the rest of it is scored: means over {DRAWS} draws, and the largest ECE.\n\n"
        + "\n".join(lines),
    )


if __name__ == "__main__":
    main()
