"""A lock that threads get in the order in which they ask for it."""

import threading
import time

from app.api.fair_lock import FairLock


def test_threads_get_the_lock_in_the_order_in_which_they_ask():
    lock, order, threads = FairLock(), [], []

    def ask(number):
        with lock:
            order.append(number)

    with lock:
        for number in range(9):
            threads.append(threading.Thread(target=ask, args=(number,)))
            threads[-1].start()
            while len(lock._queue) < number + 2:
                time.sleep(0.001)
        assert order == []
        lock.yield_to_others()
        assert order == list(range(9))
    for thread in threads:
        thread.join()


def test_one_thread_at_a_time_has_the_lock():
    lock, inside, most = FairLock(), [], []

    def work():
        for _ in range(50):
            with lock:
                inside.append(1)
                most.append(len(inside))
                left = len(lock._queue)
                inside.pop()
                assert left
                lock.yield_to_others()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert max(most) == 1 and not lock._queue
