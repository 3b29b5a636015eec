"""Malformed requests get a one-line answer, and the page keeps working for everybody else.

Requests are random, from a seed. Like a browser, the tests send events to /gradio_api/queue/join with the
values of their inputs, but replace some of the values.
"""

import asyncio
import json
import os
import random
import re
import shutil
import signal
import socket
import time
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest

from tests.conftest import run_async
from tests.end_to_end.conftest import free_port, serving, until_ready

NUMBERS = [
    True,
    float("nan"),
    float("inf"),
    -float("inf"),
    1e308,
    10**30,
    10**400,
    -1,
    0,
    0.5,
    -(10**18),
    2**53,
]
TEXTS = [
    "",
    " ",
    "x" * 100_000,
    "\0",
    "\ud800",
    "a\u0301\u202e😀\x1b[2J",
    "<script>alert(1)</script>",
    "nan",
    "1e999",
    "١٢",
    "[a-z",
    "(a+)+$",
    "\\",
    "," * 900,
    "%s",
    "char",
    "back",
    "cut",
]
PATHS = [
    "../../etc/passwd",
    "/etc/passwd",
    "/etc/passwd\0.txt",
    "file:///etc/passwd",
    "http://127.0.0.1:9/x",
    "C:\\..\\x",
    "..",
    "~",
    "runs/char",
    "%2e%2e%2f",
    "//etc/passwd",
    "con/../char",
]
FILE = {"_type": "gradio.FileData"}
OTHERS = [
    None,
    [],
    [[]],
    {},
    {"path": "/etc/passwd"},
    {"path": "/etc/passwd", "meta": FILE},
    {"path": "../../x", "url": "http://127.0.0.1:9/", "meta": FILE},
    {"__type__": "update", "value": 3},
    ["a"] * 1000,
    [1, 2],
    {"value": 1},
]
for _ in range(3):
    OTHERS.append([OTHERS[-1]] * 3)
INVALID = [*NUMBERS, *TEXTS, *PATHS, *OTHERS]
EVENTS = [
    None,
    {},
    [],
    "x",
    3,
    {"index": -1},
    {"index": 10**20},
    {"index": None},
    {"index": [1, 2]},
    {"position": 3},
    {"position": "a"},
    {"position": -5},
    {"position": float("nan")},
    {"start": 0, "token": 5},
    {"start": 10**20, "token": -1},
    {"start": 0, "end": 3},
    {"start": 3, "end": 10**9},
    {"index": 0, "value": "x", "selected": True, "row_value": [[1]]},
]
SECRET = "nobody may read this"
TRAINING = "train-time"  # events with this input would train for minutes; only the slow test sends them


@pytest.fixture(scope="module")
def served(tmp_path_factory, trained_run):
    """A page with a good model, a backward one and a damaged one."""
    folder = tmp_path_factory.mktemp("fuzz")
    for name in ("char", "back", "cut"):
        shutil.copytree(trained_run, folder / "runs" / name)
    (folder / "runs" / "cut" / "model.safetensors").write_bytes(b"short")
    config = json.loads((folder / "runs" / "back" / "config.json").read_text())
    config["model"]["direction"] = "backward"
    (folder / "runs" / "back" / "config.json").write_text(json.dumps(config))
    (folder / "secret.txt").write_text(SECRET)
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "temporary")
    try:
        with serving(folder, "--port", free_port()) as server:
            yield until_ready(server)
    finally:
        del os.environ["GRADIO_TEMP_DIR"]
        kill_training_jobs(folder)


@pytest.fixture(autouse=True)
def quiet_log(served):
    """Check that no test leaves a traceback in the server's log."""
    before = len(served.log.read_text())
    yield
    log = served.log.read_text()[before:]
    assert "Traceback" not in log, log[log.index("Traceback") :][:5000]


def kill_training_jobs(folder: Path) -> None:
    """Kill training jobs, which by design keep running without the server."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder / "runs").encode() in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
        except OSError:
            continue


def test_events_reject_invalid_values(served):
    counts = run_async(attack(served, rounds=1, seed=1, train=False))
    assert counts["answered"] > 15 and counts["rejected"] > 15
    assert_unharmed(served)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 8))
def test_events_reject_many_invalid_values(served, seed):
    run_async(attack(served, rounds=8, seed=seed, train=seed == 2))
    kill_training_jobs(served.log.parent)
    assert_unharmed(served)


async def attack(served, rounds, seed, train):
    """Send invalid values to every event from eight concurrent clients. Returns the numbers of answered and
    rejected events."""
    rng, counts = random.Random(seed), {"answered": 0, "rejected": 0}
    async with httpx.AsyncClient(base_url=served.address, timeout=30) as http:
        config = (await http.get("/config")).json()
        components = {one["id"]: one for one in config["components"]}
        # The server treats all events that run in the browser alike, so a few of them suffice.
        events, browser_events = [], []
        for event in config["dependencies"]:
            (events if event["backend_fn"] else browser_events).append(event)
        ids = [{components[i]["props"].get("elem_id") for i in event["inputs"]} for event in events]
        events = [e for e, of_inputs in zip(events, ids, strict=True) if train or TRAINING not in of_inputs]
        # Of listeners that share a function, at most three.
        names = [re.sub(r"_\d+$", "", event["api_name"]) for event in events]
        events = [e for n, e in enumerate(events) if names[:n].count(names[n]) < 3] + browser_events[:3]
        queue = [event for event in events for _ in range(rounds)]
        rng.shuffle(queue)

        async def client(number):
            while queue:
                event = queue.pop()
                values = [valid_value(components[i], rng) for i in event["inputs"]]
                for _ in range(rng.choice([0, 1, 1, 1, 3])):
                    if values:
                        values[rng.randrange(len(values))] = rng.choice(INVALID)
                values = values[: len(values) - (rng.random() < 0.05)] + [1] * (rng.random() < 0.05)
                succeeded = await send(http, event, values, f"{seed}-{number}-{len(queue)}", rng)
                counts["answered" if succeeded else "rejected"] += 1

        await asyncio.gather(*map(client, range(8)))
    return counts


def valid_value(component, rng):
    """A value that a browser could send."""
    properties, id = component["props"], component["props"].get("elem_id") or ""
    choices = [one[1] if isinstance(one, list) else one for one in properties.get("choices") or []]
    if component["type"] == "api":
        return rng.choice(["char", "The sea", 5, 1, 0.8])
    if "length" in id:
        return 12
    if component["type"] == "textbox" and not properties.get("value"):
        return rng.choice(["The sea ", "", "naïve 中文\n"])
    return rng.choice(choices) if choices else properties.get("value")


async def send(http, event, values, session, rng):
    """Send one event and wait until it is finished. Returns whether it succeeded."""
    body = {
        "data": values,
        "fn_index": event["id"],
        "session_hash": session,
        "event_data": rng.choice(EVENTS),
        "trigger_id": rng.choice([None, *(target[0] for target in event["targets"])]),
    }
    joined = await http.post("/gradio_api/queue/join", **as_json(body))
    assert joined.status_code < 500, (event["api_name"], joined.text, str(body)[:500])
    if joined.status_code != 200:
        return False
    deadline = time.monotonic() + 60
    async with http.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
        async for line in stream.aiter_lines():
            assert time.monotonic() < deadline, (event["api_name"], str(body)[:500])
            if line.startswith("data:") and (result := json.loads(line[5:]))["msg"] == "process_completed":
                message = result["output"].get("error")
                assert result["success"] or message, (event["api_name"], result, str(body)[:500])
                assert message is None or "<script" not in message
                return result["success"]
    raise AssertionError(f"{event['api_name']} did not finish: {str(body)[:500]}")


def as_json(body):
    """Arguments for `httpx` that send a body with NaN and lone surrogates, which strict JSON excludes."""
    return {"content": json.dumps(body).encode(), "headers": {"content-type": "application/json"}}


def assert_unharmed(served):
    """Check that the page still works and has only written into its own folders."""
    with httpx.Client(base_url=served.address, timeout=20) as http:
        request = as_json({"data": ["char", "The ", 20, 0.8, 1.0, 0, 0.0, 1, ""]})
        event = http.post("/gradio_api/call/continue_text", **request).json()["event_id"]
        answer = http.get(f"/gradio_api/call/continue_text/{event}").text
    assert "event: complete" in answer and len(json.loads(answer.split("data: ")[-1])[0]) == 20
    folder = served.log.parent
    assert {path.name for path in folder.iterdir()} <= {
        "runs",
        "secret.txt",
        "temporary",
        "app.out",
        "app.log",
    }
    assert (folder / "secret.txt").read_text() == SECRET
    assert {"char", "back", "cut"} <= {path.name for path in (folder / "runs").iterdir()}


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
def test_malformed_requests_are_not_server_errors(served, method, path, body):
    content = body if isinstance(body, bytes) else json.dumps(body)
    with httpx.Client(base_url=served.address, timeout=20) as http:
        answer = http.request(method, path, content=content, headers={"content-type": "application/json"})
    assert answer.status_code < 500 and "root:" not in answer.text, (answer.status_code, answer.text[:500])


def test_files_of_the_server_cannot_be_fetched(served):
    secret = served.log.parent / "secret.txt"
    model = served.log.parent / "runs" / "char" / "model.safetensors"
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
            connection = HTTPConnection(served.address.removeprefix("http://").rstrip("/"), timeout=20)
            connection.putrequest("GET", route + path.replace("\0", "%00"))
            connection.endheaders()
            answer = connection.getresponse()
            assert answer.status in (400, 403, 404), (route, path, answer.status)
            body = answer.read()
            assert SECRET.encode() not in body and b"root:" not in body
            connection.close()


@pytest.mark.slow
def test_uploads_stay_in_the_temporary_folder_and_have_a_size_limit(served):
    folder = served.log.parent
    with httpx.Client(base_url=served.address, timeout=30) as http:
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


def test_names_of_sessions_have_a_limit(served):
    """Gradio keeps them; see `Page.forget`."""
    for length, accepted in ((64, True), (65, False), (1_000_000, False)):
        name = "a" * length
        with httpx.Client(base_url=served.address, timeout=20) as http:
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


def test_interrupted_uploads_leave_nothing(served):
    folder = served.log.parent / "temporary"
    before = {path for path in folder.rglob("*") if path.is_file()}
    head = (
        "POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        '--x\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\n'
    )
    host, _, port = served.address.removeprefix("http://").rstrip("/").partition(":")
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
def test_large_bodies_are_rejected_before_they_are_sent(served, path, limit):
    with closing(
        HTTPConnection(served.address.removeprefix("http://").rstrip("/"), timeout=20)
    ) as connection:
        connection.putrequest("POST", path)
        connection.putheader("Content-Length", str(limit))
        connection.endheaders()
        assert connection.getresponse().status == 413
