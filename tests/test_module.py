"""Loading, freezing, parameter groups and plain state, over six architectures."""

import copy
import warnings

import numpy as np
import pytest
import torch
import transformers as hf
from conftest import TINY, imbalanced
from tiny_encoders import wordpiece

from skfocal import BertFocalClassifier
from skfocal._encoder import pretrained
from skfocal._encoder.dropout import dropouts, set_attention_dropout
from skfocal._encoder.module import load_module
from skfocal._encoder.quantization import reduced_copy
from skfocal._encoder.structure import freeze_layers, layers_of, length_limit, parameter_depths
from skfocal._storage.encoder_state import module_from_plain, module_to_plain
from skfocal._training.optimization import parameter_groups

SMALL = {k: v for k, v in TINY.items() if k != "max_position_embeddings"}
CONFIGS = {
    "bert": hf.BertConfig(**TINY),
    "distilbert": hf.DistilBertConfig(
        vocab_size=30522, dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=64
    ),
    # RoBERTa counts positions from the padding token's id + 1.
    "roberta": hf.RobertaConfig(
        **SMALL, max_position_embeddings=65, pad_token_id=0, bos_token_id=101, eos_token_id=102
    ),
    "deberta-v2": hf.DebertaV2Config(
        **TINY, relative_attention=True, pos_att_type=["p2c", "c2p"], pad_token_id=0
    ),
    "modernbert": hf.ModernBertConfig(
        **TINY, pad_token_id=0, bos_token_id=101, eos_token_id=102, cls_token_id=101,
        sep_token_id=102,
    ),
    "electra": hf.ElectraConfig(**TINY, embedding_size=32),
}  # fmt: skip


@pytest.fixture(scope="module", params=CONFIGS)
def encoder(request, tmp_path_factory):
    """Folder of a tiny random encoder of each architecture."""
    folder = tmp_path_factory.mktemp(request.param)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        # Of few words, so that it is stored and read soon.
        config = copy.deepcopy(CONFIGS[request.param])
        config.update({"vocab_size": wordpiece(folder), "bos_token_id": 2, "eos_token_id": 3})
        config.update({"cls_token_id": 2, "sep_token_id": 3})
        model = hf.AutoModelForSequenceClassification.from_config(config)
    model.save_pretrained(folder)
    return str(folder)


def load(folder, labels=("a", "b", "c"), **kwargs):
    tokenizer = pretrained.load_tokenizer(folder)
    return load_module(folder, labels, pad_token_id=0, **kwargs), tokenizer


@pytest.mark.filterwarnings("ignore:The head of model")
def test_every_architecture_fits_predicts_and_pickles(encoder):
    import pickle

    X, y = imbalanced(12, 4)
    clf = BertFocalClassifier(
        encoder, max_epochs=6, lr=3e-3, batch_size=8, freeze=1, layer_decay=0.9, random_state=0
    ).fit(X, y)
    proba = clf.predict_proba(X)
    assert proba.shape == (16, 2) and np.isfinite(proba).all()
    # Against the worst epoch: the large logits of a random ModernBERT grow in the first steps.
    losses = clf.history_[:, "train_loss"]
    assert losses[-1] < max(losses)
    # A document's answer does not depend on the padding that its batch mates ask for.
    alone = clf.predict_proba(X[:1])
    np.testing.assert_allclose(alone, proba[:1], atol=1e-5)
    again = pickle.loads(pickle.dumps(clf))
    assert np.array_equal(again.predict_proba(X), proba)


def test_every_architecture_has_a_length_limit_it_can_take(encoder):
    module, tokenizer = load(encoder)
    tokenizer.model_max_length = 10**30  # what tokenizers say that know no limit
    limit = length_limit(module.model, tokenizer)
    assert limit == 64
    ids = torch.full((1, limit), 10)
    assert module.eval()(ids, torch.ones_like(ids)).isfinite().all()


def test_depths_go_from_embeddings_to_head(encoder):
    module, _ = load(encoder)
    depths = [depth for _, depth in parameter_depths(module.model)]
    assert set(depths) == {0, 1, 2, 3}
    assert len(depths) == len(list(module.parameters()))


def test_freezing_stops_embeddings_and_lower_layers(encoder):
    module, _ = load(encoder)
    freeze_layers(module.model, 0)
    assert all(p.requires_grad for p in module.parameters())
    freeze_layers(module.model, 1)
    for parameter, depth in parameter_depths(module.model):
        assert parameter.requires_grad == (depth > 1)
    with pytest.raises(ValueError, match=r"freeze must be at most the 2 layers.*Got 3"):
        freeze_layers(module.model, 3)


def test_groups_decay_no_bias_and_no_norm_and_hold_each_parameter_once(encoder):
    module, _ = load(encoder)
    groups = parameter_groups(module.model, lr=1.0, weight_decay=0.1, layer_decay=0.5)
    names = {id(p): n for n, p in module.named_parameters()}
    for group in groups:
        for p in group["params"]:
            name = names.pop(id(p)).lower()
            is_plain = name.endswith("bias") or "norm" in name
            assert group["weight_decay"] == (0.0 if is_plain else 0.1), name
    assert not names
    assert {g["lr"] for g in groups} == {1.0, 0.5, 0.25, 0.125}


@pytest.mark.parametrize("probability", [0.0, 0.3])
def test_dropout_reaches_modules_and_attention(encoder, probability):
    module, _ = load(encoder, dropout=probability)
    found = {m.p for m in module.modules() if isinstance(m, torch.nn.Dropout)}
    assert found == {probability}
    if probability == 0:
        module.train()
        ids = torch.randint(5, 60, (4, 20))
        assert torch.equal(module(ids, torch.ones_like(ids)), module(ids, torch.ones_like(ids)))


def test_attention_dropout_is_set_apart(encoder):
    module, _ = load(encoder, dropout=0.3, attention_dropout=0.125)
    kinds = {m.p for m in module.modules() if isinstance(m, torch.nn.Dropout)}
    numbers = {getattr(m, "attention_dropout", None) for m in module.modules()}
    assert 0.3 in kinds and 0.125 in kinds | numbers and kinds <= {0.3, 0.125}
    n_layers = len(layers_of(module.model))
    apart = [
        m for m in module.modules()
        if getattr(m, "p", None) == 0.125 or getattr(m, "attention_dropout", None) == 0.125
    ]  # fmt: skip
    assert len(apart) >= n_layers


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_every_architecture_predicts_in_less_precision(encoder, precision):
    module, _ = load(encoder)
    module.eval()
    ids = torch.randint(5, 60, (4, 20), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[2, 12:] = 0
    with torch.inference_mode():
        plain = module(ids, mask)
        reduced = reduced_copy(module, precision)(ids, mask)
    assert reduced.dtype == torch.float32
    assert 0 < (reduced - plain).abs().max() < 0.1 * plain.std()


def test_dropout_survives_plain_data(encoder):
    module, tokenizer = load(encoder, dropout=0, attention_dropout=0.125)
    again, _ = module_from_plain(module_to_plain(module, tokenizer))
    assert dropouts(again.model) == dropouts(module.model)
    assert {p for *_, p in dropouts(again.model)} == {0.0, 0.125}


def test_attention_dropout_that_cannot_be_found_is_refused():
    class Odd(torch.nn.Module):
        pass

    with pytest.raises(ValueError, match=r"attention_dropout must be None for Odd.*Got 0\.1"):
        set_attention_dropout(Odd(), 0.1)


def test_dropout_none_keeps_that_of_the_configuration(tiny):
    module, _ = load(tiny)
    assert {m.p for m in module.modules() if isinstance(m, torch.nn.Dropout)} == {0.1}


def test_labels_are_in_the_configuration(tiny):
    module, _ = load(tiny, labels=["ham", 3])
    assert module.model.config.id2label == {0: "ham", 1: "3"}
    assert module.model.config.label2id == {"ham": 0, "3": 1}


def test_pretrained_weights_are_loaded_and_the_head_is_new(minilm):
    from safetensors.torch import load_file

    module, tokenizer = load(minilm)
    published = load_file(f"{minilm}/model.safetensors")
    state = module.model.base_model.state_dict()
    for name, value in published.items():
        if name in state:
            assert torch.equal(state[name], value), name
    left_out = set(published) - set(state) - {"embeddings.position_ids"}
    assert left_out == {"pooler.dense.weight", "pooler.dense.bias"}  # it takes the mean
    assert module.model.classifier.out_features == 3
    assert length_limit(module.model, tokenizer) == 512


def test_loading_prints_nothing(minilm, capfd):
    load(minilm)
    out, err = capfd.readouterr()
    assert out == err == ""


# -- what cannot be loaded ---------------------------------------------------------------------


def test_unknown_name_says_what_was_looked_for_and_how_to_go_on():
    with pytest.raises(
        OSError, match=r"'no/such-model' cannot be loaded: no folder of that name"
    ) as e:
        pretrained.load_tokenizer("no/such-model")
    assert "path of a folder" in str(e.value) and "fetch_minilm" in str(e.value)


def test_folder_without_a_model_says_what_it_holds(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(OSError, match=r"holds \['notes.txt'\]. A folder needs config.json"):
        load_module(str(tmp_path), ["a", "b"], pad_token_id=0)


def test_weights_of_another_architecture_are_refused(tiny_copy):
    from safetensors.torch import save_file

    save_file({"other.weight": torch.zeros(2)}, tiny_copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(OSError, match="weights for another architecture"):
        load(str(tiny_copy))


def test_code_of_the_model_does_not_run_unasked(tiny_copy):
    import json

    config = json.loads((tiny_copy / "config.json").read_text())
    config["model_type"] = "new_kind"
    config["auto_map"] = {
        "AutoConfig": "evil.Config",
        "AutoModelForSequenceClassification": "evil.M",
    }
    (tiny_copy / "config.json").write_text(json.dumps(config))
    (tiny_copy / "evil.py").write_text("raise SystemExit('the code ran')")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(OSError, match="trust_remote_code"):
            load_module(str(tiny_copy), ["a", "b"], pad_token_id=0)


def test_plain_state_is_arrays_and_text_only(tiny):
    module, tokenizer = load(tiny)
    state = module_to_plain(module, tokenizer)
    assert all(type(w) is np.ndarray for w in state["weights"].values())
    assert type(state["config"]) is str
    assert all(type(f) is bytes for f in state["tokenizer"].values())
    again, same_tokenizer = module_from_plain(state)
    ids = torch.tensor([[101, 2000, 102]])
    assert torch.equal(again(ids, torch.ones_like(ids)), module.eval()(ids, torch.ones_like(ids)))
    assert same_tokenizer("some text")["input_ids"] == tokenizer("some text")["input_ids"]
