"""Columns of CSV, TSV, JSON and Parquet files; errors name the line of a bad row."""

import csv
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from skfocal._utils.optional import import_optional
from skfocal.cli._files import (
    DELIMITERS,
    Name,
    delimiter_of,
    encoding_of,
    kind_of,
    open_bytes,
    open_text,
    reading,
    separator_line,
)


class BadRow(ValueError):
    """A row that cannot be used.

    Parameters
    ----------
    place : str
        The file and the line.
    problem : str
        What is wrong, a sentence whose subject is the place.
    """

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"{place}{problem}")
        self.place, self.problem = place, problem.removeprefix(":").strip()


_SAY_ENCODING = "Say the encoding, for example --encoding cp1252."
_Rows = Iterator[tuple[str, dict[str, Any] | BadRow]]  # with the place of each in the file


@dataclass(frozen=True)
class Format:
    """How a file is written, where its name and content do not tell.

    Attributes
    ----------
    encoding : str or None
        None: by the byte-order mark, else UTF-8.
    delimiter : str or None
        Between the cells. None: that which the head has the columns with.
    separator : str or None
        Between several labels of a cell. None: a cell has one label, or is a list.
    """

    encoding: str | None = None
    delimiter: str | None = None
    separator: str | None = None


def read_columns(
    path: Name,
    text: list[str],
    label: str | None = None,
    on_bad: Callable[[BadRow], None] | None = None,
    classes: list[Any] | None = None,
    form: Format = Format(),
    several: bool | None = None,
) -> tuple[list[Any], list[Any]]:
    """Return the texts in a file and, on request, their labels.

    Parameters
    ----------
    path : str or path
        A CSV or TSV file with a header line, JSON lines, an array of JSON objects, or Parquet.
    text : list of str
        Names of the one or two columns with texts.
    label : str, default=None
        Name of the column with labels.
    on_bad : callable ``(BadRow) -> None``, default=None
        Called with each row that cannot be used; the row is then left out. None: raise.
    classes : list, default=None
        The allowed labels, which the file may hold as strings. None: any.
    form : Format, default=Format()
    several : bool, default=None
        Whether a document may have several labels. None: as the first row has it.

    Returns
    -------
    texts, labels : list of str or of (str, str), list
        Several labels of a document are a list.

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
    for where, row in _ROWS[kind_of(path)](path, names, form):
        try:
            if isinstance(row, BadRow):
                raise row
            parts = [_checked_text(row[name], f"{path}, {where}", name) for name in text]
            document = parts[0] if len(parts) == 1 else tuple(parts)
            if label is not None:
                place = f"{path}, {where}"
                found = _checked_labels(row[label], place, label, known, form.separator)
                several = isinstance(found, list) if several is None else several
                if isinstance(found, list) and not several:
                    raise BadRow(place, f": {label!r} must be one label. Got {found}.")
                labels.append([found] if several and not isinstance(found, list) else found)
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
        raise BadRow(where, f": {name!r} must be a text. Got {type(value).__name__}.")
    return value


def _checked_labels(
    value: Any, where: str, name: str, known: dict[str, Any] | None, separator: str | None
) -> Any:
    """Return the label of a cell, or the list of its labels."""
    if separator is not None and isinstance(value, str):
        value = [part.strip() for part in value.split(separator) if part.strip()]
    elif separator is not None and value is None:
        value = []
    if not isinstance(value, list):
        return _checked_label(value, where, name, known)
    return [_checked_label(each, where, name, known) for each in value]


def _checked_label(value: Any, where: str, name: str, known: dict[str, Any] | None) -> Any:
    if value is None or value == "" or value != value:
        raise BadRow(where, f": {name!r} must be a label. Got nothing.")
    if not isinstance(value, str | int | float):
        raise BadRow(where, f": {name!r} must be a label. Got {type(value).__name__}.")
    if isinstance(value, str) and not _is_unicode(value):
        raise BadRow(where, f": {name!r} must be a label in Unicode. Got {value!r}.")
    if known is None:
        return value
    # Integers become floats in a column with a missing value.
    whole = isinstance(value, float) and value.is_integer()
    for key in (str(value), str(int(value)) if whole else None):
        if key in known:
            return known[key]
    labels = ", ".join(map(repr, list(known)[:10])) + (", ..." if len(known) > 10 else "")
    raise BadRow(where, f": {name!r} must be a label of the model, {labels}. Got {value!r}.")


def _delimited(path: Name, names: Sequence[str], form: Format) -> _Rows:
    encoding = encoding_of(path, form.encoding)
    delimiter = delimiter_of(path, encoding, names, form.delimiter)
    with reading(path, encoding), open_text(path, encoding) as file:
        above = 0 if separator_line(file) is None else 1
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        last = above
        try:
            head = next(reader, [])
            _check_columns(path, head, names)
            last = above + reader.line_num
            for cells in reader:
                where = f"line {above + reader.line_num}"
                if not all(map(_is_unicode, cells)):
                    yield where, BadRow(f"{path}, {where}", f": must be UTF-8. {_SAY_ENCODING}")
                elif len(cells) == len(head):
                    yield where, dict(zip(head, cells, strict=True))
                elif cells:  # an empty line is no row
                    needed = f"{len(head)} cells are needed"
                    yield where, BadRow(f"{path}, {where}", f": {needed}. Got {len(cells)}.")
                last = above + reader.line_num
        except csv.Error as error:
            raise ValueError(f"{path}, the row from line {last + 1} on: {error}.") from error


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _json_lines(path: Name, names: Sequence[str], form: Format) -> _Rows:
    encoding = encoding_of(path, form.encoding)
    with reading(path, encoding), open_bytes(path) as file:
        # Lines of UTF-8 as bytes, so that the error of a broken one can name it.
        is_utf8 = encoding.startswith("utf-8")
        lines: Any = file if is_utf8 else io.TextIOWrapper(file, encoding=encoding)
        for number, line in enumerate(lines, start=1):
            where = f"line {number}"
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield where, BadRow(f"{path}, {where}", f" is not JSON: {error}.")
                continue
            yield where, _with_columns(row, f"{path}, {where}", names)


def _json_array(path: Name, names: Sequence[str], form: Format) -> _Rows:
    encoding = encoding_of(path, form.encoding)
    with reading(path, encoding), open_bytes(path) as file:
        content = file.read().decode(encoding)
    try:
        rows = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} must be an array of JSON objects: {error}. If each line is an object, give "
            "the file the ending .jsonl."
        ) from error
    if not isinstance(rows, list):
        raise ValueError(f"{path} must be an array of JSON objects. Got {type(rows).__name__}.")
    for number, row in enumerate(rows, start=1):
        where = f"object {number}"
        yield where, _with_columns(row, f"{path}, {where}", names)


def _with_columns(row: Any, place: str, names: Sequence[str]) -> Any:
    """Return an object that has the columns, or what is wrong with it."""
    missing = [name for name in names if not isinstance(row, dict) or name not in row]
    return BadRow(place, f" has no {missing[0]!r}.") if missing else row


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


def _parquet(path: Name, names: list[str], form: Format) -> _Rows:
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


def _check_columns(path: Name, head: Sequence[str], names: Sequence[str]) -> None:
    for name in names:
        if list(head).count(name) != 1:
            raise ValueError(
                f"{path} must have one column {name!r}. Got the columns {list(head)[:20]}."
            )


_ROWS: dict[str, Callable[[Name, list[str], Format], _Rows]] = {
    "csv": _delimited,
    "tsv": _delimited,
    "json": _json_array,
    "jsonl": _json_lines,
    "parquet": _parquet,
}


def write_columns(path: Name | None, columns: Mapping[str, Sequence[Any]]) -> None:
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
        with io.TextIOWrapper(open_bytes(path, "wb"), encoding="utf-8", newline="") as file:
            if kind in ("json", "jsonl"):
                _write_json(file, columns, as_array=kind == "json")
            else:
                _write_delimited(file, columns, DELIMITERS[kind])


def _write_json(file: IO[str], columns: Mapping[str, Sequence[Any]], as_array: bool) -> None:
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if as_array:
        json.dump(rows, file, ensure_ascii=False, indent=1)
    else:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write_delimited(file: IO[str], columns: Mapping[str, Sequence[Any]], delimiter: str) -> None:
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
