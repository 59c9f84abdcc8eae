"""Columns of CSV, TSV, JSON lines and Parquet files, whose bad rows are named by their line."""

import csv
import json
import tempfile
from pathlib import Path

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


class BadRow(ValueError):
    """A row that cannot be used; the message names file and line."""


def kind_of(path):
    """Return what kind of file a name stands for.

    Raises
    ------
    ValueError
        If it is none of those that are known.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in KINDS:
        raise ValueError(f"{str(path)!r} must end in one of {', '.join(KINDS)}. Got {suffix!r}.")
    return KINDS[suffix]


def read_columns(path, text, label=None, on_bad=None, classes=None):
    """Return the texts of a file and, if asked for, their labels.

    Parameters
    ----------
    path : str or path
        A CSV or TSV file with a line of names, JSON lines, or Parquet; in UTF-8.
    text : list of str
        Names of one or two columns.
    label : str, default=None
        Name of a column.
    on_bad : callable ``(BadRow) -> None``, default=None
        Is given each row that cannot be used, which is then left out. None: raise.
    classes : list, default=None
        The labels that there are; files may have them as texts. None: any.

    Returns
    -------
    texts, labels : list of str or of (str, str), list

    Raises
    ------
    OSError, ValueError
        If the file cannot be read, lacks a column or has no usable row.
    """
    if len(text) not in (1, 2):
        raise ValueError(f"texts must be in one column or two. Got {text}.")
    names = text if label is None else [*text, label]
    known = None if classes is None else {str(value): value for value in classes}
    texts, labels = [], []
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
        raise ValueError(f"{path} must have a row that can be used. Got none.")
    return texts, labels


def _checked_text(value, where, name):
    if not isinstance(value, str):
        raise BadRow(f"{where}: {name!r} must be a text. Got {type(value).__name__}.")
    return value


def _checked_label(value, where, name, known):
    if value is None or value == "" or value != value:
        raise BadRow(f"{where}: {name!r} must be a label. Got nothing.")
    if not isinstance(value, str | int | float):
        raise BadRow(f"{where}: {name!r} must be a label. Got {type(value).__name__}.")
    if isinstance(value, str) and not _is_unicode(value):
        raise BadRow(f"{where}: {name!r} must be a label in Unicode. Got {value!r}.")
    if known is None:
        return value
    # A column of integers with a gap is one of floats.
    whole = isinstance(value, float) and value.is_integer()
    for key in (str(value), str(int(value)) if whole else None):
        if key in known:
            return known[key]
    labels = ", ".join(map(repr, list(known)[:10])) + (", ..." if len(known) > 10 else "")
    raise BadRow(f"{where}: {name!r} must be a label of the model, {labels}. Got {value!r}.")


def _delimited(path, names):
    csv.field_size_limit(_LONGEST)
    # Bytes that are not UTF-8 become lone surrogates, so that their row can be named.
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


def _is_unicode(text):
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _json_lines(path, names):
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


def _pyarrow():
    names = "pyarrow", "pyarrow.parquet"
    return [import_optional(name, "Parquet", "cli") for name in names]


def check_writable(path, known=True):
    """Raise where a file cannot be written, before the work for it is done.

    Parameters
    ----------
    path : path
    known : bool, default=True
        Whether it is to be one of :data:`KINDS`.
    """
    if known and kind_of(path) == "parquet":
        _pyarrow()
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise OSError(f"{path} must be a file in a folder that exists.")
    with tempfile.TemporaryFile(dir=path.absolute().parent):
        pass  # some folders exist and take no files


def _parquet(path, names):
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
        raise ValueError(f"{path} is no Parquet file that can be read: {error}.") from error


def _check_columns(path, head, names):
    for name in names:
        if list(head).count(name) != 1:
            raise ValueError(
                f"{path} must have one column {name!r}. Got the columns {list(head)[:20]}."
            )


_ROWS = {"csv": _delimited, "tsv": _delimited, "jsonl": _json_lines, "parquet": _parquet}


def write_columns(path, columns, out=None):
    """Write columns of equal length.

    Parameters
    ----------
    path : str or path
        Its end says in what form.
    columns : dict of str -> list
    out : text file, default=None
        Is written to as CSV instead.
    """
    if out is not None:
        _write_delimited(out, columns, ",")
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


def _write_delimited(file, columns, delimiter):
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
