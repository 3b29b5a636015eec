"""The queue of requests: bounded, nobody starves, and no place is lost."""

import asyncio

import pytest
from hypothesis import given, settings, strategies as st
from starlette.requests import ClientDisconnect

from app.api import admission as module
from app.api.admission import FEW, Admission
from app.api.request import RequestError
from tests.conftest import run_async


def enter(admission, sequences, disconnected=None, client=None):
    """A task that waits until it is admitted."""
    future = disconnected or asyncio.get_running_loop().create_future()
    return asyncio.ensure_future(admission.enter(sequences, future, client))


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


def in_loop(test):
    return lambda: run_async(test())


@in_loop
async def test_requests_are_admitted_in_order_and_pass_those_that_do_not_fit():
    admission = Admission(4, 10)
    requests = [enter(admission, count) for count in (3, 4, 1, 2, 1)]
    await settle()
    assert [request.done() for request in requests] == [True, False, True, False, False]
    assert (admission.running, admission.waiting) == (4, 3)
    admission.release(requests[2].result())
    await settle()
    assert [request.done() for request in requests] == [True, False, True, False, True]
    admission.release(requests[0].result())
    await settle()
    assert [request.done() for request in requests] == [True, False, True, True, True]
    for number in (3, 4):
        admission.release(requests[number].result())
    await settle()
    assert requests[1].done() and (admission.running, admission.waiting) == (4, 0)


def test_nobody_passes_a_request_that_has_waited_for_long(monkeypatch):
    monkeypatch.setattr(module, "_MAY_PASS", 0.05)

    async def test():
        admission = Admission(4, 10, reserve=2)
        first = await enter(admission, 1)
        large, small = enter(admission, 4), enter(admission, 1)
        passed = await small
        await asyncio.sleep(0.1)
        admission.release(first)
        later = [enter(admission, 1) for _ in range(3)]
        await settle()
        assert [request.done() for request in later] == [True, True, False]  # the reserve
        admission.release(passed)
        await settle()
        assert large.done() and not later[2].done()

    run_async(test())


@in_loop
async def test_clients_that_want_few_have_a_reserve():
    admission = Admission(8, 10, reserve=FEW + 1)
    much = await enter(admission, 8, client="much")
    assert not (greedy := enter(admission, 1, client="much")).done()
    few = [enter(admission, FEW, client="few"), enter(admission, 1, client="few")]
    await settle()
    assert [task.done() for task in (greedy, *few)] == [False, True, False]
    another = await enter(admission, 1, client="another")
    assert another.reserved and admission.running == 8 + FEW + 1
    admission.release(much)
    await settle()
    assert greedy.done() and few[1].done()


@in_loop
async def test_requests_are_rejected_when_the_queue_is_full():
    admission = Admission(1, 2)
    requests = [enter(admission, 1) for _ in range(3)]
    await settle()
    with pytest.raises(RequestError, match="1 completions are being generated, and 2 more") as caught:
        await enter(admission, 1)
    assert (caught.value.status, caught.value.code) == (429, "rate_limit_exceeded")
    gone = asyncio.get_running_loop().create_future()
    again = asyncio.ensure_future(admission.enter(1, gone, again=True))
    for request in [*requests, again]:
        await settle()
        assert request.done()
        admission.release(request.result())
    assert admission.running == 0


@given(
    steps=st.lists(
        st.tuples(st.integers(1, 9), st.sampled_from([None, "a", "b"]), st.booleans()), max_size=30
    )
)
@settings(deadline=None, max_examples=50)
def test_capacity_and_reserve_are_never_exceeded_and_everyone_is_admitted(steps):
    async def test():
        admission, tasks, left = Admission(9, 100, reserve=5), [], set()
        for sequences, client, leave in steps:
            tasks.append(enter(admission, sequences, client=client))
            await settle()
            admitted = [task for task in tasks if task.done() and task not in left]
            if leave and admitted:
                admission.release(admitted[0].result())
                left.add(admitted[0])
            held = [task.result() for task in tasks if task.done() and task not in left]
            assert sum(place.sequences for place in held if not place.reserved) <= 9
            assert sum(place.sequences for place in held if place.reserved) <= 5
            assert admission.running >= sum(place.sequences for place in held)
        while len(left) < len(tasks):
            await settle()
            task = next(task for task in tasks if task.done() and task not in left)
            admission.release(task.result())
            left.add(task)
        assert admission.running == admission.waiting == 0

    run_async(test())


@pytest.mark.parametrize("granted", [False, True])
@pytest.mark.parametrize("how", ["disconnect", "cancel"])
def test_who_leaves_gives_up_the_place_in_the_queue(how, granted):
    async def leave():
        admission, gone = Admission(2, 10), asyncio.get_running_loop().create_future()
        first = await enter(admission, 2)
        leaving, next_one = enter(admission, 2, gone), enter(admission, 1)
        await settle()
        if granted:  # but the task has not run since
            admission.release(first)
        if how == "disconnect":
            gone.set_result(None)
        else:
            leaving.cancel()
        with pytest.raises(ClientDisconnect if how == "disconnect" else asyncio.CancelledError):
            await leaving
        if not granted:
            assert not next_one.done() and admission.waiting == 1
            admission.release(first)
        await next_one
        assert (admission.running, admission.waiting) == (1, 0)

    run_async(leave())


def test_a_smaller_request_enters_when_the_larger_one_before_it_leaves(monkeypatch):
    monkeypatch.setattr(module, "_MAY_PASS", -1.0)

    async def test():
        admission = Admission(4, 10)
        await enter(admission, 3)
        larger, smaller = enter(admission, 4), enter(admission, 1)
        await settle()
        assert not smaller.done()
        larger.cancel()
        await smaller
        assert (admission.running, admission.waiting) == (4, 0)

    run_async(test())


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
