"""A generator in a thread, read by a coroutine."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from itertools import count

from app.api.background import BUFFER_SIZE, in_background
from tests.conftest import run_async


@asynccontextmanager
async def numbers(size=1):
    """A generator of the numbers from 0 on, each of this size, and the list of those made so far."""
    made = []

    def make():
        for number in count():
            made.append(number)
            yield number

    forever = asyncio.get_running_loop().create_future()
    with ThreadPoolExecutor(1) as executor:
        async with in_background(make, lambda: None, lambda _: size, executor, forever) as generator:
            yield generator, made


def test_buffer_is_bounded_and_no_item_is_lost():
    async def read_some():
        async with numbers() as (generator, made):
            batches = generator.batches()
            read = await anext(batches)
            while len(made) < len(read) + BUFFER_SIZE:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            assert len(made) <= len(read) + BUFFER_SIZE + 1
            while len(read) < 3 * BUFFER_SIZE:
                read += await anext(batches)
            start = time.perf_counter()
        # Canceled while the generator waits for space in the buffer: the thread ends within a second.
        assert time.perf_counter() - start < 1
        return read

    read = run_async(read_some())
    assert read == list(range(len(read)))


def test_buffer_counts_the_size_of_its_items():
    async def read_one():
        async with numbers(size=BUFFER_SIZE // 4) as (generator, _):
            await asyncio.sleep(0.2)
            return await anext(generator.batches())

    assert run_async(read_one()) == [0, 1, 2, 3]


def test_a_paused_generator_continues_when_it_is_resumed():
    async def read_some():
        async with numbers() as (generator, made):
            batches = generator.batches()
            read = await anext(batches)
            await asyncio.sleep(0.1)
            generator.pause()
            read += await anext(batches)  # what was in the buffer
            await asyncio.sleep(0.1)
            assert len(made) <= len(read) + 1
            generator.resume()
            return read + await anext(batches)

    read = run_async(read_some())
    assert read == list(range(len(read)))


def test_leaving_waits_until_the_thread_has_ended():
    ended = []

    def slow():
        try:
            yield 1
            time.sleep(0.3)
            yield 2
        finally:
            ended.append(True)

    async def leave():
        gone = asyncio.get_running_loop().create_future()
        with ThreadPoolExecutor(1) as executor:
            async with in_background(slow, lambda: None, lambda _: 1, executor, gone) as generator:
                await anext(generator.batches())
            assert ended

    run_async(leave())
