"""Several labels a document: targets, losses, weights, posteriors, and the estimator."""

import pickle
import warnings

import mpmath
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from conftest import logits_of
from scipy import sparse
from scipy.special import expit
from sklearn.metrics import average_precision_score, f1_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit, cross_val_score
from sklearn.preprocessing import MultiLabelBinarizer
from torch import nn

from skfocal import BertFocalClassifier, fetch_20newsgroups_cachopo
from skfocal._data import labels as _targets
from skfocal._encoder.head import head_of
from skfocal.balance import class_weight, label_weight
from skfocal.calibration import PROBAS, Calibration
from skfocal.losses import (
    MULTILABEL_LOSSES,
    AsymmetricLoss,
    CustomLoss,
    FocalLoss,
    SigmoidCrossEntropyLoss,
    SigmoidFocalLoss,
    asymmetric_loss,
    make_loss,
    sigmoid_focal_loss,
)

WORDS = {"sport": "team moved report", "money": "cash prize win", "food": "lunch free offer"}
NAMES = sorted(WORDS)  # food, money, sport


@pytest.fixture(scope="module")
def make(make_of_few_words):
    """Return a function that makes classifiers of few words and of few batches."""
    return make_of_few_words


def documents(n=60, seed=0):
    """Texts with words of each of their labels, and the indicator; some have no label."""
    rng = np.random.RandomState(seed)
    y = (rng.uniform(size=(n, 3)) < [0.2, 0.3, 0.6]).astype(int)
    X = []
    for row in y:
        words = [w for name, on in zip(NAMES, row, strict=True) if on for w in WORDS[name].split()]
        X.append(" ".join(rng.permutation([*words, "the", "of"])))
    return X, y


# -- targets ---------------------------------------------------------------------------------


def as_collections(y):
    return [{NAMES[j] for j in np.flatnonzero(row)} for row in y]


@pytest.mark.parametrize(
    ("convert", "classes"),
    [
        (lambda y: y, [0, 1, 2]),
        (lambda y: y.tolist(), [0, 1, 2]),
        (lambda y: y.astype(bool), [0, 1, 2]),
        (lambda y: y.astype(float), [0, 1, 2]),
        (sparse.csr_matrix, [0, 1, 2]),
        (sparse.coo_array, [0, 1, 2]),
        (lambda y: pd.DataFrame(y, columns=["c", "a", "b"]), ["c", "a", "b"]),
        (as_collections, NAMES),
        (lambda y: [sorted(row) for row in as_collections(y)], NAMES),
        (lambda y: pd.Series([tuple(row) for row in as_collections(y)]), NAMES),
        (lambda y: [np.array(sorted(row)) for row in as_collections(y)], NAMES),
        (lambda y: pd.DataFrame(y).astype("Int64"), [0, 1, 2]),
        (lambda y: pd.DataFrame(y, columns=list("cab")).astype("boolean"), ["c", "a", "b"]),
        (lambda y: y.astype(object), [0, 1, 2]),
        (lambda y: tuple(map(tuple, y)), [0, 1, 2]),
    ],
)
def test_every_form_of_y_becomes_the_same_indicator(convert, classes):
    X, y = documents()
    found, codes = _targets.encode(convert(y), X)
    assert found.tolist() == classes
    assert codes.dtype == np.float32
    np.testing.assert_array_equal(codes, y)


@pytest.mark.parametrize("rows", [[["a"], ["b"]], [[1], [2]], [[1, 2], [2, 3]]])
def test_collections_in_a_series_are_collections_whatever_their_lengths(rows):
    classes, codes = _targets.encode(pd.Series(rows), ["x", "y"], multilabel=True)
    assert codes.shape == (2, len(classes)) == (2, len({v for row in rows for v in row}))


@pytest.mark.parametrize("rows", [[[0, 1], [1, 0]], [[0.0, 1.0], [1.0, 1.0]], [[False, True]] * 2])
@pytest.mark.parametrize(
    "form",
    [
        pa.array,
        pd.Series,
        lambda rows: pd.Series([np.array(row) for row in rows]),
        lambda rows: pytest.importorskip("datasets").Dataset.from_dict({"y": rows})["y"],
    ],
    ids=["arrow", "series", "series of arrays", "data set"],
)
def test_rows_of_0_and_1_in_a_column_are_an_indicator(form, rows):
    classes, codes = _targets.encode(form(rows), ["x", "y"], multilabel=True)
    assert classes.tolist() == [0, 1]
    np.testing.assert_array_equal(codes, np.array(rows, dtype=float))


@pytest.mark.parametrize("odd", [pd.NA, np.array([0, 1])], ids=["missing", "nested"])
def test_what_is_no_label_in_a_column_of_lists_is_named(odd):
    rows = pd.Series([[0, 1], [1, odd]])
    with pytest.raises(ValueError, match=r"labels that are str or numbers\. Got .* in row 1"):
        _targets.encode(rows, ["x", "y"])


def test_named_columns_are_brought_into_the_declared_order():
    frame = pd.DataFrame([[1, 0, 0], [0, 1, 1]], columns=["b", "a", "c"])
    classes, codes = _targets.encode(frame, ["x", "y"], ["a", "b", "c"])
    assert classes.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(codes, [[0, 1, 0], [1, 0, 1]])


def test_collections_are_read_in_the_declared_order():
    classes, codes = _targets.encode([{"a"}, {"b", "c"}], ["x", "y"], ["b", "a", "c", "b"])
    assert classes.tolist() == ["b", "a", "c"]
    np.testing.assert_array_equal(codes, [[0, 1, 0], [1, 0, 1]])


@pytest.mark.parametrize("as_table", [pd.DataFrame, pa.table])
def test_fit_refuses_declared_labels_in_another_order_than_the_columns(as_table, data):
    """Scorers compare by position: every score of a search would be of other labels."""
    X, y = data
    table = as_table({"a": (y == "ham").astype(int), "b": (y == "spam").astype(int)})
    clf = BertFocalClassifier("nobody/no-such-model", classes=["b", "a"])
    with pytest.raises(ValueError, match=r"of y in their order, \['a', 'b'\]. Got \['b', 'a'\]"):
        clf.fit(X, table)


def test_columns_that_are_numbers_may_be_named_by_strings(make):
    X, y = documents()
    clf = make(classes=["0", "1", "2"], max_epochs=1).fit(X, pd.DataFrame(y))
    assert clf.classes_.tolist() == ["0", "1", "2"]


def test_collections_mean_the_same_to_a_classifier_of_named_columns(make):
    X, y = documents()
    frame = pd.DataFrame(y, columns=["work", "home", "art"])
    sets = [set(frame.columns[row > 0]) for row in y]
    fits = [make().fit(X, frame, eval_set=(X, form)) for form in (frame, sets)]
    assert fits[0].classes_.tolist() == ["work", "home", "art"]
    scores = [clf.history_[:, "valid_score"] for clf in fits]
    assert scores[0] == scores[1]
    clf = fits[0]
    assert clf.score(X, sets) == clf.score(X, frame)
    np.testing.assert_equal(clf.report(X, sets).per_class, clf.report(X, frame).per_class)
    chunks = make(classes=list(frame.columns))
    for form in (sets, frame, sets):
        chunks.partial_fit(X, form)
    assert chunks.classes_.tolist() == clf.classes_.tolist()


MISSING = pd.DataFrame([[1, None], [0, 1]]).astype("Int64")


@pytest.mark.parametrize(
    ("y", "classes", "message"),
    [
        ([[0, 2], [1, 0]], None, "must be an indicator of 0 and 1.*a set.*multiclass-multioutput"),
        ([[0.5, 1], [1, 0]], None, "must be an indicator of 0 and 1.*continuous-multioutput"),
        ([[-1, 1], [1, -1]], None, r"must be an indicator of 0 and 1.*Got \[-1, 1\] in"),
        ([[5, 5], [5, 5]], None, r"must be an indicator of 0 and 1.*Got \[5\] in"),
        ([[0, 1], [1, 0]], ["a"], "classes must name the 2 columns of y"),
        ([[0, 1], [1, 0]], ["a", "a"], "classes must name each column of y once"),
        (pd.DataFrame([[0, 1], [1, 0]], columns=["a", "a"]), None, "each column of y once"),
        (
            pd.DataFrame([[0, 1], [1, 0]], columns=["a", "b"]),
            ["a", "c"],
            r"classes must name the columns of y, \['a', 'b'\]. Got \['a', 'c'\]",
        ),
        (MISSING, None, "y must have 0 or 1 for each label. Got a missing value in row 0"),
        ([{"a"}, {"b"}], ["a", "c"], r"without \['b'\] of y"),
        ([{"a"}, {"a"}], None, "at least two labels. Got one label only: 'a'"),
        ([{"a"}, None], None, "y must have a collection of labels for each.*Got None in row 1"),
        ([{"a"}, {"b", None}], None, "labels that are str or numbers. Got None in row 1"),
        (pd.Series([[("a",)], ["b", "c"]]), None, r"Got \('a',\) in row 0"),
        ([{"a"}, {1}], None, "y must have labels of one kind. Got int and str"),
        ([set(), set()], None, "Got empty collections only"),
        (["a", float("nan")], None, "y must have a label for each document. Got nan in row 1"),
        ([{"a"}], None, "inconsistent numbers of samples"),
        ([[0, 1]], None, "inconsistent numbers of samples"),
    ],
)
def test_a_wrong_y_is_named(y, classes, message):
    with pytest.raises(ValueError, match=message):
        _targets.encode(y, ["one", "two"], classes)


def test_strata_are_the_rarest_labels():
    codes = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 1], [1, 0, 1], [0, 0, 0]], np.float32)
    assert _targets.strata(codes).tolist() == [2, 1, 3, 3, 0]


# -- losses ----------------------------------------------------------------------------------

WEIGHT = torch.tensor([[0.5, 4.0], [0.8, 1.5], [1.0, 1.0]], dtype=torch.float64)


def draw(scale=3.0, n=16):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n, 3, generator=generator, dtype=torch.float64) * scale
    return logits, (torch.rand(n, 3, generator=generator) < 0.4).double()


def test_gamma_zero_is_torchs_binary_cross_entropy():
    logits, target = draw()
    torch.testing.assert_close(
        SigmoidCrossEntropyLoss()(logits, target),
        F.binary_cross_entropy_with_logits(logits, target),
    )
    positive = torch.tensor([4.0, 1.5, 1.0]).double()
    weight = torch.stack([torch.ones(3).double(), positive], 1)
    torch.testing.assert_close(
        SigmoidCrossEntropyLoss(weight=weight)(logits, target),
        F.binary_cross_entropy_with_logits(logits, target, pos_weight=positive),
    )
    smoothed = 0.9 * target + 0.05
    torch.testing.assert_close(
        SigmoidCrossEntropyLoss(label_smoothing=0.1)(logits, target),
        F.binary_cross_entropy_with_logits(logits, smoothed),
    )


COUNTS = [[90, 10], [50, 50], [100, 0]]
# What lets the labels of a document be independent of each other.
ALONE = {"distribution_balanced": {"rebalance": False, "negative_scale": 1.0, "kappa": 0.0}}


def made(name, weight=WEIGHT, params=None):
    settings = {"gamma": 2.0, "label_smoothing": 0.0, "normalize": "sum", "counts": COUNTS}
    return make_loss(name, weight=weight, multilabel=True, params=params, **settings)


@pytest.mark.parametrize("name", MULTILABEL_LOSSES)
def test_each_label_is_a_binary_problem_of_its_own(name):
    """Column by column the same as two logits 0 and z, where there is such a loss."""
    logits, target = draw()
    loss = made(name, params=ALONE.get(name))
    total = loss.per_sample(logits, target)
    if name == "asymmetric":
        weight = torch.where(target > 0, WEIGHT[:, 1], WEIGHT[:, 0])
        torch.testing.assert_close(total, (weight * asymmetric_loss(logits, target)).mean(1))
        return
    gamma = 0.0 if name == "cross_entropy" else 2.0
    each = []
    for j in range(3):
        two = torch.stack([torch.zeros_like(logits[:, j]), logits[:, j]], 1)
        each.append(FocalLoss(gamma, weight=WEIGHT[j]).per_sample(two, target[:, j].long()))
    torch.testing.assert_close(total, torch.stack(each, 1).mean(1))


def test_smoothing_and_weights_together_are_those_of_two_classes():
    logits, target = draw()
    found = SigmoidFocalLoss(2.0, weight=WEIGHT, label_smoothing=0.1).per_class(logits, target)
    for j in range(3):
        two = torch.stack([torch.zeros_like(logits[:, j]), logits[:, j]], 1)
        loss = FocalLoss(2.0, weight=WEIGHT[j], label_smoothing=0.1)
        torch.testing.assert_close(3 * found[:, j], loss.per_sample(two, target[:, j].long()))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("clip", [0.01, 0.05, 0.2, 1e-9])
def test_asymmetric_loss_keeps_its_digits_just_above_the_clip(clip, gamma):
    edge = np.log(clip / (1 - clip))
    wide = edge + np.array([1e-6, 1e-4, 0.01, 1.0, 10.0, 40.0])
    results = []
    for dtype in (torch.float64, torch.float32):
        logits = torch.tensor(wide, dtype=torch.float32).to(dtype).requires_grad_()
        loss = asymmetric_loss(logits, torch.zeros_like(logits), gamma_neg=gamma, clip=clip)
        loss.sum().backward()
        posterior = AsymmetricLoss(1.0, gamma, clip).log_posterior(logits[:, None])
        assert posterior.isfinite().all()
        results.append((loss[2:].detach().double(), logits.grad[2:].double()))
    for narrow, exact in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(narrow, exact, rtol=2e-3, atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [((2.0, 2.0, 0.0), True), ((2.0, 2.0, 0.05), False), ((1.0, 2.0, 0.0), False)],
)
def test_the_asymmetric_loss_keeps_the_decision_only_where_both_sides_are_the_same(settings, kept):
    assert AsymmetricLoss(*settings).keeps_decision == kept


def test_weights_of_labels_have_two_columns():
    with pytest.raises(ValueError, match=r"weight must have shape \(n_labels, 2\)"):
        SigmoidFocalLoss(weight=[1.0, 2.0, 3.0])


def test_alpha_outside_its_range_is_named():
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\].* Got -1"):
        sigmoid_focal_loss(torch.zeros(2), torch.ones(2), alpha=-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", MULTILABEL_LOSSES)
def test_values_and_gradients_are_finite_at_any_logits(name, dtype):
    far = torch.tensor([-300.0, -20.0, 0.0, 20.0, 300.0])
    logits = torch.cartesian_prod(far, far, far).to(dtype).requires_grad_()
    for target in (torch.zeros(3), torch.ones(3)):
        loss = made(name, WEIGHT.float())
        value = loss(logits, target.expand(len(logits), 3))
        value.backward()
        assert value.isfinite() and logits.grad.isfinite().all()


def exact_minimiser(positive, negative, eta):
    """The logit of the least expected loss of one label, by mpmath on the derivative."""

    def slope(z):
        risk = lambda z: eta * positive(z) + (1 - eta) * negative(z)  # noqa: E731
        return mpmath.diff(risk, z)

    low, high = mpmath.mpf(-12), mpmath.mpf(30)
    assert slope(low) < 0 < slope(high)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return float(low)


def terms(gamma_pos, gamma_neg, clip, weight):
    def positive(z):
        q = 1 / (1 + mpmath.exp(-z))
        return weight[1] * -((1 - q) ** gamma_pos) * mpmath.log(q)

    def negative(z):
        q = 1 / (1 + mpmath.exp(-z)) - clip
        if q <= 0:
            return mpmath.mpf(0)
        return weight[0] * -(q**gamma_neg) * mpmath.log(1 - q)

    return positive, negative


@pytest.mark.parametrize(
    ("loss", "numbers"),
    [
        (SigmoidFocalLoss(2.0), (2, 2, 0)),
        (SigmoidFocalLoss(0.5, weight=WEIGHT), (0.5, 0.5, 0)),
        (SigmoidFocalLoss(1.0, weight=WEIGHT, label_smoothing=0.1), (1, 1, 0)),
        (AsymmetricLoss(1.0, 4.0, 0.0), (1, 4, 0)),
        (AsymmetricLoss(1.0, 4.0, 0.05, weight=WEIGHT), (1, 4, 0.05)),
        (AsymmetricLoss(1.0, 2.0, 0.2), (1, 2, 0.2)),
    ],
)
def test_posterior_of_each_label_is_recovered_from_the_exact_minimiser(loss, numbers):
    smoothing = getattr(loss, "label_smoothing", 0.0)
    for eta in (0.03, 0.3, 0.5, 0.8, 0.97):
        drawn = (1 - smoothing) * eta + smoothing / 2
        weights = [[1, 1]] * 3 if loss.weight is None else loss.weight.tolist()
        with mpmath.workdps(50):
            logits = [exact_minimiser(*terms(*numbers, pair), drawn) for pair in weights]
        odds = loss.log_posterior(torch.tensor([logits], dtype=torch.float64))
        np.testing.assert_allclose(expit(odds.numpy()), eta, atol=1e-9)


def test_posterior_is_finite_at_any_logits():
    far = torch.tensor([[-300.0, 0.0, 300.0]])
    for dtype in (torch.float32, torch.float64):
        for loss in (SigmoidFocalLoss(5.0), AsymmetricLoss(), AsymmetricLoss(0.0, 4.0, 0.0)):
            assert loss.log_posterior(far.to(dtype)).isfinite().all()


def test_custom_losses_give_a_value_a_label_or_a_sample():
    logits, target = draw()
    expected = F.binary_cross_entropy_with_logits(logits, target)
    for function in (
        nn.BCEWithLogitsLoss(reduction="none"),
        lambda z, t: F.binary_cross_entropy_with_logits(z, t, reduction="none").mean(1),
    ):
        torch.testing.assert_close(CustomLoss(function)(logits, target), expected)
    weighted = CustomLoss(nn.BCEWithLogitsLoss(reduction="none"), weight=WEIGHT)
    torch.testing.assert_close(
        weighted(logits, target), SigmoidCrossEntropyLoss(weight=WEIGHT)(logits, target)
    )
    with pytest.raises(ValueError, match="alpha weighs each label"):
        CustomLoss(lambda z, t: z.mean(1), weight=WEIGHT)(logits, target)


def test_normalisation_by_weights():
    logits, target = draw()
    loss = SigmoidFocalLoss(weight=WEIGHT, normalize="weights")
    elements = torch.where(target > 0, WEIGHT[:, 1], WEIGHT[:, 0])
    expected = loss.per_sample(logits, target).sum() / elements.mean(1).sum()
    torch.testing.assert_close(loss(logits, target), expected)


# -- class weights ---------------------------------------------------------------------------


def test_named_weights_balance_each_label():
    counts = np.array([[90, 10], [50, 50], [100, 0]])
    for name in ("balanced", "sqrt", "effective"):
        found = label_weight(name, np.arange(3), counts)
        for pair, row in zip(counts, found, strict=True):
            np.testing.assert_allclose(row, class_weight(name, np.arange(2), pair))
        np.testing.assert_array_equal(found[2], [1, 1])


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        (None, [[1, 1], [1, 1]]),
        (0.25, [[0.75, 0.25], [0.75, 0.25]]),
        ([2.0, 3.0], [[1, 2], [1, 3]]),
        ({"a": 2, "b": 3}, [[1, 2], [1, 3]]),
        (pd.Series({"b": 3.0, "a": 2.0}), [[1, 2], [1, 3]]),
        ([[1, 2], [3, 4]], [[1, 2], [3, 4]]),
    ],
)
def test_given_weights_are_taken_as_they_are(alpha, expected):
    found = label_weight(alpha, np.array(["a", "b"]), np.ones((2, 2)))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("alpha", [1.5, "some", [1.0], {"a": 1}, [[1, 2], [0, 1]], [1.0, -1.0]])
def test_wrong_weights_are_named(alpha):
    with pytest.raises(ValueError, match="alpha"):
        label_weight(alpha, np.array(["a", "b"]), np.ones((2, 2)))


# -- the estimator ---------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [None, "balanced", [[1.0, 2.0], [1.0, 1.0], [0.5, 4.0]]])
def test_a_new_head_begins_with_the_log_odds_of_each_label(make, alpha):
    X, y = documents()
    y = y[:, :3].copy()
    y[:, 2] = 0
    y[:2, 2] = 1
    clf = make(alpha=alpha, lr=1e-12, max_epochs=1, classes=["a", "b", "c"]).fit(X, y)
    present, absent = clf.effective_class_weight_[:, 1] * y.sum(0), (1 - y).sum(0)
    absent = clf.effective_class_weight_[:, 0] * absent
    expected = np.log((present + 0.5) / (absent + 0.5))
    np.testing.assert_allclose(head_bias(clf), expected, atol=1e-6)
    trained = make(alpha=alpha, max_epochs=2, warm_start=True, classes=["a", "b", "c"]).fit(X, y)
    before = head_bias(trained).copy()
    trained.set_params(lr=1e-12).fit(X, y)  # a fit that goes on does not begin anew
    np.testing.assert_allclose(head_bias(trained), before, atol=1e-6)


def head_bias(clf):
    parent, name = head_of(clf.net_.plain_module().model)
    return getattr(parent, name).bias.detach().numpy()


def test_a_label_that_all_or_none_have_begins_finite(make):
    X, y = documents()
    y = y.copy()
    y[:, 0], y[:, 1] = 1, 0
    with pytest.warns(UserWarning, match="no document"):
        clf = make(lr=1e-12, max_epochs=1).fit(X, y)
    half = 0.5 / (len(y) + 0.5)
    np.testing.assert_allclose(head_bias(clf)[:2], [-np.log(half), np.log(half)], atol=1e-5)


@pytest.mark.parametrize("loss", MULTILABEL_LOSSES)
def test_each_loss_learns(make, loss):
    X, y = documents()
    settings = {"max_epochs": 25, "lr": 2e-3, "batch_size": 10, "schedule": "constant"}
    clf = make(loss=loss, alpha="balanced", **settings).fit(X, y)
    proba = clf.predict_proba(X)
    assert average_precision_score(y, proba, average="macro") > 0.9
    if loss != "asymmetric":  # it turns absences down: half of its sigmoid is no even chance
        assert f1_score(y, clf.predict(X), average="macro") > 0.9
    assert proba.shape == y.shape and ((proba >= 0) & (proba <= 1)).all()
    np.testing.assert_array_equal(clf.predict(X), proba > 0.5)
    np.testing.assert_allclose(expit(clf.decision_function(X)), proba)
    again = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(again.predict_proba(X), proba)


def test_forms_of_y_train_the_same(make):
    X, y = documents()
    expected = make().fit(X, y).predict_proba(X)
    for other in (sparse.csr_matrix(y), pd.DataFrame(y), as_collections(y)):
        np.testing.assert_array_equal(make().fit(X, other).predict_proba(X), expected)
    assert make().fit(X, as_collections(y)).classes_.tolist() == NAMES


def test_balanced_weights_and_natural_probabilities(make):
    X, y = documents()
    clf = make(alpha="balanced", gamma=0.0, proba="natural").fit(X, y)
    n_positive = y.sum(0)
    expected = np.stack([60 / 2 / (60 - n_positive), 60 / 2 / n_positive], 1)
    np.testing.assert_allclose(clf.effective_class_weight_, expected)
    ratio = np.log(expected[:, 1] / expected[:, 0])
    np.testing.assert_allclose(clf.decision_function(X), logits_of(clf, X) - ratio, rtol=1e-5)
    clf.set_params(proba="reweighted")
    np.testing.assert_allclose(clf.decision_function(X), logits_of(clf, X), rtol=1e-5, atol=1e-6)


def test_labels_that_no_document_has_and_documents_without_a_label(make):
    X, y = documents()
    y = np.column_stack([y, np.zeros(len(y), int)])
    assert (y.sum(1) == 0).any()
    with pytest.warns(UserWarning, match=r"no document of 1 declared classes: \[3\]"):
        clf = make(alpha="balanced").fit(X, y)
    np.testing.assert_array_equal(clf.class_weight_[3], [1, 1])
    np.testing.assert_allclose(clf.class_prior_, y.mean(0))
    # Label by label it is the sigmoid: what the others are does not matter.
    odds = clf.set_params(proba="softmax").decision_function(X)
    np.testing.assert_allclose(odds, logits_of(clf, X), rtol=1e-6)


@pytest.mark.parametrize("sampler", ["balanced", 0.5, "progressive", lambda y: None])
def test_samplers_are_refused_with_the_reason(make, sampler):
    with pytest.raises(ValueError, match="sampler must be None for multi-label y: a document"):
        make(sampler=sampler).fit(*documents())


@pytest.mark.parametrize("loss", ["dice", "balanced_softmax", "poly1"])
def test_losses_of_one_label_are_refused(make, loss):
    with pytest.raises(ValueError, match="loss for several labels per document must be one of"):
        make(loss=loss).fit(*documents())
    with pytest.raises(ValueError, match="loss for one label per document must be one of"):
        make(loss="asymmetric").fit(["a", "b"], [0, 1])


def test_early_stopping_temperature_and_search(make):
    X, y = documents(90)
    split = PredefinedSplit(np.where(np.arange(90) < 30, 0, -1))
    settings = {"early_stopping": True, "scoring": "f1_macro", "temperature": "auto"}
    clf = make(**settings, train_split=split, max_epochs=4).fit(X, y)
    best = max(row["valid_score"] for row in clf.history_)
    assert best == f1_score(y[:30], clf.predict(X[:30]), average="macro", zero_division=0)
    for proba in PROBAS:
        clf.set_params(proba=proba)
        ones = np.ones((3, 2))
        calibration = Calibration(clf.loss_, np.arange(3), ones, ones, proba)
        expected = calibration.fit_temperature(logits_of(clf, X[:30]), y[:30], np.ones(30))
        assert clf.temperature_ == pytest.approx(expected, rel=1e-3)
    search = GridSearchCV(make(), {"alpha": [None, "balanced"]}, cv=2, scoring="f1_micro")
    best = make(**search.fit(X, y).best_params_)
    assert search.best_score_ == cross_val_score(best, X, y, cv=2, scoring="f1_micro").mean()


def test_sample_weight_equals_repetition_in_the_weights(make):
    X, y = documents()
    times = 1 + np.arange(60) % 3
    weighted = make(alpha="balanced").fit(X, y, sample_weight=times)
    rows = np.repeat(np.arange(60), times)
    repeated = make(alpha="balanced").fit([X[i] for i in rows], y[rows])
    np.testing.assert_allclose(weighted.class_weight_, repeated.class_weight_)


def test_partial_fit_goes_on(make):
    X, y = documents()
    clf = make(alpha="balanced")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for start in (0, 30):
            rows = slice(start, start + 30)
            clf.partial_fit(X[rows], y[rows], classes=[0, 1, 2])
    counts = np.stack([60 - y.sum(0), y.sum(0)], 1)
    np.testing.assert_allclose(clf.class_weight_, label_weight("balanced", [0, 1, 2], counts))


def test_temperature_of_labels_is_recovered():
    rng = np.random.RandomState(0)
    scores = rng.normal(scale=2, size=(4000, 2))
    codes = (rng.uniform(size=scores.shape) < expit(scores)).astype(np.float32)
    ones = np.ones((2, 2))
    for proba in PROBAS:
        calibration = Calibration(SigmoidCrossEntropyLoss(), np.arange(2), ones, ones, proba)
        found = calibration.fit_temperature(3 * scores, codes, np.ones(4000))
        assert found == pytest.approx(3, rel=0.05)
    # The prior weighs the same for any number of labels.
    few = [
        Calibration(
            SigmoidCrossEntropyLoss(), np.arange(n), np.ones((n, 2)), np.ones((n, 2))
        ).fit_temperature(np.full((20, n), 3.0), np.ones((20, n)), np.ones(20))
        for n in (1, 90)
    ]
    assert few[0] == pytest.approx(few[1], rel=1e-4) and 0.7 < few[0] < 1


def test_auto_leaves_the_threshold_where_it_is(make):
    X, y = documents()
    for loss, params, meant in [
        ("focal", None, "reweighted"),
        ("asymmetric", None, "softmax"),
        ("asymmetric", {"gamma_neg": 1.0, "clip": 0.0}, "reweighted"),
    ]:
        clf = make(loss=loss, loss_params=params, alpha="sqrt").fit(X, y)
        assert clf.proba_ == meant
        np.testing.assert_array_equal(clf.predict(X), logits_of(clf, X) > 0)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "asymmetric"])
def test_real_messages_with_group_and_super_group(minilm, loss):
    wanted = ["rec.autos", "rec.sport.hockey", "sci.med", "sci.space"]
    parts = []
    for subset, n in (("train", 60), ("test", 40)):
        X, y = fetch_20newsgroups_cachopo(subset=subset, return_X_y=True)
        rows = np.concatenate([np.flatnonzero(y == group)[:n] for group in wanted])
        parts.append(([X[i] for i in rows], [{y[i], y[i].split(".")[0]} for i in rows]))
    (X, y), (X_test, y_test) = parts
    clf = BertFocalClassifier(
        minilm, loss=loss, proba="natural", max_length=64, freeze=5, lr=1e-3, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # truncation
        predicted = clf.set_params(max_epochs=6).fit(X, y).predict(X_test)
    assert clf.classes_.tolist() == sorted([*wanted, "rec", "sci"])
    truth = MultiLabelBinarizer(classes=clf.classes_.tolist()).fit_transform(y_test)
    assert f1_score(truth, predicted, average="micro") > 0.75
    assert f1_score(truth, predicted, average=None, zero_division=0).min() > 0.4


def test_score_takes_every_form_of_y(make):
    X, y = documents()
    clf = make().fit(X, as_collections(y))
    expected = (clf.predict(X) == y).all(1).mean()
    for form in (y, as_collections(y), sparse.csr_matrix(y), pd.DataFrame(y, columns=NAMES)):
        assert clf.score(X, form) == pytest.approx(expected)
    weight = np.arange(len(y))
    wrong = clf.score(X, as_collections(y), sample_weight=weight)
    assert wrong == pytest.approx(np.average((clf.predict(X) == y).all(1), weights=weight))


def test_chunks_keep_their_kind_and_order(make):
    X, y = documents(24)
    with pytest.raises(ValueError, match="y must have one label per document, as in the earlier"):
        make().partial_fit(X, y[:, 0], classes=[0, 1]).partial_fit(X, y[:, :2])
    clf = make().partial_fit(X, as_collections(y), classes=NAMES)
    clf.partial_fit(X[:3], [[name] for name in NAMES])
    np.testing.assert_allclose(clf.class_prior_, (y.sum(0) + 1) / 27)
    with pytest.raises(ValueError, match="y must have several labels per document"):
        clf.partial_fit(X[:3], NAMES)
    clf = make().partial_fit(X, pd.DataFrame(y, columns=NAMES), classes=NAMES)
    clf.partial_fit(X, pd.DataFrame(y, columns=NAMES)[NAMES[::-1]])
    np.testing.assert_allclose(clf.class_prior_, y.mean(0))
    with pytest.raises(ValueError, match="classes must come in the order of the earlier calls"):
        clf.partial_fit(X, y, classes=NAMES[::-1])
