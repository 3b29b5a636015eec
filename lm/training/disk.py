"""Writing while training: a disk that is full costs a warning, and the training goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lm.errors import one_line


@dataclass
class Disk:
    """Tries to write, and remembers what could not be written."""

    say: Callable[[str], None]
    warn: Callable[[str], None]
    worked: bool = False  # whether there is anything to go on from: a checkpoint or weights
    trouble: str = ""  # the last one
    failing: set[str] = field(default_factory=set)

    def attempt(self, what: str, write: Callable[[], None]) -> bool:
        """Whether `write` could write `what`. If not, a person is told once, until it works again."""
        try:
            write()
        except OSError as error:
            self.trouble = error.strerror or one_line(error)
            if what not in self.failing:
                self.failing.add(what)  # first: a warning is itself written to facts.json
                self.warn(
                    f"{what} could not be saved: {self.trouble}. Training goes on with what was"
                    " saved before, and tries again at the next save."
                )
            return False
        if what in self.failing:
            self.say(f"Saving {what} works again.")
        self.failing.discard(what)
        return True
