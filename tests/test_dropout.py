"""Short dropout has the distribution, the gradient and the attention of torch's own."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from skorch.callbacks import Callback

from skfocal._encoder import fast_dropout
from skfocal._encoder.fast_dropout import FastDropout, dropped_positions


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("probability", [1e-4, 0.01, 0.1, 0.25, 0.5])
def test_elements_are_dropped_by_independent_trials(probability):
    n = 1_000_000
    positions = dropped_positions(n, probability).numpy()
    assert positions.dtype == np.int64 and (np.diff(positions) > 0).all()
    assert positions[0] >= 0 and positions[-1] < n
    assert stats.binomtest(len(positions), n, probability).pvalue > 1e-3
    dropped = np.zeros(n, bool)
    dropped[positions] = True
    for lag in (1, 2, 7):  # pairs: the counts of independent trials
        both = (dropped[:-lag] & dropped[lag:]).sum()
        assert stats.binomtest(int(both), n - lag, probability**2).pvalue > 1e-3
    parts = dropped.reshape(100, -1).sum(axis=1)  # no place is preferred
    assert stats.chisquare(parts).pvalue > 1e-3 or probability < 0.001
    gaps = np.minimum(np.diff(positions), 40)
    seen = np.bincount(gaps, minlength=41)[1:]
    expected = stats.geom.pmf(np.arange(1, 41), probability)
    expected[-1] = stats.geom.sf(39, probability)
    enough = expected * len(gaps) > 5
    pooled = [*seen[enough], seen[~enough].sum()], [*expected[enough], expected[~enough].sum()]
    seen, expected = np.array(pooled)
    keep = expected > 0
    assert stats.chisquare(seen[keep], expected[keep] / expected.sum() * seen.sum()).pvalue > 1e-3


@pytest.mark.parametrize("n", [1, 2, 5])
def test_each_of_a_few_elements_goes_as_often_as_it_should(n):
    counts = np.zeros(n)
    for _ in range(4000):
        counts[dropped_positions(n, 0.25).numpy()] += 1
    assert (np.abs(counts / 4000 - 0.25) < 0.035).all()


def test_positions_reach_the_end_when_the_first_gaps_do_not(monkeypatch):
    short = torch.rand
    monkeypatch.setattr(fast_dropout.torch, "rand", lambda n: short(max(n // 50, 1)))
    positions = dropped_positions(100_000, 0.1).numpy()
    assert stats.binomtest(len(positions), 100_000, 0.1).pvalue > 1e-3
    assert positions[-1] > 99_000 and (np.diff(positions) > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_value_and_gradient_are_those_of_the_same_mask(dtype):
    x = torch.randn(7, 50, dtype=dtype)
    x = torch.where(x == 0, 1, x).T.requires_grad_()  # not contiguous
    with FastDropout():
        y = F.dropout(x, 0.3)
    assert y.dtype == dtype and y.shape == x.shape
    kept = y != 0
    assert 0.5 < kept.double().mean() < 0.9
    assert torch.equal(y, (x * (1 / 0.7)).where(kept, 0))
    g = torch.randn_like(y)
    y.backward(g)
    assert torch.equal(x.grad, (g * (1 / 0.7)).where(kept, 0))


def test_gradients_of_gradients():
    x = torch.randn(20, dtype=torch.float64, requires_grad=True)

    def f(x):
        torch.manual_seed(1)
        with FastDropout():
            return F.dropout(x**3, 0.2)

    assert torch.autograd.gradcheck(f, x)
    assert torch.autograd.gradgradcheck(f, x)


@pytest.mark.parametrize("probability", [0.0, 1.0, 0.9, 1e-6])
def test_other_probabilities_go_the_plain_way(probability):
    x = torch.ones(1000)
    torch.manual_seed(1)
    expected = F.dropout(x, probability)
    torch.manual_seed(1)
    with FastDropout():
        assert torch.equal(F.dropout(x, probability), expected)
        assert F.dropout(x, 0.1, training=False) is x
        assert F.dropout(x, 0.1, False) is x


def masks(length=9):
    allowed = torch.ones(2, 1, length, length, dtype=torch.bool)
    allowed[1, ..., 6:] = False
    return {
        "none": None,
        "bool": allowed,
        "float": torch.zeros(allowed.shape).masked_fill(~allowed, -1e30),
    }


@pytest.mark.parametrize("mask", ["none", "bool", "float"])
@pytest.mark.parametrize("scale", [None, 0.7])
def test_attention_is_torchs_with_the_same_mask(mask, scale, monkeypatch):
    q, k, v = (torch.randn(2, 3, 9, 8, requires_grad=True) for _ in range(3))
    mask = masks()[mask]
    settings = {"attn_mask": mask, "scale": scale}
    kept = torch.rand(2, 3, 9, 9) > 0.2
    monkeypatch.setattr(
        fast_dropout, "dropped_positions", lambda n, p: (~kept).view(-1).nonzero().view(-1)
    )
    with FastDropout():
        short = F.scaled_dot_product_attention(q, k, v, dropout_p=0.2, **settings)
    # torch's own attention without dropout, of one value at a time, is a row of its weights.
    eye = torch.eye(9).expand(2, 3, 9, 9)
    weights = F.scaled_dot_product_attention(q, k, eye, **settings)
    plain = (weights * kept / 0.8) @ v
    torch.testing.assert_close(short, plain, rtol=1e-5, atol=1e-6)
    g = torch.randn_like(plain)
    for a, b in zip(
        torch.autograd.grad(short, (q, k, v), g), torch.autograd.grad(plain, (q, k, v), g),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_a_token_that_may_see_nothing_spoils_no_gradient(kind):
    q, k, v = (torch.randn(1, 1, 4, 2, requires_grad=True) for _ in range(3))
    allowed = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    seeing = allowed.clone()
    allowed[..., 3, :] = False
    if kind == "float":
        allowed = torch.zeros(allowed.shape).masked_fill(~allowed, -torch.inf)
    state = torch.get_rng_state()
    with FastDropout():
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=0.1)
    found = torch.autograd.grad(out[:, :, :3].sum(), (q, k, v))
    # As if there were no fourth query.
    with torch.random.fork_rng(), FastDropout():
        torch.set_rng_state(state)
        whole = F.scaled_dot_product_attention(q, k, v, attn_mask=seeing, dropout_p=0.1)
    expected = torch.autograd.grad(whole[:, :, :3].sum(), (q, k, v))
    torch.testing.assert_close(found, expected)


def test_attention_without_dropout_is_torchs_own():
    q, k, v = (torch.randn(1, 2, 5, 4) for _ in range(3))
    plain = F.scaled_dot_product_attention(q, k, v)
    causal = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    with FastDropout():
        assert torch.equal(F.scaled_dot_product_attention(q, k, v), plain)
        assert torch.equal(F.scaled_dot_product_attention(q, k, v, is_causal=True), causal)


def test_checkpointed_layers_keep_torchs_dropout(make, data, monkeypatch):
    """They run once more in the backward pass, where the same elements have to go."""

    class Checkpoint(Callback):
        def on_train_begin(self, net, **kwargs):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # newer versions rename it
                net.module_.model.gradient_checkpointing_enable()

    monkeypatch.setattr(fast_dropout, "dropped_positions", lambda n, p: pytest.fail("short way"))
    X, y = data
    clf = make(dropout=0.1, max_epochs=1, callbacks=[Checkpoint()]).fit(X, y)
    monkeypatch.setattr("skfocal._training.loop.TrainingLoop._fast_ways", lambda self: [])
    plain = make(dropout=0.1, max_epochs=1).fit(X, y)
    np.testing.assert_array_equal(clf.predict_proba(X), plain.predict_proba(X))


def test_a_fit_with_dropout_takes_the_short_way_and_the_seed_decides(make, data, monkeypatch):
    X, y = data
    drawn = []
    positions = dropped_positions
    monkeypatch.setattr(
        fast_dropout, "dropped_positions", lambda n, p: drawn.append((n, p)) or positions(n, p)
    )
    first = make(dropout=0.1).fit(X, y)
    assert {p for _, p in drawn} == {0.1}
    n_drawn = len(drawn)
    first.predict(X)
    assert len(drawn) == n_drawn  # no dropout in prediction
    again = make(dropout=0.1).fit(X, y)
    assert np.array_equal(first.predict_proba(X), again.predict_proba(X))
    other = make(dropout=0.1, random_state=1).fit(X, y)
    assert not np.array_equal(first.predict_proba(X), other.predict_proba(X))
    n_drawn = len(drawn)
    make(dropout=0.0).fit(X, y)
    assert len(drawn) == n_drawn
