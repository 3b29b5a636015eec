"""What a person has written on the page: every version of the text, where one can go back to and branch off.

A desk belongs to one visit of the page and is cleared when the person leaves. Nothing here knows of Gradio.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from lm.language_model import LanguageModel

from ...draft import Draft

_VERSIONS_KEPT = 100
_DESKS_KEPT = 256  # whoever was away for longest finds the text, but not its versions


@dataclass(eq=False)
class Version:
    """One state of the text. When it has been written, its draft is never changed."""

    draft: Draft | None = None  # None: what a person typed, which no model has read yet
    typed: str = ""
    start: Version | None = None  # of which it is the continuation
    seed: int | None = None  # with which its end was written; None: it was not written by a model
    before: Version | None = None  # what was shown before it, where Undo goes
    after: Version | None = None  # where Redo goes

    @property
    def text(self) -> str:
        """The whole text."""
        return self.draft.text if self.draft else self.typed


@dataclass
class Desk:
    """The versions of one person's text; `now` is the one that is shown."""

    versions: list[Version] = field(default_factory=lambda: [Version()])
    candidates: list[Version] = field(default_factory=list)

    def __post_init__(self):
        self.now = self.versions[-1]

    def draft(self, text: str, model: LanguageModel) -> Draft:
        """A draft of `text` as `model` has read it, from what it has read of the text that is shown."""
        known = self.now.draft
        return (known if known and known.model is model else Draft(model)).with_text(text)

    def note(self, text: str) -> None:
        """Make a version of what the person has typed since."""
        if text == self.now.text:
            return
        if len(self.versions) == 1 and self.now.draft is None:
            self.now.typed = text  # there is nothing to go back to before one has begun
        else:
            self.add(Version(typed=text, start=self.now))

    def add(self, version: Version) -> None:
        """Go on to a new version."""
        version.before, self.now.after = self.now, version
        self.versions = [*self.versions, version][-_VERSIONS_KEPT:]
        self.now = version

    def undo(self, text: str) -> Version:
        """The version before the one that is shown; what was typed since can be brought back by `redo`."""
        self.note(text)
        self.now = self.now.before or self.now
        return self.now

    def redo(self, text: str) -> Version:
        """The version after the one that is shown, if nothing has been typed since."""
        if text == self.now.text and self.now.after:
            self.now = self.now.after
        else:
            self.note(text)
        return self.now

    def go_to(self, number: int, text: str) -> Version:
        """The version of that number, as `ends` names them."""
        self.note(text)
        if 0 <= number < len(self.versions):
            self.now = self.versions[number]
        return self.now

    def ends(self) -> list[tuple[int, Version]]:
        """The versions at which a branch ends, with their numbers, the newest first."""
        passed = {id(version.start) for version in self.versions}
        ends = [(n, v) for n, v in enumerate(self.versions) if id(v) not in passed and v.text]
        return ends[::-1]


class Desks:
    """The desks of all who have the page open, each by the name of the visit."""

    def __init__(self):
        self._desks: OrderedDict[str, Desk] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, visit: str) -> Desk:
        """The desk of a visit, empty at first."""
        with self._lock:
            desk = self._desks.setdefault(visit, Desk())
            self._desks.move_to_end(visit)
            while len(self._desks) > _DESKS_KEPT:
                self._desks.popitem(last=False)
            return desk

    def clear(self, visit: str) -> None:
        """Forget a desk."""
        with self._lock:
            self._desks.pop(visit, None)

    def __len__(self) -> int:
        return len(self._desks)
