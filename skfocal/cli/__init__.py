"""The command ``skfocal``: fit, predict, evaluate and report on files, without Python."""

import contextlib
import json
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from skfocal._storage.renamed import refuse
from skfocal.cli._tables import check_writable, read_columns, write_columns

__all__ = ["app", "evaluate", "fit", "main", "predict", "report"]

app = typer.Typer(
    help="Fine-tune BERT-like encoders on imbalanced text. Files are CSV, TSV, JSON lines "
    "(.jsonl) or Parquet, by their names' end.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_Text = Annotated[
    list[str],
    typer.Option(
        default_factory=lambda: ["text"],
        show_default="text",
        help="Column of the texts; twice for pairs of texts.",
    ),
]
_Label = Annotated[str, typer.Option(help="Column of the labels.")]
_Skip = Annotated[bool, typer.Option(help="Leave out rows that cannot be used, and name them.")]
_Folder = Annotated[Path, typer.Argument(help="Folder that fit has written.")]


@app.command()
def fit(
    data: Annotated[Path, typer.Argument(help="Texts and labels to train on.")],
    output: Annotated[Path, typer.Option(help="Folder for the fitted model.")],
    text_column: _Text,
    label_column: _Label = "label",
    model: Annotated[
        str | None, typer.Option(help="A name on the Hugging Face hub, or a folder.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A parameter of BertFocalClassifier, for example alpha=balanced, gamma=1, "
            "max_epochs=2 or alpha__beta=0.99; the value is JSON or a text. May be repeated.",
        ),
    ] = None,
    skip_bad_rows: _Skip = False,
    quiet: Annotated[bool, typer.Option(help="Show no progress.")] = False,
):
    """Train a classifier and write it into a folder.

    The folder is one of transformers, too: its pipelines read it.
    """
    with _errors_in_words():
        from skfocal.classifier import BertFocalClassifier
        from skfocal.persistence import check_folder

        check_folder(output)  # before the training
        settings = {"verbose": 0 if quiet else 1, **_settings(set_ or [])}
        if model is not None:
            settings["model"] = model
        X, y = _read(data, text_column, label_column, skip_bad_rows)
        clf = _made(BertFocalClassifier, settings)
        with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
            clf.fit(X, y)
        clf.save_pretrained(output)
        _say(f"{output}: {len(X)} documents of {len(clf.classes_)} classes")


@app.command()
def predict(
    model: _Folder,
    data: Annotated[Path, typer.Argument(help="Texts.")],
    text_column: _Text,
    output: Annotated[
        Path | None, typer.Option(help="File for the answers; else CSV to standard output.")
    ] = None,
    proba: Annotated[bool, typer.Option(help="Also a column for each class.")] = False,
):
    """Name the label of each text, a line for each row and in their order."""
    with _errors_in_words():
        from skfocal._estimator.fitted_model import predicting
        from skfocal.classifier import BertFocalClassifier

        if output is not None:
            check_writable(output)
        clf = BertFocalClassifier.from_pretrained(model)
        X, _ = _read(data, text_column, None, False)
        with _bar(clf, len(X)), predicting(clf) as fitted:
            found = fitted.logits_and_answers(X)[1]
        answers = found.predict()
        chances = found.predict_proba() if proba else None
        if answers.ndim == 2:
            names = clf.classes_[None].repeat(len(X), 0)
            pairs = zip(names, answers > 0, strict=True)
            columns = {"label": [";".join(map(str, row[some])) for row, some in pairs]}
        else:
            columns = {"label": answers.tolist()}
        if chances is not None:
            for name, column in zip(clf.classes_, chances.T, strict=True):
                columns[f"proba:{name}"] = column.tolist()
        write_columns(output, columns, out=sys.stdout if output is None else None)


@app.command()
def evaluate(
    model: _Folder,
    data: Annotated[Path, typer.Argument(help="Texts and their labels.")],
    text_column: _Text,
    label_column: _Label = "label",
    as_json: Annotated[bool, typer.Option("--json", help="Numbers as JSON.")] = False,
    skip_bad_rows: _Skip = False,
):
    """Compare predictions with labels: precision, recall and F1 of each class, and overall."""
    with _errors_in_words():
        from sklearn.metrics import balanced_accuracy_score, classification_report

        clf = _loaded(model, "evaluate")
        X, y = _read(data, text_column, label_column, skip_bad_rows, clf.classes_.tolist())
        with _bar(clf, len(X)):
            predicted = clf.predict(X)
        settings: dict[str, Any] = {"zero_division": 0.0}
        report = classification_report(y, predicted, output_dict=True, **settings)
        balanced = float(balanced_accuracy_score(y, predicted))
        if as_json:
            typer.echo(json.dumps({**report, "balanced accuracy": balanced}, indent=1))
        else:
            typer.echo(classification_report(y, predicted, digits=3, **settings))
            typer.echo(f"balanced accuracy {balanced:.3f}")


@app.command()
def report(
    model: _Folder,
    data: Annotated[Path, typer.Argument(help="Texts and their labels.")],
    output: Annotated[Path, typer.Option(help="File for the page, for example report.html.")],
    text_column: _Text,
    label_column: _Label = "label",
    hardest: Annotated[int, typer.Option(min=0, help="How many of the hardest documents.")] = 20,
    skip_bad_rows: _Skip = False,
):
    """Write an HTML page of scores, figures and the hardest documents.

    One file, which needs no network: to open in a browser and to pass on. It shows texts.
    """
    with _errors_in_words():
        check_writable(output, known=False)
        clf = _loaded(model, "report")
        X, y = _read(data, text_column, label_column, skip_bad_rows, clf.classes_.tolist())
        with _bar(clf, len(X)):
            page = clf.report(X, y, n_hardest=hardest)
        page.save(output)
        _say(f"{output}: {len(X)} documents, {page.overall['accuracy']:.3f} of them right")


def _settings(pairs):
    """Return parameters from ``name=value`` texts."""
    result = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"--set needs NAME=VALUE. Got {pair!r}.")
        try:
            result[name] = json.loads(value)
        except ValueError:
            result[name] = value
    return result


def _made(kind, settings):
    refuse(settings, ValueError)
    known = kind().get_params()
    unknown = sorted(name for name in settings if name.partition("__")[0] not in known)
    if unknown:
        raise typer.BadParameter(
            f"--set must name parameters, one of {list(known)}. Got {unknown}."
        )
    return kind().set_params(**settings)


def _read(path, text, label, skip, classes=None):
    def tell(error):
        _say(f"left out: {error}")

    return read_columns(path, text, label, tell if skip else None, classes)


def _loaded(model, command):
    """Return a model of one label a document."""
    from skfocal.classifier import BertFocalClassifier

    clf = BertFocalClassifier.from_pretrained(model)
    if clf.class_weight_.ndim == 2:
        raise ValueError(f"{command} is for one label a document. Got a model of several.")
    return clf


@contextlib.contextmanager
def _bar(clf, total):
    """Show a bar of predicted documents where standard error is a terminal."""
    from tqdm import tqdm

    with tqdm(total=total, unit=" documents", leave=False, disable=None) as bar:
        clf.net_.watch = bar.update
        try:
            yield
        finally:
            del clf.net_.watch


def _say(text):
    typer.echo(text, err=True)


@contextlib.contextmanager
def _errors_in_words():
    """Show errors and warnings as a line each; end with exit code 1 after an error."""

    def show(message, *args, **kwargs):
        _say(f"Warning: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        try:
            yield
        except (OSError, ValueError, TypeError, ImportError, ArithmeticError) as error:
            _say(f"Error: {error}")
            raise typer.Exit(1) from error


def main():
    """Run the command."""
    app()
