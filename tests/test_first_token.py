"""The last layer for the first token alone: the same logits, gradients and weights."""

import copy
import pickle
import re

import numpy as np
import pytest
import torch
import transformers as hf
from conftest import TINY
from transformers.models.bert.modeling_bert import BertLayer, BertPooler

from skfocal._encoder import first_token
from skfocal._encoder.module import EncoderClassifier, layers_of, load_module
from skfocal._encoder.pretrained import load_tokenizer
from skfocal._storage.encoder_state import module_from_plain, module_to_plain

SMALL = {**TINY, "vocab_size": 100}
ROBERTA = {**SMALL, "max_position_embeddings": 66, "pad_token_id": 1}
DISTILBERT = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "vocab_size": 100}
CONFIGS = {
    "bert": hf.BertConfig(**SMALL),
    "roberta": hf.RobertaConfig(**ROBERTA),
    "xlm-roberta": hf.XLMRobertaConfig(**ROBERTA),
    "camembert": hf.CamembertConfig(**ROBERTA),
    "electra": hf.ElectraConfig(**SMALL, embedding_size=16),
    "distilbert": hf.DistilBertConfig(**DISTILBERT),
}


@pytest.fixture(scope="module", params=CONFIGS)
def config(request):
    return CONFIGS[request.param]


def build(config, attention="sdpa", dropout=0.0):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = hf.AutoModelForSequenceClassification.from_config(
            copy.deepcopy(config), attn_implementation=attention
        )
        for parameter in model.parameters():  # biases and norms start where errors would hide
            parameter.data += 0.1 * torch.randn_like(parameter)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    return model


def make(*args, **kwargs):
    return EncoderClassifier(build(*args, **kwargs))


def batch(padded=True):
    rng = np.random.RandomState(0)
    ids = torch.from_numpy(rng.randint(5, 100, size=(4, 12)))
    lengths = torch.tensor([12, 9, 5, 2] if padded else [12] * 4)
    mask = (torch.arange(12) < lengths[:, None]).long()
    return ids * mask + (1 - mask), mask


def plainly(module, *inputs):
    return module.model(*inputs).logits


def n_computed(module, *inputs):
    """Return for how many tokens each layer computes."""
    seen: list = []
    handles = [
        layer.register_forward_hook(lambda m, args, output: seen.append(output.shape[1]))
        for layer in layers_of(module.model)
    ]
    module(*inputs)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_logits_and_gradients_are_those_of_the_whole_layer(config, attention, padded):
    module = make(config, attention).double()
    module.train()
    inputs = batch(padded)
    results = []
    for forward in (module, lambda *x: plainly(module, *x)):
        module.zero_grad()
        logits = forward(*inputs)
        logits.square().sum().backward()
        results.append((logits, {k: p.grad for k, p in module.named_parameters()}))
    (short, short_grads), (whole, whole_grads) = results
    torch.testing.assert_close(short, whole, rtol=1e-10, atol=1e-10)
    for name, grad in whole_grads.items():
        if short_grads[name] is None:  # the key's bias drops out of the softmax
            assert not name.endswith("weight") and grad.abs().max() < 1e-14
        else:
            torch.testing.assert_close(short_grads[name], grad, rtol=1e-8, atol=1e-10, msg=name)


def test_float32_agrees_to_1e_5(config):
    module, inputs = make(config), batch()
    with torch.no_grad():
        torch.testing.assert_close(module(*inputs), plainly(module, *inputs), rtol=0, atol=1e-5)


def test_only_the_last_layer_is_short_and_only_through_the_classifier(config):
    module, inputs = make(config), batch()
    assert n_computed(module, *inputs) == [12, 1]
    assert module.model.base_model(*inputs).last_hidden_state.shape[1] == 12


def test_dropout_of_the_attention_is_drawn_anew(config):
    module, inputs = make(config).train(), batch()
    for name, part in layers_of(module.model)[-1].named_modules():
        if name in ("attention.self.dropout", "attention.dropout"):  # nothing else draws
            part.p = 0.5
    with torch.no_grad():
        assert not torch.equal(module(*inputs), module(*inputs))
        repeated = [x.repeat(200, 1) for x in inputs]  # each row has zeros of its own
        many = module(*repeated).unflatten(0, (200, 4))
        whole = plainly(module, *repeated).unflatten(0, (200, 4))
    assert len(many[:, 0].unique(dim=0)) == 200
    spread = (many.var(0) + whole.var(0)).div(200).sqrt()
    assert ((many.mean(0) - whole.mean(0)).abs() < 5 * spread).all()
    assert ((many.std(0) / whole.std(0)).log().abs() < 0.3).all()


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_computes_with_its_own_weights(config, clone):
    module, inputs = make(config), batch()
    before = module(*inputs).detach()
    other = clone(module)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    torch.testing.assert_close(module(*inputs), before)
    assert not other(*inputs).any()


def test_other_architectures_run_whole():
    config = hf.ModernBertConfig(
        **SMALL, pad_token_id=1, bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3
    )
    module = make(config)
    assert module.extra == {}
    with torch.no_grad():
        assert torch.equal(module(*batch()), plainly(module, *batch()))


# -- the check when an encoder is built ----------------------------------------------------


def mask_under_another_name(monkeypatch):
    forward = BertLayer.forward

    def renamed(self, hidden, attn_mask=None, **kwargs):
        return forward(self, hidden, attn_mask, **kwargs)

    def call(self, hidden, mask=None, *args, **kwargs):
        return torch.nn.Module.__call__(self, hidden, attn_mask=mask, **kwargs)

    monkeypatch.setattr(BertLayer, "forward", renamed)
    monkeypatch.setattr(BertLayer, "__call__", call)


def mask_ignored(monkeypatch):
    forward = BertLayer.forward
    monkeypatch.setattr(
        BertLayer, "forward", lambda self, hidden, *args, **kwargs: forward(self, hidden)
    )


def other_formula(monkeypatch):
    forward = BertLayer.forward
    monkeypatch.setattr(
        BertLayer, "forward", lambda self, hidden, *args, **kw: forward(self, hidden, *args) * 1.01
    )


def head_of_the_mean(monkeypatch):
    monkeypatch.setattr(
        BertPooler, "forward", lambda self, x: self.activation(self.dense(x.mean(1)))
    )


def part_renamed(monkeypatch):
    forward, chunk = BertLayer.forward, BertLayer.feed_forward_chunk

    def whole(self, *args, **kwargs):
        self.feed_forward_chunk = lambda x: chunk(self, x)
        try:
            return forward(self, *args, **kwargs)
        finally:
            del self.feed_forward_chunk

    monkeypatch.setattr(BertLayer, "forward", whole)
    monkeypatch.delattr(BertLayer, "feed_forward_chunk")


@pytest.fixture
def clean():
    first_token._warn_once.cache_clear()
    yield
    first_token._warn_once.cache_clear()


CHANGES = {
    mask_under_another_name: "its numbers differ",
    mask_ignored: "its numbers differ",
    other_formula: "its numbers differ",
    head_of_the_mean: "its numbers differ",
    part_renamed: "AttributeError.*feed_forward_chunk",
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_layer_that_has_changed_runs_whole_and_it_is_said(change, monkeypatch, clean):
    change(monkeypatch)
    versions = re.escape(f"transformers {hf.__version__} and torch {torch.__version__}")
    with pytest.warns(UserWarning, match=rf"BertFor.* does not fit {versions} \({CHANGES[change]}"):
        module = make(CONFIGS["bert"]).eval()
    assert module.extra == {}
    assert "forward" not in vars(layers_of(module.model)[-1])
    inputs = batch()
    assert n_computed(module, *inputs) == [12, 12]
    assert torch.equal(module(*inputs), build(CONFIGS["bert"]).eval()(*inputs).logits)
    make(CONFIGS["bert"])  # said once in a process: no warning, which would be an error


def test_a_fit_of_a_layer_that_has_changed_ends_at_the_bits_of_the_whole_layer(
    make_fit, monkeypatch, clean
):
    mask_under_another_name(monkeypatch)
    with pytest.warns(UserWarning, match="computed for all tokens"):
        found = make_fit(0)
    monkeypatch.setattr(
        "skfocal._encoder.module.give_first_token_layer", lambda encoder, layers: False
    )
    assert_same_bits(found, make_fit(0))


def test_a_forward_of_the_layer_s_own_comes_back(clean):
    model = build(CONFIGS["bert"]).eval()
    layer, inputs = layers_of(model)[-1], batch()
    layer.forward = own = lambda hidden, *args, **kwargs: 2 * hidden
    before = model(*inputs).logits
    with pytest.warns(UserWarning, match="its numbers differ"):
        module = EncoderClassifier(model)
    assert layer.forward is own
    assert torch.equal(module(*inputs), before)


def test_the_check_changes_nothing(config):
    model = build(config, dropout=0.5)
    model.train()
    layers_of(model)[0].eval()  # only some learn
    before = [(name, id(m), m.training, len(m._forward_hooks)) for name, m in model.named_modules()]
    weights = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    assert EncoderClassifier(model).extra
    assert torch.equal(torch.get_rng_state(), state)
    after = [(name, id(m), m.training, len(m._forward_hooks)) for name, m in model.named_modules()]
    assert after == before
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_a_fit_with_the_check_ends_at_the_bits_of_one_without(make_fit, monkeypatch):
    checked = make_fit(0)
    nothing = torch.zeros(2, 1, 1)
    monkeypatch.setattr(first_token, "_probe", lambda *args, **kwargs: (nothing, nothing))
    assert_same_bits(checked, make_fit(0))


def assert_same_bits(one, other):
    weights = other.net_.module_.state_dict()
    for name, value in one.net_.module_.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_what_is_loaded_rebuilt_or_copied_takes_the_short_way(tiny):
    module, tokenizer = load_module(tiny, ["a", "b"], pad_token_id=0), load_tokenizer(tiny)
    rebuilt, _ = module_from_plain(module_to_plain(module, tokenizer))
    for one in (module, rebuilt, copy.deepcopy(module), copy.deepcopy(rebuilt)):
        assert n_computed(one, *batch()) == [12, 1]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_check_passes_in_other_precisions(config, dtype):
    assert EncoderClassifier(build(config).to(dtype)).extra
    with torch.autocast("cpu", torch.bfloat16):
        assert make(config).extra


def test_weights_that_are_not_finite_are_no_change_of_the_layer(config):
    model = build(config)
    for parameter in layers_of(model)[-1].parameters():
        parameter.data[0] = torch.nan
    assert EncoderClassifier(model).extra


def test_a_copy_is_not_checked_again(monkeypatch):
    module = make(CONFIGS["bert"])
    monkeypatch.delattr(first_token, "_probe")
    assert copy.deepcopy(module).extra == module.extra


# -- a fit ---------------------------------------------------------------------------------


@pytest.mark.parametrize("freeze", [0, 1, 2])
def test_a_fit_ends_at_the_weights_of_the_whole_layer(make_fit, monkeypatch, freeze):
    short = make_fit(freeze)
    assert short.net_.module_.extra
    forward = EncoderClassifier.forward
    monkeypatch.setattr(
        EncoderClassifier,
        "forward",
        lambda self, *args, **kwargs: (self.extra.clear(), forward(self, *args, **kwargs))[1],
    )
    whole = make_fit(freeze)
    assert not whole.net_.module_.extra
    for name, value in whole.net_.module_.state_dict().items():
        # The key's bias has no gradient but rounding, of which AdamW makes whole steps.
        if ".key.bias" not in name:
            torch.testing.assert_close(
                short.net_.module_.state_dict()[name], value, rtol=0, atol=1e-5, msg=name
            )


@pytest.fixture
def make_fit(data, tiny):
    from skfocal import BertFocalClassifier

    return lambda freeze: BertFocalClassifier(
        tiny, max_epochs=1, lr=1e-3, batch_size=8, freeze=freeze, random_state=0
    ).fit(*data)
