"""Documents that lie on the disk are read some at a time, and answered as a list of them is."""

import importlib.util
import sys
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import imbalanced
from test_docs import DOCS, blocks_of

from skfocal import BertFocalClassifier, _text, classifier

datasets = pytest.importorskip("datasets")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A memory-mapped data set of texts and labels."""
    X, y = imbalanced(60, 20)
    folder = tmp_path_factory.mktemp("rows")
    table = datasets.Dataset.from_dict({"text": list(X), "label": [int(c == "spam") for c in y]})
    table.save_to_disk(folder)
    return datasets.Dataset.load_from_disk(folder)


@pytest.fixture
def fitted(make, rows):
    """A classifier that was fitted on lists."""
    return make().fit(rows["text"][:], rows["label"][:])


CONTAINERS = {
    "data set": lambda rows: rows.select_columns("text"),
    "column": lambda rows: rows["text"],
    "table": lambda rows: rows.data.table.select(["text"]),
    "chunked array": lambda rows: rows.data.table["text"],
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_fit_and_its_answers_are_those_of_a_list(make, rows, fitted, name):
    X = CONTAINERS[name](rows)
    clf = make().fit(X, rows["label"])
    for key, value in fitted.net_.state().items():
        assert np.array_equal(clf.net_.state()[key], value), key
    np.testing.assert_array_equal(clf.predict_proba(X), fitted.predict_proba(rows["text"][:]))
    assert clf.classes_.tolist() == [0, 1]


def test_held_out_documents_are_read_where_they_lie(make, rows):
    settings = {"train_split": 0.3, "early_stopping": True, "decision": "tuned"}
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
    with pytest.raises(TypeError, match=r"itertools.batched\(X"):
        fitted.predict(text for text in ["one document", "and another"])
    with pytest.raises(ValueError, match="holds no document"):
        fitted.predict(iter([]))
    with pytest.raises(ValueError, match="select_columns"):
        fitted.predict(datasets.Dataset.from_dict({"a": ["x"], "b": ["y"], "c": ["z"]}))


def test_no_pass_reads_much_at_once(make, monkeypatch):
    asked = []

    class Column(_text.Sequence):
        def __len__(self):
            return 5000

        def __getitem__(self, rows):
            n = len(range(*rows.indices(5000))) if isinstance(rows, slice) else 1
            asked.append(n)
            return ["some text"] * n

    monkeypatch.setattr(classifier, "_CHUNK", 512)
    monkeypatch.setattr("skfocal._tokens.CACHED_DOCUMENTS", 10)
    clf = make(max_epochs=1, batch_size=512).fit(Column(), np.arange(5000) % 2)
    clf.predict(Column())
    assert sum(asked) >= 10_000
    assert max(asked) <= 1024


def test_a_prediction_takes_memory_for_its_answers_alone(fitted, monkeypatch):
    monkeypatch.setattr(classifier, "_CHUNK", 256)

    def peak(n):
        chunks = ([f"win money {i} {j}" for j in range(256)] for i in range(n))
        tracemalloc.start()
        try:
            fitted.predict(chunks)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(2)  # what is made once
    few, many = peak(4), peak(24)
    assert many - few < 20 * 256 * 40  # 8 bytes a label, and no 70 of a str


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # within Ray itself
def test_ray_data_predicts_files(fitted, rows, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    folder, module = str(tmp_path / "classifier"), tmp_path / "predictor.py"
    block = next(block for block in blocks_of(DOCS / "big-data.md") if "class Predictor" in block)
    module.write_text("from skfocal import BertFocalClassifier\n\n\n" + block)
    fitted.save_pretrained(folder)
    table = pa.table({"id": np.arange(len(rows)), "text": rows["text"][:]})
    (tmp_path / "in").mkdir()
    for i in range(4):
        pq.write_table(table.slice(i * 20, 20), tmp_path / "in" / f"{i}.parquet")
    environment = {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    ray.init(num_cpus=3, include_dashboard=False, runtime_env={"env_vars": environment})
    try:
        spec = importlib.util.spec_from_file_location("predictor", module)
        predictor = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "predictor", predictor)
        spec.loader.exec_module(predictor)
        predictor.predict_files(str(tmp_path / "in"), str(tmp_path / "out"), folder)
    finally:
        ray.shutdown()
    found = pq.read_table(tmp_path / "out").sort_by("id")
    assert found["id"].to_pylist() == list(range(len(rows)))
    expected = BertFocalClassifier.from_pretrained(folder).predict(rows["text"][:])
    assert found["predicted"].to_pylist() == expected.tolist()
