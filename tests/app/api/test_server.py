"""Completions and models over HTTP, in this process; canceled requests stop computing."""

import asyncio
import dataclasses
import json
import logging
import threading
import time

import pytest
from starlette.testclient import TestClient

import lm
from app.api.server import Api
from app.registry import SHIPPED, ModelRegistry
from tests.app.conftest import LIMITS, MODELS, URL, complete, rejected
from tests.conftest import run_async


def events(client, **body):
    """The objects of a streamed response."""
    response = client.post(URL, json={"model": "char", "stream": True, **body})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.splitlines() == response.text.split("\n")[:-1]  # as some clients split it
    *lines, end, empty = response.text.split("\n\n")
    assert (end, empty) == ("data: [DONE]", "")
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def until(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_text_is_that_of_generate_with_the_same_seed_and_settings(client, api_runs):
    same = {"temperature": 0.9, "top_p": 0.9, "top_k": 20, "repetition_penalty": 1.2, "min_p": 0.01}
    samples = lm.load(api_runs / "bpe").generate(
        ["The sea", "A boat"], num_samples=3, seed=5, max_new_tokens=40, stop=["zz"], **same
    )
    response = complete(
        client, model="bpe", prompt=["The sea", "A boat"], n=3, seed=5, max_tokens=40, stop="zz", **same
    )
    assert [choice["text"] for choice in response["choices"]] == [sample.text for sample in samples]
    assert [choice["index"] for choice in response["choices"]] == list(range(6))
    assert response["usage"]["completion_tokens"] == sum(len(sample.tokens) for sample in samples)


def test_choices_after_the_last_seed_go_on_with_the_first(client, api_runs):
    samples = lm.load(api_runs / "char").generate(
        "The sea", num_samples=3, seed=-2, temperature=1.0, max_new_tokens=9
    )
    response = complete(client, prompt="The sea", n=3, seed=-2, max_tokens=9)
    assert [choice["text"] for choice in response["choices"]] == [sample.text for sample in samples]


def test_default_response(client, api_runs):
    (sample,) = lm.load(api_runs / "char").generate("", seed=3, max_new_tokens=16, temperature=1.0)
    response = complete(client, seed=3)
    assert response["object"] == "text_completion" and response["model"] == "char"
    (choice,) = response["choices"]
    assert choice == {"text": sample.text, "index": 0, "logprobs": None, "finish_reason": "length"}
    assert response["usage"] == {"prompt_tokens": 0, "completion_tokens": 16, "total_tokens": 16}
    assert complete(client)["choices"][0]["text"] != complete(client)["choices"][0]["text"]


@pytest.mark.parametrize("model", ["char", "bpe", "byte", "word"])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"stop": ["e", "ab"]},
        {"echo": True, "logprobs": 2},
        {"echo": True, "prompt": ["line\u2028by", "line\x85\u2029"]},
    ],
)
def test_streamed_chunks_add_up_to_the_whole_response(client, model, more):
    body = {"model": model, "prompt": ["The sea", "naïve"], "n": 2, "seed": 1, "max_tokens": 60, **more}
    whole = complete(client, **body)
    *chunks, last = events(client, **body, stream_options={"include_usage": True})
    assert last["choices"] == [] and last["usage"] == whole["usage"]
    assert all(chunk["usage"] is None and chunk["id"] == last["id"] for chunk in chunks)
    for choice in whole["choices"]:
        pieces = [
            piece for chunk in chunks for piece in chunk["choices"] if piece["index"] == choice["index"]
        ]
        assert "".join(piece["text"] for piece in pieces) == choice["text"]
        reasons = [piece["finish_reason"] for piece in pieces if piece["finish_reason"]]
        assert reasons == [choice["finish_reason"]]
        if choice["logprobs"]:
            for name, values in choice["logprobs"].items():
                assert [v for piece in pieces for v in piece["logprobs"][name]] == values


def test_each_choice_finishes_as_soon_as_it_ends(client):
    body = {"model": "char", "prompt": "The sea", "n": 4, "seed": 1, "max_tokens": 400, "stop": ["ea"]}
    chunks = [chunk["choices"][0] for chunk in events(client, **body) if chunk["choices"]]
    ends = [place for place, choice in enumerate(chunks) if choice["finish_reason"]]
    lasts = {choice["index"]: place for place, choice in enumerate(chunks)}
    assert sorted(lasts.values()) == ends and len(ends) == 4
    assert ends[0] < len(chunks) - 4  # while the others go on


@pytest.mark.parametrize("model", ["char", "bpe", "byte", "word"])
def test_logprobs_cover_each_token_of_prompt_and_text(client, api_runs, model):
    prompt = "The calm sea naïve"
    body = {"model": model, "prompt": prompt, "echo": True, "logprobs": 3, "seed": 2, "max_tokens": 30}
    (choice,) = complete(client, **body)["choices"]
    logprobs, loaded = choice["logprobs"], lm.load(api_runs / model)
    tokens = loaded.encode(prompt)
    scores = loaded.score(prompt)
    (sample,) = loaded.generate(prompt, seed=2, max_new_tokens=30, temperature=1.0)
    expected = [score.logprob for score in scores] + sample.logprobs
    count = len(logprobs["tokens"])
    assert len(tokens) < count == len(expected)
    assert logprobs["token_logprobs"] == pytest.approx(expected, abs=1e-4)
    for i, (token, logprob) in enumerate(zip(logprobs["tokens"], logprobs["token_logprobs"], strict=True)):
        top = logprobs["top_logprobs"][i]
        assert top[token] == pytest.approx(logprob) and 1 <= len(top) <= 4
        if i < len(tokens) and scores[i].rank == 1:
            assert token == max(top, key=top.get)
    offsets = logprobs["text_offset"]
    assert offsets == sorted(offsets) and offsets[0] == 0
    if model == "char":
        assert "".join(logprobs["tokens"]) == choice["text"] and offsets == list(range(count))
    for token, offset in zip(logprobs["tokens"], offsets, strict=True):
        if not token.startswith(("<", "bytes:")):
            assert choice["text"][offset:].startswith(token)


def test_echo_scores_a_prompt_without_generating(client, api_runs):
    response = complete(client, prompt="The sea", echo=True, logprobs=0, max_tokens=0)
    (choice,) = response["choices"]
    assert choice["text"] == "The sea" and choice["finish_reason"] == "length"
    scores = [score.logprob for score in lm.load(api_runs / "char").score("The sea")]
    assert choice["logprobs"]["token_logprobs"] == pytest.approx(scores, abs=1e-5)
    assert response["usage"]["completion_tokens"] == 0


def test_stop_string_in_the_very_last_token(client):
    (whole,) = complete(client, prompt="The", seed=1, max_tokens=12, logprobs=0)["choices"]
    text = whole["text"]
    last = text[-1]
    first = text.index(last)
    body = {"prompt": "The", "seed": 1, "max_tokens": first + 1, "stop": [last], "logprobs": 0}
    (choice,) = complete(client, **body)["choices"]
    assert (choice["text"], choice["finish_reason"]) == (text[:first], "stop")
    assert "".join(choice["logprobs"]["tokens"]) == text[: first + 1]
    assert choice["logprobs"]["text_offset"] == list(range(first + 1))
    (choice,) = complete(client, prompt="The", seed=1, max_tokens=12, stop=["\x00"])["choices"]
    assert (choice["text"], choice["finish_reason"]) == (text, "length")


def test_text_ends_at_the_end_token(client, api_runs):
    end = lm.load(api_runs / "bpe").tokenizer.end
    response = complete(client, model="bpe", logit_bias={str(end): 100}, logprobs=1)
    (choice,) = response["choices"]
    assert (choice["text"], choice["finish_reason"], choice["logprobs"]["tokens"]) == ("", "stop", ["<eos>"])
    assert response["usage"]["completion_tokens"] == 1


def test_match_ban_logit_bias_and_greedy_decoding(client, api_runs):
    (choice,) = complete(client, match="[0-9a-b]{5}")["choices"]
    assert len(choice["text"]) == 5 and choice["text"].strip("ab") == "" and choice["finish_reason"] == "stop"
    assert "e" not in complete(client, ban=["e"], max_tokens=300)["choices"][0]["text"]
    token = lm.load(api_runs / "char").encode("e")[0]
    (choice,) = complete(client, logit_bias={str(token): 100})["choices"]
    assert choice["text"] == "e" * 16
    greedy = {"max_tokens": 30, "temperature": 0}
    assert complete(client, **greedy)["choices"] == complete(client, max_tokens=30, top_p=0)["choices"]


def test_models_can_be_listed_and_retrieved(client):
    listed = client.get("/v1/models").json()
    assert listed["object"] == "list"
    assert {model["id"] for model in listed["data"]} == {*MODELS, SHIPPED}
    for model in listed["data"]:
        assert client.get(f"/v1/models/{model['id']}").json() == model
        assert model["object"] == "model" and model["owned_by"] == "lm" and model["created"] > 1e9
    assert client.get("/v1/models/shipped with lm").json()["id"] == SHIPPED == "pretrained"  # its former name
    assert complete(client, model="shipped with lm", max_tokens=1)["model"] == "shipped with lm"
    response = client.get("/v1/models/none")
    assert response.status_code == 404 and response.json()["error"]["code"] == "model_not_found"


def test_models_that_cannot_be_used(client):
    assert rejected(client, 404, model="../char")["code"] == "model_not_found"
    assert "right to left" in rejected(client, 400, model="back", max_tokens=0)["message"]
    assert "truncated" in rejected(client, 503, model="cut")["message"]


def test_error_in_a_stream_is_its_last_event(client):
    body = {"no_repeat_ngram": 1, "max_tokens": 3000}  # each token only once: soon none is left
    expected = rejected(client, **body)
    assert "no token is allowed" in expected["message"] and expected["param"] == "no_repeat_ngram"
    *chunks, error = events(client, **body)
    assert chunks and error == {"error": expected}


async def request_until(app, body, leave):
    """Send a request and disconnect when `leave(bytes so far)`; the bytes received."""
    data, received, gone = json.dumps(body).encode(), bytearray(), asyncio.Event()
    scope = {
        "type": "http",
        "method": "POST",
        "path": URL,
        "query_string": b"",
        "asgi": {"version": "3.0"},
        "headers": [(b"content-type", b"application/json")],
    }
    requests = iter([{"type": "http.request", "body": data, "more_body": False}])

    async def receive():
        if (request := next(requests, None)) is not None:
            return request
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        received.extend(message.get("body", b""))

    async def watch():
        while not leave(received):
            await asyncio.sleep(0.005)
        gone.set()

    watching = asyncio.ensure_future(watch())
    await asyncio.wait_for(app(scope, receive, send), 5)
    watching.cancel()
    return bytes(received)


@pytest.mark.parametrize("stream", [True, False])
def test_disconnecting_cancels_the_computation(api, stream):
    body = {"model": "char", "n": 3, "max_tokens": 3000, "stream": stream}
    start = time.monotonic()
    leave = (lambda got: len(got) > 500) if stream else (lambda got: time.monotonic() - start > 0.1)
    received = run_async(request_until(api.app(), body, leave))
    until(lambda: api.admission.running == 0, seconds=0.5)
    assert len(received) < 100_000 and b'"length"' not in received
    busy = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - busy < 0.05


def test_request_is_logged_before_its_sequences_are_released(api, client, caplog):
    counts = []

    class Counter(logging.Handler):
        def emit(self, record):
            counts.append(api.admission.running)

    log, counter = logging.getLogger("app.api.server"), Counter()
    caplog.set_level(logging.INFO, log.name)
    log.addHandler(counter)
    complete(client, n=3)
    log.removeHandler(counter)
    assert counts == [3]
    until(lambda: api.admission.running == 0)


@pytest.mark.slow
def test_requests_over_the_limit_wait_and_are_told_to_retry_when_too_many_wait(api, client):
    assert "at most 8" in rejected(client, n=9)["message"]
    statuses, busy = [], {"model": "char", "max_tokens": 3000, "prompt": "x"}
    threads = [
        threading.Thread(target=lambda: statuses.append(client.post(URL, json=busy).status_code))
        for _ in range(8 + LIMITS.waiting)
    ]
    for thread in threads:
        thread.start()
    waiting = {"status": "ok", "writing": 8, "waiting": LIMITS.waiting}
    until(lambda: client.get("/health").json() == waiting)
    response = client.post(URL, json={"model": "char"})
    assert response.status_code == 429 and response.headers["retry-after"] == "1"
    assert response.json()["error"]["code"] == "rate_limit_exceeded"
    for thread in threads:
        thread.join(30)
    assert statuses == [200] * (8 + LIMITS.waiting)
    assert complete(client)
    until(lambda: api.admission.running == 0)


def test_disconnecting_while_a_prompt_is_read_or_a_request_waits_cancels_it(api_runs):
    api = Api(
        ModelRegistry([api_runs]), dataclasses.replace(LIMITS, prompt_characters=10**9, body_bytes=10**9)
    )
    app = api.app()
    begin = time.monotonic()

    def after_a_moment(received):
        return time.monotonic() - begin > 0.3

    async def three():
        long = {"model": "byte", "prompt": "The sea " * 10**5, "n": 8, "max_tokens": 5}
        await asyncio.gather(*(request_until(app, long, after_a_moment) for _ in range(3)))

    run_async(three())
    until(lambda: api.admission.running == 0, seconds=2)


def test_shutdown_cancels_running_requests_and_rejects_new_ones(api_runs):
    api = Api(ModelRegistry([api_runs]), LIMITS)
    with TestClient(api.app()) as client:
        threading.Timer(0.2, api.shut_down).start()
        assert "shutting down" in rejected(client, 503, max_tokens=3000, n=8)["message"]
        assert "shutting down" in rejected(client, 503)["message"]
