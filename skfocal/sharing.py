"""Texts that workers on other machines take from the cluster's object store."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self, TypeAlias, overload
from uuid import uuid4

from joblib.parallel import get_active_backend

from skfocal._data.texts import Documents, as_texts
from skfocal._data.tokens import packed_tokens
from skfocal._encoder.pretrained import to_share
from skfocal._estimator.build import tokenizer_and_truncation
from skfocal._runtime.shared_payload import PackedTexts, Payload, open_payload
from skfocal._utils.messages import excerpt
from skfocal._utils.optional import import_optional
from skfocal.classifier import BertFocalClassifier

_Document: TypeAlias = str | tuple[str, str]


class _Place(Protocol):
    """Where a payload is: a cluster's object store."""

    @property
    def n_bytes(self) -> int: ...

    def fetch(self) -> Payload: ...


class SharedTexts(Sequence[_Document]):
    """Documents in a cluster's object store, as returned by :func:`share`.

    scikit-learn selects rows from it as from a list, and the classifier accepts it as X. It is
    immutable. With Ray, a pickle of it holds a reference. With Dask, joblib scatters it because of
    its size, so Dask moves it to each worker once.

    Parameters
    ----------
    name : str
        Unique name.
    place : object
        Where the texts are stored.
    texts : sequence of str or of (str, str), default=None
        The texts themselves, in the process that shared them.
    """

    def __init__(self, name: str, place: _Place, texts: Sequence[_Document] | None = None) -> None:
        self._name = name
        self._place = place
        self._own = texts

    @property
    def _texts(self) -> Sequence[_Document]:
        """The documents; in other processes, those of the opened payload."""
        if self._own is not None:
            return self._own
        texts: Sequence[_Document] = open_payload(self._name, self._place.fetch).texts
        return texts

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, i: int) -> _Document: ...
    @overload
    def __getitem__(self, i: slice) -> list[_Document]: ...
    def __getitem__(self, i: int | slice) -> _Document | list[_Document]:
        texts = self._texts
        if isinstance(i, slice):
            return [texts[j] for j in range(*i.indices(len(texts)))]
        i = operator.index(i)
        if not -len(texts) <= i < len(texts):
            raise IndexError(f"There are {len(texts)} documents. Got index {i}.")
        return texts[i % len(texts)]

    def __sizeof__(self) -> int:
        """Return the bytes that Dask has to move; joblib scatters objects above 1,000 bytes."""
        return object.__sizeof__(self) + self._place.n_bytes

    def to_pylist(self) -> list[_Document]:
        """Return the documents as a list of strings, or of pairs of strings."""
        return self[:]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name}>"

    def __reduce__(self) -> tuple[type[Self], tuple[str, _Place]]:
        return type(self), (self._name, self._place)


def share(
    estimator: BertFocalClassifier, X: Documents, cluster: Literal["dask", "ray"] | None = None
) -> SharedTexts:
    """Put texts, their token ids and the pretrained model into a cluster's object store.

    Use the result in place of `X` in a search: tasks then carry a reference instead of the texts.
    Workers on any machine of the cluster take the texts, token ids and weights from the object
    store instead of tokenising and reading them; they need no folder with the pretrained model.

    Parameters
    ----------
    estimator : BertFocalClassifier
        The estimator that will be fitted, by itself or in a search or pipeline. Its `model`,
        `max_length` and `long_documents` are used. Workers tokenise again for candidates that
        differ in one of these.
    X : as in :meth:`BertFocalClassifier.fit <skfocal.BertFocalClassifier.fit>`
        One string per document, or a pair of strings.
    cluster : {"dask", "ray"}, default=None
        Kind of cluster. None: the kind of joblib's active backend.

    Returns
    -------
    SharedTexts
        A sequence of the documents. It keeps the data in the object store alive.

    Raises
    ------
    TypeError
        If `estimator` is not a BertFocalClassifier, or X is not a container of texts; the message
        names the row.
    ValueError
        If there is no cluster, or if ``trust_remote_code=True``: code that comes with a model
        is not sent to the workers.
    OSError
        If the model cannot be found.

    Examples
    --------
    >>> import joblib
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skfocal import BertFocalClassifier, share
    >>> def search(X_text, y):
    ...     clf = BertFocalClassifier("some/folder")
    ...     grid = GridSearchCV(clf, {"gamma": [0, 1, 2]}, n_jobs=-1)
    ...     with joblib.parallel_config("ray"):
    ...         return grid.fit(share(clf, X_text), y)
    """
    if not isinstance(estimator, BertFocalClassifier):
        raise TypeError(
            "estimator must be the BertFocalClassifier that is to be fitted, the one inside the "
            f"search or pipeline. Got {type(estimator).__name__}."
        )
    if estimator.trust_remote_code:
        raise ValueError(
            "trust_remote_code must be False: code that comes with a model is not sent to other "
            "machines. Got True: put the model's folder on each machine and give the search X "
            "itself."
        )
    put = _store_of(cluster)
    texts = as_texts(X)
    tokenizer, truncation = tokenizer_and_truncation(estimator, texts)
    payload = Payload(
        PackedTexts(texts), packed_tokens(tokenizer, texts, truncation), to_share(estimator.model)
    )
    return SharedTexts(uuid4().hex, put(payload), texts)


# -- object stores -------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _InRay:
    """A reference to a payload; Ray keeps it while any process has the reference."""

    reference: Any
    n_bytes = 0

    @classmethod
    def put(cls, payload: Payload) -> Self:
        ray = import_optional("ray", "cluster='ray'", "ray")
        if not ray.is_initialized():
            ray.init()
        return cls(ray.put(payload))

    def fetch(self) -> Payload:
        import ray

        payload: Payload = ray.get(self.reference)
        return payload


@dataclass(frozen=True, eq=False)
class _InDask:
    """A payload itself: joblib scatters large objects, and its tasks depend on them."""

    payload: Payload

    @property
    def n_bytes(self) -> int:
        n_bytes: int = self.payload.n_bytes
        return n_bytes

    def fetch(self) -> Payload:
        return self.payload


_STORES: dict[str, Callable[[Payload], _Place]] = {"ray": _InRay.put, "dask": _InDask}


def _store_of(cluster: str | None) -> Callable[[Payload], _Place]:
    """Return the function that puts a payload into the store of a cluster."""
    if cluster is None:
        backends = {"RayBackend": "ray", "DaskDistributedBackend": "dask"}
        backend = type(get_active_backend()[0]).__name__
        cluster = backends.get(backend, backend)
    if cluster not in _STORES:
        raise ValueError(
            "cluster must be 'dask' or 'ray', or None where that is joblib's backend; without a "
            f"cluster give the search X itself. Got {excerpt(cluster)}."
        )
    return _STORES[cluster]
