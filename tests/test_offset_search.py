"""The search for offsets: the same as by trying everything on everything, in bounded memory."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import get_scorer, get_scorer_names

from skfocal._utils import offset_search
from skfocal._utils.offset_search import CLASS_SCORES, LABEL_SCORES, ClassDecisions, counted
from skfocal.calibration import _HALF_TRUST, _OFFSETS, _TAUS, Calibration, FixedPredictions
from skfocal.losses import CrossEntropyLoss, SigmoidCrossEntropyLoss


def plain_offsets(calibration, logits, score, n_documents, n_all, direction):
    """Try each offset of each class on all documents, as the docstring of fit_offset says."""

    def score_of(offset):
        return score(replace(calibration, decision="tuned", offset=offset).answers(logits))

    best, start = -np.inf, np.zeros(len(direction))
    for tau in _TAUS:
        common = tau * n_all / (n_all + _HALF_TRUST) * direction
        if (found := score_of(common)) > best + 1e-12:
            best, start = found, common
    offset = start
    trust = n_documents / (n_documents + _HALF_TRUST)
    order = np.argsort(-n_documents, kind="stable")
    for c in [*order[n_documents[order] > 0]] * 2:
        for value in _OFFSETS:
            trial = offset.copy()
            trial[c] = start[c] + trust[c] * value
            if (found := score_of(trial)) > best + 1e-12:
                best, offset = found, trial
    return offset


def imbalanced_logits(seed, counts=(50, 20, 8, 2, 0)):
    """Logits that lean to the frequent classes, codes, and the offsets of a uniform prior."""
    rng = np.random.RandomState(seed)
    shares = np.array(counts) / sum(counts)
    codes, n = rng.permutation(np.repeat(np.arange(len(counts)), counts)), sum(counts)
    logits = rng.normal(size=(n, len(counts))) + np.log(shares + 0.01)
    logits[np.arange(n), codes] += 2
    return logits.astype(np.float32), codes, -np.log(np.maximum(shares, 0.01))


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true:UserWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", CLASS_SCORES)
def test_offsets_of_classes_are_those_of_the_plain_search(name, seed):
    logits, codes, direction = imbalanced_logits(seed)
    weight = np.random.RandomState(0).randint(0, 3, len(codes)) if seed == 1 else None
    ones = np.ones(5)
    calibration = Calibration(CrossEntropyLoss(), np.array(list("abcde")), ones, ones)
    scorer, labels = get_scorer(name), calibration.classes[codes]
    n_documents = np.bincount(codes, minlength=5)

    def score(answers):
        return scorer(answers, None, labels, sample_weight=weight)

    expected = plain_offsets(calibration, logits, score, n_documents, len(codes), direction)
    counts = counted(name, codes, weight, 5)
    for given in (counts, None):  # counted, and by the scorer
        found = calibration.fit_offset(logits, score, n_documents, len(codes), direction, given)
        np.testing.assert_allclose(found, expected, atol=1e-12)
    tuned = replace(calibration, decision="tuned", offset=found).answers(logits)
    assert counts.score == pytest.approx(score(tuned), abs=1e-12)
    assert score(tuned) >= score(calibration.answers(logits))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", [*LABEL_SCORES, "accuracy", "f1_samples"])
def test_offsets_of_labels_are_those_of_the_plain_search(name, seed):
    rng = np.random.RandomState(seed)
    codes = (rng.uniform(size=(60, 4)) < [0.6, 0.2, 0.05, 0]).astype(np.float32)
    logits = (rng.normal(size=(60, 4)) + 2 * codes - 2).astype(np.float32)
    weight = rng.randint(0, 3, len(codes)) if seed == 1 else None
    ones = np.ones((4, 2))
    calibration = Calibration(SigmoidCrossEntropyLoss(), np.arange(4), ones, ones)
    scorer, n_documents = get_scorer(name), codes.sum(0).astype(int)

    def score(answers):
        return scorer(answers, None, codes.astype(int), sample_weight=weight)

    direction = np.array([0.5, -1, -2, 0])
    expected = plain_offsets(calibration, logits, score, n_documents, 60, direction)
    counts = counted(name, codes, weight, 4)
    assert (counts is None) == (name not in LABEL_SCORES)
    for given in (counts, None):
        found = calibration.fit_offset(logits, score, n_documents, 60, direction, given)
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_of_equal_sums_the_first_class_is_decided_for_before_and_after_a_move():
    scores = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1], [2, 2, 2]], dtype=np.float32)
    decisions = ClassDecisions(scores, np.zeros(3))
    assert decisions.decided.tolist() == scores.argmax(1).tolist() == [0, 1, 0, 0]
    for c, value in [(2, 1.0), (0, 1.0), (1, 2.0), (2, 2.0), (0, -1.0), (1, 0.5)]:
        trials = [decisions.decided.copy() for _ in range(3)]
        values = [value - 1, value, value + 1]
        for trial, (rows, decided) in zip(trials, decisions.trials(c, values), strict=True):
            trial[rows] = decided
        for trial, tried in zip(trials, values, strict=True):
            offset = decisions.offset.copy()
            offset[c] = tried
            assert trial.tolist() == (scores + offset).argmax(1).tolist()
        decisions.move(c, value)
        assert decisions.decided.tolist() == trials[1].tolist()


def test_a_label_taken_from_all_documents_leaves_no_trace():
    rng = np.random.RandomState(0)
    for _ in range(300):
        codes = (rng.uniform(size=(40, 2)) < 0.4).astype(np.float32)
        decided = rng.uniform(size=(40, 2)) < 0.3
        weight = rng.uniform(0.1, 3, 40) * (rng.uniform(size=40) < 0.8)
        counts = counted("precision_macro", codes, weight, 2)
        counts.decide(decided)
        rows = np.flatnonzero(decided[:, 0] & (weight > 0))
        after = counts.after(0, rows, np.zeros(len(rows), bool))
        decided = decided.copy()
        decided[rows, 0] = False
        counts.decide(decided, only=0)
        assert after == pytest.approx(counts.score, abs=1e-12)


def test_names_are_those_of_scikit_learn_and_no_other_score_is_counted():
    assert {*CLASS_SCORES, *LABEL_SCORES} <= set(get_scorer_names())
    codes = np.array([0, 1])
    assert counted("roc_auc_ovr", codes, None, 2) is None
    assert counted(get_scorer("f1_macro"), codes, None, 2) is None


def test_a_search_takes_less_memory_than_twice_the_logits(monkeypatch):
    monkeypatch.setattr(offset_search, "_AT_ONCE", 2**14)
    n, n_classes = 4000, 100
    logits = np.random.RandomState(0).normal(size=(n, n_classes)).astype(np.float32)
    codes = np.arange(n) % n_classes
    logits[np.arange(n), codes] += 2
    ones = np.ones(n_classes)
    calibration = Calibration(CrossEntropyLoss(), np.arange(n_classes), ones, ones)
    n_documents = np.bincount(codes) * (np.arange(n_classes) < 10)  # tune ten of them
    counts = counted("f1_macro", codes, None, n_classes)
    tracemalloc.start()
    try:
        offset = calibration.fit_offset(logits, None, n_documents, n, -ones, counts)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * logits.nbytes
    assert np.abs(offset).max() > 0


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true:UserWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
@pytest.mark.parametrize("name", CLASS_SCORES)
def test_counts_are_right_for_classes_that_are_only_decided_for(name):
    """Also where a trial decides for such a class first, or for it no longer."""
    rng = np.random.RandomState(0)
    codes, weight = rng.randint(0, 3, 30), rng.uniform(0.5, 2, 30)

    def score(decided):
        answers = FixedPredictions(np.arange(6), np.zeros((30, 6)), False, decided=decided)
        return get_scorer(name)(answers, None, codes, sample_weight=weight)

    counts = counted(name, codes, weight, 6)
    for decided, c in [(rng.randint(0, 5, 30), 5), (codes.copy(), 4), (np.full(30, 3), 0)]:
        counts.decide(decided)
        assert counts.score == pytest.approx(score(decided), abs=1e-12)
        for rows in (np.arange(4), np.arange(30)):
            after = decided.copy()
            after[rows] = c
            found = counts.after(c, rows, after[rows])
            assert found == pytest.approx(score(after), abs=1e-12)
