"""The functions of the page, called with gradio_client and an MCP client."""

import argparse
import itertools
import json
import re
import shutil
import subprocess
import sys
import time

import pytest

from benchmarks.clients import CLIENTS, run
from tests.conftest import ROOT, run_async
from tests.end_to_end.conftest import free_port, serving, until_ready

TOOLS = {"list_models", "continue_text", "next_tokens", "score_text"}


@pytest.fixture(scope="module")
def served(tmp_path_factory, trained_run):
    """A page with MCP, one trained model and the shipped one."""
    folder = tmp_path_factory.mktemp("programs")
    shutil.copytree(trained_run, folder / "runs" / "boat")
    with serving(folder, "--port", free_port(), "--mcp") as server:
        yield until_ready(server, "The page is at")


@pytest.fixture(scope="module")
def client(served):
    from gradio_client import Client

    client = Client(served.address, verbose=False)
    yield client
    client.close()


def test_all_functions_can_be_called(client):
    named = client.view_api(return_format="dict")["named_endpoints"]
    assert {name[1:] for name in named} == TOOLS  # and not the events of the page itself
    assert client.predict(api_name="/list_models")[0]["name"] == "boat"
    wanted = {"model": "boat", "prompt": "The sea ", "length": 30, "seed": 3}
    text = client.predict(**wanted, api_name="/continue_text")
    assert len(text) == 30 and client.predict(**wanted, api_name="/continue_text") == text
    assert len(client.predict("boat", "The sea ", 3, api_name="/next_tokens")) == 3
    assert client.predict("boat", "The sea was calm", api_name="/score_text")["words"][2]["word"] == "was"


def test_errors_raise_exceptions_with_their_message(client):
    from gradio_client.exceptions import AppError

    with pytest.raises(AppError, match=r"There is no model '\.\./boat' here"):
        client.predict("../boat", api_name="/continue_text")
    with pytest.raises(AppError, match=r"'top_p' must be from 0\.01 to 1, got 1\.5"):
        client.predict("boat", top_p=1.5, api_name="/continue_text")


def test_canceling_a_streamed_text_stops_the_computation(client, served):
    before = len(served.ended())
    job = client.submit("boat", "The sea ", 20_000, seed=1, api_name="/continue_text")
    parts = list(itertools.islice(job, 3))
    job.cancel()  # reading on might block forever: gradio_client can miss the end of a canceled job
    assert all(b.startswith(a) for a, b in itertools.pairwise(parts))
    assert stopped_early(served, before)


def test_client_that_dies_stops_the_computation(served):
    lines = (
        "import os, sys; from gradio_client import Client",
        "client = Client(sys.argv[1], verbose=False)",
        "job = client.submit('boat', 'The ', 20_000, api_name='/continue_text')",
        "next(iter(job)); os._exit(0)",
    )
    before = len(served.ended())
    subprocess.run([sys.executable, "-c", "\n".join(lines), served.address], check=True, timeout=60)
    assert stopped_early(served, before)


def stopped_early(served, before):
    """Whether the next continuation to end is stopped before all its 20,000 tokens are generated."""
    deadline = time.monotonic() + 3
    while len(served.ended()) == before and time.monotonic() < deadline:
        time.sleep(0.02)
    tokens, outcome = re.match(r"(\d+) tokens in .*: (\w+)", served.ended()[before]).groups()
    return outcome == "stopped" and int(tokens) < 20_000


def test_functions_are_mcp_tools(served, client):
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    async def call_tools():
        async with (
            streamable_http_client(f"{served.address}gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            tools = {tool.name: tool for tool in (await session.list_tools()).tools}
            calls = [
                ("list_models", {}),
                ("continue_text", {"model": "boat", "prompt": "The ", "length": 20, "seed": 3}),
                ("next_tokens", {"model": "boat", "text": "The ", "count": 2}),
                ("score_text", {"model": "boat", "text": "The sea"}),
                ("score_text", {"model": "boat", "text": "The naïve 'sea' \"was\" calm"}),
                ("score_text", {"model": "nothing", "text": "The sea"}),
                ("score_text", {"model": "boat", "text": ["The sea"]}),
            ]
            return tools, [await session.call_tool(name, arguments) for name, arguments in calls]

    tools, results = run_async(call_tools())
    assert tools.keys() == TOOLS
    schema = tools["continue_text"].inputSchema
    assert schema["required"] == ["model"] and schema["properties"]["length"]["type"] == "integer"
    properties = [tool.inputSchema["properties"] for tool in tools.values()]
    assert all(parameter["description"] for tool in properties for parameter in tool.values())
    texts = [result.content[0].text for result in results]
    assert [result.isError for result in results] == [False] * 5 + [True] * 2
    models, tokens, *scored = (json.loads(texts[i]) for i in (0, 2, 3, 4))
    assert models == client.predict(api_name="/list_models") and models[0]["name"] == "boat"
    assert len(texts[1]) == 20  # a text, not JSON
    assert tokens == client.predict("boat", "The ", 2, api_name="/next_tokens") and len(tokens) == 2
    assert scored[0]["bits"] > 0
    assert [item["word"] for item in scored[1]["words"]] == ["The", "naïve", "'sea'", '"was"', "calm"]
    assert texts[5].startswith("There is no model 'nothing' here")
    assert "Traceback" not in served.log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gradio_client", "MCP"])
def test_recipe_of_the_documentation_runs(served, name):
    recipe = next(client for client in CLIENTS if client.name == name)
    assert run(recipe, {"page": served.address.rstrip("/")}, sys.executable) is None


@pytest.mark.slow
def test_many_users_are_served_fairly_and_leave_nothing_running(served, capsys):
    from benchmarks.page import load_test

    options = argparse.Namespace(users=6, seconds=3, length=100)
    assert load_test(served.address, served.process.pid, served.log, options) == []
    table = rows(capsys.readouterr().out)
    slowest, fastest = map(float, table["share of the slowest and of the fastest user"].split(", "))
    assert slowest > 0.3 and fastest < 2
    assert int(table["server idle a second later"].rstrip("%")) > 80
    assert "Traceback" not in served.log.read_text()


@pytest.mark.slow
def test_32_users_for_two_minutes_and_200_visits():
    command = [sys.executable, ROOT / "benchmarks" / "page.py", "--seconds", "120", "--visits", "200"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    table = rows(result.stdout)
    slowest, fastest = map(float, table["share of the slowest and of the fastest user"].split(", "))
    assert slowest > 0.5 and fastest < 1.5 and table["errors"] == "0"
    growth = re.search(r"\(([\d.]+)%\)", table["memory from the second minute on"])
    assert float(growth[1]) < 5
    for row in ("memory after a quarter of the time, at the end", "memory after 100 and after 200 visits"):
        early, late = (int(kb.replace(",", "")) for kb in re.findall(r"([\d,]+) kB", table[row]))
        assert late < early + 60_000  # kB


def rows(output):
    """The table that benchmarks/page.py prints."""
    return dict(re.findall(r"^\| (.+?) \| (.+) \|$", output, re.MULTILINE))
