"""Find the matches of a regular expression, as a script: a process can be stopped if the search never ends.

It imports nothing from this package, so that it starts quickly.
"""

import contextlib
import json
import re
import sys

_CPU_SECONDS = 5  # the limit if the parent process is gone
_MEMORY = 1 << 30  # bytes


def main() -> int:
    """Read {"pattern", "text"} as JSON and write the spans of the matches. For an invalid pattern, write the
    reason and exit with status 3."""
    _limit_resources()
    request = json.load(sys.stdin)
    try:
        matches = re.compile(request["pattern"], re.MULTILINE).finditer(request["text"])
        json.dump([match.span() for match in matches if match.end() > match.start()], sys.stdout)
    except (re.error, OverflowError, RecursionError, MemoryError) as error:
        print(error or type(error).__name__)
        return 3
    return 0


def _limit_resources() -> None:
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    with contextlib.suppress(ValueError):  # macOS maps more than that into every process
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))


if __name__ == "__main__":
    sys.exit(main())
