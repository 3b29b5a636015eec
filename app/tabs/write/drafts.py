"""The latest drafts of each session, so that models need not read again what they have read before.

The text itself and its versions are in the browser. A draft that was dropped is read again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from lm.language_model import LanguageModel

from ...draft import Draft

_MAX_DRAFTS = 5  # of a session: the last text, and the candidates for the next one
_MAX_SESSIONS = 256
_MAX_CHARACTERS = 4_000_000  # in the drafts of all sessions


class Drafts:
    """The drafts of each session; those of the least recently used sessions are dropped."""

    def __init__(self) -> None:
        self._drafts: OrderedDict[str, list[Draft]] = OrderedDict()
        self._lock = threading.Lock()

    def closest(self, session: str, text: str, model: LanguageModel) -> Draft:
        """The draft of a session, by `model`, that has most of the beginning of `text`; else an empty one."""
        with self._lock:
            drafts = [draft for draft in self._drafts.get(session, ()) if draft.model is model]
        return max(drafts, key=lambda draft: _shared(draft.text, text), default=None) or Draft(model)

    def keep(self, session: str, drafts: Sequence[Draft]) -> None:
        """Keep drafts, the most recent ones of a session."""
        with self._lock:
            older = [draft for draft in self._drafts.pop(session, []) if draft not in drafts]
            self._drafts[session] = [*drafts, *older][:_MAX_DRAFTS]
            while len(self._drafts) > 1 and (
                len(self._drafts) > _MAX_SESSIONS or self.characters > _MAX_CHARACTERS
            ):
                self._drafts.popitem(last=False)

    def forget(self, session: str) -> None:
        """Drop the drafts of a session."""
        with self._lock:
            self._drafts.pop(session, None)

    @property
    def characters(self) -> int:
        """The number of characters in all drafts."""
        return sum(len(draft.text) for drafts in self._drafts.values() for draft in drafts)

    def __len__(self) -> int:
        return len(self._drafts)


def _shared(a: str, b: str) -> int:
    """The length of the beginning that two texts share."""
    shortest = min(len(a), len(b))
    if a[:shortest] == b[:shortest]:
        return shortest
    return next(n for n, (one, other) in enumerate(zip(a, b, strict=False)) if one != other)
