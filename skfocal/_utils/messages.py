"""What error messages show of documents, labels and parameters: a short, escaped excerpt."""

import contextlib
import reprlib

_REPR = reprlib.Repr()
_REPR.maxlist = _REPR.maxtuple = _REPR.maxset = _REPR.maxfrozenset = _REPR.maxdict = 20
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 60
_REPR.maxlevel = 3


def excerpt(value: object, limit: int = 60) -> str:
    r"""Return the repr of a value, cut to about `limit` characters.

    Line ends and escape sequences are escaped by the repr; a long str or bytes is cut before.

    Examples
    --------
    >>> excerpt("two\nlines")
    "'two\\nlines'"
    >>> len(excerpt("a whole book " * 10_000)) <= 63
    True
    """
    text = repr(value[:limit]) if isinstance(value, str | bytes) else _REPR.repr(value)
    text = " ".join(text.splitlines())  # of arrays
    return text if len(text) <= limit else text[:limit] + "..."


def excerpts(labels):
    """Return a list of labels as messages show it: each one short, and not too many."""
    return excerpt(list(labels), limit=600)


@contextlib.contextmanager
def short_errors(limit=200):
    """Cut the value that scikit-learn's message on a wrong parameter shows: it may be a corpus."""
    try:
        yield
    except (TypeError, ValueError) as error:
        expected, got, value = str(error).partition(" Got ")
        if len(value) <= limit:
            raise
        raise type(error)(f"{expected}{got}{value[:limit]}... instead.") from None
