"""Open files as people have them: compressed, in the encodings of Windows, with any delimiter."""

import bz2
import codecs
import contextlib
import csv
import gzip
import io
import lzma
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

Name = str | os.PathLike[str]

KINDS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_INSTEAD = {
    ".xlsx": "Save the sheet as 'CSV UTF-8', or as 'Unicode Text' with the ending .tsv",
    ".xls": "Save the sheet as 'CSV UTF-8', or as 'Unicode Text' with the ending .tsv",
    ".zip": "Unpack it, or compress the file with gzip",
}
# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
DELIMITERS = {"csv": ",", "tsv": "\t"}
_OTHERS = (";", "\t", "|")  # that the head of a CSV file may be written with
# The longest cell of a CSV file; Python's own limit of 131,072 is less than a long document.
csv.field_size_limit(2**30)


def kind_of(path: Name) -> str:
    """Return the kind of a file, by the ending of its name before that of a compression.

    Raises
    ------
    ValueError
        If the ending is not one of :data:`KINDS`.
    """
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if suffixes and suffixes[-1] in _OPENERS:
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    if suffix not in KINDS:
        instead = f" {_INSTEAD[suffix]}." if suffix in _INSTEAD else ""
        raise ValueError(
            f"{str(path)!r} must end in one of {', '.join(KINDS)}, with or without "
            f"{', '.join(_OPENERS)}. Got {suffix!r}.{instead}"
        )
    return KINDS[suffix]


def open_bytes(path: Name, mode: str = "rb") -> IO[bytes]:
    """Open a file that may be compressed."""
    opened: IO[bytes] = _OPENERS.get(Path(path).suffix.lower(), open)(path, mode)
    return opened


def open_text(path: Name, encoding: str) -> IO[str]:
    """Open a file to read text from; bytes that are not UTF-8 become lone surrogates."""
    # So that an error can name their row.
    errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
    return io.TextIOWrapper(open_bytes(path), encoding=encoding, errors=errors, newline="")


@contextlib.contextmanager
def reading(path: Name, encoding: str) -> Iterator[None]:
    """Say of what cannot be unpacked or decoded which file it is."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise ValueError(f"{path} cannot be unpacked: {error}.") from error
    except UnicodeError as error:
        raise ValueError(f"{path} must be in the encoding {encoding!r}. Got {error}.") from error


def encoding_of(path: Name, given: str | None = None) -> str:
    """Return the encoding of a file: as given, else by its byte-order mark, else UTF-8.

    Raises
    ------
    ValueError
        If Python does not know the encoding.
    """
    if given is not None:
        try:
            "".encode(given)
            name = codecs.lookup(given).name
        except LookupError as error:
            raise ValueError(
                f"the encoding must be one that Python knows, such as 'cp1252'. Got {given!r}."
            ) from error
        # With or without a byte-order mark.
        name = {"utf-8": "utf-8-sig"}.get(name, name)
        marked = name.startswith(("utf-16", "utf-32")) and _marked(path)
        return marked or name
    return _marked(path) or "utf-8"


def _marked(path: Name) -> str | None:
    """Return the encoding that a byte-order mark says, or None."""
    with reading(path, "utf-8"), open_bytes(path) as file:
        begin = file.read(4)
    return next((name for mark, name in _MARKS.items() if begin.startswith(mark)), None)


def separator_line(file: IO[str]) -> str | None:
    """Read past a first line such as ``sep=;``, which is for Excel; return its character."""
    said = re.fullmatch(r'"?sep=(.)"?\r?\n?', file.readline(), re.IGNORECASE)
    if said is None:
        file.seek(0)
        return None
    return said[1]


def delimiter_of(path: Name, encoding: str, names: Sequence[str], given: str | None = None) -> str:
    r"""Return the delimiter of a file: as given, else that which its head has the columns with.

    Raises
    ------
    ValueError
        If the given delimiter is not one character; ``\t`` is a tab.
    """
    if given is not None:
        delimiter = {"\\t": "\t", "tab": "\t"}.get(given, given)
        if len(delimiter) != 1:
            raise ValueError(f"the delimiter must be one character. Got {given!r}.")
        return delimiter
    with reading(path, encoding), open_text(path, encoding) as file:
        if said := separator_line(file):
            return said
    usual = DELIMITERS[kind_of(path)]
    for delimiter in (usual, *_OTHERS):
        with reading(path, encoding), open_text(path, encoding) as file:
            with contextlib.suppress(csv.Error):
                head = next(csv.reader(file, delimiter=delimiter, strict=True), [])
                if all(head.count(name) == 1 for name in names):
                    return delimiter
    return usual
