"""Fits in two working trees, compared bit for bit; run as a script before and after a change.

    python tests/compare_trees.py OLD_TREE NEW_TREE [--only NAME ...]

Each tree fits every configuration in a process of its own that imports skfocal from there.
Compared are weights, history, predictions, what else a fit leaves, and what it has drawn from
global generators. Prints a table and exits with 1 if anything differs.

Configurations are written with the parameters of version 0.1.0.dev0. `translated` writes them
anew for a tree that has others.
"""

import argparse
import inspect
import math
import os
import pickle
import random
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

WORDS = {"spam": "win money prize cash now", "ham": "meeting lunch project report team"}
PARTS = ("weights", "history", "predictions", "attributes", "generators")


# -- data ------------------------------------------------------------------------------------


def write_encoder(folder):
    """Write a two-layer BERT of width 32 with a vocabulary of words and letters."""
    import torch
    from tokenizers.implementations import BertWordPieceTokenizer
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [mark + letter for letter in "abcdefghijklmnopqrstuvwxyz" for mark in ("", "##")]
    tokens = [*special, *letters, *" ".join(WORDS.values()).split()]
    backend = BertWordPieceTokenizer({token: i for i, token in enumerate(tokens)})
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    named = dict(zip(names, special, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=backend._tokenizer, **named).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.2,  # learns in two epochs
        id2label={0: "ham", 1: "spam"},
        label2id={"ham": 0, "spam": 1},
    )
    BertForSequenceClassification(config).save_pretrained(folder)


def documents(n=48):
    """Return texts of two classes, three of one to each of the other; some are long."""
    rng = np.random.RandomState(0)
    y = np.where(np.arange(n) % 4, "ham", "spam")
    lengths = np.where(np.arange(n) % 5, rng.randint(1, 12, n), rng.randint(12, 50, n))
    X = [" ".join(rng.choice(WORDS[c].split(), k)) for c, k in zip(y, lengths, strict=True)]
    return X, y


def three_classes():
    X, y = documents()
    return X, np.where(np.arange(len(y)) % 11 == 5, "other", y)


def pairs():
    X, y = documents()
    return [(text, text[::-1][:20]) for text in X], y


def several_labels():
    X, y = documents()
    columns = [y == "ham", y == "spam", [len(text) > 30 for text in X]]
    return X, np.column_stack(columns).astype(int)


# -- ways to a fitted classifier -------------------------------------------------------------


def fit(make, X, y, folder):
    return make().fit(X, y)


def fit_weighted(make, X, y, folder):
    return make().fit(X, y, sample_weight=np.arange(len(y)) % 3)


def fit_groups(make, X, y, folder):
    return make().fit(X, y, groups=np.arange(len(y)) // 3)


def fit_chunks(make, X, y, folder):
    """Go through a pickle between the chunks."""
    clf = make().partial_fit(X[:16], y[:16], classes=np.unique(y))
    clf = pickle.loads(pickle.dumps(clf.partial_fit(X[16:32], y[16:32])))
    return clf.partial_fit(X[32:], y[32:], sample_weight=np.arange(len(y[32:])) + 1.0)


def fit_chunks_of_labels(make, X, y, folder):
    clf = make().partial_fit(X[:24], y[:24], classes=["ham", "spam", "long"])
    return clf.partial_fit(X[24:], y[24:])


def fit_chunks_after_fit(make, X, y, folder):
    return make().fit(X[:24], y[:24]).partial_fit(X[24:], y[24:])


def fit_twice(make, X, y, folder):
    return make().fit(X[:24], y[:24]).set_params(gamma=1.0).fit(X, y)


def fit_and_quantise(make, X, y, folder):
    return make().fit(X, y).set_params(predict_precision="int8")


def fit_and_pickle(make, X, y, folder):
    return pickle.loads(pickle.dumps(make().fit(X, y)))


def fit_and_save(make, X, y, folder):
    """Go through a folder, and on from there."""
    make().fit(X[:24], y[:24]).save_pretrained(folder / "saved")
    clf = type(make()).from_pretrained(folder / "saved")
    return clf.partial_fit(X[24:], y[24:])


def fit_interrupted(make, X, y, folder):
    """Stop at an update, and count those that are left."""
    from skorch.callbacks import Callback

    class Stop(Exception):
        pass

    class Counter(Callback):
        limit, count = 8, 0

        def on_grad_computed(self, net, named_parameters, **kwargs):
            Counter.count += 1
            if Counter.count == Counter.limit:
                raise Stop

    def call():
        checkpoint = {"checkpoint": str(folder / "run"), "checkpoint_steps": 3}
        return make(callbacks=[Counter()], **checkpoint).fit(X, y)

    try:
        call()
    except Stop:
        Counter.limit, Counter.count = None, 0
    clf = call()
    clf.updates_after_the_interruption_ = Counter.count
    return clf


def fit_with_generator(make, X, y, folder):
    """Keep where the generator has come to."""
    rng = np.random.RandomState(5)
    clf = make(random_state=rng).fit(X, y)
    clf.drawn_after_the_fit_ = rng.randint(2**31)
    return clf


# -- configurations --------------------------------------------------------------------------


def draws(labels):
    """Sampler of a user's own, which draws from torch's generator."""
    import torch

    weight = torch.ones(len(labels))
    return torch.utils.data.WeightedRandomSampler(weight, len(labels))


def hinge(logits, target):
    import torch

    return torch.nn.functional.multi_margin_loss(logits, target, reduction="none")


def oversampler():
    from imblearn.over_sampling import RandomOverSampler

    return RandomOverSampler(random_state=0)


def group_split():
    from sklearn.model_selection import GroupShuffleSplit

    return GroupShuffleSplit(1, test_size=0.3, random_state=0)


MADE = (oversampler, group_split)  # anew for each fit


def config(fit=fit, data=documents, **params):
    return fit, data, params


WINDOWS = {"max_length": 12, "long_documents": "chunk", "stride": 3, "max_chunks": 4}
EARLY = {"early_stopping": True, "patience": 2, "train_split": 0.25, "max_epochs": 8}
LORA = {"peft_type": "LORA", "r": 4, "lora_dropout": 0.1}

CONFIGURATIONS = {
    "focal": config(gamma=2.0),
    "focal_balanced": config(data=three_classes, alpha="balanced", label_smoothing=0.1),
    "cross_entropy": config(loss="cross_entropy", alpha={"ham": 1, "spam": 4}, normalize="weights"),
    "poly1_focal": config(loss="poly1_focal", alpha="sqrt", normalize="sum"),
    "logit_adjusted": config(
        data=three_classes, loss="logit_adjusted", loss_params={"tau": 0.7}, proba="natural"
    ),
    "balanced_softmax": config(loss="balanced_softmax", sampler="sqrt"),
    "ldam_deferred": config(
        data=three_classes, loss="ldam", alpha="effective", beta=0.99, defer=0.5
    ),
    "dice": config(loss="dice", alpha=0.7, loss_params={"power": 0.2}),
    "own_loss": config(loss=hinge, alpha=None, schedule="constant"),
    "labels_asymmetric": config(data=several_labels, loss="asymmetric", gamma=1.0),
    "labels_tuned": config(
        data=several_labels, alpha="balanced", temperature="auto", decision="tuned"
    ),
    "sampler_power": config(data=three_classes, sampler=0.3, alpha="balanced", dropout=0.1),
    "sampler_progressive": config(sampler="progressive", normalize="weights", dropout=None),
    "sampler_imblearn": config(sampler=oversampler, alpha="effective"),
    "sampler_own": config(sampler=draws, schedule="cosine", warmup=0.3),
    "frozen": config(freeze=1, layer_decay=0.8),
    "frozen_windows": config(freeze=2, pooling="mean", alpha="balanced", **WINDOWS),
    "windows": config(pooling="logsumexp", dropout=0.1, **WINDOWS),
    "windows_max_labels": config(data=several_labels, pooling="max", **WINDOWS),
    "head_tail": config(long_documents="head_tail", max_length=16),
    "truncated": config(max_length=8),
    "pairs": config(data=pairs, alpha="sqrt", max_length=20),
    "early_stopping": config(sampler="sqrt", dropout=0.1, **EARLY),
    "early_stopping_groups": config(fit_groups, **EARLY | {"train_split": group_split}),
    "tuned": config(temperature="auto", decision="tuned", alpha="balanced"),
    "prior": config(decision="prior", prior="uniform", temperature=1.5, proba="natural"),
    "weighted": config(fit_weighted, alpha="balanced", sampler="sqrt"),
    "accumulated": config(accumulate=3, batch_size=4, gradient_clip=0.5, weight_decay=0.1),
    "gradient_checkpointing": config(gradient_checkpointing=True, dropout=0.2),
    "bfloat16": config(precision="bfloat16", nonfinite="skip"),
    "attention_dropout": config(dropout=0.1, attention_dropout=0.3),
    "pruned": config(prune=0.4),
    "adapters": config(peft=LORA, freeze=1),
    "adapters_chunks": config(fit_chunks, peft=LORA, alpha="balanced"),
    "chunks": config(fit_chunks, alpha="balanced", n_updates=9, dropout=0.1),
    "chunks_windows": config(fit_chunks, sampler="sqrt", **WINDOWS),
    "chunks_labels": config(fit_chunks_of_labels, data=several_labels),
    "chunks_after_fit": config(fit_chunks_after_fit, alpha="sqrt"),
    "warm_start": config(fit_twice, warm_start=True, dropout=0.1),
    "int8": config(fit_and_quantise, alpha="balanced"),
    "pickled": config(fit_and_pickle, temperature="auto", alpha="balanced"),
    "saved": config(fit_and_save, alpha="balanced", **WINDOWS),
    "interrupted": config(fit_interrupted, dropout=0.1, alpha="balanced"),
    "interrupted_early": config(
        fit_interrupted, sampler="sqrt", temperature="auto", accumulate=2, batch_size=4, **EARLY
    ),
    "interrupted_windows": config(fit_interrupted, defer=0.5, alpha="effective", **WINDOWS),
    "generator": config(fit_with_generator, sampler="balanced"),
    "no_seed": config(random_state=None, dropout=0.1),
    "net_params": config(net_params={"optimizer__betas": (0.8, 0.9)}, lr="auto"),
}


# -- one tree --------------------------------------------------------------------------------


class Gone(Exception):
    """A tree no longer has a parameter."""


def translated(params, skfocal):
    """Return parameters of version 0.1.0.dev0 as this tree has them."""
    accepted = inspect.signature(skfocal.BertFocalClassifier).parameters
    params = {
        name: value() if callable(value) and value in MADE else value
        for name, value in params.items()
    }

    def taken(**names):
        return {new: params.pop(old) for old, new in names.items() if old in params}

    if "stride" not in accepted:
        settings = taken(stride="stride", pooling="pooling", max_chunks="max_windows")
        if params.get("long_documents") == "chunk":
            params["long_documents"] = skfocal.Windows(**settings)
    if "patience" not in accepted:
        patience = params.pop("patience", 3)
        if params.get("early_stopping"):
            params["early_stopping"] = patience
    if "checkpoint_steps" not in accepted:
        settings = taken(checkpoint_steps="steps", checkpoint_minutes="minutes")
        if params.get("checkpoint"):
            params["checkpoint"] = skfocal.Checkpoint(params["checkpoint"], **settings)
    if "beta" not in accepted:
        beta = taken(beta="beta")
        if params.get("alpha") == "effective" and beta:
            params["alpha"] = skfocal.EffectiveNumber(**beta)
    if "compile" not in accepted and "compile" in params:
        params["net_params"] = {**params.get("net_params", {}), **taken(compile="compile")}
    if "prune" not in accepted and params.pop("prune", 0.0):
        raise Gone("prune")
    return params


def outcome(name, encoder):
    """Return all of a configuration's fit that is compared."""
    import skfocal

    fit, data, params = CONFIGURATIONS[name]
    settings = {"max_epochs": 3, "lr": 1e-2, "batch_size": 8, "random_state": 0, **params}

    def make(**more):
        return skfocal.BertFocalClassifier(encoder, **translated({**settings, **more}, skfocal))

    seed_everything()
    X, y = data()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            clf = fit(make, X, y, Path(folder))
        except Gone as parameter:
            return {"gone": str(parameter)}
        return {**read(clf, X), "generators": everything_drawn()}


def read(clf, X):
    """Return what a fitted classifier holds and says, by public names."""
    rows = [{name: v for name, v in row.items() if name != "dur"} for row in clf.history_]
    public = [name for name in vars(clf) if name.endswith("_") and name[0] != "_"]
    properties = ["temperature_", "proba_", "decision_offset_"]
    values = {name: getattr(clf, name) for name in sorted({*public, *properties})}
    X = X + X[::3] + (["", "win " * 70] if isinstance(X[0], str) else [("", "win " * 70)])
    methods = ("predict", "predict_proba", "decision_function")
    return {
        # Without their names, which say how modules are nested.
        "weights": [weight.numpy() for weight in clf.net_.module_.state_dict().values()],
        "history": rows,
        "predictions": {name: getattr(clf, name)(X) for name in methods},
        "attributes": {name: value for name, value in values.items() if is_plain(value)},
    }


def is_plain(value):
    return value is None or isinstance(value, str | int | float | np.ndarray | np.generic)


def seed_everything():
    import torch

    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)


def everything_drawn():
    import torch

    return random.random(), np.random.rand(), torch.rand(()).item()


def work(home, encoder, out, names):
    """Fit in this process, which has a tree on its path."""
    import torch

    import skfocal

    torch.set_num_threads(1)
    if not Path(skfocal.__file__).resolve().is_relative_to(home):
        sys.exit(f"skfocal was to be imported from {home}. Got {skfocal.__file__}.")
    results = {}
    for name in names:
        begin = time.perf_counter()
        try:
            result = outcome(name, encoder)
        except Exception as error:
            result = {"error": f"{type(error).__name__}: {error}"}
        results[name] = {**result, "seconds": time.perf_counter() - begin}
    Path(out).write_bytes(pickle.dumps(results))


# -- two trees -------------------------------------------------------------------------------


def start(home, encoder, out, names):
    own = {"PYTHONPATH": home, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    own |= {"PYTHONDONTWRITEBYTECODE": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONHASHSEED": "0"}
    command = [sys.executable, __file__, "--work", home, encoder, out, *names]
    return subprocess.Popen(command, env={**os.environ, **own})


def differences(old, new, where=""):
    """Yield the places in which nested results are not the same to the bit."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            if name not in old or name not in new:
                yield f"{where}.{name} is only in the {'old' if name in old else 'new'} tree"
            else:
                yield from differences(old[name], new[name], f"{where}.{name}")
    elif isinstance(old, list | tuple) and isinstance(new, list | tuple):
        if len(old) != len(new):
            yield f"{where} has {len(old)} and {len(new)} items"
        for i, (a, b) in enumerate(zip(old, new, strict=False)):
            yield from differences(a, b, f"{where}[{i}]")
    elif isinstance(old, np.ndarray) and isinstance(new, np.ndarray):
        if (old.dtype, old.shape) != (new.dtype, new.shape):
            yield f"{where} is {old.dtype}{old.shape} and {new.dtype}{new.shape}"
        elif old.dtype.kind == "f" and old.tobytes() != new.tobytes():
            yield f"{where} differs by up to {np.abs(old - new).max():.3g}"
        elif old.dtype.kind != "f" and not np.array_equal(old, new):
            yield f"{where} differs in {(old != new).sum()} of {old.size}"
    elif not (type(old) is type(new) and (old == new or both_nan(old, new))):
        yield f"{where} is {old!r:.60} and {new!r:.60}"


def both_nan(old, new):
    return isinstance(old, float) and math.isnan(old) and math.isnan(new)


def row_of_table(name, old, new):
    """Return what is said of a configuration, and whether it is the same."""
    seconds = f"{old['seconds']:5.1f} {new['seconds']:5.1f}"
    if "gone" in new:
        return f"{name:24}{'without ' + new['gone'] + ', not compared':57}{seconds}", True
    found = {part: list(differences(old.get(part), new.get(part), part)) for part in PARTS}
    cells = "".join(f"{'DIFFERS' if found[part] else 'same':12}" for part in PARTS)
    places = [place for part in PARTS for place in found[part]]
    both = {"old": old, "new": new}.items()
    errors = [f"{which}: {result['error']}" for which, result in both if "error" in result]
    if errors:
        cells, places = f"{'FAILS':60}", errors
    lines = [f"    {place}" for place in places[:5]]
    lines += [f"    and {len(places) - 5} more"] if len(places) > 5 else []
    return "\n".join([f"{name:24}{cells}{seconds}", *lines]), not places


def tree(path):
    """Return the absolute path of a working tree."""
    home = Path(path).resolve()
    if not (home / "skfocal" / "__init__.py").exists():
        raise argparse.ArgumentTypeError(f"must hold the package skfocal. Got {path!r}.")
    return str(home)


def main():
    """Fit in both trees at a time and print what differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=tree)
    parser.add_argument("new", type=tree)
    parser.add_argument("--only", nargs="+", choices=CONFIGURATIONS, metavar="NAME")
    args = parser.parse_args()
    names = args.only or list(CONFIGURATIONS)
    with tempfile.TemporaryDirectory() as folder:
        encoder = str(Path(folder, "encoder"))
        write_encoder(encoder)
        outs = [str(Path(folder, which)) for which in ("old", "new")]
        ways = zip((args.old, args.new), outs, strict=True)
        running = [start(home, encoder, out, names) for home, out in ways]
        codes = [process.wait() for process in running]
        if any(codes):
            sys.exit("A tree could not be run to its end.")
        old, new = (pickle.loads(Path(out).read_bytes()) for out in outs)
    rows = [row_of_table(name, old[name], new[name]) for name in names]
    print(f"{'':24}" + "".join(f"{part:12}" for part in PARTS) + "seconds")  # noqa: T201
    print("\n".join(row for row, _ in rows))  # noqa: T201
    n_same = sum(same for _, same in rows)
    print(f"{n_same} of {len(rows)} configurations are the same.")  # noqa: T201
    sys.exit(n_same < len(rows))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(*sys.argv[2:5], sys.argv[5:])
    else:
        main()
