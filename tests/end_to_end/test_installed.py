"""The wheel in a fresh environment, used in a folder whose files have the names of our scripts."""

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import urllib.request
import venv
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT, SMALL, some_text
from tests.end_to_end.conftest import Server, free_port, until_ready

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of the sources."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("lm", "app"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", "dist", "."]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (wheel,) = (source / "dist").glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def lm_command(tmp_path_factory, wheel):
    """The `lm` command of an environment with the wheel and the dependencies of this one."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    install = [*pip, "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True, env=clean_environment())
    # A path in a .pth file adds the packages there, but does not run the .pth files that are there.
    (site_packages,) = environment.glob("lib/python*/site-packages")
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return environment / "bin" / "lm"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a text, and with modules that would shadow ours if they were imported by those names."""
    folder = tmp_path_factory.mktemp("work")
    for name in ("app", "train", "generate", "serve"):
        (folder / f"{name}.py").write_text("raise SystemExit('a file of the user was imported')")
    (folder / "text.txt").write_text(some_text(20_000))
    return folder


@pytest.fixture(scope="module")
def run(folder):
    """Run a program of the environment in the folder."""

    def run(*command):
        return subprocess.run(
            [*map(str, command)],
            cwd=folder,
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.fixture(scope="module")
def trained(run, lm_command):
    return run(lm_command, "train", "--dataset", "text.txt", "--steps", 5, *SMALL, "--out", "runs/boat")


def clean_environment():
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@contextmanager
def serving(lm_command, folder, *arguments):
    output, log = folder / "server.out", folder / "server.log"
    with output.open("w") as out, log.open("w") as err:
        process = subprocess.Popen(
            [lm_command, *map(str, arguments)], cwd=folder, env=clean_environment(), stdout=out, stderr=err
        )
    try:
        yield until_ready(Server(process, output, log))
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
        assert "Traceback" not in log.read_text()


def test_top_level_packages_are_lm_and_lm_studio(wheel):
    names = {Path(name).parts[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"lm", "lm_studio"}


def test_lm_train(trained, folder):
    assert trained.returncode == 0, trained.stderr
    assert (folder / "runs" / "boat" / "model.safetensors").exists()
    assert "lm generate" in trained.stdout and "lm app" in trained.stdout


# In one process, because most of the time would go into importing torch.
COMMANDS = """
from lm.cli.main import main
main(["export", "runs/boat", "boat.html"])
main(["evaluate", "runs/boat", "--json"])
main(["generate", "runs/boat", "--length", "20", "--seed", "1"])
"""


def test_lm_export_evaluate_and_generate(trained, run, lm_command, folder):
    result = run(lm_command.with_name("python"), "-P", "-c", COMMANDS)
    assert result.returncode == 0, result.stderr
    assert "<title>boat</title>" in (folder / "boat.html").read_text()
    printed = result.stdout[result.stdout.index("{") :]
    record, end = json.JSONDecoder().raw_decode(printed)
    assert record["scores"] and len(printed[end:]) > 20


def test_lm_serve(trained, lm_command, folder):
    with serving(lm_command, folder, "serve", "--port", free_port()) as server:
        body = {"model": "boat", "prompt": "The", "max_tokens": 5}
        request = urllib.request.Request(
            f"{server.address}/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            assert len(json.load(response)["choices"][0]["text"]) == 5
        assert server.ended()[-1].endswith("complete")  # the log works under the installed name, too


def test_lm_app(trained, lm_command, folder):
    with (
        serving(lm_command, folder, "app", "--port", free_port()) as server,
        urllib.request.urlopen(server.address, timeout=30) as response,
    ):
        assert "boat" in response.read().decode()
