"""Class weights and samplers against scikit-learn, their formulas and what is really drawn."""

import numpy as np
import pandas as pd
import pytest
from imblearn.over_sampling import SMOTE, SMOTEN, RandomOverSampler
from imblearn.under_sampling import NearMiss, RandomUnderSampler
from sklearn.utils.class_weight import compute_class_weight
from torch.utils.data import WeightedRandomSampler

from skfocal.balance import (
    EffectiveNumber,
    class_weight,
    effective_class_weight,
    resolve_sampling,
    stratified_holdout,
)

CLASSES = np.array(["a", "b", "c"])
COUNTS = np.array([700, 200, 100])
CODES = np.repeat([0, 1, 2], COUNTS)


def sampling(sampler, codes=CODES, n_classes=3, n_epochs=4, sample_weight=None, seed=0):
    return resolve_sampling(
        sampler,
        codes,
        CLASSES[codes],
        n_classes=n_classes,
        n_epochs=n_epochs,
        sample_weight=np.ones(len(codes)) if sample_weight is None else sample_weight,
        random_state=np.random.RandomState(seed),
    )


# -- alpha -----------------------------------------------------------------------------------


def test_none_is_ones():
    assert class_weight(None, CLASSES, COUNTS).tolist() == [1, 1, 1]


def test_balanced_is_that_of_scikit_learn():
    expected = compute_class_weight("balanced", classes=CLASSES, y=CLASSES[CODES])
    np.testing.assert_allclose(class_weight("balanced", CLASSES, COUNTS), expected, rtol=1e-14)


def test_sqrt_and_effective_have_their_ratios():
    sqrt = class_weight("sqrt", CLASSES, COUNTS)
    np.testing.assert_allclose(sqrt[2] / sqrt[0], np.sqrt(7))
    effective = class_weight(EffectiveNumber(beta=0.99), CLASSES, COUNTS)
    expected = (1 - 0.99) / (1 - 0.99**COUNTS)
    np.testing.assert_allclose(effective / effective[0], expected / expected[0], rtol=1e-12)


def test_effective_numbers_of_cbloss_have_the_same_ratios():
    from cbloss.loss import ClassBalancedLoss

    theirs = ClassBalancedLoss(COUNTS, 0.999, 3, None)
    theirs = np.asarray(theirs.weights, dtype=float)
    ours = class_weight("effective", CLASSES, COUNTS)
    np.testing.assert_allclose(ours / ours.sum(), theirs / theirs.sum(), rtol=1e-5)


def test_effective_keeps_its_digits_for_beta_near_one():
    import mpmath

    counts, beta = np.array([5, 1000]), 1 - 1e-9
    ours = class_weight(EffectiveNumber(beta), CLASSES[:2], counts)
    with mpmath.workdps(50):
        low, high = (1 / (1 - mpmath.mpf(beta) ** int(n)) for n in counts)
        assert ours[0] / ours[1] == pytest.approx(float(low / high), rel=1e-12)


@pytest.mark.parametrize("alpha", ["balanced", "sqrt", "effective"])
@pytest.mark.parametrize("counts", [[700, 200, 100], [3, 1, 1], [5, 0, 7], [0.5, 2.5, 1]])
def test_named_alphas_have_mean_one_over_what_is_drawn(alpha, counts):
    counts = np.array(counts)
    weight = class_weight(alpha, CLASSES, counts)
    assert weight @ counts / counts.sum() == pytest.approx(1, rel=1e-12)
    assert (weight[counts == 0] == 1).all()


def test_explicit_alphas_are_taken_as_they_are():
    by_label = class_weight({"c": 3, "a": 1, "b": 2}, CLASSES, COUNTS)
    assert by_label.tolist() == [1, 2, 3]
    assert class_weight([1, 2, 3], CLASSES, COUNTS).tolist() == [1, 2, 3]
    series = pd.Series({"c": 3, "a": 1, "b": 2})  # by its index, not by position
    assert class_weight(series, CLASSES, COUNTS).tolist() == [1, 2, 3]
    assert class_weight(0.7, CLASSES[:2], COUNTS[:2]) == pytest.approx([0.3, 0.7])
    assert class_weight({0: 1.0, 1: 2.0}, np.array([0, 1]), [5, 5]).tolist() == [1, 2]
    assert class_weight({False: 1.0, True: 2.0}, np.array([False, True]), [5, 5]).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("alpha", "message"),
    [
        ("ballanced", "alpha must be None, 'balanced', 'sqrt', 'effective'.* Got 'ballanced'"),
        ({"a": 1, "b": 1}, r"missing: \['c'\].*classes are \['a', 'b', 'c'\]"),
        ({"a": 1, "b": 1, "c": 1, "d": 1}, r"unknown: \['d'\]"),
        ([1, 2], "alpha must be .* an array of 3 weights in the order of classes_"),
        (["x", "y", "z"], "alpha must be"),
        ([1, 0, 2], r"alpha must hold positive finite weights only\. Got \[1.0, 0.0, 2.0\]"),
        ([1, -1, 2], "positive finite"),
        ([1, np.nan, 2], "positive finite"),
        ({"a": 1, "b": np.inf, "c": 1}, "positive finite"),
        ({"a": "x", "b": 1, "c": 1}, "positive finite .* Got \\['x', 1, 1\\]"),
        (0.25, "alpha as a single number is the weight of the second of two.* 3 classes"),
        (True, "alpha must be"),
    ],
)
def test_wrong_alpha_is_named(alpha, message):
    with pytest.raises(ValueError, match=message):
        class_weight(alpha, CLASSES, COUNTS)


@pytest.mark.parametrize("alpha", [0, 1, 1.5, -0.2, np.nan])
def test_number_for_two_classes_must_be_between_zero_and_one(alpha):
    with pytest.raises(ValueError, match="between 0 and 1.*'b' gets alpha"):
        class_weight(alpha, CLASSES[:2], COUNTS[:2])


def test_effective_weight_multiplies_alpha_and_the_shift_of_the_sampler():
    drawn = np.array([500, 250, 250])
    expected = np.array([0.5 / 0.7, 0.25 / 0.2, 0.25 / 0.1])
    np.testing.assert_allclose(effective_class_weight(np.ones(3), COUNTS, drawn), expected)
    absent = effective_class_weight(np.ones(3), np.array([5, 0, 5]), np.array([5, 0, 5]))
    assert absent.tolist() == [1, 1, 1]


# -- samplers --------------------------------------------------------------------------------


def drawn_counts(s, epoch=0, times=40):
    rng = np.random.RandomState(1)
    return np.mean(
        [np.bincount(CODES[s.draw(epoch, rng)], minlength=3) for _ in range(times)], axis=0
    )


def test_a_class_that_is_never_drawn_keeps_its_weight():
    found = effective_class_weight(np.array([2.0, 3.0]), np.array([90, 10]), np.array([50, 0]))
    np.testing.assert_allclose(found, [2 / 0.9, 3])


def test_none_draws_each_row_once():
    s = sampling(None)
    assert s.draw(0, np.random.RandomState(0)).tolist() == list(range(1000))
    assert s.n_draws == 1000 and s.drawn.tolist() == COUNTS.tolist()


@pytest.mark.parametrize(
    ("sampler", "power"), [("balanced", 0), ("sqrt", 0.5), (0.25, 0.25), (1, 1)]
)
def test_power_samplers_draw_what_they_say(sampler, power):
    s = sampling(sampler)
    expected = 1000 * COUNTS**power / (COUNTS**power).sum()
    np.testing.assert_allclose(s.drawn, expected, rtol=1e-12)
    np.testing.assert_allclose(drawn_counts(s), expected, rtol=0.05)


def test_balanced_is_torchs_weighted_random_sampler():
    ours = sampling("balanced")
    theirs = sampling(lambda y: WeightedRandomSampler((1 / COUNTS)[CODES].tolist(), len(y)))
    np.testing.assert_allclose(ours.drawn, theirs.drawn, rtol=1e-12)
    assert theirs.n_draws == 1000


def test_progressive_goes_from_the_data_to_balance():
    s = sampling("progressive", n_epochs=5)
    np.testing.assert_allclose(drawn_counts(s, epoch=0), COUNTS, rtol=0.05)
    np.testing.assert_allclose(drawn_counts(s, epoch=4), 1000 / 3, rtol=0.05)
    np.testing.assert_allclose(s.drawn_last, 1000 / 3, rtol=1e-12)
    np.testing.assert_allclose(s.drawn, (COUNTS + 1000 / 3) / 2, rtol=1e-12)


def test_declared_class_without_rows_is_never_drawn():
    codes = np.array([0, 0, 0, 2])
    s = sampling("balanced", codes=codes)
    np.testing.assert_allclose(s.drawn, [2, 0, 2])


def test_sample_weight_is_repetition_for_the_sampler():
    codes = np.array([0, 0, 0, 1, 1])
    weighted = sampling("sqrt", codes, sample_weight=np.array([1.0, 1, 4, 1, 2]))
    repeated = sampling("sqrt", np.repeat(codes, [1, 1, 4, 1, 2]))
    np.testing.assert_allclose(
        weighted.drawn / weighted.drawn.sum(), repeated.drawn / repeated.drawn.sum(), rtol=1e-12
    )


@pytest.mark.parametrize("sampler", [RandomOverSampler(), RandomUnderSampler(random_state=3)])
def test_imbalanced_learn_samplers_run_on_row_numbers(sampler):
    before = sampler.get_params()
    s = sampling(sampler)
    rows = s.draw(0, None)
    each = 700 if isinstance(sampler, RandomOverSampler) else 100
    assert np.bincount(CODES[rows]).tolist() == [each] * 3
    assert s.drawn.tolist() == [each] * 3 and s.n_draws == 3 * each
    assert sampler.get_params() == before and not hasattr(sampler, "sample_indices_")
    assert np.array_equal(rows, sampling(sampler).draw(0, None))


@pytest.mark.parametrize("sampler", [SMOTE(), NearMiss()])
def test_samplers_that_measure_distances_are_refused(sampler):
    with pytest.raises(ValueError, match="measures distances .* Use RandomOverSampler"):
        sampling(sampler)


def test_samplers_that_make_rows_are_refused():
    with pytest.raises(ValueError, match="must have sample_indices_"):
        sampling(SMOTEN(k_neighbors=1))


def test_torch_sampler_without_weights_is_counted():
    s = sampling(lambda y: [0, 0, 999])
    assert s.n_draws == 3 and s.drawn.tolist() == [2, 0, 1]
    assert s.draw(1, None).tolist() == [0, 0, 999]


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ("ballanced", "sampler must be None, 'balanced', 'sqrt', 'progressive'.* Got 'ballanced'"),
        (1.5, r"a number in \[0, 1\].* Got 1.5"),
        (True, "sampler must be"),
        ([1, 2], "sampler must be"),
        (RandomOverSampler, "sampler must be .* Got <class"),
        (lambda y: 3, "sampler as a callable must return a torch.*Got 3"),
        (lambda y: [5000], "row numbers from 0 to 999"),
        (lambda y: [], "at least one"),
    ],
)
def test_wrong_sampler_is_named(sampler, message):
    with pytest.raises(ValueError, match=message):
        sampling(sampler)


# -- holding out -----------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.3, 0.5, 0.9])
def test_holdout_keeps_proportions_and_a_row_of_each_class(fraction):
    codes = np.array([0] * 500 + [1] * 100 + [2] * 7 + [3, 3] + [4])
    train, held_out = stratified_holdout(codes, fraction, np.random.RandomState(0))
    assert sorted([*train, *held_out]) == list(range(len(codes)))
    assert set(codes[train]) == set(range(5))
    assert 4 not in codes[held_out]
    assert len(held_out) == pytest.approx(fraction * len(codes), abs=5)
    assert (codes[held_out] == 0).sum() == pytest.approx(500 * fraction, abs=6)


def test_holdout_is_drawn_at_random():
    codes = np.repeat([0, 1], 50)
    draws = [stratified_holdout(codes, 0.2, np.random.RandomState(i))[1] for i in range(2)]
    assert not np.array_equal(*draws)
