"""The README.md of a folder with a fitted estimator."""

from pathlib import Path

from skfocal._encoder.head import cosine_scale
from skfocal._utils.settings import Settings
from skfocal._version import __version__

_CARD = """---
library_name: skfocal
pipeline_tag: text-classification
tags: [skfocal, text-classification, imbalanced]
---

# Text classifier

Fine-tuned by skfocal {version} from {model}, on {n_classes} {kind}: {labels}.

```python
from skfocal import BertFocalClassifier

clf = BertFocalClassifier.from_pretrained("path/of/this/folder")
clf.predict([{document}])
```

{pipeline}
{metrics}
## Training

`{settings}`

{left_out}"""
_PIPELINE = """`transformers.pipeline("text-classification", "path/of/this/folder")` gives labels
by the {function} of the logits ({cut}).
skfocal's `predict_proba` gives those of `proba="{proba}"`, and its decisions are those of
`decision="{decision}"`.
"""
_COSINES = """The head computes cosines, which neither transformers nor sentence-transformers has a
class for: skfocal alone reads this folder right.
"""
_POOLED = """The logits come from the tokens by `pooling="{pooling}"`, which no class of
transformers does. With
`sentence_transformers.SentenceTransformer("path/of/this/folder").encode(texts)` you get the
logits ({cut}); skfocal's `predict_proba` gives those of `proba="{proba}"`, and its decisions are
those of `decision="{decision}"`.
"""


def model_card(estimator, left_out, metrics=None):
    """Return the README.md of a folder."""
    several = estimator.class_weight_.ndim == 2
    is_folder = Path(estimator._fitted_model).expanduser().exists()
    facts = {
        "proba": estimator.proba_,
        "decision": estimator.decision,
        "cut": _cut(estimator),
        "function": "sigmoid" if several else "softmax",
    }
    labels = [_one_line(label) for label in estimator.classes_]
    return _CARD.format(
        version=__version__,
        model="a local encoder" if is_folder else _one_line(estimator._fitted_model),
        document='("a text", "another")' if estimator._pairs else '"a document"',
        n_classes=len(labels),
        kind="labels, any number per document" if several else "classes",
        labels=", ".join(labels[:100]) + (", ..." if len(labels) > 100 else ""),
        pipeline=_reader(estimator, facts),
        metrics=_metrics_table(metrics or {}),
        settings=_settings_line(estimator),
        left_out=f"Not stored: {', '.join(left_out)}.\n" if left_out else "",
    )


def _reader(estimator, facts):
    """Say which other library reads the folder, and what it gives."""
    if cosine_scale(estimator.net_.plain_module().model) is not None:
        return _COSINES
    if estimator.pooling_ == "head":
        return _PIPELINE.format(**facts)
    return _POOLED.format(pooling=estimator.pooling_, **facts)


def _cut(estimator):
    """Describe how `transformers.pipeline` treats long documents, compared with the estimator."""
    cut = f"`truncation=True` cuts at {estimator.max_length_} tokens"
    if estimator._cutting.get("long_documents", "truncate") == "truncate":
        return f"{cut}, as in training"
    return f'{cut}; `long_documents="{estimator._cutting["long_documents"]}"` is skfocal\'s alone'


def _one_line(value):
    """Return a label as inline code, with nothing that could end it."""
    return f"`{' '.join(str(value).replace('`', chr(39)).split())[:80]}`"


def _metrics_table(metrics):
    if not metrics:
        return ""
    rows = [f"| {_one_line(name)} | {float(value):.4g} |" for name, value in metrics.items()]
    return "\n".join(["## Metrics", "", "| | |", "|---|---:|", *rows, ""])


def _settings_line(estimator):
    shown = ["loss", "gamma", "alpha", "sampler", "max_epochs", "batch_size", "random_state"]
    values = estimator.get_params(deep=False)
    if values["refit_head"] is not None:
        shown.insert(4, "refit_head")
    kinds = str | float | int | None | Settings
    plain = {name: values[name] for name in shown if isinstance(values[name], kinds)}
    return ", ".join(f"{k}={v!r}" for k, v in plain.items()) + f", lr={estimator.lr_:.3g}"
