"""The command ``skfocal``: fit, predict, evaluate and report on files, without Python."""

import contextlib
import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skfocal._storage.renamed import refuse
from skfocal.cli._tables import BadRow, check_writable, read_columns, write_columns

if TYPE_CHECKING:
    from skfocal.classifier import BertFocalClassifier

__all__ = ["app", "evaluate", "fit", "main", "predict", "report"]

app = typer.Typer(
    help="Fine-tune BERT-like encoders on imbalanced text. Files are CSV, TSV, JSON lines "
    "(.jsonl) or Parquet, as their extension says.",
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
        help="Column with the texts. Give it twice for pairs of texts.",
    ),
]
_Label = Annotated[str, typer.Option(help="Column with the labels.")]
_Skip = Annotated[bool, typer.Option(help="Leave out unusable rows, and report each.")]
_Folder = Annotated[Path, typer.Argument(help="Folder that fit wrote.")]


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
    skip_bad_rows: _Skip = False,
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
    data: Annotated[Path, typer.Argument(help="File with texts.")],
    text_column: _Text,
    output: Annotated[
        Path | None, typer.Option(help="File for the answers. Default: CSV on standard output.")
    ] = None,
    proba: Annotated[
        bool, typer.Option(help="Also write a column of probabilities for each class.")
    ] = False,
) -> None:
    """Predict the label of each text.

    The answers have one line per text, in the order of the file.
    """
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
        write_columns(output, columns)


@app.command()
def evaluate(
    model: _Folder,
    data: Annotated[Path, typer.Argument(help="File with texts and their labels.")],
    text_column: _Text,
    label_column: _Label = "label",
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")] = False,
    skip_bad_rows: _Skip = False,
) -> None:
    """Compare predictions with labels.

    The scores are precision, recall and F1 of each class and overall, and balanced accuracy.
    """
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
    data: Annotated[Path, typer.Argument(help="File with texts and their labels.")],
    output: Annotated[Path, typer.Option(help="File for the page, for example report.html.")],
    text_column: _Text,
    label_column: _Label = "label",
    hardest: Annotated[
        int, typer.Option(min=0, help="Number of the hardest documents to show.")
    ] = 20,
    skip_bad_rows: _Skip = False,
) -> None:
    """Write an HTML page about a model.

    It shows scores, figures and the texts of the hardest documents. The page is a single file that
    needs no network.
    """
    with _errors_in_words():
        check_writable(output, known=False)
        clf = _loaded(model, "report")
        X, y = _read(data, text_column, label_column, skip_bad_rows, clf.classes_.tolist())
        with _bar(clf, len(X)):
            page = clf.report(X, y, n_hardest=hardest)
        page.save(output)
        _say(f"{output}: {len(X)} documents, {page.overall['accuracy']:.3f} of them right")


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


def _read(
    path: Path, text: list[str], label: str | None, skip: bool, classes: list[Any] | None = None
) -> tuple[list[Any], list[Any]]:
    def tell(error: BadRow) -> None:
        _say(f"left out: {error}")

    return read_columns(path, text, label, tell if skip else None, classes)


def _loaded(model: Path, command: str) -> "BertFocalClassifier":
    """Return a model with one label per document."""
    from skfocal.classifier import BertFocalClassifier

    clf = BertFocalClassifier.from_pretrained(model)
    if clf.class_weight_.ndim == 2:
        raise ValueError(
            f"{command} is for models with one label per document. Got a model with several."
        )
    return clf


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
        except (OSError, ValueError, TypeError, ImportError, ArithmeticError) as error:
            _say(f"Error: {error}")
            raise typer.Exit(1) from error


def main() -> None:
    """Run the command."""
    app()
