"""The quickstart's core with the installed package; run as a script, from outside the checkout.

python tests/wheel_smoke.py <folder of the checkout>

Fits a tiny encoder whose tokenizer is made here, so that nothing is downloaded, and fails if the
package that it imports lies in the checkout.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import classification_report
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

import skfocal
from skfocal import BertFocalClassifier

WORDS = {"ham": "meeting lunch project report team", "spam": "win money prize cash now"}
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def make_encoder(folder):
    """Write a BERT of two layers and a tokenizer of whole words."""
    vocabulary = [*SPECIAL, *" ".join(WORDS.values()).split()]
    tokenizer = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = ["pad", "unk", "cls", "sep", "mask"]
    special = {f"{name}_token": f"[{name.upper()}]" for name in names}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, **special
    ).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    BertForSequenceClassification(config).save_pretrained(folder)


def documents():
    """Return texts of two easily told classes, one three times as frequent, and their labels."""
    rng = np.random.RandomState(0)
    y = np.where(np.arange(60) % 4, "ham", "spam")
    return [" ".join(rng.choice(WORDS[label].split(), 6)) for label in y], y


def main(checkout):
    """Fit, predict, save and read again."""
    assert Path(checkout).resolve() not in Path(skfocal.__file__).resolve().parents
    X, y = documents()
    with tempfile.TemporaryDirectory() as home:
        make_encoder(Path(home, "encoder"))
        clf = BertFocalClassifier(
            str(Path(home, "encoder")), gamma=2.0, alpha="balanced", max_epochs=12, lr=3e-3,
            batch_size=8, random_state=0,
        ).fit(X, y)  # fmt: skip
        clf.save_pretrained(Path(home, "saved"))
        again = BertFocalClassifier.from_pretrained(Path(home, "saved"))
    assert np.array_equal(again.predict_proba(X), clf.predict_proba(X))
    assert clf.score(X, y) > 0.95
    sys.stdout.write(f"skfocal {skfocal.__version__} of {Path(skfocal.__file__).parent}\n")
    sys.stdout.write(classification_report(y, again.predict(X)))


if __name__ == "__main__":
    main(*sys.argv[1:])
