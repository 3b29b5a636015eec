"""One client cannot keep the others waiting, whatever it asks for and however slowly it reads; with a real
server and real sockets."""

import dataclasses
import json
import threading
import time

import pytest
from hypothesis import given, strategies as st

from app.api import delivery
from app.api.delivery import BLOCK, blocks
from tests.app.api.conftest import serving
from tests.app.api.test_server import until
from tests.app.conftest import LIMITS

# All sequences, and more than the system buffers.
MUCH = {"n": 8, "max_tokens": 600, "logprobs": 5, "seed": 1}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(delivery, "PATIENCE", 0.1)


def rest_of(client):
    received = bytearray()
    while part := client.recv(1 << 20):
        received += part
    return received.partition(b"\r\n\r\n")[2]


@pytest.mark.slow
@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_does_not_read_gives_its_sequences_to_others(real_server, stream):
    _, expected = real_server.post(**MUCH)
    with real_server.reading(**MUCH, stream=stream) as slow:
        until(lambda: real_server.api.admission.running == 8)
        until(lambda: real_server.api.admission.running == 0, seconds=20)
        start = time.monotonic()
        assert real_server.post(n=8, max_tokens=5)[0] == 200
        assert time.monotonic() - start < 5
        body = rest_of(slow)  # everything, as if nothing had happened
    if not stream:
        assert json.loads(body)["choices"] == expected["choices"]
    else:
        *events, end, _ = body.decode().split("\n\n")
        assert end == "data: [DONE]"
        texts = [""] * 8
        for event in events:
            (choice,) = json.loads(event.removeprefix("data: "))["choices"]
            texts[choice["index"]] += choice["text"]
        assert texts == [choice["text"] for choice in expected["choices"]]
    until(lambda: real_server.api.admission.running == 0)
    assert real_server.api.admission.unread == 0


def test_a_stream_that_nobody_reads_is_not_generated_any_further(real_server):
    with real_server.reading(**MUCH, stream=True):
        until(lambda: real_server.api.admission.running == 8)
        until(lambda: real_server.api.admission.running == 0)
        scheduler = real_server.api.load("char").generator.scheduler
        streams = scheduler.running
        assert len(streams) == 8
        assert real_server.post(max_tokens=1000)[0] == 200  # whose thread computes for all
        assert all(stream.generated < 400 and not stream.ended for stream in streams)
    until(lambda: not [stream for stream in streams if not stream.ended])


def test_a_client_that_leaves_while_its_paused_stream_waits_is_no_error(real_server, caplog):
    with real_server.reading(**MUCH, stream=True) as slow:
        until(lambda: real_server.api.admission.unread > 0, seconds=20)
        with real_server.reading(n=8, max_tokens=3000):
            until(lambda: real_server.api.admission.running == 8)
            while real_server.get("/health")[1]["waiting"] == 0:
                slow.recv(1 << 16)
            slow.close()
            until(lambda: real_server.get("/health")[1]["waiting"] == 0)
    until(lambda: real_server.api.admission.running == 0)
    assert not [record for record in caplog.records if record.exc_info]


def test_clients_that_do_not_read_cannot_take_all_memory(real_server, monkeypatch):
    monkeypatch.setattr(delivery, "MAX_UNREAD", 3_000_000)  # one response fits
    with real_server.reading(**MUCH, stream=True) as slow:
        until(lambda: real_server.api.admission.unread > 0, seconds=20)
        with real_server.reading(**MUCH, stream=True) as another:
            until(lambda: real_server.api.admission.running == 8)
            until(lambda: real_server.api.admission.running == 0, seconds=20)
            assert len(rest_of(another)) < len(rest_of(slow))
    assert real_server.api.admission.unread == 0


@pytest.mark.slow
def test_a_small_request_does_not_wait_for_large_ones(real_server):
    large = {"n": 8, "max_tokens": 2000}
    statuses = []
    threads = [threading.Thread(target=lambda: statuses.append(real_server.post(**large)[0])) for _ in "ab"]
    for thread in threads:
        thread.start()
    until(lambda: real_server.get("/health")[1] == {"status": "ok", "writing": 8, "waiting": 1})
    assert real_server.post(max_tokens=1)[0] == 200
    assert not statuses
    for thread in threads:
        thread.join()
    assert statuses == [200, 200]


@pytest.mark.slow
@pytest.mark.parametrize("stream", [True, False])
def test_a_long_response_does_not_keep_others_waiting(api_runs, stream):
    limits = dataclasses.replace(LIMITS, prompt_characters=5000, sequences=64)
    with serving(api_runs, limits) as server:
        server.post(max_tokens=1)
        body = {"prompt": "The sea. " * 250, "n": 64, "max_tokens": 0, "echo": True, "logprobs": 5}
        sizes, waits = [], []

        def read():
            with server.reading(**body, stream=stream) as client:
                sizes.append(len(rest_of(client)))

        reader = threading.Thread(target=read)
        reader.start()
        while reader.is_alive():
            for request in (lambda: server.get("/health"), lambda: server.post(max_tokens=1)):
                start = time.monotonic()
                assert request()[0] == 200
                waits.append(time.monotonic() - start)
        assert sizes[0] > 15_000_000 and max(waits) < 1


@pytest.mark.slow
def test_preparations_of_many_prompts_alternate_and_can_be_canceled(real_server, monkeypatch):
    generator, encoded = real_server.api.load("char").generator, []
    encode = generator.encode

    def slowly(text, *arguments):
        encoded.append(text)
        time.sleep(0.3)
        return encode(text, *arguments)

    monkeypatch.setattr(generator, "encode", slowly)
    with real_server.reading(prompt=[f"many {i}" for i in range(8)], max_tokens=1) as client:
        until(lambda: len(encoded) == 2)
        assert real_server.post(prompt="one", max_tokens=1)[0] == 200
        assert len(encoded) < 10
        client.close()
    until(lambda: real_server.api.admission.running == 0)
    assert len(encoded) < 14


@pytest.mark.slow
def test_errors_of_the_connection_have_the_form_of_openai(real_server):
    for data, status in ((b"no http\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nA: " + b"a" * 70_000, 431)):
        with real_server.connected() as client:
            client.sendall(data)
            received = bytearray()
            while part := client.recv(1 << 16):
                received += part
        head, _, body = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d" % status) and b"application/json" in head
        assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


@given(st.lists(st.tuples(st.binary(max_size=20), st.integers(1, BLOCK // 5))))
def test_blocks_are_the_same_bytes(pieces):
    pieces = [piece * count for piece, count in pieces]
    found = list(blocks(pieces))
    assert b"".join(found) == b"".join(pieces)
    assert all(len(block) == BLOCK for block in found[:-1]) and all(found)
