"""A lock that threads get in turn."""

import threading
import time

from app.api.turns import Turns


def test_threads_get_the_lock_in_the_order_in_which_they_ask():
    turns, order, threads = Turns(), [], []

    def ask(number):
        with turns:
            order.append(number)

    with turns:
        for number in range(9):
            threads.append(threading.Thread(target=ask, args=(number,)))
            threads[-1].start()
            while len(turns._queue) < number + 2:
                time.sleep(0.001)
        assert order == []
        turns.pass_on()
        assert order == list(range(9))
    for thread in threads:
        thread.join()


def test_one_thread_at_a_time_has_the_lock():
    turns, inside, most = Turns(), [], []

    def work():
        for _ in range(50):
            with turns:
                inside.append(1)
                most.append(len(inside))
                turns_left = len(turns._queue)
                inside.pop()
                assert turns_left
                turns.pass_on()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert max(most) == 1 and not turns._queue
