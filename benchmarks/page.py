#!/usr/bin/env python
"""How the page holds up: many people at once, through gradio_client, and how soon it can be used.

    python benchmarks/page.py
    python benchmarks/page.py --users 32 --seconds 120 --visits 200 --browser

It starts a server of its own on a free port. Each user lets texts be written one after the other. Every
fourth one breaks each of them off in the middle, and of every eighth one the program ends while a long text
is being written. The time to the first words is from asking to the first part that holds text. Memory is
RssAnon, what the server has allocated for itself.
"""

import argparse
import multiprocessing
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
ENDED = re.compile(r"(\d+) tokens in .*: (\w+)")


@dataclass
class Seen:
    """What one user saw."""

    number: int
    requests: int = 0
    broken_off: int = 0
    characters: int = 0
    errors: list[str] = field(default_factory=list)
    first: list[float] = field(default_factory=list)  # seconds to the first words


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--length", type=int, default=400, help="tokens of a text")
    parser.add_argument("--visits", type=int, default=0, help="short visits afterwards, one after the other")
    parser.add_argument("--browser", action="store_true", help="how soon it can be used, in Chromium")
    parser.add_argument("--models", help="a folder of models; default: the one that ships")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = ["--models", str(Path(options.models).resolve())] if options.models else []
        output, log = Path(folder) / "output", Path(folder) / "log"
        begin = time.perf_counter()
        with output.open("w") as out, log.open("w") as err:
            server = subprocess.Popen(
                [sys.executable, "-m", "app", "--port", str(free_port()), *models],
                cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=out, stderr=err,
            )  # fmt: skip
        try:
            while not (found := re.search(r"The page is at (\S+)", output.read_text())):
                if server.poll() is not None:
                    print(f"error: the server did not start: {log.read_text()}", file=sys.stderr)
                    return 1
                time.sleep(0.01)
            started = time.perf_counter() - begin
            print(f"{options.users} users, texts of {options.length} tokens, {options.seconds:g} s\n")
            print("| | |\n|---|---|")
            print(f"| from the command to the address | {started:.1f} s |")
            if options.browser:
                use_in_browser(found[1])
            wrong = crowd(found[1], server.pid, log, options)
            if options.visits:
                wrong += visit_often(found[1], server.pid, options.visits)
        finally:
            server.terminate()
            server.wait(20)
        faults = log.read_text().count("Traceback")
    print(f"| tracebacks in the server's log | {faults} |")
    for error in sorted(set(wrong))[:5]:
        print(f"error: {error}", file=sys.stderr)
    return 1 if wrong or faults else 0


def free_port() -> int:
    """A port that nothing listens on."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def crowd(url: str, server: int, log: Path, options: argparse.Namespace) -> list[str]:
    """Let the users loose, and print what they saw. Returns their errors."""
    spawn = multiprocessing.get_context("spawn")
    told, ready, go = spawn.Queue(), spawn.Semaphore(0), spawn.Event()
    numbers = range(options.users)
    programs = [
        spawn.Process(
            target=program,
            args=(url, numbers[at : at + 8], options.length, options.seconds, ready, go, told),
        )
        for at in numbers[::8]
    ]
    for process in programs:
        process.start()
    for _ in numbers:
        ready.acquire()
    go.set()
    begin, memory = time.perf_counter(), []
    while (passed := time.perf_counter() - begin) < options.seconds:
        memory.append((passed, anonymous(server)))
        time.sleep(min(1, options.seconds / 20))
    seen = [told.get(timeout=120) for _ in numbers]
    seconds = time.perf_counter() - begin
    for process in programs:
        process.join(20)
    time.sleep(1.5)
    busy = cpu_seconds(server)
    time.sleep(1)
    idle = 1 - (cpu_seconds(server) - busy)
    quarter = next(kib for passed, kib in memory if passed >= options.seconds / 4)
    characters = sorted(one.characters for one in seen)
    first = sorted(wait for one in seen for wait in one.first)
    errors = [error for one in seen for error in one.errors]
    ways = [match[2] for match in ENDED.finditer(log.read_text())]
    requests, broken_off = sum(one.requests for one in seen), sum(one.broken_off for one in seen)
    print(f"| requests; of them broken off | {requests:,}; {broken_off:,} |")
    print(f"| texts that the server stopped writing | {ways.count('stopped'):,} |")
    print(f"| characters a second, all together | {sum(characters) / seconds:,.0f} |")
    mean = statistics.mean(characters)
    shares = f"{characters[0] / mean:.2f}, {characters[-1] / mean:.2f}"
    print(f"| share of the slowest and of the fastest user | {shares} |")
    print(f"| time to the first words, median | {statistics.median(first) * 1000:.0f} ms |")
    print(f"| 95th percentile | {first[int(len(first) * 0.95)] * 1000:.0f} ms |")
    print(f"| errors | {len(errors)} |")
    print(f"| memory after a quarter of the time, at its end | {quarter:,} kB, {memory[-1][1]:,} kB |")
    print(f"| a second later: the server is idle for | {idle:.0%} |")
    return errors


def program(url, numbers, length, seconds, ready, go, told) -> None:  # noqa: ANN001
    """Some users, each a thread; it ends without a word to the server."""
    from gradio_client import Client

    def run(number: int) -> None:
        client = Client(url, verbose=False)
        model = client.predict(api_name="/list_models")[0]["name"]
        ready.release()
        go.wait()
        told.put(use(client, model, number, length, time.perf_counter() + seconds))
        if number % 8 == 0:
            client.submit(model, "The ", length=20_000, seed=1, api_name="/continue_text")

    threads = [threading.Thread(target=run, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    time.sleep(1)
    told.close()
    told.join_thread()
    os._exit(0)


def use(client, model: str, number: int, length: int, until: float) -> Seen:  # noqa: ANN001
    """Ask again and again until the time is over."""
    seen, chance = Seen(number), random.Random(number)
    while time.perf_counter() < until:
        leave = chance.randrange(1, length) if number % 4 == 1 else None
        begin, first, text = time.perf_counter(), None, ""
        try:
            job = client.submit(
                model, "The ", length=length, seed=chance.getrandbits(31), api_name="/continue_text"
            )
            for text in job:
                first = first or (text and time.perf_counter() - begin)
                if time.perf_counter() > until + 30:
                    raise TimeoutError("a text takes half a minute longer than it may")
                if leave and len(text) >= leave:
                    job.cancel()
                    break
            if not text:
                raise RuntimeError("no text has come")
        except Exception as error:
            seen.errors.append(f"{type(error).__name__}: {error}")
        seen.requests += 1
        seen.broken_off += bool(leave and len(text) >= leave)
        seen.characters += len(text)
        seen.first += [first] if first else []
    return seen


def visit_often(url: str, server: int, visits: int) -> list[str]:
    """Come and go: what stays in the server's memory of it. Returns errors."""
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
        memory.append(anonymous(server))
    half, end = statistics.mean(memory[visits // 2 - 5 :][:5]), statistics.mean(memory[-5:])
    print(f"| memory after {visits // 2} and after {visits} visits | {half:,.0f} kB, {end:,.0f} kB |")
    return errors


def use_in_browser(url: str) -> None:
    """Print how long a person waits for the page, and for the first character."""
    from playwright.sync_api import sync_playwright

    path = os.environ.get("LM_BROWSER") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        for which in ("first", "second"):
            tab = browser.new_context().new_page()
            begin = time.perf_counter()
            tab.goto(url)
            tab.locator("#facts table").first.wait_for()
            tab.locator("#generate:enabled").wait_for()
            seconds = time.perf_counter() - begin
            print(f"| from opening the page to its being usable, {which} visit | {seconds:.2f} s |")
            tab.locator("#text textarea").fill("The ")
            # Measured in the browser: the way from here to there and back would count otherwise.
            waited = tab.evaluate(
                """() => new Promise((done) => {
                    const text = document.querySelector("#text textarea"), begin = performance.now();
                    const look = () =>
                        text.value.length > 4 ? done(performance.now() - begin) : setTimeout(look, 2);
                    document.querySelector("#generate").click();
                    look();
                })"""
            )
            print(f"| from pressing Generate to the first character, {which} visit | {waited:.0f} ms |")
            tab.locator("#generate:enabled").wait_for()
        browser.close()


def anonymous(process: int) -> int:
    """KiB of memory that a process has allocated for itself."""
    return int(re.search(r"RssAnon:\s*(\d+)", Path(f"/proc/{process}/status").read_text())[1])


def cpu_seconds(process: int) -> float:
    """The time that a process has spent computing."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
