"""The versions of a text: a tree in which the user can undo, redo and return to any branch.

Each session of the page has a history of its own. Nothing here depends on Gradio.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from lm.language_model import LanguageModel

from ...draft import Draft

_MAX_VERSIONS = 100
_MAX_HISTORIES = 256  # the browser stores the text itself, so older sessions lose their versions only


@dataclass(eq=False)
class Version:
    """One version of the text. Once generated, its draft does not change."""

    draft: Draft | None = None  # None: typed by the user and not read by a model yet
    typed: str = ""
    parent: Version | None = None  # the version that this one continues
    seed: int | None = None  # that the end was generated with; None: not generated
    kept: int = 0  # tokens before that end
    previous: Version | None = None  # the one displayed before, for Undo
    next: Version | None = None  # for Redo

    @property
    def text(self) -> str:
        """The whole text."""
        return self.draft.text if self.draft else self.typed

    def start(self, model: LanguageModel) -> Draft:
        """A draft by `model` of the text before the generated end."""
        start = self.draft.first(self.kept) if self.draft else Draft(model)
        return start if start.model is model else Draft(model).with_text(start.text)


@dataclass
class History:
    """The versions of one session's text; `current` is the displayed one."""

    versions: list[Version] = field(default_factory=lambda: [Version()])
    candidates: list[Version] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.current = self.versions[-1]

    def draft(self, text: str, model: LanguageModel) -> Draft:
        """A draft of `text` by `model`, which reuses what the model has read of the current version."""
        draft = self.current.draft
        return (draft if draft and draft.model is model else Draft(model)).with_text(text)

    def record(self, text: str) -> None:
        """Add a version if the user has edited the text."""
        if text == self.current.text:
            return
        if len(self.versions) == 1 and self.current.draft is None:
            self.current.typed = text  # the first text typed: there is nothing to undo yet
        else:
            self.add(Version(typed=text, parent=self.current))

    def add(self, version: Version) -> None:
        """Add a version and make it the current one."""
        version.previous, self.current.next = self.current, version
        self.versions = [*self.versions, version][-_MAX_VERSIONS:]
        self.current = version

    def last_generated(self) -> Version | None:
        """The displayed version, or the last one before the user's edits whose end is generated."""
        version: Version | None = self.current
        while version and version.seed is None:
            version = version.parent
        return version

    def beginning_of(self, text: str) -> Version | None:
        """The last version up to the displayed one that `text` continues."""
        version: Version | None = self.current
        while version and not text.startswith(version.text):
            version = version.parent
        return version

    def undo(self, text: str) -> Version:
        """Return to the previous version. `text` is the displayed text; `redo` restores its edits."""
        self.record(text)
        self.current = self.current.previous or self.current
        return self.current

    def redo(self, text: str) -> Version:
        """Move to the next version, unless the user has edited the displayed `text`."""
        if text == self.current.text and self.current.next:
            self.current = self.current.next
        else:
            self.record(text)
        return self.current

    def go_to(self, number: int, text: str) -> Version:
        """Move to a version by its number in `branches`. `text` is the displayed text."""
        self.record(text)
        if 0 <= number < len(self.versions):
            self.current = self.versions[number]
        return self.current

    def branches(self) -> list[tuple[int, Version]]:
        """(number, version) for the last version of each branch, newest first."""
        parents = {id(version.parent) for version in self.versions}
        ends = [(n, v) for n, v in enumerate(self.versions) if id(v) not in parents and v.text]
        return ends[::-1]


class Histories:
    """The history of each session; the least recently used ones are dropped."""

    def __init__(self) -> None:
        self._histories: OrderedDict[str, History] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, session: str) -> History:
        """The history of a session, empty at first."""
        with self._lock:
            history = self._histories.setdefault(session, History())
            self._histories.move_to_end(session)
            while len(self._histories) > _MAX_HISTORIES:
                self._histories.popitem(last=False)
            return history

    def forget(self, session: str) -> None:
        """Delete the history of a session."""
        with self._lock:
            self._histories.pop(session, None)

    def __len__(self) -> int:
        return len(self._histories)
