"""Many small requests to an exported classifier, answered in a few large calls."""

import os
import queue
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple, Self

from skfocal._data.texts import Documents, a_document, as_texts, check_kind
from skfocal.serving._classifier import OnnxClassifier

_Answer = dict[str, Any]
_Texts = list[str] | list[tuple[str, str]]


class _Request(NamedTuple):
    texts: _Texts
    future: Future[_Answer]
    until: float  # the time up to which it waits for others


class OnnxBatcher:
    """Dynamic batching for servers: requests that wait at the same time share a call.

    One thread calls the classifier. While it computes, requests gather; the next call takes as
    many as fit into a batch, the oldest first. If too many texts are waiting, a request is refused
    at once. Any number of threads may submit requests, and coroutines can await
    ``asyncio.wrap_future(batcher.submit(texts))``.

    Parameters
    ----------
    classifier : OnnxClassifier
        The classifier that answers.
    max_texts : int, default=32
        Maximum number of texts per batch. A request with more texts is a batch by itself. 1 turns
        batching off for requests with a single text.
    max_wait : float, default=0.002
        Seconds that the oldest request waits for others while nothing is being computed.
    max_waiting : int, default=128
        Requests are refused while this many texts are waiting, not counting those in the running
        call.

    Examples
    --------
    >>> from skfocal import OnnxBatcher, OnnxClassifier
    >>> with OnnxBatcher(OnnxClassifier("my-folder")) as batcher:  # doctest: +SKIP
    ...     futures = [batcher.submit([text]) for text in texts]
    ...     labels = [future.result()["labels"][0] for future in futures]
    """

    def __init__(
        self,
        classifier: OnnxClassifier,
        *,
        max_texts: int = 32,
        max_wait: float = 0.002,
        max_waiting: int = 128,
    ) -> None:
        limits = {"max_texts": (max_texts, 1), "max_wait": (max_wait, 0)}
        for name, (value, least) in {**limits, "max_waiting": (max_waiting, 1)}.items():
            if not value >= least:
                raise ValueError(f"{name} must be at least {least}. Got {value!r:.60}.")
        self.classifier = classifier
        self.max_texts = max_texts
        self.max_wait = max_wait
        self.max_waiting = max_waiting
        self._waiting: deque[_Request] = deque()
        self._n_waiting = 0
        self._changed = threading.Condition()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="skfocal-batches")
        self._process = os.getpid()

    def submit(self, X: Documents) -> Future[_Answer]:
        """Submit documents and return at once.

        Parameters
        ----------
        X : as in :meth:`OnnxClassifier.predict`, but not an iterator
            One string per document, or a pair of strings.

        Returns
        -------
        concurrent.futures.Future of dict
            Plain data, ready for JSON. "labels" is a list with a label for each document, or a
            list of labels if documents can have several. "probabilities" is a list with a list
            for each document, and "classes" holds the labels of their columns. If the future is
            cancelled while it waits, the documents are not computed.

        Raises
        ------
        TypeError, ValueError
            If the classifier does not accept X. Such a request does not join a batch. If a call
            fails nevertheless, each of its requests is computed by itself.
        queue.Full
            If too many texts are waiting.
        RuntimeError
            After :meth:`close`, or in a process that was forked since, which has no such thread.
        """
        if os.getpid() != self._process:
            raise RuntimeError(
                "An OnnxBatcher must be made in the process that uses it: its thread was left "
                "behind by a fork. Make one in each worker."
            )
        texts = as_texts(X)[:]  # all rows are checked
        check_kind(texts, self.classifier.pairs_)
        self.classifier._check_tokens(texts)
        request = _Request(texts, Future(), time.monotonic() + self.max_wait)
        with self._changed:
            if self._n_waiting >= self.max_waiting:
                raise queue.Full(
                    f"At most {self.max_waiting} texts may wait. Got {len(texts)} more while "
                    f"{self._n_waiting} wait: try again later."
                )
            self._thread.submit(self._answer_some)
            self._waiting.append(request)
            self._n_waiting += len(texts)
            self._changed.notify()
        return request.future

    def check(self) -> None:
        """Let the classifier answer a document now, ahead of the queue; raise if it cannot."""
        self.classifier.outputs([a_document(self.classifier.pairs_)])

    def close(self) -> None:
        """Answer the waiting requests, accept no more and end the thread."""
        self._thread.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _answer_some(self) -> None:
        """Answer as many waiting requests as fit into a batch; called once per request."""
        with self._changed:
            if self._waiting:
                left = min(max(self._waiting[0].until - time.monotonic(), 0), threading.TIMEOUT_MAX)
                self._changed.wait_for(lambda: self._n_waiting >= self.max_texts, left)
            batch = self._take()
        if batch:
            self._answer(batch)

    def _take(self) -> list[_Request]:
        batch: list[_Request] = []
        room = self.max_texts
        while self._waiting and (not batch or len(self._waiting[0].texts) <= room):
            request = self._waiting.popleft()
            self._n_waiting -= len(request.texts)
            if request.future.set_running_or_notify_cancel():
                batch.append(request)
                room -= len(request.texts)
        return batch

    def _answer(self, batch: list[_Request]) -> None:
        try:
            answers = self._answers([request.texts for request in batch])
        except BaseException as error:  # panics of the tokenizers library are no Exception
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            for request in batch:
                self._answer([request])
            return
        for request, answer in zip(batch, answers, strict=True):
            request.future.set_result(answer)

    def _answers(self, requests: list[_Texts]) -> list[_Answer]:
        outputs = self.classifier.outputs([text for texts in requests for text in texts])
        classes, decided = self.classifier.classes_, self.classifier.decide(outputs)
        if decided.ndim == 2:
            labels = iter([classes[row == 1].tolist() for row in decided])
        else:
            labels = iter(decided.tolist())
        proba = iter(outputs["proba"].tolist())
        return [
            {
                "classes": classes.tolist(),
                "labels": list(islice(labels, len(texts))),
                "probabilities": list(islice(proba, len(texts))),
            }
            for texts in requests
        ]
