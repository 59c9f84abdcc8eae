"""Read files from untrusted sources safely; write folders completely or not at all."""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import stat
from pathlib import Path


@contextlib.contextmanager
def refusing(folder, writer):
    """Turn any error that libraries raise on a damaged or hostile folder into a ValueError.

    An OSError, for a file that is missing or cannot be read, is left as it is.
    """
    try:
        yield
    except OSError:
        raise
    except BaseException as error:
        # Panics of the tokenizers library do not derive from Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        found = " ".join(f"{error}".split()) or type(error).__name__
        found = "".join(c if c.isprintable() else "?" for c in found[:400])
        raise ValueError(
            f"{str(folder)!r} must be a folder as {writer} writes it. Got: {found}"
        ) from error


def read_bytes(folder, name, limit):
    """Return the content of a regular file of at most `limit` bytes in a folder.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If the file is too large, is not a regular file, or is a link out of the folder.
    """
    path = checked_path(folder, name, limit)
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"{name} must have at most {limit} bytes. Got more.")
    return content


def checked_path(folder, name, limit):
    """Return the resolved path of a file in a folder, checked as in :func:`read_bytes`."""
    home = Path(folder).resolve(strict=True)
    if not home.is_dir():
        raise NotADirectoryError(f"{str(folder)!r} is not a folder.")
    try:
        path = (home / name).resolve(strict=True)
    except RuntimeError as error:  # a link to itself
        raise ValueError(f"{name} must be a file. Got a link that leads nowhere.") from error
    if path.parent not in _homes(home, name):
        raise ValueError(f"{name} must lie in the folder. Got a link out of it.")
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{name} must be a regular file. Got something else.")
    if found.st_size > limit:
        raise ValueError(f"{name} must have at most {limit} bytes. Got {found.st_size}.")
    return path


def _homes(home, name):
    """Return the folders a file may lie in: its own, and the one the hub's cache links to."""
    own, blobs = (home / name).parent, home.parent.parent / "blobs"
    return {own, blobs} if home.parent.name == "snapshots" else {own}


def as_json(content, name):
    """Return the object that a JSON file holds."""
    try:
        value = json.loads(content.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} must be JSON in UTF-8, not too deep. Got: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{name} must hold a JSON object. Got {type(value).__name__}.")
    return value


def _refuse_constant(name):
    raise ValueError(f"the number {name}")


def sha256_of_bytes(content):
    """Return the SHA-256 of bytes, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def sha256_of_file(path):
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -- writing -------------------------------------------------------------------------------

UNFINISHED = ".unfinished-"


@contextlib.contextmanager
def whole_folder(target, replace=True):
    """Yield a new folder to write files into; it is moved to `target` once all are on disk.

    If writing fails, nothing is left behind. A process that is killed leaves a folder beside the
    target whose name begins with `UNFINISHED`.

    Parameters
    ----------
    target : path
    replace : bool, default=True
        Whether an existing folder is replaced. If False, it is kept: another process may have
        written it, and readers may have it open.
    """
    work = _sibling(target)
    work.mkdir()
    try:
        yield work
        for path in work.rglob("*"):
            if path.is_file():  # some writers make files for their owner alone
                path.chmod(work.stat().st_mode & 0o666)
            to_disk(path)
        to_disk(work)
        _put_in_place(work, target, replace)
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def users_folder(folder, marker, names):
    """Yield a folder to write files into, as :func:`whole_folder` does, at a path a user chose.

    For parameters and errors see :func:`check_replaceable`. Parent folders are created.
    """
    target = check_replaceable(folder, marker, names)
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(target) as work:
        yield work


def check_replaceable(folder, marker, names):
    """Return the path of a folder that may be replaced.

    Parameters
    ----------
    folder : str or path
        It must not exist, be empty, or contain `marker` and no files but `names`.
    marker : str
        File that identifies a folder of this kind.
    names : collection of str
        All files that such a folder may contain, those of subfolders by their path in it.

    Raises
    ------
    FileExistsError
        If the folder contains anything else, which would be lost.
    """
    # If the path is a link, the folder it points to is replaced.
    target = Path(os.path.realpath(Path(folder).expanduser()))
    if not os.path.lexists(target):
        return target
    found = sorted(entry.name for entry in target.iterdir()) if target.is_dir() else []
    others = [name for name in found if not _is_known(target, name, names)]
    if not target.is_dir() or others or (found and marker not in found):
        kind = f"{others[:3] or found[:3]} in it" if target.is_dir() else "a file"
        raise FileExistsError(
            f"folder must be new, empty or written by the same method, because its contents are "
            f"replaced. Choose another folder or remove this one. Got {str(target)!r} with {kind}."
        )
    return target


def _is_known(target, name, names):
    """Say whether a file, or all files of a subfolder, are among those that may be replaced."""
    path = target / name
    if path.is_symlink() or not path.is_dir():
        return name in names
    inside = [*path.iterdir()]
    return bool(inside) and all(
        f"{name}/{entry.name}" in names and not entry.is_dir() for entry in inside
    )


def _sibling(target):
    return target.parent / f"{UNFINISHED}{target.name}-{secrets.token_hex(4)}"


def _put_in_place(work, target, replace):
    """Rename; a crash between the two renames leaves no folder at `target`, never a mixed one."""
    before = None
    if replace and target.exists():
        before = target.rename(_sibling(target))
    try:
        work.rename(target)
    except OSError:
        if not replace and target.is_dir():
            return
        if before is not None:
            before.rename(target)
        raise
    to_disk(target.parent)
    if before is not None:
        shutil.rmtree(before, ignore_errors=True)


def to_disk(path):
    """Wait until the content of a file, or the entries of a folder, are on disk."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open a folder
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
