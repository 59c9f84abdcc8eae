"""Measure how long requests to examples/serve.py take: one at a time, many at once, too many.

python tests/benchmarks/serve.py           # ten minutes

A server with dynamic batching and one without it (batches of one text) run side by side on the
loopback interface and get requests in turns. First, clients each ask again as soon as they get an
answer. Then requests arrive at random, at 2.5 times the largest throughput seen, whether earlier
ones are answered or not. Each request is one document of Reuters R8, or its first words.
"""

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from common import DOCS, write_block
from skfocal import BertFocalClassifier, OnnxClassifier, fetch_minilm, fetch_reuters

SCRIPT = Path(__file__).parents[2] / "examples" / "serve.py"
WAYS = {"batches": {}, "one text at a time": {"SERVE_BATCH": "1"}}
TIMEOUT = 60  # seconds that a client waits
OVERLOAD = 2.5
PARTS = {"Whole documents": None, "The first twelve words": 12}


def export(folder, max_length):
    """Fine-tune MiniLM's last layers on a few hundred documents of R8 and export it."""
    X, y = fetch_reuters("r8", subset="train", return_X_y=True)
    rows = np.random.RandomState(0).permutation(len(X))[:600]
    clf = BertFocalClassifier(
        fetch_minilm(),
        pooling="head",
        alpha="balanced",
        freeze=5,
        lr=1e-3,
        max_length=max_length,
        random_state=0,
    )
    clf.fit([X[i] for i in rows], y[rows]).to_onnx(folder)


class Server:
    """The example as a process, on its own core if there are two."""

    def __init__(self, folder, log, settings, core):
        with open(log, "w") as file:
            self.process = subprocess.Popen(
                [sys.executable, SCRIPT, folder, "--port", "0", "--no-access-log"],
                stdout=file,
                stderr=file,
                env={**os.environ, "OMP_NUM_THREADS": "1", **settings},
                preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            )
        while not (found := re.search(r"on http://127\.0\.0\.1:(\d+)", Path(log).read_text())):
            if self.process.poll() is not None:
                raise RuntimeError(Path(log).read_text())
            time.sleep(0.1)
        self.port = int(found[1])

    def end(self):
        """End it as an operator would."""
        self.process.terminate()
        self.process.wait()


class Connection:
    """A connection that sends one request after the other."""

    def __init__(self, port):
        self.port = port
        self.streams = None

    async def ask(self, method, path, body=b""):
        """Return the status and the content of an answer; a name if there is none."""
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        try:
            async with asyncio.timeout(TIMEOUT):
                if self.streams is None or self.streams[0].at_eof():  # idle, the server closed it
                    self.close()
                    self.streams = await asyncio.open_connection("127.0.0.1", self.port)
                reader, writer = self.streams
                writer.write(head.encode() + body)
                answer = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(re.search(r"content-length: (\d+)", answer, re.I)[1])
                return int(answer.split(" ", 2)[1]), await reader.readexactly(length)
        except (OSError, EOFError, TimeoutError) as error:
            self.close()
            return type(error).__name__, b""

    def close(self):
        if self.streams is not None:
            self.streams[1].close()
        self.streams = None


class Load:
    """Send documents as requests, and record the results."""

    def __init__(self, texts, labels):
        self.bodies = [json.dumps({"texts": [text]}).encode() for text in texts]
        self.labels = labels
        self.rows = np.random.RandomState(0)

    async def ask(self, connection, found, since=None):
        """Send a document; record status and seconds, counted from `since` if it is given."""
        i = self.rows.randint(len(self.bodies))
        since = time.perf_counter() if since is None else since
        status, content = await connection.ask("POST", "/predict", self.bodies[i])
        seconds = time.perf_counter() - since
        if status == 200 and json.loads(content)["labels"] != [self.labels[i]]:
            status = "wrong"
        found.append((status, seconds))

    async def closed(self, port, n_clients, seconds):
        """Let clients ask again and again; return the results and the seconds they took."""
        found, start = [], time.perf_counter()

        async def client():
            connection = Connection(port)
            while time.perf_counter() < start + seconds:
                await self.ask(connection, found)
            connection.close()

        await asyncio.gather(*(client() for _ in range(n_clients)))
        return found, time.perf_counter() - start

    async def open(self, port, rate, seconds):
        """Let requests arrive at random, whether earlier ones are answered or not."""
        found, idle, tasks, health = [], [], [], []
        times = np.cumsum(self.rows.exponential(1 / rate, int(rate * seconds)))
        start = time.perf_counter()

        async def client(arrival):
            connection = idle.pop() if idle else Connection(port)
            await self.ask(connection, found, arrival)
            idle.append(connection)

        watch = asyncio.create_task(look_after(port, health))
        for arrival in start + times:
            await asyncio.sleep(max(arrival - time.perf_counter(), 0))
            tasks.append(asyncio.create_task(client(arrival)))
        await asyncio.gather(*tasks)
        took = time.perf_counter() - start
        watch.cancel()
        for connection in idle:
            connection.close()
        return found, took, health


async def look_after(port, found):
    """Ask `/health` twice per second."""
    connection = Connection(port)
    try:
        while True:
            start = time.perf_counter()
            status, _ = await connection.ask("GET", "/health")
            found.append((status, time.perf_counter() - start))
            await asyncio.sleep(0.5)
    finally:
        connection.close()


def quantiles(found, *statuses):
    """Return median, 95th and 99th percentile of the milliseconds of answers, as cells."""
    times = [1000 * seconds for status, seconds in found if status in statuses]
    if not times:
        return " – | – | – "
    return " | ".join(f"{value:.0f}" for value in np.quantile(times, [0.5, 0.95, 0.99]))


def counts(found):
    """Return the numbers of answers, refusals and others, as cells."""
    n = Counter(status for status, _ in found)
    others = sum(n.values()) - n[200] - n[503]
    return f"{n[200]} | {n[503]} | {others}"


def rates(turns):
    """Return the answers per second over all turns, and the lowest and highest of a turn."""
    answered = [sum(status == 200 for status, _ in found) for found, *_ in turns]
    seconds = [took for _, took, *_ in turns]
    each = [n / took for n, took in zip(answered, seconds, strict=True)]
    return sum(answered) / sum(seconds), min(each), max(each)


def cells(turns, *statuses):
    """Return the cells of a line: rates, quantiles of times, numbers of answers."""
    found = [answer for answers, *_ in turns for answer in answers]
    times = [quantiles(found, status) for status in statuses]
    mean, least, most = rates(turns)
    return " | ".join([f"{mean:.1f} ({least:.1f} – {most:.1f})", *times, counts(found)])


def load_in_turns(servers, load, options):
    """Return a line per number of clients and server, and the largest throughput."""
    closed = {(n, way): [] for n in options.clients for way in servers}
    for n, way in [key for _ in range(options.turns) for key in closed]:
        turn = asyncio.run(load.closed(servers[way].port, n, options.seconds))
        closed[n, way].append(turn)
        print(n, way, Counter(status for status, _ in turn[0]), flush=True)
    lines = [f"| {n} | {way} | {cells(turns, 200)} |" for (n, way), turns in closed.items()]
    return lines, max(rates(turns)[0] for turns in closed.values())


def overload(servers, load, rate, options):
    """Return a line per server; the requests exceed what any of them can answer."""
    found = {way: [] for way in servers}
    for way in [way for _ in range(options.turns) for way in servers]:
        turn = asyncio.run(load.open(servers[way].port, rate, options.overload_seconds))
        found[way].append(turn)
        print("overload", way, Counter(status for status, _ in turn[0]), flush=True)
    lines = []
    for way, turns in found.items():
        health = [answer for *_, answers in turns for answer in answers]
        well = sum(status == 200 for status, _ in health)
        slowest = 1000 * max(seconds for _, seconds in health)
        checks = f"{well} of {len(health)}, {slowest:.0f} ms"
        lines.append(f"| {way} | {cells(turns, 200, 503)} | {checks} |")
    return lines


def documents(n_words, n=500):
    """Return documents of R8's test split, or their first words."""
    X, _ = fetch_reuters("r8", subset="test", return_X_y=True)
    return [" ".join(text.split()[:n_words]) if n_words else text for text in X[:n]]


def section(title, servers, load, options):
    """Load the servers; return the lines of a section of the page."""
    for server in servers.values():
        asyncio.run(load.closed(server.port, 4, 1))  # to warm up
    closed, best = load_in_turns(servers, load, options)
    rate = OVERLOAD * best
    return [
        f"## {title}",
        "",
        "Each client asks again as soon as it gets an answer:",
        "",
        "| clients | server | answers/s (range) | p50 ms | p95 ms | p99 ms | 200 | 503 | other |",
        "|---:|---|" + "---:|" * 7,
        *closed,
        "",
        f"{rate:.0f} requests per second, {OVERLOAD} times the most answered above, arriving at",
        "random. Milliseconds are counted from the time when a request was due:",
        "",
        "| server | answers/s (range) | p50 ms | p95 ms | p99 ms "
        "| p50 of 503 | p95 of 503 | p99 of 503 | 200 | 503 | other | /health: 200, slowest |",
        "|---|" + "---:|" * 11,
        *overload(servers, load, rate, options),
        "",
    ]


def main():
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--seconds", type=float, default=4, help="length of each run")
    parser.add_argument("--overload-seconds", type=float, default=8, help="under overload")
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--write", action="store_true", help="docs/benchmarks/serving.md")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0]})
    servers, lines = {}, []
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work, "onnx")
        export(folder, options.max_length)
        served = OnnxClassifier(folder, n_threads=1)
        try:
            for i, (way, settings) in enumerate(WAYS.items()):
                servers[way] = Server(folder, Path(work, f"log{i}"), settings, cores[-1])
            for title, n_words in PARTS.items():
                X = documents(n_words)
                lines += section(title, servers, Load(X, served.predict(X).tolist()), options)
        finally:
            for server in servers.values():
                server.end()
    head = (
        f"MiniLM, cut at {options.max_length} tokens, one thread of ONNX Runtime; each request is "
        f"one document of R8's test split. {options.turns} turns of {options.seconds:g} s, and of "
        f"{options.overload_seconds:g} s under overload. The server had one of 2 CPU cores and "
        "the clients the other; other work ran on both. At most 128 texts may wait. Other: no "
        "answer, another status, or a label that differs from that of `OnnxClassifier`.\n"
    )
    block = "\n".join([head, *lines])
    print(block)
    if options.write:
        write_block(DOCS / "serving.md", "A server under load", block)


if __name__ == "__main__":
    main()
