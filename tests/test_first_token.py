"""The last layer for the first token alone: the same logits, gradients and weights."""

import copy
import pickle

import numpy as np
import pytest
import torch
import transformers as hf
from conftest import TINY

from skfocal._module import EncoderClassifier, layers_of

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


def make(config, attention="sdpa", dropout=0.0):
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
    return EncoderClassifier(model)


def batch(padded=True):
    rng = np.random.RandomState(0)
    ids = torch.from_numpy(rng.randint(5, 100, size=(4, 12)))
    lengths = torch.tensor([12, 9, 5, 2] if padded else [12] * 4)
    mask = (torch.arange(12) < lengths[:, None]).long()
    return ids * mask + (1 - mask), mask


def plainly(module, *inputs):
    return module.model(*inputs).logits


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
    seen: list = []
    for layer in layers_of(module.model):
        layer.register_forward_hook(lambda m, args, output: seen.append(output.shape[1]))
    module(*inputs)
    assert seen == [12, 1]
    assert module.model.base_model(*inputs).last_hidden_state.shape[1] == 12


def test_dropout_of_the_attention_is_drawn_anew(config):
    module, inputs = make(config, dropout=0.5).train(), batch()
    with torch.no_grad():
        assert not torch.equal(module(*inputs), module(*inputs))
        many = torch.stack([module(*inputs) for _ in range(200)])
        whole = torch.stack([plainly(module, *inputs) for _ in range(200)])
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
