"""Documents that lie on the disk are read some at a time, and answered as a list of them is."""

import gc
import os
import subprocess
import sys
import tracemalloc
import weakref

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import imbalanced
from sklearn.model_selection import GroupShuffleSplit, cross_val_predict
from test_docs import DOCS, blocks_of

from skfocal import BertFocalClassifier
from skfocal._data import texts as _text

datasets = pytest.importorskip("datasets")

QUICK = {"max_epochs": 1, "batch_size": 20}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A memory-mapped data set of texts and labels."""
    X, y = imbalanced(60, 20)
    folder = tmp_path_factory.mktemp("rows")
    table = datasets.Dataset.from_dict({"text": list(X), "label": [int(c == "spam") for c in y]})
    table.save_to_disk(folder)
    return datasets.Dataset.load_from_disk(folder)


@pytest.fixture(scope="module")
def fitted(tiny, rows):
    """A classifier that was fitted on lists."""
    clf = BertFocalClassifier(tiny, lr=3e-3, random_state=0, **QUICK)
    return clf.fit(rows["text"][:], rows["label"][:])


CONTAINERS = {
    "data set": lambda rows: rows.select_columns("text"),
    "column": lambda rows: rows["text"],
    "table": lambda rows: rows.data.table.select(["text"]),
    "chunked array": lambda rows: rows.data.table["text"],
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_fit_and_its_answers_are_those_of_a_list(make, rows, fitted, name):
    X = CONTAINERS[name](rows)
    clf = make(**QUICK).fit(X, rows["label"])
    for key, value in fitted.net_.state().items():
        assert np.array_equal(clf.net_.state()[key], value), key
    np.testing.assert_array_equal(clf.predict_proba(X), fitted.predict_proba(rows["text"][:]))
    assert clf.classes_.tolist() == [0, 1]


def test_held_out_documents_are_read_where_they_lie(make, rows):
    settings = {"train_split": 0.3, "early_stopping": True, "decision": "tuned", "batch_size": 20}
    ours = make(**settings).fit(rows["text"], rows["label"])
    theirs = make(**settings).fit(rows["text"][:], rows["label"][:])
    assert ours.history_[:, "valid_score"] == theirs.history_[:, "valid_score"]


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function"])
def test_an_iterator_of_chunks_is_answered_in_order(fitted, rows, method):
    texts = rows["text"][:]
    answer = getattr(fitted, method)
    chunks = (texts[i : i + 7] for i in range(0, len(texts), 7))
    np.testing.assert_allclose(answer(chunks), answer(texts), rtol=1e-5)
    mixed = iter([rows["text"][:30], pa.array(texts[30:31]), np.array(texts[31:], dtype=object)])
    np.testing.assert_allclose(answer(mixed), answer(texts), rtol=1e-5)


def test_a_stream_is_predicted_and_not_fitted(fitted, make, rows):
    stream = rows.select_columns("text").to_iterable_dataset()
    np.testing.assert_array_equal(fitted.predict(stream), fitted.predict(rows["text"][:]))
    with pytest.raises(TypeError, match="partial_fit"):
        make().fit(stream, rows["label"])


def test_errors_name_the_chunk_and_the_row(fitted):
    with pytest.raises(TypeError, match="Chunk 1 of X: .*row 2"):
        fitted.predict(iter([["a"], ["b", "c", None]]))
    with pytest.raises(TypeError, match=r"itertools.islice\(X"):
        fitted.predict(text for text in ["one document", "and another"])
    with pytest.raises(ValueError, match="holds no document"):
        fitted.predict(iter([]))
    offsets, data = pa.array([0, 2, 3], pa.int32()).buffers()[1], pa.py_buffer(b"ok\xff")
    broken = pa.StringArray.from_buffers(2, offsets, data)
    with pytest.raises(ValueError, match="Chunk 1 of X: X must hold text in UTF-8. .* 0 to 1"):
        fitted.predict(iter([["a"], broken]))
    with pytest.raises(ValueError, match="select_columns"):
        fitted.predict(datasets.Dataset.from_dict({"a": ["x"], "b": ["y"], "c": ["z"]}))


@pytest.mark.parametrize("name", CONTAINERS)
def test_rows_in_any_order_are_read_together(rows, name):
    texts, order = rows["text"][:], np.random.RandomState(0).permutation(len(rows))[:50]
    some = _text.take(_text.as_texts(CONTAINERS[name](rows)), order)
    assert some[:] == [texts[i] for i in order]
    assert some[-7:3:-2] == [texts[i] for i in order[-7:3:-2]]
    gone = rows.data.table["text"].combine_chunks().take(pa.array([0, 1, None]))
    with pytest.raises(TypeError, match="in row 2"):
        _text.take(_text.as_texts(gone), [1, 2])[:]


def test_a_chunk_is_let_go_before_the_next_is_read(fitted):
    alive = weakref.WeakSet()

    class Chunk(list):
        """A list that can be watched."""

        __hash__ = object.__hash__

    def chunks():
        for word in "abc":
            gc.collect()
            assert not alive
            alive.add(chunk := Chunk([word]))
            yield chunk
            del chunk

    assert len(fitted.predict(chunks())) == 3


def test_names_of_columns_are_checked_in_every_form(make, rows):
    X = rows.data.table.select(["text"]).append_column("more", rows.data.table["text"])
    clf = make(**QUICK).fit(X, rows["label"])
    other = X.select(["more", "text"])
    for wrong in (other, iter([other]), iter(other.to_batches())):
        with pytest.raises(ValueError, match="feature names should match"):
            clf.predict(wrong)
    assert np.array_equal(clf.predict(iter(X.to_batches())), clf.predict(X))


def test_no_pass_reads_much_at_once(make, monkeypatch):
    asked = []

    class Column(_text.Sequence):
        def __len__(self):
            return 2500

        def __getitem__(self, rows):
            n = len(range(*rows.indices(2500))) if isinstance(rows, slice) else 1
            asked.append(n)
            return ["some text"] * n

    monkeypatch.setattr("skfocal._estimator.fitted_model._SLICE", 512)
    monkeypatch.setattr("skfocal._data.tokens.CACHED_DOCUMENTS", 10)
    clf = make(max_epochs=1, batch_size=512).fit(Column(), np.arange(2500) % 2)
    clf.predict(Column())
    assert sum(asked) >= 5000
    assert max(asked) <= 1024


def test_a_prediction_takes_memory_for_its_answers_alone(fitted, monkeypatch):
    monkeypatch.setattr("skfocal._estimator.fitted_model._SLICE", 128)

    def peak(n):
        chunks = ([f"win money {i} {j}" for j in range(128)] for i in range(n))
        tracemalloc.start()
        try:
            fitted.predict(chunks)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(2)  # what is made once
    few, many = peak(4), peak(24)
    assert many - few < 20 * 128 * 40  # 8 bytes a label, and no 70 of a str


@pytest.mark.filterwarnings("ignore:.*are unknown to the model")
def test_a_fit_holds_few_texts_at_once(make, monkeypatch):
    monkeypatch.setattr("skfocal._data.tokens.CACHED_DOCUMENTS", 10)
    monkeypatch.setattr("skfocal._data.tokens._AT_ONCE", 64)

    class Column(_text.Sequence):
        def __init__(self, n):
            self.n = n

        def __len__(self):
            return self.n

        def __getitem__(self, rows):
            return [f"{i:04d}" * 500 for i in range(*rows.indices(self.n))]

    def peak(n):
        tracemalloc.start()
        try:
            make(max_epochs=1, batch_size=300, max_length=4).fit(Column(n), np.arange(n) % 2)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)  # what is made once
    few, many = peak(300), peak(1100)
    assert many - few < 800 * 500  # of 2000 bytes a text


def test_pairs_are_two_columns(make, rows):
    X, y = rows["text"][:], rows["label"][:]
    second = [text[::-1] for text in X]
    table = datasets.Dataset.from_dict({"a": X, "b": second})
    expected = make(**QUICK).fit(list(zip(X, second, strict=True)), y)
    ours = make(**QUICK).fit(table, y)
    answers = expected.predict_proba(list(zip(X, second, strict=True)))
    assert ours.feature_names_in_.tolist() == ["a", "b"]
    for pairs in (table, table.data.table, table.to_iterable_dataset()):
        np.testing.assert_array_equal(ours.predict_proba(pairs), answers)
    with pytest.raises(ValueError, match="must hold pairs of texts"):
        ours.predict(table["a"])
    with pytest.raises(ValueError, match="feature names should match"):
        ours.predict(table.rename_column("b", "c"))


def test_a_view_of_rows_reads_these_alone():
    texts = _text.as_texts(pa.chunked_array([["a", "b"], ["c", None, "e"]]))
    some = _text.take(texts, np.array([4, 0, 2]))
    assert list(some) == some[:] == ["e", "a", "c"]
    assert some[-1] == "c" and some[1:] == ["a", "c"] and texts[::4] == ["a", "e"]
    again = _text.take(some, [2, 0])
    assert len(again) == 2 and again[0] == "c" and list(_text.as_texts(again)) == ["c", "e"]
    with pytest.raises(TypeError, match="row 3"):
        texts[2:]
    with pytest.raises(TypeError, match="row 3"):
        list(_text.take(texts, [0, 3]))
    assert _text.take(["a", "b", "c"], [2, 0]) == ["c", "a"]


def test_a_missing_text_ends_a_fit_with_its_row(make):
    clf = make()
    with pytest.raises(TypeError, match=r"Got NoneType in row 70: None\. Fill or drop"):
        clf.fit(pa.array(["some text"] * 70 + [None]), np.arange(71) % 2)
    assert not hasattr(clf, "net_")


def test_labels_weights_and_groups_are_columns_too(make, rows):
    n = len(rows)
    table = rows.add_column("weight", np.linspace(0.5, 2, n)).add_column("group", np.arange(n) // 4)
    settings = {"train_split": GroupShuffleSplit(1, test_size=0.3, random_state=0), **QUICK}

    def fitted(read):
        columns = [read(table[name]) for name in ("text", "label", "weight", "group")]
        return make(**settings).fit(*columns).predict_proba(table["text"])

    np.testing.assert_array_equal(fitted(lambda column: column), fitted(lambda column: column[:]))
    with pytest.raises(TypeError, match=r"y must be a column, for example y\['label'\]"):
        make().fit(rows["text"], rows)


def test_a_column_of_lists_is_several_labels_a_document(make):
    labels = [["a", "b"], *[["a"], ["b"]] * 7, ["b"]]
    rows = datasets.Dataset.from_dict({"text": ["some text"] * 16, "labels": labels})
    clf = make(**QUICK).fit(rows["text"], rows["labels"])
    assert clf.classes_.tolist() == ["a", "b"]
    X, indicator = rows["text"][:], np.array([[1, 1], *[[1, 0], [0, 1]] * 7, [0, 1]])
    expected = make(**QUICK).fit(X, indicator)
    np.testing.assert_array_equal(clf.predict_proba(X), expected.predict_proba(X))
    right = (clf.predict(X) == indicator).all(axis=1)
    assert clf.score(rows["text"], rows["labels"]) == right.mean()


def test_chunks_to_train_on_and_documents_to_judge_are_columns(make, rows):
    ours, theirs = make(**QUICK), make(**QUICK)
    for start in (0, 40):
        some = rows.select(range(start, start + 40))
        ours.partial_fit(some["text"], some["label"], classes=[0, 1])
        theirs.partial_fit(some["text"][:], some["label"][:], classes=[0, 1])
    answers = [clf.predict_proba(rows["text"]) for clf in (ours, theirs)]
    np.testing.assert_array_equal(*answers)
    report = ours.report(rows["text"], rows["label"], n_hardest=3)
    assert [rows["text"][i] for i in report.hardest["row"]] == report.hardest["document"]


@pytest.mark.parametrize("name", ["column", "table", "chunked array"])
def test_folds_are_taken_of_columns_and_of_arrow(make, rows, name):
    folds = [
        cross_val_predict(make(**QUICK), X, rows["label"][:], cv=2)
        for X in (CONTAINERS[name](rows), rows["text"][:])
    ]
    np.testing.assert_array_equal(*folds)


def test_a_dict_of_columns_is_refused_with_what_to_give(make, rows):
    with pytest.raises(TypeError, match=r"Got DatasetDict: give .* X\['train'\]"):
        make().fit(datasets.DatasetDict({"train": rows.select_columns("text")}), rows["label"])


RUN_RECIPE = """
import sys, ray, predictor
ray.init(num_cpus=3, include_dashboard=False)
predictor.predict_files(*sys.argv[1:])
"""


@pytest.mark.slow
def test_ray_data_predicts_files(fitted, rows, tmp_path):
    pytest.importorskip("ray")
    folder = str(tmp_path / "classifier")
    block = next(block for block in blocks_of(DOCS / "big-data.md") if "class Predictor" in block)
    module = "from skfocal import BertFocalClassifier\n\n\n" + block
    (tmp_path / "predictor.py").write_text(module)
    fitted.save_pretrained(folder)
    table = pa.table({"id": np.arange(len(rows)), "text": rows["text"][:]})
    (tmp_path / "in").mkdir()
    for i in range(4):
        pq.write_table(table.slice(i * 20, 20), tmp_path / "in" / f"{i}.parquet")
    # In a process of its own: one that Ray was shut down in starts no pool of its workers again.
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", RUN_RECIPE, tmp_path / "in", tmp_path / "out", folder],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = pq.read_table(tmp_path / "out").sort_by("id")
    assert found["id"].to_pylist() == list(range(len(rows)))
    expected = BertFocalClassifier.from_pretrained(folder).predict(rows["text"][:])
    assert found["predicted"].to_pylist() == expected.tolist()
