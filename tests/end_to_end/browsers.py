"""The browser of the tests, of docs/pictures.py and of benchmarks/page.py."""

import os
import shutil

# The first has no window and is twice as fast.
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
HINT = f"install {BROWSERS[0]} or {BROWSERS[1]}, or name a browser in LM_BROWSER"


def find_browser() -> str | None:
    """The path of the browser named by LM_BROWSER, or of an installed one."""
    return os.environ.get("LM_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
