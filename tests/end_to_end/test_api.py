"""The API as a program meets it: the real process, asked by the official client of OpenAI."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import openai
import pytest

import lm
from tests.conftest import ROOT, script
from tests.end_to_end.conftest import free_port, serving, until_ready

LONG = 20_000  # tokens, more than are written in a test


@pytest.fixture(scope="module")
def server(tmp_path_factory, trained_run):
    folder = tmp_path_factory.mktemp("served")
    with serving(folder, "--api", "--port", free_port(), "--models", trained_run.parent) as server:
        yield until_ready(server)


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=server.address, api_key="none", max_retries=0, timeout=30) as client:
        yield client


def writing(server):
    """How many texts the server is writing."""
    with urllib.request.urlopen(server.address.removesuffix("/v1") + "/health", timeout=10) as answer:
        return json.load(answer)["writing"]


def until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_address_is_all_that_is_said_on_standard_output(server):
    assert server.output.read_text() == f"The API is at {server.address}\n"
    assert server.address.startswith("http://127.0.0.1:")


def test_texts_are_those_of_the_model_from_python(client, trained_run):
    samples = lm.load(trained_run).generate(
        "The sea", num_samples=3, seed=7, max_new_tokens=80, temperature=0.8, top_p=0.95, stop=["boat"]
    )
    answer = client.completions.create(
        model="boat", prompt="The sea", n=3, seed=7, max_tokens=80, temperature=0.8, top_p=0.95, stop="boat"
    )
    assert [choice.text for choice in answer.choices] == [sample.text for sample in samples]
    for choice, sample in zip(answer.choices, samples, strict=True):
        assert choice.finish_reason == ("length" if len(sample.text) == 80 else "stop")
    assert answer.usage.prompt_tokens == 7
    assert answer.usage.completion_tokens == sum(len(sample.tokens) for sample in samples)


def test_a_stream_comes_little_by_little_and_is_the_same_text(client):
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


def test_a_prompt_is_scored_by_echo_and_logprobs(client, trained_run):
    text = "The sea was calm"
    answer = client.completions.create(model="boat", prompt=text, echo=True, logprobs=5, max_tokens=0)
    logprobs = answer.choices[0].logprobs
    assert answer.choices[0].text == text and "".join(logprobs.tokens) == text
    scores = [score.logprob for score in lm.load(trained_run).score(text)]
    assert logprobs.token_logprobs == pytest.approx(scores, abs=1e-4)
    assert logprobs.text_offset == list(range(len(text)))
    assert all(5 <= len(top) <= 6 for top in logprobs.top_logprobs)


def test_what_openai_does_not_have_goes_into_extra_body(client):
    answer = client.completions.create(
        model="boat", prompt="The sea", seed=1, max_tokens=50, extra_body={"match": "[a-d ]*", "top_k": 5}
    )
    assert set(answer.choices[0].text) <= set("abcd ")


def test_models_are_listed(client):
    assert "boat" in [model.id for model in client.models.list()]
    for model in client.models.list():  # their names may hold spaces
        assert client.models.retrieve(model.id) == model


def test_mistakes_are_the_errors_of_the_client(client):
    with pytest.raises(openai.NotFoundError, match="no model 'gpt'") as caught:
        client.completions.create(model="gpt", prompt="x")
    assert caught.value.code == "model_not_found" and caught.value.param == "model"
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.completions.create(model="boat", prompt="x", temperature=3)
    with pytest.raises(openai.BadRequestError, match="suffix"):
        client.completions.create(model="boat", prompt="x", suffix="y")
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="boat", messages=[{"role": "user", "content": "x"}])


def test_a_server_that_is_full_says_so(server, client):
    asked = {"model": "boat", "prompt": "x", "n": 64, "max_tokens": LONG}
    with client.completions.create(stream=True, **asked), pytest.raises(openai.RateLimitError):
        client.completions.create(**asked)
    idle(server)


def test_a_client_that_breaks_off_a_stream_frees_its_computation(server, client):
    stream = client.completions.create(model="boat", prompt="The", n=3, max_tokens=LONG, stream=True)
    for _, event in zip(range(5), stream, strict=False):
        assert event.choices
    assert writing(server) == 3
    stream.close()
    idle(server)


def test_a_client_that_leaves_before_the_whole_answer_frees_its_computation(server):
    host, port = server.address.removesuffix("/v1").removeprefix("http://").split(":")
    body = json.dumps({"model": "boat", "prompt": "The", "max_tokens": LONG})
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        until(lambda: writing(server) == 1, seconds=5)
    idle(server)


@pytest.mark.slow
def test_a_client_that_reads_nothing_is_left_after_a_minute(server):
    host, port = server.address.removesuffix("/v1").removeprefix("http://").split(":")
    body = json.dumps({"model": "boat", "n": 32, "max_tokens": LONG, "logprobs": 5, "stream": True})
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        until(lambda: writing(server) == 32, seconds=5)
        until(lambda: writing(server) == 0, seconds=120)
        assert server.ended()[-1].endswith("stopped")


def idle(server):
    """Within a second nothing is written any more, and then nothing is computed."""
    until(lambda: writing(server) == 0, seconds=1)
    assert server.ended()[-1].endswith("stopped")
    busy = server.cpu_seconds()
    time.sleep(0.5)
    assert server.cpu_seconds() - busy < 0.15


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_even_in_the_middle_of_a_text(tmp_path, trained_run, how, monkeypatch):
    """And a key from the environment keeps others out."""
    monkeypatch.setenv("LM_API_KEY", "secret")
    with serving(tmp_path, "--api", "--port", free_port(), "--models", trained_run.parent) as server:
        until_ready(server)
        asked = {"model": "boat", "prompt": "The", "max_tokens": LONG, "stream": True}
        for key in ("wrong", "Secret"):
            client = openai.OpenAI(base_url=server.address, api_key=key)
            with client, pytest.raises(openai.AuthenticationError):
                client.completions.create(**asked)
        with openai.OpenAI(base_url=server.address, api_key="secret") as client:
            stream = client.completions.create(**asked)
            next(stream)
            server.process.send_signal(how)
            with pytest.raises(openai.APIError, match="the server is ending"):
                list(stream)
        assert server.process.wait(timeout=5) == 0
    log = server.log.read_text()
    assert "Traceback" not in log and "secret" not in log


def test_help_and_refusals_need_no_torch(tmp_path):
    blocked = "import sys; sys.modules['torch'] = sys.modules['gradio'] = sys.modules['uvicorn'] = None;"
    run = f"{blocked} from app.command_line import serve; from lm.cli.parser import run; sys.exit(run(serve))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def serve(*arguments):
        return subprocess.run(
            [sys.executable, "-c", run, *map(str, arguments)],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    result = serve("--help")
    assert result.returncode == 0 and "--api-key" in result.stdout and "can see" in result.stdout
    for wrong in (["--share"], ["--auth", "me:x"], ["--api-key", ""], ["--api-key", "ü"]):
        result = serve(*wrong)
        assert result.returncode == 2 and wrong[0] in result.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = serve("--port", port)
    assert result.returncode == 2 and not result.stdout
    assert result.stderr.startswith(f"error: the API cannot listen on 127.0.0.1, port {port};")
    assert result.stderr.count("\n") == 1
    result = script("-m app", "--api-key", "x", cwd=tmp_path)
    assert result.returncode == 2 and "--api-key is for --api" in result.stderr
