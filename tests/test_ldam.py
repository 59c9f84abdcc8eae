"""LDAM through the estimator: the head of cosines and the deferred re-weighting."""

import copy
import pickle

import numpy as np
import pytest
import torch
from conftest import copy_tokenizer, logits_of
from skorch.callbacks import Callback
from transformers import AutoConfig, AutoModelForSequenceClassification

from skfocal import LDAMLoss
from skfocal._encoder.head import CosineLinear
from skfocal.callbacks import DeferredWeight

TINY = {
    "vocab_size": 30522,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 80,
}


@pytest.fixture(scope="module")
def make(make_of_few_words):
    """Return a function that makes classifiers of few words."""
    return make_of_few_words


def head_of(clf):
    return clf.net_.module_.model.classifier


def test_logits_are_the_scale_times_cosines(make, data):
    X, y = data
    clf = make(loss="ldam", loss_params={"scale": 7.0}, proba="natural").fit(X, y)
    head = head_of(clf)
    assert type(head) is CosineLinear and head.bias is None
    inputs = []
    head.register_forward_hook(lambda module, args, output: inputs.append(args[0]))
    logits = logits_of(clf, X)
    features = torch.cat(inputs)
    expected = 7.0 * torch.cosine_similarity(features[:, None], head.weight[None], dim=-1)
    np.testing.assert_allclose(
        np.sort(logits, axis=0), np.sort(expected.detach().numpy(), axis=0), atol=1e-5
    )
    assert np.abs(logits).max() <= 7.0 + 1e-5
    assert torch.equal(clf.loss_.margin, LDAMLoss([30, 10], 0.5).margin)


def test_margins_are_of_the_documents_that_there_are_and_not_of_those_drawn(make, data):
    drawn = make(loss="ldam", sampler="balanced").fit(*data)
    torch.testing.assert_close(drawn.loss_.margin, torch.tensor([0.5 * 3**-0.25, 0.5]))


def test_the_next_fit_with_another_loss_has_a_linear_head_again(make, data):
    clf = make(loss="ldam").fit(*data)
    linear = clf.set_params(loss="cross_entropy").fit(*data)
    assert type(head_of(linear)) is torch.nn.Linear
    plain = make(loss="cross_entropy").fit(*data)
    np.testing.assert_array_equal(linear.predict_proba(data[0]), plain.predict_proba(data[0]))


def test_going_on_keeps_the_head(make, data):
    X, y = data
    clf = make(loss="ldam", warm_start=True).fit(X, y).fit(X, y)
    assert type(head_of(clf)) is CosineLinear
    clf.partial_fit(X, y)
    assert type(head_of(clf)) is CosineLinear
    with pytest.raises(ValueError, match="loss='focal' needs a linear head"):
        clf.set_params(loss="focal").fit(X, y)


@pytest.mark.parametrize("how", [copy.deepcopy, lambda clf: pickle.loads(pickle.dumps(clf))])
def test_a_copy_has_the_head(make, data, how):
    clf = make(loss="ldam").fit(*data)
    np.testing.assert_array_equal(how(clf).predict_proba(data[0]), clf.predict_proba(data[0]))


@pytest.mark.filterwarnings("ignore:The head of model")
@pytest.mark.parametrize("kind", ["roberta", "distilbert", "electra", "modernbert", "mpnet"])
def test_heads_of_other_architectures_are_found(make, data, kind, tmp_path):
    settings = dict(TINY)
    if kind == "distilbert":
        settings = {"vocab_size": 30522, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 16}
    if kind == "modernbert":
        settings |= {"pad_token_id": 0, "cls_token_id": 101, "sep_token_id": 102}
    config = AutoConfig.for_model(kind, **settings)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    copy_tokenizer(tmp_path)
    clf = make(model=tmp_path, loss="ldam", max_epochs=1).fit(*data)
    heads = [m for m in clf.net_.module_.modules() if isinstance(m, CosineLinear)]
    assert len(heads) == 1 and heads[0].out_features == 2
    assert np.abs(logits_of(clf, data[0])).max() <= 30 + 1e-4


def test_cosines_are_computed_in_float32_under_autocast():
    linear = torch.nn.Linear(384, 3)
    head = CosineLinear(linear, 30.0)
    x = torch.randn(5, 384, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        half = head(x)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, head(x.float()))


class Weights(Callback):
    """Note the class weights at the first batch of each epoch."""

    def __init__(self):
        self.seen = []

    def on_batch_begin(self, net, training=False, **kwargs):
        if training and len(self.seen) < len(net.history):
            self.seen.append(net.criterion_.weight.tolist())


@pytest.mark.parametrize(("defer", "n_plain"), [(0.0, 0), (0.5, 2), (0.8, 3)])
def test_alpha_sets_in_after_the_deferred_epochs(make, data, defer, n_plain):
    clf = make(alpha="effective", defer=defer, max_epochs=4, callbacks=[Weights()]).fit(*data)
    seen = next(c.seen for _, c in clf.net_.callbacks_ if isinstance(c, Weights))
    weight = clf.class_weight_.astype(np.float32).tolist()
    assert seen == [[1.0, 1.0]] * n_plain + [weight] * (4 - n_plain)
    assert clf.loss_.weight.tolist() == weight


def test_deferring_is_a_fit_without_alpha_and_then_one_with_it(make, data):
    X, y = data
    whole = make(alpha={"ham": 1.0, "spam": 5.0}, defer=0.5, max_epochs=2).fit(X, y)
    plain = make(alpha=None, max_epochs=2).fit(X, y)
    losses = [[row["train_loss"] for row in clf.history_] for clf in (whole, plain)]
    assert losses[0][0] == losses[1][0] and losses[0][1] != losses[1][1]


def test_epochs_without_alpha_are_scored_as_those_of_a_fit_without_it(make, data):
    X, y = data
    params = {"loss": "cross_entropy", "max_epochs": 4, "train_split": 0.3}
    params["scoring"] = ["accuracy", "neg_log_loss"]
    whole = make(alpha={"ham": 1.0, "spam": 50.0}, defer=0.5, **params).fit(X, y)
    plain = make(alpha=None, **params).fit(X, y)
    for name in ("valid_accuracy", "valid_neg_log_loss"):
        deferred, expected = (clf.net_.history[:2, name] for clf in (whole, plain))
        np.testing.assert_allclose(deferred, expected, rtol=1e-6)


def test_training_that_ends_before_alpha_sets_in_says_so(make, data):
    class Stop(Callback):
        def on_epoch_end(self, net, **kwargs):
            net.loop_.stop = True

    clf = make(alpha="balanced", defer=0.8, max_epochs=4, callbacks=[Stop()])
    with pytest.warns(UserWarning, match="ended after 1 epochs, before the 3 epochs without alpha"):
        clf.fit(*data)
    assert clf.loss_.weight.tolist() == pytest.approx(clf.class_weight_.tolist())


def test_defer_where_it_cannot_be_kept_is_refused(make, data):
    with pytest.raises(ValueError, match="defer=0.5 and early_stopping=True cannot be combined"):
        make(alpha="balanced", defer=0.5, early_stopping=True).fit(*data)
    with pytest.raises(ValueError, match="partial_fit needs defer=0"):
        make(alpha="balanced", defer=0.5).partial_fit(*data, classes=["ham", "spam"])
    assert DeferredWeight(2).n_epochs == 2
