"""Threads and processes that predict at once get the bits of one alone, and nothing leaks."""

import copy
import gc
import multiprocessing
import pickle
import shutil
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import pytest
import torch
from conftest import TINY, imbalanced
from sklearn.model_selection import GridSearchCV
from tiny_encoders import wordpiece
from transformers import BertConfig, BertForSequenceClassification

from skfocal import clear_cache
from skfocal._encoder.frozen_layers import FrozenLayers
from skfocal._runtime.array_store import FileStore, MemoryStore
from skfocal._runtime.workers import shared_folder
from skfocal._utils.hashing import digest

N_THREADS = 4
SETTINGS = {
    "plain": {},
    "frozen": {"freeze": 1},
    "all frozen": {"freeze": 2},
    "int8": {"predict_precision": "int8"},
    "float32": {"predict_precision": "float32"},
    "frozen int8": {"freeze": 1, "predict_precision": "int8"},
    "trained in bfloat16": {"precision": "bfloat16", "freeze": 1},
}
SLOW_HERE = pytest.mark.filterwarnings("ignore:.*no fast instructions for it:UserWarning")


@pytest.fixture
def eager_switching():
    """Let threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def at_once(function, n=N_THREADS):
    """Return what `function` gives in each of `n` threads that start together."""
    barrier = threading.Barrier(n)

    def wait_and_call(i):
        barrier.wait()
        return function(i)

    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(wait_and_call, range(n)))


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """Let a prediction of few documents have several batches."""
    monkeypatch.setattr("skfocal._training.inference._TOKENS_AT_ONCE", 160)


def many_texts(n=32):
    X, _ = imbalanced(30, 10)
    return [f"{X[i % 40]} {i % 97} and {i % 31}" for i in range(n)]


# -- threads ---------------------------------------------------------------------------------


@SLOW_HERE
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_threads_predict_the_bits_of_one(make, data, settings, eager_switching):
    fitted = make(max_epochs=1, batch_size=20, **settings).fit(*data)
    texts = many_texts()
    expected = fitted.predict_proba(texts)
    packed = pickle.dumps(fitted)
    clear_cache()
    fresh = pickle.loads(packed)  # nothing that the first prediction makes is there yet
    for clf in (fresh, fitted):
        for proba in at_once(lambda i, clf=clf: clf.predict_proba(texts)):
            assert np.array_equal(proba, expected)


@pytest.mark.parametrize("freeze", [0, 1])
def test_threads_with_texts_of_their_own_get_their_own_answers(make, data, freeze, eager_switching):
    clf = make(max_epochs=1, batch_size=20, freeze=freeze).fit(*data)
    texts = [many_texts()[i:] for i in range(N_THREADS)]
    expected = [clf.predict_proba(some) for some in texts]
    clear_cache()
    for got, right in zip(at_once(lambda i: clf.predict_proba(texts[i])), expected, strict=True):
        assert np.array_equal(got, right)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_fits_predictions_copies_and_emptied_caches_at_once(
    make, data, eager_switching, monkeypatch, precision
):
    monkeypatch.setattr("skfocal._estimator.advice.cpu_has_bfloat16", lambda: True)
    X, y = data
    settings = {"max_epochs": 1, "batch_size": 20, "freeze": 1, "precision": precision}
    clf = make(**settings).fit(X, y)
    expected = clf.predict_proba(X)
    other = [f"{text} {i}" for i, text in enumerate(X)]
    refit = make(**settings).fit(other, y).predict_proba(X)

    def work(i):
        if i % 4 == 0:
            return make(**settings).fit(other, y).predict_proba(X)
        if i % 4 == 1:
            clear_cache()
        return (copy.deepcopy(clf) if i % 4 == 2 else clf).predict_proba(X)

    for i, proba in enumerate(at_once(work, 5)):  # the last one fits too
        assert np.array_equal(proba, expected if i % 4 else refit)


def test_a_pickle_waits_for_frozen_layers_that_compute_with_rounded_weights(
    make, data, monkeypatch
):
    monkeypatch.setattr("skfocal._estimator.advice.cpu_has_bfloat16", lambda: True)
    clf = make(max_epochs=1, freeze=1, precision="bfloat16").fit(*data)
    X = many_texts()
    expected = clf.predict_proba(X)
    run, pickled = FrozenLayers._run, []

    def run_meanwhile(self, *args):
        if not pickled:
            assert self.layers[0].attention.self.query.weight.dtype == torch.bfloat16
            pickled.append(pool.submit(pickle.dumps, clf))
            wait(pickled, 0.5)
            assert not pickled[0].done()
        return run(self, *args)

    monkeypatch.setattr(FrozenLayers, "_run", run_meanwhile)
    with ThreadPoolExecutor(1) as pool:
        np.testing.assert_array_equal(clf.predict_proba(X), expected)
        again = pickle.loads(pickled[0].result())
    np.testing.assert_array_equal(again.predict_proba(X), expected)


def test_a_store_emptied_while_it_is_filled_gives_all_that_was_asked_for():
    store = MemoryStore(limit=10**6)
    emptying = threading.Thread(target=store.clear)

    def make(rows):
        emptying.start()
        emptying.join(0.2)
        return [(np.array([i]), 0) for i in rows]

    store.fetch([b"a" * 16], lambda rows: [(np.array([7]), 0)])
    assert [array[0] for array, _ in store.fetch([b"a" * 16, b"b" * 16], make)] == [7, 1]
    emptying.join()
    assert not store.entries


def test_a_store_whose_folder_another_process_removes_meanwhile_starts_anew(tmp_path):
    store, keys = FileStore(tmp_path / "store", np.int32), [b"a" * 16, b"b" * 16]
    asked = []

    def make(rows):
        if not asked:
            shutil.rmtree(store.folder)
        asked.append(rows)
        return [(np.array([7 + i]), 0) for i in rows]

    assert [array[0] for array, _ in store.fetch(keys, make)] == [7, 8]
    assert asked == [[0], [0], [1]]
    again = FileStore(tmp_path / "store", np.int32).fetch(keys, make)
    assert [array[0] for array, _ in again] == [7, 8] and len(asked) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_writers_get_what_they_ask_for_while_others_clear_the_store(tmp_path, eager_switching):
    numbers = [*range(48), *range(24)]
    keys = [digest(i) for i in numbers]

    def write():
        for _ in range(30):
            store = FileStore(tmp_path, np.int32)
            for start in range(0, len(keys), 12):
                part = slice(start, start + 12)
                made = [(np.full(i % 5, i), i) for i in numbers[part]]
                found = store.fetch(keys[part], lambda rows, made=made: [made[i] for i in rows])
                for (array, extra), (expected, i) in zip(found, made, strict=True):
                    assert extra == i
                    np.testing.assert_array_equal(array, expected)

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write) for _ in range(2)]
        while not all(writer.done() for writer in writers):
            FileStore(tmp_path, np.int32).clear()
            time.sleep(0.001)
    for writer in writers:
        writer.result()
    store = FileStore(tmp_path, np.int32)
    store.clear()
    store.fetch(keys, lambda rows: [(np.array([numbers[i]]), 0) for i in rows])
    found = FileStore(tmp_path, np.int32).fetch(keys, pytest.fail)
    assert [array.tolist() for array, _ in found] == [[i] for i in numbers]
    store.clear()
    assert {path.suffix or path.name for path in tmp_path.iterdir()} <= {".lock", "lock"}


def test_a_store_does_not_hide_that_another_file_is_missing(tmp_path):
    asked = []

    def make(rows):
        asked.append(rows)
        (tmp_path.parent / "vocabulary").read_text()

    with pytest.raises(FileNotFoundError, match="vocabulary"):
        FileStore(tmp_path, np.int32).fetch([b"a" * 16], make)
    assert asked == [[0]]


def test_what_has_a_place_in_a_file_store_can_be_read(tmp_path, eager_switching):
    store, keys = FileStore(tmp_path, np.int32), [bytes([0, i]) * 8 for i in range(200)]
    done = threading.Event()

    def read(i):
        wrong = 0
        while not done.is_set():
            found = [entry for entry in store.find(keys) if entry is not None]
            wrong += sum(array.tolist() != [0, 1, 2, 3, 4] for array, _ in found)
        return wrong

    def write(i):
        for key in keys:
            store.fetch([key], lambda rows: [(np.arange(5), 0)])
        done.set()
        return 0

    assert at_once(lambda i: (write if i == 0 else read)(i), 3) == [0, 0, 0]


# -- processes -------------------------------------------------------------------------------


def predict_into(queue, clf, texts):
    queue.put(clf.predict_proba(texts).tobytes())


def predicted_by(process_context, clf, texts):
    """Return the bytes of what a new process predicts; fail, not wait, where it hangs."""
    queue = process_context.Queue()
    process = process_context.Process(target=predict_into, args=(queue, clf, texts))
    process.start()
    try:
        return queue.get(timeout=60)
    finally:
        process.kill()
        process.join()
        queue.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize(
    ("how", "settings"),
    [
        ("fork", {}),
        ("fork", {"freeze": 1, "predict_precision": None}),
        pytest.param("spawn", {}, marks=pytest.mark.slow),
        pytest.param("spawn", {"freeze": 1, "predict_precision": None}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_new_process_predicts_the_same_bits(make, data, how, settings, monkeypatch):
    monkeypatch.undo()  # batches as in a process that imports anew
    clf, texts = make(max_epochs=1, batch_size=20, **settings).fit(*data), many_texts()
    expected = clf.predict_proba(texts)
    context = multiprocessing.get_context(how)
    assert predicted_by(context, clf, texts) == expected.tobytes()


@pytest.fixture
def two_threads():
    n = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(n)


@pytest.mark.filterwarnings("ignore:The head of model")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_does_not_wait_for_the_threads_of_its_parent(
    make, data, two_threads, tmp_path
):
    # Wide enough for torch to use threads, which a forked process does not have.
    sizes = {"vocab_size": wordpiece(tmp_path), "hidden_size": 256, "intermediate_size": 1024}
    with torch.random.fork_rng():
        BertForSequenceClassification(BertConfig(**TINY | sizes)).save_pretrained(tmp_path)
    clf = make(model=str(tmp_path), max_epochs=1, batch_size=40).fit(*data)
    expected = clf.predict_proba(data[0])
    got = predicted_by(multiprocessing.get_context("fork"), clf, data[0])
    got = np.frombuffer(got).reshape(expected.shape)
    np.testing.assert_allclose(got, expected, atol=1e-6)  # another number of threads
    assert torch.get_num_threads() == 2


@pytest.mark.slow
def test_workers_start_anew_after_the_caches_were_cleared(make, data, monkeypatch):
    monkeypatch.undo()  # batches as in the workers
    X, y = data
    search = GridSearchCV(
        make(max_epochs=1, freeze=1), {"gamma": [0, 2]}, cv=2, scoring="neg_log_loss"
    )
    for i in range(2):
        texts = [f"{text} for time {i}" for text in X]
        scores = []
        for n_jobs in (2, 2, 1):
            search.set_params(n_jobs=n_jobs).fit(texts, y)
            scores.append(search.cv_results_["mean_test_score"].tolist())
            clear_cache()
        assert scores[0] == scores[1] == scores[2]


@pytest.mark.slow
def test_cleared_caches_leave_no_files_of_workers(make, data):
    search = GridSearchCV(
        make(max_epochs=1, freeze=1), {"gamma": [0, 2]}, cv=2, n_jobs=2, refit=False
    )
    search.fit(*data)
    kept = {path.name.split("-")[0] for path in shared_folder().iterdir()}
    assert {"frozen", "tokens"} <= kept
    clear_cache()
    left = {path.name.split(".")[-1] for path in shared_folder().glob("*-*/**/*")}
    assert left <= {"lock"}
    search.fit(*data)  # the workers notice


# -- leaks -----------------------------------------------------------------------------------


def held(process):
    """Return the descriptors, threads, temporary files and bytes that this process holds."""
    gc.collect()
    files = sorted(str(path) for path in shared_folder().parent.parent.rglob("*"))
    return process.num_fds(), process.num_threads(), files, process.memory_info().rss


@pytest.mark.slow
def test_two_hundred_fits_leak_no_files_no_threads_and_no_memory(make, monkeypatch, tmp_path):
    psutil = pytest.importorskip("psutil")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    X, y = imbalanced(6, 2)
    kinds = [
        {},
        {"freeze": 1, "dropout": 0.1},
        {"train_split": 0.5, "early_stopping": True, "alpha": "balanced"},
        {"predict_precision": "int8", "sampler": "balanced", "verbose": 0},
    ]

    def fit_all(n):
        for i in range(n):
            clf = make(max_epochs=1, **kinds[i % 4]).fit(X, y)
            clf.predict(X)
            pickle.loads(pickle.dumps(clf)).predict_proba(X[:2])

    process = psutil.Process()
    fit_all(60)
    before = held(process)
    fit_all(200)
    after = held(process)
    assert after[:3] == before[:3]
    assert after[3] < before[3] + 30_000_000
