"""Writing during training: if the disk is full, training prints a warning and continues."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lm.errors import one_line

CHECKPOINT = "the checkpoint"


@dataclass
class Disk:
    """Attempts writes, and remembers which of them failed."""

    say: Callable[[str], None]
    warn: Callable[[str], None]
    ever_saved: bool = False  # whether a checkpoint or weights were ever saved
    last_error: str = ""
    failing: set[str] = field(default_factory=set)

    @property
    def has_checkpoint(self) -> bool:
        """Whether the last checkpoint could be saved."""
        return CHECKPOINT not in self.failing

    def attempt(self, what: str, write: Callable[[], None]) -> bool:
        """Whether `write` succeeded. The user is warned once per failing `what`, until it works again."""
        try:
            write()
        except OSError as error:
            self.last_error = error.strerror or one_line(error)
            if what not in self.failing:
                self.failing.add(what)  # first: the warning itself is written to facts.json
                self.warn(
                    f"{what} could not be saved: {self.last_error}. Training continues with what was saved"
                    " before, and tries again at the next save."
                )
            return False
        if what in self.failing:
            self.say(f"Saving {what} works again.")
        self.failing.discard(what)
        return True
