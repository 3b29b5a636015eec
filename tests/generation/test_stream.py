"""What other threads see of a stream."""

import pytest

from lm.generation.stream import Stream, Token
from tests.generation.streams import SAMPLING

TOKEN = Token(4, -0.5, (), None)
ERROR = ZeroDivisionError()


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (lambda stream: stream.append(TOKEN), (1, None)),
        (lambda stream: stream.extend(1, [TOKEN]), (1, None)),
        (lambda stream: stream.fail(ERROR), (0, ERROR)),
    ],
)
def test_a_stream_ends_after_its_last_tokens_and_its_error_can_be_seen(end, expected):
    class Seen(Stream):
        def __setattr__(self, name, value):
            super().__setattr__(name, value)
            if name == "ended" and value:
                self.at_the_end = len(self.ready), self.error

    stream = Seen([1], (), SAMPLING, 1, 1, 0, {}, [], False, [])
    end(stream)
    assert stream.at_the_end == expected
