"""The gate and the connection limits, on a real server."""

import asyncio
import http.client
import socket
import threading
import time
from contextlib import closing, contextmanager, suppress

import pytest
import uvicorn
from starlette.responses import PlainTextResponse

from app import gate
from app.access import Access
from app.gate import MAX_HEADER_BYTES, SETTINGS, Gate

ADDRESS = "127.0.0.1"
PAGE = "http://page.example"
DELAY = 0.0  # seconds until the response
PADDING = 0  # bytes after the text of the response
LEFT = threading.Event()  # the client of a request for /wait has left


async def echo(scope, receive, send):
    """Responds with the length of the request body."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    if scope["path"] == "/wait":
        LEFT.clear()
        assert (await receive())["type"] == "http.disconnect"
        return LEFT.set()
    await asyncio.sleep(DELAY)
    await PlainTextResponse(f"{size}{' ' * PADDING}")(scope, receive, send)


@pytest.fixture(scope="module")
def server():
    """The port of a server, whose thread ends with the tests."""
    access = Access(ADDRESS, origins=[PAGE])
    app = Gate(echo, access, lambda message, status, code: PlainTextResponse(message, status))
    listener = socket.create_server((ADDRESS, 0))
    server = uvicorn.Server(uvicorn.Config(app, **SETTINGS, lifespan="off", log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()


@contextmanager
def connected(port):
    with socket.create_connection((ADDRESS, port), timeout=10) as client:
        yield client


def response_to(client, data=b""):
    """What the server sends until it closes the connection, and the seconds that it takes."""
    start = time.monotonic()
    client.sendall(data)
    received = b""
    while part := client.recv(65536):
        received += part
    return received.decode(), time.monotonic() - start


def get(port, **headers):
    """The status and the body of the response to a GET."""
    with closing(http.client.HTTPConnection(ADDRESS, port, timeout=10)) as connection:
        connection.request("GET", "/", headers={name.replace("_", "-"): v for name, v in headers.items()})
        response = connection.getresponse()
        return response.status, response.read().decode(), response


def test_requests_of_other_sites_are_turned_away_in_one_line(server):
    status, body, response = get(server)
    assert (status, body, response.headers["X-Frame-Options"]) == (200, "0", "SAMEORIGIN")
    for headers in (
        {"Host": "evil.example"},
        {"Origin": "http://evil.example"},
        {"Sec_Fetch_Site": "cross-site"},
    ):
        status, body, _ = get(server, **headers)
        assert status == 403 and "\n" not in body
        assert "evil.example" in body or "Origin" not in headers


def test_two_origins_are_turned_away(server):
    head = f"GET / HTTP/1.1\r\nHost: {ADDRESS}:{server}\r\nConnection: close\r\n"
    own = f"Origin: http://{ADDRESS}:{server}\r\n"
    with connected(server) as client:
        assert response_to(client, f"{head}{own}\r\n".encode())[0].startswith("HTTP/1.1 200")
    with connected(server) as client:
        both = f"{head}{own}Origin: http://evil.example\r\n\r\n"
        assert response_to(client, both.encode())[0].startswith("HTTP/1.1 403")


def test_name_of_the_host_cannot_break_the_line(server):
    head = b"GET / HTTP/1.1\r\nHost: \xff\x1b'%s\r\nConnection: close\r\n\r\n" % (b"a" * 500)
    with connected(server) as client:
        received, _ = response_to(client, head.replace(b"\x1b", b""))
    assert received.startswith("HTTP/1.1 403") and len(received.rpartition("\r\n\r\n")[2]) < 200


@pytest.mark.parametrize("host", ["", "Host:\r\n", "Host: \r\n"])
def test_a_request_that_names_no_host_is_turned_away_with_the_reason(server, host):
    with connected(server) as client:
        received, _ = response_to(client, f"GET / HTTP/1.0\r\n{host}\r\n".encode())
    assert received.startswith("HTTP/1.1 403") and "the request needs one header 'Host'" in received


def test_http_1_1_requires_a_host(server):
    with connected(server) as client:
        received, _ = response_to(client, b"GET / HTTP/1.1\r\n\r\n")
    assert received.startswith("HTTP/1.1 400") and "the request needs one header 'Host'" in received


def test_a_request_may_name_the_whole_uri(server):
    for name, status in (("localhost:8000", 200), ("example.org", 403)):
        head = f"GET HTTP://{name}/a%20b?c HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        with connected(server) as client:
            assert response_to(client, head.encode())[0].startswith(f"HTTP/1.1 {status}")
    scope = {"raw_path": b"http://lm:80/a%20b", "path": "http://lm:80/a b", "headers": [(b"host", b"x")]}
    assert gate._with_path_only(scope) == {
        "raw_path": b"/a%20b",
        "path": "/a b",
        "headers": [(b"host", b"lm:80")],
    }


@pytest.mark.slow
def test_an_allowed_page_can_read_why_its_request_timed_out(server, monkeypatch):
    monkeypatch.setattr(gate, "BODY_TIMEOUT", 0.3)
    for header in (f"Origin: {PAGE}\r\n", ""):
        with connected(server) as client:
            received, _ = response_to(client, (POST % 10)[:-2] + f"{header}\r\n1".encode())
        assert received.startswith("HTTP/1.1 408")
        assert (f"access-control-allow-origin: {PAGE}\r\n" in received.lower()) is bool(header)


@pytest.mark.slow
@pytest.mark.parametrize("size", [MAX_HEADER_BYTES + 1, 200_000, 131 << 20])
def test_large_headers_are_turned_away_immediately(server, size):
    with connected(server) as client:
        head = b"GET / HTTP/1.1\r\nHost: localhost\r\nA: "
        client.sendall(head)
        start, sent = time.monotonic(), 0
        try:
            while sent < size:
                sent += client.send(b"a" * min(1 << 20, size - sent))
            client.sendall(b"\r\n\r\n")
        except OSError:  # the server has stopped reading
            pass
        answer = b""
        try:
            while part := client.recv(65536):
                answer += part
        except ConnectionResetError:
            assert size > 1 << 20
        assert time.monotonic() - start < 10
    assert answer.startswith(b"HTTP/1.1 431") or (size > 1 << 20 and not answer)
    assert get(server)[0] == 200


def test_headers_below_the_limit_are_served(server):
    assert get(server, A="a" * (MAX_HEADER_BYTES - 500))[0] == 200


def test_large_trailer_ends_the_connection(server):
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nT: "
    with connected(server) as client:
        try:
            client.sendall(head + b"a" * 1_000_000)
            client.recv(100)
        except OSError:
            pass
    assert get(server)[0] == 200


@pytest.mark.slow
def test_a_malformed_body_is_answered(server):
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    for parts in ([head + b"zz\r\n"], [head, b"zz\r\n"], [head + b"1\r\na\r\n", b"-1\r\n"]):
        with connected(server) as client:
            for part in parts[:-1]:
                client.sendall(part)
                time.sleep(0.1)
            received, seconds = response_to(client, parts[-1])
        assert received.startswith("HTTP/1.1 400") and seconds < 5


def test_two_ways_to_end_a_body_are_turned_away(server):
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"
    with connected(server) as client:
        received, seconds = response_to(client, head + b"0\r\n\r\n")
    assert received.startswith("HTTP/1.1 400") and "not both" in received and seconds < 5


def test_what_is_not_http_is_turned_away(server):
    with connected(server) as client:
        assert response_to(client, b"\x16\x03\x01 hello\r\n\r\n")[0].startswith("HTTP/1.1 400")


@pytest.mark.parametrize("body", [b"", b"x" * 100_000], ids=["short", "long"])
@pytest.mark.parametrize(
    "more",
    [b"", b"\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"x" * 300_000],
    ids=["nothing", "a line", "a request", "too much"],
)
def test_a_client_that_leaves_is_noticed_whatever_it_has_sent_after_its_request(server, body, more):
    LEFT.set()
    with connected(server) as client:
        head = b"POST /wait HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
        client.sendall(head + body)
        deadline = time.monotonic() + 5
        while LEFT.is_set() and time.monotonic() < deadline:
            time.sleep(0.01)
        for part in (more[: len(more) // 2], more[len(more) // 2 :]):
            with suppress(ConnectionError):  # it was closed
                client.sendall(part)
            time.sleep(0.1)
        assert LEFT.is_set() == (len(more) > MAX_HEADER_BYTES)
    assert LEFT.wait(5)


def test_requests_sent_at_once_are_answered_in_order(server):
    posts = [b"x" * size for size in (3, 0, 20_000, 5)]
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    last = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with connected(server) as client:
        received, _ = response_to(client, b"".join(head % len(post) + post for post in posts) + last)
    bodies = [part.partition("HTTP/1.1")[0] for part in received.split("\r\n\r\n")[1:]]
    assert bodies == ["3", "0", "20000", "5", "0"]


@pytest.mark.slow
def test_incomplete_headers_time_out_even_if_they_continue(server, monkeypatch):
    monkeypatch.setattr(gate, "HEADER_TIMEOUT", 0.5)
    with connected(server) as client:
        received, seconds = response_to(client, b"GET / HTTP/1.1\r\n")
        assert received.startswith("HTTP/1.1 408") and 0.4 < seconds < 3
    with connected(server) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        client.settimeout(0.1)
        start, received = time.monotonic(), b""
        while not received:  # the second request of a connection, slowly
            assert time.monotonic() - start < 5
            client.sendall(b"G")
            with suppress(TimeoutError):
                received = client.recv(1000)
        assert received.startswith(b"HTTP/1.1 408")


def test_connection_without_a_request_is_closed(server, monkeypatch):
    monkeypatch.setattr(gate, "HEADER_TIMEOUT", 0.3)
    with connected(server) as client:
        assert response_to(client)[0] == ""


POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"


@pytest.mark.slow
def test_body_must_end_or_continue_at_some_rate(server, monkeypatch):
    monkeypatch.setattr(gate, "BODY_TIMEOUT", 0.6)
    monkeypatch.setattr(gate, "BODY_PROGRESS", 1000)
    with connected(server) as client:
        received, seconds = response_to(client, POST % 10 + b"12345")
        assert received.startswith("HTTP/1.1 408") and 0.5 < seconds < 5
    with connected(server) as client:  # a byte now and then is no progress
        client.sendall(POST % 1_000_000)
        client.settimeout(0.1)
        start, received = time.monotonic(), b""
        while not received:
            assert time.monotonic() - start < 5
            client.sendall(b" ")
            with suppress(TimeoutError):
                received = client.recv(1000)
        assert received.startswith(b"HTTP/1.1 408")
    with connected(server) as client:
        client.sendall(POST % 12_000)
        for _ in range(12):
            client.sendall(b"1" * 1000)
            time.sleep(0.15)
        assert response_to(client)[0].endswith("\r\n\r\n12000")


def test_body_after_another_request_has_a_time_limit_too(server, monkeypatch):
    """Even if its header came before that request was answered."""
    monkeypatch.setattr(gate, "BODY_TIMEOUT", 0.5)
    with connected(server) as client:
        received, seconds = response_to(client, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + POST % 10)
        assert received.startswith("HTTP/1.1 200") and "HTTP/1.1 408" in received and 0.4 < seconds < 4


@pytest.mark.slow
@pytest.mark.parametrize("reads", [False, True])
def test_client_that_hardly_reads_is_disconnected(server, monkeypatch, reads):
    monkeypatch.setattr(gate, "READ_TIMEOUT", 0.5)
    monkeypatch.setattr(f"{__name__}.PADDING", 20_000_000)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(10)
        client.connect((ADDRESS, server))
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        received = 0
        for _ in range(120):  # about 400,000 bytes per second, or 10,000
            received += len(client.recv(4096 if reads else 100))
            time.sleep(0.01)
        with suppress(ConnectionResetError):
            while part := client.recv(1 << 20):
                received += len(part)
    assert (received > 20_000_000) == reads


def test_response_may_take_longer_than_the_timeouts(server, monkeypatch):
    monkeypatch.setattr(gate, "HEADER_TIMEOUT", 0.2)
    monkeypatch.setattr(gate, "BODY_TIMEOUT", 0.2)
    monkeypatch.setattr(f"{__name__}.DELAY", 0.9)
    with connected(server) as client:
        head = b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 1\r\n\r\n1"
        received, seconds = response_to(client, head)
        assert received.endswith("1") and seconds > 0.8


def test_connections_are_limited(server, monkeypatch):
    monkeypatch.setattr(gate, "max_connections", lambda: 3)
    monkeypatch.setattr(gate, "_MAX_REFUSALS", 1)
    clients = [socket.create_connection((ADDRESS, server), timeout=10) for _ in range(3)]
    time.sleep(0.2)
    with connected(server) as client, connected(server) as another:
        closed, refused = sorted(response_to(it)[0] for it in (client, another))
        assert closed == "" and refused.startswith("HTTP/1.1 503") and "retry-after: 1" in refused
    for client in clients:
        client.close()
    deadline = time.monotonic() + 5
    while get(server)[0] != 200:
        assert time.monotonic() < deadline


def test_one_address_has_a_share_of_the_connections(server, monkeypatch):
    monkeypatch.setattr(gate, "max_connections", lambda: 8)
    monkeypatch.setattr(gate, "_MAX_REFUSALS", 1)
    monkeypatch.setattr(gate, "client_network", lambda address: address)  # as if it were not this computer
    clients = [socket.create_connection((ADDRESS, server), timeout=10) for _ in range(2)]
    time.sleep(0.2)
    with connected(server) as client, connected(server) as another:
        closed, refused = sorted(response_to(it)[0] for it in (client, another))
        assert closed == "" and refused.startswith("HTTP/1.1 503")
    monkeypatch.setattr(gate, "client_network", lambda address: "another address")
    assert get(server)[0] == 200
    monkeypatch.setattr(gate, "client_network", lambda address: None)  # a proxy on this computer
    clients += [socket.create_connection((ADDRESS, server), timeout=10) for _ in range(4)]
    assert get(server)[0] == 200
    for client in clients:
        client.close()
