"""How much focal loss, class weights and samplers gain on Reuters R52 and R8, over seeds.

    python tests/benchmarks/quality.py                    # R52, three seeds: the main table
    python tests/benchmarks/quality.py --data r8 --only cross-entropy --setting long
    python tests/benchmarks/quality.py --documents 3000 --losses   # every loss, on fewer documents

Writes docs/benchmarks/quality-<data>-<setting>[-<documents>].jsonl and .md.
"""

import argparse
from functools import partial

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from common import DOCS, device_name, run, table
from skfocal import BertFocalClassifier, EffectiveNumber, fetch_minilm
from skfocal._runtime.devices import cpu_has_bfloat16

# Chosen so that two cores can afford 18 fits; docs/benchmarks/defaults.md has the alternatives.
SETTINGS = {
    "short": {"max_length": 64, "freeze": 3, "lr": 5e-4, "max_epochs": 3},
    "long": {"max_length": 128, "freeze": 3, "lr": 5e-4, "max_epochs": 5},
    "default": {},
}
LOSSES = {
    "cross-entropy": {"loss": "cross_entropy"},
    "weighted cross-entropy": {"loss": "cross_entropy", "alpha": "balanced"},
    "focal": {"loss": "focal", "gamma": 2.0},
    "focal + balanced alpha": {"loss": "focal", "gamma": 2.0, "alpha": "balanced"},
    "balanced sampler": {"loss": "cross_entropy", "sampler": "balanced"},
    "sqrt sampler": {"loss": "cross_entropy", "sampler": "sqrt"},
}
# With what the encoder was trained with in place of BERT's head.
MEAN = {"pooling": "mean", "loss": "cross_entropy", "precision": "float32"}
POOLED = {
    "mean, cross-entropy, refit": {**MEAN, "refit_head": "balanced"},
    "mean, sqrt sampler": {**MEAN, "sampler": "sqrt"},
    "mean, sqrt sampler, refit": {**MEAN, "sampler": "sqrt", "refit_head": "balanced"},
}
OTHERS = {
    "focal, effective alpha": {"loss": "focal", "alpha": "effective"},
    "focal, label smoothing 0.1": {"loss": "focal", "label_smoothing": 0.1},
    "Poly-1": {"loss": "poly1"},
    "Poly-1 focal": {"loss": "poly1_focal"},
    "logit-adjusted, tau 0.5": {"loss": "logit_adjusted", "loss_params": {"tau": 0.5}},
    "balanced softmax": {"loss": "balanced_softmax"},
    "LDAM": {"loss": "ldam"},
    "LDAM, deferred weights": {
        "loss": "ldam",
        "alpha": EffectiveNumber(beta=0.9999),
        "defer": 0.67,
    },
    "dice, balanced alpha": {"loss": "dice", "alpha": "balanced"},
}


def linear(class_weight, seed):
    """Return the baseline that needs no encoder."""
    return make_pipeline(
        TfidfVectorizer(sublinear_tf=True), LinearSVC(class_weight=class_weight, random_state=seed)
    )


def encoder(settings, seed):
    """Return a classifier on MiniLM."""
    precision = "bfloat16" if cpu_has_bfloat16() else "auto"
    settings = {"pooling": "head", "precision": precision, **settings}
    return BertFocalClassifier(fetch_minilm(), random_state=seed, **settings)


def main():
    """Run the benchmark and write its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="r52", choices=["r8", "r52"])
    parser.add_argument("--setting", default="short", choices=list(SETTINGS))
    parser.add_argument("--documents", type=int, help="number of random ones; all by default")
    parser.add_argument("--losses", action="store_true", help="run the other losses, too")
    parser.add_argument("--only", nargs="+", help="names of the rows to run")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="processes; 1 on a GPU")
    options = parser.parse_args()

    setting = SETTINGS[options.setting]
    losses = LOSSES | POOLED | (OTHERS if options.losses else {})
    configurations = {
        "TF-IDF + LinearSVC": partial(linear, None),
        "TF-IDF + LinearSVC, balanced": partial(linear, "balanced"),
        **{name: partial(encoder, {**setting, **loss}) for name, loss in losses.items()},
    }
    wanted = options.only or list(configurations)
    part = f"-{options.documents}" if options.documents else ""
    stem = DOCS / f"quality-{options.data}-{options.setting}{part}.md"
    rows = run(
        {name: configurations[name] for name in wanted},
        results=stem.with_suffix(".jsonl"),
        data=options.data,
        seeds=options.seeds,
        part=options.documents,
        jobs=options.jobs,
    )
    shown = ", ".join(f"`{key}={value}`" for key, value in setting.items()) or "all defaults"
    stem.with_suffix(".md").write_text(
        f"# Reuters {options.data.upper()}, MiniLM: {shown}\n\n"
        + (f"{options.documents} random training documents. " if options.documents else "")
        + f"Mean ± standard deviation over seeds, published test split, {device_name()}, "
        f"{options.jobs} fits at a time. (5+): classes with at least 5 test documents. ECE: 15 "
        "bins of equal width.\n\n" + table(configurations, rows) + "\n"
    )


if __name__ == "__main__":
    main()
