"""Requests share calls of the classifier, get their own answers, and are refused in time."""

import asyncio
import copy
import json
import multiprocessing
import queue
import threading
from concurrent.futures import wait

import numpy as np
import pyarrow as pa
import pytest

from skfocal import OnnxBatcher, OnnxClassifier

LONG = 30  # seconds that nothing here takes


@pytest.fixture(scope="module")
def served(onnx_folder):
    return OnnxClassifier(onnx_folder, n_threads=1)


class Gated:
    """An exported classifier whose calls wait for a gate, fail for some texts, and are kept."""

    def __init__(self, classifier, errors=None):
        self.classifier = classifier
        self.errors = errors or {}
        self.calls = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()

    def __getattr__(self, name):
        return getattr(self.classifier, name)

    def outputs(self, X):
        self.calls.append(list(X))
        self.entered.release()
        assert self.gate.wait(LONG)
        for text in X:
            if text in self.errors:
                raise self.errors[text]
        return self.classifier.outputs(X)

    def occupy(self, batcher):
        """Let a first request into a call that does not end before the gate opens."""
        future = batcher.submit(["first"])
        assert self.entered.acquire(timeout=LONG)
        return future


@pytest.fixture
def gated(served):
    """Return a classifier behind a gate, which is open at the end."""
    classifier = Gated(served)
    yield classifier
    classifier.gate.set()


def assert_answer(answer, classifier, X):
    assert json.loads(json.dumps(answer)) == answer  # nothing but plain data
    assert answer["classes"] == classifier.classes_.tolist()
    np.testing.assert_allclose(answer["probabilities"], classifier.predict_proba(X), atol=1e-5)
    predicted = classifier.predict(X)
    if predicted.ndim == 2:
        predicted = np.array([np.isin(answer["classes"], labels) for labels in answer["labels"]])
        assert np.array_equal(predicted, classifier.predict(X) == 1)
    else:
        assert answer["labels"] == predicted.tolist()


def assert_answers(classifier, X):
    with OnnxBatcher(classifier) as batcher:
        batcher.check()
        starts = [0, 1, 2, 5, 12, 39, 40]
        parts = [X[a:b] for a, b in zip(starts, starts[1:], strict=False)]
        futures = [batcher.submit(part) for part in parts]
        for part, future in zip(parts, futures, strict=True):
            assert_answer(future.result(LONG), classifier, part)


@pytest.mark.parametrize("classes", [["ham", "spam"], [3, -2], [True, False], [0.5, 1.5]])
def test_answers_are_those_of_the_classifier(served, data, classes):
    served = copy.copy(served)
    served.classes_ = np.array(classes)
    assert_answers(served, data[0])


def test_documents_of_several_labels_and_pairs_are_answered(onnx_pairs_folder, data):
    assert_answers(OnnxClassifier(onnx_pairs_folder), [(text, "and more") for text in data[0]])


def test_what_waits_shares_a_call_and_gets_its_own_answers(gated, served, data):
    with OnnxBatcher(gated, max_texts=8) as batcher:
        first = gated.occupy(batcher)
        parts = [data[0][:3], data[0][3:4], data[0][4:8], data[0][8:10], data[0][10:30], ["last"]]
        futures = [batcher.submit(part) for part in parts]
        gated.gate.set()
        for part, future in zip([["first"], *parts], [first, *futures], strict=True):
            assert_answer(future.result(LONG), served, part)
    # As many requests as have eight texts, the oldest first; one that has more is by itself.
    assert [len(X) for X in gated.calls] == [1, 8, 2, 20, 1]


def test_batches_of_one_text_turn_it_off(gated):
    with OnnxBatcher(gated, max_texts=1) as batcher:
        futures = [gated.occupy(batcher), *(batcher.submit([word]) for word in "abc")]
        gated.gate.set()
        wait(futures, LONG)
    assert gated.calls == [["first"], ["a"], ["b"], ["c"]]


@pytest.mark.parametrize("max_wait", [10 * LONG, 1e10, float("inf")])
def test_a_full_batch_waits_for_nothing_more(gated, max_wait):
    gated.gate.set()
    with OnnxBatcher(gated, max_texts=3, max_wait=max_wait) as batcher:
        futures = [batcher.submit([word]) for word in "ab"]
        assert not gated.entered.acquire(timeout=0.2)  # it waits for a third one
        futures.append(batcher.submit(["c"]))
        assert all(future.result(LONG) for future in futures)
    assert gated.calls == [["a", "b", "c"]]


def test_a_request_waits_for_others_no_longer_than_it_may(gated):
    gated.gate.set()
    with OnnxBatcher(gated, max_texts=1000) as batcher:
        assert batcher.submit(["alone"]).result(LONG)


def test_too_much_is_refused_and_what_waits_is_answered(gated):
    with OnnxBatcher(gated, max_waiting=4) as batcher:
        futures = [gated.occupy(batcher)]
        futures += [batcher.submit(["one", "two"]) for _ in range(2)]
        for _ in range(3):
            with pytest.raises(queue.Full, match="At most 4 texts may wait. Got 1 more while 4 w"):
                batcher.submit(["three"])
        gated.gate.set()
        assert [len(future.result(LONG)["labels"]) for future in futures] == [1, 2, 2]
        assert batcher.submit(["three"]).result(LONG)


def test_bad_requests_are_refused_before_they_join_a_batch(gated):
    with OnnxBatcher(gated) as batcher:
        futures = [gated.occupy(batcher), batcher.submit(["good"])]
        with pytest.raises(TypeError, match="Got int in row 1: 3"):
            batcher.submit(["text", 3])
        with pytest.raises(TypeError, match="Got NoneType in row 1"):
            batcher.submit(pa.array(["text", None]))
        with pytest.raises(ValueError, match="one text per document, as in fit. Got pairs"):
            batcher.submit([("a", "b")])
        with pytest.raises(ValueError, match="X holds no document"):
            batcher.submit([])
        futures.append(batcher.submit(["better"]))
        gated.gate.set()
        assert all(future.result(LONG) for future in futures)
    assert gated.calls == [["first"], ["good", "better"]]


class Panic(BaseException):
    """As the tokenizers library raises."""


@pytest.mark.parametrize("kind", [RuntimeError, Panic])
def test_a_call_that_fails_fails_for_the_request_that_is_to_blame(gated, served, kind):
    gated.errors["cursed"] = kind("cursed")
    with OnnxBatcher(gated) as batcher:
        gated.occupy(batcher)
        before, cursed, after = (batcher.submit([word]) for word in ("before", "cursed", "after"))
        gated.gate.set()
        assert_answer(before.result(LONG), served, ["before"])
        assert_answer(after.result(LONG), served, ["after"])
        with pytest.raises(kind, match="cursed"):
            cursed.result(LONG)
        assert batcher.submit(["later"]).result(LONG)


def test_what_was_cancelled_is_not_computed(gated):
    with OnnxBatcher(gated, max_waiting=3) as batcher:
        gated.occupy(batcher)
        futures = [batcher.submit([word]) for word in "abc"]
        assert futures[1].cancel()
        gated.gate.set()
        assert futures[0].result(LONG) and futures[2].result(LONG)
        assert batcher.submit(["d", "e", "f"]).result(LONG)  # there is room for all three
        gated.gate.clear()
        while gated.entered.acquire(blocking=False):
            pass
        gated.occupy(batcher)
        for word in "abc":
            batcher.submit([word])
        gated.gate.set()
    assert gated.calls[:2] == [["first"], ["a", "c"]]


def test_a_coroutine_that_is_cancelled_takes_its_request_along(gated):
    async def main(batcher):
        tasks = [
            asyncio.ensure_future(asyncio.wrap_future(batcher.submit([word]))) for word in "abc"
        ]
        tasks[0].cancel()
        await asyncio.wait(tasks[:1])
        gated.gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    with OnnxBatcher(gated) as batcher:
        gated.occupy(batcher)
        found = asyncio.run(main(batcher))
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1]["labels"] and found[2]["labels"]
    assert gated.calls == [["first"], ["b", "c"]]


def test_many_threads_get_their_own_answers(served, data):
    X = [f"{text} {i}" for i, text in enumerate(data[0] * 5)]
    expected = served.predict_proba(X)
    found = np.zeros_like(expected)

    def ask(rows):
        for i in rows:
            found[i] = batcher.submit([X[i]]).result(LONG)["probabilities"][0]

    with OnnxBatcher(served) as batcher:
        rows = np.array_split(np.arange(len(X)), 16)
        threads = [threading.Thread(target=ask, args=(part,)) for part in rows]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_closing_answers_what_waits_and_takes_nothing_more(gated):
    batcher = OnnxBatcher(gated)
    futures = [gated.occupy(batcher), batcher.submit(["second"])]
    gated.gate.set()
    batcher.close()
    assert all(future.done() and future.result() for future in futures)
    with pytest.raises(RuntimeError, match="shutdown"):
        batcher.submit(["third"])


def test_check_is_beside_what_waits_and_raises_what_the_classifier_does(gated):
    with OnnxBatcher(gated, max_waiting=1) as batcher:
        gated.gate.set()
        batcher.check()
        gated.errors["A document, to try it."] = RuntimeError("no answer")
        with pytest.raises(RuntimeError, match="no answer"):
            batcher.check()


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [
        ("max_texts", 0, 1),
        ("max_wait", -0.1, 0),
        ("max_wait", float("nan"), 0),
        ("max_waiting", 0, 1),
    ],
)
def test_limits_that_let_nothing_through_are_refused(served, name, value, least):
    with pytest.raises(ValueError, match=f"{name} must be at least {least}. Got {value}"):
        OnnxBatcher(served, **{name: value})


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_is_told_to_make_its_own(served):
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def use(batcher):
        try:
            batcher.submit(["win"])
        except RuntimeError as error:
            sender.send(str(error))

    with OnnxBatcher(served) as batcher:
        process = multiprocessing.get_context("fork").Process(target=use, args=(batcher,))
        process.start()
        assert receiver.poll(LONG) and "Make one in each worker" in receiver.recv()
        process.join(LONG)
        assert batcher.submit(["win"]).result(LONG)["labels"] == served.predict(["win"]).tolist()
