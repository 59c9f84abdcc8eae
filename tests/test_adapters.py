"""Adapters of peft: what learns, what is merged, and that nothing else ever meets them."""

import copy
import pickle
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import peft
import pytest
import torch
from conftest import TINY, copy_tokenizer, imbalanced, logits_of
from safetensors.torch import load_file, save_file
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback
from transformers import (
    AutoModelForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    MPNetConfig,
    MPNetForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from skfocal import BertFocalClassifier, Checkpoint, OnnxClassifier
from skfocal._encoder.adapters import settings_of
from skfocal._training.checkpoints import describe

LORA = peft.LoraConfig(r=4)
QUERY = "model.bert.encoder.layer.{}.attention.self.query"


@pytest.fixture
def make(make):
    """Return a function that makes a classifier of few steps."""
    return lambda **params: make(**{"batch_size": 20, **params})


class AtTheEnd(Callback):
    """Remember the module's weights, names and answers before anything is merged."""

    def on_train_begin(self, net, **kwargs):
        module = net.plain_module()
        self.begin_ = {k: v.clone() for k, v in module.state_dict().items()}
        self.learns_ = {n: p.numel() for n, p in module.named_parameters() if p.requires_grad}

    def on_train_end(self, net, **kwargs):
        module = net.plain_module().eval()
        self.end_ = {k: v.clone() for k, v in module.state_dict().items()}
        self.answers_ = answers(module)
        module.train()


def answers(module):
    ids = torch.arange(1000, 1060).view(4, 15)
    with torch.no_grad():
        return module(ids, torch.ones_like(ids))


def watched(clf):
    return next(c for _, c in clf.net_.callbacks_ if isinstance(c, AtTheEnd))


def weights_of(clf):
    return {k: v.clone() for k, v in clf.net_.plain_module().state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def _fitted(tiny, **params):
    settings = {"max_epochs": 2, "lr": 3e-3, "batch_size": 20, "random_state": 0, **params}
    return BertFocalClassifier(tiny, **settings).fit(*imbalanced())


@pytest.fixture(scope="module")
def start(tiny):
    """The weights that a fit begins with."""
    return weights_of(_fitted(tiny, net_params={"max_epochs": 0}))


@pytest.fixture(scope="module")
def adapted(tiny):
    """A classifier that was fitted with LORA, as `make` makes it."""
    return _fitted(tiny, peft=LORA, callbacks=[AtTheEnd()])


# -- what learns ---------------------------------------------------------------------------


def test_merged_weights_are_the_base_and_the_scaled_product(make, data, start):
    config = peft.LoraConfig(r=4, lora_alpha=12, target_modules=["query", "dense"])
    clf = make(peft=config, callbacks=[AtTheEnd()]).fit(*data)
    merged, end = weights_of(clf), watched(clf).end_
    adapted = [f"{QUERY.format(i)}.weight" for i in (0, 1)]
    adapted += [n for n in merged if "encoder" in n and n.endswith("dense.weight")]
    assert len(adapted) == 2 + 2 * 3
    for name in adapted:
        path = name.removesuffix(".weight")
        a, b = (end[f"{path}.lora_{x}.adapter.weight"] for x in "AB")
        assert a.shape[0] == 4 and b.abs().max() > 1e-4
        expected = start[name] + 12 / 4 * b @ a
        torch.testing.assert_close(merged[name], expected, atol=1e-6, rtol=1e-5)


def test_only_adapted_layers_and_the_head_change(adapted, start):
    end = weights_of(adapted)
    assert start.keys() == end.keys()
    changed = {name for name in start if not torch.equal(start[name], end[name])}
    inside = {f"{QUERY.format(i)}.weight".replace("query", m) for i in (0, 1)
              for m in ("query", "value")}  # fmt: skip
    head = {n for n in start if "pooler" in n or "classifier" in n}
    assert changed == inside | head


def test_so_many_weights_learn(adapted):
    learns = watched(adapted).learns_
    head = (32 * 32 + 32) + (2 * 32 + 2)
    assert sum(learns.values()) == 2 * 2 * (4 * 32 + 32 * 4) + head


def test_random_state_governs_the_adapters(make, data, adapted):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = make(peft=LORA).fit(*data)
    assert torch.equal(torch.get_rng_state(), before)
    assert same(weights_of(one), weights_of(adapted))
    assert not same(weights_of(one), weights_of(make(peft=LORA, random_state=1).fit(*data)))


def test_the_first_step_is_that_of_an_encoder_without(make, data):
    """LoRA begins as nothing: the first loss is the same, up to rounding."""
    plain, adapted = make(max_epochs=1).fit(*data), make(max_epochs=1, peft=LORA).fit(*data)
    first = [clf.history_[0, "batches", 0, "train_loss"] for clf in (plain, adapted)]
    assert first[0] == pytest.approx(first[1], abs=1e-6)


@pytest.mark.parametrize(
    "config",
    [
        peft.LoraConfig(r=4, target_modules="all-linear"),
        peft.LoraConfig(r=4, target_modules=["query", "key", "value"], use_rslora=True),
        peft.LoraConfig(r=4, use_dora=True),
        peft.LoraConfig(r=4, init_lora_weights="pissa"),
        peft.LoraConfig(r=4, bias="lora_only"),
        peft.LoraConfig(r=4, task_type="SEQ_CLS", modules_to_save=["classifier", "LayerNorm"]),
        peft.LoraConfig(r=4, trainable_token_indices=[2057, 2769]),
        peft.LoraConfig(r=4, target_modules=["word_embeddings", "value"]),
        peft.LoHaConfig(r=4, target_modules=["query"]),
        peft.LoKrConfig(r=4, target_modules=["query", "key"]),
        peft.IA3Config(),
        peft.OFTConfig(r=0, oft_block_size=4, target_modules=["query", "value"]),
        peft.HRAConfig(target_modules=["query"]),
    ],
    ids=lambda config: type(config).__name__,
)
def test_merging_keeps_the_answers(make, data, start, config):
    before = copy.deepcopy(config)
    clf = make(peft=config, callbacks=[AtTheEnd()]).fit(*data)
    assert config == before
    end = weights_of(clf)
    assert end.keys() == start.keys()
    assert any("encoder.layer" in n and not torch.equal(start[n], end[n]) for n in start)
    module = clf.net_.plain_module()
    torch.testing.assert_close(answers(module), watched(clf).answers_, atol=1e-5, rtol=1e-4)
    assert not hasattr(module.model, "peft_config")
    assert all(p.requires_grad for p in module.parameters())


@pytest.mark.filterwarnings("ignore:The head of model")
@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (DistilBertForSequenceClassification, DistilBertConfig(
            vocab_size=30522, dim=32, n_layers=2, n_heads=2, hidden_dim=64)),
        (RobertaForSequenceClassification, RobertaConfig(**TINY)),
        (MPNetForSequenceClassification, MPNetConfig(**TINY)),
    ],
)  # fmt: skip
def test_other_architectures_have_targets_of_their_own(make, tmp_path, data, kind, config):
    torch.manual_seed(0)
    kind(config).save_pretrained(tmp_path)
    copy_tokenizer(tmp_path, 32)
    settings = {
        "max_epochs": 1,
        "lr": 3e-3,
        "random_state": 0,
        "callbacks": [AtTheEnd()],
        "batch_size": 20,
    }
    clf = BertFocalClassifier(tmp_path, peft=LORA, **settings).fit(*data)
    module = clf.net_.plain_module()
    torch.testing.assert_close(answers(module), watched(clf).answers_, atol=1e-5, rtol=1e-4)
    assert sum("lora_B" in name for name in watched(clf).learns_) >= 4


# -- with the other parameters -------------------------------------------------------------


@pytest.mark.parametrize("targets", [["query", "value"], ["key"], "all-linear"], ids=str)
def test_the_last_layer_for_the_first_token_is_that_of_all_tokens(make, data, monkeypatch, targets):
    config = peft.LoraConfig(r=4, target_modules=targets, lora_alpha=16)
    short = make(peft=config).fit(*data)
    monkeypatch.setattr(
        "skfocal._encoder.module.give_first_token_layer", lambda encoder, layer: False
    )
    whole = make(peft=config).fit(*data)
    for name, value in weights_of(whole).items():
        torch.testing.assert_close(weights_of(short)[name], value, atol=2e-4, rtol=1e-3)


def test_frozen_layers_get_no_adapters_and_are_replayed(make, data):
    clf = make(peft=LORA, freeze=1, callbacks=[AtTheEnd()]).fit(*data)
    assert not any("layer.0." in name for name in watched(clf).learns_)
    assert any("layer.1." in name and "lora_A" in name for name in watched(clf).learns_)
    assert clf.net_.frozen_layers().is_constant
    with pytest.raises(ValueError, match="freeze must leave a layer .* Got freeze=2 of 2"):
        make(peft=LORA, freeze=2).fit(*data)


def test_layer_decay_and_weight_decay_reach_adapters(make, data):
    class Groups(Callback):
        def on_train_begin(self, net, **kwargs):
            names = {id(p): n for n, p in net.module_.named_parameters()}
            self.rate_ = {
                names[id(p)]: (group["initial_lr"] if "initial_lr" in group else group["lr"],
                               group["weight_decay"])
                for group in net.optimizer_.param_groups for p in group["params"]
            }  # fmt: skip

    clf = make(peft=LORA, layer_decay=0.5, weight_decay=0.1, callbacks=[Groups()]).fit(*data)
    found = next(c for _, c in clf.net_.callbacks_ if isinstance(c, Groups)).rate_
    for i, rate in ((0, 3e-3 / 4), (1, 3e-3 / 2)):
        lr, decay = found[f"{QUERY.format(i)}.lora_A.adapter.weight"]
        assert lr == pytest.approx(rate) and decay == 0.1
    assert found["model.classifier.weight"][0] == pytest.approx(3e-3)
    assert found["model.classifier.bias"][1] == 0


def test_dropouts_are_those_asked_for(make, data):
    class Dropouts(Callback):
        def on_train_begin(self, net, **kwargs):
            modules = net.module_.named_modules()
            self.p_ = {n: m.p for n, m in modules if isinstance(m, torch.nn.Dropout)}

    config = peft.LoraConfig(r=4, lora_dropout=0.2)
    clf = make(peft=config, dropout=0.0, callbacks=[Dropouts()], warm_start=True)
    for _ in range(2):
        clf.fit(*data)
        found = next(c for _, c in clf.net_.callbacks_ if isinstance(c, Dropouts)).p_
        assert {p for n, p in found.items() if "lora" in n} == {0.2}
        assert {p for n, p in found.items() if "lora" not in n} == {0.0}


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "ldam"},
        {"precision": "bfloat16"},
        {"precision": "float16"},
        {"dropout": 0.1, "early_stopping": 1, "max_epochs": 3},
        {"gradient_checkpointing": True},
        {"long_documents": "windows", "max_length": 8},
        {"temperature": "auto", "decision": "tuned"},
    ],
    ids=str,
)
def test_other_settings_go_with_it(make, data, monkeypatch, settings):
    monkeypatch.setattr("skfocal._estimator.advice.cpu_has_bfloat16", lambda: True)
    settings = {"peft": LORA, "lr": 1e-2, "max_epochs": 4, **settings}
    clf = make(**settings, callbacks=[AtTheEnd()]).fit(*data)
    X, _ = imbalanced(seed=1)
    losses = clf.history_[:, "train_loss"]
    assert "early_stopping" in settings or min(losses[1:]) < losses[0]
    module = clf.net_.plain_module()
    torch.testing.assert_close(answers(module), watched(clf).answers_, atol=1e-4, rtol=1e-3)
    again = pickle.loads(pickle.dumps(clf))
    np.testing.assert_allclose(again.predict_proba(X), clf.predict_proba(X), atol=1e-6)


def test_recomputed_layers_give_the_same_weights(make, data, adapted):
    saving = make(peft=LORA, gradient_checkpointing=True).fit(*data)
    assert same(weights_of(adapted), weights_of(saving))


def test_several_labels(make, data):
    X, y = data
    Y = np.stack([y == "spam", y == "ham"], 1).astype(int)
    Y[0] = 1
    clf = make(peft=LORA, lr=1e-2, max_epochs=20, batch_size=8).fit(X, Y)
    assert clf.score(X, Y) > 0.9


@pytest.mark.slow
def test_a_compiled_module_predicts_with_the_merged_weights(make, data):
    traced = {"net_params": {"compile": True, "compile__backend": "aot_eager"}}
    plain = make(peft=LORA, max_epochs=1).fit(*data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = make(peft=LORA, max_epochs=1, **traced).fit(*data)
        proba = compiled.predict_proba(data[0])
    np.testing.assert_allclose(proba, plain.predict_proba(data[0]), atol=1e-4)


def test_lr_auto_is_ten_times_that_of_the_encoder(make, data):
    settings = {"lr": "auto", "net_params": {"max_epochs": 0}}
    assert make(**settings, peft=LORA).fit(*data).lr_ == 10 * make(**settings).fit(*data).lr_


# -- going on ------------------------------------------------------------------------------


def chunks_of(data):
    X, y = data
    return [(X[:20], y[:20]), (X[20:], y[20:])]


def test_partial_fit_goes_on_with_the_same_adapters(make, data, start):
    """Their change stays of rank 4, and the base below it stays what it was."""
    clf = make(peft=LORA, batch_size=8, callbacks=[AtTheEnd()])
    ends = []
    for X, y in chunks_of(data) * 2:
        clf.partial_fit(X, y, classes=["ham", "spam"])
        ends.append(watched(clf))
    for before, after in zip(ends, ends[1:], strict=False):
        lora = [name for name in before.end_ if "lora" in name or "base_layer" in name]
        assert lora and all(torch.equal(before.end_[n], after.begin_[n]) for n in lora)
    change = weights_of(clf)[f"{QUERY.format(0)}.weight"] - start[f"{QUERY.format(0)}.weight"]
    size = torch.linalg.svdvals(change)
    assert size[3] > 1e-5 > size[4] * 10
    torch.testing.assert_close(
        answers(clf.net_.plain_module()), watched(clf).answers_, atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("config", [LORA, peft.LoraConfig(r=4, init_lora_weights="pissa")])
def test_partial_fit_goes_on_through_a_pickle_with_the_same_bits(make, data, config):
    first, second = chunks_of(data)
    clf = make(peft=config, batch_size=10, n_updates=10).partial_fit(
        *first, classes=["ham", "spam"]
    )
    again = pickle.loads(pickle.dumps(clf))
    clf.partial_fit(*second)
    again.partial_fit(*second)
    assert same(weights_of(clf), weights_of(again))
    moments = clf._chunks.adapters["moments"]
    assert int(moments[f"{QUERY.format(0)}.lora_A.adapter.weight"]["step"]) == 2 + 2
    fresh = make(peft=config, batch_size=10, n_updates=10).partial_fit(
        *first, classes=["ham", "spam"]
    )
    fresh._chunks = replace(fresh._chunks, adapters=None)
    assert not same(weights_of(fresh.partial_fit(*second)), weights_of(clf))


def test_partial_fit_with_other_settings_begins_on_the_merged_weights(make, data):
    first, second = chunks_of(data)
    clf = make(peft=LORA, callbacks=[AtTheEnd()])
    merged = weights_of(clf.partial_fit(*first, classes=["ham", "spam"]))
    for setting in (peft.LoraConfig(r=2), None):
        clf.set_params(peft=setting).partial_fit(*second)
        name = f"{QUERY.format(0)}.weight"
        base = name.replace(".weight", ".base_layer.weight") if setting else name
        assert torch.equal(watched(clf).begin_[base], merged[name])
        merged = weights_of(clf)


def test_warm_start_begins_new_adapters_on_the_merged_weights(make, data):
    clf = make(peft=LORA, warm_start=True, callbacks=[AtTheEnd()]).fit(*data)
    merged = weights_of(clf)
    begin = watched(clf.fit(*data)).begin_
    assert torch.equal(begin[f"{QUERY.format(1)}.base_layer.weight"],
                       merged[f"{QUERY.format(1)}.weight"])  # fmt: skip
    assert not begin[f"{QUERY.format(1)}.lora_B.adapter.weight"].any()


def test_a_fit_that_broke_off_goes_on_from_its_checkpoint(make, data, tmp_path):
    from test_checkpoint import Stop, StopsAt

    adapters = peft.LoraConfig(r=4, lora_dropout=0.1)
    settings = {"peft": adapters, "train_split": 0.2, "batch_size": 8}
    whole = make(**settings).fit(*data)
    run = {"checkpoint": Checkpoint(tmp_path / "run", steps=1), "callbacks": [StopsAt()]}
    StopsAt.n = 5
    try:
        with pytest.raises(Stop):
            make(**settings, **run).fit(*data)
    finally:
        StopsAt.n = None
    continued = make(**settings, **run).fit(*data)
    ended = make(**settings, **run).fit(*data)
    assert same(weights_of(whole), weights_of(continued))
    assert same(weights_of(whole), weights_of(ended))
    with pytest.raises(ValueError, match="is of another fit: peft was"):
        make(**{**settings, "peft": peft.LoraConfig(r=8)}, **run).fit(*data)


def test_equal_settings_are_described_alike_in_whatever_order_a_set_has():
    """In another process the targets, a set of str, come in another order."""
    one, other = (peft.LoraConfig(r=4, target_modules=["query", "key", "value"]) for _ in range(2))
    other.peft_version = "another"
    text = describe(settings_of(one))
    assert text == describe(settings_of(other)) == describe(settings_of(settings_of(one)))
    assert "['key', 'query', 'value']" in str(settings_of(one)["target_modules"])


# -- scikit-learn, pickles and files -------------------------------------------------------


def test_clone_pickle_and_copy_keep_the_configuration(make):
    config = peft.LoraConfig(r=4, target_modules=["query"], lora_dropout=0.1)
    clf = make(peft=config)
    assert clf.get_params()["peft"] is config
    for other in (clone(clf), pickle.loads(pickle.dumps(clf)), copy.deepcopy(clf)):
        assert other.peft == config and other.peft is not config


def test_a_grid_goes_over_configurations_and_leaves_them_alone(make, data):
    grid = [None, peft.LoraConfig(r=4), peft.LoraConfig(r=8), {"peft_type": "LORA", "r": 2}]
    before = copy.deepcopy(grid)
    search = GridSearchCV(make(max_epochs=1), {"peft": grid}, cv=2, error_score="raise")
    search.fit(*data)
    assert grid == before
    best = make(max_epochs=1, **search.best_params_).fit(*data)
    assert np.array_equal(search.predict_proba(data[0]), best.predict_proba(data[0]))


def test_a_dict_means_the_same(make, data, adapted):
    other = make(peft={"peft_type": "LORA", "r": 4}).fit(*data)
    assert same(weights_of(adapted), weights_of(other))


_WITHOUT_PEFT = """
import pickle, sys
sys.modules["peft"] = None  # an import of it fails
import numpy as np
from skfocal import BertFocalClassifier
X, expected = pickle.load(open(sys.argv[1], "rb"))
clf = pickle.load(open(sys.argv[2], "rb"))
assert np.array_equal(clf.predict_proba(X), expected)
assert clf.peft["r"] == 4
clf.set_params(predict_precision="int8").predict(X)
import warnings; warnings.simplefilter("ignore")
read = BertFocalClassifier.from_pretrained(sys.argv[3])
assert np.array_equal(read.predict_proba(X), expected)
assert read.peft is None
try:
    clf.fit(X, ["a", "b"] * (len(X) // 2))
except ImportError as error:
    print(error)
"""


@pytest.mark.slow
def test_pickles_and_folders_need_no_peft(make, data, tmp_path):
    X, _ = data
    clf = make(peft=LORA).fit(*data)
    proba = clf.predict_proba(X)
    paths = [tmp_path / name for name in ("expected", "pickle", "folder")]
    paths[0].write_bytes(pickle.dumps((X, proba)))
    paths[1].write_bytes(pickle.dumps(clf))
    clf.save_pretrained(paths[2])
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_PEFT, *map(str, paths)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "peft=... needs peft: pip install 'skfocal[peft]'"


def test_a_folder_is_that_of_plain_weights(make, data, tmp_path):
    X, _ = data
    clf = make(peft=LORA).partial_fit(*data, classes=["ham", "spam"])
    proba = clf.predict_proba(X)
    clf.save_pretrained(tmp_path / "saved")
    with pytest.warns(UserWarning, match=r"\['peft'\] of the estimator .* were not stored"):
        read = BertFocalClassifier.from_pretrained(tmp_path / "saved")
    assert np.array_equal(read.predict_proba(X), proba)
    read.set_params(peft=LORA).partial_fit(*data)  # new adapters, on the merged weights


@pytest.mark.slow
def test_the_graph_is_that_of_the_merged_weights(make, data, tmp_path):
    pytest.importorskip("onnxscript")
    X, _ = data
    clf = make(peft=LORA).fit(*data)
    clf.to_onnx(tmp_path / "graph")
    served = OnnxClassifier(tmp_path / "graph")
    np.testing.assert_allclose(served.predict_proba(X), clf.predict_proba(X), atol=1e-5)


# -- what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "error", "message"),
    [
        ("lora", TypeError, r"peft must be None, a PeftConfig .* Got 'lora'"),
        ({"r": 4}, ValueError, r"peft must have the settings .* Got \{'r': 4\}"),
        ({"peft_type": "LORA", "rank": 4}, ValueError, "peft must have the settings .*rank"),
        (peft.PromptTuningConfig(num_virtual_tokens=2), ValueError, "merged .*PromptTuningConfig"),
        (peft.PrefixTuningConfig(num_virtual_tokens=2), ValueError, "merged .*PrefixTuningConfig"),
        (peft.PolyConfig(target_modules=["query"]), ValueError, "can be merged .* Linear of POLY"),
        (peft.AdaLoraConfig(total_step=5), ValueError, "learns as any other .*AdaLoraConfig"),
        (
            peft.LoraConfig(layer_replication=[(0, 1), (0, 2)]),
            ValueError,
            "layer_replication .*None",
        ),
        (peft.LoraConfig(task_type="CAUSAL_LM"), ValueError, "task_type .* Got 'CAUSAL_LM'"),
        (peft.LoraConfig(target_modules=["q"]), ValueError, "peft does not fit Bert.*self.query"),
    ],
    ids=lambda x: type(x).__name__,
)
def test_what_cannot_be_trained_and_merged_is_refused(make, data, setting, error, message):
    with pytest.raises(error, match=message):
        make(peft=setting).fit(*data)


def test_a_callback_saves_the_adapter_alone(make, tiny, data, tmp_path):
    class SaveAdapter(Callback):
        def on_train_end(self, net, **kwargs):
            named = net.module_.model.named_parameters()
            save_file({k: p.detach().clone() for k, p in named if p.requires_grad}, path)

    path = tmp_path / "adapter.safetensors"
    config = peft.LoraConfig(r=4, target_modules=["query", "value"])
    clf = make(peft=config, pooling="head", callbacks=[SaveAdapter()]).fit(*data)
    model = AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=2)
    model = peft.inject_adapter_in_model(config, model, "adapter").eval()
    saved = load_file(path)
    assert not model.load_state_dict(saved, strict=False).unexpected_keys
    assert sum(t.numel() for t in saved.values()) < model.num_parameters() / 100
    batch = clf.tokenizer_(data[0], padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**batch).logits
    np.testing.assert_allclose(logits.numpy(), logits_of(clf, data[0]), atol=1e-5)
