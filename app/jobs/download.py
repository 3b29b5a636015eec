"""How much a job would download: the size of those files of a Hub dataset that are not cached yet.

    python -m app.jobs.download < settings.json

A separate process asks the Hub, so that the server need not import the libraries for it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from lm.config.schema import RunConfig
from lm.errors import UserError

from .subprocess_call import end_after, report, run_module

LIMIT = 30.0  # seconds
_TIMEOUT = 60  # seconds after which this process ends even if its parent is gone


def size(settings: dict[str, Any], limit: float = LIMIT) -> int:
    """The bytes that `lm train` with these settings, whose dataset is on the Hub, would download. Raises
    UserError if there is no such dataset or the Hub does not answer."""
    result = run_module("download", settings, limit)
    if "error" in result.results:
        raise UserError(result.results["error"])
    if "size" not in result.results:
        raise UserError("the Hub did not say in time how large this dataset is; try again in a minute.")
    return int(result.results["size"])


def main() -> int:
    """Read settings from standard input and print the size as a JSON object."""
    from lm.data.hub import download_size

    end_after(_TIMEOUT)
    config = RunConfig.from_flat(json.load(sys.stdin)).data
    try:
        report(size=download_size(config.dataset[0], config))
    except UserError as error:
        report(error=str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
