"""A generator in a thread, read by a coroutine."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count

from app.api.background import BUFFER_SIZE, in_background
from tests.conftest import run_async


def test_buffer_is_bounded_and_no_item_is_lost():
    made = []

    def numbers():
        for number in count():
            made.append(number)
            yield number

    async def read_some():
        forever = asyncio.get_running_loop().create_future()
        with ThreadPoolExecutor(1) as executor:
            async with in_background(numbers, lambda: None, executor, forever) as generator:
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
