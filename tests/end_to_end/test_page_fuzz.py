"""Events with invalid values get a one-line answer, and the page keeps working for everybody else.

The values are random, from a seed. Like a browser, the tests send events to /gradio_api/queue/join with the
values of their inputs, but replace some of the values.
"""

import asyncio
import json
import random
import re
import time

import httpx
import pytest

from tests.conftest import run_async
from tests.end_to_end.attacked import PATHS, SECRET, kill_training_jobs

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
TRAINING = "train-time"  # events with this input would train for minutes; only the slow test sends them


@pytest.mark.slow
def test_events_reject_invalid_values(attacked):
    counts = run_async(attack(attacked, rounds=1, seed=1, train=False))
    assert counts["answered"] > 15 and counts["rejected"] > 15
    assert_unharmed(attacked)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 8))
def test_events_reject_many_invalid_values(attacked, seed):
    run_async(attack(attacked, rounds=8, seed=seed, train=seed == 2))
    kill_training_jobs(attacked.log.parent)
    assert_unharmed(attacked)


async def attack(attacked, rounds, seed, train):
    """Send invalid values to every event from eight concurrent clients. Returns the numbers of answered and
    rejected events."""
    rng, counts = random.Random(seed), {"answered": 0, "rejected": 0}
    async with httpx.AsyncClient(base_url=attacked.address, timeout=30) as http:
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


def assert_unharmed(attacked):
    """Check that the page still works and has only written into its own folders."""
    with httpx.Client(base_url=attacked.address, timeout=20) as http:
        request = as_json({"data": ["char", "The ", 20, 0.8, 1.0, 0, 0.0, 1, ""]})
        event = http.post("/gradio_api/call/continue_text", **request).json()["event_id"]
        answer = http.get(f"/gradio_api/call/continue_text/{event}").text
    assert "event: complete" in answer and len(json.loads(answer.split("data: ")[-1])[0]) == 20
    folder = attacked.log.parent
    assert {path.name for path in folder.iterdir()} <= {
        "runs",
        "secret.txt",
        "temporary",
        "app.out",
        "app.log",
    }
    assert (folder / "secret.txt").read_text() == SECRET
    assert {"char", "back", "cut"} <= {path.name for path in (folder / "runs").iterdir()}
