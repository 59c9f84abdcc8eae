"""What an explanation holds, and how it is shown in a terminal."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from skfocal._pages.page import Page

_SHOWN = 10  # documents in a terminal, and words of each
_BAR = 20  # characters of the longest bar


@dataclass(frozen=True, eq=False, repr=False)
class DocumentExplanation:
    """What the words of one document add to the log-odds of one class.

    Attributes
    ----------
    row : int
        Row of the document in X, from 0.
    text : str or (str, str)
        The document.
    target : object
        The class, or the label, that is explained.
    words : list of str
        The words that the classifier reads, in the order of the text.
    spans : int64 ndarray of shape (n_words, 2)
        The characters of each word, from start to stop: ``text[start:stop]`` is the word.
    texts : int64 ndarray of shape (n_words,)
        The text that each word is in: 0, or 1 for the second of a pair.
    attributions : float64 ndarray of shape (n_words,)
        What each word adds to the log-odds, in nats: positive for the class, negative against it.
    log_odds : float
        Log-odds of the class: its logit minus the logarithm of the summed exponentials of the
        others, or the logit of a label.
    baseline_log_odds : float
        The same with all words replaced by the baseline.
    n_unread : int
        Number of words of the text that the classifier does not read, for example those beyond
        `max_length`.

    Examples
    --------
    >>> import numpy as np
    >>> from skfocal import DocumentExplanation
    >>> document = DocumentExplanation(
    ...     row=0,
    ...     text="Win cash now",
    ...     target="spam",
    ...     words=["Win", "cash", "now"],
    ...     spans=np.array([[0, 3], [4, 8], [9, 12]]),
    ...     texts=np.zeros(3, int),
    ...     attributions=np.array([1.5, 2.0, -0.25]),
    ...     log_odds=2.0,
    ...     baseline_log_odds=-1.25,
    ...     n_unread=0,
    ... )
    >>> document.strongest(2)
    {'cash': 2.0, 'Win': 1.5}
    >>> document.completeness_error
    0.0
    >>> print(document)
    row 0, spam: log-odds +2.00, without words -1.25, error +0.000
        +2.000  ++++++++++++++++++++  cash
        +1.500  +++++++++++++++       Win
        -0.250  --                    now
    """

    row: int
    text: str | tuple[str, str]
    target: Any
    words: list[str]
    spans: NDArray[np.int64]
    texts: NDArray[np.int64]
    attributions: NDArray[np.float64]
    log_odds: float
    baseline_log_odds: float
    n_unread: int

    @property
    def completeness_error(self) -> float:
        """Sum of the attributions minus ``log_odds - baseline_log_odds``, ideally 0."""
        return float(self.attributions.sum()) - (self.log_odds - self.baseline_log_odds)

    def strongest(self, n_words: int = 10) -> dict[str, float]:
        """Return the words that add most for or against the class, the strongest first.

        Parameters
        ----------
        n_words : int, default=10
            Number of words. The attributions of a word that occurs several times are summed, in
            whatever case it is written.

        Returns
        -------
        dict of str -> float
        """
        sums: dict[str, float] = {}
        spelling: dict[str, str] = {}
        for word, value in zip(self.words, self.attributions.tolist(), strict=True):
            key = word.casefold()
            sums[key] = sums.get(key, 0.0) + value
            spelling.setdefault(key, word)
        order = sorted(sums, key=lambda key: -abs(sums[key]))[:n_words]
        return {spelling[key]: sums[key] for key in order}

    def __str__(self) -> str:
        lines = [
            f"row {self.row}, {_plain(self.target)}: log-odds {self.log_odds:+.2f}, without words "
            f"{self.baseline_log_odds:+.2f}, error {self.completeness_error:+.3f}"
        ]
        words = self.strongest(_SHOWN)
        longest = max(map(abs, words.values()), default=1.0) or 1.0
        for word, value in words.items():
            bar = ("+" if value > 0 else "-") * round(_BAR * abs(value) / longest)
            lines.append(f"  {value:+8.3f}  {bar:{_BAR}}  {_plain(word)}")
        n_others = len({word.casefold() for word in self.words}) - len(words)
        if n_others:
            lines.append(f"  and {n_others} weaker word{'s' * (n_others > 1)}")
        if self.n_unread:
            lines.append(f"  {self.n_unread} word{'s' * (self.n_unread > 1)} not read")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Explanation of row {self.row}, {self.target!r}: {len(self.words)} words>"


class Explanation(Page, Sequence[DocumentExplanation]):
    """What the words of documents add to the log-odds of classes.

    :meth:`BertFocalClassifier.explain` returns it. It is a sequence of
    :class:`DocumentExplanation`, one per document; with several labels per document, one for each
    label that is explained. A notebook shows the texts with their words marked, ``print`` lists the
    strongest words, and :meth:`save` writes a page.

    Parameters
    ----------
    documents : sequence of DocumentExplanation
    n_steps : int
        Number of steps of the integral.
    baseline : str
        The token that replaces words in the baseline.
    """

    def __init__(
        self, documents: Sequence[DocumentExplanation], *, n_steps: int, baseline: str
    ) -> None:
        self.documents = list(documents)
        self.n_steps = n_steps
        self.baseline = baseline

    def __len__(self) -> int:
        return len(self.documents)

    @overload
    def __getitem__(self, key: int) -> DocumentExplanation: ...
    @overload
    def __getitem__(self, key: slice) -> "Explanation": ...
    def __getitem__(self, key: int | slice) -> "DocumentExplanation | Explanation":
        if isinstance(key, slice):
            return Explanation(self.documents[key], n_steps=self.n_steps, baseline=self.baseline)
        return self.documents[key]

    @property
    def table(self) -> dict[str, list[Any]]:
        """All words as columns, which ``pandas.DataFrame`` accepts.

        "row" and "target"; "text", the text of a pair, 0 or 1; "word", "start" and "stop"; and
        "attribution".
        """
        names = ("row", "target", "text", "word", "start", "stop", "attribution")
        columns: dict[str, list[Any]] = {name: [] for name in names}
        for document in self.documents:
            n = len(document.words)
            columns["row"] += [document.row] * n
            columns["target"] += [document.target] * n
            columns["text"] += document.texts.tolist()
            columns["word"] += document.words
            columns["start"] += document.spans[:, 0].tolist()
            columns["stop"] += document.spans[:, 1].tolist()
            columns["attribution"] += document.attributions.tolist()
        return columns

    def _title(self) -> str:
        return "Explanation"

    def _content(self) -> str:
        from skfocal.explanation._page import content

        return content(self)

    def __str__(self) -> str:
        shown = [str(document) for document in self.documents[:_SHOWN]]
        if len(self) > _SHOWN:
            shown.append(f"and {len(self) - _SHOWN} more")
        return "\n\n".join([f"{self!r}", *shown])

    def __repr__(self) -> str:
        n = len({document.row for document in self.documents})
        return (
            f"<Explanation of {n} document{'s' * (n != 1)}: integrated gradients, "
            f"{self.n_steps} steps, baseline {self.baseline}>"
        )


def _plain(value: object) -> str:
    """Return text for a terminal, without control characters or lone surrogates."""
    return "".join(c if c.isprintable() else " " for c in str(value))
