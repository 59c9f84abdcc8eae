"""Write folders of the present formats, and what their classifiers answer, beside this file.

    python tests/golden/make.py

They are committed once for each version of a format, and never written again: later versions of
the package have to read them.
"""

import json
import tempfile
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from skfocal import BertFocalClassifier, Windows, persistence
from skfocal.serving import _format

HERE = Path(__file__).parent
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = {
    "ham": "meeting lunch project report team".split(),
    "spam": "win money prize cash now".split(),
}
TEXTS = ["win money now", "lunch with the team", "Cash!", "", "a report of the prize " * 20]


def write_encoder(folder):
    """Write a BERT of two layers of width 8 with a vocabulary of words and letters."""
    letters = [mark + letter for letter in "abcdefghijklmnopqrstuvwxyz!" for mark in ("", "##")]
    vocabulary = [*SPECIAL, *letters, *sum(WORDS.values(), [])]
    codes = {token: i for i, token in enumerate(vocabulary)}
    backend = Tokenizer(models.WordPiece(codes, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", codes["[CLS]"]), ("[SEP]", codes["[SEP]"])]
    backend.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, ends)
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    tokens = dict(zip(names, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], strict=True))
    PreTrainedTokenizerFast(tokenizer_object=backend, **tokens).save_pretrained(folder)
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(
        vocab_size=len(vocabulary), intermediate_size=16, max_position_embeddings=32, **sizes
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertForSequenceClassification(config).save_pretrained(folder)


def fitted(encoder):
    """Return a classifier with the mean of tokens, moments, weights, temperature and windows."""
    y = ["ham"] * 12 + ["spam"] * 4
    X = [f"{WORDS[label][i % 5]} {WORDS[label][i % 3]}" for i, label in enumerate(y)]
    clf = BertFocalClassifier(
        str(encoder),
        pooling="mean",
        alpha="balanced",
        temperature=0.8,
        max_length=8,
        long_documents=Windows(stride=2),
        lr=0.02,
        batch_size=4,
        random_state=0,
    )
    for _ in range(12):
        clf.partial_fit(X, y, classes=["ham", "spam"])
    return clf.set_params(model="encoder")


def answers(clf):
    """Return what a classifier says of the texts."""
    return {
        "predict": clf.predict(TEXTS).tolist(),
        "predict_proba": clf.predict_proba(TEXTS).tolist(),
        "decision_function": clf.decision_function(TEXTS).tolist(),
    }


def main():
    """Write the folders and the answers."""
    with tempfile.TemporaryDirectory() as encoder:
        write_encoder(encoder)
        clf = fitted(encoder)
    clf._fitted_model = "encoder"
    clf.save_pretrained(HERE / f"folder-{persistence.FORMAT_VERSION}", metrics={"accuracy": 1.0})
    graph = HERE / f"onnx-{_format.FORMAT_VERSION}"
    if not graph.exists():
        clf.to_onnx(graph)
    recorded = {"texts": TEXTS, "answers": answers(clf)}
    (HERE / f"answers-{persistence.FORMAT_VERSION}.json").write_text(
        json.dumps(recorded, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
