"""Decodes token ids to text one at a time: TextStream."""

from __future__ import annotations

import codecs
from collections.abc import Callable

from tokenizers import Tokenizer as Backend
from tokenizers.decoders import DecodeStream

from lm.tokenization.backend import decoding_error


class TextStream:
    """Decodes ids one at a time, without showing partial characters or lagging by more than one character.

    As in `Tokenizer.decode`, U+FFFD replaces bytes that form no character. `length` is the number of
    characters so far, and `offset` the position among them of the latest token: of its character, even if
    that is incomplete. The arguments are attributes and methods of `Tokenizer`.
    """

    def __init__(
        self,
        backend: Backend,
        end: int | None,
        bytes_of: Callable[[int], bytes | None],
        token_name: Callable[[int], str],
    ):
        self._backend, self._end, self._bytes_of, self._token_name = backend, end, bytes_of, token_name
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._backend_stream = DecodeStream(skip_special_tokens=True)
        self.length = self.offset = 0

    def step(self, token: int) -> str:
        """The text that `token` completes; empty while a character is incomplete."""
        self.offset = self.length
        if token == self._end:
            text = self.rest()
            self.offset += len(text)
        elif (part := self._bytes_of(token)) is None:
            text = self._backend_step(token)
            # Some kinds write a space before each word that is not part of the token.
            self.offset += text.startswith(" ") and not self._token_name(token).startswith(" ")
        else:
            text = self._characters.decode(part[:1])
            # The first byte belongs to the last character decoded so far, or to one that is incomplete.
            incomplete = bool(self._characters.getstate()[0]) or not part
            self.offset += len(text) - (not incomplete)
            text += self._characters.decode(part[1:])
        self.length += len(text)
        return text

    def rest(self) -> str:
        """What replaces an incomplete character that is never completed."""
        return self._characters.decode(b"", final=True)

    def _backend_step(self, token: int) -> str:
        # The stream of `tokenizers` fails for good at bytes that form no character: start a new one.
        for _ in range(2):
            try:
                return self._backend_stream.step(self._backend, int(token)) or ""
            except Exception:  # it raises bare Exception
                self._backend_stream = DecodeStream(skip_special_tokens=True)
            except BaseException as error:
                raise decoding_error(error) from error
        return ""
