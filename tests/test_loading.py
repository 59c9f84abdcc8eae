"""Never on the wrong weights or words: what is read, and what is refused before the training."""

import copy
import importlib.util
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import sklearn
import torch
from conftest import TINY, imbalanced
from safetensors.torch import load_file, save_file
from tiny_encoders import CORPUS, FAMILIES, change, subwords, wordpiece
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    XLMRobertaConfig,
    XLMRobertaModel,
    pipeline,
)

from skfocal import BertFocalClassifier
from skfocal._encoder.model_files import ModelFileError, model_files, read_tensors
from skfocal._encoder.module import load_module
from skfocal._encoder.pretrained import load_tokenizer
from skfocal._encoder.published_head import matching_rows
from skfocal._encoder.structure import needs_equal_lengths

WEIGHTS, PICKLED = "model.safetensors", "pytorch_model.bin"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Folder of a two-layer BERT of width 32 that knows few words, and so is read fast."""
    folder = tmp_path_factory.mktemp("tiny")
    n_tokens = wordpiece(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(BertConfig(**{**TINY, "vocab_size": n_tokens})).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def n_tokens(tiny):
    """The number of tokens that the tiny encoder knows."""
    return json.loads(Path(tiny, "config.json").read_text())["vocab_size"]


def fit(folder, data, **params):
    settings = {"max_epochs": 1, "lr": 3e-3, "batch_size": 40, "random_state": 0, **params}
    return BertFocalClassifier(str(folder), **settings).fit(*data)


@pytest.fixture(scope="module")
def answers_of_tiny(tiny):
    """The probabilities of `data` after a fit of the tiny encoder."""
    data = imbalanced()
    return fit(tiny, data).predict_proba(data[0])


def is_refused(folder, match, data=None):
    """Expect an error that names the model before anything is trained."""
    with pytest.raises(OSError, match=match) as caught:
        fit(folder, imbalanced() if data is None else data)
    assert str(caught.value).startswith(f"model={str(folder)!r:.200} cannot be loaded: ")


# -- the tokenizer -------------------------------------------------------------------------


def test_a_folder_without_tokenizer_files_names_them(tiny_copy):
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tiny_copy / file).unlink()
    is_refused(
        tiny_copy,
        "no vocabulary: it lacks tokenizer.json and vocab.txt, .*Save the tok",
    )


def test_tokens_without_embeddings_are_refused_with_the_cure(tiny_copy, n_tokens):
    tokenizer = AutoTokenizer.from_pretrained(tiny_copy)
    tokenizer.add_tokens(["prizemoney"])
    tokenizer.save_pretrained(tiny_copy)
    found = f"ids up to {n_tokens}, and its encoder has {n_tokens} emb"
    is_refused(tiny_copy, f"{found}.*resize_token_embedd")


def test_a_tokenizer_without_a_padding_token_pads_with_its_end(tmp_path):
    n_tokens = subwords(tmp_path, pad=None)
    BertModel(BertConfig(**{**TINY, "vocab_size": n_tokens})).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer.pad_token == tokenizer.eos_token == "</s>"


def slow_tokenizer(folder):
    change(folder / "tokenizer_config.json", tokenizer_class="BertweetTokenizer")
    words = " 1\n".join(["win", "money", "lunch"])
    (folder / "vocab.txt").write_text(words + " 1\n")
    (folder / "bpe.codes").write_text("w i 1\n")


@pytest.mark.filterwarnings("ignore:emoji is not installed")
def test_tokenizer_json_is_taken_where_the_class_is_slow(tiny, tiny_copy):
    slow_tokenizer(tiny_copy)
    text = "win the money"
    expected = load_tokenizer(tiny)(text)["input_ids"]
    assert load_tokenizer(str(tiny_copy))(text)["input_ids"] == expected


@pytest.mark.filterwarnings("ignore:emoji is not installed")
def test_a_slow_tokenizer_is_refused_with_a_way_out(tiny_copy):
    slow_tokenizer(tiny_copy)
    (tiny_copy / "tokenizer.json").unlink()
    is_refused(tiny_copy, r"its tokenizer is slow \(BertweetTokenizer\), without.*xlm-roberta-base")


def test_a_slow_tokenizer_is_refused_in_one_step_where_its_package_is_missing(tiny_copy):
    pytest.importorskip("transformers.models.bert_japanese")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]
    (tiny_copy / "vocab.txt").write_text("\n".join(words))
    (tiny_copy / "tokenizer.json").unlink()
    change(
        tiny_copy / "tokenizer_config.json",
        tokenizer_class="BertJapaneseTokenizer",
        word_tokenizer_type="mecab",
    )
    is_refused(tiny_copy, r"its tokenizer is slow \(\w[^)]+\), without the tokenizer.json")


@pytest.mark.parametrize("kind", ["deberta", "xlm-roberta"])
def test_a_model_with_a_sentencepiece_file_alone_is_read(kind, tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    (tmp_path / "corpus").write_text("\n".join(CORPUS))
    names = {"deberta": "spm.model", "xlm-roberta": "sentencepiece.bpe.model"}
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "corpus"),
        model_prefix=str(tmp_path / "m"),
        vocab_size=90,
        model_type="unigram",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (tmp_path / "m.model").rename(tmp_path / names[kind])
    settings = {**TINY, "vocab_size": 200}
    if kind == "deberta":
        DebertaV2Model(DebertaV2Config(**settings)).save_pretrained(tmp_path)
    else:
        settings |= {"pad_token_id": 1, "max_position_embeddings": 66}
        XLMRobertaModel(XLMRobertaConfig(**settings)).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(str(tmp_path))
    assert len(tokenizer.tokenize("win money prize")) >= 3
    assert tokenizer.unk_token_id not in tokenizer("win money prize")["input_ids"]
    X, y = ["win money prize", "lunch meeting"] * 6, ["spam", "ham"] * 6
    proba = fit(tmp_path, (X, y)).predict_proba(X[:2])
    assert abs(proba[0] - proba[1]).max() > 1e-6


@pytest.mark.parametrize("package", ["sentencepiece", "google.protobuf"])
def test_a_missing_sentencepiece_is_named(package, tiny_copy, monkeypatch):
    (tiny_copy / "tokenizer.json").unlink()
    (tiny_copy / "spm.model").write_bytes(b"")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else find(name)
    )
    is_refused(tiny_copy, r"only a file that sentencepiece reads: pip install 'skfocal\[sentence")


@pytest.mark.filterwarnings("ignore:Deprecated in 0.9.0")  # transformers 5.10
def test_added_tokens_are_no_vocabulary(tiny_copy):
    (tiny_copy / "tokenizer.json").unlink()
    (tiny_copy / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
    added = {i: {"content": f"[unused{i}]", "special": False} for i in range(5, 25)}
    change(tiny_copy / "tokenizer_config.json", added_tokens_decoder=added)
    is_refused(tiny_copy, "its tokenizer has no vocabulary")


def test_special_tokens_without_a_role_need_no_embedding(tiny_copy, data):
    tokenizer = AutoTokenizer.from_pretrained(tiny_copy)
    tokenizer.add_tokens(["<image>"], special_tokens=True)  # Gemma has such ones
    tokenizer.save_pretrained(tiny_copy)
    clf = fit(tiny_copy, data)
    assert len(clf.predict(data[0])) == len(data[0])
    spelt = ["lunch", "see <image> here", "win"]
    with pytest.raises(ValueError, match="Row 1 spells out one of its special tokens: 'see <im"):
        clf.predict(spelt)
    with pytest.raises(ValueError, match="Row 1 spells out one of its special tokens: 'see <im"):
        fit(tiny_copy, (spelt, ["ham", "ham", "spam"]))
    pairs = [("a", "lunch"), ("b", "win <image>")]
    with pytest.raises(ValueError, match="Row 1 spells out"):
        fit(tiny_copy, (pairs, ["ham", "spam"]))


# -- unknown tokens ------------------------------------------------------------------------


def test_documents_of_another_script_are_warned_about_with_their_characters(minilm):
    texts = ["สวัสดี ครับ", "ขอบคุณ มาก", "great movie", "bad movie"] * 2
    with pytest.warns(UserWarning, match=r"^\d\d% of all tokens are unknown.*'[^']*ค") as caught:
        fit(minilm, (texts, [0, 1, 0, 1] * 2), freeze=6)
    assert len([w for w in caught if "unknown" in str(w.message)]) == 1


def test_a_few_unknown_tokens_are_not_worth_a_warning(minilm):
    texts = ["a really great movie that all of us loved 😂", "a bad one that nobody liked"] * 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(minilm, (texts, [0, 1] * 4), freeze=6)


def test_unknown_tokens_of_second_texts_count(minilm):
    pairs = [("good", "สวัสดี"), ("bad", "ครับ"), ("so so", "ครับ")] * 4
    with pytest.warns(UserWarning, match="unknown to the model's tokenizer"):
        fit(minilm, (pairs, [0, 1] * 6), freeze=6)


# -- the weights ---------------------------------------------------------------------------


def edit_weights(folder, edit):
    weights = load_file(folder / WEIGHTS)
    edit(weights)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def test_a_missing_tensor_of_the_encoder_is_named(tiny_copy):
    name = "encoder.layer.1.output.dense.bias"
    edit_weights(tiny_copy, lambda weights: weights.pop(name))
    is_refused(tiny_copy, f"lack 1 of the encoder's .*'bert.{name}'. Is config.json that of these")


@pytest.mark.parametrize(
    "settings, match",
    [
        ({"max_position_embeddings": 99}, r"position_embeddings.weight' has shape \(64, 32\)"),
        ({"vocab_size": 30600}, r"word_embeddings.weight' has shape \(N, 32\) in its weights"),
        ({"num_hidden_layers": 1}, r"have 16 tensors more .*'encoder.layer.1."),
        ({"num_hidden_layers": 3}, r"lack 16 of the encoder's"),
    ],
    ids=["positions", "words", "fewer layers", "more layers"],
)
def test_an_edited_configuration_is_refused(tiny_copy, n_tokens, settings, match):
    change(tiny_copy / "config.json", **settings)
    is_refused(tiny_copy, match.replace("N", f"{n_tokens}"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_is_named_though_no_text_needs_it(tiny_copy, value):
    def edit(weights):
        weights["embeddings.word_embeddings.weight"][-1, 3] = value

    edit_weights(tiny_copy, edit)
    is_refused(tiny_copy, "its weight 'bert.embeddings.word_embeddings.weight' is not finite eve")


def test_head_and_pooler_may_be_missing(tiny_copy, data):
    def edit(weights):
        for name in [name for name in weights if "pooler" in name or "classifier" in name]:
            del weights[name]

    edit_weights(tiny_copy, edit)
    assert fit(tiny_copy, data).pretrained_head_ is False


DAMAGES = {
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid 1\n", "git lfs pull"),
    "empty": (b"", "it is empty. Download it again"),
    "half": (None, "bytes are not those of a whole file"),
}


@pytest.mark.parametrize("name", [WEIGHTS, PICKLED])
@pytest.mark.parametrize("content, match", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_named_with_the_cure(tiny_copy, name, content, match):
    path = tiny_copy / name
    if name == PICKLED:
        as_pickled(tiny_copy)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    is_refused(tiny_copy, f"{path} cannot be read: .*{match}")


# -- pickled weights -----------------------------------------------------------------------


def as_pickled(folder, parts=1):
    """Replace the safetensors file of a folder by pickled ones."""
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    if parts == 1:
        torch.save(weights, folder / PICKLED)
        return
    names = [f"pytorch_model-{i + 1:05}-of-{parts:05}.bin" for i in range(parts)]
    where = {name: names[i % parts] for i, name in enumerate(weights)}
    for file in names:
        torch.save({k: v for k, v in weights.items() if where[k] == file}, folder / file)
    (folder / f"{PICKLED}.index.json").write_text(json.dumps({"weight_map": where}))


@pytest.mark.parametrize("parts", [1, 3])
def test_pickled_weights_give_the_bits_of_safetensors(answers_of_tiny, tiny_copy, data, parts):
    as_pickled(tiny_copy, parts)
    assert np.array_equal(fit(tiny_copy, data).predict_proba(data[0]), answers_of_tiny)


class Runs:
    """A pickle that makes a folder when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("save", [torch.save, lambda x, path: path.write_bytes(pickle.dumps(x))])
def test_code_in_pickled_weights_does_not_run(tiny_copy, tmp_path, save):
    (tiny_copy / WEIGHTS).unlink()
    save({"bert.x": Runs(tmp_path / "made")}, tiny_copy / PICKLED)
    is_refused(tiny_copy, f"{PICKLED} (holds more than tensors, and none of it was run|cannot be)")
    assert not (tmp_path / "made").exists()


@pytest.fixture(scope="module")
def mutated(tmp_path_factory):
    """A folder with few and small pickled weights, for mutations."""
    folder = tmp_path_factory.mktemp("mutated")
    n_tokens = wordpiece(folder)
    config = {**TINY, "vocab_size": n_tokens, "num_hidden_layers": 1, "hidden_size": 8}
    BertModel(BertConfig(**config)).save_pretrained(folder)
    as_pickled(folder)
    return folder


@pytest.mark.parametrize("seed", range(4))
def test_mutated_pickled_weights_load_or_are_refused(mutated, seed):
    rng = np.random.RandomState(seed)
    whole = (mutated / PICKLED).read_bytes()
    head = whole.find(b"data.pkl") + 400
    for _ in range(25):
        changed = bytearray(whole)
        for place in rng.randint(0, head if rng.rand() < 0.7 else len(whole), rng.randint(1, 6)):
            changed[place] = rng.randint(256)
        path = mutated / "mutated.bin"
        path.write_bytes(changed[: rng.randint(1, len(whole))] if rng.rand() < 0.1 else changed)
        try:
            tensors = read_tensors([str(path)])
        except ModelFileError as error:
            assert str(path) in str(error)
        else:
            assert all(map(torch.is_tensor, tensors.values()))


def test_pickled_weights_must_be_tensors_by_name(tiny_copy):
    (tiny_copy / WEIGHTS).unlink()
    torch.save({"model": {"weight": torch.ones(2)}}, tiny_copy / PICKLED)
    is_refused(tiny_copy, r"must hold tensors by name. Got \['dict'\]")


@pytest.mark.parametrize("name", ["../other.bin", "/etc/passwd", "", 3, ".."])
def test_shards_lie_in_the_folder(tiny_copy, name):
    as_pickled(tiny_copy, 2)
    change(tiny_copy / f"{PICKLED}.index.json", weight_map={"bert.x": name})
    is_refused(tiny_copy, "a model's files must lie in its folder")


def test_safetensors_are_preferred(answers_of_tiny, tiny_copy, data):
    (tiny_copy / PICKLED).write_bytes(b"broken")
    assert np.array_equal(fit(tiny_copy, data).predict_proba(data[0]), answers_of_tiny)


# -- published heads -----------------------------------------------------------------------

NAMES = ["positive", "negative", "neutral"]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder with a head whose labels are not in alphabetical order."""
    folder = tmp_path_factory.mktemp("published")
    n_tokens = wordpiece(folder)
    config = BertConfig(
        **{**TINY, "vocab_size": n_tokens},
        id2label=dict(enumerate(NAMES)),
        label2id={name: i for i, name in enumerate(NAMES)},
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = BertForSequenceClassification(config)
        inputs = AutoTokenizer.from_pretrained(folder)(TEXTS, return_tensors="pt", padding=True)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(6 if parameter.ndim > 1 else 1)
            model.classifier.bias -= model.eval()(**inputs).logits.mean(0)  # each class has some
        model.save_pretrained(folder)
    return folder


TEXTS = ["win money", "lunch", "the meeting moved", "cash now free", "team report monday", "offer"]


def test_before_training_answers_are_those_of_the_pipeline(published):
    answers = pipeline("text-classification", str(published))(TEXTS)
    expected = [answer["label"] for answer in answers]
    assert len(set(expected)) > 1
    classes = sorted(NAMES)
    tokenizer = load_tokenizer(str(published))
    module = load_module(str(published), classes, pad_token_id=tokenizer.pad_token_id).eval()
    with torch.no_grad():
        inputs = tokenizer(TEXTS, return_tensors="pt", padding=True)
        found = module(inputs["input_ids"], inputs["attention_mask"]).argmax(1)
    assert [classes[i] for i in found] == expected


def test_a_head_of_the_same_labels_is_kept_and_said(published, capsys):
    clf = fit(published, (TEXTS, np.array(NAMES * 2)), lr=1e-9, verbose=1, proba="softmax")
    assert clf.pretrained_head_ is True
    assert "that of the published classifier" in capsys.readouterr().out
    answers = pipeline("text-classification", str(published), top_k=None)(TEXTS)
    scores = [{entry["label"]: entry["score"] for entry in row} for row in answers]
    expected = [[row[label] for label in clf.classes_] for row in scores]
    np.testing.assert_allclose(clf.predict_proba(TEXTS), expected, atol=1e-4)


def test_a_head_of_other_labels_is_replaced_with_a_warning(published):
    with pytest.warns(UserWarning, match="as many classes as y, but other labels, so a new head"):
        clf = fit(published, (TEXTS, [0, 1, 2] * 2))
    assert clf.pretrained_head_ is False


def test_a_head_of_another_size_is_replaced_without_one(published):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fit(published, (TEXTS, ["positive", "negative"] * 3)).pretrained_head_ is False


def test_a_fit_that_goes_on_remembers_where_its_head_came_from(published):
    data = TEXTS, np.array(NAMES * 2)
    clf = fit(published, data, warm_start=True)
    again = pickle.loads(pickle.dumps(clf)).fit(*data)
    assert again.pretrained_head_ is True


@pytest.mark.parametrize(
    "names, classes, expected",
    [
        (["b", "a"], ["a", "b"], [1, 0]),
        (["B ", "a"], ["a", "b"], [1, 0]),
        (["LABEL_0", "LABEL_1"], [0, 1], [0, 1]),
        (["LABEL_0", "LABEL_1"], [0.0, 1.0], [0, 1]),
        (["LABEL_0", "LABEL_1"], ["LABEL_1", "LABEL_0"], [1, 0]),
        (["1", "0"], [0, 1], [1, 0]),
        (["LABEL_0", "LABEL_1"], [1, 2], None),
        (["no", "yes"], [0, 1], None),
        (["no", "yes"], [False, True], None),
        (["False", "True"], [False, True], [0, 1]),
        (["a", "A"], ["a", "A"], None),
        (["a", "b", "c"], ["a", "b"], None),
        (["0.5", "1.5"], [0.5, 1.5], [0, 1]),
        (["sublabel_1", "b"], ["sub1", "b"], None),
    ],
)
def test_labels_match_by_how_they_read(names, classes, expected):
    assert matching_rows(dict(enumerate(names)), classes) == expected


@pytest.mark.parametrize("first", [1, -1])
def test_rows_that_are_not_counted_from_zero_match_nothing(first):
    assert matching_rows({first: "a", first + 1: "b"}, ["a", "b"]) is None


@pytest.fixture
def published_copy(published, tmp_path):
    return Path(shutil.copytree(published, tmp_path / "copy"))


def test_half_a_head_is_none(published_copy):
    edit_weights(published_copy, lambda weights: weights.pop("bert.pooler.dense.weight"))
    clf = fit(published_copy, (TEXTS, np.array(NAMES * 2)))
    assert clf.pretrained_head_ is False


def test_a_head_of_several_labels_is_not_kept_for_one(published_copy):
    change(published_copy / "config.json", problem_type="multi_label_classification")
    with pytest.warns(UserWarning, match="so a new head was drawn"):
        assert fit(published_copy, (TEXTS, np.array(NAMES * 2))).pretrained_head_ is False


# -- sentence-transformers -----------------------------------------------------------------


def as_sentence_transformer(folder, path):
    modules = [
        {"idx": 0, "name": "0", "path": path, "type": "sentence_transformers.models.Transformer"},
        {
            "idx": 1,
            "name": "1",
            "path": "1_Pooling",
            "type": "sentence_transformers.models.Pooling",
        },
    ]
    inside = folder / path
    inside.mkdir(exist_ok=True)
    for file in [file for file in folder.iterdir() if path and file.is_file()]:
        file.rename(inside / file.name)
    (folder / "modules.json").write_text(json.dumps(modules))
    (inside / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 24}))


@pytest.mark.parametrize("path", ["", "0_Transformer"])
def test_sentence_transformers_are_read(tiny, tiny_copy, data, path):
    as_sentence_transformer(tiny_copy, path)
    clf = fit(tiny_copy, data)
    assert clf.max_length_ == 24
    expected = fit(tiny, data, max_length=24).predict_proba(data[0])
    assert np.array_equal(clf.predict_proba(data[0]), expected)
    assert fit(tiny_copy, data, max_length=60).max_length_ == 60  # the positions allow it


# -- lengths -------------------------------------------------------------------------------


def test_without_max_length_a_document_has_a_length_one_can_afford(tmp_path):
    n_tokens = wordpiece(tmp_path, length=4096)
    config = BertConfig(**{**TINY, "vocab_size": n_tokens, "max_position_embeddings": 4096})
    BertModel(config).save_pretrained(tmp_path)
    data = ["win " * 700, "lunch"] * 3, [0, 1] * 3
    with pytest.warns(UserWarning, match=r"longest has 702\. To read .* at least 1\.3\d times as"):
        assert fit(tmp_path, data).max_length_ == 512
    assert fit(tmp_path, data, max_length=1000).max_length_ == 1000


# -- causes --------------------------------------------------------------------------------


def test_a_configuration_without_model_type_is_named(tiny_copy):
    change(tiny_copy / "config.json", model_type=None)
    is_refused(tiny_copy, 'config.json has no model_type.*"model_type": "bert"')


def test_an_unknown_architecture_is_named(tiny_copy):
    change(tiny_copy / "config.json", model_type="brandnew")
    is_refused(tiny_copy, "the installed transformers has no architecture of the model_type")


def test_an_adapter_without_its_encoder_is_named(tiny_copy):
    (tiny_copy / "config.json").rename(tiny_copy / "adapter_config.json")
    is_refused(tiny_copy, "it is an adapter without its encoder. Merge the two")


def test_an_architecture_without_a_classifier_is_named(tiny_copy):
    change(tiny_copy / "config.json", model_type="clip_text_model")
    is_refused(tiny_copy, "its architecture has no form for sequence classification")


def test_an_encoder_without_its_decoder_is_named(tmp_path):
    FAMILIES["t5"](tmp_path)
    edit_weights(
        tmp_path,
        lambda weights: [weights.pop(name) for name in [*weights] if "decoder" in name],
    )
    is_refused(tmp_path, "its weights hold an encoder alone, and T5ForSequenceClassification")


@pytest.mark.parametrize("settings", [{"hidden_act": "foo"}, {"num_attention_heads": 0}])
def test_a_senseless_configuration_is_refused_by_the_name_of_the_model(tiny_copy, settings):
    change(tiny_copy / "config.json", **settings)
    is_refused(tiny_copy, "transformers said: ")


def test_settings_of_others_in_a_configuration_mean_nothing(tiny_copy, data):
    mine = {"by_length": True, "max_seq_length": 8}
    change(tiny_copy / "config.json", max_seq_length=8, by_length=True, skfocal=mine)
    clf = fit(tiny_copy, data)
    assert clf.max_length_ == 64
    assert not needs_equal_lengths(clf.net_.plain_module().model)


def test_links_to_nowhere_do_no_harm(tiny_copy, data):
    (tiny_copy / ".#lock").symlink_to(tiny_copy / "nowhere")
    assert len(fit(tiny_copy, data).predict(data[0])) == len(data[0])


def test_an_odd_list_of_modules_is_not_followed(tiny_copy, data):
    for modules in (["x"], {}, "x", [], [{"type": None}]):
        (tiny_copy / "modules.json").write_text(json.dumps(modules))
        files = model_files(str(tiny_copy))
        assert (files.place, files.subfolder) == (str(tiny_copy), ""), modules
        assert files.max_seq_length is None, modules
    assert fit(tiny_copy, data).max_length_ == 64


# -- code of its own -----------------------------------------------------------------------


@pytest.fixture
def own_code(tmp_path):
    folder = tmp_path / "models--org--name"  # as the cache names them
    folder.mkdir()
    FAMILIES["own_code"](folder)
    return folder


def test_code_is_found_again_by_a_pickle(own_code, data):
    clf = fit(own_code, data, trust_remote_code=True)
    with sklearn.config_context(enable_metadata_routing=True):
        clf.set_fit_request(sample_weight=True)  # which refers to clf itself
    for again in (pickle.loads(pickle.dumps(clf)), copy.deepcopy(clf)):
        assert np.array_equal(again.predict_proba(data[0]), clf.predict_proba(data[0]))
        assert vars(again).keys() == vars(clf).keys()
        # There is no second model. Older versions of scikit-learn keep the name of the class.
        assert again._metadata_request.owner in (again, "BertFocalClassifier")


def test_a_state_alone_runs_no_code(own_code, data):
    sio = pytest.importorskip("skops.io")
    clf = fit(own_code, data, trust_remote_code=True)
    with pytest.raises(ValueError, match="nothing but a pickle or joblib file may run"):
        BertFocalClassifier.__new__(BertFocalClassifier).__setstate__(clf.__getstate__())
    with pytest.raises(ValueError, match="nothing but a pickle or joblib file may run"):
        blank = BertFocalClassifier.__new__(BertFocalClassifier)
        blank.__setstate__({**clf.__getstate__(), "_may_run_code": True})
    with pytest.raises(ValueError, match="nothing but a pickle or joblib file may run"):
        sio.loads(sio.dumps(clf), trusted=["skfocal.classifier.BertFocalClassifier"])


def test_weights_under_other_names_are_checked_too(own_code, data):
    code = (own_code / "code.py").read_text()
    (own_code / "code.py").write_text(
        code.replace('base_model_prefix = "model"', 'base_model_prefix = "other"')
    )
    edit_weights(own_code, lambda weights: weights.pop("model.encoder.weight"))
    with pytest.raises(OSError, match="its weights lack 1 .*'model.encoder.weight'"):
        fit(own_code, data, trust_remote_code=True)


# -- formats -------------------------------------------------------------------------------


def test_a_folder_of_other_formats_says_so(tiny_copy):
    (tiny_copy / WEIGHTS).rename(tiny_copy / "flax_model.msgpack")
    is_refused(tiny_copy, "neither model.safetensors nor pytorch_model.bin")


# -- the hub -------------------------------------------------------------------------------

MAIN, CONVERTED = "a" * 40, "b" * 40


def hub_of(repositories):
    """Return a server that gives the files of folders by the names of repositories."""

    class Hub(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def answer(self, code, body=b"", **headers):
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            name, _, rest = self.path.strip("/").partition("/resolve/")
            if self.path.startswith("/api/"):
                self.answer(404, X_Error_Code="EntryNotFound")
            elif name == "test/gated":
                self.answer(403, X_Error_Code="GatedRepo", X_Error_Message="Access is restricted.")
            elif name not in repositories or "/" not in rest:
                self.answer(404, X_Error_Code="RepoNotFound", X_Error_Message="Not found")
            else:
                self.file(repositories[name] / rest.partition("/")[2])

        def file(self, path):
            if not path.is_file():
                self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=MAIN)
                return
            body = path.read_bytes()
            self.answer(200, body, ETag=f'"{hash(body):x}"', X_Repo_Commit=MAIN)

    return ThreadingHTTPServer(("127.0.0.1", 0), Hub)


SCRIPT = """
import sys, torch
torch.set_num_threads(1)
from skfocal import BertFocalClassifier
X, y = ["win money prize", "meeting team project"] * 6, [0, 1] * 6
for name in sys.argv[1:]:
    try:
        clf = BertFocalClassifier(name, max_epochs=1, max_length=16, random_state=0).fit(X, y)
        print(name, "fitted", float(clf.predict_proba(X)[0, 0]))
    except OSError as error:
        print(name, str(error).replace(chr(10), " "))
"""


def by_name(home, names, **environment):
    """Fit models by their names in a new process; return what it printed, by name."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *names],
        env={**os.environ, "HF_HOME": str(home), "PYTHONPATH": os.getcwd(), **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


@pytest.mark.slow
def test_models_by_name_on_the_hub_and_then_without_it(tiny, tiny_copy, tmp_path):
    as_pickled(tiny_copy)
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in ("config.json", WEIGHTS):
        shutil.copy(Path(tiny, file), bare)
    home = tmp_path / "home"
    repositories = {"test/pickled": tiny_copy, "test/safe": Path(tiny), "test/bare": bare}
    with hub_of(repositories) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            address = f"http://127.0.0.1:{server.server_port}"
            names = [*repositories, "test/gated", "test/none"]
            online = by_name(home, names, HF_ENDPOINT=address, HF_HUB_OFFLINE="0")
        finally:
            server.shutdown()
            thread.join()
    assert online["test/pickled"] == online["test/safe"]  # in all digits
    assert online["test/safe"].startswith("fitted")
    assert "it lacks tokenizer.json and vocab.txt" in online["test/bare"]
    assert "Accept the terms on its page" in online["test/gated"]
    assert "the Hugging Face hub has no such model" in online["test/none"]

    offline = by_name(home, ["test/pickled", "test/new"], HF_HUB_OFFLINE="1")
    assert offline["test/pickled"] == online["test/pickled"]
    assert "HF_HUB_OFFLINE=1 keeps transformers from asking" in offline["test/new"]

    # Programs of before took weights from a pull request: only these are in the cache.
    cache = home / "hub" / "models--test--pickled"
    (cache / "snapshots" / MAIN / PICKLED).unlink()
    snapshot = cache / "snapshots" / CONVERTED
    snapshot.mkdir()
    shutil.copy(Path(tiny, WEIGHTS), snapshot)
    reference = cache / "refs" / "refs" / "pr"
    reference.mkdir(parents=True)
    (reference / "4").write_text(CONVERTED)
    again = by_name(home, ["test/pickled"], HF_HUB_OFFLINE="1")
    assert again["test/pickled"] == online["test/pickled"]
