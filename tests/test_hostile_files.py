"""Damaged and hostile folders: refused by ValueError or OSError, quickly, and nothing else."""

import json
import os
import pickle
import random
import resource
import shutil
import signal
import sys
import sysconfig
import traceback
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from mutations import OPENED, SECRET, mutate, watch
from safetensors.torch import load_file, save_file
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

import skfocal
from skfocal import BertFocalClassifier, OnnxClassifier, persistence

GOLDEN = Path(__file__).parent / "golden"
FOLDERS = {"folder": GOLDEN / "folder-3", "onnx": GOLDEN / "onnx-3"}
LOADERS = {
    "folder": BertFocalClassifier.from_pretrained,
    "onnx": lambda f: OnnxClassifier(f, n_threads=1),
}
TEXTS = ["win money", "lunch team report", ""]
# What reading is allowed to open: packages, and the system's own.
ALLOWED = (sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), "/proc", "/sys",
           "/usr", "/dev/null", str(Path(skfocal.__file__).parent))  # fmt: skip
SECONDS = 20


def one(kind, seed, home):
    """Mutate a folder and load it; return the exception's name, "" for success."""
    folder = home / kind
    shutil.copytree(FOLDERS[kind], folder)
    done = mutate(folder, random.Random(seed))
    before = listing(home)
    OPENED.clear()
    outcome = ""
    try:
        clf = LOADERS[kind](folder)
        proba = clf.predict_proba(TEXTS)
        assert proba.shape == (3, len(clf.classes_))
    except (ValueError, OSError) as error:
        outcome = type(error).__name__
        assert str(error)
    strangers = [str(path) for path in OPENED if not_allowed(path, folder)]
    assert not strangers, f"opened {strangers} after {done}"
    assert listing(home) == before, f"changed files after {done}"
    shutil.rmtree(folder)
    return outcome, done


def not_allowed(path, folder):
    if isinstance(path, int):
        return False
    path = os.path.realpath(os.fsdecode(path))
    return not path.startswith((os.path.realpath(folder) + os.sep, *ALLOWED))


def listing(home):
    """Return every file below a folder, with its size and time of change."""
    found = [(path, path.lstat()) for path in sorted(home.rglob("*"))]
    return [(str(path), at.st_size, at.st_mtime_ns, at.st_mode) for path, at in found]


def run_chunk(kind, seeds, home, report):
    """Load mutated folders in a child process, which a crash or a hang may end."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, whatever it is doing
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    watch()
    warnings.simplefilter("ignore")
    counts: dict = {}
    for seed in seeds:
        report.write_text(json.dumps({"seed": seed}))
        signal.alarm(SECONDS)
        outcome, _ = one(kind, seed, home)
        counts[outcome] = counts.get(outcome, 0) + 1
    signal.alarm(0)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report.write_text(json.dumps({"counts": counts, "memory": memory}))


def outcomes(kind, n, tmp_path, size=500):
    """Return how often each outcome was seen over `n` mutated folders."""
    (tmp_path / SECRET).write_text("secret")
    LOADERS[kind](FOLDERS[kind]).predict(TEXTS)  # what is imported late is there for the children
    total: dict = {}
    for start in range(0, n, size):
        home = tmp_path / str(start) / "home"
        home.mkdir(parents=True)
        (home / SECRET).write_text("secret")
        report = tmp_path / f"report-{start}.json"
        child = os.fork()
        if not child:
            status = 1
            try:
                run_chunk(kind, range(start, min(start + size, n)), home, report)
                status = 0
            except BaseException:
                (tmp_path / "error.txt").write_text(traceback.format_exc())
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        found = json.loads(report.read_text())
        error = (tmp_path / "error.txt").read_text() if status == 1 else ""
        assert status == 0, f"status {status} at {found}: {error}"
        assert found["memory"] < 3_000_000  # kilobytes, of which torch alone takes a third
        for outcome, count in found["counts"].items():
            total[outcome] = total.get(outcome, 0) + count
    return total


@pytest.mark.parametrize(("kind", "n"), [("folder", 75), ("onnx", 60)])
def test_mutated_folders_load_or_are_refused(kind, n, tmp_path):
    counts = outcomes(kind, n, tmp_path)
    assert sum(counts.values()) == n and counts["ValueError"] > n / 3


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("kind", "n"), [("folder", 10_000), ("onnx", 1_000)])
def test_many_mutated_folders_load_or_are_refused(kind, n, tmp_path):
    counts = outcomes(kind, n, tmp_path)
    assert sum(counts.values()) == n
    # Each way out is taken often: neither is everything refused at the door, nor nothing.
    assert all(counts[outcome] > n / 50 for outcome in ("", "ValueError", "FileNotFoundError"))


# -- one by one --------------------------------------------------------------------------------


@pytest.fixture
def golden(tmp_path):
    """Copy of a folder that a test may spoil, without the checksums that would notice."""
    folder = Path(shutil.copytree(FOLDERS["folder"], tmp_path / "folder"))
    edit(folder, "skfocal.json", lambda head: head.pop("sha256"))
    return folder


def edit(folder, name, change):
    """Change the JSON object in a file in place."""
    value = json.loads((folder / name).read_text())
    change(value)
    (folder / name).write_text(json.dumps(value))


def refused(folder, match, error=ValueError):
    with pytest.raises(error, match=match) as caught:
        BertFocalClassifier.from_pretrained(folder)
    if error is ValueError:
        assert str(caught.value).startswith(f"{str(folder)!r} must be a folder as save_pretrained")


CONFIGS = {
    "wide": ({"hidden_size": 10**9}, "'hidden_size' in config.json must be at most 2097152"),
    "deep": ({"num_hidden_layers": 10**9}, "'num_hidden_layers' in config.json must be at most"),
    "rather deep": ({"num_hidden_layers": 100_000}, "far more layers than model.safetensors has"),
    "deeper by one": ({"num_hidden_layers": 3}, r"layer.2.*must have shape.*Got no such tensor"),
    "shallow": ({"num_hidden_layers": 1}, "must have shape None, it is unknown"),
    "long": ({"max_position_embeddings": 64}, r"position_embeddings.weight' must have shape"),
    "unknown": ({"model_type": "mine"}, "model_type in config.json must be a classifier's"),
    "list": ({"model_type": ["bert"]}, "model_type in config.json must be a classifier's"),
    "other": ({"model_type": "gpt2"}, "must have shape"),
    "code": ({"auto_map": {"AutoConfig": "x.Y"}}, "must not name code to load. Got 'auto_map'"),
    "kernel": ({"attn_implementation": "me/kernel"}, "must not name code to load"),
    "inner": ({"text_config": {"auto_map": {"a": "b"}}}, "must not name code to load"),
    "private": ({"_attn_implementation": "me/kernel"}, "must not name code to load"),
    "quantised": ({"quantization_config": {"quant_method": "x"}}, "must not name code to load"),
    "dtype": ({"dtype": "float64"}, "dtype in config.json must be 'float32'"),
    "classes": ({"id2label": {str(i): str(i) for i in range(3)}}, "must name the 2 classes"),
    "heads": ({"num_attention_heads": 3}, "not a multiple of the number of attention heads"),
    "sines": (
        {
            "model_type": "distilbert",
            "sinusoidal_pos_embds": True,
            "max_position_embeddings": 10**5,
        },
        "asks for a table of positions larger than the weights",
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_config_that_is_not_of_the_weights_is_refused(golden, name):
    change, match = CONFIGS[name]
    edit(golden, "config.json", lambda config: config.update(change))
    refused(golden, match)


@pytest.mark.slow
def test_weights_of_another_architecture_are_refused_for_each_that_there_is(golden):
    for kind in sorted(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES):
        if kind != "bert":
            edit(golden, "config.json", setting(["model_type"], kind))
            refused(golden, "Got: .")


def newer(head):
    head["format_version"] = persistence.FORMAT_VERSION + 1


def setting(place, value):
    """Return a change of one value, by its keys."""

    def change(head):
        for key in place[:-1]:
            head = head[key]
        head[place[-1]] = value

    return change


STATES = {
    "newer": (newer, "has format_version 5, and skfocal .* reads up to 4: install a newer"),
    "other": (setting(["format"], "x"), "must have format 'skfocal.BertFocalClassifier'"),
    "trust": (setting(["params", "trust_remote_code"], True), r"Got \['trust_remote_code'\]"),
    "escape": (setting(["params", "net_params"], {"verbose": 9}), r"Got \['net_params'\]"),
    "unknown": (setting(["params", "power"], 1), "saved by a newer skfocal"),
    "wrong": (setting(["params", "gamma"], "x"), "The 'gamma' parameter .* must be a float"),
    "cut": (setting(["attributes", "_cutting", "stride"], -1), "what becomes of long documents"),
    "shares": (setting(["attributes", "_cutting", "stride"], 6), "stride must be less than the 6"),
    "pooling": (setting(["attributes", "_pooling"], "sum"), "_pooling and _cutting must be those"),
    "method": (setting(["attributes", "predict"], 1), "must be those of a fit. Got 'predict'"),
    "net": (setting(["attributes", "net_"], 1), "must be those of a fit. Got 'net_'"),
    "dunder": (setting(["attributes", "__class__"], 1), "must be those of a fit"),
    "loss": (setting(["attributes", "loss_", "class"], "Module"), "loss must be one of"),
    "labels": (setting(["attributes", "loss_", "class"], "SigmoidFocalLoss"), "weight must have"),
    "gamma": (setting(["attributes", "loss_", "settings", "gamma"], -1), "gamma must be"),
    "setting": (setting(["attributes", "loss_", "settings", "x"], -1), "no such settings"),
    "length": (setting(["attributes", "max_length_"], 33), "must be at most 32, the limit"),
    "frozen": (setting(["attributes", "_n_frozen"], 3), "freeze must be at most the 2 layers"),
    "absent": (lambda head: head["attributes"].pop("classes_"), "classes_"),
    "position": (
        setting(["attributes", "_chunks", "rng", "state", "pos"], 10**6),
        "must be a state of MT19937",
    ),
    "sums": (
        setting(["sha256"], {"../secret.txt": "x"}),
        "sha256 .* must list only the other files",
    ),
    "tensor": (setting(["attributes", "class_prior_"], {"$array": "../x"}), "is not stored data"),
}


@pytest.mark.parametrize("name", STATES)
def test_state_that_no_fit_leaves_is_refused(golden, name):
    change, match = STATES[name]
    edit(golden, "skfocal.json", change)
    refused(golden, match)


def rewrite(folder, change, name="model.safetensors"):
    tensors = load_file(folder / name)
    change(tensors)
    save_file(tensors, folder / name, metadata={"format": "pt"})


HEAD = "classifier.weight"
WEIGHTS = {
    "absent": (lambda t: t.pop(HEAD), "'classifier.weight' must have shape .* Got no such tensor"),
    "extra": (lambda t: t.update(x=torch.ones(2)), "'x' must have shape None, it is unknown"),
    "classes": (lambda t: t.update({HEAD: torch.ones(3, 8)}), r"shape \(2, 8\) .* Got \(3, 8\)"),
    "ints": (lambda t: t.update({HEAD: torch.ones(2, 8, dtype=torch.int8)}), "must hold floats"),
    "nothing": (lambda t: t.clear(), "must hold floats"),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_are_not_of_the_config_are_refused(golden, name):
    change, match = WEIGHTS[name]
    rewrite(golden, change)
    refused(golden, match)


def test_moments_of_other_weights_are_refused(golden):
    def change(tensors):
        tensors[f"moments.model.{HEAD}.exp_avg"] = torch.ones(3, 3)

    rewrite(golden, change, "moments.safetensors")
    refused(golden, "'exp_avg' of 'model.classifier.weight' must have its weight's shape")


def test_half_precision_and_weights_that_are_not_finite_load(golden):
    whole = BertFocalClassifier.from_pretrained(golden).predict_proba(TEXTS)
    rewrite(golden, lambda t: t.update({k: v.bfloat16() for k, v in t.items()}))
    half = BertFocalClassifier.from_pretrained(golden).predict_proba(TEXTS)
    assert 0 < np.abs(half - whole).max() < 0.02
    rewrite(golden, lambda t: t[HEAD].fill_(float("nan")))
    assert np.isnan(BertFocalClassifier.from_pretrained(golden).predict_proba(["win"])).all()


VOCABULARIES = {
    "beyond": (setting(["model", "vocab", "project"], 200), "ids below 69, .* Got ids up to 200"),
    "huge": (setting(["model", "vocab", "project"], 2**31), "must have token ids below 16777216"),
    "panic": (setting(["post_processor", "special_tokens"], {}), "no entry found for key"),
}


@pytest.mark.parametrize("name", VOCABULARIES)
def test_tokenizer_that_the_encoder_cannot_take_is_refused(golden, name):
    change, match = VOCABULARIES[name]
    edit(golden, "tokenizer.json", change)
    refused(golden, match)


def test_changed_file_is_noticed_by_its_checksum(tmp_path):
    folder = Path(shutil.copytree(FOLDERS["folder"], tmp_path / "folder"))
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    refused(folder, "model.safetensors must be the file that was saved. .* take its line out")


@pytest.mark.parametrize("name", ["config.json", "skfocal.json", "model.safetensors"])
def test_missing_file_is_an_oserror_that_names_it(golden, name):
    (golden / name).unlink()
    refused(golden, name, FileNotFoundError)


def test_missing_folder_and_file_in_its_place_are_oserrors(tmp_path):
    refused(tmp_path / "none", "none", FileNotFoundError)
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file", "is not a folder", NotADirectoryError)


def test_deep_and_huge_json_is_refused(golden):
    text = (golden / "config.json").read_text()
    (golden / "config.json").write_text('{"a": ' + "[" * 10**6 + "]" * 10**6 + "}")
    refused(golden, "config.json must be JSON in UTF-8, not too deep")
    (golden / "config.json").write_text(text.replace('"dtype"', '"x": NaN, "dtype"'))
    refused(golden, "config.json must be JSON .* the number NaN")
    os.truncate(golden / "skfocal.json", 2**40)  # a file with a hole, which takes no space
    refused(golden, "skfocal.json must have at most 67108864 bytes. Got 1099511627776")


def test_links_may_lead_into_the_folder_and_the_cache_of_the_hub_alone(golden, tmp_path):
    outside = tmp_path / "outside.json"
    (golden / "config.json").rename(outside)
    (golden / "config.json").symlink_to(outside)
    refused(golden, "config.json must lie in the folder. Got a link out of it")
    (golden / "config.json").unlink()
    outside.rename(golden / "x")
    (golden / "config.json").symlink_to("x")
    BertFocalClassifier.from_pretrained(golden)

    snapshot = tmp_path / "models--me--model" / "snapshots" / "revision"
    blobs = tmp_path / "models--me--model" / "blobs"
    snapshot.mkdir(parents=True), blobs.mkdir()
    for path in FOLDERS["folder"].iterdir():
        shutil.copy(path, blobs / f"hash-of-{path.name}")
        (snapshot / path.name).symlink_to(Path("../../blobs", f"hash-of-{path.name}"))
    BertFocalClassifier.from_pretrained(snapshot)


def test_other_files_in_the_folder_are_never_read(golden, tmp_path):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "touched"), "w")

    (golden / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    (golden / "training_args.bin").write_bytes(pickle.dumps(Evil()))
    (golden / "modeling_mine.py").write_text(f"open({str(tmp_path / 'touched')!r}, 'w')")
    index = {"weight_map": {HEAD: "../../etc/passwd"}}
    (golden / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {"tokenizer_file": "/etc/passwd", "vocab_file": "../x", "auto_map": {"a": "b--c.d"}}
    edit(golden, "tokenizer_config.json", lambda settings: settings.update(config))
    BertFocalClassifier.from_pretrained(golden).predict(["win"])
    assert not (tmp_path / "touched").exists()


# -- formats of earlier versions -----------------------------------------------------------------


def test_folder_of_every_format_goes_on_learning(golden):
    clf = BertFocalClassifier.from_pretrained(golden)
    clf.partial_fit(["win money", "lunch"] * 4, ["ham", "spam"] * 4)  # not what it has learned
    assert clf.history_[-1]["epoch"] == 13 and clf._chunks.n_updates == 12 * 4 + 2
    assert clf.history_[-1]["train_loss"] > clf.history_[-2]["train_loss"]
    assert sum(path.stat().st_size for path in GOLDEN.rglob("*")) < 2**21
