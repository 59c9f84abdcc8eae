"""Columns of CSV, TSV, JSON lines and Parquet files; errors name the line of a bad row."""

import csv
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from skfocal._utils.optional import import_optional

KINDS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
_DELIMITERS = {"csv": ",", "tsv": "\t"}
# The longest cell of a CSV file; Python's own limit of 131,072 is less than a long document.
_LONGEST = 2**30

_Path = str | os.PathLike[str]


class BadRow(ValueError):
    """A row that cannot be used; the message names the file and the line."""


_Rows = Iterator[tuple[str, dict[str, Any] | BadRow]]  # with the place of each in the file


def kind_of(path: _Path) -> str:
    """Return the kind of a file, by the extension of its name.

    Raises
    ------
    ValueError
        If the extension is not one of :data:`KINDS`.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in KINDS:
        raise ValueError(f"{str(path)!r} must end in one of {', '.join(KINDS)}. Got {suffix!r}.")
    return KINDS[suffix]


def read_columns(
    path: _Path,
    text: list[str],
    label: str | None = None,
    on_bad: Callable[[BadRow], None] | None = None,
    classes: list[Any] | None = None,
) -> tuple[list[Any], list[Any]]:
    """Return the texts in a file and, on request, their labels.

    Parameters
    ----------
    path : str or path
        A CSV or TSV file with a header line, JSON lines, or Parquet; text is UTF-8.
    text : list of str
        Names of the one or two columns with texts.
    label : str, default=None
        Name of the column with labels.
    on_bad : callable ``(BadRow) -> None``, default=None
        Called with each row that cannot be used; the row is then left out. None: raise.
    classes : list, default=None
        The allowed labels, which the file may hold as strings. None: any.

    Returns
    -------
    texts, labels : list of str or of (str, str), list

    Raises
    ------
    OSError, ValueError
        If the file cannot be read, does not have the columns or has no usable row.
    """
    if len(text) not in (1, 2):
        raise ValueError(f"texts must be in one column or two. Got {text}.")
    names = text if label is None else [*text, label]
    known = None if classes is None else {str(value): value for value in classes}
    texts: list[Any] = []
    labels: list[Any] = []
    for where, row in _ROWS[kind_of(path)](path, names):
        try:
            if isinstance(row, BadRow):
                raise row
            parts = [_checked_text(row[name], f"{path}, {where}", name) for name in text]
            document = parts[0] if len(parts) == 1 else tuple(parts)
            if label is not None:
                labels.append(_checked_label(row[label], f"{path}, {where}", label, known))
            texts.append(document)
        except BadRow as error:
            if on_bad is None:
                raise
            on_bad(error)
    if not texts:
        raise ValueError(f"{path} must have a usable row. Got none.")
    return texts, labels


def _checked_text(value: Any, where: str, name: str) -> str:
    if not isinstance(value, str):
        raise BadRow(f"{where}: {name!r} must be a text. Got {type(value).__name__}.")
    return value


def _checked_label(value: Any, where: str, name: str, known: dict[str, Any] | None) -> Any:
    if value is None or value == "" or value != value:
        raise BadRow(f"{where}: {name!r} must be a label. Got nothing.")
    if not isinstance(value, str | int | float):
        raise BadRow(f"{where}: {name!r} must be a label. Got {type(value).__name__}.")
    if isinstance(value, str) and not _is_unicode(value):
        raise BadRow(f"{where}: {name!r} must be a label in Unicode. Got {value!r}.")
    if known is None:
        return value
    # Integers become floats in a column with a missing value.
    whole = isinstance(value, float) and value.is_integer()
    for key in (str(value), str(int(value)) if whole else None):
        if key in known:
            return known[key]
    labels = ", ".join(map(repr, list(known)[:10])) + (", ..." if len(known) > 10 else "")
    raise BadRow(f"{where}: {name!r} must be a label of the model, {labels}. Got {value!r}.")


def _delimited(path: _Path, names: Sequence[str]) -> _Rows:
    csv.field_size_limit(_LONGEST)
    # Bytes that are not UTF-8 become lone surrogates, so that the error can name their row.
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter=_DELIMITERS[kind_of(path)], strict=True)
        last = 0
        try:
            head = next(reader, [])
            _check_columns(path, head, names)
            last = reader.line_num
            for cells in reader:
                where = f"line {reader.line_num}"
                if not all(map(_is_unicode, cells)):
                    yield where, BadRow(f"{path}, {where}: must be UTF-8.")
                elif len(cells) == len(head):
                    yield where, dict(zip(head, cells, strict=True))
                elif cells:  # an empty line is no row
                    needed = f"{len(head)} cells are needed"
                    yield where, BadRow(f"{path}, {where}: {needed}. Got {len(cells)}.")
                last = reader.line_num
        except csv.Error as error:
            raise ValueError(f"{path}, the row from line {last + 1} on: {error}.") from error


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _json_lines(path: _Path, names: Sequence[str]) -> _Rows:
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"line {number}"
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield where, BadRow(f"{path}, {where} is not JSON: {error}.")
                continue
            missing = [name for name in names if not isinstance(row, dict) or name not in row]
            if missing:
                yield where, BadRow(f"{path}, {where} has no {missing[0]!r}.")
            else:
                yield where, row


def _pyarrow() -> list[Any]:
    names = "pyarrow", "pyarrow.parquet"
    return [import_optional(name, "Parquet", "cli") for name in names]


def check_writable(path: Path, known: bool = True) -> None:
    """Raise an error if a file cannot be written, before the work for it is done.

    Parameters
    ----------
    path : path
    known : bool, default=True
        Whether the file must be one of :data:`KINDS`.
    """
    if known and kind_of(path) == "parquet":
        _pyarrow()
    if path.is_dir() or not path.absolute().parent.is_dir():
        got = "a folder" if path.is_dir() else "a file in no folder"
        raise OSError(f"{path} must be a file in a folder that exists. Got {got}.")
    with tempfile.TemporaryFile(dir=path.absolute().parent):
        pass  # some folders exist but nothing can be created in them


def _parquet(path: _Path, names: list[str]) -> _Rows:
    pyarrow, parquet = _pyarrow()
    try:
        file = parquet.ParquetFile(path)
        _check_columns(path, file.schema_arrow.names, names)
        number = 0
        for batch in file.iter_batches(columns=names):
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", row
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path} is not a readable Parquet file: {error}.") from error


def _check_columns(path: _Path, head: Sequence[str], names: Sequence[str]) -> None:
    for name in names:
        if list(head).count(name) != 1:
            raise ValueError(
                f"{path} must have one column {name!r}. Got the columns {list(head)[:20]}."
            )


_ROWS: dict[str, Callable[[_Path, list[str]], _Rows]] = {
    "csv": _delimited,
    "tsv": _delimited,
    "jsonl": _json_lines,
    "parquet": _parquet,
}


def write_columns(path: _Path | None, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns of equal length.

    Parameters
    ----------
    path : str, path or None
        File to write; its extension says in which format. None: CSV on standard output.
    columns : dict of str -> list
    """
    if path is None:
        _write_delimited(sys.stdout, columns, ",")
    elif (kind := kind_of(path)) == "parquet":
        pyarrow, parquet = _pyarrow()
        parquet.write_table(pyarrow.table(columns), path)
    else:
        with open(path, "w", encoding="utf-8", newline="") as file:
            if kind == "jsonl":
                for row in zip(*columns.values(), strict=True):
                    line = json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False)
                    file.write(line + "\n")
            else:
                _write_delimited(file, columns, _DELIMITERS[kind])


def _write_delimited(file: IO[str], columns: Mapping[str, Sequence[Any]], delimiter: str) -> None:
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
