"""Pruning of easy documents: unbiased, off by default, whole at both ends."""

import numpy as np
import pytest
import torch

from skfocal.callbacks import Pruning


def test_only_easy_documents_go_and_the_expected_weight_is_one():
    pruning = Pruning(0.4, 6, n_epochs=8)
    rng = np.random.RandomState(0)
    rows = np.arange(6)
    assert pruning.keep(rows, 0, rng).tolist() == rows.tolist()
    pruning.loss_ = np.array([0.1, 0.2, np.nan, 5.0, 0.3, 4.0])  # one was never drawn
    total = np.zeros(6)
    for _ in range(4000):
        kept = pruning.keep(rows, 1, rng)
        total[kept] += pruning.scale_[kept]
    assert total[[2, 3, 5]].tolist() == [4000] * 3
    np.testing.assert_allclose(total[[0, 1, 4]] / 4000, 1, atol=0.05)


@pytest.mark.parametrize(
    ("n_epochs", "whole"), [(1, [0]), (2, [0, 1]), (4, [0, 3]), (8, [0, 7]), (16, [0, 14, 15])]
)
def test_first_and_last_epochs_are_whole(n_epochs, whole):
    pruning = Pruning(0.9, 100, n_epochs)
    pruning.loss_ = np.arange(100.0)
    sizes = [
        len(pruning.keep(np.arange(100), e, np.random.RandomState(e))) for e in range(n_epochs)
    ]
    assert [e for e, size in enumerate(sizes) if size == 100] == whole
    assert all(50 <= size < 70 for e, size in enumerate(sizes) if e not in whole)


def test_rows_drawn_twice_go_one_by_one():
    pruning = Pruning(0.5, 2, 8)
    pruning.loss_ = np.array([0.0, 1.0])
    kept = pruning.keep(np.array([0] * 1000 + [1] * 5), 1, np.random.RandomState(0))
    assert 400 < (kept == 0).sum() < 600 and (kept == 1).sum() == 5


def test_a_fit_keeps_the_loss_of_each_document_and_ends_its_schedule(make, data):
    X, y = data
    clf = make(prune=0.6, max_epochs=5, dropout=0.0).fit(X, y)
    counts = [row["train_batch_count"] for row in clf.history_]
    assert counts[0] == counts[-1] == 5 and min(counts[1:-1]) < 5
    pruning = dict(clf.net_.callbacks_)["pruning"]
    with torch.no_grad():
        logits = torch.from_numpy(clf._logits(X))
    codes = torch.from_numpy(np.unique(y, return_inverse=True)[1])
    now = clf.loss_.per_sample(logits, codes).numpy()
    # Those seen in the last epoch, before its updates: near, in the same order.
    assert np.isfinite(pruning.loss_).all()
    assert np.corrcoef(pruning.loss_, now)[0, 1] > 0.5
    assert abs(dict(clf.net_.callbacks_)["schedule"].step_ - 25) < 3


def test_the_gradient_of_a_batch_has_the_weights(make, data):
    seen = []

    class Spy(Pruning):
        def on_batch_begin(self, net, batch=None, training=False, **kwargs):
            before = batch[0]["sample_weight"].clone() if training else None
            super().on_batch_begin(net, batch=batch, training=training, **kwargs)
            if training:
                seen.append((before, batch[0]["sample_weight"].clone()))

    X, y = data
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("skfocal.classifier.Pruning", Spy)
        make(prune=0.5, max_epochs=4).fit(X, y, sample_weight=np.linspace(0.5, 1.5, len(X)))
    ratios = torch.cat([after / before for before, after in seen])
    assert set(ratios.tolist()) == {1.0, 2.0}


def test_none_is_the_plain_fit_and_the_seed_decides(make, data):
    X, y = data
    plain = make(max_epochs=3).fit(X, y).predict_proba(X)
    assert np.array_equal(make(max_epochs=3, prune=0.0).fit(X, y).predict_proba(X), plain)
    pruned = make(max_epochs=3, prune=0.5).fit(X, y).predict_proba(X)
    assert not np.array_equal(pruned, plain)
    assert np.array_equal(make(max_epochs=3, prune=0.5).fit(X, y).predict_proba(X), pruned)


def documents_seen(clf):
    """Return how many documents each epoch has trained on."""
    return [
        sum(batch.get("train_batch_size", 0) for batch in row["batches"]) for row in clf.history_
    ]


@pytest.mark.parametrize("params", [{"sampler": "balanced"}, {"accumulate": 2}, {"freeze": 1}])
def test_goes_with_samplers_accumulation_and_frozen_layers(make, data, params):
    X, y = data
    clf = make(prune=0.5, max_epochs=4, **params).fit(X, y)
    first, *pruned, last = documents_seen(clf)
    assert first == last == 40 and max(pruned) < 40


def test_several_labels(make, data):
    X, y = data
    Y = np.stack([y == "spam", np.array(["money" in x for x in X])], axis=1).astype(int)
    clf = make(prune=0.5, max_epochs=4, loss="cross_entropy").fit(X, Y)
    first, *pruned, last = documents_seen(clf)
    assert first == last == 40 and max(pruned) < 40
    logits, target = torch.from_numpy(clf._logits(X)), torch.from_numpy(Y).float()
    now = clf.loss_.per_sample(logits, target).numpy()
    kept = dict(clf.net_.callbacks_)["pruning"].loss_
    assert np.corrcoef(kept, now)[0, 1] > 0.5


def test_is_refused_where_epochs_are_not_known(make, data):
    X, y = data
    with pytest.raises(ValueError, match="partial_fit needs prune=0"):
        make(prune=0.5).partial_fit(X, y, classes=np.unique(y))
    with pytest.raises(ValueError, match="prune needs normalize='samples'"):
        make(prune=0.5, alpha="balanced", normalize="weights").fit(X, y)
    with pytest.raises(ValueError, match="'prune'"):
        make(prune=1.0).fit(X, y)


def test_too_few_epochs_are_told(make, data):
    with pytest.warns(UserWarning, match="prune=0.5 has no effect with max_epochs=2"):
        make(prune=0.5, max_epochs=2).fit(*data)


def test_an_epoch_keeps_a_document():
    pruning = Pruning(0.99, 3, 8)
    pruning.loss_ = np.array([0.0, 0.0, 9.0])
    for seed in range(20):
        assert len(pruning.keep(np.array([0, 1]), 1, np.random.RandomState(seed))) >= 1


def test_the_loss_in_the_history_stands_for_all_documents(make, data):
    X, y = data
    clf = make(prune=0.7, max_epochs=8, lr=1e-9, warmup=0.0, schedule="constant").fit(X, y)
    losses = [row["train_loss"] for row in clf.history_]
    assert max(losses[1:-1]) < 1.35 * losses[0] and min(losses[1:-1]) > 0.65 * losses[0]
    assert losses[-1] == pytest.approx(losses[0], rel=1e-4)  # nothing was learned
