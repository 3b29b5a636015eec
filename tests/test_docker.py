"""The Dockerfile copies what the package is built from, and its command is valid."""

import json
import re
import tomllib

from app.access import Access
from app.command_line import is_public, parse_app
from tests.conftest import ROOT

LINES = (ROOT / "Dockerfile").read_text("utf-8").splitlines()


def instructions(name):
    return [line.removeprefix(f"{name} ") for line in LINES if line.startswith(f"{name} ")]


def test_all_sources_of_the_package_are_copied_and_not_ignored():
    copied = [name for line in instructions("COPY") for name in line.split()[:-1]]
    kept = re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text("utf-8"), re.MULTILINE)
    assert sorted(copied) == sorted(kept)
    assert all((ROOT / name).exists() for name in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert {"pyproject.toml", "setup.py", "lm", "app", project["readme"], *project["license-files"]} == set(
        copied
    )


def test_the_default_command_serves_everyone_and_lets_nobody_train():
    assert json.loads(instructions("ENTRYPOINT")[0]) == ["lm"]
    name, *flags = json.loads(instructions("CMD")[0])
    options = parse_app(flags)
    assert name == "app" and is_public(options) and not options.allow_changes
    assert str(options.port) in instructions("EXPOSE")[0].split()
    access = Access(options.host, options.allow_host)
    assert access.is_name("localhost:7860") and access.is_name("172.17.0.2:7860")


def test_it_does_not_run_as_root():
    assert instructions("USER") == ["lm"]
    written = [value.split("=")[1] for value in instructions("ENV")[0].split() if "/" in value]
    assert all(path.startswith(f"{instructions('VOLUME')[0]}/") for path in written)
