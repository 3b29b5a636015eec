"""Where a pattern matches, found by a process of its own that can be ended: a pattern may be such that it
never finishes. This file is also that process, which imports nothing of this package."""

import json
import re
import sys

_SECONDS = 5  # of its own time, should whoever started it be gone
_MEMORY = 1 << 30  # bytes


def main() -> int:
    """Reads {"pattern", "text"} as JSON and writes the spans of the matches, or what is wrong with the
    pattern (exit code 3)."""
    _limit()
    asked = json.load(sys.stdin)
    try:
        found = re.compile(asked["pattern"], re.MULTILINE).finditer(asked["text"])
        json.dump([match.span() for match in found if match.end() > match.start()], sys.stdout)
    except (re.error, OverflowError, RecursionError, MemoryError) as error:
        print(error or type(error).__name__)
        return 3
    return 0


def _limit() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))


if __name__ == "__main__":
    sys.exit(main())
