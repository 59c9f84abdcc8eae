"""Fine-tune BERT-like encoders on imbalanced text, the scikit-learn way."""

from importlib import import_module

__version__ = "0.1.0.dev0"

# Imported on first use: torch and transformers take seconds, and a user of the losses alone
# needs no transformers.
_HOME = {
    "BertFocalClassifier": "classifier",
    "CrossEntropyLoss": "losses",
    "FocalLoss": "losses",
    "cross_entropy": "losses",
    "focal_loss": "losses",
    "sigmoid_focal_loss": "losses",
    "fetch_20newsgroups_cachopo": "datasets",
    "fetch_minilm": "datasets",
    "fetch_reuters": "datasets",
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__():
    return sorted(__all__)
