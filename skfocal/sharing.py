"""Texts that workers of other machines take from the cluster's object store."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from joblib.parallel import get_active_backend

from skfocal._data.texts import as_texts
from skfocal._data.tokens import packed_tokens
from skfocal._encoder.pretrained import to_share
from skfocal._estimator.build import tokenizer_and_truncation
from skfocal._runtime.shared_payload import PackedTexts, Payload, open_payload
from skfocal._utils.messages import excerpt
from skfocal._utils.optional import import_optional
from skfocal.classifier import BertFocalClassifier


class SharedTexts(Sequence):
    """Documents in a cluster's object store; :func:`share` makes it.

    scikit-learn takes rows of it as of a list, and the classifier takes it as X. It cannot be
    changed. With Ray a pickle holds a reference. With Dask it is large, and a task that joblib
    sends depends on it, so that Dask moves it once to each worker.

    Parameters
    ----------
    name : str
        Tells it from others.
    place : object
        Where its texts are.
    texts : sequence of str or of (str, str), default=None
        They themselves, where they were shared.
    """

    def __init__(self, name, place, texts=None):
        self._name = name
        self._place = place
        self._own = texts

    @property
    def _texts(self):
        """The documents; elsewhere than where they were shared, the parcel, opened."""
        if self._own is not None:
            return self._own
        return open_payload(self._name, self._place.fetch).texts

    def __len__(self):
        return len(self._texts)

    def __getitem__(self, i):
        texts = self._texts
        if isinstance(i, slice):
            return [texts[j] for j in range(*i.indices(len(texts)))]
        i = operator.index(i)
        if not -len(texts) <= i < len(texts):
            raise IndexError(f"There are {len(texts)} documents. Got index {i}.")
        return texts[i % len(texts)]

    def __sizeof__(self):
        """Return what Dask has to move: joblib scatters what has more than 1,000 bytes."""
        return object.__sizeof__(self) + self._place.n_bytes

    def to_pylist(self):
        """Return the documents as a list of str, or of pairs of str."""
        return self[:]

    def __repr__(self):
        return f"<{type(self).__name__} {self._name}>"

    def __reduce__(self):
        return type(self), (self._name, self._place)


def share(estimator, X, cluster=None):
    """Put texts, their token ids and the pretrained model into a cluster's object store.

    What comes back stands for `X` in a search: tasks carry a reference of it instead of the
    texts. Workers, on any machine of the cluster, take from the object store what they would
    read and tokenise themselves otherwise; they need no folder of the pretrained model.

    Parameters
    ----------
    estimator : BertFocalClassifier
        The one to fit, by itself or in a search or pipeline. Its `model` and what says how
        documents become tokens count: `max_length` and `long_documents`.
        Candidates that differ in one of these are tokenised by the workers.
    X : as in :meth:`BertFocalClassifier.fit <skfocal.BertFocalClassifier.fit>`
        One str a document, or two.
    cluster : {"dask", "ray"}, default=None
        None is that of joblib's backend.

    Returns
    -------
    SharedTexts
        A sequence of the documents. What is in the object store stays there as long as it lives.

    Raises
    ------
    TypeError
        If `estimator` is no BertFocalClassifier, or X no container of texts; the row is named.
    ValueError
        If there is no cluster, or with ``trust_remote_code=True``: code that comes with a model
        does not travel.
    OSError
        If there is no such model.

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
            "trust_remote_code must be False: code that comes with a model does not travel. Got "
            "True: put the model's folder on each machine and give the search X itself."
        )
    put = _store_of(cluster)
    texts = as_texts(X)
    tokenizer, truncation = tokenizer_and_truncation(estimator, texts)
    parcel = Payload(
        PackedTexts(texts), packed_tokens(tokenizer, texts, truncation), to_share(estimator.model)
    )
    return SharedTexts(uuid4().hex, put(parcel), texts)


# -- object stores -------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _InRay:
    """Refers to a parcel; Ray looks after it while any process has the reference."""

    reference: Any
    n_bytes = 0

    @classmethod
    def put(cls, parcel):
        ray = import_optional("ray", "cluster='ray'", "ray")
        if not ray.is_initialized():
            ray.init()
        return cls(ray.put(parcel))

    def fetch(self):
        import ray

        return ray.get(self.reference)


@dataclass(frozen=True, eq=False)
class _InDask:
    """Holds a parcel: joblib scatters what is large, and its tasks depend on it."""

    parcel: Payload

    @property
    def n_bytes(self):
        return self.parcel.n_bytes

    def fetch(self):
        return self.parcel


_STORES = {"ray": _InRay.put, "dask": _InDask}


def _store_of(cluster):
    """Return what puts a parcel into a cluster's store, by its name or joblib's backend."""
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
