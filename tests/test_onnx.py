"""What onnxruntime computes from an export is what the estimator computes, without torch."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pytest
import torch
import transformers
from conftest import TINY, copy_tokenizer, imbalanced, logits_of
from test_module import CONFIGS
from test_persistence import assert_same_answers, indicator
from tokenizers.processors import TemplateProcessing

import skfocal
from skfocal import (
    BertFocalClassifier,
    OnnxBatcher,
    OnnxClassifier,
    Windows,
    fetch_minilm,
    fetch_reuters,
)
from skfocal._data.tokenization import TruncationSpec
from skfocal._estimator.fitted_model import FittedModel
from skfocal.calibration import Calibration
from skfocal.losses import (
    AsymmetricLoss,
    DistributionBalancedLoss,
    FocalLoss,
    LDAMLoss,
    Poly1Loss,
    SigmoidFocalLoss,
)
from skfocal.serving import _export

SETTINGS = {
    "reweighted": {"alpha": "balanced", "temperature": 0.7},
    "tuned": {"sampler": "sqrt", "proba": "natural", "temperature": "auto", "decision": "tuned"},
    "cosines": {"loss": "ldam"},
    "prior": {"loss": "logit_adjusted", "decision": "prior", "prior": "uniform"},
    "labels": {"loss": "asymmetric", "alpha": "balanced"},
    "labels and a prior": {"loss": "asymmetric", "alpha": "balanced", "proba": "softmax",
                           "temperature": 0.7, "decision": "prior",
                           "prior": {0: 0.2, 1: 0.5, 2: 0.8}},
    "softmax": {"loss": torch.nn.MultiMarginLoss},
}  # fmt: skip


@pytest.fixture(scope="module")
def long(tiny):
    """Texts of very different lengths, some beyond the limit, some with odd characters."""
    rng = np.random.RandomState(0)
    words = ["money", "lunch", "café", "\ud800", "win", "\x00", "日本", "team"]
    return [" ".join(rng.choice(words, size=n)) for n in [0, 1, 2, 5, 30, 60, 90, 400] * 4]


def assert_answers_alike(served, clf, X):
    tolerance = {"rtol": 1e-4, "atol": 1e-4}
    np.testing.assert_allclose(served.predict_proba(X), clf.predict_proba(X), **tolerance)
    np.testing.assert_allclose(served.decision_function(X), clf.decision_function(X), **tolerance)
    outputs, logits = served.outputs(X), logits_of(clf, X)
    np.testing.assert_allclose(outputs["logits"], logits, **tolerance)
    deciding = FittedModel.of(clf).calibration.scores(torch.from_numpy(logits).double())[1]
    np.testing.assert_allclose(outputs["decision_scores"], deciding.numpy(), **tolerance)
    predicted = served.predict(X)
    assert np.array_equal(predicted, clf.predict(X)) and predicted.dtype == clf.predict(X).dtype


@pytest.fixture
def shallow(tiny_copy):
    """Folder of a BERT of one layer, whose graph is made sooner."""
    torch.manual_seed(0)
    config = transformers.BertConfig(**{**TINY, "num_hidden_layers": 1})
    transformers.BertModel(config).save_pretrained(tiny_copy)
    return str(tiny_copy)


@pytest.mark.parametrize(
    "name",
    # Its graph has the parts of the others but a tuned softmax, for which see the inverse below.
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name != "labels and a prior"))
        for name in SETTINGS
    ],
)
def test_served_answers_are_those_of_the_estimator(make, shallow, data, long, tmp_path, name):
    X, y = data
    clf = make(model=shallow, **SETTINGS[name]).fit(X, indicator(y) if "labels" in name else y)
    clf.to_onnx(tmp_path / "served")
    served = OnnxClassifier(tmp_path / "served", n_threads=1)
    assert_answers_alike(served, clf, X + long)
    assert_answers_alike(served, clf, np.array(X[:3], dtype=object)[:, None])
    assert_same_classes(served, clf)


def assert_same_classes(served, clf):
    assert np.array_equal(served.classes_, clf.classes_)
    assert served.classes_.dtype == clf.classes_.dtype and served.max_length_ == clf.max_length_


def test_chunks_and_arrow_are_answered_as_a_list_of_all(onnx_folder, data):
    X, _ = data
    served = OnnxClassifier(onnx_folder, n_threads=1)
    for answer in (served.predict, served.predict_proba, served.decision_function):
        chunks = iter([X[:3], pa.array(X[3:30]), [], np.array(X[30:], dtype=object)])
        expected = answer(X)
        if expected.dtype.kind == "f":
            np.testing.assert_allclose(answer(chunks), expected, rtol=1e-5, atol=1e-6)
        else:
            assert answer(chunks).tolist() == expected.tolist()
        np.testing.assert_array_equal(answer(pa.table({"text": X})), expected)
    with pytest.raises(TypeError, match="Chunk 1 of X: .* row 1"):
        served.predict(iter([X[:3], ["a", None]]))


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_every_architecture_is_exported(make, data, long, tmp_path, name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForSequenceClassification.from_config(CONFIGS[name])
    model.save_pretrained(tmp_path / "encoder")
    copy_tokenizer(tmp_path / "encoder")
    clf = make(model=tmp_path / "encoder").fit(*data)
    clf.to_onnx(tmp_path / "served")
    assert_answers_alike(OnnxClassifier(tmp_path / "served"), clf, data[0] + long)


def test_a_graph_of_windows_without_limit_warns(make, shallow, data, tmp_path):
    windows = Windows(max_windows=None)
    clf = make(model=shallow, max_epochs=1, max_length=8, long_documents=windows).fit(*data)
    with pytest.warns(UserWarning, match="in memory that grows with its length"):
        clf.to_onnx(tmp_path / "served")


class Numbers(torch.nn.Module):
    """Three logits from the first token id, eighths between -256 and 256."""

    def forward(self, input_ids, attention_mask, token_type_ids=None):
        code = input_ids[:, 0] + 0 * attention_mask[:, 0]
        digits = torch.stack([code % 4096, code // 4096 % 4096, code // 4096**2], 1)
        return (digits / 8 - 256).float()


class Several(torch.nn.Module):
    """The answers of several graphs of the same logits, one after the other."""

    def __init__(self, calibrations):
        super().__init__()
        graphs = [_export._Graph(Numbers(), "mean", calibration) for calibration in calibrations]
        self.graphs = torch.nn.ModuleList(graphs)

    def forward(self, input_ids, attention_mask):
        answers = [graph(input_ids, attention_mask) for graph in self.graphs]
        return tuple(torch.stack(parts) for parts in zip(*answers, strict=True))


LABELS = [[90, 10], [99, 1], [0, 100]]
SINGLE = {"decision": "tuned", "offset": np.array([0.5, -1.0, 0.25])}


@pytest.mark.parametrize(
    "cases",
    [
        [
            (FocalLoss(3.0, weight=[0.2, 1.0, 4.0]), "natural", SINGLE),
            (SigmoidFocalLoss(2.0, label_smoothing=0.1), "reweighted", {}),
        ],
        pytest.param(
            [
                (FocalLoss(2.0, label_smoothing=0.1), "reweighted", {}),
                (Poly1Loss(2.0), "natural", {}),
                (LDAMLoss([90, 9, 1]), "natural", {}),
                (AsymmetricLoss(1.0, 4.0, 0.05), "natural", {}),
                (DistributionBalancedLoss(LABELS, rebalance=False), "natural", {}),
            ],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["two", "others"],
)
def test_inverse_in_the_graph_keeps_the_digits_of_extreme_logits(tmp_path, cases):
    """All in one graph, which takes little longer to make than one of them."""
    of_classes, of_labels = np.array([0.5, 1, 3]), np.array([[0.5, 2.0], [1.0, 1.0], [0.9, 3.0]])
    calibrations = []
    for loss, proba, decision in cases:
        weight = of_labels if loss.multilabel else of_classes
        settings = {"proba": proba, "temperature": 1.7, **decision}
        calibrations.append(Calibration(loss, np.arange(3), weight, weight**0.5, **settings))
    logits = np.random.RandomState(0).randint(-2048, 2048, size=(200, 3)) / 8
    logits[:100] = np.round(logits[:100] / 40 * 8) / 8
    ids = ((logits + 256) * 8).astype(np.int64) @ [1, 4096, 4096**2]
    example = _export._example(TruncationSpec(8))
    _export._write_graph(Several(calibrations), example, 64, tmp_path / "graph.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "graph.onnx")
    inputs = {"input_ids": ids[:, None], "attention_mask": np.ones((200, 1), np.int64)}
    answers = session.run(["logits", "scores", "proba", "decision_scores"], inputs)
    for calibration, raw, scores, found, deciding in zip(calibrations, *answers, strict=True):
        assert np.array_equal(raw, logits)
        expected = calibration.answers(logits)
        np.testing.assert_allclose(scores, expected.decision_function(), rtol=1e-5, atol=1e-7)
        # onnxruntime's sigmoid subtracts from 1: it is exactly 0 below 1e-16.
        atol = 1e-15 if calibration.multilabel else 1e-300
        np.testing.assert_allclose(found, expected.predict_proba(), rtol=1e-4, atol=atol)
        _, decision = calibration.scores(torch.from_numpy(logits))
        np.testing.assert_allclose(deciding, decision, rtol=1e-5, atol=1e-7)


SERVE = """
import json, sys
from skfocal import OnnxClassifier
clf = OnnxClassifier(sys.argv[1], n_threads=1)
X = ["win money now", "lunch meeting"]
heavy = [m for m in ("torch", "transformers", "sklearn", "scipy", "skorch") if m in sys.modules]
print(json.dumps([clf.predict(X).tolist(), clf.predict_proba(X).tolist(), heavy]))
"""


def test_serving_imports_neither_torch_nor_transformers_nor_sklearn(served):
    folder, clf = served
    command = [sys.executable, "-c", SERVE, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    labels, proba, heavy = json.loads(done.stdout)
    X = ["win money now", "lunch meeting"]
    assert done.stderr == ""
    assert heavy == [] and labels == clf.predict(X).tolist()
    np.testing.assert_allclose(proba, clf.predict_proba(X), atol=1e-4)


@pytest.fixture(scope="module")
def served(onnx_folder, tiny):
    """An exported folder, and the estimator, fitted again."""
    clf = BertFocalClassifier(tiny, max_epochs=1, lr=3e-3, batch_size=8, random_state=0)
    return onnx_folder, clf.fit(*imbalanced())


def test_labels_that_are_names_keep_their_type(served, data):
    folder, clf = served
    assert_answers_alike(OnnxClassifier(folder, n_threads=1), clf, data[0])
    assert_same_classes(OnnxClassifier(folder), clf)


def test_graph_tells_nothing_of_the_machine_it_was_made_on(served):
    content = (served[0] / "model.onnx").read_bytes()
    assert str(Path(torch.__file__).parents[1]).encode() not in content
    assert str(Path(skfocal.__file__).parent).encode() not in content


def test_labels_that_are_numbers_keep_their_type(served, make, data, tmp_path, monkeypatch):
    X, y = data
    clf = make(max_epochs=1).fit(X, np.where(y == "ham", 7, 9))
    # Its graph is the same: names and numbers stand in the other file.
    graph = served[0] / "model.onnx"
    monkeypatch.setattr(_export, "_write_graph", lambda *args: shutil.copy(graph, args[-1]))
    clf.to_onnx(tmp_path / "served")
    numbers = OnnxClassifier(tmp_path / "served", n_threads=1)
    assert_answers_alike(numbers, clf, X)
    assert_same_classes(numbers, clf)


def test_folder_is_replaced_only_if_it_is_an_export(served, tmp_path):
    folder, clf = shutil.copytree(served[0], tmp_path / "export"), served[1]
    other = tmp_path / "other"
    other.mkdir()
    (other / "model.onnx").write_text("kept")
    with pytest.raises(FileExistsError, match="folder must be new, empty or written by the same"):
        clf.to_onnx(other)
    assert (other / "model.onnx").read_text() == "kept"
    with pytest.raises(FileExistsError):
        clf.save_pretrained(folder)
    assert_same_answers(OnnxClassifier(folder), OnnxClassifier(served[0]), ["win"])


def test_a_length_beyond_the_positions_is_refused_when_the_folder_is_read(served, tmp_path):
    folder = Path(shutil.copytree(served[0], tmp_path / "longer"))
    head = json.loads((folder / "skfocal-onnx.json").read_text())
    (folder / "skfocal-onnx.json").write_text(json.dumps({**head, "max_length": 65}))
    with pytest.raises(ValueError, match=r"must be at most 64, the limit of the encoder.*Got 65"):
        OnnxClassifier(folder)
    (folder / "skfocal-onnx.json").write_text(json.dumps({**head, "max_length": 64}))
    assert OnnxClassifier(folder).predict(["win " * 200]).shape == (1,)


@pytest.mark.parametrize("X", ["a text", [], [1], [None]])
def test_what_is_no_list_of_texts_is_refused(served, X):
    with pytest.raises((TypeError, ValueError), match="X must|X holds no document"):
        OnnxClassifier(served[0]).predict(X)


@pytest.mark.parametrize("missing", ["onnxruntime", "tokenizers"])
def test_missing_package_is_named_with_the_extra(served, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf"{missing}: pip install 'skfocal\[onnx\]'"):
        OnnxClassifier(served[0])


def test_missing_exporter_is_named_with_the_extra(served, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"onnxscript: pip install 'skfocal\[onnx\]'"):
        served[1].to_onnx(tmp_path / "served")
    assert not (tmp_path / "served").exists()


@pytest.mark.slow
def test_minilm_on_reuters_is_served(tmp_path):
    X, y = fetch_reuters("r8", subset="train", return_X_y=True)
    clf = BertFocalClassifier(
        fetch_minilm(), alpha="balanced", freeze=5, max_epochs=1, max_length=128, random_state=0
    )
    with pytest.warns(UserWarning, match="have more than max_length=128"):
        clf.fit(X[:300], y[:300])
    clf.to_onnx(tmp_path / "served")
    assert_answers_alike(OnnxClassifier(tmp_path / "served"), clf, X[300:400])


def test_three_columns_or_a_bare_text_are_refused(onnx_folder, data):
    X, _ = data
    served = OnnxClassifier(onnx_folder)
    for wrong in (np.array([X[:3], X[:3]]), np.array("a text")):
        with pytest.raises(
            ValueError, match="X must have one column, the text, or two .* Got shape"
        ):
            served.predict(wrong)
    assert len(served.predict(np.array(X[:3])[:, None])) == 3


def test_a_batch_has_no_document_much_shorter_than_its_longest(onnx_folder, monkeypatch):
    served = OnnxClassifier(onnx_folder, n_threads=1)
    X = ["win " * n for n in (0, 1, 2, 3, 8, 10, 11, 30, 40, 41, 60, 60)]
    expected = np.concatenate([served.predict_proba([text]) for text in X])
    run, batches = served._run, []
    monkeypatch.setattr(served, "_run", lambda ids: batches.append(ids) or run(ids))
    np.testing.assert_allclose(served.predict_proba(X[::-1]), expected[::-1], atol=1e-6)
    lengths = [[len(row) for row in batch] for batch in batches]
    assert sum(map(len, lengths)) == len(X) and len(lengths) < len(X)
    assert all(min(batch) >= 0.75 * max(batch) for batch in lengths)


def test_weights_that_do_not_fit_into_one_file_are_refused_before_the_export(
    make, data, tmp_path, monkeypatch
):
    clf = make(max_epochs=1).fit(*data)
    monkeypatch.setattr(_export, "_MOST_BYTES", 10_000)
    monkeypatch.setattr(_export, "_write_graph", lambda *args: pytest.fail("exported"))
    with pytest.raises(ValueError, match=r"weights of .* GB. An ONNX file holds at most 0.00 GB"):
        clf.to_onnx(tmp_path / "graph")
    assert not (tmp_path / "graph").exists()


def test_large_weights_are_in_the_one_file_that_is_read(make, data, tmp_path, monkeypatch):
    from torch.onnx._internal.exporter import _onnx_program

    monkeypatch.setattr(_onnx_program, "_LARGE_MODEL_THRESHOLD", 0)
    clf = make(max_epochs=1).fit(*data)
    clf.to_onnx(tmp_path / "graph")
    clf.to_onnx(tmp_path / "graph")  # again, over its own files
    assert len([*(tmp_path / "graph").iterdir()]) == 3
    served = OnnxClassifier(tmp_path / "graph")
    np.testing.assert_allclose(served.predict_proba(data[0]), clf.predict_proba(data[0]), atol=0.02)


def test_special_tokens_without_embedding_are_refused_where_they_are_spelt(
    tiny_copy, data, tmp_path
):
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_copy)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    tokenizer.save_pretrained(tiny_copy)
    clf = BertFocalClassifier(tiny_copy, max_epochs=1, random_state=0).fit(*data)
    clf.to_onnx(tmp_path / "graph")
    served = OnnxClassifier(tmp_path / "graph")
    np.testing.assert_allclose(served.predict_proba(data[0]), clf.predict_proba(data[0]), atol=0.02)
    with pytest.raises(ValueError, match="Row 1 does: 'see <image> here'"):
        served.predict(["lunch", "see <image> here"])
    with OnnxBatcher(served) as batcher:
        with pytest.raises(ValueError, match="Row 0 does: 'see <image> here'"):
            batcher.submit(["see <image> here"])
        assert batcher.submit(["lunch"]).result(60)["labels"]


def test_a_text_without_tokens_does_not_join_a_batch(tiny_copy, data, tmp_path):
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_copy)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A", special_tokens=[])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        model_max_length=64,
    ).save_pretrained(tiny_copy)
    clf = BertFocalClassifier(tiny_copy, max_epochs=1, random_state=0).fit(*data)
    clf.to_onnx(tmp_path / "graph")
    with OnnxBatcher(OnnxClassifier(tmp_path / "graph")) as batcher:
        with pytest.raises(ValueError, match="X must have a token in each document"):
            batcher.submit(["lunch", ""])
        assert batcher.submit(["lunch"]).result(60)["labels"]
