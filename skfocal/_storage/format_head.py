"""The head of stored files: format, format version, and the versions that wrote it."""

import importlib.metadata

from skfocal._version import __version__


def format_head(kind, version, packages):
    """Return the head of a file.

    Parameters
    ----------
    kind : str
        Name of the format.
    version : int
        Of the format, counted from 1.
    packages : sequence of str
        Those whose versions are noted beside that of skfocal.

    Returns
    -------
    dict
    """
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {
        "format": kind,
        "format_version": version,
        "versions": {"skfocal": __version__, **versions},
    }


def check_head(head, file, kind, newest):
    """Return the version of a format.

    Parameters
    ----------
    head : dict
        With what :func:`format_head` returned.
    file : str
        Where it was found.
    kind : str
    newest : int
        The highest version that can be read.

    Raises
    ------
    ValueError
        If it is another format, or a newer version.
    """
    if head.get("format") != kind:
        raise ValueError(f"{file} must have format {kind!r}. Got {head.get('format')!r:.60}.")
    version = head.get("format_version")
    if type(version) is not int or version < 1:
        raise ValueError(f"{file} must have a format_version. Got {version!r:.60}.")
    if version > newest:
        raise ValueError(
            f"{file} has format_version {version!r:.60}, and skfocal {__version__} reads "
            f"up to {newest}: install a newer skfocal."
        )
    return version
