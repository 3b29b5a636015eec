#!/usr/bin/env python
"""The API under load: many clients at the same time, every other one of which disconnects early.

    python benchmarks/api.py
    python benchmarks/api.py --clients 32 --seconds 20 --models runs
    python benchmarks/api.py --pauses

Starts its own server on a free port. Each client streams one completion after another; the time to the first
piece is from sending a request to the first event that contains text.

With --pauses, 31 clients stream long texts while others send what is expensive: long prompts, patterns,
banned strings and prompts to score. A pause is the time between two events of a stream.
"""

import argparse
import json
import math
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection, HTTPException
from itertools import pairwise
from pathlib import Path
from typing import Any

from lm.parallel import available_cores

ROOT = Path(__file__).parent.parent


@dataclass
class Measurements:
    """What all clients measured."""

    requests: int = 0
    disconnects: int = 0
    characters: int = 0
    errors: list[str] = field(default_factory=list)
    first: list[float] = field(default_factory=list)  # seconds to the first piece
    lock: threading.Lock = field(default_factory=threading.Lock)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--length", type=int, default=400, help="tokens per completion")
    parser.add_argument("--models", help="folder of models; default: the shipped model")
    parser.add_argument("--pauses", action="store_true", help="measure the pauses that others cause")
    options = parser.parse_args()
    models = ["--models", str(Path(options.models).resolve())] if options.models else []
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as err:
            server = subprocess.Popen(
                [sys.executable, "-m", "app", "--api", "--port", str(free_port()), *models],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=err,
                text=True,
                encoding="utf-8",
            )
        try:
            address = re.search(r"http://([\d.]+):(\d+)", server.stdout.readline())
            if not address:
                print(f"error: the server did not start: {log.read_text('utf-8')}", file=sys.stderr)
                return 1
            options.pid = server.pid
            (measure_pauses if options.pauses else measure)(address[1], int(address[2]), options)
        finally:
            server.send_signal(signal.SIGTERM)
            status = server.wait(20)
        tracebacks = log.read_text("utf-8").count("Traceback")
    print(f"| tracebacks in the server's log, its exit status | {tracebacks}, {status} |")
    return 0


def free_port() -> int:
    """A port that is not in use."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def measure(host: str, port: int, options: argparse.Namespace) -> None:
    """Run the clients and print what they measured."""
    model = get(host, port, "/v1/models")["data"][0]["id"]
    list(stream(host, port, model, 8, 0))  # the first request loads the model
    measured, deadline = Measurements(), time.perf_counter() + options.seconds
    clients = [
        threading.Thread(target=client, args=(host, port, model, number, options.length, deadline, measured))
        for number in range(options.clients)
    ]
    start, busy = time.perf_counter(), cpu_seconds(options.pid)
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    seconds, busy = time.perf_counter() - start, cpu_seconds(options.pid) - busy
    time.sleep(1)
    remaining = get(host, port, "/health")["writing"]
    first = sorted(measured.first)
    print(f"{options.clients} clients, {options.length} tokens each from '{model}', {seconds:.1f} s\n")
    print("| | |\n|---|---|")
    print(f"| requests, of which disconnected early | {measured.requests:,}, {measured.disconnects:,} |")
    print(f"| characters per second, all clients together | {measured.characters / seconds:,.0f} |")
    print(f"| CPU time of the server for 1,000 characters | {busy / measured.characters * 1e6:.0f} ms |")
    print(f"| time to the first piece, median | {statistics.median(first) * 1000:.0f} ms |")
    print(f"| time to the first piece, 95th percentile | {first[int(len(first) * 0.95)] * 1000:.0f} ms |")
    print(f"| errors | {len(measured.errors)} |")
    print(f"| completions still being generated a second later | {remaining} |")
    for error in sorted(set(measured.errors))[:5]:
        print(f"error: {error}", file=sys.stderr)


def measure_pauses(host: str, port: int, options: argparse.Namespace) -> None:
    """Print the longest pause of any of 31 streams during each kind of expensive request."""
    model = get(host, port, "/v1/models")["data"][0]["id"]
    list(stream(host, port, model, 8, 0))  # the first request loads the model
    begin, leaving = time.perf_counter(), threading.Event()
    events: list[list[float]] = [[] for _ in range(31)]

    def reader(number: int) -> None:
        while not leaving.is_set():  # a text may end early
            events[number].append(math.nan)  # no pause of a stream: another one follows
            for _ in stream(host, port, model, 20_000, number):
                events[number].append(time.perf_counter() - begin)
                if leaving.is_set():
                    break

    readers = [threading.Thread(target=reader, args=(number,)) for number in range(len(events))]
    for thread in readers:
        thread.start()
    time.sleep(3)
    print(f"31 streams from '{model}', {available_cores()} cores\n")
    print("| others | requests | seconds | median pause | longest pause |\n|---|---|---|---|---|")
    for name, requests in {"nothing": [], **expensive(model)}.items():
        start = time.perf_counter()
        with ThreadPoolExecutor(max(len(requests), 1)) as pool:
            statuses = Counter(pool.map(partial(post, host, port), requests))
        time.sleep(2)
        end = time.perf_counter()
        pauses = [
            later - earlier
            for times in events
            for earlier, later in pairwise(times)
            if later > start - begin and earlier < end - begin
        ]
        answers = ", ".join(f"{count} × {status}" for status, count in statuses.items())
        print(
            f"| {name} | {answers} | {end - start:.1f} | {statistics.median(pauses) * 1000:.0f} ms"
            f" | {max(pauses) * 1000:.0f} ms |"
        )
    leaving.set()
    for thread in readers:
        thread.join()


def expensive(model: str) -> dict[str, list[dict[str, Any]]]:
    """Requests that take much computation, by name."""
    common = {"model": model, "max_tokens": 50}
    text = Path(__file__).read_text("utf-8") * 10
    long = [{**common, "prompt": text[number:][:39_600]} for number in range(20)]
    # Each token leads to new states of the automaton.
    pattern = (
        "("
        + "|".join(f"(.*[{a}].{{{n}}})" for a, n in zip("aeiou", (40, 37, 33, 29, 27), strict=True))
        + ")x"
    )
    patterns = [{**common, "match": pattern, "n": 24, "max_tokens": 2000}]
    bans = [{**common, "ban": [text[number * 500 :][:1000] for number in range(64)], "max_tokens": 500}]
    scored = [{**request, "echo": True, "logprobs": 1, "max_tokens": 0} for request in long]
    requests = {
        "20 prompts of 39,600 characters": long,
        "one pattern, n=24": patterns,
        "64 banned strings of 1,000 characters": bans,
        "20 prompts of 39,600 characters to score": scored,
    }
    return {**requests, "all of these": [request for kind in requests.values() for request in kind]}


def post(host: str, port: int, body: dict[str, Any]) -> int:
    """The status of the response to a request."""
    connection = HTTPConnection(host, port, timeout=600)
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status


def client(
    host: str, port: int, model: str, number: int, length: int, deadline: float, measured: Measurements
) -> None:
    """Send one request after another; clients with an odd number disconnect at a random position."""
    rng = random.Random(number)
    while time.perf_counter() < deadline:
        leave_at = rng.randrange(1, length) if number % 2 else None
        characters, first, error, start = 0, None, None, time.perf_counter()
        try:
            for text in stream(host, port, model, length, rng.getrandbits(31)):
                first = first or time.perf_counter() - start
                characters += len(text)
                if leave_at and characters >= leave_at:
                    break
        except (OSError, HTTPException, RuntimeError, ValueError) as caught:
            error = f"{type(caught).__name__}: {caught}"
        with measured.lock:
            measured.requests += 1
            measured.disconnects += bool(leave_at and characters >= leave_at)
            measured.characters += characters
            measured.first += [first] if first else []
            measured.errors += [error] if error else []


def stream(host: str, port: int, model: str, length: int, seed: int) -> Generator[str]:
    """The pieces of one completion. Closing the generator closes the connection."""
    connection = HTTPConnection(host, port, timeout=600)
    try:
        body = {"model": model, "prompt": "The ", "max_tokens": length, "seed": seed, "stream": True}
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/completions", json.dumps(body), headers)
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"{response.status} {response.read().decode()}")
        for line in response:
            if line.startswith(b"data: {"):
                event = json.loads(line[6:])
                if "error" in event:
                    raise RuntimeError(event["error"]["message"])
                if text := event["choices"][0]["text"]:
                    yield text
            if line.startswith(b"data: [DONE]"):
                return
        raise RuntimeError("the stream ended early")
    finally:
        connection.close()


def cpu_seconds(pid: int) -> float:
    """The CPU time that a process has used so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def get(host: str, port: int, path: str) -> dict[str, Any]:
    """A JSON object from the server."""
    connection = HTTPConnection(host, port, timeout=60)
    connection.request("GET", path)
    value = json.loads(connection.getresponse().read())
    connection.close()
    return value


if __name__ == "__main__":
    sys.exit(main())
