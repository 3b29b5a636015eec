"""Malformed requests to the page get an error below 500, and no file of the server can be fetched."""

import json
import socket
import time
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.attacked import PATHS, SECRET

REQUESTS = [
    ("POST", "/gradio_api/queue/join", {"data": [], "fn_index": 10**9, "session_hash": "a"}),
    ("POST", "/gradio_api/queue/join", {"data": [], "fn_index": -1, "session_hash": "a"}),
    ("POST", "/gradio_api/queue/join", {"data": {}, "fn_index": "x", "session_hash": ["a"]}),
    ("POST", "/gradio_api/queue/join", {"data": [], "fn_index": 3, "session_hash": "a", "trigger_id": 10**9}),
    ("POST", "/gradio_api/queue/join", {"data": [], "session_hash": "a"}),
    ("POST", "/gradio_api/queue/join", []),
    ("POST", "/gradio_api/queue/join", {"data": ["x" * 9_000_000], "fn_index": 3, "session_hash": "a"}),
    ("POST", "/gradio_api/queue/join", b"[" * 50_000),
    ("POST", "/gradio_api/queue/join", b"\xff\xfe{"),
    ("POST", "/gradio_api/call/continue_text", {"data": [1]}),
    ("POST", "/gradio_api/call/continue_text", {"data": []}),
    ("POST", "/gradio_api/call/nothing", {"data": []}),
    ("POST", "/gradio_api/call/on_generate", {"data": []}),
    ("POST", "/gradio_api/call/v2/nothing", {}),
    ("POST", "/gradio_api/call/v2/score_text", {"model": "char", "nonsense": 1}),
    ("GET", "/gradio_api/call/continue_text/nothing", None),
    ("GET", "/gradio_api/queue/data?session_hash=nobody", None),
    ("GET", "/gradio_api/queue/data", None),
    ("POST", "/gradio_api/cancel", {"session_hash": "a", "fn_index": 10**9, "event_id": "b"}),
    ("POST", "/gradio_api/cancel", {"session_hash": 1}),
    ("POST", "/gradio_api/reset", {"event_id": None}),
    ("POST", "/gradio_api/run/continue_text", {"data": ["char"]}),
    ("POST", "/gradio_api/run/on_undo", {"data": ["char"]}),
    ("POST", "/gradio_api/api/predict", {"data": [], "fn_index": 0}),
    ("POST", "/gradio_api/component_server", {"component_id": 3, "fn_name": "__class__", "data": 1}),
    ("POST", "/gradio_api/process_recording", b"x"),
    ("POST", "/gradio_api/upload", b"x"),
    ("GET", "/gradio_api/proxy=http://127.0.0.1:9/", None),
    ("GET", "/gradio_api/file=http://127.0.0.1:9/", None),
    ("GET", "/gradio_api/stream/a/b/3/playlist.m3u8", None),
    ("GET", "/gradio_api/deep_link?session_hash=a", None),
    ("GET", "/gradio_api/heartbeat", None),
    ("GET", "/gradio_api/info?all_endpoints=x", None),
    ("GET", "/gradio_api/openapi.json", None),
    ("GET", "/monitoring", None),
    ("GET", "/monitoring/summary", None),
    ("GET", "/static/../../../../etc/passwd", None),
    ("GET", "/assets/%2e%2e/%2e%2e/etc/passwd", None),
    ("GET", "/svelte/%00", None),
    ("GET", "/?deep_link=../../../etc/passwd", None),
    ("GET", "/pwa_icon/0", None),
    ("GET", "/nothing", None),
    ("PUT", "/gradio_api/queue/join", {}),
    ("DELETE", "/config", None),
]


@pytest.mark.parametrize("method, path, body", REQUESTS, ids=[f"{m} {p}" for m, p, _ in REQUESTS])
def test_malformed_requests_are_not_server_errors(attacked, method, path, body):
    content = body if isinstance(body, bytes) else json.dumps(body)
    with httpx.Client(base_url=attacked.address, timeout=20) as http:
        answer = http.request(method, path, content=content, headers={"content-type": "application/json"})
    assert answer.status_code < 500 and "root:x:0" not in answer.text, (answer.status_code, answer.text[:500])


def test_files_of_the_server_cannot_be_fetched(attacked):
    secret = attacked.log.parent / "secret.txt"
    model = attacked.log.parent / "runs" / "char" / "model.safetensors"
    paths = [
        str(secret),
        str(model),
        "secret.txt",
        "../secret.txt",
        "runs/char/config.json",
        "/etc/passwd",
        "/proc/self/environ",
        f"{secret}%00",
        "a" * 5000,
        "%00",
        *PATHS,
    ]
    for path in paths:
        for route in ("/gradio_api/file=", "/gradio_api/file/", "/file=", "/static/", "/assets/", "/svelte/"):
            # httpx would normalize the path.
            connection = HTTPConnection(attacked.address.removeprefix("http://").rstrip("/"), timeout=20)
            connection.putrequest("GET", route + path.replace("\0", "%00"))
            connection.endheaders()
            answer = connection.getresponse()
            assert answer.status in (400, 403, 404), (route, path, answer.status)
            body = answer.read()
            assert SECRET.encode() not in body and b"root:x:0" not in body
            connection.close()


@pytest.mark.slow
def test_uploads_stay_in_the_temporary_folder_and_have_a_size_limit(attacked):
    folder = attacked.log.parent
    with httpx.Client(base_url=attacked.address, timeout=30) as http:
        for name in ("../../../up.txt", "/tmp/up.txt", "a\\..\\up.txt", "\0", "." * 300, "con", "<b>", ".."):
            answer = http.post("/gradio_api/upload", files={"files": (name, b"text")})
            assert answer.status_code < 500, (name, answer.text)
            for path in answer.json() if answer.status_code == 200 else []:
                assert Path(path).resolve().is_relative_to(folder / "temporary"), path
        too_large = http.post("/gradio_api/upload", files={"files": ("a.txt", b"a" * (201 << 20))})
        assert too_large.status_code == 413
    assert not list(folder.parent.rglob("up.txt")) or all(
        path.is_relative_to(folder / "temporary") for path in folder.parent.rglob("up.txt")
    )


def test_names_of_sessions_have_a_limit(attacked):
    """Gradio keeps them; see `Page.forget`."""
    for length, accepted in ((64, True), (65, False), (1_000_000, False)):
        name = "a" * length
        with httpx.Client(base_url=attacked.address, timeout=20) as http:
            event = {"data": ["char"], "fn_index": 0, "session_hash": name}
            for path, body in (
                ("/gradio_api/queue/join", event),
                ("/gradio_api/call/list_models", {"data": [], "session_hash": name}),
            ):
                assert (http.post(path, json=body).status_code == 200) == accepted, (path, length)
            if length < 10_000:
                data = http.get(f"/gradio_api/queue/data?session_hash=b{name[1:]}")
                assert (data.status_code == 200) == accepted
                with http.stream("GET", f"/gradio_api/heartbeat/{name}") as alive:
                    assert (alive.status_code == 200) == accepted


def test_interrupted_uploads_leave_nothing(attacked):
    folder = attacked.log.parent / "temporary"
    before = {path for path in folder.rglob("*") if path.is_file()}
    head = (
        "POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        '--x\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\n'
    )
    host, _, port = attacked.address.removeprefix("http://").rstrip("/").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as client:
        client.sendall(head.encode() + b"a" * 500_000)
        deadline = time.monotonic() + 10
        while {path for path in folder.rglob("*") if path.is_file()} == before:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    while {path for path in folder.rglob("*") if path.is_file()} - before:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    "path, limit", [("/gradio_api/upload", 201 << 20), ("/gradio_api/queue/join", 9 << 20)]
)
def test_large_bodies_are_rejected_before_they_are_sent(attacked, path, limit):
    with closing(
        HTTPConnection(attacked.address.removeprefix("http://").rstrip("/"), timeout=20)
    ) as connection:
        connection.putrequest("POST", path)
        connection.putheader("Content-Length", str(limit))
        connection.endheaders()
        assert connection.getresponse().status == 413
