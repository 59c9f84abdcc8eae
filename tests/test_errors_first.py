"""A wrong parameter is named before the model is looked up and before a text is tokenised."""

import inspect
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from imblearn.over_sampling import SMOTE, RandomOverSampler
from sklearn.metrics import f1_score, make_scorer
from sklearn.model_selection import GroupShuffleSplit

from skfocal import BertFocalClassifier, Checkpoint, EffectiveNumber, FocalLoss, Windows
from skfocal._estimator import plan
from skfocal._estimator.inputs import TrainingData
from skfocal._estimator.parameters import parameters_of
from skfocal.losses import LDAMLoss, LogitAdjustedLoss

X = ["win cash now", "a prize to win", "lunch", "team lunch", "a meeting", "the project"] * 4
Y = np.array(["spam", "spam", "ham", "ham", "ham", "other"] * 4)

# For each parameter values that are wrong by themselves, with what the message says beside its
# name.
WRONG = {
    "model": [(3, "an instance of 'str'")],
    "pooling": [("cls", "'pooling' parameter .* must be a str among"), (None, "Got None")],
    "freeze": [(-1, "Got -1")],
    "peft": [
        ("lora", "PeftConfig"),
        ({"r": 8}, "'peft_type'"),
        ({"peft_type": "LORA", "rank": 8}, "rank"),
        ({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 2}, "merged into the weights"),
    ],
    "dropout": [(1.0, "Got 1.0")],
    "attention_dropout": [(-0.1, "Got -0.1")],
    "trust_remote_code": [("yes", "Got 'yes'")],
    "warm_start": [(2, "Got 2")],
    "max_length": [(2, "Got 2")],
    "long_documents": [
        ("window", "Got 'window'"),
        (Windows(stride=-1), "stride"),
        (Windows(pooling="sum"), "pooling"),
        (Windows(max_windows=0), "max_windows"),
    ],
    "loss": [("focall", "Got 'focall'"), (torch.nn.CrossEntropyLoss(), "one value per sample")],
    "gamma": [(-1.0, "Got -1.0")],
    "alpha": [
        ("ballanced", "Got 'ballanced'"),
        ({"spam": 1.0}, "missing"),
        ([1.0, 2.0], "array of 3 weights"),
        ([1.0, 2.0, -1.0], "positive finite"),
        (0.25, "single number"),
        (EffectiveNumber(1.0), "beta"),
    ],
    "sampler": [
        ("ballanced", "Got 'ballanced'"),
        (1.5, "Got 1.5"),
        (SMOTE(), "no meaning for texts"),
        (SMOTE, "sampler"),
    ],
    "refit_head": [("ballanced", "Got 'ballanced'"), (True, "Got True")],
    "defer": [(1.0, "Got 1.0")],
    "normalize": [("mean", "Got 'mean'")],
    "label_smoothing": [(1.0, "Got 1.0")],
    "loss_params": [({"tau": 1.0}, "tau"), ([], "Got \\[\\]")],
    "classes": [(["spam", "ham"], "other"), ("spam", "Got 'spam'")],
    "max_epochs": [(0, "Got 0")],
    "batch_size": [(0, "Got 0")],
    "accumulate": [(0, "Got 0")],
    "lr": [("fast", "Got 'fast'"), (0.0, "Got 0.0")],
    "layer_decay": [(0.0, "Got 0.0")],
    "weight_decay": [(-0.1, "Got -0.1")],
    "warmup": [(1.0, "Got 1.0")],
    "schedule": [("step", "Got 'step'")],
    "n_updates": [(0, "Got 0")],
    "gradient_clip": [(0.0, "Got 0.0")],
    "nonfinite": [("ignore", "Got 'ignore'")],
    "callbacks": [([3], "Got 3 in place 0"), (3, "Got 3")],
    "net_params": [
        ({"optimiser": 1}, "optimiser"),
        ({"optimizer__betta": 1}, "betta"),
        ({"callbacks": []}, "callbacks="),
        ({"train_split": None}, "train_split="),
        ({"batch_size": 64}, "batch_size="),
        ({"device": "cpu"}, "device="),
        (3, "Got 3"),
    ],
    "train_split": [(1.0, "Got 1.0"), (1e-9, "leaves none to score")],
    "early_stopping": [(0.5, "Got 0.5"), (-1, "Got -1")],
    "eval_steps": [(0, "Got 0"), (2, "eval_steps needs documents to score")],
    "scoring": [("f1_makro", "Got 'f1_makro'"), (f1_score, "scoring")],
    "proba": [("sigmoid", "Got 'sigmoid'")],
    "temperature": [("best", "Got 'best'"), (0.0, "Got 0.0")],
    "decision": [("best", "Got 'best'"), ("prior", "prior='uniform' or shares")],
    "prior": [("balanced", "Got 'balanced'")],
    "checkpoint": [(3, "Got 3"), (Checkpoint("run", steps=0), "steps")],
    "device": [("gpu", "Got|gpu"), (3, "Got 3")],
    "precision": [("half", "Got 'half'")],
    "predict_precision": [("int4", "Got 'int4'")],
    "gradient_checkpointing": [("yes", "Got 'yes'")],
    "deterministic": [("yes", "Got 'yes'")],
    "random_state": [("seed", "Got 'seed'")],
    "verbose": [("loud", "Got 'loud'")],
}

# Parameters that are right by themselves and do not go together, and the words of the error.
TOGETHER = [
    ({"proba": "natural", "loss": "dice"}, "proba='natural' needs a loss"),
    ({"decision": "prior", "prior": "uniform", "loss": "dice"}, "decision='prior' needs a loss"),
    ({"decision": "prior", "prior": [0.5, 0.5]}, "prior must be 'uniform' or give each"),
    ({"decision": "prior", "prior": {"spam": 1.0}}, "prior as a dict must give one number"),
    ({"early_stopping": True, "defer": 0.5}, "defer=0.5 and early_stopping=True"),
    ({"loss": "cross_entropy", "loss_params": {"epsilon": 1.0}}, "loss_params"),
    ({"loss": FocalLoss(weight=[1.0, 2.0])}, "the weight of the loss must have shape"),
    ({"loss": LDAMLoss([1, 2])}, r"margin must have shape \(3,\).* Got \(2,\)"),
    (
        {"loss": LogitAdjustedLoss([1, 2])},
        "counts of the loss must be .* 3 classes of y. Got 2",
    ),
    (
        {"loss": partial(LDAMLoss, counts=[1, 2])},
        "counts of the loss must have .* 3 classes. Got 2",
    ),
    ({"sampler": "progressive", "early_stopping": 2}, "'progressive' and early_stopping=2"),
    ({"defer": 0.5, "net_params": {"max_epochs": 9}}, "'max_epochs' with defer"),
    ({"train_split": 0.3, "scoring": "f1"}, "scoring='f1' cannot score .* multiclass"),
    ({"early_stopping": 1, "scoring": ["accuracy", "roc_auc"]}, "scoring='roc_auc' cannot score"),
    ({"train_split": 0.3, "scoring": make_scorer(f1_score, pos_label="eggs")}, "cannot score"),
    ({"alpha": pd.Series([1, 2, 3, 4], ["spam", "ham", "ham", "other"])}, r"several for \['ham'\]"),
    ({"sampler": RandomOverSampler(shrinkage=0.5)}, "must have shrinkage=None"),
    ({"max_length": 8, "long_documents": Windows(stride=8)}, "stride must be less"),
]


def test_every_parameter_has_a_row():
    assert list(WRONG) == list(inspect.signature(BertFocalClassifier).parameters)


@pytest.fixture(autouse=True)
def no_model(monkeypatch):
    """Neither tokenizer nor weights may be asked for."""

    def refuse(*args, **kwargs):
        pytest.fail("the model was looked up")

    for name in ("load_tokenizer", "load_module"):
        monkeypatch.setattr(f"skfocal._estimator.build.{name}", refuse)
    monkeypatch.setattr("skfocal._estimator.fit.tokenize", refuse)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [(name, value, words) for name, rows in WRONG.items() for value, words in rows],
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_wrong_value_is_named_before_the_model_is_looked_up(name, value, words, method, tmp_path):
    if method == "partial_fit" and name in (
        "train_split",
        "checkpoint",
        "early_stopping",
        "eval_steps",
    ):
        pytest.skip("partial_fit has none")
    if isinstance(value, Checkpoint):
        value.folder = tmp_path
    params = {"model": "nobody/no-such-model", name: value}
    if name == "loss_params":
        params["loss"] = "focal"
    clf = BertFocalClassifier(**params)
    with pytest.raises((TypeError, ValueError), match=words) as caught:
        clf.fit(X, Y) if method == "fit" else clf.partial_fit(X, Y, classes=np.unique(Y))
    message = str(caught.value)
    nested = {"Windows": "long_documents", "EffectiveNumber": "alpha", "Checkpoint": "checkpoint"}
    owner = nested.get(type(value).__name__)
    assert name in message or owner == name, message


@pytest.mark.parametrize(("params", "words"), TOGETHER)
def test_what_does_not_go_together_is_named_before_the_model_is_looked_up(params, words):
    with pytest.raises(ValueError, match=words):
        BertFocalClassifier("nobody/no-such-model", **params).fit(X, Y)


def test_several_labels_and_a_sampler_are_refused_before_the_model_is_looked_up():
    clf = BertFocalClassifier("nobody/no-such-model", sampler="balanced")
    with pytest.raises(ValueError, match="sampler must be None for multi-label y"):
        clf.fit(X, np.eye(4)[np.arange(len(X)) % 4][:, :3])


def test_windows_of_pairs_are_refused_before_the_model_is_looked_up():
    clf = BertFocalClassifier("nobody/no-such-model", long_documents="windows")
    with pytest.raises(ValueError, match="long_documents must be 'truncate' for pairs"):
        clf.fit(list(zip(X, X, strict=True)), Y)


def test_the_checks_draw_no_number(monkeypatch):
    """A right fit comes to the model with the generators as they were."""
    state = np.random.RandomState(0)

    class Reached(Exception):
        pass

    def reach(*args, **kwargs):
        raise Reached

    monkeypatch.setattr("skfocal._estimator.build.load_tokenizer", reach)
    clf = BertFocalClassifier("nobody/no-such-model", random_state=state, sampler="sqrt")
    with pytest.raises(Reached):
        clf.fit(X, Y)
    expected = np.random.RandomState(0)
    expected.randint(np.iinfo(np.int32).max)  # the seed of the training
    assert state.randint(1000) == expected.randint(1000)


def test_a_score_that_is_not_defined_stops_no_training():
    clf = BertFocalClassifier("nobody/no-such-model", early_stopping=1, scoring="roc_auc")
    y = np.where(Y == "ham", "ham", "spam")
    with pytest.raises(ValueError, match="'roc_auc' is NaN .* early_stopping cannot tell"):
        clf.fit(X, y, eval_set=(X[:3], ["ham"] * 3))


def test_labels_that_became_codes_are_explained():
    codes = np.unique(Y, return_inverse=True)[1]
    clf = BertFocalClassifier("nobody/no-such-model", alpha={"ham": 1, "spam": 2, "other": 3})
    with pytest.raises(ValueError, match="VotingClassifier, .* give an array in the order"):
        clf.fit(X, codes)
    with pytest.raises(ValueError, match=r"missing: \[1, 2\]. The classes are \[0, 1, 2\]\.$"):
        clf.set_params(alpha={0: 1.0}).fit(X, codes)


@pytest.mark.parametrize("name", ["sample_weight", "groups", "eval_set"])
def test_what_comes_in_another_order_than_X_is_refused(name):
    texts, labels, numbers = pd.Series(X), pd.Series(Y), pd.Series(np.arange(24.0))[::-1]
    given = {name: numbers}
    if name == "eval_set":
        given = {name: (texts, labels, numbers)}
    split = GroupShuffleSplit(1, random_state=0) if name == "groups" else None
    clf = BertFocalClassifier("nobody/no-such-model", train_split=split)
    with pytest.raises(ValueError, match=f"X and {name.replace('eval_set', 'sample_weight')} must"):
        clf.fit(texts, labels, **given)
    doubled = texts.set_axis([0, 1] * 12), labels.set_axis([1, 0] * 12)
    with pytest.raises(ValueError, match=r"orders: give y.to_numpy\(\) if the order is right"):
        BertFocalClassifier("nobody/no-such-model").fit(*doubled)


def test_a_sampler_needs_two_classes_that_have_weight():
    clf = BertFocalClassifier("nobody/no-such-model", sampler=RandomOverSampler())
    data = TrainingData(X, np.unique(Y), np.zeros(24, int), np.ones(24), np.arange(24))
    with pytest.raises(ValueError, match="positive sample_weight of at least two classes"):
        plan.resolve(parameters_of(clf), data, np.random.RandomState(0))


def test_a_split_of_few_documents_with_weight_says_how_many():
    weight = np.zeros(24)
    weight[[0, 2, 5]] = 1  # one of each class
    clf = BertFocalClassifier("nobody/no-such-model", train_split=0.1)
    with pytest.raises(ValueError, match="of 3 documents with a positive weight leaves none"):
        clf.fit(X, Y, sample_weight=weight)
