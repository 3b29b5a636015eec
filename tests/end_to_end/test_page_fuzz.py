"""Nonsense from the network: it is answered by a line, and the page goes on for everybody else.

What is sent is random, from a seed. A browser sends an event of the page to /gradio_api/queue/join with the
values of its inputs; so does this, with some of the values replaced.
"""

import asyncio
import json
import os
import random
import re
import shutil
import signal
import time
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
TEXTS = ["", " ", "x" * 100_000, "\0", "\ud800", "a\u0301\u202e😀\x1b[2J", "<script>alert(1)</script>",
         "nan", "1e999", "١٢", "[a-z", "(a+)+$", "\\", "," * 900, "%s", "char", "back", "cut"]  # fmt: skip
PATHS = ["../../etc/passwd", "/etc/passwd", "/etc/passwd\0.txt", "file:///etc/passwd",
         "http://127.0.0.1:9/x",
         "C:\\..\\x", "..", "~", "runs/char", "%2e%2e%2f", "//etc/passwd", "con/../char"]  # fmt: skip
FILE = {"_type": "gradio.FileData"}
OTHERS = [None, [], [[]], {}, {"path": "/etc/passwd"}, {"path": "/etc/passwd", "meta": FILE},
          {"path": "../../x", "url": "http://127.0.0.1:9/", "meta": FILE}, {"__type__": "update", "value": 3},
          ["a"] * 1000, [1, 2], {"value": 1}]  # fmt: skip
for _ in range(3):
    OTHERS.append([OTHERS[-1]] * 3)
NONSENSE = [*NUMBERS, *TEXTS, *PATHS, *OTHERS]
EVENTS = [None, {}, [], "x", 3, {"index": -1}, {"index": 10**20}, {"index": None}, {"index": [1, 2]},
          {"place": 3}, {"place": "a"}, {"place": -5}, {"place": float("nan")}, {"start": 0, "token": 5},
          {"start": 10**20, "token": -1}, {"start": 0, "end": 3}, {"start": 3, "end": 10**9},
          {"index": 0, "value": "x", "selected": True, "row_value": [[1]]}]  # fmt: skip
SECRET = "what nobody may read"
TRAINING = "train-time"  # what has this input would train for minutes; the slow test starts it, too


@pytest.fixture(scope="module")
def served(tmp_path_factory, trained_run):
    """A page with a model that is good, one that reads backwards and one that is damaged."""
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
        end_trainings(folder)


@pytest.fixture(autouse=True)
def quiet_log(served):
    """No test may leave a traceback in the server's log."""
    before = len(served.log.read_text())
    yield
    log = served.log.read_text()[before:]
    assert "Traceback" not in log, log[log.index("Traceback") :][:5000]


def end_trainings(folder: Path) -> None:
    """End what runs on without the server, as a training is meant to."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder / "runs").encode() in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
        except OSError:
            continue


def test_no_event_of_the_page_stumbles_over_nonsense(served):
    seen = run_async(attack(served, rounds=1, seed=1, trainings=False))
    assert seen["answered"] > 15 and seen["refused"] > 15
    assert_unharmed(served)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 8))
def test_no_event_of_the_page_stumbles_over_much_nonsense(served, seed):
    run_async(attack(served, rounds=8, seed=seed, trainings=seed == 2))
    end_trainings(served.log.parent)
    assert_unharmed(served)


async def attack(served, rounds, seed, trainings):
    """Send nonsense to every event, as eight people at once would. Returns how often it was answered and how
    often refused."""
    rng, seen = random.Random(seed), {"answered": 0, "refused": 0}
    async with httpx.AsyncClient(base_url=served.address, timeout=30) as http:
        config = (await http.get("/config")).json()
        components = {one["id"]: one for one in config["components"]}
        # The many events that belong to the browser alone are all alike to the server.
        events, alone = [], []
        for event in config["dependencies"]:
            (events if event["backend_fn"] else alone).append(event)
        ids = [{components[i]["props"].get("elem_id") for i in event["inputs"]} for event in events]
        events = [
            e for e, of_inputs in zip(events, ids, strict=True) if trainings or TRAINING not in of_inputs
        ]
        # of listeners that share a function, some
        names = [re.sub(r"_\d+$", "", event["api_name"]) for event in events]
        events = [e for n, e in enumerate(events) if names[:n].count(names[n]) < 3] + alone[:3]
        queue = [event for event in events for _ in range(rounds)]
        rng.shuffle(queue)

        async def people(number):
            while queue:
                event = queue.pop()
                values = [usual(components[i], rng) for i in event["inputs"]]
                for _ in range(rng.choice([0, 1, 1, 1, 3])):
                    if values:
                        values[rng.randrange(len(values))] = rng.choice(NONSENSE)
                values = values[: len(values) - (rng.random() < 0.05)] + [1] * (rng.random() < 0.05)
                answer = await send(http, event, values, f"{seed}-{number}-{len(queue)}", rng)
                seen["answered" if answer else "refused"] += 1

        await asyncio.gather(*map(people, range(8)))
    return seen


def usual(component, rng):
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


async def send(http, event, values, visit, rng):
    """One event, until it is over. Returns whether it went well."""
    body = {
        "data": values, "fn_index": event["id"], "session_hash": visit, "event_data": rng.choice(EVENTS),
        "trigger_id": rng.choice([None, *(target[0] for target in event["targets"])]),
    }  # fmt: skip
    joined = await http.post("/gradio_api/queue/join", **as_json(body))
    assert joined.status_code < 500, (event["api_name"], joined.text, str(body)[:500])
    if joined.status_code != 200:
        return False
    deadline = time.monotonic() + 60
    async with http.stream("GET", "/gradio_api/queue/data", params={"session_hash": visit}) as stream:
        async for line in stream.aiter_lines():
            assert time.monotonic() < deadline, (event["api_name"], str(body)[:500])
            if line.startswith("data:") and (told := json.loads(line[5:]))["msg"] == "process_completed":
                message = told["output"].get("error")
                assert told["success"] or message, (event["api_name"], told, str(body)[:500])
                assert message is None or "<script" not in message
                return told["success"]
    raise AssertionError(f"{event['api_name']} was never over: {str(body)[:500]}")


def as_json(body):
    """What `httpx` sends of a body that strict JSON does not know: NaN, and halves of surrogate pairs."""
    return {"content": json.dumps(body).encode(), "headers": {"content-type": "application/json"}}


def assert_unharmed(served):
    """The page works for others, and has written nowhere but in its folders."""
    with httpx.Client(base_url=served.address, timeout=20) as http:
        wanted = as_json({"data": ["char", "The ", 20, 0.8, 1.0, 0, 0.0, 1, ""]})
        event = http.post("/gradio_api/call/continue_text", **wanted).json()["event_id"]
        answer = http.get(f"/gradio_api/call/continue_text/{event}").text
    assert "event: complete" in answer and len(json.loads(answer.split("data: ")[-1])[0]) == 20
    folder = served.log.parent
    assert {path.name for path in folder.iterdir()} <= {
        "runs", "secret.txt", "temporary", "app.out", "app.log"
    }  # fmt: skip
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
def test_no_route_answers_nonsense_with_an_error_of_the_server(served, method, path, body):
    content = body if isinstance(body, bytes) else json.dumps(body)
    with httpx.Client(base_url=served.address, timeout=20) as http:
        answer = http.request(method, path, content=content, headers={"content-type": "application/json"})
    assert answer.status_code < 500 and "root:" not in answer.text, (answer.status_code, answer.text[:500])


def test_no_file_of_this_computer_can_be_fetched(served):
    secret = served.log.parent / "secret.txt"
    model = served.log.parent / "runs" / "char" / "model.safetensors"
    paths = [str(secret), str(model), "secret.txt", "../secret.txt", "runs/char/config.json", "/etc/passwd",
             "/proc/self/environ", f"{secret}%00", "a" * 5000, "%00", *PATHS]  # fmt: skip
    for path in paths:
        for route in ("/gradio_api/file=", "/gradio_api/file/", "/file=", "/static/", "/assets/", "/svelte/"):
            # httpx would tidy the path up before it sends it.
            connection = HTTPConnection(served.address.removeprefix("http://").rstrip("/"), timeout=20)
            connection.putrequest("GET", route + path.replace("\0", "%00"))
            connection.endheaders()
            answer = connection.getresponse()
            assert answer.status in (400, 403, 404), (route, path, answer.status)
            told = answer.read()
            assert SECRET.encode() not in told and b"root:" not in told
            connection.close()


@pytest.mark.slow
def test_an_upload_stays_in_its_place_and_has_a_limit(served):
    folder = served.log.parent
    with httpx.Client(base_url=served.address, timeout=30) as http:
        for name in ("../../../up.txt", "/tmp/up.txt", "a\\..\\up.txt", "\0", "." * 300, "con", "<b>", ".."):
            answer = http.post("/gradio_api/upload", files={"files": (name, b"text")})
            assert answer.status_code < 500, (name, answer.text)
            for path in answer.json() if answer.status_code == 200 else []:
                assert Path(path).resolve().is_relative_to(folder / "temporary"), path
        too_much = http.post("/gradio_api/upload", files={"files": ("a.txt", b"a" * (201 << 20))})
        assert too_much.status_code == 413
    assert not list(folder.parent.rglob("up.txt")) or all(
        path.is_relative_to(folder / "temporary") for path in folder.parent.rglob("up.txt")
    )


def test_another_site_cannot_send_for_a_person_who_visits_it(served):
    """What a page elsewhere may send without being asked first by the browser is no JSON."""
    body = json.dumps({"data": ["char", ""], "fn_index": 3, "session_hash": "a"})
    with httpx.Client(base_url=served.address, timeout=20) as http:
        for kind in ("text/plain", "application/x-www-form-urlencoded"):
            headers = {"content-type": kind, "origin": "http://elsewhere.example"}
            assert http.post("/gradio_api/queue/join", content=body, headers=headers).status_code == 422
        asked = {"origin": "http://elsewhere.example", "access-control-request-method": "POST"}
        assert (
            "access-control-allow-origin" not in http.options("/gradio_api/queue/join", headers=asked).headers
        )
