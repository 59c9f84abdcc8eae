"""The distribution-balanced loss against 50-digit arithmetic, its special cases, the estimator."""

import math
import pickle

import mpmath
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import logits_of
from scipy.special import expit, logit
from sklearn.base import clone
from sklearn.metrics import f1_score
from skorch.callbacks import Callback
from test_multilabel import documents, exact_minimiser, head_bias

from skfocal import BertFocalClassifier, DistributionBalancedLoss, distribution_balanced_loss
from skfocal.losses import AsymmetricLoss, SigmoidCrossEntropyLoss, SigmoidFocalLoss, make_loss
from skfocal.losses._state import loss_from_plain, loss_to_plain

# Documents without and with each label: frequent, rare, very rare, in all, in none.
SUPPORT = torch.tensor([[60, 40], [190, 10], [199, 1], [0, 200], [200, 0]]).double()
K = len(SUPPORT)
OFF = {"rebalance": False, "negative_scale": 1.0, "kappa": 0.0}
VARIANTS = {
    "DB": {},
    "R-FL": {"negative_scale": 1.0, "kappa": 0.0},
    "R-BCE": {"negative_scale": 1.0, "kappa": 0.0, "gamma": 0.0},
    "NTR-FL": {"rebalance": False},
    "DB without focal factor": {"gamma": 0.0},
    "images": {"mu": 0.3, "negative_scale": 5.0, "kappa": 0.1, "gamma": 0.5},
    "flat weights": {"beta": 0.0, "floor": 0.0},
}


def draw(scale=3.0, n=16):
    """Logits, and targets with documents without a label and with all of them."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n, K, generator=generator, dtype=torch.float64) * scale
    target = (torch.rand(n, K, generator=generator) < 0.4).double()
    target[0], target[1] = 0, 1
    return logits, target


def sigmoid(x):
    return 1 / (1 + mpmath.exp(-x))


def term(y, i, *, gamma=2.0, negative_scale=2.0, kappa=0.05, **others):
    """The loss of label i without its weight, as Huang et al. write it; a function of z."""
    absent, present = SUPPORT[i].tolist()
    prior = mpmath.mpf(present) / (absent + present)
    nu = kappa * mpmath.log(1 / prior - 1) if absent and present else 0
    if y:
        return lambda z: -(sigmoid(nu - z) ** gamma) * mpmath.log(sigmoid(z - nu))

    def negative(z):
        # 1 - q as a sigmoid of its own: no number of digits reaches exp(-1000).
        q, rest = (sigmoid(sign * negative_scale * (z - nu)) for sign in (1, -1))
        return -(q**gamma) * mpmath.log(rest) / negative_scale

    return negative


def weight_of(labels, i, *, rebalance=True, floor=0.1, beta=10.0, mu=0.9, **others):
    """The weight of label i in a document with these labels, as Huang et al. write it."""
    n = [mpmath.mpf(max(present, 1)) for _, present in SUPPORT.tolist()]
    of_document = sum(y / n_j / K for y, n_j in zip(labels, n, strict=True))  # P^I
    if not rebalance:
        return 1
    if not of_document:
        return floor + 1
    return floor + sigmoid(beta * (1 / n[i] / K / of_document - mu))


def reference(logits, target, settings, of=lambda f, z: f(z)):
    """The loss of each element by mpmath, or what else `of` computes from it."""
    values = []
    for row, labels in zip(logits.tolist(), target.tolist(), strict=True):
        for i, (z, y) in enumerate(zip(row, labels, strict=True)):
            sides = [share * of(term(side, i, **settings), mpmath.mpf(z))
                     for side, share in ((1, mpmath.mpf(y)), (0, 1 - mpmath.mpf(y)))]  # fmt: skip
            values.append(float(weight_of(labels, i, **settings) * sum(sides)))
    return torch.tensor(values, dtype=torch.float64).reshape(logits.shape)


# -- values ----------------------------------------------------------------------------------


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("scale", [1, 10, 100])
@pytest.mark.parametrize("name", VARIANTS)
def test_values_equal_50_digit_arithmetic(name, scale, soft):
    logits, target = draw(scale)
    logits = logits.clamp(-150, 150)
    target = (0.9 * target + 0.05) if soft else target
    with mpmath.workdps(50 if scale == 1 else 400):  # -log(1 - 1e-300) needs the digits
        expected = reference(logits, target, VARIANTS[name])
    found = distribution_balanced_loss(logits, target, SUPPORT, **VARIANTS[name])
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-300)
    module = DistributionBalancedLoss(SUPPORT, **VARIANTS[name])
    torch.testing.assert_close(module.per_class(logits, target), expected / K, rtol=1e-13, atol=0)
    torch.testing.assert_close(module(logits, target), expected.mean(), rtol=1e-13, atol=0)


def test_values_by_hand():
    """One document with the frequent label, one with both, one with none; all logits are 0."""
    target = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]).double()
    support = torch.tensor([[10, 90], [95, 5]])
    r = torch.tensor(
        [
            [0.1 + expit(10 * (1 - 0.9)), 0.1 + expit(10 * (90 / 5 - 0.9))],
            [0.1 + expit(10 * (5 / 95 - 0.9)), 0.1 + expit(10 * (90 / 95 - 0.9))],
            [1.1, 1.1],
        ]
    )
    # The shift lowers the logit of the rare label and raises that of the frequent one.
    up, down = 0.05 * math.log(90 / 10), -0.05 * math.log(95 / 5)
    positive = [-np.log(expit(s)) for s in (up, down)]
    negative = [-np.log(expit(-2 * s)) / 2 for s in (up, down)]
    expected = r * torch.tensor(
        [[positive[0], negative[1]], [positive[0], positive[1]], [negative[0], negative[1]]]
    )
    found = distribution_balanced_loss(torch.zeros(3, 2).double(), target, support, gamma=0.0)
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=0)
    np.testing.assert_allclose(r[:2].ravel(), [0.8311, 1.1, 0.1002, 0.7163], atol=1e-4)


def test_without_its_three_parts_it_is_torchs_binary_cross_entropy():
    for scale in (1, 30):
        logits, target = draw(scale)
        found = distribution_balanced_loss(logits, target, SUPPORT, gamma=0.0, **OFF)
        expected = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        torch.testing.assert_close(found, expected, rtol=1e-15, atol=1e-14)
        for normalize in ("samples", "weights", "sum", None):
            ours = DistributionBalancedLoss(SUPPORT, 0.0, **OFF, normalize=normalize)
            same = SigmoidCrossEntropyLoss(normalize=normalize)
            assert torch.equal(ours(logits, target), same(logits, target))


def test_without_weights_and_tolerance_it_is_the_sigmoid_focal_loss():
    logits, target = draw()
    weight = torch.rand(K, 2, generator=torch.Generator().manual_seed(1)).double() + 0.5
    for gamma in (0.5, 2.0):
        ours = DistributionBalancedLoss(SUPPORT, gamma, **OFF, weight=weight)
        same = SigmoidFocalLoss(gamma, weight=weight)
        torch.testing.assert_close(
            ours.per_class(logits, target), same.per_class(logits, target), rtol=1e-14, atol=0
        )
        torch.testing.assert_close(ours.log_posterior(logits), same.log_posterior(logits))


def test_a_tolerated_negative_pulls_less_than_a_plain_one():
    logits = torch.full((1, K), -4.0, requires_grad=True)
    pull = []
    for scale in (1.0, 2.0, 5.0):
        loss = distribution_balanced_loss(
            logits,
            torch.zeros(1, K),
            SUPPORT,
            gamma=0.0,
            rebalance=False,
            negative_scale=scale,
            kappa=0.0,
        )
        pull.append(torch.autograd.grad(loss.sum(), logits)[0][0, 0].item())
    np.testing.assert_allclose(pull, expit(-4 * np.array([1, 2, 5])), rtol=1e-6)


def test_class_weight_multiplies_the_sides_of_the_labels():
    logits, target = draw()
    weight = torch.arange(1.0, 2 * K + 1).reshape(K, 2).double()
    plain = DistributionBalancedLoss(SUPPORT).per_class(logits, target)
    sides = torch.where(target > 0, weight[:, 1], weight[:, 0])
    weighted = DistributionBalancedLoss(SUPPORT, weight=weight).per_class(logits, target)
    torch.testing.assert_close(weighted, sides * plain, rtol=1e-14, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", VARIANTS)
def test_values_and_gradients_are_finite_at_any_logits(name, dtype):
    far = torch.tensor([-1e4, -300.0, -30.0, 0.0, 30.0, 300.0, 1e4])
    logits = far[:, None].expand(-1, K).to(dtype)
    for target in (torch.zeros(K), torch.ones(K), torch.eye(K)[1], torch.full((K,), 0.3)):
        wide = logits.clone().requires_grad_()
        loss = DistributionBalancedLoss(SUPPORT, **VARIANTS[name], normalize=None)
        value = loss(wide, target.expand(len(far), K))
        value.sum().backward()
        assert value.isfinite().all() and wide.grad.isfinite().all()
        assert value.dtype == torch.promote_types(dtype, torch.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_equals_float32_of_the_same_rounded_logits(dtype):
    logits, target = draw(10)
    half = distribution_balanced_loss(logits.to(dtype), target.to(dtype), SUPPORT)
    whole = distribution_balanced_loss(logits.to(dtype).float(), target, SUPPORT)
    assert half.dtype == torch.float32 and torch.equal(half, whole)
    exact = distribution_balanced_loss(logits.to(dtype).double(), target, SUPPORT)
    torch.testing.assert_close(whole.double(), exact, rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("name", VARIANTS)
def test_gradcheck(name):
    logits, target = draw(2, n=4)
    settings = VARIANTS[name]

    def loss(z):
        return distribution_balanced_loss(z, target, SUPPORT, **settings)

    assert torch.autograd.gradcheck(loss, logits.requires_grad_())


@pytest.mark.parametrize("name", VARIANTS)
def test_gradient_equals_50_digit_arithmetic(name):
    logits, target = draw(10, n=6)
    logits.requires_grad_()
    distribution_balanced_loss(logits, target, SUPPORT, **VARIANTS[name]).sum().backward()
    with mpmath.workdps(200):
        expected = reference(logits, target, VARIANTS[name], mpmath.diff)
    torch.testing.assert_close(logits.grad, expected, rtol=1e-12, atol=1e-300)


# -- batches ---------------------------------------------------------------------------------


def test_a_sample_does_not_depend_on_the_others():
    logits, target = draw()
    loss = DistributionBalancedLoss(SUPPORT, normalize=None)
    alone = torch.cat([loss(logits[[i]], target[[i]]) for i in range(len(logits))])
    assert torch.equal(loss(logits, target), alone)


def test_normalisation_by_weights_counts_all_weights():
    logits, target = draw()
    weight = torch.arange(1.0, 2 * K + 1).reshape(K, 2).double()
    sample_weight = torch.arange(len(logits)).double() % 3
    each = [[float(weight_of(labels, i)) for i in range(K)] for labels in target.tolist()]
    r = torch.tensor(each, dtype=torch.float64)
    sides = torch.where(target > 0, weight[:, 1], weight[:, 0])
    for settings, each in [
        ({}, r),
        ({"weight": weight}, r * sides),
        ({"weight": weight, "rebalance": False}, sides),
    ]:
        loss = DistributionBalancedLoss(SUPPORT, normalize="weights", **settings)
        whole = loss.per_sample(logits, target) * sample_weight
        divisor = (each.mean(1) * sample_weight).sum()
        torch.testing.assert_close(
            loss(logits, target, sample_weight), whole.sum() / divisor, rtol=1e-12, atol=0
        )
        assert loss(logits, target, 0 * sample_weight) == 0


@pytest.mark.parametrize("normalize", ["samples", "weights", "sum"])
def test_sample_weight_equals_repetition(normalize):
    logits, target = draw()
    times = torch.arange(len(logits)) % 4
    loss = DistributionBalancedLoss(SUPPORT, normalize=normalize)
    repeated = loss(logits.repeat_interleave(times, 0), target.repeat_interleave(times, 0))
    weight = times.double()
    weight = weight / weight.mean() if normalize == "samples" else weight
    torch.testing.assert_close(loss(logits, target, weight), repeated, rtol=1e-12, atol=0)


# -- the posterior ---------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("gamma", "scale", "kappa"),
    [(2.0, 2.0, 0.05), (0.0, 2.0, 0.05), (0.0, 40.0, 0.3), (0.5, 5.0, 0.5), (5.0, 20.0, 0.0)],
)
def test_posterior_of_each_label_is_recovered_from_the_exact_minimiser(
    gamma, scale, kappa, weighted
):
    settings = {"gamma": gamma, "negative_scale": scale, "kappa": kappa}
    weight = torch.tensor([[0.5, 4.0], [0.8, 1.5], [1.0, 1.0]]).double() if weighted else None
    loss = DistributionBalancedLoss(SUPPORT[:3], **settings, rebalance=False, weight=weight)
    for eta in (0.01, 0.3, 0.8, 0.97):
        logits = []
        for i in range(3):
            absence, presence = weight[i].tolist() if weighted else (1, 1)
            with mpmath.workdps(50):
                negative, positive = term(0, i, **settings), term(1, i, **settings)
                # The weights act as if the label had another share.
                share = eta * presence / (eta * presence + (1 - eta) * absence)
                logits.append(exact_minimiser(positive, negative, share))
        odds = loss.log_posterior(torch.tensor([logits], dtype=torch.float64))
        np.testing.assert_allclose(expit(odds.numpy()), eta, atol=1e-9)
        assert np.abs(expit(np.array(logits)) - eta).max() > 1e-3  # the sigmoid is another


@pytest.mark.parametrize("scale", [1.0, 2.0, 7.0, 20.0])
@pytest.mark.parametrize("gamma", [0.1, 0.5, 1.0, 2.0, 3.0, 5.0, 20.0])
def test_the_odds_rise_with_the_logit_where_the_loss_has_an_inverse(gamma, scale):
    loss = DistributionBalancedLoss(SUPPORT, gamma, rebalance=False, negative_scale=scale)
    logits = torch.linspace(-60, 60, 20_001).double()[:, None].expand(-1, K)
    assert loss.has_posterior
    assert (loss.log_posterior(logits).diff(dim=0) > 0).all()


def test_beyond_the_greatest_scale_the_odds_may_fall():
    loss = DistributionBalancedLoss(SUPPORT, 2.0, rebalance=False, negative_scale=50.0)
    assert not loss.has_posterior
    assert DistributionBalancedLoss(SUPPORT, 0.0, rebalance=False, negative_scale=50).has_posterior
    logits = torch.linspace(-2, 2, 2001).double()[:, None].expand(-1, K)
    odds = loss._log_odds(logits, SUPPORT)
    assert (odds.diff(dim=0) < 0).any()


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "NTR-FL"])
def test_with_rebalanced_weights_there_is_no_inverse(name):
    loss = DistributionBalancedLoss(SUPPORT, **VARIANTS[name])
    assert not loss.has_posterior and not loss.keeps_decision
    assert loss.implied_class_weight() is None
    with pytest.raises(NotImplementedError, match="DistributionBalancedLoss has no inverse"):
        loss.log_posterior(torch.zeros(1, K))


def test_the_same_probability_of_a_label_has_other_logits_beside_other_labels():
    """Why there is none: the minimiser depends on which labels come together."""
    support = torch.tensor([[100, 100], [190, 10]])
    loss = DistributionBalancedLoss(support, 0.0, negative_scale=1.0, kappa=0.0)
    for target, present, absent, expected in [
        ([[1, 1], [0, 0]], 0.1 + expit(10 * (10 / 110 - 0.9)), 1.1, -2.39),
        ([[1, 0], [0, 1]], 0.1 + expit(10 * 0.1), 0.1 + expit(10 * (10 / 100 - 0.9)), 2.11),
    ]:  # half of them have the first label
        z = np.log(present / absent)
        assert z == pytest.approx(expected, abs=0.01)
        logits = torch.tensor([z, 0.0], dtype=torch.float64, requires_grad=True)
        loss(logits.expand(2, 2), torch.tensor(target)).backward()
        assert abs(logits.grad[0].item()) < 1e-12


def test_posterior_is_finite_at_any_logits_and_keeps_its_dtype():
    far = torch.tensor([-1e4, -300.0, 0.0, 300.0, 1e4])[:, None].expand(-1, K)
    for dtype in (torch.float32, torch.float64):
        for settings in ({}, {"gamma": 5.0, "negative_scale": 20.0}, {"gamma": 0.0}):
            loss = DistributionBalancedLoss(SUPPORT, **settings, rebalance=False)
            odds = loss.log_posterior(far.to(dtype))
            assert odds.isfinite().all() and odds.dtype == dtype


@pytest.mark.parametrize("settings", [{}, {"kappa": 0.5}, {"kappa": 0.0}, {"gamma": 0.0}])
def test_the_implied_weight_moves_the_threshold_to_where_the_logits_have_it(settings):
    loss = DistributionBalancedLoss(SUPPORT, **settings, rebalance=False)
    weight = loss.implied_class_weight()
    shares = SUPPORT / SUPPORT.sum(1, keepdim=True)
    torch.testing.assert_close((weight * shares).sum(1), torch.ones(K).double())
    torch.testing.assert_close(weight[3:], torch.ones(2, 2).double())  # of all or no documents
    logits, _ = draw(n=500)
    odds = loss.log_posterior(logits) + (weight[:, 1] / weight[:, 0]).log()
    assert loss.keeps_decision and torch.equal(odds > 0, logits > 0)
    if settings.get("kappa") == 0.5:  # the threshold of the posterior itself is elsewhere
        assert not torch.equal(loss.log_posterior(logits) > 0, logits > 0)


def test_without_focal_factor_and_scale_the_implied_weight_is_the_prior_to_the_kappa():
    loss = DistributionBalancedLoss(SUPPORT[:3], 0.0, rebalance=False, negative_scale=1, kappa=0.3)
    weight = loss.implied_class_weight()
    expected = (SUPPORT[:3, 0] / SUPPORT[:3, 1]) ** 0.3
    torch.testing.assert_close(weight[:, 1] / weight[:, 0], expected)


# -- settings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gamma": -1}, "gamma must be a finite number of at least 0. Got -1"),
        ({"rebalance": "yes"}, "rebalance must be True or False. Got 'yes'"),
        ({"floor": -0.1}, "floor must be a finite number of at least 0. Got -0.1"),
        ({"beta": math.inf}, "beta must be a finite number of at least 0. Got inf"),
        ({"mu": "0.9"}, "mu must be a finite number of at least 0. Got '0.9'"),
        ({"negative_scale": 0.5}, "negative_scale must be a finite number of at least 1. Got 0.5"),
        ({"kappa": math.nan}, "kappa must be a finite number of at least 0. Got nan"),
        ({"support": [3, 4]}, r"support must have shape \(n_labels, 2\).* Got \(2,\)"),
        ({"support": [[3, -4]]}, "support must be finite and at least 0"),
        ({"weight": [1.0, 2.0]}, r"weight must have shape \(n_labels, 2\)"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        DistributionBalancedLoss(**{"support": SUPPORT, **settings})


def test_wrong_shapes_are_named():
    logits = torch.zeros(2, 3)
    for support in (SUPPORT, SUPPORT[:3, 1]):
        with pytest.raises(ValueError, match=r"support \(n_labels, 2\).* Got \(2, 3\) and"):
            distribution_balanced_loss(logits, logits, support)
    with pytest.raises(ValueError, match="logits and target must have the same shape"):
        distribution_balanced_loss(logits, logits[:, :2], SUPPORT[:3])


def test_large_counts_keep_their_digits_and_a_flag_becomes_a_bool():
    support = torch.tensor([[9_999_998, 5], [123_457, 7_654_321]])
    logits, target = draw()[0][:, :2], draw()[1][:, :2]
    loss = DistributionBalancedLoss(support, rebalance=np.bool_(True))
    expected = distribution_balanced_loss(logits, target, support)
    torch.testing.assert_close(loss(logits, target), expected.mean(), rtol=1e-15, atol=0)
    assert loss.rebalance is True


def test_the_name_takes_counts_and_gamma_from_the_estimator():
    settings = {"label_smoothing": 0.0, "normalize": "samples", "weight": None}
    made = make_loss(
        "distribution_balanced",
        gamma=1.0,
        counts=SUPPORT,
        params={"kappa": 0.1},
        multilabel=True,
        **settings,
    )
    assert type(made) is DistributionBalancedLoss and made.rebalance
    assert (made.gamma, made.kappa) == (1.0, 0.1) and torch.equal(made.support, SUPPORT.float())
    settings["label_smoothing"] = 0.1
    with pytest.raises(ValueError, match="label_smoothing=0.1 is not defined for loss='Distrib"):
        make_loss("distribution_balanced", gamma=1.0, counts=SUPPORT, multilabel=True, **settings)


@pytest.mark.parametrize("weight", [None, torch.arange(1.0, 2 * K + 1).reshape(K, 2)])
@pytest.mark.parametrize("name", VARIANTS)
def test_it_comes_back_from_plain_data(name, weight):
    loss = DistributionBalancedLoss(SUPPORT, **VARIANTS[name], weight=weight, normalize="sum")
    again = loss_from_plain(loss_to_plain(loss))
    assert repr(again) == repr(loss)
    logits, target = draw()
    assert torch.equal(again(logits, target), loss(logits, target))
    plain = loss_to_plain(loss)
    plain["buffers"]["support"] = -plain["buffers"]["support"] - 1
    with pytest.raises(ValueError, match="support must be finite and at least 0"):
        loss_from_plain(plain)
    del plain["buffers"]["support"]
    with pytest.raises(ValueError, match="support must have shape"):
        loss_from_plain(plain)


# -- the estimator ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def make(make_of_few_words):
    """Return a function that makes classifiers of few words with this loss."""

    def make(**settings):
        return make_of_few_words(**{"loss": "distribution_balanced"} | settings)

    return make


def counts(y):
    return np.stack([len(y) - y.sum(0), y.sum(0)], 1)


def test_the_estimator_counts_the_documents_and_trains_with_them(make):
    X, y = documents()
    clf = make(lr=1e-12, max_epochs=1, gamma=1.5, batch_size=60).fit(X, y)
    np.testing.assert_array_equal(clf.loss_.support, counts(y))
    assert clf.loss_.gamma == 1.5 and clf.proba_ == "softmax"
    np.testing.assert_array_equal(clf.effective_class_weight_, np.ones((3, 2)))
    logits, target = torch.from_numpy(logits_of(clf, X)), torch.from_numpy(y).float()
    expected = distribution_balanced_loss(logits, target, torch.from_numpy(counts(y)), gamma=1.5)
    assert clf.history_[-1]["train_loss"] == pytest.approx(expected.mean().item(), rel=1e-4)
    np.testing.assert_allclose(clf.predict_proba(X), torch.sigmoid(logits), rtol=1e-5)


def test_it_finds_the_rare_label(make):
    X, y = documents(120)
    y[:, 0] *= np.arange(120) % 4 == 0
    X = [x if on else x.replace("lunch", "").replace("free", "").replace("offer", "")
         for x, on in zip(X, y[:, 0], strict=True)]  # fmt: skip
    assert 3 <= y[:, 0].sum() <= 10
    clf = make(max_epochs=25, lr=2e-3, schedule="constant").fit(X, y)
    assert f1_score(y, clf.predict(X), average=None).min() > 0.9


def test_natural_probabilities_need_the_weights_off(make):
    X, y = documents()
    for wrong in ({"proba": "natural"}, {"decision": "prior", "prior": "uniform"}):
        with pytest.raises(ValueError, match="needs a loss with an inverse .* DistributionBalanc"):
            make(**wrong).fit(X, y)
    clf = make(alpha="effective", loss_params={"rebalance": False}, proba="natural").fit(X, y)
    logits = torch.from_numpy(logits_of(clf, X)).double()
    np.testing.assert_allclose(
        clf.decision_function(X), clf.loss_.log_posterior(logits), rtol=1e-6, atol=1e-6
    )
    clf.set_params(proba="auto")
    assert clf.proba_ == "reweighted"
    np.testing.assert_array_equal(clf.predict(X), logits > 0)
    implied = clf.loss_.implied_class_weight().numpy()
    np.testing.assert_allclose(clf.effective_class_weight_, clf.class_weight_ * implied)


def test_the_head_begins_with_the_log_odds_that_the_shift_asks_for(make):
    X, y = documents(200)
    off = {"rebalance": False, "negative_scale": 1.0, "kappa": 0.5}
    clf = make(loss_params=off, gamma=0.0, lr=1e-12, max_epochs=1).fit(X, y)
    share = y.mean(0)
    # The logit that the least expected loss asks for if nothing is known of a document.
    np.testing.assert_allclose(head_bias(clf), 0.5 * logit(share), atol=0.05)


def test_one_label_per_document_is_refused(make):
    with pytest.raises(ValueError, match="loss for one label per document must be one of"):
        make().fit(["a", "b"], [0, 1])
    with pytest.raises(ValueError, match="DistributionBalancedLoss is for several labels per docu"):
        make(loss=DistributionBalancedLoss).fit(["a", "b"], [0, 1])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"alpha": 0.1}, r"loss_params must be among \['beta', 'floor', 'gamma', 'kappa', 'mu'"),
        ({"negative_scale": 0}, "negative_scale must be a finite number of at least 1. Got 0"),
        ({"support": [[1, 2]]}, "support in loss_params must have one number for each of the 3"),
    ],
)
def test_wrong_loss_params_are_named(make, params, message):
    with pytest.raises(ValueError, match=message):
        make(loss_params=params).fit(*documents())


def test_chunks_add_to_the_counts(make):
    X, y = documents()
    clf = make()
    for rows in (slice(0, 20), slice(20, 60)):
        clf.partial_fit(X[rows], y[rows], classes=[0, 1, 2])
    np.testing.assert_array_equal(clf.loss_.support, counts(y))


def test_sample_weight_counts(make):
    X, y = documents()
    times = 1 + np.arange(60) % 3
    clf = make(max_epochs=1).fit(X, y, sample_weight=times)
    rows = np.repeat(np.arange(60), times)
    again = make(max_epochs=1).fit([X[i] for i in rows], y[rows])
    ours, theirs = clf.loss_.support, again.loss_.support
    torch.testing.assert_close(
        ours / ours.sum(1, keepdim=True), theirs / theirs.sum(1, keepdim=True)
    )


@pytest.mark.parametrize("off", [{}, {"rebalance": np.bool_(False)}])
def test_it_comes_back_from_pickles_folders_and_clones(make, tmp_path, off):
    X, y = documents()
    clf = make(loss_params={"kappa": 0.1, **off}, normalize="weights").fit(X, y)
    expected = clf.predict_proba(X)
    clf.save_pretrained(tmp_path / "model")
    for again in (
        pickle.loads(pickle.dumps(clf)),
        BertFocalClassifier.from_pretrained(tmp_path / "model"),
    ):
        assert repr(again.loss_) == repr(clf.loss_)
        assert torch.equal(again.loss_.support, clf.loss_.support)
        np.testing.assert_array_equal(again.predict_proba(X), expected)
        again.partial_fit(X, y, classes=[0, 1, 2])
    np.testing.assert_array_equal(clone(clf).fit(X, y).predict_proba(X), expected)
    own = make(loss=clf.loss_, loss_params=None, normalize="weights").fit(X, y)
    np.testing.assert_array_equal(own.predict_proba(X), expected)


def test_an_interrupted_fit_goes_on(make, tmp_path):
    X, y = documents()

    class Stop(Exception):
        pass

    class Halt(Callback):
        def on_epoch_end(self, net, **kwargs):
            if len(net.history) == 2 and not (tmp_path / "stopped").exists():
                (tmp_path / "stopped").touch()
                raise Stop

    settings = {"max_epochs": 3, "checkpoint": str(tmp_path / "points"), "callbacks": [Halt()]}
    with pytest.raises(Stop):
        make(**settings).fit(X, y)
    again = make(**settings).fit(X, y)
    whole = make(max_epochs=3).fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X), whole.predict_proba(X))


def test_other_losses_are_as_they_were():
    for loss in (SigmoidFocalLoss(), AsymmetricLoss()):
        assert loss.implied_class_weight() is None
