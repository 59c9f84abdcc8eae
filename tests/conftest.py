"""A tiny encoder: random weights, the real WordPiece vocabulary of MiniLM."""

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may depend on a hub
# The same numbers on every processor, in other processes too: without bfloat16.
os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")
if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: workers share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")


import numpy as np
import pytest
import torch
from filelock import FileLock
from tiny_encoders import FAMILIES
from transformers import BertConfig, BertModel

from skfocal import BertFocalClassifier, fetch_minilm
from skfocal._estimator.fitted_model import FittedModel

# Threads cost a tiny encoder more than they give, and very much on a busy machine.
torch.set_num_threads(1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """Start no workers for a file or a test: they take longer to start than it to run."""
    some = config.option.keyword or any(".py" in arg for arg in config.option.file_or_dir)
    return 0 if some else None


TINY = {
    "vocab_size": 30522,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}


def copy_tokenizer(folder, model_max_length=64):
    """Put MiniLM's tokenizer into a folder."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(fetch_minilm(), model_max_length=model_max_length)
    tokenizer.save_pretrained(folder)
    return tokenizer


@pytest.fixture(scope="session")
def minilm():
    """Folder of the real MiniLM."""
    return fetch_minilm()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Folder of a two-layer BERT of width 32."""
    folder = tmp_path_factory.mktemp("tiny")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(BertConfig(**TINY)).save_pretrained(folder)
    copy_tokenizer(folder)
    return str(folder)


@pytest.fixture(scope="session")
def few_words(tmp_path_factory):
    """Folder of an encoder that knows few words, so that it is stored and read fast."""
    folder = tmp_path_factory.mktemp("few_words")
    FAMILIES["bert"](folder)
    return str(folder)


@pytest.fixture(scope="session")
def make_of_few_words(few_words):
    """Return a function that makes classifiers of few words and of few updates."""
    settings = {"max_epochs": 2, "lr": 3e-3, "batch_size": 20, "random_state": 0}
    return functools.partial(BertFocalClassifier, model=few_words, **settings)


@pytest.fixture
def tiny_copy(tiny, tmp_path):
    """Copy of the tiny folder that a test may spoil."""
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


@pytest.fixture
def make(tiny):
    """Return a function that makes a small, fast classifier."""

    def make_classifier(**params):
        settings = {"max_epochs": 2, "lr": 3e-3, "batch_size": 8, "random_state": 0}
        return BertFocalClassifier(**{"model": tiny, **settings, **params})

    return make_classifier


WORDS = {"spam": "win money prize cash now", "ham": "meeting lunch project report team"}


def imbalanced(n_ham=30, n_spam=10, seed=0):
    """Return texts of two easily told classes, and their labels."""
    rng = np.random.RandomState(seed)
    y = np.array(["ham"] * n_ham + ["spam"] * n_spam)
    X = [" ".join(rng.choice(WORDS[label].split(), size=rng.randint(2, 12))) for label in y]
    order = rng.permutation(len(y))
    return [X[i] for i in order], y[order]


@pytest.fixture
def data():
    """Forty texts, thirty of one class and ten of the other."""
    return imbalanced()


def made_once(tmp_path_factory, name, make):
    """Return a folder of this run that the first worker to need it makes."""
    home = tmp_path_factory.getbasetemp()
    folder = (home.parent if "PYTEST_XDIST_WORKER" in os.environ else home) / name
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            make(home / "unfinished" / name).rename(folder)
    return folder


def _exported(tiny, tmp_path_factory, name, X, y):
    def make(folder):
        clf = BertFocalClassifier(tiny, max_epochs=1, lr=3e-3, batch_size=8, random_state=0)
        folder.parent.mkdir(exist_ok=True)
        clf.fit(X, y).to_onnx(folder)
        return folder

    return made_once(tmp_path_factory, name, make)


@pytest.fixture(scope="session")
def onnx_folder(tiny, tmp_path_factory):
    """Folder that ``to_onnx`` wrote of a tiny classifier."""
    return _exported(tiny, tmp_path_factory, "texts", *imbalanced())


@pytest.fixture(scope="session")
def onnx_pairs_folder(tiny, tmp_path_factory):
    """The same of a classifier of pairs of texts that have several labels."""
    X, y = imbalanced()
    pairs = [(text, text[:5]) for text in X]
    labels = np.column_stack([y == "ham", y == "spam", [len(text) > 30 for text in X]])
    return _exported(tiny, tmp_path_factory, "pairs", pairs, labels.astype(int))


ROOT = Path(__file__).parents[1]
_MADE = shutil.ignore_patterns("_build", "generated", "auto_examples", "figures", "__pycache__")


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """Folder of the documentation: SKFOCAL_SITE, or else built of a copy, the examples not run."""
    if "SKFOCAL_SITE" in os.environ:
        return Path(os.environ["SKFOCAL_SITE"])
    pytest.importorskip("sphinx_gallery")
    home = tmp_path_factory.mktemp("site")
    for folder in ("docs", "examples"):
        shutil.copytree(ROOT / folder, home / folder, ignore=_MADE)
    for file in ROOT.glob("*.md"):
        shutil.copy(file, home)
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", "html"],
        cwd=home,
        env={**os.environ, "SKFOCAL_GALLERY": "0", "MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return home / "html"


def logits_of(clf, X):
    """Return the logits of documents, (n, n_classes)."""
    return FittedModel.of(clf).logits(X)
