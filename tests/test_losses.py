"""The losses against mpmath, float64, torch, transformers and two independent packages."""

import functools
import math
import sys

import mpmath
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck
from transformers.loss.loss_for_object_detection import sigmoid_focal_loss as hf_sigmoid_focal

from skfocal.losses import (
    LOSSES,
    CrossEntropyLoss,
    CustomLoss,
    DiceLoss,
    FocalLoss,
    LDAMLoss,
    LogitAdjustedLoss,
    Loss,
    Poly1FocalLoss,
    Poly1Loss,
    SigmoidFocalLoss,
    asymmetric_loss,
    class_margins,
    cross_entropy,
    dice_loss,
    focal_loss,
    ldam_loss,
    logit_adjusted_loss,
    make_loss,
    poly1_focal_loss,
    sigmoid_focal_loss,
    target_margin,
)

GAMMAS = [0, 0.3, 0.5, 1, 2, 5]
N, K = 32, 5
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def draw(scale, dtype=torch.float64, n=N, k=K, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, k, generator=generator, dtype=torch.float64) * scale
    logits = logits.clamp(-300, 300).to(dtype)
    return logits, torch.randint(k, (n,), generator=generator)


def exact(logits, target, gamma):
    """Value and gradient of the focal loss by 60-digit arithmetic."""
    values, gradients = [], []
    with mpmath.workdps(60):
        for row, t in zip(logits.double().tolist(), target.tolist(), strict=True):
            e = [mpmath.exp(mpmath.mpf(z)) for z in row]
            q = [x / sum(e) for x in e]
            p, rest = q[t], sum(x for k, x in enumerate(e) if k != t) / sum(e)
            values.append(float(rest**gamma * -mpmath.log(p)))
            slope = rest ** (gamma - 1) * (gamma * p * mpmath.log(p) - rest)
            gradients.append([float(slope * (rest if j == t else -q[j])) for j in range(len(row))])
    return torch.tensor(values, dtype=torch.float64), torch.tensor(gradients, dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [1, 10, 100, 300])
@pytest.mark.parametrize("gamma", GAMMAS)
def test_value_and_gradient_equal_60_digit_arithmetic(gamma, scale, dtype):
    logits, target = draw(scale, dtype)
    value, gradient = exact(logits, target, gamma)
    wide = logits.to(torch.promote_types(dtype, torch.float32)).requires_grad_()
    loss = focal_loss(wide, target, gamma=gamma)
    loss.sum().backward()
    rtol = TOLERANCE[wide.dtype]
    # Below 1e-30 float32 has no digits left; the answer must still be finite and tiny.
    torch.testing.assert_close(loss.detach().double(), value, rtol=rtol, atol=1e-30)
    torch.testing.assert_close(wide.grad.double(), gradient, rtol=10 * rtol, atol=1e-30)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("smoothing", [0, 0.1])
def test_half_precision_equals_float32_of_the_same_rounded_logits(dtype, smoothing):
    logits, target = draw(10, dtype)
    settings = {"gamma": 0.5, "label_smoothing": smoothing}
    half = focal_loss(logits, target, **settings)
    assert half.dtype == torch.float32
    assert torch.equal(half, focal_loss(logits.float(), target, **settings))
    assert (sigmoid_focal_loss(logits, torch.ones_like(logits)) > 0).all()


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("smoothing", [0, 0.1])
def test_gradient_is_finite_at_any_margin(gamma, smoothing):
    for right in (-300.0, 300.0):
        logits = torch.tensor([[right, -300.0, 0.0]], requires_grad=True)
        focal_loss(logits, torch.tensor([0]), gamma=gamma, label_smoothing=smoothing).backward()
        assert logits.grad.isfinite().all()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0, 0.1])
@pytest.mark.parametrize("normalize", ["samples", "weights", "sum", None])
def test_gamma_zero_is_torch_cross_entropy(normalize, smoothing, weighted):
    logits, target = draw(3)
    weight = torch.linspace(0.1, 4, K, dtype=torch.float64) if weighted else None
    reduction = {"weights": "mean", "sum": "sum"}.get(normalize, "none")
    expected = F.cross_entropy(
        logits, target, weight=weight, label_smoothing=smoothing, reduction=reduction
    )
    if normalize == "samples":
        expected = expected.mean()
    settings = {"weight": weight, "normalize": normalize, "label_smoothing": smoothing}
    for loss in (FocalLoss(gamma=0, **settings), CrossEntropyLoss(**settings)):
        torch.testing.assert_close(loss(logits, target), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_gradient_is_the_closed_form(gamma):
    logits, target = draw(3)
    logits.requires_grad_()
    focal_loss(logits, target, gamma=gamma).sum().backward()
    q = logits.detach().softmax(1)
    p = q.gather(1, target[:, None])
    slope = (1 - p) ** (gamma - 1) * (gamma * p * p.log() + p - 1)
    expected = slope * (F.one_hot(target, K) - q)
    torch.testing.assert_close(logits.grad, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_gradcheck(gamma):
    logits, target = draw(2, n=6)
    logits.requires_grad_()
    weight = torch.linspace(0.5, 2, K, dtype=torch.float64)
    for smoothing in (0, 0.2):

        def loss(z, smoothing=smoothing):
            return focal_loss(z, target, gamma=gamma, weight=weight, label_smoothing=smoothing)

        assert gradcheck(loss, (logits,))


@pytest.mark.parametrize("gamma", GAMMAS)
def test_two_logits_are_the_sigmoid_of_their_difference(gamma):
    logits, target = draw(30, k=2)
    one = sigmoid_focal_loss(logits[:, 1] - logits[:, 0], target.double(), gamma=gamma)
    torch.testing.assert_close(focal_loss(logits, target, gamma=gamma), one, rtol=1e-12, atol=0)


@pytest.mark.parametrize("gamma", [0, 1, 2, 5])
@pytest.mark.parametrize("alpha", [None, 0.25, 0.7])
def test_sigmoid_form_equals_transformers(gamma, alpha):
    logits, _ = draw(5)
    target = (torch.rand(N, K, generator=torch.Generator().manual_seed(1)) < 0.3).double()
    # Theirs is a mean over labels, divided by a number of boxes; alpha=-1 means none.
    theirs = hf_sigmoid_focal(logits, target, N, alpha=-1 if alpha is None else alpha, gamma=gamma)
    ours = sigmoid_focal_loss(logits, target, gamma=gamma, alpha=alpha).mean()
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=0)


def test_sigmoid_alpha_may_differ_by_label():
    logits, _ = draw(2)
    target = (logits > 1).double()
    alpha = torch.linspace(0.1, 0.9, K).double()
    together = sigmoid_focal_loss(logits, target, alpha=alpha)
    for label in range(K):
        alone = sigmoid_focal_loss(logits[:, label], target[:, label], alpha=float(alpha[label]))
        torch.testing.assert_close(together[:, label], alone, rtol=1e-12, atol=0)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_independent_packages_agree(gamma):
    from cbloss.loss import FocalLoss as CbLossFocal
    from focal_loss import FocalLoss as ProbabilityFocal

    logits, target = draw(2, torch.float32)
    theirs = CbLossFocal(num_classes=K, gamma=gamma, reduction="none")(logits, target)
    torch.testing.assert_close(focal_loss(logits, target, gamma=gamma), theirs, rtol=1e-4, atol=0)

    weight = torch.linspace(0.5, 2, K)
    theirs = ProbabilityFocal(gamma=gamma, weights=weight)(logits.softmax(1), target)
    ours = FocalLoss(gamma, weight=weight, normalize="weights")(logits, target)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=0)


def test_a_sample_does_not_depend_on_the_others():
    logits, target = draw(10)
    alone = focal_loss(logits, target, label_smoothing=0.1)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(2))
    assert torch.equal(focal_loss(logits[order], target[order], label_smoothing=0.1), alone[order])
    more = torch.cat([logits, 100 * logits])
    assert torch.equal(
        focal_loss(more, torch.cat([target, target]), label_smoothing=0.1)[:N], alone
    )


def test_adding_a_constant_to_all_logits_changes_nothing():
    logits, target = draw(3)
    torch.testing.assert_close(
        focal_loss(logits + 7, target), focal_loss(logits, target), rtol=1e-12, atol=0
    )


def test_class_margins_equal_the_margin_of_each_class():
    for scale in (1, 100, 300):
        logits, _ = draw(scale)
        logits[0] = 0.0  # all tied
        each = torch.stack([target_margin(logits, torch.full((N,), k)) for k in range(K)], dim=1)
        torch.testing.assert_close(class_margins(logits), each, rtol=1e-12, atol=1e-12)


# -- the forms that are copied everywhere and are not the focal loss -------------------------

# Two documents: an easy one of the head class, a hard one of the tail class.
LOGITS = torch.tensor([[3.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
TARGET = torch.tensor([0, 1])
WEIGHT = torch.tensor([0.2, 5.0], dtype=torch.float64)


def test_factor_of_the_batch_mean_is_only_another_step_size():
    logits = LOGITS.clone().requires_grad_()
    ce = F.cross_entropy(logits, TARGET)  # the mean: one p_t for the whole batch
    wrong = (1 - torch.exp(-ce)) ** 2 * ce
    (of_wrong,) = torch.autograd.grad(wrong, logits)
    (of_ce,) = torch.autograd.grad(F.cross_entropy(logits, TARGET), logits)
    (of_focal,) = torch.autograd.grad(focal_loss(logits, TARGET).mean(), logits)
    cosine = F.cosine_similarity
    assert cosine(of_wrong.ravel(), of_ce.ravel(), dim=0) == pytest.approx(1, abs=1e-12)
    # The hard document pulls 15 times harder than the easy one in the wrong form as in
    # cross-entropy, and 1800 times harder in the focal loss.
    pull = [g.norm(dim=1)[1] / g.norm(dim=1)[0] for g in (of_wrong, of_ce, of_focal)]
    assert pull[0] == pytest.approx(float(pull[1]), rel=1e-9)
    assert float(pull[1]) == pytest.approx(15.4, abs=0.1)
    assert float(pull[2]) > 1000
    assert wrong.item() != pytest.approx(focal_loss(LOGITS, TARGET).mean().item(), rel=0.1)


def test_p_of_the_weighted_cross_entropy_turns_the_focus_around():
    weighted = F.cross_entropy(LOGITS, TARGET, weight=WEIGHT, reduction="none")
    wrong_factor = (1 - torch.exp(-weighted)) ** 2
    right_factor = (1 - LOGITS.softmax(1).gather(1, TARGET[:, None])[:, 0]) ** 2
    wrong = wrong_factor * weighted
    ours = focal_loss(LOGITS, TARGET, weight=WEIGHT)
    torch.testing.assert_close(ours, right_factor * weighted, rtol=1e-12, atol=0)
    # p**w instead of p: the weight gets into the factor, 24 times too small for the head class.
    assert (right_factor / wrong_factor)[0].item() == pytest.approx(24.0, abs=1)
    assert (wrong / ours)[1].item() == pytest.approx(1.87, abs=0.01)


def test_power_of_one_minus_p_has_no_gradient_where_ours_has():
    logits = torch.tensor([[20.0, 0.0]], requires_grad=True)
    ce = F.cross_entropy(logits, torch.tensor([0]), reduction="none")
    ((1 - torch.exp(-ce)) ** 0.5 * ce).sum().backward()
    assert logits.grad.isnan().any()
    logits.grad = None
    focal_loss(logits, torch.tensor([0]), gamma=0.5).sum().backward()
    assert logits.grad.isfinite().all() and (logits.grad != 0).all()


# -- modules ---------------------------------------------------------------------------------


def test_weight_is_a_buffer():
    loss = FocalLoss(weight=[1, 2, 3])
    assert set(loss.state_dict()) == {"weight"}
    assert loss.weight.dtype == torch.float32
    assert loss.to(torch.float64).weight.dtype == torch.float64
    assert not list(loss.parameters())


def test_weight_scales_each_class_linearly():
    logits, target = draw(3)
    weight = torch.arange(1.0, K + 1, dtype=torch.float64)
    plain = focal_loss(logits, target)
    torch.testing.assert_close(
        focal_loss(logits, target, weight=weight), weight[target] * plain, rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("normalize", ["samples", "weights", "sum"])
def test_sample_weight_equals_repetition(normalize):
    logits, target = draw(3)
    times = torch.arange(N) % 4
    loss = FocalLoss(weight=torch.linspace(0.5, 2, K).double(), normalize=normalize)
    repeated = loss(logits.repeat_interleave(times, 0), target.repeat_interleave(times))
    weight = times.double()
    if normalize == "samples":  # documented: weights of mean 1
        weight = weight / weight.mean()
    torch.testing.assert_close(loss(logits, target, weight), repeated, rtol=1e-12, atol=0)


@pytest.mark.parametrize("normalize", ["samples", "weights", "sum"])
def test_a_batch_of_zero_weight_has_zero_loss_and_gradient(normalize):
    logits, target = draw(3)
    logits.requires_grad_()
    loss = FocalLoss(normalize=normalize)(logits, target, torch.zeros(N, dtype=torch.float64))
    loss.backward()
    assert loss == 0 and (logits.grad == 0).all()


def test_names_lead_to_the_modules():
    for name, loss in LOSSES.items():
        module = make_loss(name, **PLAIN)
        assert type(module) is loss
        assert module(torch.zeros(2, K), torch.tensor([0, 1])).isfinite(), name
    assert "gamma=3" in repr(FocalLoss(3))
    assert "tau=0.5" in repr(LogitAdjustedLoss([1, 2], 0.5))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gamma": -1}, r"gamma must be a finite number of at least 0\. Got -1"),
        ({"gamma": math.nan}, "gamma .* Got nan"),
        ({"gamma": math.inf}, "gamma .* Got inf"),
        ({"normalize": "mean"}, "normalize must be one of .*'samples'.* Got 'mean'"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\)\. Got 1.0"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        FocalLoss(**settings)


def test_wrong_shapes_are_named():
    logits, target = torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ValueError, match="at least two classes"):
        focal_loss(logits[:, :1], target)
    with pytest.raises(ValueError, match=r"target must have shape \(3,\)"):
        focal_loss(logits, target[:2])
    with pytest.raises(ValueError, match=r"weight must have shape \(4,\)"):
        focal_loss(logits, target, weight=torch.ones(3))
    with pytest.raises(ValueError, match="same shape"):
        sigmoid_focal_loss(logits, torch.zeros(3))


# -- the other losses ------------------------------------------------------------------------

COUNTS = [400.0, 100.0, 30.0, 5.0, 1.0]
PLAIN = {
    "gamma": 2.0,
    "label_smoothing": 0.0,
    "normalize": "samples",
    "weight": None,
    "counts": COUNTS,
    "support": COUNTS,
}
MARGIN = 0.5 / torch.tensor(COUNTS, dtype=torch.float64) ** 0.25
LOG_PRIOR = (torch.tensor(COUNTS, dtype=torch.float64) / sum(COUNTS)).log()
FUNCTIONS = {
    "poly1": lambda z, t: poly1_focal_loss(z, t, gamma=0.0),
    "poly1_focal": lambda z, t: poly1_focal_loss(z, t, gamma=0.5, epsilon=-0.5),
    "poly1 smoothed": lambda z, t: poly1_focal_loss(z, t, gamma=0.5, label_smoothing=0.1),
    "logit_adjusted": lambda z, t: logit_adjusted_loss(z, t, LOG_PRIOR.float()),
    "ldam": lambda z, t: ldam_loss(z, t, MARGIN),
    "dice": lambda z, t: dice_loss(z, t, power=1.0),
    "dice power": lambda z, t: dice_loss(z, t, power=0.5, smooth=1e-4),
    "asymmetric": lambda z, t: asymmetric_loss(z, F.one_hot(t, K)).sum(1),
    "asymmetric half": lambda z, t: asymmetric_loss(
        z, F.one_hot(t, K), gamma_pos=0.5, gamma_neg=0.5, clip=0.2
    ).sum(1),
    "asymmetric unclipped": lambda z, t: asymmetric_loss(z, F.one_hot(t, K), clip=0.0).sum(1),
}


def reference(name, row, t):
    """The loss of a row by 60-digit arithmetic, straight from the definition."""
    e = [mpmath.exp(mpmath.mpf(z)) for z in row]
    q = [x / sum(e) for x in e]
    # 1 - q as the sum of the others: 60 digits do not reach exp(-600).
    rest = [sum(x for k, x in enumerate(e) if k != j) / sum(e) for j in range(K)]
    kind, _, variant = name.partition(" ")
    if kind == "poly1_focal":
        return rest[t] ** 0.5 * -mpmath.log(q[t]) - 0.5 * rest[t] ** 1.5
    if kind == "poly1" and not variant:
        return -mpmath.log(q[t]) + rest[t]
    if kind == "poly1":
        each = [rest[j] ** 0.5 * -mpmath.log(q[j]) + rest[j] ** 1.5 for j in range(K)]
        return 0.9 * each[t] + 0.1 * sum(each) / K
    if kind == "logit_adjusted":
        adjusted = [x * n for x, n in zip(e, COUNTS, strict=True)]
        return -mpmath.log(adjusted[t] / sum(adjusted))
    if kind == "ldam":
        behind = [x * mpmath.exp(-30 * float(MARGIN[t])) if k == t else x for k, x in enumerate(e)]
        return -mpmath.log(behind[t] / sum(behind))
    if kind == "dice":
        power, smooth = (0.5, mpmath.mpf(1e-4)) if variant else (1, 1)
        d = [rest[j] ** power * q[j] for j in range(K)]
        return (
            sum(1 - (2 * d[j] * (j == t) + smooth) / (d[j] + (j == t) + smooth) for j in range(K))
            / K
        )
    positive, negative, clip = {"": (1, 4, 0.05), "half": (0.5, 0.5, 0.2)}.get(variant, (1, 4, 0))
    total = mpmath.mpf(0)
    for j, z in enumerate(row):
        z = mpmath.mpf(z)
        p, not_p = 1 / (1 + mpmath.exp(-z)), 1 / (1 + mpmath.exp(z))
        if j == t:
            total += not_p**positive * -mpmath.log(p)
        elif p > clip:
            total += (p - clip) ** negative * -mpmath.log(not_p + clip)
    return total


@pytest.mark.parametrize("scale", [1, 10, 300])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_equal_60_digit_arithmetic(name, scale):
    logits, target = draw(scale)
    with mpmath.workdps(300):
        rows = zip(logits.tolist(), target.tolist(), strict=True)
        expected = torch.tensor([float(reference(name, *row)) for row in rows])
    rtol = 1e-6 if name == "logit_adjusted" else 1e-11
    torch.testing.assert_close(
        FUNCTIONS[name](logits, target), expected.double(), rtol=max(rtol, 3e-7), atol=1e-9
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_and_gradients_are_finite_at_any_logits(name, dtype):
    far = torch.tensor([-300.0, -30.0, 0.0, 30.0, 300.0])
    logits = torch.cartesian_prod(*[far] * K).to(dtype)
    for t in range(K):
        wide = logits.clone().requires_grad_()
        loss = FUNCTIONS[name](wide, torch.full((len(logits),), t))
        loss.sum().backward()
        assert loss.dtype == torch.float32 and loss.isfinite().all()
        assert wide.grad.isfinite().all()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradcheck_of_the_others(name):
    logits, target = draw(2, n=4)
    log_prior = LOG_PRIOR
    function = FUNCTIONS[name]
    if name == "logit_adjusted":  # float32 priors would spoil the difference quotient

        def function(z, t):
            return logit_adjusted_loss(z, t, log_prior)

    assert gradcheck(lambda z: function(z, target), logits.requires_grad_())


def test_special_cases_lead_back():
    logits, target = draw(3)
    one_hot = F.one_hot(target, K)

    def same(a, b):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-15)

    same(poly1_focal_loss(logits, target, epsilon=0.0), focal_loss(logits, target))
    same(logit_adjusted_loss(logits, target, LOG_PRIOR, tau=0.0), cross_entropy(logits, target))
    same(
        asymmetric_loss(logits, one_hot, gamma_pos=2.0, gamma_neg=2.0, clip=0.0),
        sigmoid_focal_loss(logits, one_hot),
    )
    # The balanced softmax of its authors: the logarithm of the counts, not of the shares.
    counts = torch.tensor(COUNTS, dtype=torch.float64)
    expected = F.cross_entropy(logits + counts.log(), target, reduction="none")
    same(logit_adjusted_loss(logits, target, LOG_PRIOR), expected)
    # The expansion of the focal loss: log p = -sum_j (1 - p)**j / j.
    p = torch.tensor([0.7, 0.9], dtype=torch.float64)
    series = sum((1 - p) ** (j + 2) / j for j in range(1, 200))
    same(focal_loss(torch.stack([p.log(), (1 - p).log()], 1), torch.tensor([0, 0])), series)


def test_ldam_equals_an_independent_package():
    from pytorch_optimizer import LDAMLoss as Independent

    logits, target = draw(1, torch.float32)
    cosines = torch.tanh(logits)
    for weight in (None, torch.arange(1.0, K + 1)):
        expected = Independent(COUNTS, max_m=0.3, weight=weight, s=20.0)(cosines, target)
        ours = LDAMLoss(COUNTS, 0.3, 20.0, weight=weight, normalize="weights")
        torch.testing.assert_close(ours(20.0 * cosines, target), expected)
    absent = LDAMLoss([0, *COUNTS]).margin
    torch.testing.assert_close(absent[1:], LDAMLoss(COUNTS).margin)
    assert absent[0] == 0.5
    no_margin = ldam_loss(logits, target, torch.zeros(K))
    torch.testing.assert_close(no_margin, cross_entropy(logits, target))


def test_dice_of_power_one_does_not_see_the_label_of_two_classes():
    logits, _ = draw(2, k=2)
    zeros, ones = torch.zeros(N, dtype=torch.int64), torch.ones(N, dtype=torch.int64)
    paper = [dice_loss(logits, target, power=1.0) for target in (zeros, ones)]
    torch.testing.assert_close(*paper, rtol=1e-12, atol=0)
    ours = [dice_loss(logits, target) for target in (zeros, ones)]
    assert ((ours[0] < ours[1]) == (logits[:, 0] > logits[:, 1])).all()


@pytest.mark.parametrize("name", sorted(set(LOSSES)))
def test_class_weight_multiplies_every_loss(name):
    logits, target = draw(3)
    weight = torch.arange(1.0, K + 1).double()
    plain = make_loss(name, **PLAIN | {"normalize": "sum"})
    weighted = make_loss(name, **PLAIN | {"normalize": "sum", "weight": weight})
    torch.testing.assert_close(
        weighted.per_sample(logits, target), weight[target] * plain.per_sample(logits, target)
    )


@pytest.mark.parametrize(
    ("loss", "settings", "message"),
    [
        (Poly1FocalLoss, {"gamma": -1}, "gamma must be a finite number of at least 0. Got -1"),
        (Poly1Loss, {"epsilon": -1.0}, r"epsilon must be a finite number above -1. Got -1\.0"),
        (Poly1Loss, {"label_smoothing": 1}, "label_smoothing must be in"),
        (LogitAdjustedLoss, {"counts": [1, 2], "tau": -1}, "tau must be"),
        (LogitAdjustedLoss, {"counts": [1, -2]}, "counts must be finite and at least 0"),
        (LogitAdjustedLoss, {"counts": [1, 2], "label_smoothing": 1}, "label_smoothing"),
        (LDAMLoss, {"support": [1, math.nan]}, "support must be finite and at least 0"),
        (LDAMLoss, {"support": [1, 2], "max_margin": -1}, "max_margin must be"),
        (LDAMLoss, {"support": [1, 2], "scale": 0}, "scale must be a finite number above 0. Got 0"),
        (DiceLoss, {"power": math.inf}, r"power must be a finite number in \[0, 1\). Got inf"),
        (DiceLoss, {"smooth": 0.0}, "smooth must be a finite number above 0. Got 0.0"),
    ],
)
def test_wrong_settings_of_the_others_are_named(loss, settings, message):
    with pytest.raises(ValueError, match=message):
        loss(**settings)


# -- the posterior ---------------------------------------------------------------------------

UNEVEN = [0.3, 0.7, 1.0, 2.5, 6.0]
INVERTIBLE = {
    "cross-entropy": CrossEntropyLoss(),
    **{f"focal {gamma}": FocalLoss(gamma) for gamma in GAMMAS},
    "weighted": FocalLoss(2.0, weight=torch.tensor(UNEVEN).double()),
    "smoothed": FocalLoss(1.0, label_smoothing=0.1),
    "weighted and smoothed": FocalLoss(
        2.0, weight=torch.tensor(UNEVEN).double(), label_smoothing=0.2
    ),
    "poly1": Poly1Loss(1.0),
    "poly1 below": Poly1Loss(-0.5),
    "poly1 focal": Poly1FocalLoss(2.0, 1.0, weight=torch.tensor(UNEVEN).double()),
    "balanced softmax": LogitAdjustedLoss(COUNTS),
    "adjusted by half": LogitAdjustedLoss(COUNTS, 0.5, label_smoothing=0.1),
    "ldam": LDAMLoss(COUNTS, 0.5, 4.0),
    "ldam weighted": LDAMLoss(COUNTS, 0.2, 10.0, weight=torch.tensor(UNEVEN).double()),
    "adjusted and weighted": LogitAdjustedLoss(COUNTS, weight=torch.tensor(UNEVEN).double()),
}


def minimiser(loss, posterior):
    """Logits of the least expected loss for each row of posteriors, by Newton's method."""
    logits = torch.zeros_like(posterior, requires_grad=True)
    n, k = posterior.shape
    optimizer = torch.optim.LBFGS(
        [logits],
        lr=1,
        max_iter=3000,
        tolerance_grad=1e-14,
        tolerance_change=0,
        history_size=50,
        line_search_fn="strong_wolfe",
    )

    def risk(logits):
        each = [loss.per_sample(logits, torch.full((n,), c)) for c in range(k)]
        return (posterior * torch.stack(each, 1)).sum()

    def closure():
        optimizer.zero_grad()
        value = risk(logits)
        value.backward()
        return value

    optimizer.step(closure)
    # LBFGS stops where the value stops changing, at half the digits of the argument.
    flat = logits.detach().reshape(-1)
    for _ in range(8):
        gradient = torch.autograd.functional.jacobian(lambda z: risk(z.reshape(n, k)), flat)
        hessian = torch.autograd.functional.hessian(lambda z: risk(z.reshape(n, k)), flat)
        flat = flat - torch.linalg.pinv(hessian, rtol=1e-10, hermitian=True) @ gradient
    return flat.reshape(n, k)


@pytest.mark.parametrize("name", INVERTIBLE)
def test_log_posterior_recovers_known_posteriors_from_exact_minimisers(name):
    rng = np.random.RandomState(0)
    posterior = torch.tensor(rng.dirichlet(np.full(K, 0.7), size=4)).clamp(min=1e-3)
    posterior /= posterior.sum(1, keepdim=True)
    logits = minimiser(INVERTIBLE[name], posterior)
    found = INVERTIBLE[name].log_posterior(logits).exp()
    assert (found - posterior).abs().max() < 1e-9
    if name not in ("cross-entropy", "focal 0"):
        assert (logits.softmax(1) - posterior).abs().max() > 1e-3  # the softmax is something else


@pytest.mark.parametrize("name", INVERTIBLE)
def test_log_posterior_is_finite_at_any_logits_and_keeps_its_dtype(name):
    far = torch.tensor([-300.0, -30.0, 0.0, 30.0, 300.0])
    for dtype in (torch.float32, torch.float64):
        logits = torch.cartesian_prod(*[far] * K).to(dtype)
        log_posterior = INVERTIBLE[name].log_posterior(logits)
        assert log_posterior.isfinite().all() and log_posterior.dtype == dtype
        torch.testing.assert_close(log_posterior.exp().sum(1), torch.ones(len(logits), dtype=dtype))


@pytest.mark.parametrize("gamma", GAMMAS)
def test_log_posterior_equals_60_digit_arithmetic_in_the_tails(gamma):
    logits, _ = draw(100)
    found = FocalLoss(gamma).log_posterior(logits)
    with mpmath.workdps(400):
        for row, own in zip(logits.tolist(), found.tolist(), strict=True):
            e = [mpmath.exp(mpmath.mpf(z)) for z in row]
            q = [x / sum(e) for x in e]
            h = [
                v / ((1 - v) ** gamma - gamma * v * (1 - v) ** (gamma - 1) * mpmath.log(v))
                for v in q
            ]
            expected = [float(mpmath.log(x / sum(h))) for x in h]
            np.testing.assert_allclose(own, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_gamma_never_changes_which_class_is_the_largest(gamma):
    logits, _ = draw(3, n=500)
    assert torch.equal(FocalLoss(gamma).log_posterior(logits).argmax(1), logits.argmax(1))


@pytest.mark.parametrize("name", INVERTIBLE)
def test_keeps_decision_says_whether_the_reweighted_posterior_decides_as_the_logits(name):
    loss = INVERTIBLE[name]
    logits, _ = draw(3, n=2000)
    scores = loss.log_posterior(logits)
    for weight in (loss.weight, loss.implied_class_weight()):
        scores = scores if weight is None else scores + weight.log()
    same = torch.equal(scores.argmax(1), logits.argmax(1))
    assert same or not loss.keeps_decision
    assert loss.keeps_decision or name in ("smoothed",) or not same


def test_losses_without_an_inverse_say_so():
    for loss in (DiceLoss(), CustomLoss(F.cross_entropy), Poly1FocalLoss(2.0, -0.5)):
        assert not loss.has_posterior
        with pytest.raises(NotImplementedError, match=f"{type(loss).__name__} has no inverse"):
            loss.log_posterior(torch.zeros(1, 3))


def test_implied_class_weight_of_the_logit_adjustment_has_mean_one_over_what_is_drawn():
    for tau in (0.0, 0.5, 1.0, 2.0):
        loss = LogitAdjustedLoss(COUNTS, tau)
        weight, prior = loss.implied_class_weight(), loss.log_prior.double().exp()
        torch.testing.assert_close((weight * prior).sum(), torch.tensor(1.0).double())
        torch.testing.assert_close(weight / weight[0], (prior[0] / prior) ** tau)
    assert FocalLoss().implied_class_weight() is None


# -- from an estimator's settings ------------------------------------------------------------


def hinge(logits, target, margin=1.0):
    return F.multi_margin_loss(logits, target, margin=margin, reduction="none")


def test_a_loss_of_ones_own_may_be_a_function_a_class_or_an_instance():
    logits, target = draw(1)
    expected = hinge(logits, target, 2.0).mean()
    instance = torch.nn.MultiMarginLoss(margin=2.0, reduction="none")
    for loss, params in [
        (hinge, {"margin": 2.0}),
        (torch.nn.MultiMarginLoss, {"margin": 2.0}),
        (instance, None),
    ]:
        made = make_loss(loss, **PLAIN, params=params)
        assert type(made) is CustomLoss
        torch.testing.assert_close(made(logits, target), expected)
    assert made.function is not instance


def test_what_a_partial_has_bound_wins_over_the_estimators_settings():
    logits, target = draw(1)
    made = make_loss(functools.partial(focal_loss, gamma=5.0), **PLAIN)
    torch.testing.assert_close(made(logits, target), focal_loss(logits, target, gamma=5.0).mean())
    made = make_loss(focal_loss, **PLAIN | {"gamma": 3.0})
    torch.testing.assert_close(made(logits, target), focal_loss(logits, target, gamma=3.0).mean())
    smooth = functools.partial(F.cross_entropy, label_smoothing=0.2, reduction="none")
    torch.testing.assert_close(
        make_loss(smooth, **PLAIN)(logits, target), smooth(logits, target).mean()
    )
    assert make_loss(functools.partial(FocalLoss, gamma=5.0), **PLAIN).gamma == 5.0


def test_a_callable_object_is_copied():
    class Counting:
        n = 0

        def __call__(self, logits, target):
            self.n += 1
            return F.cross_entropy(logits, target, reduction="none")

    mine = Counting()
    make_loss(mine, **PLAIN)(*draw(1))
    assert mine.n == 0


@pytest.mark.parametrize("value", [5.0, None, torch.tensor(5.0)])
def test_a_partial_may_bind_counts_to_what_has_no_length(value):
    def mine(logits, target, counts):
        assert counts is value
        return F.cross_entropy(logits, target, reduction="none")

    logits, target = draw(1)
    made = make_loss(functools.partial(mine, counts=value), **PLAIN)
    torch.testing.assert_close(made(logits, target), F.cross_entropy(logits, target))


def test_a_loss_of_this_package_with_weights_of_its_own_is_refused():
    class Scaled(Loss):
        def __init__(self, **settings):
            super().__init__(**settings)
            self.scale = torch.nn.Parameter(torch.ones(()))

        def per_sample(self, logits, target):
            return F.cross_entropy(logits * self.scale, target, reduction="none")

    for loss in (Scaled, Scaled(), CustomLoss(torch.nn.Linear(2, 2))):
        with pytest.raises(ValueError, match="must not have trainable weights: those of"):
            make_loss(loss, **PLAIN)


def test_an_indicator_may_hold_truth_values():
    logits, target = torch.randn(3, 2), torch.tensor([[True, False], [False, False], [True, True]])
    for normalize in ("samples", "weights", "sum"):
        loss = SigmoidFocalLoss(weight=[[1.0, 2.0], [1.0, 3.0]], normalize=normalize)
        torch.testing.assert_close(loss(logits, target), loss(logits, target.float()))


def test_a_class_without_samples_has_no_larger_margin_than_the_rarest():
    assert LDAMLoss([0, 100, 5], max_margin=0.4).margin.tolist() == pytest.approx(
        [0.4, 0.4 * (5 / 100) ** 0.25, 0.4]
    )


@pytest.mark.parametrize("weight", [[1.0, -1.0], [1.0, math.nan], [0.0, 1.0]])
def test_a_wrong_weight_is_named(weight):
    with pytest.raises(ValueError, match="weight must hold positive finite numbers"):
        FocalLoss(weight=weight)


def test_an_instance_of_our_own_is_copied_and_completed():
    mine = FocalLoss(3.0, normalize=None)
    made = make_loss(mine, **PLAIN | {"weight": UNEVEN})
    assert made is not mine and made.gamma == 3.0
    assert made.normalize == "samples" and mine.normalize is None
    assert made.weight is not None and mine.weight is None
    assert make_loss(FocalLoss(normalize="sum"), **PLAIN).normalize == "sum"
    assert make_loss(Poly1FocalLoss, **PLAIN, params={"epsilon": 3.0}).epsilon == 3.0


@pytest.mark.parametrize(
    ("loss", "settings", "message"),
    [
        ("dice", {"params": {"tau": 1}}, r"loss_params must be among \['power', 'smooth'\]"),
        (hinge, {"params": {"gap": 1}}, r"loss_params must be among \['margin'\]. Got \['gap'\]"),
        (FocalLoss(), {"params": {"gamma": 1}}, "loss_params must go with a name"),
        (
            "dice",
            {"label_smoothing": 0.1},
            "label_smoothing=0.1 is not defined for loss='DiceLoss'",
        ),
        (hinge, {"label_smoothing": 0.1}, "label_smoothing=0.1 is not defined for loss='hinge'"),
        (FocalLoss(weight=UNEVEN), {"weight": UNEVEN}, "alpha and the weight of the loss"),
        (FocalLoss(), {"label_smoothing": 0.1}, "cannot be set on an instance.*label_smoothing=0"),
        (
            functools.partial(F.cross_entropy, reduction="none", label_smoothing=0.2),
            {"label_smoothing": 0.1},
            "label_smoothing=0.1 and the 0.2 of the loss are both given",
        ),
        (functools.partial(FocalLoss, 5.0), {}, "loss as a partial must bind its settings by name"),
        ("poly1", {"params": {"weight": [1]}}, r"must not set \['weight'\]: use alpha="),
        (
            "poly1",
            {"params": {"epsilon": "a"}},
            "epsilon must be a finite number above -1. Got 'a'",
        ),
        ("ldam", {"params": {"scale": "30"}}, "scale must be a finite number above 0. Got '30'"),
        ("logit_adjusted", {"params": {"tau": "a"}}, "tau must be a finite number.* Got 'a'"),
        ("logit_adjusted", {"params": {"counts": [1]}}, "counts in loss_params must have one num"),
        (Loss, {}, "loss=Loss is only a base for losses"),
        (CustomLoss, {}, "loss=CustomLoss is only a base for losses"),
        (lambda z, t: z, {"params": {"t": 1}}, r"loss_params must be among \[\]. Got \['t'\]"),
        (torch.nn.Bilinear(2, 2, 2), {}, "loss must not have trainable weights: those of Bilin"),
    ],
)
def test_settings_that_a_loss_does_not_have_are_named(loss, settings, message):
    with pytest.raises(ValueError, match=message):
        make_loss(loss, **PLAIN | settings)


@pytest.mark.parametrize("loss", [FocalLoss, LDAMLoss(COUNTS), CrossEntropyLoss()])
def test_losses_for_one_label_are_refused_for_several_and_the_other_way_round(loss):
    with pytest.raises(ValueError, match="is for one label per document and y has several labels"):
        make_loss(loss, **PLAIN, multilabel=True)
    for other in (SigmoidFocalLoss, SigmoidFocalLoss()):
        with pytest.raises(ValueError, match="SigmoidFocalLoss is for several labels per document"):
            make_loss(other, **PLAIN)


@pytest.mark.parametrize("loss", [F.cross_entropy, lambda logits, target: 1.0])
def test_a_loss_that_takes_the_mean_is_refused(loss):
    with pytest.raises(ValueError, match="loss must return one value per sample"):
        make_loss(loss, **PLAIN)(torch.zeros(3, K), torch.tensor([0, 1, 2]))


def test_losses_import_nothing_but_torch():
    import ast
    from pathlib import Path

    import skfocal.losses

    names = set()
    for path in Path(skfocal.losses.__file__).parent.glob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        names |= {a.name for node in nodes if isinstance(node, ast.Import) for a in node.names}
        names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    names = {name for name in names if not name.startswith("skfocal.losses.")}
    names = {name.split(".")[0] for name in names}
    assert names - {"torch"} <= sys.stdlib_module_names
