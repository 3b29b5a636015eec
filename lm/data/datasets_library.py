"""The `datasets` library, which is optional and takes seconds to import."""

from __future__ import annotations

from types import ModuleType

from lm.console.invocation import pip_install
from lm.errors import UserError


def datasets_library(purpose: str) -> ModuleType:
    """The `datasets` library, with its output turned off.

    Raises UserError, naming the `purpose`, if it is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"{purpose} needs the `datasets` library: {pip_install('data')}") from error
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    return datasets
