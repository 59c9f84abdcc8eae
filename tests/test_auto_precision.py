"""precision="auto" on a CPU: bfloat16 where it is fast and does no harm."""

import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_encoders import FAMILIES

from skfocal import audit
from skfocal._data.batches import Collator, TokenDataset
from skfocal._data.tokenization import TruncationSpec
from skfocal._data.tokens import tokenize
from skfocal._encoder import float32_attention, promises
from skfocal._encoder.float32_attention import Float32Attention
from skfocal._encoder.promises import _agrees_in_bfloat16
from skfocal._runtime.devices import cpu_has_bfloat16
from skfocal._training.inference import prediction_batches

TAKES = {True: "bfloat16", False: "float32"}


@pytest.fixture
def has(monkeypatch):
    """Return a function that says whether the processor is fast in bfloat16."""
    return lambda it: monkeypatch.setattr("skfocal._runtime.devices.cpu_has_bfloat16", lambda: it)


@pytest.fixture
def make(make_of_few_words):
    """Return a function that makes classifiers whose encoder tells texts apart."""
    return make_of_few_words


@pytest.fixture
def deberta(tmp_path):
    FAMILIES["deberta"](tmp_path)
    return str(tmp_path)


@pytest.mark.parametrize("it", TAKES)
def test_auto_takes_what_is_fast(make, data, has, it, monkeypatch):
    has(it)
    X, y = data
    clf = make().fit(X, y)
    monkeypatch.setattr("skfocal._estimator.advice.cpu_has_bfloat16", lambda: it)
    plain = make(precision=TAKES[it]).fit(X, y)
    assert clf.net_.precision == TAKES[it]
    np.testing.assert_array_equal(clf.predict_proba(X), plain.predict_proba(X))


def test_the_named_precision_stays(make, data, has):
    has(True)
    assert make(precision="float32").fit(*data).net_.precision == "float32"


@pytest.mark.parametrize(
    ("flags", "capability", "expected"),
    [
        ({"avx512_bf16": True, "cpu_name": "AMD EPYC"}, "AVX512", True),
        ({"avx512_bf16": True}, "AVX512", False),  # whose it is, nobody knows
        ({"avx512_bf16": True, "cpu_name": "Intel Xeon"}, "AVX512", False),  # AMX is hidden
        ({"avx512_bf16": True, "amx_bf16": True, "cpu_name": "Intel Xeon"}, "AVX512", True),
        ({"amx_bf16": True}, "AVX512", True),
        ({"sve_bf16": True}, "SVE256", True),
        ({"avx512_bf16": True, "cpu_name": "AMD EPYC"}, "AVX2", False),  # ATEN_CPU_CAPABILITY
        ({"avx512_f": True}, "AVX512", False),
        ({"bf16": True}, "DEFAULT", False),  # a Mac, whose torch has no use for them
    ],
)
def test_what_counts_as_instructions(monkeypatch, flags, capability, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert cpu_has_bfloat16() is expected


def test_an_encoder_that_fails_in_bfloat16_stays_in_float32(make, deberta, data, has):
    has(True)
    X, y = data
    clf = make(model=deberta, max_epochs=1).fit(X, y)
    assert clf.net_.precision == "float32"
    assert np.isfinite(clf.predict_proba(X)).all()


def test_an_encoder_whose_vectors_bfloat16_spoils_stays_in_float32(make, data):
    model = make().fit(*data).net_.module_.model
    assert _agrees_in_bfloat16(model, 0)
    norms = [m for m in model.base_model.modules() if isinstance(m, torch.nn.LayerNorm)]
    dense = model.base_model.encoder.layer[-1].output.dense
    with torch.no_grad():  # the next number after 1000 is 1004
        dense.bias.fill_(1000)
    norms[-1].register_forward_hook(lambda module, args, output: args[0])  # and it is not removed
    assert not _agrees_in_bfloat16(model, 0)


def test_an_encoder_in_float64_stays_in_it(make, data):
    assert not _agrees_in_bfloat16(make().fit(*data).net_.module_.model.double(), 0)


def test_what_was_found_before_the_training_stays(make, data, has, monkeypatch, tmp_path):
    has(True)
    clf = make().fit(*data)
    monkeypatch.setattr(promises, "_agrees_in_bfloat16", lambda *args: False)
    clf.save_pretrained(tmp_path / "folder")
    again = pickle.loads(pickle.dumps(clf)), clf.from_pretrained(tmp_path / "folder")
    assert [c.net_.precision for c in again] == ["bfloat16"] * 2
    assert clf.set_params(warm_start=True).fit(*data).net_.precision == "bfloat16"
    assert make().fit(*data).net_.precision == "float32"  # a new encoder


def test_a_checkpoint_of_another_precision_is_refused(make, data, has, tmp_path):
    has(True)
    make(checkpoint=tmp_path).fit(*data)
    has(False)
    with pytest.raises(ValueError, match="precision"):
        make(checkpoint=tmp_path).fit(*data)


def test_the_check_leaves_training_and_gradients_alone(make, data, has):
    model = make().fit(*data).net_.module_.model.train()
    state = torch.get_rng_state()
    _agrees_in_bfloat16(model, 0)
    assert model.training and (torch.get_rng_state() == state).all()
    assert all(p.grad is None for p in model.parameters())


def test_a_pickle_predicts_in_what_is_fast_where_it_is_read(make, data, has):
    has(True)
    clf = make().fit(*data)
    has(False)
    again = pickle.loads(pickle.dumps(clf))
    assert again.net_.precision == "float32"
    exact, rounded = again.predict_proba(data[0]), clf.predict_proba(data[0])
    assert 0 < abs(exact - rounded).max() < 0.05


def test_weights_are_rounded_once_and_bits_stay(make, data, has, monkeypatch):
    has(True)
    X, y = data
    clf = make().fit(X, y)
    monkeypatch.setattr("skfocal._training.inference._TOKENS_AT_ONCE", 40)
    net = clf.net_
    tokens = tokenize(clf.tokenizer_, X, TruncationSpec(clf.max_length_))
    dataset = TokenDataset(tokens)
    batches = prediction_batches(net, dataset)
    assert len(batches) > 5
    one_by_one = np.empty((len(X), 2), np.float32)
    for rows in batches:
        batch = Collator(net.pad_id)(dataset.__getitems__(rows))
        one_by_one[rows] = net.evaluation_step(batch).float()
    cleared = []
    clear = torch.clear_autocast_cache
    monkeypatch.setattr(torch, "clear_autocast_cache", lambda: cleared.append(1) or clear())
    np.testing.assert_array_equal(net.logits(tokens), one_by_one)
    assert len(cleared) == 1


def test_audit_of_such_an_encoder(deberta, data, has):
    has(True)
    X, y = data
    found = audit(X, y, model=deberta)
    has(False)
    assert found.duplicates == audit(X, y, model=deberta).duplicates


@pytest.mark.parametrize("kind", ["none", "bool", "float"])
def test_attention_within_autocast_is_that_of_float32(kind):
    rng = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 5, 8, generator=rng).bfloat16().requires_grad_() for _ in "qkv")
    keeps = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]], dtype=torch.bool)[:, None, None]
    mask = {"none": None, "bool": keeps, "float": torch.zeros(2, 1, 1, 5).masked_fill(~keeps, -1e4)}
    attend = F.scaled_dot_product_attention
    expected = attend(q.float(), k.float(), v.float(), attn_mask=mask[kind])
    with torch.autocast("cpu", torch.bfloat16), Float32Attention():
        found = attend(q, k, v, attn_mask=mask[kind])
        with torch.no_grad():
            assert attend(q, k, v, attn_mask=mask[kind]).dtype == torch.bfloat16
        assert F.linear(found, torch.eye(8)).dtype == torch.bfloat16  # autocast goes on
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    found.sum().backward()
    assert q.grad.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("settings", "n_calls"),
    [
        ({"precision": "bfloat16"}, 2),  # two layers, one batch
        ({"precision": "bfloat16", "dropout": 0.1, "attention_dropout": 0.0}, 2),
        ({"precision": "bfloat16", "dropout": 0.1}, 0),  # is written out
        ({"precision": "bfloat16", "gradient_checkpointing": True}, 0),  # layers run again
        ({"precision": "float32"}, 0),
    ],
)
def test_training_attends_in_float32(make, data, settings, n_calls, monkeypatch):
    monkeypatch.setattr("skfocal._estimator.advice.cpu_has_bfloat16", lambda: True)
    widened, seen = float32_attention._widened, []
    monkeypatch.setattr(
        float32_attention, "_widened", lambda x: seen.append(torch.is_grad_enabled()) or widened(x)
    )
    clf = make(max_epochs=1, batch_size=40, **settings).fit(*data)
    clf.predict(data[0])
    n_arguments = 6  # query, key, value, mask, dropout, causal; some of them by name
    assert all(seen) and n_calls * 3 <= len(seen) <= n_calls * n_arguments + n_calls
