"""examples/serve.py as a process: its answers, its limits, overload, and its end."""

import asyncio
import http.client
import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from skfocal import OnnxClassifier

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

SCRIPT = Path(__file__).parents[1] / "examples" / "serve.py"
LIMITS = {"BYTES": 10_000, "TEXTS": 5, "WAITING": 6, "BATCH": 4}

# The example, but its batches are counted, and wait while there is a file named "hold".
WATCHED = """
import pathlib, runpy, sys, threading, time
from skfocal import OnnxClassifier

folder, *sys.argv = sys.argv[1:]
folder, outputs = pathlib.Path(folder), OnnxClassifier.outputs

def watched(self, X):
    if threading.current_thread().name.startswith("skfocal-batches"):
        with open(folder / "calls", "a") as file:
            print(len(X), file=file)
        while (folder / "hold").exists():
            time.sleep(0.005)
    return outputs(self, X)

OnnxClassifier.outputs = watched
sys.path.insert(0, str(pathlib.Path(sys.argv[0]).parent))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def until(found, process=None, seconds=120):
    """Return what `found` returns as soon as it is true, for at most some seconds."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, "what was waited for did not happen"
        assert process is None or process.poll() is None, "the server has ended"
        time.sleep(0.01)
    return value


class Server:
    """The example on a free port of the loopback interface, until `end`."""

    def __init__(self, command, folder, **limits):
        self.folder, self.log = folder, folder / "log"
        settings = {f"SERVE_{name}": str(value) for name, value in limits.items()}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, *map(str, command), "--port", "0"],
                stdout=log,
                stderr=log,
                env={**os.environ, **settings},
                cwd=folder,
            )
        running = r"running on http://127\.0\.0\.1:(\d+)"
        find = lambda: re.search(running, self.log.read_text())  # noqa: E731
        self.port = int(until(find, self.process)[1])

    def ask(self, method, path, body=None, **options):
        """Return status, headers and content of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request(method, path, body, **options)
        answer = connection.getresponse()
        content = json.loads(answer.read())
        connection.close()
        return answer.status, answer.headers, content

    def predict(self, texts):
        return self.ask("POST", "/predict", json.dumps({"texts": texts}))

    def calls(self):
        """Return the texts of each call of the model so far."""
        path = self.folder / "calls"
        return [int(n) for n in path.read_text().split()] if path.exists() else []

    def end(self):
        """Ask the process to end as an operator does; return its status and what it wrote."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(60)
        return status, self.log.read_text()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def server(onnx_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    server = Server(["-c", WATCHED, folder, SCRIPT, onnx_folder], folder, **LIMITS)
    yield server
    server.kill()


@pytest.fixture(scope="module")
def served(onnx_folder):
    return OnnxClassifier(onnx_folder, n_threads=1)


@pytest.fixture
def held(server):
    """Hold the batches of the server until the test, or what it calls, lets go of them."""
    hold = server.folder / "hold"
    hold.touch()
    yield lambda: hold.unlink(missing_ok=True)
    hold.unlink(missing_ok=True)


def assert_answered(found, served, X):
    status, _, answer = found
    assert status == 200, answer
    assert answer["classes"] == served.classes_.tolist()
    assert answer["labels"] == served.predict(X).tolist()
    np.testing.assert_allclose(answer["probabilities"], served.predict_proba(X), atol=1e-5)


def test_the_example_fits_on_a_page():
    assert len(SCRIPT.read_text().splitlines()) <= 70


def test_answers_are_those_of_the_classifier_in_their_order(server, served, data):
    assert server.ask("GET", "/health")[::2] == (200, {"status": "ok"})
    for X in (data[0][:5], [""], ["café 日本 \x00 \U0001f600", "win money now " * 100]):
        assert_answered(server.predict(X), served, X)


BAD = {
    "no JSON": ("win money", "Invalid JSON"),
    "nothing": ("", "Invalid JSON"),
    "half a character": ('{"texts": ["\\ud800"]}', "Invalid JSON"),
    "too deep": ('{"texts": ' + "[" * 4000, "recursion limit"),
    "no object": ('["win money"]', "object"),
    "no texts": ('{"text": ["win money"]}', "Field required"),
    "a single text": ('{"texts": "win money"}', "valid array"),
    "no text": ('{"texts": []}', "at least 1 item"),
    "too many texts": (json.dumps({"texts": ["win"] * 6}), "at most 5 items"),
    "a number": ('{"texts": ["win", 3]}', "valid string"),
    "null": ('{"texts": [null]}', "valid string"),
    "pairs": ('{"texts": [["win", "money"]]}', "valid string"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_are_told_what_is_wrong(server, name):
    body, message = BAD[name]
    status, _, answer = server.ask("POST", "/predict", body)
    assert status == 422 and message in answer["detail"][0]["msg"]


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_bodies_beyond_the_limit_are_refused_however_they_come(server, served, chunked):
    def post(n_bytes):
        body = json.dumps({"texts": ["win"]}).ljust(n_bytes).encode()
        if not chunked:
            return server.ask("POST", "/predict", body)
        parts = [body[i : i + 1000] for i in range(0, len(body), 1000)]
        chunked_body = {"headers": {"Transfer-Encoding": "chunked"}, "encode_chunked": True}
        return server.ask("POST", "/predict", iter(parts), **chunked_body)

    assert_answered(post(LIMITS["BYTES"]), served, ["win"])
    for n_bytes in (LIMITS["BYTES"] + 1, 100 * LIMITS["BYTES"]):
        status, _, answer = post(n_bytes)
        assert status == 413 and "10000 bytes" in answer["detail"]


def test_a_body_without_an_end_is_refused_while_it_comes(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(LIMITS["BYTES"] // 1000 + 1):
            client.sendall(b"3e8\r\n" + b" " * 1000 + b"\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


def test_overload_is_refused_at_once_and_passes(server, served, held):
    n_before = len(server.calls())
    with ThreadPoolExecutor(13) as pool:
        first = pool.submit(server.predict, ["lunch"])
        until(lambda: len(server.calls()) > n_before)  # it is computed, the others wait
        texts = [[f"win money {i}"] for i in range(12)]
        futures = [pool.submit(server.predict, X) for X in texts]
        until(lambda: sum(future.done() for future in futures) == 6)
        assert server.predict(["win", 3])[0] == 422  # while others wait
        assert server.ask("GET", "/health")[0] == 200
        refused = [future for future in futures if future.done()]
        held()
        assert len(refused) == 6 and not first.done()
        assert_answered(first.result(), served, ["lunch"])
        for X, future in zip(texts, futures, strict=True):
            if future not in refused:
                assert_answered(future.result(), served, X)
    for status, headers, answer in (future.result() for future in refused):
        assert (status, headers["Retry-After"]) == (503, "1")
        assert "At most 6 texts may wait. Got 1 more while 6 wait" in answer["detail"]
    # What waited shared calls, of at most four texts each.
    assert server.calls()[n_before:] == [1, 4, 2]
    assert_answered(server.predict(["cash"]), served, ["cash"])


def test_what_waits_for_a_client_that_hung_up_is_not_computed(onnx_folder, monkeypatch):
    calls, entered, gate = [], asyncio.Event(), threading.Event()
    outputs = OnnxClassifier.outputs

    def gated(self, X):
        if threading.current_thread().name.startswith("skfocal-batches"):
            calls.append(list(X))
            loop.call_soon_threadsafe(entered.set)
            assert gate.wait(60)
        return outputs(self, X)

    async def ask(app, texts, hangs_up):
        """Return the messages of an answer to a client that hangs up, or waits."""
        body = json.dumps({"texts": texts}).encode()
        incoming, sent = asyncio.Queue(), []
        incoming.put_nowait({"type": "http.request", "body": body, "more_body": False})
        if hangs_up:
            incoming.put_nowait({"type": "http.disconnect"})
        scope = {"type": "http", "method": "POST", "path": "/predict", "headers": []}
        scope |= {"query_string": b"", "http_version": "1.1"}

        async def send(message):
            sent.append(message)

        await app(scope, incoming.get, send)
        return sent

    async def talk(app):
        first = asyncio.create_task(ask(app, ["lunch"], hangs_up=False))
        await entered.wait()  # it is computed, the others wait
        gone = await ask(app, ["win", "money"], hangs_up=True)
        gate.set()
        last = await ask(app, ["cash"], hangs_up=False)
        return [answer[0]["status"] for answer in (await first, gone, last)]

    monkeypatch.setenv("SERVE_FOLDER", str(onnx_folder))
    monkeypatch.setattr(OnnxClassifier, "outputs", gated)
    app = runpy.run_path(str(SCRIPT))["make_app"]()
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        assert runner.run(talk(app)) == [200, 400, 200]
    assert calls == [["lunch"], ["cash"]]


def send_half(server):
    """Open a connection, send a part of a request and hang up."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")


def send_whole(server):
    """Send a request and hang up before it is answered."""
    body = b'{"texts": ["win"]}'
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        client.sendall(head + body)
        n_before = len(server.calls())
        until(lambda: len(server.calls()) > n_before)


def test_clients_that_hang_up_leave_the_others_alone(server, served, held):
    send_whole(server)
    with ThreadPoolExecutor(1) as pool:
        patient = pool.submit(server.predict, ["win money"])
        send_half(server)
        held()
        assert_answered(patient.result(), served, ["win money"])
    assert_answered(server.predict(["cash"]), served, ["cash"])
    assert "Traceback" not in server.log.read_text()


def test_pairs_of_several_labels_are_served_until_sigterm(onnx_pairs_folder, tmp_path):
    server = Server([SCRIPT, onnx_pairs_folder], tmp_path)
    try:
        pairs = [["win money", "now"], ["lunch meeting", "with the team"]]
        status, _, answer = server.predict(pairs)
        served = OnnxClassifier(onnx_pairs_folder, n_threads=1)
        assert status == 200 and server.ask("GET", "/health")[0] == 200
        np.testing.assert_allclose(answer["probabilities"], served.predict_proba(pairs), atol=1e-5)
        labels = [[k for k in range(3) if row[k]] for row in served.predict(pairs)]
        assert answer["labels"] == labels and answer["classes"] == [0, 1, 2]
        assert server.predict(["a single text"])[0] == 422
        status, log = server.end()
    finally:
        server.kill()
    assert status in (0, -signal.SIGTERM)
    assert "Application shutdown complete" in log and "Traceback" not in log


def test_requests_under_way_are_answered_before_the_end(onnx_folder, served, tmp_path):
    server = Server(["-c", WATCHED, tmp_path, SCRIPT, onnx_folder], tmp_path)
    hold = tmp_path / "hold"
    hold.touch()
    try:
        with ThreadPoolExecutor(1) as pool:
            late = pool.submit(server.predict, ["win money"])
            until(server.calls)
            server.process.send_signal(signal.SIGTERM)
            until(lambda: "Shutting down" in server.log.read_text())
            hold.unlink()
            assert_answered(late.result(), served, ["win money"])
        assert server.process.wait(60) in (0, -signal.SIGTERM)
        assert "Traceback" not in server.log.read_text()
    finally:
        server.kill()
