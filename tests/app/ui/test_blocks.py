"""What the page keeps for its sessions and waiting events is bounded."""

import asyncio
from types import SimpleNamespace

import gradio as gr
import pytest
from gradio.context import LocalContext

from app.ui import blocks
from app.ui.blocks import MAX_BODY_BYTES, MAX_QUEUE_BYTES, MAX_SESSION_NAME, MAX_UNREAD_MESSAGES, Page
from tests.conftest import run_async


@pytest.fixture
def page():
    with Page() as page:
        pass
    return page


@pytest.fixture
def pushed(page, monkeypatch):
    """Push an event with a request of some size; its name, or the reason why it was turned away."""
    queue, names = page._queue, iter(range(1000))

    async def push(body, request, username):
        name = f"event{next(names)}"
        queue.event_ids_to_events[name] = None
        return True, name, "success"

    monkeypatch.setattr(queue, "push", push)
    page._limit_waiting()

    def pushed(session="a", size=MAX_BODY_BYTES):
        headers = {} if size is None else {"content-length": str(size)}
        body, request = SimpleNamespace(session_hash=session), SimpleNamespace(headers=headers)
        success, event, outcome = run_async(queue.push(body=body, request=request, username=None))
        return event if success else outcome

    return pushed


def test_names_of_sessions_are_short(pushed):
    assert pushed("a" * MAX_SESSION_NAME).startswith("event") and pushed(None).startswith("event")
    with pytest.raises(ValueError, match="too long"):
        pushed("a" * (MAX_SESSION_NAME + 1))


@pytest.mark.parametrize("size", [MAX_BODY_BYTES, None])
def test_requests_of_waiting_events_fit_into_memory(page, pushed, size):
    accepted = [pushed(size=size) for _ in range(MAX_QUEUE_BYTES // MAX_BODY_BYTES)]
    assert pushed(size=size) == "queue_full"
    del page._queue.event_ids_to_events[accepted[0]]
    assert pushed(size=size).startswith("event")


def test_a_full_queue_is_reported_in_the_language_of_the_request(page):
    page._queue.max_size = 0
    request = SimpleNamespace(headers={"accept-language": "zh-CN", "content-length": "1"})

    async def push():
        LocalContext.request.set(request)
        body = SimpleNamespace(session_hash="a", fn_index=0)
        return await page._queue.push(body=body, request=request, username=None)

    assert run_async(push()) == (False, "服务器繁忙，请稍后重试。", "queue_full")


@pytest.mark.parametrize(
    ("language", "said"),
    [("zh-CN", "数值最大为 5，而不是 9。"), ("en", "The value must be at most 5, not 9.")],
)
def test_a_wrong_input_is_reported_in_the_language_of_the_request(language, said):
    with Page() as page:
        slider = gr.Slider(0, 5)
        slider.release(lambda value: None, slider)
    request = SimpleNamespace(headers={"accept-language": language})
    with pytest.raises(gr.Error) as caught:
        run_async(page.process_api(block_fn=0, inputs=[9], request=request))
    assert caught.value.message == said


def unread(page, session, count):
    page._queue.pending_messages_per_session[session] = messages = asyncio.Queue()
    page._queue.pending_event_ids_session[session] = {f"event of {session}"}
    for _ in range(count):
        messages.put_nowait("a result")


def test_the_oldest_unread_results_are_dropped(page):
    pending, half = page._queue.pending_messages_per_session, MAX_UNREAD_MESSAGES // 2
    for session, count in (("read", 0), ("running", 10), ("old", half), ("new", half - 20)):
        unread(page, session, count)
    page._queue.event_ids_to_events["event of running"] = None
    page._drop_unread()
    assert list(pending) == ["read", "running", "new"] == list(page._queue.pending_event_ids_session)
    page._drop_unread("new")
    assert list(pending) == ["read", "running"]


def test_few_sessions_have_unread_results(page, monkeypatch):
    monkeypatch.setattr(blocks, "MAX_UNREAD_SESSIONS", 3)
    for number in range(5):
        unread(page, str(number), 1)
    page._drop_unread()
    assert list(page._queue.pending_messages_per_session) == ["2", "3", "4"]
