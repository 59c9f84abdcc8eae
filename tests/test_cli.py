"""The command, from files to files, as somebody without Python uses it."""

import bz2
import codecs
import contextlib
import csv
import gzip
import html
import io
import json
import lzma
import os
import re
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from conftest import imbalanced
from filelock import FileLock
from sklearn.metrics import classification_report
from sklearn.preprocessing import MultiLabelBinarizer
from typer.testing import CliRunner

import skfocal
from skfocal import BertFocalClassifier, EffectiveNumber, Windows
from skfocal._training.net import FocalNet
from skfocal.cli import app
from skfocal.cli._tables import Format, read_columns, write_columns

X, y = imbalanced()
SETTINGS = {"max_epochs": 4, "lr": 0.01, "random_state": 0, "batch_size": 8}
SET = [f"--set={name}={value}" for name, value in SETTINGS.items()]


def run(*args, code=0):
    result = CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def write(path, texts=X, labels=y):
    write_columns(path, {"text": list(texts), "label": [str(label) for label in labels]})
    return path


@pytest.fixture(scope="module")
def fitted(tiny, tmp_path_factory):
    """A folder that the command has written, and the file that it was trained on."""
    folder = tmp_path_factory.mktemp("cli")
    data = write(folder / "train.csv")
    run("fit", data, "--output", folder / "model", "--model", tiny, *SET, "--quiet")
    return folder / "model", data


@pytest.mark.parametrize("end", [".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"])
def test_each_kind_of_file_comes_back_as_it_was_written(tmp_path, end):
    texts = ['a "quoted" one', "two\nlines\ttab, comma", "", "\U0001f600 \u05e9", "'"]
    path = write(tmp_path / f"data{end}", texts, "abcde")
    assert read_columns(path, ["text"], "label") == (texts, list("abcde"))
    assert read_columns(path, ["text"]) == (texts, [])


def test_fit_writes_what_python_would_have_fitted(fitted, tiny):
    folder, _ = fitted
    clf = BertFocalClassifier.from_pretrained(folder)
    same = BertFocalClassifier(tiny, **SETTINGS).fit(X, y)
    assert (clf.predict_proba(X) == same.predict_proba(X)).all()
    assert clf.score(X, y) == 1.0


@pytest.mark.parametrize("end", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_predict_answers_each_row_in_order(fitted, tmp_path, end):
    folder, _ = fitted
    data = write(tmp_path / f"new{end}", X[::-1], y[::-1])
    run("predict", folder, data, "--output", tmp_path / f"out{end}", "--proba")
    texts, labels = read_columns(tmp_path / f"out{end}", ["label"], "proba:spam")
    clf = BertFocalClassifier.from_pretrained(folder)
    assert texts == clf.predict(X[::-1]).tolist()
    assert [float(p) for p in labels] == clf.predict_proba(X[::-1])[:, 1].tolist()


def test_predict_without_a_file_prints_csv_and_nothing_else(fitted):
    folder, data = fitted
    result = run("predict", folder, data)
    assert list(csv.reader(result.stdout.splitlines())) == [["label"], *[[label] for label in y]]
    assert result.stderr == ""


def test_several_labels_of_a_model_from_python_are_joined(make, fitted, tmp_path):
    labels = [{"ham", "long"} if len(x) > 40 else {label} for x, label in zip(X, y, strict=True)]
    clf = make(max_epochs=4, lr=0.01, alpha="balanced").fit(X, labels)
    clf.save_pretrained(tmp_path / "several")
    lines = run("predict", tmp_path / "several", fitted[1]).stdout.splitlines()
    names = clf.classes_
    assert lines[1:] == [";".join(names[row > 0]) for row in clf.predict(X)]
    assert any(";" in line for line in lines)


def test_a_model_of_several_labels_is_evaluated_and_reported(make, tmp_path):
    labels = [["ham", "long"] if len(x) > 40 else [label] for x, label in zip(X, y, strict=True)]
    labels[0] = []
    clf = make(max_epochs=4, lr=0.01, alpha="balanced").fit(X, labels)
    clf.save_pretrained(tmp_path / "several")
    data = write(tmp_path / "test.csv", X, [";".join(row) for row in labels])
    names = clf.classes_.tolist()
    truth = MultiLabelBinarizer(classes=names).fit_transform(labels)
    settings = {"target_names": names, "zero_division": 0.0}
    expected = classification_report(truth, clf.predict(X), output_dict=True, **settings)
    assert json.loads(run("evaluate", tmp_path / "several", data, "--json").stdout) == expected
    printed = run("evaluate", tmp_path / "several", data).stdout
    assert printed.strip() == classification_report(
        truth, clf.predict(X), digits=3, **settings
    ).strip()  # fmt: skip
    write(tmp_path / "bars.csv", X, [" | ".join(row) for row in labels])
    with_bars = ["--label-separator", "|", "--json"]
    again = run("evaluate", tmp_path / "several", tmp_path / "bars.csv", *with_bars)
    assert json.loads(again.stdout) == expected
    run("report", tmp_path / "several", data, "--output", tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert all(name in page for name in names)
    result = run(
        "evaluate", tmp_path / "several", write(tmp_path / "x.csv", X, ["x"] * len(X)), code=1
    )
    assert "must be a label of the model, 'ham', 'long', 'spam'. Got 'x'" in result.stderr


def test_evaluate_gives_the_numbers_of_scikit_learn(fitted, tmp_path):
    folder, _ = fitted
    labels = ["ham" if i < 5 else label for i, label in enumerate(y)]
    data = write(tmp_path / "test.csv", X, labels)
    predicted = BertFocalClassifier.from_pretrained(folder).predict(X)
    expected = classification_report(labels, predicted, output_dict=True)
    found = json.loads(run("evaluate", folder, data, "--json").stdout)
    assert 0.5 < found.pop("balanced accuracy") < 1
    assert found == expected
    shown = run("evaluate", folder, data).stdout
    assert classification_report(labels, predicted, digits=3) in shown


# The three kinds are read as those that `predict` reads; drawing the page takes seconds.
@pytest.mark.parametrize(
    "end", [".csv", *(pytest.param(end, marks=pytest.mark.slow) for end in (".jsonl", ".parquet"))]
)
def test_report_writes_the_page_of_the_report(fitted, tmp_path, end):
    folder, _ = fitted
    labels = ["ham" if i < 5 else label for i, label in enumerate(y)]
    texts = ["<script>alert(1)</script>", *X[1:]]
    data = write(tmp_path / f"test{end}", texts, labels)
    result = run("report", folder, data, "--output", tmp_path / "r.html", "--hardest", 3)
    assert result.stdout == ""
    report = BertFocalClassifier.from_pretrained(folder).report(texts, labels, n_hardest=3)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert f"40 documents, accuracy {report.overall['accuracy']:.3f}" in result.stderr
    for row, document in zip(report.hardest["row"], report.hardest["document"], strict=True):
        assert f"row <b>{row}</b>" in page and html.escape(document) in page
    assert page.split("Hardest documents")[1].count('class="facts"') == 3 and "<script" not in page


@pytest.fixture(scope="module")
def other(tiny, fitted):
    """A folder with a model that was fitted for less time, and with a class more."""
    labels = ["eggs" if i < 5 else label for i, label in enumerate(y)]
    clf = BertFocalClassifier(tiny, **{**SETTINGS, "max_epochs": 1}).fit(X, labels)
    return clf.save_pretrained(fitted[0].parent / "other") or fitted[0].parent / "other"


def test_compare_prints_and_writes_what_python_does(fitted, other, tmp_path):
    folder, data = fitted
    result = run("compare", folder, other, data, "--output", tmp_path / "c.html")
    a, b = map(BertFocalClassifier.from_pretrained, (folder, other))
    expected = skfocal.compare_classifiers(a, b, X, y, names=("model", "other"))
    assert result.stdout == f"{expected}\n" and "McNemar" in result.stdout
    assert result.stderr == f"{tmp_path / 'c.html'}: 40 documents\n"
    assert "other compared with model" in (tmp_path / "c.html").read_text()
    alike = run("compare", folder, folder, data).stdout
    assert alike.startswith("A: BertFocalClassifier") and "p = 1\n" in alike


def test_compare_refuses_what_it_cannot_use(fitted, other, tmp_path):
    strange = write(tmp_path / "x.csv", labels=["bacon", *y[1:]])
    result = run("compare", fitted[0], other, strange, code=1)
    assert "must be a label of the model, 'ham', 'spam', 'eggs'. Got 'bacon'" in result.stderr
    result = run("compare", fitted[0], other, fitted[1], "--output", tmp_path, code=1)
    assert "must be a file in a folder that exists" in result.stderr
    eggs = write(tmp_path / "eggs.csv", labels=["eggs", *y[1:]])
    assert "40 documents, 3 classes" in run("compare", fitted[0], other, eggs).stdout


def test_report_marks_words_if_asked_to(fitted, tmp_path):
    folder, data = fitted
    run("report", folder, data, "--output", tmp_path / "r.html", "--hardest", 2, "--explain")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    clf = BertFocalClassifier.from_pretrained(folder)
    found = clf.report(X, y, n_hardest=2, explain=True).explanation
    for document in found:
        for word in document.strongest(1):
            assert re.search(rf'<mark class="(for|against)3" title="[^"]+">{word}</mark>', page)


def test_report_refuses_what_it_cannot_use(fitted, tmp_path):
    folder, data = fitted
    report = ["report", folder, data, "--output"]
    for output in (tmp_path, tmp_path / "none" / "r.html"):
        message = "must be a file in a folder that exists"
        assert message in run(*report, output, code=1).stderr
    unknown = write(tmp_path / "b.csv", ["x", "y"], ["ham", "eggs"])
    result = run("report", folder, unknown, "--output", tmp_path / "r.html", code=1)
    assert "Got 'eggs'" in result.stderr
    short = write(tmp_path / "b.csv", ["x", "y"], ["ham", "spam"])
    with short.open("a") as file:
        file.write("one cell\n")
    result = run("report", folder, short, "--output", tmp_path / "r.html", code=1)
    assert "b.csv, line 4: 2 cells are needed" in result.stderr
    assert not (tmp_path / "r.html").exists()
    run("report", folder, data, code=2)  # no --output
    run(*report, tmp_path / "r.html", "--hardest", -1, code=2)


def test_labels_of_numbers_are_found_again_in_a_csv_file(tiny, tmp_path):
    data = tmp_path / "data.jsonl"
    rows = [{"t": x, "y": int(label == "spam")} for x, label in zip(X, y, strict=True)]
    data.write_text("\n".join(map(json.dumps, rows)))
    columns = ["--text-column", "t", "--label-column", "y"]
    run("fit", data, "--output", tmp_path / "m", "--model", tiny, *SET, "--quiet", *columns)
    assert BertFocalClassifier.from_pretrained(tmp_path / "m").classes_.tolist() == [0, 1]
    test = write(tmp_path / "test.csv", X, [int(c == "spam") for c in y])
    assert json.loads(run("evaluate", tmp_path / "m", test, "--json").stdout)["accuracy"] == 1.0


# -- files as people have them ---------------------------------------------------------------

ROWS = [("Grüße, alle", "ham"), ("free cash; now\ttab", "spam"), ('a "quoted"\r\nletter', "ham")]


def cells(rows, delimiter, index=False, end="\r\n"):
    """Return a CSV file's text, with the index of a frame as its first column on request."""
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, lineterminator=end)
    writer.writerow([""] * index + ["text", "label"])
    writer.writerows([i] * index + list(row) for i, row in enumerate(rows))
    return file.getvalue()


FILES = {
    "Excel, Unicode text": ("a.tsv", cells(ROWS, "\t").encode("utf-16")),
    "Excel, UTF-16 and semicolons": ("a.csv", cells(ROWS, ";").encode("utf-16")),
    "Excel, CSV UTF-8 in Europe": ("a.csv", cells(ROWS, ";").encode("utf-8-sig")),
    "a line for Excel": ("a.csv", ("sep=;\r\n" + cells(ROWS, ";")).encode("utf-8-sig")),
    "a line for Excel, of a bar": ("a.csv", ('"sep=#"\n' + cells(ROWS, "#")).encode()),
    "big-endian": ("a.csv", codecs.BOM_UTF16_BE + cells(ROWS, ",").encode("utf-16-be")),
    "UTF-32": ("a.csv", cells(ROWS, ",").encode("utf-32")),
    "pandas with an index": ("a.csv", cells(ROWS, ",", index=True, end="\n").encode()),
    "pandas, tabs in .csv": ("a.csv", cells(ROWS, "\t", index=True, end="\n").encode()),
    "bars": ("a.csv", cells(ROWS, "|").encode()),
    "gzip": ("a.csv.gz", gzip.compress(cells(ROWS, ";").encode())),
    "bzip2": ("a.tsv.bz2", bz2.compress(cells(ROWS, "\t").encode())),
    "xz of UTF-16": ("A.CSV.XZ", lzma.compress(cells(ROWS, ",").encode("utf-16"))),
    "JSON array": ("a.json", json.dumps([{"text": t, "label": y} for t, y in ROWS]).encode()),
    "JSON array in UTF-16": (
        "a.json",
        json.dumps([{"text": t, "label": y} for t, y in ROWS], ensure_ascii=False).encode("utf-16"),
    ),
    "JSON lines in UTF-16": (
        "a.jsonl",
        "\n".join(json.dumps({"text": t, "label": y}) for t, y in ROWS).encode("utf-16"),
    ),
    "JSON lines, gzip": (
        "a.jsonl.gz",
        gzip.compress("\n".join(json.dumps({"text": t, "label": y}) for t, y in ROWS).encode()),
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_as_people_have_them_are_read_as_they_are(tmp_path, kind):
    name, content = FILES[kind]
    (tmp_path / name).write_bytes(content)
    assert read_columns(tmp_path / name, ["text"], "label") == (
        [text for text, _ in ROWS],
        [label for _, label in ROWS],
    )


def test_other_encodings_are_asked_for_and_taken(tiny, tmp_path):
    text = cells([("Grüße", "ham"), ("dinero € gratis", "spam")] * 6, ";")
    (tmp_path / "a.csv").write_bytes(text.encode("cp1252"))
    fit = ["fit", tmp_path / "a.csv", "--output", tmp_path / "m", "--model", tiny, *SET, "--quiet"]
    result = run(*fit, code=1)
    assert "a.csv, line 2: must be UTF-8. Say the encoding, for example --encoding" in result.stderr
    run(*fit, "--encoding", "cp1252")
    found = read_columns(tmp_path / "a.csv", ["text"], "label", form=Format("cp1252"))
    assert found[0][:2] == ["Grüße", "dinero € gratis"]
    result = run(*fit, "--encoding", "cp1253000", code=1)
    assert "must be one that Python knows, such as 'cp1252'. Got 'cp1253000'" in result.stderr
    result = run(*fit, "--encoding", "utf-16", code=1)
    assert "a.csv must be in the encoding 'utf-16'" in result.stderr


def test_a_delimiter_can_be_given(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text#label\na,b;c#ham\n")
    with pytest.raises(ValueError, match=r"one column 'text'\. Got the columns \['text#label'\]"):
        read_columns(path, ["text"], "label")
    assert read_columns(path, ["text"], "label", form=Format(delimiter="#")) == (["a,b;c"], ["ham"])
    path.write_text("text\tlabel\na\tham\n")
    assert read_columns(path, ["text"], "label", form=Format(delimiter="\\t")) == (["a"], ["ham"])
    with pytest.raises(ValueError, match=r"delimiter must be one character\. Got '::'"):
        read_columns(path, ["text"], "label", form=Format(delimiter="::"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xlsx", b"", "Save the sheet as 'CSV UTF-8'"),
        ("a.zip", b"", "Unpack it, or compress"),
        ("a.csv.gz", b"text,label", "a.csv.gz cannot be unpacked"),
        ("a.csv.xz", b"text,label", "a.csv.xz cannot be unpacked"),
        ("a.csv.gz", gzip.compress(b"text,label\nx,ham\n", mtime=0)[:-9], "cannot be unpacked"),
        ("a.json", b'{"text": "x"}', "must be an array of JSON objects. Got dict"),
        ("a.json", b'{"text": "x"}\n{"text": "y"}', "give the file the ending .jsonl"),
        ("a.json", b'[{"text": "x", "label": 1}, 5]', "object 2 has no 'text'"),
    ],
)
def test_what_cannot_be_read_says_what_to_do(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_columns(tmp_path / name, ["text"], "label")


@pytest.mark.parametrize("end", [".csv.gz", ".json", ".jsonl.xz"])
def test_answers_are_written_as_the_ending_says(fitted, tmp_path, end):
    run("predict", fitted[0], fitted[1], "--output", tmp_path / f"answers{end}")
    lines = run("predict", fitted[0], fitted[1]).stdout.splitlines()
    rows = [{"text": label, "label": label} for label in lines[1:]]
    found = read_columns(tmp_path / f"answers{end}", ["label"])[0]
    assert found == [row["label"] for row in rows]


@pytest.mark.parametrize("kind", ["separator", "lists"])
def test_fit_takes_several_labels(tiny, tmp_path, kind):
    labels = [["ham", "long"] if len(x) > 40 else [label] for x, label in zip(X, y, strict=True)]
    labels[1] = []
    if kind == "lists":
        data, options = tmp_path / "a.json", []
        rows = [{"text": x, "label": row} for x, row in zip(X, labels, strict=True)]
        data.write_text(json.dumps(rows))
    else:
        data, options = tmp_path / "a.csv", ["--label-separator", ";"]
        write(data, X, ["; ".join(row) for row in labels])
    run("fit", data, "--output", tmp_path / "m", "--model", tiny, *SET, "--quiet", *options)
    clf = BertFocalClassifier.from_pretrained(tmp_path / "m")
    same = BertFocalClassifier(tiny, **SETTINGS).fit(X, labels)
    assert clf.multilabel_ and (clf.predict_proba(X) == same.predict_proba(X)).all()


def test_fit_scores_each_epoch_on_other_data(tiny, tmp_path):
    train, test = (
        write(tmp_path / "a.csv", X[:24], y[:24]),
        write(tmp_path / "b.csv", X[24:], y[24:]),
    )
    fit = ["fit", train, "--output", tmp_path / "m", "--model", tiny, *SET, "--eval-data", test]
    result = run(*fit, "--set", "early_stopping=1", "--set", 'scoring=["f1_macro", "accuracy"]')
    clf = BertFocalClassifier.from_pretrained(tmp_path / "m")
    same = BertFocalClassifier(tiny, **SETTINGS, early_stopping=1)
    same.fit(X[:24], y[:24], eval_set=(X[24:], y[24:]))
    assert (clf.predict_proba(X) == same.predict_proba(X)).all()
    assert f"accuracy {clf.history_[-1, 'valid_accuracy']:.4f}" in result.stderr


def test_rows_that_are_left_out_are_counted_and_written(tiny, tmp_path):
    data = write(tmp_path / "a.csv")
    with data.open("a") as file:
        file.write("one cell\nno label,\n")
    fit = ["fit", data, "--output", tmp_path / "m", "--model", tiny, *SET, "--quiet"]
    bad = tmp_path / "bad.csv"
    result = run(*fit, "--skip-bad-rows", "--bad-rows", bad)
    assert f"left out: 2 of {len(X) + 2} rows" in result.stderr
    with bad.open() as file:
        rows = list(csv.DictReader(file))
    n = len(X)
    assert [row["row"] for row in rows] == [f"{data}, line {n + 2}", f"{data}, line {n + 3}"]
    assert rows[1]["problem"] == "'label' must be a label. Got nothing."
    assert "--bad-rows needs --skip-bad-rows" in run(*fit, "--bad-rows", bad, code=2).stderr


def test_no_file_that_is_read_is_written(fitted, tiny, tmp_path):
    data, more = write(tmp_path / "a.csv"), write(tmp_path / "b.csv")
    link = tmp_path / "link.csv"
    link.symlink_to(more)
    skip = ["--skip-bad-rows", "--bad-rows"]
    for args, option in {
        ("audit", data, "--test", more, *skip, more): "--bad-rows",
        ("audit", data, "--output", data): "--output",
        ("fit", data, "--output", tmp_path / "m", "--eval-data", more, *skip, link): "--bad-rows",
        ("predict", fitted[0], data, "--output", data): "--output",
        ("evaluate", fitted[0], data, *skip, data): "--bad-rows",
        ("report", fitted[0], data, "--output", data): "--output",
        ("compare", fitted[0], fitted[0], data, "--output", data): "--output",
    }.items():
        before = data.read_bytes(), more.read_bytes()
        error = " ".join(run(*args, code=2).stderr.split())
        assert f"{option} must be another file than the data" in error.replace("│ ", "")
        assert (data.read_bytes(), more.read_bytes()) == before


def test_no_two_results_are_written_to_one_file(fitted, tmp_path):
    data, page = write(tmp_path / "a.csv"), tmp_path / "page.html"
    skip = ["--skip-bad-rows", "--bad-rows", page]
    error = run("report", fitted[0], data, "--output", page, *skip, code=2).stderr
    assert "--output and --bad-rows must be two files" in " ".join(error.split())
    assert not page.exists()


def test_the_version_is_shown():
    assert run("--version").stdout == f"skfocal {skfocal.__version__}\n"


def test_shells_can_complete_the_command():
    assert "--install-completion" in run("--help").stdout


BAD = {
    "csv, a short row": ("a.csv", "text,label\nx,a\nonly\n", "a.csv, line 3: 2 cells are needed"),
    "csv, a long row": ("a.csv", "text,label\nx,a,b\n", "line 2: 2 cells are needed. Got 3"),
    "csv, after two lines in one cell": ("a.csv", 'text,label\n"x\ny",a\nz,\n', "line 4: 'label'"),
    "csv, no such column": ("a.csv", "txt,label\nx,a\n", "one column 'text'. Got the columns"),
    "csv, twice the same column": ("a.csv", "text,label,text\nx,a,b\n", "one column 'text'"),
    "csv, nothing in it": ("a.csv", "", "must have one column 'text'"),
    "csv, names alone": ("a.csv", "text,label\n", "must have a usable row"),
    "csv, an open quote": (
        "a.csv", 'text,label\ny,a\n"x,a\nz,b\n', "a.csv, the row from line 3 on: unexpected end"
    ),
    "csv, another encoding": ("a.csv", "text,label\nx,a\n\udce9,b\n", "line 3: must be UTF-8"),
    "json, half a letter": ("a.jsonl", '{"text": "x", "label": "\\ud800"}\n', "a label in Unicode"),
    "csv, no label": ("a.csv", "text,label\nx,a\ny,\n", "line 3: 'label' must be a label"),
    "json, broken": ("a.jsonl", '{"text": "x", "label": 1}\n{"text"\n', "line 2 is not JSON"),
    "json, a key missing": ("a.jsonl", '\n{"text": "x"}\n', "line 2 has no 'label'"),
    "json, no object": ("a.jsonl", "[1]\n", "line 1 has no 'text'"),
    "json, a number as text": ("a.jsonl", '{"text": 1, "label": 1}\n', "a text. Got int"),
    "json, a dict as label": ("a.jsonl", '{"text": "x", "label": {}}\n', "a label. Got dict"),
    "no Parquet": ("a.parquet", "text,label\nx,a\n", "is not a readable Parquet file"),
    "an unknown end": ("a.txt", "text\n", "must end in one of .csv, .tsv, .json, .jsonl"),
    "one class": ("a.csv", "text,label\nx,a\ny,a\n", "Got one class only: 'a'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_files_end_with_code_1_and_the_place(tiny, tmp_path, case):
    name, content, message = BAD[case]
    data = tmp_path / name
    data.write_text(content, errors="surrogateescape")
    result = run("fit", data, "--output", tmp_path / "m", "--model", tiny, code=1)
    assert message in result.stderr
    assert result.stderr.startswith("Error: ")
    assert result.stdout == ""
    assert not (tmp_path / "m").exists()


def test_rows_of_parquet_without_a_text_are_named(fitted, tmp_path):
    table = pa.table({"text": ["x", None], "label": ["ham", "spam"]})
    parquet.write_table(table, tmp_path / "a.parquet")
    result = run("predict", fitted[0], tmp_path / "a.parquet", code=1)
    assert "row 2: 'text' must be a text. Got NoneType" in result.stderr


def test_bad_rows_can_be_left_out_and_are_named(tiny, tmp_path):
    data = write(tmp_path / "a.csv")
    with data.open("a") as file:
        file.write("no label,\none cell\n")
    args = ["fit", data, "--output", tmp_path / "m", "--model", tiny, *SET, "--quiet"]
    result = run(*args, "--skip-bad-rows")
    assert result.stderr.count("left out: ") == 3  # the last one counts them
    assert "40 documents of 2 classes" in result.stderr


def test_single_settings_are_set_in_any_order(tiny, tmp_path):
    args = ["long_documents__pooling=mean", "long_documents=windows", "max_length=8"]
    args += ["alpha=effective", "alpha__beta=0.9", "early_stopping=true", "max_epochs=1"]
    folder = tmp_path / "m"
    sets = [f"--set={arg}" for arg in args]
    run("fit", write(tmp_path / "a.csv"), "--output", folder, "--model", tiny, *sets, "--quiet")
    clf = BertFocalClassifier.from_pretrained(folder)
    assert clf.long_documents == Windows(pooling="mean") and clf.alpha == EffectiveNumber(0.9)
    assert clf.early_stopping is True


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--set", "gama=1"], "--set must name a parameter, one of"),
        (["--set", "gamma"], "--set needs NAME=VALUE"),
        (["--no-such"], "No such option"),
    ],
)
def test_wrong_options_end_with_code_2(tiny, tmp_path, args, message):
    data = write(tmp_path / "a.csv")
    result = run("fit", data, "--output", tmp_path / "m", "--model", tiny, *args, code=2)
    assert message in " ".join(result.stderr.split())


def test_other_errors_end_with_code_1(fitted, tiny, tmp_path):
    data = write(tmp_path / "a.csv")
    fit = ["fit", data, "--model", tiny, "--output", tmp_path / "m"]
    assert "gamma" in run(*fit, "--set", "gamma=-1", code=1).stderr
    part = run(*fit, "--set", "loss_params__epsilon=2", code=1).stderr
    assert "loss_params__epsilon: loss_params has no parameters of its own" in part
    old = run(*fit, "--set", "stride=4", code=1).stderr
    assert "stride is now written long_documents=Windows(stride=4)" in old
    assert "cannot be loaded" in run(*fit[:2], "--model", "/none", *fit[4:], code=1).stderr
    assert "No such file" in run("fit", tmp_path / "none.csv", *fit[2:], code=1).stderr
    result = run(*fit[:-1], tmp_path, code=1)
    assert "folder must be new" in result.stderr and "epoch" not in result.stderr
    with FileLock(tmp_path / "run" / ".lock"):
        busy = run(*fit[:4], "--set", f"checkpoint={tmp_path / 'run'}", *fit[4:], code=1)
    assert busy.stderr.splitlines()[-1].startswith("Error: checkpoint=") and "in use" in busy.stderr
    assert "Error: " in run("predict", tmp_path, data, code=1).stderr
    unknown = write(tmp_path / "b.csv", ["lunch", "y", "cash"], ["ham", "eggs", "spam"])
    message = "b.csv, line 3: 'label' must be a label of the model, 'ham', 'spam'. Got 'eggs'."
    assert message in run("evaluate", fitted[0], unknown, code=1).stderr
    result = run("evaluate", fitted[0], unknown, "--json", "--skip-bad-rows")
    assert f"left out: {tmp_path}" in result.stderr
    assert json.loads(result.stdout)["macro avg"]["support"] == 2
    assert (
        "must end in one of" in run("predict", fitted[0], data, "--output", "a.txt", code=1).stderr
    )


@pytest.mark.slow
def test_the_command_is_light_until_it_works():
    code = "import sys; import skfocal.cli; print('torch' in sys.modules)"
    run_ = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run_.stdout.strip() == "False"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_sees_how_far_prediction_has_come(fitted, tmp_path):
    import pty
    import termios

    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    command = [sys.executable, "-m", "skfocal", "evaluate", *map(str, fitted)]
    run_ = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # Linux's end of a terminal
        while some := os.read(ours, 4096):
            shown += some
    os.close(ours)
    assert "balanced accuracy" in run_.communicate()[0]
    assert run_.returncode == 0
    assert b"/40 [" in shown and b" documents/s" in shown


def test_fit_shows_progress_on_standard_error(tiny, tmp_path):
    data = write(tmp_path / "a.csv")
    result = run("fit", data, "--output", tmp_path / "m", "--model", tiny, "--set=max_epochs=1")
    assert result.stdout == ""
    assert "epoch 1/1  loss" in result.stderr


BOTH = ["--text-column", "title", "--text-column", "text"]
PAIRS = [("about", text) for text in X]


def write_pairs(path):
    write_columns(path, {"title": ["about"] * len(X), "text": list(X), "label": y.tolist()})
    return path


@pytest.fixture(scope="module")
def fitted_on_pairs(tiny, tmp_path_factory):
    """The same of pairs of texts."""
    folder = tmp_path_factory.mktemp("cli-pairs")
    data = write_pairs(folder / "pairs.parquet")
    args = ["--output", folder / "model", "--model", tiny, "--set=max_epochs=1", "--quiet"]
    run("fit", data, *BOTH, *args)
    return folder / "model", data


@pytest.mark.parametrize("end", [".csv", ".jsonl", ".parquet"])
def test_pairs_of_texts_are_in_two_columns(fitted_on_pairs, tmp_path, end):
    folder, _ = fitted_on_pairs
    data = write_pairs(tmp_path / f"pairs{end}")
    assert read_columns(data, ["title", "text"], "label") == (PAIRS, y.tolist())
    run("predict", folder, data, *BOTH, "--output", tmp_path / "out.csv", "--proba")
    clf = BertFocalClassifier.from_pretrained(folder)
    answers, chances = read_columns(tmp_path / "out.csv", ["label"], "proba:spam")
    assert answers == clf.predict(PAIRS).tolist()
    assert [float(p) for p in chances] == pytest.approx(clf.predict_proba(PAIRS)[:, 1].tolist())


def test_pairs_are_refused_where_one_text_is_asked_for_and_three_texts_always(fitted_on_pairs):
    folder, data = fitted_on_pairs
    assert "one text per document" in run("predict", folder, data, code=1).output
    third = ["--text-column", "label"]
    assert "one column or two" in run("predict", folder, data, *BOTH, *third, code=1).output


def test_report_takes_pairs_and_can_leave_out_bad_rows(fitted_on_pairs, tmp_path):
    data, page = write_pairs(tmp_path / "a.csv"), tmp_path / "r.html"
    with data.open("a") as file:
        file.write("one cell\n")
    report = ["report", fitted_on_pairs[0], data, *BOTH, "--output", page]
    result = run(*report, "--skip-bad-rows")
    assert "left out: " in result.stderr and "40 documents" in result.stderr
    assert "about | " in page.read_text()


def test_outputs_that_cannot_be_made_are_found_before_the_work(fitted, tiny, monkeypatch):
    folder, data = fitted
    monkeypatch.setattr(BertFocalClassifier, "fit", lambda *args: pytest.fail("trained first"))
    run("fit", data, "--output", "/proc/model", "--model", tiny, code=1)
    monkeypatch.setattr(BertFocalClassifier, "report", lambda *args, **k: pytest.fail("predicted"))
    run("report", folder, data, "--output", "/proc/report.html", code=1)


def test_predict_goes_over_the_texts_once(fitted, tmp_path, monkeypatch):
    folder, data = fitted
    done = []
    before = FocalNet.logits
    monkeypatch.setattr(
        FocalNet,
        "logits",
        lambda net, tokens, *a: done.append(len(tokens)) or before(net, tokens, *a),
    )
    run("predict", folder, data, "--output", tmp_path / "out.csv", "--proba")
    assert done == [1, len(X)]  # the first is a try of the folder


def test_integers_of_a_column_with_gaps_are_labels(tmp_path):
    table = pa.table({"text": ["x", "y", "z"], "label": [0.0, 1.0, 0.5]})
    parquet.write_table(table, tmp_path / "a.parquet")
    bad = []
    texts, labels = read_columns(tmp_path / "a.parquet", ["text"], "label", bad.append, [0, 1])
    assert (texts, labels) == (["x", "y"], [0, 1]) and [type(label) for label in labels] == [
        int
    ] * 2
    assert "row 3: 'label' must be a label of the model, '0', '1'. Got 0.5" in str(bad[0])


def test_lines_are_counted_with_the_one_for_excel(tmp_path):
    (tmp_path / "a.csv").write_text("sep=;\ntext;label\nwin;spam\nlunch\n")
    with pytest.raises(ValueError, match=r"a\.csv, line 4: 2 cells are needed\. Got 1"):
        read_columns(tmp_path / "a.csv", ["text"], "label")


# -- the audit -----------------------------------------------------------------------------


def test_audit_prints_what_python_finds_and_writes_the_page(tmp_path, tiny):
    from skfocal import audit

    train = write(tmp_path / "train.csv", [*X, X[0]], [*y, y[0]])
    test = write(tmp_path / "test.jsonl", [X[1].upper(), "new"], ["ham", "eggs"])
    done = run("audit", train, "--test", test, "--model", tiny, "--output", tmp_path / "a.html")
    found = audit([*X, X[0]], [*y, y[0]], [X[1].upper(), "new"], ["ham", "eggs"], model=tiny)
    assert done.stdout == f"{found}\n"
    assert f"a.html: {len(X) + 1} documents, {len(found.findings)} findings" in done.stderr
    page = (tmp_path / "a.html").read_text()
    assert "Test documents that are in training" in page and "StratifiedGroupKFold" in page


def test_audit_reads_several_labels_and_skips_bad_rows(tmp_path, tiny):
    path = tmp_path / "train.csv"
    rows = [f"{text},{'a;b' if i % 2 else 'a'}" for i, text in enumerate(X)]
    path.write_text("\n".join(["text,label", *rows, "too,many,cells"]) + "\n")
    settings = ["--label-separator", ";", "--skip-bad-rows", "--max-length", "8"]
    done = run("audit", path, "--model", tiny, *settings)
    assert f"{len(X)} documents of 2 labels" in done.stdout
    assert "max_length=8" in done.stdout and "left out: 1 of" in done.stderr


def test_audit_refuses_a_page_that_cannot_be_written(tmp_path, tiny):
    path = write(tmp_path / "train.csv")
    done = run("audit", path, "--model", tiny, "--output", tmp_path / "no" / "a.html", code=1)
    assert "must be a file in a folder that exists" in done.stderr and done.stdout == ""
