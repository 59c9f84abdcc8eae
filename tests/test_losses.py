"""The losses against mpmath, float64, torch, transformers and two independent packages."""

import math

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
    FocalLoss,
    class_margins,
    cross_entropy,
    focal_loss,
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
    assert LOSSES == {"focal": FocalLoss, "cross_entropy": CrossEntropyLoss}
    assert "gamma=3" in repr(FocalLoss(3))


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


def test_losses_import_nothing_but_torch():
    import ast
    import inspect

    import skfocal.losses

    tree = ast.parse(inspect.getsource(skfocal.losses))
    nodes = list(ast.walk(tree))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    names = {name.split(".")[0] for name in names}
    assert names == {"collections", "copy", "functools", "inspect", "math", "torch", "typing"}
    assert np.isfinite(cross_entropy(torch.zeros(1, 2), torch.tensor([0])).numpy()).all()
