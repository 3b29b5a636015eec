"""facts.json: what a run is about to do, and its warnings, for the web UI and other programs to read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, get_type_hints

from lm.files.atomic import write_text
from lm.files.json_types import has_type
from lm.storage.run_folder import Run


@dataclass
class Facts:
    """What is known about a run when its first step begins, and what went wrong since."""

    text: dict[str, str]  # the rows of the data report
    model: str
    compute: str
    budget: str
    total_steps: int | None  # None: the budget is a time
    characters_per_token: float
    settings: dict[str, Any]  # flat, with a number in place of every `auto`
    warnings: list[str] = field(default_factory=list)

    @property
    def recipe(self) -> str:
        """'muon, learning rate 0.021, dropout 0.37 (input 0.18)', with the dropouts that differ."""
        of = self.settings
        dropouts = {name: of[f"{name}_dropout"] for name in ("input", "output", "weight")}
        others = [f"{name} {value:g}" for name, value in dropouts.items() if value != of["dropout"]]
        others += [f"embedding {of['embedding_dropout']:g}"] if of["embedding_dropout"] else []
        dropout = f"dropout {of['dropout']:g}" + (f" ({', '.join(others)})" if others else "")
        sampled = of.get("sampled_softmax")
        softmax = f", softmax over {sampled:,} sampled types" if sampled else ""
        return f"{of['optimizer']}, learning rate {of['lr']:g}, {dropout}{softmax}"

    def save(self, run: Run) -> None:
        """Write facts.json. Raises OSError."""
        write_text(run.facts, json.dumps(asdict(self), indent=1) + "\n")


def read_facts(run: Run) -> Facts | None:
    """The facts of a run; None if facts.json is missing, damaged or from another program."""
    try:
        found = json.loads(run.facts.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    types = get_type_hints(Facts)
    values: dict[str, Any] = {name: found.get(name) for name in types}
    return Facts(**values) if all(has_type(values[name], kind) for name, kind in types.items()) else None
