"""The API as clients use it: a real server process and the official OpenAI client."""

import asyncio
import json
import signal
import socket
import sys
import time
import urllib.request
from functools import partial

import openai
import pytest

import lm
from benchmarks.clients import CLIENTS, run
from tests.conftest import run_async
from tests.end_to_end.conftest import free_port, serving, until_ready

LONG = 20_000  # tokens, more than any test waits for


@pytest.fixture(scope="module")
def server(tmp_path_factory, trained_run):
    folder = tmp_path_factory.mktemp("served")
    with serving(folder, "--api", "--port", free_port(), "--models", trained_run.parent) as server:
        yield until_ready(server)


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=server.address, api_key="none", max_retries=0, timeout=30) as client:
        yield client


def num_sequences(server):
    """How many sequences the server is generating."""
    with urllib.request.urlopen(server.address.removesuffix("/v1") + "/health", timeout=10) as response:
        return json.load(response)["writing"]


def until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_only_the_address_is_printed_on_standard_output(server):
    assert server.output.read_text() == f"The API is at {server.address}\n"
    assert server.address.startswith("http://127.0.0.1:")


def test_texts_are_those_of_the_python_api(client, trained_run):
    samples = lm.load(trained_run).generate(
        "The sea", num_samples=3, seed=7, max_new_tokens=80, temperature=0.8, top_p=0.95, stop=["boat"]
    )
    response = client.completions.create(
        model="boat", prompt="The sea", n=3, seed=7, max_tokens=80, temperature=0.8, top_p=0.95, stop="boat"
    )
    assert [choice.text for choice in response.choices] == [sample.text for sample in samples]
    for choice, sample in zip(response.choices, samples, strict=True):
        assert choice.finish_reason == ("length" if len(sample.text) == 80 else "stop")
    assert response.usage.prompt_tokens == 7
    assert response.usage.completion_tokens == sum(len(sample.tokens) for sample in samples)


def test_stream_arrives_incrementally_and_is_the_same_text(client):
    same = {"model": "boat", "prompt": "The sea", "seed": 3, "max_tokens": 3000, "temperature": 0.8}
    (whole,) = client.completions.create(**same).choices
    begin, texts, times, reasons, usage = time.monotonic(), [], [], [], None
    for event in client.completions.create(stream=True, stream_options={"include_usage": True}, **same):
        usage = event.usage
        for choice in event.choices:
            texts.append(choice.text)
            times.append(time.monotonic() - begin)
            reasons.append(choice.finish_reason)
    assert "".join(texts) == whole.text and len(whole.text) == 3000
    assert reasons[-1] == "length" and set(reasons[:-1]) == {None}
    assert len(texts) > 5 and times[0] < times[-1] / 2
    assert usage.completion_tokens == 3000


def test_echo_and_logprobs_score_a_prompt(client, trained_run):
    text = "The sea was calm"
    response = client.completions.create(model="boat", prompt=text, echo=True, logprobs=5, max_tokens=0)
    logprobs = response.choices[0].logprobs
    assert response.choices[0].text == text and "".join(logprobs.tokens) == text
    scores = [score.logprob for score in lm.load(trained_run).score(text)]
    assert logprobs.token_logprobs == pytest.approx(scores, abs=1e-4)
    assert logprobs.text_offset == list(range(len(text)))
    assert all(5 <= len(top) <= 6 for top in logprobs.top_logprobs)


def test_extensions_in_extra_body(client):
    response = client.completions.create(
        model="boat", prompt="The sea", seed=1, max_tokens=50, extra_body={"match": "[a-d ]*", "top_k": 5}
    )
    assert set(response.choices[0].text) <= set("abcd ")


def test_models_are_listed(client):
    assert "boat" in [model.id for model in client.models.list()]
    for model in client.models.list():  # the names may contain spaces
        assert client.models.retrieve(model.id) == model


def test_errors_raise_the_exceptions_of_the_client(client):
    with pytest.raises(openai.NotFoundError, match="no model 'gpt'") as caught:
        client.completions.create(model="gpt", prompt="x")
    assert caught.value.code == "model_not_found" and caught.value.param == "model"
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.completions.create(model="boat", prompt="x", temperature=3)
    with pytest.raises(openai.BadRequestError, match="suffix"):
        client.completions.create(model="boat", prompt="x", suffix="y")
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="boat", messages=[{"role": "user", "content": "x"}])


@pytest.mark.slow
def test_two_hundred_requests_at_the_same_time_all_succeed(server):
    async def all_at_once():
        async with openai.AsyncOpenAI(base_url=server.address, api_key="none", max_retries=0) as client:
            request = partial(client.completions.create, model="boat", prompt="The sea", max_tokens=20)
            return await asyncio.gather(*(request(seed=seed) for seed in range(200)))

    responses = run_async(all_at_once())
    assert [len(response.choices[0].text) for response in responses] == [20] * 200


@pytest.mark.slow
@pytest.mark.parametrize("name", ["curl", "openai"])
def test_recipe_of_the_documentation_runs(server, name):
    recipe = next(client for client in CLIENTS if client.name == name)
    assert run(recipe, {"api": server.address.removesuffix("/v1")}, sys.executable) is None
    assert "no such endpoint" in run(recipe, {"api": server.address}, sys.executable)


def test_closing_a_stream_cancels_the_computation(server, client):
    stream = client.completions.create(model="boat", prompt="The", n=3, max_tokens=LONG, stream=True)
    for _, event in zip(range(5), stream, strict=False):
        assert event.choices
    assert num_sequences(server) == 3
    stream.close()
    idle(server)


def test_disconnecting_before_the_response_cancels_the_computation(server):
    host, port = server.address.removesuffix("/v1").removeprefix("http://").split(":")
    body = json.dumps({"model": "boat", "prompt": "The", "max_tokens": LONG})
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        until(lambda: num_sequences(server) == 1, seconds=5)
    idle(server)


@pytest.mark.slow
def test_client_that_does_not_read_is_disconnected_after_a_minute(server):
    host, port = server.address.removesuffix("/v1").removeprefix("http://").split(":")
    body = json.dumps({"model": "boat", "n": 32, "max_tokens": LONG, "logprobs": 5, "stream": True})
    before = len(server.ended())
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        until(lambda: num_sequences(server) == 32, seconds=5)
        until(
            lambda: len(server.ended()) > before, seconds=120
        )  # its sequences were given to others long before
        assert server.ended()[-1].endswith("stopped")
    idle(server)


def idle(server):
    """Check that within a second nothing is generated any more, and that nothing is computed after that."""
    until(lambda: num_sequences(server) == 0, seconds=1)
    assert server.ended()[-1].endswith("stopped")
    busy = server.cpu_seconds()
    time.sleep(0.5)
    assert server.cpu_seconds() - busy < 0.15


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_the_server_in_the_middle_of_a_stream(tmp_path, trained_run, signum, monkeypatch):
    """Also checks that the key from the environment is required and not logged."""
    monkeypatch.setenv("LM_API_KEY", "secret")
    with serving(tmp_path, "--api", "--port", free_port(), "--models", trained_run.parent) as server:
        until_ready(server)
        body = {"model": "boat", "prompt": "The", "max_tokens": LONG, "stream": True}
        for key in ("wrong", "Secret"):
            client = openai.OpenAI(base_url=server.address, api_key=key)
            with client, pytest.raises(openai.AuthenticationError):
                client.completions.create(**body)
        with openai.OpenAI(base_url=server.address, api_key="secret") as client:
            stream = client.completions.create(**body)
            next(stream)
            server.process.send_signal(signum)
            with pytest.raises(openai.APIError, match="the server is shutting down"):
                list(stream)
        assert server.process.wait(timeout=5) == 0
    log = server.log.read_text()
    assert "Traceback" not in log and "secret" not in log
