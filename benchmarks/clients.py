#!/usr/bin/env python
"""The clients of the API and of the page: runs their recipes in the documentation against real servers.

    python benchmarks/clients.py
    python benchmarks/clients.py --python clients/bin/python

Prints the table of docs/api.md. --python names the interpreter of a virtual environment with the clients:
`pip install openai litellm llm langchain-openai gradio_client mcp`. For the client in JavaScript, first run
`npm install openai` in the folder from which you run this. Clients that are not installed are left out.
"""

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "docs" / "api.md", ROOT / "docs" / "studio.md")
ADDRESSES = {"api": "http://127.0.0.1:8000", "page": "http://127.0.0.1:7860"}  # as in the recipes


@dataclass(frozen=True)
class Client:
    """A client with a recipe in the documentation."""

    name: str
    package: str  # as pip, npm or the shell knows it
    language: str  # of the recipe
    sign: str  # what only this recipe contains
    what: str  # the recipe does


CLIENTS = [
    Client("curl", "curl", "bash", "curl http://127.0.0.1:8000/v1/models\n", "models, a text, a stream"),
    Client("openai", "openai", "python", "from openai import", "a stream, 3 choices with `match`, scores"),
    Client("openai for JavaScript", "openai", "javascript", "import OpenAI", "a stream"),
    Client("LiteLLM", "litellm", "python", "import litellm", "2 prompts with `seed`, `stop` and `top_k`"),
    Client(
        "LangChain", "langchain-openai", "python", "from langchain_openai", "2 prompts, a stream with `stop`"
    ),
    Client("llm", "llm", "bash", "llm -m", "a stream with `seed`"),
    Client("gradio_client", "gradio_client", "python", "from gradio_client", "all 4 functions"),
    Client("MCP", "mcp", "python", "from mcp", "a list as JSON, a text"),
]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", default=sys.executable, help="interpreter of an environment with clients")
    options = parser.parse_args()
    python, failed = str(Path(options.python).absolute()), False
    with serving("--api") as api, serving("--mcp") as page:
        print("| client | version | what it ran |\n|---|---|---|")
        for client in CLIENTS:
            if number := version(client, python):
                error = run(client, {"api": api, "page": page}, python)
                failed |= error is not None
                print(f"| {client.name} | {number} | {error or client.what} |", flush=True)
    return 1 if failed else 0


@contextmanager
def serving(flag: str) -> Iterator[str]:
    """The address of `lm serve` (--api) or `lm app` (--mcp) with the shipped model, on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with (
        tempfile.TemporaryDirectory() as folder,
        (Path(folder) / "log").open("w+", encoding="utf-8", newline="") as log,
    ):
        process = subprocess.Popen(
            [sys.executable, "-m", "app", flag, "--port", str(port)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
        )
        try:
            for line in process.stdout or ():
                if re.match(r"The (API|page) is at", line):
                    break
            else:
                raise RuntimeError(f"the server did not start: {(Path(folder) / 'log').read_text('utf-8')}")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(20)


def version(client: Client, python: str) -> str | None:
    """The installed version of a client, if it is installed."""
    if client.language == "javascript":
        package = Path("node_modules") / client.package / "package.json"
        return (
            json.loads(package.read_text("utf-8"))["version"]
            if package.exists() and shutil.which("node")
            else None
        )
    if client.package == "curl":
        return output(["curl", "--version"]).split()[1] if shutil.which("curl") else None
    code = f"from importlib.metadata import version; print(version({client.package!r}))"
    return output([python, "-c", code]).strip() or None


def output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=60).stdout


def recipe(client: Client) -> str:
    """The code of the recipe in the documentation."""
    found = [
        code
        for page in PAGES
        for code in re.findall(
            rf"^```{client.language}\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL
        )
        if client.sign in code
    ]
    (code,) = found
    return code


def run(client: Client, addresses: dict[str, str], python: str) -> str | None:
    """Run the recipe against these servers; what went wrong, in one line, or None."""
    code = recipe(client)
    for name, address in addresses.items():
        code = code.replace(ADDRESSES[name], address)
    interpreter = {
        "python": [python, "-c"],
        "bash": ["bash", "-euc"],
        "javascript": ["node", "--input-type=module", "-e"],
    }[client.language]
    with tempfile.TemporaryDirectory() as folder:
        if Path("node_modules").exists():
            (Path(folder) / "node_modules").symlink_to(Path("node_modules").absolute())
        environment = {
            **os.environ,
            "PATH": f"{Path(python).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "LLM_USER_PATH": folder,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # do not download it
        }
        result = subprocess.run(
            [*interpreter, code],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=300,
        )
    if '"error"' in result.stdout:  # curl succeeds nevertheless
        return f"failed: {' '.join(result.stdout.split())[-200:]}"
    if result.returncode or not result.stdout.strip():
        return f"failed: {' '.join(result.stderr.split())[-200:]}"
    return None


if __name__ == "__main__":
    sys.exit(main())
