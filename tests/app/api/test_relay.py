"""A relay between a thread that makes things and a coroutine that reads them."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count

from app.api.relay import _MOST_UNREAD, relayed
from tests.conftest import run_async


def test_what_nobody_reads_is_not_made_without_end_and_nothing_is_lost():
    made = []

    def numbers():
        for number in count():
            made.append(number)
            yield number

    async def read():
        with ThreadPoolExecutor(1) as executor:
            async with relayed(numbers, executor, asyncio.sleep(60)) as relay:
                batches = relay.batches()
                read = await anext(batches)
                while len(made) < len(read) + _MOST_UNREAD:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.2)
                waiting = len(made)
                assert waiting <= len(read) + _MOST_UNREAD + 1
                while len(read) < 3 * _MOST_UNREAD:
                    read += await anext(batches)
                begin = time.perf_counter()
        # Left in the middle, with the maker waiting for room: it ends at once.
        assert time.perf_counter() - begin < 1
        return read

    read = run_async(read())
    assert read == list(range(len(read)))
