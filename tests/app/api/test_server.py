"""The API in this process: what it answers, and that it computes for nobody."""

import asyncio
import json
import threading
import time

import pytest
from starlette.testclient import TestClient

import lm
from app.api.server import Api
from app.registry import SHIPPED, ModelRegistry
from tests.app.conftest import LIMITS, URL, ask, refused
from tests.conftest import run_async


def events(client, **body):
    """The objects of a stream."""
    answer = client.post(URL, json={"model": "char", "stream": True, **body})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    *lines, end, empty = answer.text.split("\n\n")
    assert (end, empty) == ("data: [DONE]", "")
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def until(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_text_is_what_the_model_generates_with_the_same_seed_and_settings(client, api_runs):
    same = {"temperature": 0.9, "top_p": 0.9, "top_k": 20, "repetition_penalty": 1.2, "min_p": 0.01}
    samples = lm.load(api_runs / "bpe").generate(
        ["The sea", "A boat"], num_samples=3, seed=5, max_new_tokens=40, stop=["zz"], **same
    )
    answer = ask(
        client, model="bpe", prompt=["The sea", "A boat"], n=3, seed=5, max_tokens=40, stop="zz", **same
    )
    assert [choice["text"] for choice in answer["choices"]] == [sample.text for sample in samples]
    assert [choice["index"] for choice in answer["choices"]] == list(range(6))
    assert answer["usage"]["completion_tokens"] == sum(len(sample.tokens) for sample in samples)


def test_what_is_not_asked_for_is_as_openai_has_it(client, api_runs):
    (sample,) = lm.load(api_runs / "char").generate("", seed=3, max_new_tokens=16, temperature=1.0)
    answer = ask(client, seed=3)
    assert answer["object"] == "text_completion" and answer["model"] == "char"
    (choice,) = answer["choices"]
    assert choice == {"text": sample.text, "index": 0, "logprobs": None, "finish_reason": "length"}
    assert answer["usage"] == {"prompt_tokens": 0, "completion_tokens": 16, "total_tokens": 16}
    assert ask(client)["choices"][0]["text"] != ask(client)["choices"][0]["text"]


@pytest.mark.parametrize("model", ["char", "bpe", "byte", "word"])
@pytest.mark.parametrize("more", [{}, {"stop": ["e", "ab"]}, {"echo": True, "logprobs": 2}])
def test_a_stream_is_the_whole_answer_in_parts(client, model, more):
    body = {"model": model, "prompt": ["The sea", "naïve"], "n": 2, "seed": 1, "max_tokens": 60, **more}
    whole = ask(client, **body)
    parts = events(client, **body, stream_options={"include_usage": True})
    *parts, last = parts
    assert last["choices"] == [] and last["usage"] == whole["usage"]
    assert all(part["usage"] is None and part["id"] == last["id"] for part in parts)
    for choice in whole["choices"]:
        mine = [one for part in parts for one in part["choices"] if one["index"] == choice["index"]]
        assert "".join(one["text"] for one in mine) == choice["text"]
        assert [one["finish_reason"] for one in mine if one["finish_reason"]] == [choice["finish_reason"]]
        if choice["logprobs"]:
            for name, values in choice["logprobs"].items():
                assert [v for one in mine for v in one["logprobs"][name]] == values


@pytest.mark.parametrize("model", ["char", "bpe", "byte", "word"])
def test_logprobs_tell_each_token_of_prompt_and_text(client, api_runs, model):
    prompt = "The calm sea naïve"
    body = {"model": model, "prompt": prompt, "echo": True, "logprobs": 3, "seed": 2, "max_tokens": 30}
    (choice,) = ask(client, **body)["choices"]
    logprobs, loaded = choice["logprobs"], lm.load(api_runs / model)
    read = loaded.encode(prompt)
    scores = loaded.score(prompt)
    (sample,) = loaded.generate(prompt, seed=2, max_new_tokens=30, temperature=1.0)
    expected = [score.logprob for score in scores] + sample.logprobs
    shown = len(logprobs["tokens"])
    assert len(read) < shown <= len(expected)
    assert logprobs["token_logprobs"] == pytest.approx(expected[:shown], abs=1e-4)
    for i, (token, logprob) in enumerate(zip(logprobs["tokens"], logprobs["token_logprobs"], strict=True)):
        top = logprobs["top_logprobs"][i]
        assert top[token] == pytest.approx(logprob) and 1 <= len(top) <= 4
        if i < len(read) and scores[i].rank == 1:
            assert token == max(top, key=top.get)
    offsets = logprobs["text_offset"]
    assert offsets == sorted(offsets) and offsets[0] == 0
    if model == "char":
        assert "".join(logprobs["tokens"]) == choice["text"] and offsets == list(range(shown))
    for token, offset in zip(logprobs["tokens"], offsets, strict=True):
        if token.isascii() and token.strip() and model != "byte" and not token.startswith("<"):
            place = choice["text"][offset:].lstrip("\ufffd")  # half a character, given up by the token
            assert (place.lstrip() if model == "word" else place).startswith(token)


def test_a_prompt_can_be_scored_without_writing(client, api_runs):
    answer = ask(client, prompt="The sea", echo=True, logprobs=0, max_tokens=0)
    (choice,) = answer["choices"]
    assert choice["text"] == "The sea" and choice["finish_reason"] == "length"
    scores = [score.logprob for score in lm.load(api_runs / "char").score("The sea")]
    assert choice["logprobs"]["token_logprobs"] == pytest.approx(scores, abs=1e-5)
    assert answer["usage"]["completion_tokens"] == 0


def test_a_text_ends_before_a_stop_string_even_in_the_very_last_token(client):
    (whole,) = ask(client, prompt="The", seed=1, max_tokens=12, logprobs=0)["choices"]
    text = whole["text"]
    last = text[-1]
    first = text.index(last)
    (choice,) = ask(client, prompt="The", seed=1, max_tokens=first + 1, stop=[last], logprobs=0)["choices"]
    assert (choice["text"], choice["finish_reason"]) == (text[:first], "stop")
    assert "".join(choice["logprobs"]["tokens"]) == text[:first]
    (choice,) = ask(client, prompt="The", seed=1, max_tokens=12, stop=["\x00"])["choices"]
    assert (choice["text"], choice["finish_reason"]) == (text, "length")


def test_a_text_ends_where_the_model_ends_it(client, api_runs):
    end = lm.load(api_runs / "bpe").tokenizer.end
    answer = ask(client, model="bpe", logit_bias={str(end): 100}, logprobs=1)
    (choice,) = answer["choices"]
    assert (choice["text"], choice["finish_reason"], choice["logprobs"]["tokens"]) == ("", "stop", [])
    assert answer["usage"]["completion_tokens"] == 1


def test_extensions_and_biases_are_obeyed(client, api_runs):
    (choice,) = ask(client, match="[0-9a-b]{5}")["choices"]
    assert len(choice["text"]) == 5 and choice["text"].strip("ab") == "" and choice["finish_reason"] == "stop"
    assert "e" not in ask(client, ban=["e"], max_tokens=300)["choices"][0]["text"]
    token = lm.load(api_runs / "char").encode("e")[0]
    (choice,) = ask(client, logit_bias={str(token): 100})["choices"]
    assert choice["text"] == "e" * 16
    greedy = {"max_tokens": 30, "temperature": 0}
    assert ask(client, **greedy)["choices"] == ask(client, max_tokens=30, top_p=0)["choices"]


def test_models_are_listed_and_told(client):
    listed = client.get("/v1/models").json()
    assert listed["object"] == "list"
    assert {one["id"] for one in listed["data"]} == {"char", "bpe", "word", "byte", "back", "cut", SHIPPED}
    for one in listed["data"]:
        assert client.get(f"/v1/models/{one['id']}").json() == one
        assert one["object"] == "model" and one["owned_by"] == "lm" and one["created"] > 1e9
    answer = client.get("/v1/models/none")
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "model_not_found"


def test_models_that_cannot_answer_say_so(client):
    assert refused(client, 404, model="../char")["code"] == "model_not_found"
    assert "right to left" in refused(client, 400, model="back", max_tokens=0)["message"]
    assert "cut short" in refused(client, 503, model="cut")["message"]


def test_what_goes_wrong_in_a_stream_is_its_last_event(client):
    body = {"no_repeat_ngram": 1, "max_tokens": 3000}  # no token twice: soon none is left
    assert "none left to choose" in refused(client, **body)["message"]
    *parts, error = events(client, **body)
    assert parts and "none left to choose" in error["error"]["message"]


async def served(app, body, leave):
    """Ask as a client that leaves when `leave(bytes so far)` says so; what it got."""
    data, got, gone = json.dumps(body).encode(), bytearray(), asyncio.Event()
    scope = {
        "type": "http", "method": "POST", "path": URL, "query_string": b"", "asgi": {"version": "3.0"},
        "headers": [(b"content-type", b"application/json")],
    }  # fmt: skip
    requests = iter([{"type": "http.request", "body": data, "more_body": False}])

    async def receive():
        if (request := next(requests, None)) is not None:
            return request
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        got.extend(message.get("body", b""))

    async def watch():
        while not leave(got):
            await asyncio.sleep(0.005)
        gone.set()

    watching = asyncio.ensure_future(watch())
    await asyncio.wait_for(app(scope, receive, send), 5)
    watching.cancel()
    return bytes(got)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_its_computation(api, stream):
    body = {"model": "char", "n": 3, "max_tokens": 3000, "stream": stream}
    begin = time.monotonic()
    leave = (lambda got: len(got) > 500) if stream else (lambda got: time.monotonic() - begin > 0.1)
    got = run_async(served(api.app(), body, leave))
    until(lambda: api._writing == 0, seconds=0.5)
    assert len(got) < 100_000 and b'"length"' not in got
    streams = api._models.load("char").streams
    assert not streams._consumers and all(one.ended for one in [*streams._running, *streams._waiting])


def test_whoever_sees_that_there_is_room_finds_the_line_of_what_ended(api, client, monkeypatch):
    writing = []
    monkeypatch.setattr("app.api.server.log.info", lambda *line: writing.append(api._writing))
    ask(client, n=3)
    assert writing == [3]
    until(lambda: api._writing == 0)


def test_more_texts_than_the_server_writes_at_once_have_to_wait(api, client):
    """And the others are served meanwhile, by as many threads as there are texts."""
    assert "at most 8" in refused(client, n=9)["message"]
    answers, busy = [], {"model": "char", "max_tokens": 3000, "prompt": "x"}

    def one():
        answers.append(client.post(URL, json=busy).status_code)

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: len(api._models.load("char").streams._running) == 8)
    answer = client.post(URL, json={"model": "char"})
    assert answer.status_code == 429 and answer.headers["retry-after"] == "1"
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"
    assert client.get("/health").json() == {"status": "ok", "writing": 8}
    for thread in threads:
        thread.join(30)
    assert answers == [200] * 8
    assert ask(client) and api._writing == 0


def test_a_server_that_ends_says_so_to_those_that_it_serves(api_runs):
    api = Api(ModelRegistry([api_runs]), LIMITS)
    with TestClient(api.app()) as client:
        threading.Timer(0.2, api.end).start()
        assert "ending" in refused(client, 503, max_tokens=3000, n=8)["message"]
        assert "ending" in refused(client, 503)["message"]
