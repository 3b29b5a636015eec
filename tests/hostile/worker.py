"""Uses hostile folders in every way, in processes with limits, and prints a JSON object for each.

    python -m tests.hostile.worker FOLDER WAYS [KIND ...]

Without kinds, it uses all. WAYS is a comma-separated list of names in `WAYS`.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

import lm
from app.api.request import Limits
from app.api.server import Api
from app.endpoints import Endpoints
from app.jobs.job import has_finished
from app.registry import ModelRegistry
from app.tabs.compare.curves import curves_html
from app.tabs.models.catalog import entries, pack, render_card
from app.tabs.models.table import table
from app.ui.model_facts import describe
from lm.cli import evaluate, generate
from lm.cli.parser import run
from lm.errors import UserError
from lm.storage.run_folder import Run
from lm.storage.run_lock import check_free
from tests.hostile.good import PROMPT, TEXT, make_good
from tests.hostile.kinds import KINDS

_MEMORY = 4 << 30  # bytes of address space that a kind may take in addition
_BATCH = 20  # kinds that one process uses, as a fork takes longer than most of them
_PATIENCE = 120  # seconds; a machine may be busy, so this is no measure of time


def load(folder: Path) -> str:
    """`lm.load`, and a text."""
    lm.load(folder, device="cpu").generate(max_new_tokens=3, seed=1)
    return "loaded"


def command(main: Callable[[Any], int], *arguments: str) -> str:
    """A command, whose exit status must be 0, or 2 after one line."""
    status = run(lambda: main(arguments))
    assert status in (0, 2), f"exit status {status}"
    return f"exit status {status}"


def generate_command(folder: Path) -> str:
    """`lm generate`."""
    arguments = ("--prompt", PROMPT, "--length", "5", "--seed", "1", "--device", "cpu")
    return command(generate.main, *arguments, "--", str(folder))


def evaluate_command(folder: Path) -> str:
    """`lm evaluate`."""
    text = folder.parent.parent / "text.txt"
    text.write_text(PROMPT + TEXT)
    return command(evaluate.main, "--device", "cpu", "--dataset", str(text), "--", str(folder))


def page(folder: Path) -> str:
    """All that the page shows of the folder and its neighbor."""
    models = ModelRegistry([folder.parent])
    found = models.folders()
    assert found["good"] == folder.parent / "good"
    json.dumps(table(entries(models)), allow_nan=True).encode()
    json.dumps(list(found), ensure_ascii=False).encode()
    json.dumps(Endpoints(models).list_models(), ensure_ascii=False).encode()
    for name, path in found.items():
        shown = describe(path) + render_card(path) + curves_html(found, [name], by_time=False)
        assert "<script" not in shown and "SECRET" not in shown and "root:x:0" not in shown
        models.fingerprint(name)
        has_finished(Run(path), {})
        download(path, folder.parent.parent)
        for check in (partial(models.load, name), partial(check_free, path)):
            try:
                check()
            except UserError as error:
                one_line(error)
    return f"{len(found)} models"


def download(folder: Path, destination: Path) -> None:
    """The zip file of a model."""
    try:
        packed = pack(folder, destination)
    except UserError as error:
        one_line(error)
    else:
        with zipfile.ZipFile(packed) as opened:
            content = b"".join(map(opened.read, filter(lambda n: not n.endswith("s"), opened.namelist())))
        assert b"SECRET" not in content and b"root:x:0" not in content


def api(folder: Path) -> str:
    """A request to the API for each model. The good one always answers."""
    statuses = []
    with TestClient(Api(ModelRegistry([folder.parent]), Limits()).app()) as client:
        names = [model["id"] for model in client.get("/v1/models").json()["data"]]
        assert "good" in names
        for name in [*names, folder.name.encode(errors="replace").decode()]:
            body = {"model": name, "prompt": PROMPT, "max_tokens": 5, "seed": 1}
            response = client.post("/v1/completions", json=body)
            assert response.status_code != 500, response.text
            assert response.status_code == 200 or name != "good", response.text
            if response.status_code != 200:
                assert "\n" not in response.json()["error"]["message"]
            statuses.append(response.status_code)
    return f"statuses {statuses}"


WAYS = {
    "load": load,
    "generate": generate_command,
    "evaluate": evaluate_command,
    "page": page,
    "api": api,
}


def one_line(error: UserError) -> str:
    """The message of an error, which must be a line that no terminal obeys."""
    message = str(error)
    assert message and len(message) < 1000, message[:1000]
    assert "\n" not in message.replace("a\nb", ""), message  # the name of a folder is the user's
    return message


def use(folder: Path, ways: list[str]) -> dict[str, Any]:
    """What happens to this process: a result for each way, with its seconds of computing, and its peak memory
    in bytes."""
    results = {}
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    for name in ways:
        start = time.process_time()
        try:
            result = WAYS[name](folder)
        except UserError as error:
            result = f"error: {one_line(error)}"
        results[name] = result, time.process_time() - start
    return {"ways": results, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10}


def make(kind: str, good: Path, root: Path) -> Path:
    """A folder `runs` in `root` with a good model and one of this kind; the path of the latter."""
    runs = root / "runs"
    shutil.copytree(good, runs / "good")
    os.utime(runs / "good" / "model.safetensors", (1e9, 1e9))
    folder = runs / "hostile"
    shutil.copytree(runs / "good", folder)
    if kind != "good":
        KINDS[kind][0](folder)
    return next(path for path in runs.iterdir() if path.name != "good")


def in_child(kinds: list[str], good: Path, root: Path, ways: list[str]) -> list[dict[str, Any]]:
    """`use` of each kind in one process, with what it printed and its exit status. If the process dies, each
    kind gets one of its own."""
    folders = [make(kind, good, root / str(number)) for number, kind in enumerate(kinds)]
    results, printed = root / "results", root / "printed"
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            limit_resources()
            with results.open("w") as file:
                for kind, folder in zip(kinds, folders, strict=True):
                    signal.alarm(_PATIENCE)
                    redirect(printed)
                    used = use(folder, ways)
                    result = {"kind": kind, "status": 0, "printed": text_of(printed), **used}
                    file.write(json.dumps(result) + "\n")
            status = 0
        except BaseException:
            os.write(2, traceback.format_exc().encode("utf-8", "backslashreplace"))
        finally:
            sys.stdout.flush()
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not status:
        return [json.loads(line) for line in results.read_text().splitlines()]
    if len(kinds) > 1:
        return [result for kind in kinds for result in in_child([kind], good, root / kind, ways)]
    return [{"kind": kinds[0], "status": status, "printed": text_of(printed)}]


def limit_resources() -> None:
    """Limit what this process can take of the machine."""
    size = 4096 * int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (size + _MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ["RUST_BACKTRACE"] = "0"


def redirect(path: Path) -> None:
    """Let standard output and error start a new file."""
    sys.stdout.flush()
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def text_of(printed: Path) -> str:
    """The end of what was printed."""
    sys.stdout.flush()
    return printed.read_text(errors="replace")[-3000:]


def main() -> None:
    root, ways, *kinds = Path(sys.argv[1]), sys.argv[2].split(","), *sys.argv[3:]
    make_good(good := root / "good")
    load(good)  # imports here, once, what each child needs
    kinds = kinds or [*KINDS]
    batches = [["good"], *(kinds[begin : begin + _BATCH] for begin in range(0, len(kinds), _BATCH))]
    for number, batch in enumerate(batches):
        folder = root / str(number)
        for result in in_child(batch, good, folder, ways):
            print(json.dumps(result), flush=True)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
