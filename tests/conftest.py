"""Shared by all tests: a separate cache, small texts, and models trained in a second."""

import asyncio
import contextlib
import importlib
import io
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

# One thread per process, set before torch is imported: the small matrices gain nothing from more, and two
# busy processes with two threads each on two cores slow each other down tenfold.
os.environ["OMP_NUM_THREADS"] = "1"

from lm.cli.parser import run
from tests.processes import Fork, python_command, run_fork, start
from tests.strict_fsync import fsync

os.fsync = fsync
ROOT = Path(__file__).parent.parent
# Python reads these variables when it starts, so a process with others cannot be forked.
READ_AT_START = ("PYTHON", "LC_", "LANG", "OMP_")
SENTENCE = "the sea was calm and a small boat went out to find where light comes from at night"
WORDS = sorted(set(SENTENCE.split()))


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Tests never see the user's cache, and the user never sees theirs."""
    os.environ["LM_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["HF_HOME"] = str(tmp_path_factory.mktemp("hf"))


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def clock(monkeypatch):
    """What `time.monotonic` returns: the element of a list, which a test changes."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items):
    """Each file runs in one worker of xdist, so that its models and servers exist once. Files that use the
    browser share a worker: it is started once, and the tests measure and wait. So do files that use the
    server for attacks, and those that import transformers, which takes seconds. What takes longest starts
    first, so that no worker is idle at the end."""
    browser, attacks, transformers = (
        {item.path for item in items if name in item.fixturenames}
        for name in ("context", "attacked_server", "quiet_transformers")
    )
    groups = dict.fromkeys(attacks, "attacks") | dict.fromkeys(browser, "browser")
    groups |= dict.fromkeys(transformers, "transformers")
    for item in items:
        item.add_marker(pytest.mark.xdist_group(groups.get(item.path, item.path.stem)))
    slow = ("end_to_end", "test_distributed.py", "jobs")
    items.sort(key=lambda item: 0 if item.path in browser else 1 if set(slow) & set(item.path.parts) else 2)


def pytest_runtest_setup(item):
    """Skip a test that needs a GPU if torch has none."""
    if item.get_closest_marker("gpu") and not has_gpu():
        if gpus := sorted(Path("/dev").glob("nvidia[0-9]*")):  # for instance because of a CPU build of torch
            pytest.fail(f"this machine has a GPU ({gpus[0]}) that torch cannot use")
        pytest.skip("no GPU")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Under CI=true, only tests that need a GPU may be skipped, where there is none: no check can be left out
    unnoticed."""
    report = yield
    return report if item.get_closest_marker("gpu") and not has_gpu() else failed_if_skipped(report)


def has_gpu() -> bool:
    """Whether torch can use a GPU."""
    import torch

    return torch.cuda.is_available()


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    """Nor may whole modules, as by `pytest.importorskip`; what a skipped module is marked with is unknown."""
    report = yield
    return failed_if_skipped(report)


def failed_if_skipped(report):
    """The report, turned into one of a failure if it is one of a skip under CI=true."""
    if report.skipped and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} must not be skipped under CI: {report.longrepr[2]}"
    return report


def some_text(characters: int, seed: int = 0) -> str:
    """Sentences of a few common words: quickly learned, but never repeated for long."""
    choose = random.Random(seed)
    lines, size = [], 0
    while size < characters:
        line = " ".join(choose.choices(WORDS, k=choose.randint(4, 9))).capitalize() + ".\n"
        lines.append(line)
        size += len(line)
    return "".join(lines)[:characters]


@pytest.fixture(scope="session")
def text_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "boat.txt"
    path.write_text(some_text(30_000))
    return path


def metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in (run / "training" / "metrics.jsonl").read_text().splitlines()]


def edit_progress(run: Path, without: Sequence[str] = (), **changes: Any) -> None:
    """Change progress.json in a run's checkpoint and remove the digests, as the error about it says."""
    path = run / "training" / "checkpoint" / "progress.json"
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in values.items() if k not in ("sha256", *without)}))


SIZES = ["--hidden-size", "32", "--layers", "1", "--batch-size", "8", "--bptt", "32"]
SMALL = [*SIZES, "--sample-every", "0"]  # samples would take half of the time


def command_line(name: str, *arguments: object) -> list[str]:
    """The arguments for `start`: the path of a script in the checkout, or the module in `-m MODULE`."""
    program = name.removeprefix("-m ").split() if name.startswith("-m ") else [str(ROOT / name)]
    return [*program, *map(str, arguments)]


def started(name: str, *arguments: object, cwd: Path, **files) -> Fork | subprocess.Popen:
    """Start a script or module; `files` are those of `Fork`."""
    return start(command_line(name, *arguments), cwd, our_environment(), **files)


def our_environment() -> dict[str, str]:
    """The environment for a process that runs what is in the checkout."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def script(name: str, *arguments: object, cwd: Path, **options) -> subprocess.CompletedProcess:
    """Run train.py, generate.py or a module (`-m lm evaluate`) as a user would, in folder `cwd`.

    Options: `env`, variables to add to the environment; and `input`, `text`, `timeout` and `preexec_fn` as of
    `subprocess.run`.
    """
    command, environment, added = command_line(name, *arguments), our_environment(), options.pop("env", {})
    environment |= added
    reads_at_start = any(name.startswith(READ_AT_START) for name in added)
    if sys.platform != "linux" or "preexec_fn" in options or reads_at_start:
        options = {"text": True, "timeout": 120, **options}
        options |= {"encoding": "utf-8"} if options["text"] else {}
        return subprocess.run(
            python_command(command), cwd=cwd, env=environment, capture_output=True, **options
        )
    return run_fork(command, cwd, environment, **options)


def called(module: str, *arguments: object) -> subprocess.CompletedProcess:
    """Like `script`, but in this process and folder, where torch is already imported."""
    main = importlib.import_module(module if "." in module else f"lm.cli.{module}").main
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="") for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = run(lambda: main([*map(str, arguments)]))
        except SystemExit as error:  # from argparse
            status = error.code
    for stream in (out, err):
        stream.flush()
    written = (stream.buffer.getvalue().decode() for stream in (out, err))
    return subprocess.CompletedProcess(arguments, status, *written)


def run_async(coroutine: Coroutine) -> Any:
    """`asyncio.run` in a separate thread: Playwright may have its event loop in the main thread."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory, text_file) -> Path:
    """A run of the real script on a small text, good enough to spell words."""
    folder = tmp_path_factory.mktemp("trained")
    command = ["--dataset", text_file, *SIZES, "--steps", 300, "--lr", 1e-2, "--out", "runs/boat"]
    result = script("train.py", *command, cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder / "runs" / "boat"


@pytest.fixture(scope="session")
def backward_run(tmp_path_factory, text_file) -> Path:
    """The same for a model that reads right to left."""
    folder = tmp_path_factory.mktemp("backward")
    command = ["--dataset", text_file, *SIZES, "--steps", 300, "--lr", 1e-2, "--out", "runs/taob"]
    result = script("train.py", *command, "--direction", "backward", "--sample-prompt", " light.", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert ", right to left" in result.stdout
    return folder / "runs" / "taob"
