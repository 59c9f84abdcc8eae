"""The messages that the page on errors explains are those that people get."""

import ast
import re
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.base import clone
from sklearn.metrics import f1_score, precision_score
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_class_weight

import skfocal

PAGE = (Path(__file__).parents[1] / "docs" / "errors.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))


def explained(prefix):
    """Return the messages in the headings of the sections whose names begin so."""
    texts = [text for name, text in SECTIONS.items() if name.startswith(prefix)]
    return [message for text in texts for message in re.findall(r"^### `(.+)`$", text, re.M)]


def texts_of(node):
    """Yield the texts below a node of the source, what is filled in as an ellipsis."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
        yield "".join(parts)
    elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):  # docstring
        for child in ast.iter_child_nodes(node):
            yield from texts_of(child)


def called_in(node):
    """Return the names of the functions that are called below a node of the source."""
    calls = [child.func for child in ast.walk(node) if isinstance(child, ast.Call)]
    return {getattr(func, "attr", getattr(func, "id", None)) for func in calls}


def messages_of(tree):
    """Yield the texts in what is raised or warned, and in the functions that make it."""
    told = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise)
        or (isinstance(node, ast.Call) and ast.unparse(node.func) == "warn")
    ]
    makers = set().union(*map(called_in, told))
    for node in ast.walk(tree):
        if node in told or (isinstance(node, ast.FunctionDef) and node.name in makers):
            yield from texts_of(node)


@pytest.fixture(scope="module")
def source():
    paths = Path(skfocal.__file__).parent.rglob("*.py")
    return [text for path in paths for text in messages_of(ast.parse(path.read_text()))]


def test_sections_are_found():
    assert len(explained("From skfocal")) > 30 and len(explained("In ")) > 12


@pytest.mark.parametrize("message", explained("From skfocal"))
def test_messages_of_skfocal_are_in_its_source(message, source):
    assert len(message.replace("…", "")) >= 15, "too short to be found by"
    pattern = re.escape(message).replace("…", ".*").removesuffix(".*")
    assert any(re.search(pattern, text) for text in source), message


def too_long(model):
    from transformers import AutoModelForSequenceClassification

    encoder = AutoModelForSequenceClassification.from_pretrained(model)
    encoder(torch.ones(1, 100, dtype=torch.long))


def unpadded(model):
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(model)(["one", "one two three"], return_tensors="pt")


def without_padding_token(model):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.pad_token = None
    tokenizer(["one", "one two three"], padding=True)


def gamma_below_one(model):
    logits = torch.tensor([[40.0, 0.0]], requires_grad=True)
    p = logits.softmax(1)[0, 0]
    with torch.autograd.detect_anomaly(check_nan=True):
        ((1 - p) ** 0.5 * -p.log()).backward()


def ill_defined(model):
    precision_score([0, 1, 1], [0, 0, 0], average="macro")


def scaled(model):
    StandardScaler().fit([["a document"]])


def one_dimension(model):
    from imblearn.over_sampling import RandomOverSampler

    RandomOverSampler().fit_resample(np.array(["a", "b"]), [0, 1])


MADE = {
    "Target": lambda model: F.cross_entropy(torch.zeros(1, 4), torch.tensor([4])),
    "expected target dtype": lambda model: F.cross_entropy(torch.zeros(1, 4), torch.ones(1)),
    "weight tensor": lambda model: F.cross_entropy(
        torch.zeros(1, 4), torch.tensor([1]), weight=torch.ones(3)
    ),
    "too many": lambda model: compute_class_weight("balanced", [0, 1], [0, 1]),
    "The expanded size": too_long,
    "Unable to create tensor": unpadded,
    "Asking to pad": without_padding_token,
    "Function 'PowBackward0'": gamma_below_one,
    "element 0 of tensors": lambda model: torch.zeros(2, 2).argmax(1).float().mean().backward(),
    "Expected input batch_size": lambda model: F.cross_entropy(
        torch.zeros(1, 4), torch.tensor([1, 2])
    ),
    "could not convert": scaled,
    "Expected 2D array": one_dimension,
    "The least populated": lambda model: list(StratifiedKFold(3).split([0] * 4, [0, 0, 0, 1])),
    "cannot pickle": lambda model: clone([threading.Lock()], safe=False),
    "Classification metrics": lambda model: f1_score([0, 1], np.eye(2, dtype=int)),
    "is multiclass": lambda model: f1_score([0, 1, 2], [0, 1, 2]),
    "Precision is": ill_defined,
}


# The first two need a GPU; transformers logs the third and prints a table for the last.
NOT_MADE = {
    "CUDA out of memory",
    "indices should be either on … or on the same device as the indexed tensor",
    "Token indices sequence length is longer than the specified maximum sequence length",
    "Some weights of … were not initialized from the model checkpoint",
}


def test_messages_of_others_are_all_made():
    unknown = [m for m in explained("In ") if not m.startswith(tuple(MADE))]
    assert set(unknown) <= NOT_MADE


@pytest.mark.parametrize("begin", MADE)
@pytest.mark.filterwarnings("ignore:Anomaly Detection:UserWarning")
@pytest.mark.filterwarnings("ignore:Error detected in:UserWarning")
def test_messages_of_others_are_as_they_are_written(begin, tiny):
    (message,) = (m for m in explained("In ") if m.startswith(begin))
    # Warnings are errors here.
    with pytest.raises(Exception, match=re.escape(message).replace("…", ".*")):
        MADE[begin](tiny)
