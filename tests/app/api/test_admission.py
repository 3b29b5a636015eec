"""The queue of requests: in order, bounded, and no place is lost."""

import asyncio

import pytest
from starlette.requests import ClientDisconnect

from app.api.admission import Admission
from app.api.request import RequestError
from tests.conftest import run_async


def enter(admission, sequences, disconnected=None):
    """A task that waits until it is admitted."""
    future = disconnected or asyncio.get_running_loop().create_future()
    return asyncio.ensure_future(admission.enter(sequences, future))


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


def in_loop(test):
    return lambda: run_async(test())


@in_loop
async def test_requests_are_admitted_in_order():
    admission = Admission(4, 10)
    requests = [enter(admission, count) for count in (3, 4, 1, 2, 1)]
    await settle()
    assert [request.done() for request in requests] == [True, False, False, False, False]
    assert (admission.running, admission.waiting) == (3, 4)  # the third would fit, but is not the next
    admission.release(3)
    await settle()
    assert [request.done() for request in requests] == [True, True, False, False, False]
    admission.release(4)
    await settle()
    assert all(request.done() for request in requests)
    assert (admission.running, admission.waiting) == (4, 0)


@in_loop
async def test_requests_are_rejected_when_the_queue_is_full():
    admission = Admission(1, 2)
    requests = [enter(admission, 1) for _ in range(3)]
    await settle()
    with pytest.raises(RequestError, match="1 completions are being generated, and 2 more") as caught:
        await enter(admission, 1)
    assert (caught.value.status, caught.value.code) == (429, "rate_limit_exceeded")
    for _ in range(3):
        admission.release(1)
        await settle()
    assert all(request.done() for request in requests)
    assert admission.running == 0


@pytest.mark.parametrize("granted", [False, True])
@pytest.mark.parametrize("how", ["disconnect", "cancel"])
def test_who_leaves_gives_up_the_place_in_the_queue(how, granted):
    async def leave():
        admission, gone = Admission(2, 10), asyncio.get_running_loop().create_future()
        await enter(admission, 2)
        leaving, next_one = enter(admission, 2, gone), enter(admission, 1)
        await settle()
        if granted:  # but the task has not run since
            admission.release(2)
        if how == "disconnect":
            gone.set_result(None)
        else:
            leaving.cancel()
        with pytest.raises(ClientDisconnect if how == "disconnect" else asyncio.CancelledError):
            await leaving
        if not granted:
            assert not next_one.done() and admission.waiting == 1
            admission.release(2)
        await next_one
        assert (admission.running, admission.waiting) == (1, 0)

    run_async(leave())


@in_loop
async def test_a_smaller_request_enters_when_the_larger_one_before_it_leaves():
    admission = Admission(4, 10)
    await enter(admission, 3)
    larger, smaller = enter(admission, 4), enter(admission, 1)
    await settle()
    larger.cancel()
    await smaller
    assert (admission.running, admission.waiting) == (4, 0)


@in_loop
async def test_closing_rejects_those_that_wait_and_those_that_come():
    admission = Admission(1, 10)
    await enter(admission, 1)
    waiting = enter(admission, 1)
    await settle()
    admission.close()
    for request in (waiting, enter(admission, 1)):
        with pytest.raises(RequestError, match="shutting down") as caught:
            await request
        assert caught.value.status == 503
