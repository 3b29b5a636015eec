#!/usr/bin/env python
"""How the API holds up under load: many clients at once, of which every other one breaks off.

    python benchmarks/api.py
    python benchmarks/api.py --clients 32 --seconds 20 --models runs

It starts a server of its own on a free port. The clients stream texts one after the other; the time to the
first piece is from sending a request to the first event that holds text.
"""

import argparse
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path

ROOT = Path(__file__).parent.parent


@dataclass
class Seen:
    """What all clients saw."""

    requests: int = 0
    broken_off: int = 0
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
    parser.add_argument("--length", type=int, default=400, help="tokens of a text")
    parser.add_argument("--models", help="a folder of models; default: the one that ships")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = ["--models", str(Path(options.models).resolve())] if options.models else []
        log = Path(folder) / "log"
        with log.open("w") as err:
            server = subprocess.Popen(
                [sys.executable, "-m", "app", "--api", "--port", str(free_port()), *models],
                cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=err,
                text=True,
            )  # fmt: skip
        try:
            found = re.search(r"http://([\d.]+):(\d+)", server.stdout.readline())
            if not found:
                print(f"error: the server did not start: {log.read_text()}", file=sys.stderr)
                return 1
            measure(found[1], int(found[2]), options)
        finally:
            server.send_signal(signal.SIGTERM)
            status = server.wait(20)
        faults = log.read_text().count("Traceback")
    print(f"| tracebacks in the server's log, its exit status | {faults}, {status} |")
    return 0


def free_port() -> int:
    """A port that nothing listens on."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def measure(host: str, port: int, options: argparse.Namespace) -> None:
    """Let the clients loose, and print what they saw."""
    model = get(host, port, "/v1/models")["data"][0]["id"]
    list(stream(host, port, model, 8, 0))  # the model is loaded by the first request
    seen, until = Seen(), time.perf_counter() + options.seconds
    clients = [
        threading.Thread(target=client, args=(host, port, model, number, options.length, until, seen))
        for number in range(options.clients)
    ]
    begin = time.perf_counter()
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    seconds = time.perf_counter() - begin
    time.sleep(1)
    left = get(host, port, "/health")["writing"]
    first = sorted(seen.first)
    print(f"{options.clients} clients, texts of {options.length} tokens by '{model}', {seconds:.1f} s\n")
    print("| | |\n|---|---|")
    print(f"| requests; of them broken off | {seen.requests:,}; {seen.broken_off:,} |")
    print(f"| characters a second, all together | {seen.characters / seconds:,.0f} |")
    print(f"| time to the first piece, median | {statistics.median(first) * 1000:.0f} ms |")
    print(f"| 95th percentile | {first[int(len(first) * 0.95)] * 1000:.0f} ms |")
    print(f"| errors | {len(seen.errors)} |")
    print(f"| texts still being written a second later | {left} |")
    for error in sorted(set(seen.errors))[:5]:
        print(f"error: {error}", file=sys.stderr)


def client(host: str, port: int, model: str, number: int, length: int, until: float, seen: Seen) -> None:
    """Ask again and again; those of odd numbers leave in the middle of the text."""
    chance = random.Random(number)
    while time.perf_counter() < until:
        leave = chance.randrange(1, length) if number % 2 else None
        characters, first, error, begin = 0, None, None, time.perf_counter()
        try:
            for text in stream(host, port, model, length, chance.getrandbits(31)):
                first = first or time.perf_counter() - begin
                characters += len(text)
                if leave and characters >= leave:
                    break
        except (OSError, HTTPException, RuntimeError, ValueError) as caught:
            error = f"{type(caught).__name__}: {caught}"
        with seen.lock:
            seen.requests += 1
            seen.broken_off += bool(leave and characters >= leave)
            seen.characters += characters
            seen.first += [first] if first else []
            seen.errors += [error] if error else []


def stream(host: str, port: int, model: str, length: int, seed: int):  # noqa: ANN201
    """The pieces of one text. Closing it closes the connection."""
    connection = HTTPConnection(host, port, timeout=60)
    try:
        body = {"model": model, "prompt": "The ", "max_tokens": length, "seed": seed, "stream": True}
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status} {answer.read().decode()}")
        line = b""
        for line in answer:
            if line.startswith(b"data: {"):
                event = json.loads(line[6:])
                if "error" in event:
                    raise RuntimeError(event["error"]["message"])
                if text := event["choices"][0]["text"]:
                    yield text
            if line.startswith(b"data: [DONE]"):
                return
        raise RuntimeError("the stream ended in the middle")
    finally:
        connection.close()


def get(host: str, port: int, path: str) -> dict:
    """A JSON object of the server."""
    connection = HTTPConnection(host, port, timeout=60)
    connection.request("GET", path)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


if __name__ == "__main__":
    sys.exit(main())
