"""Short, escaped excerpts of documents, labels and parameters for error messages."""

import contextlib
import reprlib

_REPR = reprlib.Repr()
_REPR.maxlist = _REPR.maxtuple = _REPR.maxset = _REPR.maxfrozenset = _REPR.maxdict = 20
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 60
_REPR.maxlevel = 3


def excerpt(value: object, limit: int = 60) -> str:
    r"""Return the repr of a value, cut to about `limit` characters.

    The repr escapes line ends and control characters. A long str or bytes is cut first.

    Examples
    --------
    >>> excerpt("two\nlines")
    "'two\\nlines'"
    >>> len(excerpt("a whole book " * 10_000)) <= 63
    True
    """
    text = repr(value[:limit]) if isinstance(value, str | bytes) else _REPR.repr(value)
    text = " ".join(text.splitlines())  # the repr of an array has several lines
    return text if len(text) <= limit else text[:limit] + "..."


def excerpts(labels):
    """Return the repr of a list of labels for a message, cut to a readable length."""
    return excerpt(list(labels), limit=600)


@contextlib.contextmanager
def short_errors(limit=200):
    """Shorten the value in scikit-learn's message on an invalid parameter: it may be a corpus."""
    try:
        yield
    except (TypeError, ValueError) as error:
        expected, got, value = str(error).partition(" Got ")
        if len(value) <= limit:
            raise
        raise type(error)(f"{expected}{got}{value[:limit]}... instead.") from None
