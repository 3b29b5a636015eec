"""Computing on all cores."""

import time

from lm.parallel import in_order


def test_results_come_in_the_order_of_the_items():
    def slow_first(number):
        time.sleep(0.05 if number == 0 else 0)
        return number

    assert list(in_order(slow_first, range(20))) == list(range(20))
