#!/usr/bin/env python
"""The page under load: many users at the same time, through gradio_client, and how soon it is usable.

    python benchmarks/page.py
    python benchmarks/page.py --users 32 --seconds 120 --visits 200 --browser

Starts its own server on a free port. Each user generates one text after another. Every fourth user cancels
each text at a random position, and every eighth user's process dies while a long text is being generated. The
time to the first text is from the request to the first update that contains text. Memory is RssAnon, the
memory that the server has allocated itself.
"""

import argparse
import multiprocessing
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.end_to_end.browsers import find_browser

ROOT = Path(__file__).resolve().parent.parent
ENDED = re.compile(r"(\d+) tokens in .*: (\w+)")


@dataclass
class Measurements:
    """What one user measured."""

    number: int
    requests: int = 0
    canceled: int = 0
    characters: int = 0
    errors: list[str] = field(default_factory=list)
    first: list[float] = field(default_factory=list)  # seconds to the first text


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--length", type=int, default=400, help="tokens per text")
    parser.add_argument("--visits", type=int, default=0, help="number of short visits afterwards")
    parser.add_argument("--browser", action="store_true", help="also measure startup in Chromium")
    parser.add_argument("--models", help="folder of models; default: the shipped model")
    options = parser.parse_args()
    models = ["--models", str(Path(options.models).resolve())] if options.models else []
    with tempfile.TemporaryDirectory() as folder:
        output, log = Path(folder) / "output", Path(folder) / "log"
        start = time.perf_counter()
        with output.open("wb") as out, log.open("wb") as err:
            server = subprocess.Popen(
                [sys.executable, "-m", "app", "--port", str(free_port()), *models],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=out,
                stderr=err,
            )
        try:
            while not (address := re.search(r"The page is at (\S+)", output.read_text("utf-8"))):
                if server.poll() is not None:
                    print(f"error: the server did not start: {log.read_text('utf-8')}", file=sys.stderr)
                    return 1
                time.sleep(0.01)
            startup = time.perf_counter() - start
            print(f"{options.users} users, {options.length} tokens per text, {options.seconds:g} s\n")
            print("| | |\n|---|---|")
            print(f"| startup of the server | {startup:.1f} s |")
            if options.browser:
                time_in_browser(address[1])
            errors = load_test(address[1], server.pid, log, options)
            if options.visits:
                errors += visit_repeatedly(address[1], server.pid, options.visits)
        finally:
            server.terminate()
            server.wait(20)
        tracebacks = log.read_text("utf-8").count("Traceback")
    print(f"| tracebacks in the server's log | {tracebacks} |")
    for error in sorted(set(errors))[:5]:
        print(f"error: {error}", file=sys.stderr)
    return 1 if errors or tracebacks else 0


def free_port() -> int:
    """A port that is not in use."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def load_test(url: str, server: int, log: Path, options: argparse.Namespace) -> list[str]:
    """Run the users and print what they measured; their errors."""
    spawn = multiprocessing.get_context("spawn")
    results, ready, go = spawn.Queue(), spawn.Semaphore(0), spawn.Event()
    numbers = range(options.users)
    processes = [
        spawn.Process(
            target=run_users,
            args=(url, numbers[i : i + 8], options.length, options.seconds, ready, go, results),
        )
        for i in numbers[::8]
    ]
    for process in processes:
        process.start()
    for _ in numbers:
        ready.acquire()
    go.set()
    start, memory = time.perf_counter(), []
    while (elapsed := time.perf_counter() - start) < options.seconds:
        memory.append((elapsed, allocated(server)))
        time.sleep(min(1, options.seconds / 20))
    measured = [results.get(timeout=120) for _ in numbers]
    seconds = time.perf_counter() - start
    for process in processes:
        process.join(20)
    time.sleep(1.5)
    busy = cpu_seconds(server)
    time.sleep(1)
    idle = 1 - (cpu_seconds(server) - busy)
    quarter = next(kib for elapsed, kib in memory if elapsed >= options.seconds / 4)
    characters = sorted(user.characters for user in measured)
    first = sorted(wait for user in measured for wait in user.first)
    errors = [error for user in measured for error in user.errors]
    outcomes = [match[2] for match in ENDED.finditer(log.read_text("utf-8"))]
    requests, canceled = sum(user.requests for user in measured), sum(user.canceled for user in measured)
    mean = statistics.mean(characters)
    shares = f"{characters[0] / mean:.2f}, {characters[-1] / mean:.2f}"
    print(f"| requests, of which canceled | {requests:,}, {canceled:,} |")
    print(f"| texts stopped by the server | {outcomes.count('stopped'):,} |")
    print(f"| characters per second, all users together | {sum(characters) / seconds:,.0f} |")
    print(f"| share of the slowest and of the fastest user | {shares} |")
    print(f"| time to the first text, median | {statistics.median(first) * 1000:.0f} ms |")
    print(f"| time to the first text, 95th percentile | {first[int(len(first) * 0.95)] * 1000:.0f} ms |")
    print(f"| errors | {len(errors)} |")
    print(f"| memory after a quarter of the time, at the end | {quarter:,} kB, {memory[-1][1]:,} kB |")
    if later := [kib for elapsed, kib in memory if elapsed >= 60]:
        low, high = min(later), max(later)
        print(f"| memory from the second minute on | {low:,} to {high:,} kB ({high / low - 1:.1%}) |")
    print(f"| server idle a second later | {idle:.0%} |")
    return errors


def run_users(
    url: str, numbers: Sequence[int], length: int, seconds: float, ready: Any, go: Any, results: Any
) -> None:
    """Run some users, one thread each; the process then exits without closing their sessions."""
    from gradio_client import Client

    def run(number: int) -> None:
        client = Client(url, verbose=False)
        model = client.predict(api_name="/list_models")[0]["name"]
        ready.release()
        go.wait()
        results.put(generate(client, model, number, length, time.perf_counter() + seconds))
        if number % 8 == 0:
            client.submit(model, "The ", length=20_000, seed=1, api_name="/continue_text")

    threads = [threading.Thread(target=run, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    time.sleep(1)
    results.close()
    results.join_thread()
    os._exit(0)


def generate(client: Any, model: str, number: int, length: int, deadline: float) -> Measurements:
    """Generate one text after another until the deadline."""
    measured, rng = Measurements(number), random.Random(number)
    while time.perf_counter() < deadline:
        cancel_at = rng.randrange(1, length) if number % 4 == 1 else None
        start, first, text = time.perf_counter(), None, ""
        try:
            job = client.submit(
                model, "The ", length=length, seed=rng.getrandbits(31), api_name="/continue_text"
            )
            for text in job:
                first = first or (text and time.perf_counter() - start)
                if time.perf_counter() > deadline + 30:
                    raise TimeoutError("a text is not complete half a minute after the deadline")
                if cancel_at and len(text) >= cancel_at:
                    job.cancel()
                    break
            if not text:
                raise RuntimeError("no text was generated")
        except Exception as error:
            measured.errors.append(f"{type(error).__name__}: {error}")
        measured.requests += 1
        measured.canceled += bool(cancel_at and len(text) >= cancel_at)
        measured.characters += len(text)
        measured.first += [first] if first else []
    return measured


def visit_repeatedly(url: str, server: int, visits: int) -> list[str]:
    """Open and close many sessions and print how much memory they leave in use; the errors."""
    from gradio_client import Client

    errors, memory = [], []
    for number in range(visits):
        try:
            client = Client(url, verbose=False)
            model = client.predict(api_name="/list_models")[0]["name"]
            client.predict(model, "The ", length=20, seed=number, api_name="/continue_text")
            client.close()
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}")
        memory.append(allocated(server))
    half, end = statistics.mean(memory[visits // 2 - 5 :][:5]), statistics.mean(memory[-5:])
    print(f"| memory after {visits // 2} and after {visits} visits | {half:,.0f} kB, {end:,.0f} kB |")
    return errors


def time_in_browser(url: str) -> None:
    """Print how long a user waits for the page and for the first character."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_browser(),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        for visit in ("first", "second"):
            tab = browser.new_context().new_page()
            start = time.perf_counter()
            tab.goto(url)
            tab.locator("#facts table").first.wait_for()
            tab.locator("#generate:enabled").wait_for()
            seconds = time.perf_counter() - start
            print(f"| from opening the page until it is usable, {visit} visit | {seconds:.2f} s |")
            tab.locator("#text textarea").fill("The ")
            # Measured in the browser, because Playwright's own latency would count otherwise.
            waited = tab.evaluate(
                """() => new Promise((done) => {
                    const text = document.querySelector("#text textarea"), start = performance.now();
                    const look = () =>
                        text.value.length > 4 ? done(performance.now() - start) : setTimeout(look, 2);
                    document.querySelector("#generate").click();
                    look();
                })"""
            )
            print(f"| from pressing Generate to the first character, {visit} visit | {waited:.0f} ms |")
            tab.locator("#generate:enabled").wait_for()
        browser.close()


def allocated(process: int) -> int:
    """KiB of memory that a process has allocated, without mapped files."""
    return int(re.search(r"RssAnon:\s*(\d+)", Path(f"/proc/{process}/status").read_text("utf-8"))[1])


def cpu_seconds(process: int) -> float:
    """The CPU time of a process."""
    fields = Path(f"/proc/{process}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
