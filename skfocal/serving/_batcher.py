"""Many small requests to an exported classifier, answered by few large calls."""

import queue
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple

from skfocal._data.texts import a_document, as_texts, check_kind


class OnnxBatcher:
    """Dynamic batching for servers: requests that wait at the same time share a call.

    One thread calls the classifier. While it computes, requests gather; the next call takes as
    many as go into a batch, the oldest first. What would wait too long is refused at once. Any
    number of threads may submit, and coroutines await
    ``asyncio.wrap_future(batcher.submit(texts))``.

    Parameters
    ----------
    classifier : OnnxClassifier
        What answers.
    max_texts : int, default=32
        Texts of a batch: no further request joins beyond. One that has more is a batch by itself;
        1 turns batching off for requests of a text.
    max_wait : float, default=0.002
        Seconds that the oldest request waits for others while nothing is computed.
    max_waiting : int, default=128
        With so many texts waiting, not counting those in the call that runs, requests are refused.

    Examples
    --------
    >>> from skfocal import OnnxBatcher, OnnxClassifier
    >>> with OnnxBatcher(OnnxClassifier("my-folder")) as batcher:  # doctest: +SKIP
    ...     futures = [batcher.submit([text]) for text in texts]
    ...     labels = [future.result()["labels"][0] for future in futures]
    """

    def __init__(
        self,
        classifier: Any,
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

    def submit(self, X: Any) -> Future:
        """Hand in documents, and return at once.

        Parameters
        ----------
        X : as in :meth:`OnnxClassifier.predict`, but no iterator
            One str a document, or two.

        Returns
        -------
        concurrent.futures.Future of dict
            Plain data, ready for JSON: "labels", a list of a label for each document, or of a list
            of labels if documents have several; "probabilities", a list of a list for each
            document; and "classes", the labels that their columns are of. A future that is
            cancelled while it waits is not computed.

        Raises
        ------
        TypeError, ValueError
            If X is not what the classifier takes. The batch has no such requests, and should a
            call fail nevertheless, each of its requests is computed by itself.
        queue.Full
            If too much waits.
        RuntimeError
            After :meth:`close`.
        """
        texts = as_texts(X)[:]  # all rows are checked
        check_kind(texts, self.classifier.pairs_)
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
        """Let the classifier answer a document now, beside what waits; raise if it cannot."""
        self.classifier.outputs([a_document(self.classifier.pairs_)])

    def close(self) -> None:
        """Answer what waits, take nothing more and end the thread."""
        self._thread.shutdown()

    def __enter__(self) -> "OnnxBatcher":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _answer_some(self):
        """Answer as much of what waits as goes into a batch; called once for each request."""
        with self._changed:
            if self._waiting:
                left = min(max(self._waiting[0].until - time.monotonic(), 0), threading.TIMEOUT_MAX)
                self._changed.wait_for(lambda: self._n_waiting >= self.max_texts, left)
            batch = self._take()
        if batch:
            self._answer(batch)

    def _take(self):
        batch: list[_Request] = []
        room = self.max_texts
        while self._waiting and (not batch or len(self._waiting[0].texts) <= room):
            request = self._waiting.popleft()
            self._n_waiting -= len(request.texts)
            if request.future.set_running_or_notify_cancel():
                batch.append(request)
                room -= len(request.texts)
        return batch

    def _answer(self, batch):
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

    def _answers(self, requests):
        outputs = self.classifier.outputs([text for texts in requests for text in texts])
        classes, labels = self.classifier.classes_, self.classifier.decide(outputs)
        if labels.ndim == 2:
            labels = [classes[row == 1].tolist() for row in labels]
        else:
            labels = labels.tolist()
        labels, proba = iter(labels), iter(outputs["proba"].tolist())
        return [
            {
                "classes": classes.tolist(),
                "labels": list(islice(labels, len(texts))),
                "probabilities": list(islice(proba, len(texts))),
            }
            for texts in requests
        ]


class _Request(NamedTuple):
    texts: list
    future: Future
    until: float  # when it waits for others no longer
