"""The command ``skfocal``: audit, fit, predict, evaluate, report and compare, without Python."""

import contextlib
import dataclasses
import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skfocal._storage.renamed import refuse
from skfocal._utils.optional import import_optional
from skfocal._version import __version__
from skfocal.cli._tables import BadRow, Format, check_writable, read_columns, write_columns

if TYPE_CHECKING:
    from skfocal.classifier import BertFocalClassifier

SEPARATOR = ";"  # between several labels of a document, where none is given

__all__ = ["app", "audit", "compare", "evaluate", "fit", "main", "predict", "report"]

app = typer.Typer(
    help="Fine-tune BERT-like encoders on imbalanced text. Files are CSV, TSV, JSON (.json), JSON "
    "lines (.jsonl) or Parquet, as their extension says, and may be compressed (.gz, .bz2, .xz).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_Text = Annotated[
    list[str],
    typer.Option(
        default_factory=lambda: ["text"],
        show_default="text",
        help="Column with the texts. Give it twice for pairs of texts.",
    ),
]
_Label = Annotated[str, typer.Option(help="Column with the labels.")]
_Skip = Annotated[bool, typer.Option(help="Leave out unusable rows, and report each.")]
_BadRows = Annotated[
    Path | None,
    typer.Option(help="CSV file for the places and problems of what --skip-bad-rows leaves out."),
]
_Encoding = Annotated[
    str | None,
    typer.Option(help="Of text files, for example cp1252. Default: by byte-order mark, or UTF-8."),
]
_Delimiter = Annotated[
    str | None,
    typer.Option(help="Of CSV files. Default: that which separates the columns in the first line."),
]
_Separator = Annotated[
    str | None,
    typer.Option(help="Between several labels of a document in one cell, for example ';'."),
]
_Folder = Annotated[Path, typer.Argument(help="Folder that fit wrote.")]


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"skfocal {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    pass


@app.command()
def audit(
    data: Annotated[Path, typer.Argument(help="File with texts and labels to train on.")],
    text_column: _Text,
    label_column: _Label = "label",
    test: Annotated[
        Path | None, typer.Option(help="File with the texts and labels to test on.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="File for the page, for example audit.html.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model name on the Hugging Face hub, or a folder.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=3, help="Number of tokens to which documents would be cut.")
    ] = None,
    label_separator: _Separator = None,
    encoding: _Encoding = None,
    delimiter: _Delimiter = None,
    skip_bad_rows: _Skip = False,
    bad_rows: _BadRows = None,
) -> None:
    """Look at texts and labels before training on them.

    It prints a summary of the classes, the lengths, the duplicates and what else is odd, with a
    suggested split and first grid. The page has the texts, too.
    """
    with _errors_in_words():
        from skfocal.data_audit import audit as look

        _check_page(output)
        _check_others([data, test], output=output, bad_rows=bad_rows)
        form = Format(encoding, delimiter, label_separator)
        reader = Reader(text_column, form, skip_bad_rows, bad_rows)
        X, y = reader.read(data, label_column)
        X_test, y_test = (None, None) if test is None else reader.read(test, label_column)
        reader.end()
        settings: dict[str, Any] = {} if model is None else {"model": model}
        found = look(X, y, X_test, y_test, max_length=max_length, **settings)
        typer.echo(str(found))
        if output is not None:
            found.save(output)
            _say(f"{output}: {len(X)} documents, {len(found.findings)} findings")


@app.command()
def fit(
    data: Annotated[Path, typer.Argument(help="File with texts and labels to train on.")],
    output: Annotated[Path, typer.Option(help="Folder for the fitted model.")],
    text_column: _Text,
    label_column: _Label = "label",
    model: Annotated[
        str | None, typer.Option(help="Model name on the Hugging Face hub, or a folder.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A parameter of BertFocalClassifier, for example alpha=balanced, gamma=1, "
            "max_epochs=2 or alpha__beta=0.99. The value is JSON or text. May be repeated.",
        ),
    ] = None,
    eval_data: Annotated[
        Path | None,
        typer.Option(help="File with other texts and labels, to score each epoch on."),
    ] = None,
    label_separator: _Separator = None,
    encoding: _Encoding = None,
    delimiter: _Delimiter = None,
    skip_bad_rows: _Skip = False,
    bad_rows: _BadRows = None,
    quiet: Annotated[bool, typer.Option(help="Show no progress.")] = False,
) -> None:
    """Train a classifier and write it into a folder.

    sentence-transformers or the pipelines of transformers can read the folder, too, depending on
    the pooling.
    """
    with _errors_in_words():
        from skfocal.classifier import BertFocalClassifier
        from skfocal.persistence import check_folder

        check_folder(output)  # before the training
        _check_others([data, eval_data], bad_rows=bad_rows)
        settings = {"verbose": 0 if quiet else 1, **_settings(set_ or [])}
        if model is not None:
            settings["model"] = model
        reader = Reader(
            text_column, Format(encoding, delimiter, label_separator), skip_bad_rows, bad_rows
        )
        clf = _made(BertFocalClassifier, settings)
        X, y = reader.read(data, label_column)
        eval_set = None if eval_data is None else reader.read(eval_data, label_column)
        reader.end()
        with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
            clf.fit(X, y, eval_set=eval_set)
        clf.save_pretrained(output)
        _say(f"{output}: {len(X)} documents of {len(clf.classes_)} classes")


@app.command()
def predict(
    model: _Folder,
    data: Annotated[Path, typer.Argument(help="File with texts.")],
    text_column: _Text,
    output: Annotated[
        Path | None, typer.Option(help="File for the answers. Default: CSV on standard output.")
    ] = None,
    proba: Annotated[
        bool, typer.Option(help="Also write a column of probabilities for each class.")
    ] = False,
    encoding: _Encoding = None,
    delimiter: _Delimiter = None,
) -> None:
    """Predict the label of each text.

    The answers have one line per text, in the order of the file.
    """
    with _errors_in_words():
        import numpy as np

        from skfocal._estimator.fitted_model import predicting
        from skfocal.classifier import BertFocalClassifier

        if output is not None:
            check_writable(output)
        _check_others([data], output=output)
        clf = BertFocalClassifier.from_pretrained(model)
        X, _ = Reader(text_column, Format(encoding, delimiter)).read(data)
        chances = None
        with _bar(clf, len(X)):
            if proba:  # both from one pass over the texts
                with predicting(clf) as fitted:
                    parts = [(a.predict(), a.predict_proba()) for _, a in fitted.each_answer(X)]
                answers, chances = map(np.concatenate, zip(*parts, strict=True))
            else:
                answers = clf.predict(X)
        if answers.ndim == 2:
            rows = (clf.classes_[row > 0] for row in answers)
            columns = {"label": [SEPARATOR.join(map(str, row)) for row in rows]}
        else:
            columns = {"label": answers.tolist()}
        if chances is not None:
            for name, column in zip(clf.classes_, chances.T, strict=True):
                columns[f"proba:{name}"] = column.tolist()
        write_columns(output, columns)


@app.command()
def evaluate(
    model: _Folder,
    data: Annotated[Path, typer.Argument(help="File with texts and their labels.")],
    text_column: _Text,
    label_column: _Label = "label",
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")] = False,
    label_separator: _Separator = None,
    encoding: _Encoding = None,
    delimiter: _Delimiter = None,
    skip_bad_rows: _Skip = False,
    bad_rows: _BadRows = None,
) -> None:
    """Compare predictions with labels.

    The scores are precision, recall and F1 of each class and overall, and balanced accuracy.
    """
    with _errors_in_words():
        from sklearn.metrics import balanced_accuracy_score, classification_report
        from sklearn.preprocessing import MultiLabelBinarizer

        _check_others([data], bad_rows=bad_rows)
        form = Format(encoding, delimiter, label_separator)
        reader = Reader(text_column, form, skip_bad_rows, bad_rows)
        clf, X, y = _to_judge(model, data, label_column, reader)
        with _bar(clf, len(X)):
            predicted = clf.predict(X)
        settings: dict[str, Any] = {"zero_division": 0.0}
        others = {}
        if clf.multilabel_:
            y = MultiLabelBinarizer(classes=clf.classes_.tolist()).fit_transform(y)
            settings["target_names"] = list(map(str, clf.classes_))
        else:
            others["balanced accuracy"] = float(balanced_accuracy_score(y, predicted))
        if as_json:
            scores = classification_report(y, predicted, output_dict=True, **settings)
            typer.echo(json.dumps({**scores, **others}, indent=1))
        else:
            typer.echo(classification_report(y, predicted, digits=3, **settings))
            for name, score in others.items():
                typer.echo(f"{name} {score:.3f}")


@app.command()
def report(
    model: _Folder,
    data: Annotated[Path, typer.Argument(help="File with texts and their labels.")],
    output: Annotated[Path, typer.Option(help="File for the page, for example report.html.")],
    text_column: _Text,
    label_column: _Label = "label",
    hardest: Annotated[
        int, typer.Option(min=0, help="Number of the hardest documents to show.")
    ] = 20,
    explain: Annotated[
        bool, typer.Option("--explain", help="Mark the words that speak for what is predicted.")
    ] = False,
    label_separator: _Separator = None,
    encoding: _Encoding = None,
    delimiter: _Delimiter = None,
    skip_bad_rows: _Skip = False,
    bad_rows: _BadRows = None,
) -> None:
    """Write an HTML page about a model.

    It shows scores, figures and the texts of the hardest documents. The page is a single file that
    needs no network.
    """
    with _errors_in_words():
        check_writable(output, known=False)
        _check_others([data], output=output, bad_rows=bad_rows)
        form = Format(encoding, delimiter, label_separator)
        reader = Reader(text_column, form, skip_bad_rows, bad_rows)
        clf, X, y = _to_judge(model, data, label_column, reader)
        with _bar(clf, len(X)):
            page = clf.report(X, y, n_hardest=hardest, explain=explain)
        page.save(output)
        name, score = next(iter(page.overall.items()))
        _say(f"{output}: {len(X)} documents, {name} {score:.3f}")


@app.command()
def compare(
    model_a: _Folder,
    model_b: Annotated[Path, typer.Argument(help="Folder of the other model.")],
    data: Annotated[Path, typer.Argument(help="File with texts and their labels.")],
    text_column: _Text,
    label_column: _Label = "label",
    output: Annotated[
        Path | None, typer.Option(help="File for the page, for example compare.html.")
    ] = None,
    label_separator: _Separator = None,
    encoding: _Encoding = None,
    delimiter: _Delimiter = None,
    skip_bad_rows: _Skip = False,
    bad_rows: _BadRows = None,
) -> None:
    """Compare two models on the same documents.

    Print scores, differences with intervals, and a test; on request write an HTML page with those
    of each class, and the documents that changed sides.
    """
    with _errors_in_words():
        from skfocal.classifier import BertFocalClassifier
        from skfocal.report import compare_classifiers

        _check_page(output)
        _check_others([data], output=output, bad_rows=bad_rows)
        form = Format(encoding, delimiter, label_separator)
        reader = Reader(text_column, form, skip_bad_rows, bad_rows)
        a, b = map(BertFocalClassifier.from_pretrained, (model_a, model_b))
        X, y = _with_labels_of([a, b], data, label_column, reader)
        with _bar(a, len(X)), _bar(b, len(X)):
            comparison = compare_classifiers(a, b, X, y, names=_names_of(model_a, model_b))
        typer.echo(str(comparison))
        if output is not None:
            comparison.save(output)
            _say(f"{output}: {len(X)} documents")


def _check_page(output: Path | None) -> None:
    """Raise an error if a page that is asked for cannot be made."""
    if output is not None:
        check_writable(output, known=False)
        import_optional("matplotlib", "--output", "examples")


def _check_others(data: Sequence[Path | None], **written: Path | None) -> None:
    """Raise an error if a file to be written is one of the data, or two of them are one file."""
    for name, path in written.items():
        option = f"--{name.replace('_', '-')}"
        for file in data:
            if path and file and path.exists() and file.exists() and path.samefile(file):
                raise typer.BadParameter(f"{option} must be another file than the data, {file}.")
    files = [path.resolve() for path in written.values() if path]
    if len(set(files)) < len(files):
        raise typer.BadParameter(f"--output and --bad-rows must be two files. Got {files[0]}.")


def _names_of(a: Path, b: Path) -> tuple[str, str]:
    """Return the names of two folders, or if these are equal, of which argument they were."""
    names = a.resolve().name, b.resolve().name
    return ("A", "B") if names[0] == names[1] else names


def _settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Return parameters from strings ``name=value``."""
    result: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"--set needs NAME=VALUE. Got {pair!r}.")
        try:
            result[name] = json.loads(value)
        except ValueError:
            result[name] = value
    return result


def _made(kind: "type[BertFocalClassifier]", settings: dict[str, Any]) -> "BertFocalClassifier":
    refuse(settings, ValueError)
    known = kind().get_params()
    unknown = sorted(name for name in settings if name.partition("__")[0] not in known)
    if unknown:
        raise typer.BadParameter(
            f"--set must name a parameter, one of {list(known)}. Got {unknown}."
        )
    return kind().set_params(**settings)


class Reader:
    """Reads files of one form, and keeps account of the rows that it leaves out.

    Parameters
    ----------
    text : list of str
        Names of the columns with texts.
    form : Format
    skip : bool, default=False
        Whether to leave out bad rows. False: the first one is an error.
    bad_rows : path, default=None
        CSV file for the bad rows.

    Attributes
    ----------
    classes : list or None
        The allowed labels. None: any.
    several : bool or None
        Whether documents have several labels. None: as the first row has it.
    """

    def __init__(
        self,
        text: list[str],
        form: Format,
        skip: bool = False,
        bad_rows: Path | None = None,
    ) -> None:
        if form.separator == "":
            raise typer.BadParameter("--label-separator must not be empty.")
        if bad_rows is not None and not skip:
            raise typer.BadParameter("--bad-rows needs --skip-bad-rows.")
        if bad_rows is not None:
            check_writable(bad_rows)
        self.text, self.form, self.skip = text, form, skip
        self.classes: list[Any] | None = None
        self.several: bool | None = None
        self.bad_rows, self.n_read = bad_rows, 0
        self.left_out: list[BadRow] = []

    def read(self, path: Path, label: str | None = None) -> tuple[list[Any], list[Any]]:
        """Return the texts and labels of a file."""
        on_bad = self._leave_out if self.skip else None
        try:
            X, y = read_columns(
                path, self.text, label, on_bad, self.classes, self.form, self.several
            )
        finally:
            self._write_bad_rows()
        self.n_read += len(X)
        return X, y

    def _leave_out(self, error: BadRow) -> None:
        self.left_out.append(error)
        _say(f"left out: {error}")

    def end(self) -> None:
        """Tell how many rows were left out."""
        n = len(self.left_out)
        if n:
            _say(f"left out: {n} of {n + self.n_read} rows")

    def _write_bad_rows(self) -> None:
        if self.bad_rows is not None:
            columns = {
                "row": [row.place for row in self.left_out],
                "problem": [row.problem for row in self.left_out],
            }
            write_columns(self.bad_rows, columns)


def _to_judge(
    model: Path, data: Path, label: str, reader: Reader
) -> "tuple[BertFocalClassifier, list[Any], list[Any]]":
    """Return a model, and texts with labels of its own."""
    from skfocal.classifier import BertFocalClassifier

    clf = BertFocalClassifier.from_pretrained(model)
    return clf, *_with_labels_of([clf], data, label, reader)


def _with_labels_of(
    models: "list[BertFocalClassifier]", data: Path, label: str, reader: Reader
) -> tuple[list[Any], list[Any]]:
    """Return texts with labels that one of the models knows."""
    reader.classes = list(dict.fromkeys(c for clf in models for c in clf.classes_.tolist()))
    reader.several = models[0].multilabel_
    if reader.several and reader.form.separator is None:
        reader.form = dataclasses.replace(reader.form, separator=SEPARATOR)
    X, y = reader.read(data, label)
    reader.end()
    return X, y


@contextlib.contextmanager
def _bar(clf: "BertFocalClassifier", total: int) -> Iterator[None]:
    """Show a progress bar of predicted documents if standard error is a terminal."""
    from tqdm import tqdm

    with tqdm(total=total, unit=" documents", leave=False, disable=None) as bar:
        clf.net_.watch = bar.update
        try:
            yield
        finally:
            del clf.net_.watch


_IN_WORDS = (
    ArithmeticError,
    ImportError,
    MemoryError,
    OSError,
    RuntimeError,  # a device out of memory, a checkpoint in use, what cannot be deterministic
    TypeError,
    ValueError,
)


def _say(text: str) -> None:
    typer.echo(text, err=True)


@contextlib.contextmanager
def _errors_in_words() -> Iterator[None]:
    """Show each error and warning in one line; exit with code 1 after an error."""

    def show(message: Warning | str, *args: Any, **kwargs: Any) -> None:
        _say(f"Warning: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        try:
            yield
        except _IN_WORDS as error:
            _say(f"Error: {error}")
            raise typer.Exit(1) from error


def main() -> None:
    """Run the command."""
    app()
