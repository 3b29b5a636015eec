"""How an uploaded text is read: its kind, the columns to choose from, and the error if it cannot be read.

    python -m app.jobs.reading < settings.json

The text is read once as `lm train` would read it, in a process of its own: an upload may be a file that takes
more time or memory to read than the server can spare.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from typing import Any

from lm.config.schema import RunConfig
from lm.data.encoding_errors import EncodingError
from lm.data.find_source import find_sources
from lm.data.splits import like_training
from lm.errors import DataError, UserError

from .runner import lower_priority
from .subprocess_call import end_after, report, run_module

ENCODINGS = (  # to choose from, apart from any other that Python knows
    *(
        "utf_8",
        "utf_16_le",
        "cp1252",
        "mac_roman",
        "cp1250",
        "cp1251",
        "koi8_r",
        "cp1253",
        "cp1254",
        "cp1255",
    ),
    *("cp1256", "cp1257", "cp1258", "cp874", "gb18030", "big5", "cp932", "euc_jp", "cp949"),
)
LIMIT = 20.0  # seconds
MAX_COLUMNS = 100  # to choose from
_TIMEOUT = 60  # seconds after which this process ends even if its parent is gone


@dataclass(frozen=True)
class Reading:
    """What is known about how a text is read."""

    kind: str = ""  # "text", "csv", "json", "parquet" or "arrow"; "": not known
    columns: dict[str, str] = field(default_factory=dict)  # those of a table, each with one of its values
    column: str = ""  # the one that is chosen automatically; "": none is
    error: str = ""  # one line, if the text cannot be read like this
    encodings: dict[str, str] = field(default_factory=dict)  # how they read the line that cannot be read


def read(settings: dict[str, Any], limit: float = LIMIT) -> Reading:
    """Read the text of `settings`, which are those of `lm train`, for at most `limit` seconds."""
    result = run_module("reading", settings, limit)
    if not result.results and not result.timed_out:
        reason = "there is not enough memory to read it" if result.killed else result.last_line
        return Reading(error=f"cannot read the text: {reason}")
    return Reading(**result.results)


def main() -> int:
    """Read settings from standard input, then the text, and print what is found, one JSON object a line."""
    lower_priority(1000)  # where memory runs out, this process is killed first
    end_after(_TIMEOUT)
    config = RunConfig.from_flat(json.load(sys.stdin)).data
    try:
        (source,) = find_sources(config)
        report(kind=source.kind)
        first = "train" if "train" in source.files else next(iter(source.files))
        if source.kind != "text":
            offered = source.columns_offered(first)
            report(columns=dict(list(offered.items())[:MAX_COLUMNS]))
            try:
                report(column=source.column_chosen(first))
            except DataError:
                if not config.text_column:
                    raise
        for _ in source.read(first):
            pass
        for split in (split for split in source.files if split != first):
            with like_training(source, split, split) as held_out:
                for _ in held_out.read(split):
                    pass
    except EncodingError as error:
        lines = {name: line for name in ENCODINGS if (line := error.line(name))}
        report(error=str(error), encodings=lines)
    except UserError as error:
        report(error=str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
