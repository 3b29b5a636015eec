"""Output in the cell of a notebook (Jupyter, Colab, VS Code), through the IPython that runs there already."""

from __future__ import annotations

import sys
from typing import Any


def in_notebook() -> bool:
    """Whether this program runs in the kernel of a notebook, rather than in a terminal or a script."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


class Output:
    """An output of the cell that is running, which `show` replaces in place."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, **contents: str) -> None:
        """Show one of `contents`, the richest that the notebook can display: their names are the MIME types
        `text_plain`, `text_html` and `image_svg`."""
        display = sys.modules["IPython"].display.display
        data = {_TYPES[name]: content for name, content in contents.items()}
        if self._handle is None:
            self._handle = display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)


_TYPES = {"text_plain": "text/plain", "text_html": "text/html", "image_svg": "image/svg+xml"}
