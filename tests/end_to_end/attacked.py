"""The folder of a page that tests attack, with a secret, and paths that lead out of it."""

import json
import os
import shutil
import signal
from pathlib import Path

PATHS = [
    "../../etc/passwd",
    "/etc/passwd",
    "/etc/passwd\0.txt",
    "file:///etc/passwd",
    "http://127.0.0.1:9/x",
    "C:\\..\\x",
    "..",
    "~",
    "runs/char",
    "%2e%2e%2f",
    "//etc/passwd",
    "con/../char",
]
SECRET = "nobody may read this"


def make_attacked(folder: Path, good: Path) -> None:
    """Fill a folder: the page of it has a good model, a backward one and a damaged one."""
    for name in ("char", "back", "cut"):
        shutil.copytree(good, folder / "runs" / name)
    (folder / "runs" / "cut" / "model.safetensors").write_bytes(b"short")
    config = json.loads((folder / "runs" / "back" / "config.json").read_text())
    config["model"]["direction"] = "backward"
    (folder / "runs" / "back" / "config.json").write_text(json.dumps(config))
    (folder / "secret.txt").write_text(SECRET)


def kill_training_jobs(folder: Path) -> None:
    """Kill training jobs, which by design keep running without the server."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder / "runs").encode() in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
        except OSError:
            continue
