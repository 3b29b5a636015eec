#!/usr/bin/env python
"""Takes the pictures of the web UI that README.md and docs/studio.md show.

    lm app --models MODELS --port 7979
    python docs/pictures.py http://127.0.0.1:7979

The pictures, and the recording of a first visit, go to docs/images/. They show the model that ships with lm;
the server needs another one for the Compare tab, and gets a third one in the Train tab. Needs the extra
`test`, Pillow and chromium.
"""

import argparse
import base64
import io
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Locator, Page as Tab, ViewportSize, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.end_to_end.browsers import HINT, find_browser
from tests.end_to_end.page import SET_CURSOR, Page

IMAGES = Path(__file__).parent / "images"
SIZE = ViewportSize(width=1280, height=920)
RECORDED = ViewportSize(width=1120, height=760)
FRAME = 0.12  # seconds between frames of the recording, at least
COLORS = 200  # of the recording
SHIPPED = "pretrained"
# A mouse pointer: a headless browser draws none.
POINTER = """() => {
    const pointer = document.createElement("div");
    pointer.style = `position: fixed; z-index: 99999; width: 18px; height: 18px; border-radius: 50%;
        background: #1f6feb99; border: 2px solid white; pointer-events: none; transition: all 0.4s;
        left: 60%; top: 60%`;
    document.body.append(pointer);
    window.movePointer = (x, y) => { pointer.style.left = x - 9 + "px"; pointer.style.top = y - 9 + "px"; };
}"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("address", help="of the server")
    parser.add_argument("--only", nargs="+", choices=PICTURES, default=list(PICTURES))
    options = parser.parse_args()
    path = find_browser() or sys.exit(f"error: no browser: {HINT}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        for name in options.only:
            size = RECORDED if name == "first.gif" else SIZE
            tab = browser.new_context(viewport=size, color_scheme="light", locale="en").new_page()
            tab.goto(options.address)
            tab.locator("#showcase [data-index]").first.wait_for()
            Page(tab).choose_model(SHIPPED)
            tab.wait_for_timeout(2500)  # its text is in view, and the mouse is still
            PICTURES[name](Page(tab), IMAGES / name)
            tab.context.close()
            print(f"{IMAGES / name}: {(IMAGES / name).stat().st_size // 1000} KB")
        browser.close()


def write(page: Page, file: Path) -> None:
    close_showcase(page)
    page.set(Length=400, Seed=4)
    page.editor.fill("def read_config(path):\n")
    page.write()
    page.tab.evaluate(SET_CURSOR, [page.text.index("options") + 1])
    page.tab.keyboard.press("Control+Space")
    page.tab.locator("#alternatives [role=option]").first.wait_for()
    page.tab.wait_for_timeout(800)  # their continuations
    page.tab.screenshot(path=file)


def inside(page: Page, file: Path) -> None:
    open_section(page, "Gallery", "#inside-gallery button").click()
    page.tab.wait_for_timeout(1500)
    page.tab.screenshot(path=file)


def cell(page: Page, file: Path) -> None:
    open_section(page, "Cell", "#inside-cell svg")
    page.tab.wait_for_timeout(1500)
    page.tab.screenshot(path=file)


def open_section(page: Page, name: str, content: str) -> Locator:
    """Open a section of the Look inside tab; returns the first of what it shows, a selector."""
    close_showcase(page)
    page.go_to("Look inside")
    page.tab.get_by_role("tab", name=name, exact=True).click()
    shown = page.tab.locator(content).first
    shown.wait_for()
    return shown


def compare(page: Page, file: Path) -> None:
    close_showcase(page)
    page.go_to("Compare")
    page.tab.get_by_role("button", name="Write side by side", exact=True).click()
    page.tab.wait_for_timeout(6000)
    page.tab.screenshot(path=file)


def train(page: Page, file: Path) -> None:
    """Train on the pages of the documentation."""
    close_showcase(page)
    page.go_to("Train")
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "My novel (draft 2).txt"
        pages = sorted(Path(__file__).parent.glob("*.md"))
        text.write_text("\n".join(each.read_text("utf-8") for each in pages), encoding="utf-8", newline="\n")
        with page.tab.expect_file_chooser() as chooser:
            page.tab.get_by_role("button", name="Upload a text").click()
        chooser.value.set_files(text)
        page.wait_for(lambda: "novel" in page.tab.get_by_label("Training text", exact=True).input_value())
    time_field = page.tab.get_by_label("Training time", exact=True)
    time_field.fill("40s")
    time_field.press("Enter")
    page.tab.get_by_role("button", name="Start training", exact=True).click()
    for status in ("running", "done"):  # an earlier job may be done
        page.wait_for(
            lambda status=status: status in page.tab.locator("#train-state").inner_text(), seconds=120
        )
    page.tab.wait_for_timeout(2000)
    page.tab.screenshot(path=file)


def recording(page: Page, file: Path) -> None:
    """The first twenty seconds of a visit: a unit, its text goes on, an alternative, another unit."""
    tab = page.tab
    tab.evaluate(POINTER)
    with recorded(tab, file):
        tab.wait_for_timeout(3500)
        page.set(Length=400, Seed=4)
        press(tab, tab.get_by_role("button", name="Let it write"))
        page.wait_for(lambda: page.text)
        page.at_rest()
        tab.wait_for_timeout(1000)
        tab.evaluate(SET_CURSOR, [len(page.text) - 100])
        tab.keyboard.press("Control+Space")
        tab.locator("#alternatives [role=option]").first.wait_for()
        tab.wait_for_timeout(2000)
        for _ in range(2):
            tab.keyboard.press("ArrowDown")
            tab.wait_for_timeout(600)
        tab.keyboard.press("Enter")
        page.wait_for(page.stop.is_enabled)
        page.at_rest()
        tab.wait_for_timeout(1000)
        press(tab, tab.locator("#showcase-link"))
        tab.wait_for_timeout(1500)
        press(tab, tab.get_by_role("button", name="Show me another unit"))
        tab.wait_for_timeout(2000)


def press(tab: Tab, button: Locator) -> None:
    button.evaluate("""(button) => {
        const { x, y, width, height } = button.getBoundingClientRect();
        movePointer(x + width / 2, y + height / 2);
    }""")
    tab.wait_for_timeout(600)
    button.click()


class recorded:
    """Records what the browser draws while the block runs, as a GIF."""

    def __init__(self, tab: Tab, file: Path):
        self.tab, self.file = tab, file
        self.frames: list[tuple[float, str]] = []

    def __enter__(self) -> None:
        self.client = self.tab.context.new_cdp_session(self.tab)
        self.client.on("Page.screencastFrame", self.keep)
        self.client.send("Page.startScreencast", {"format": "png"})

    def keep(self, event: dict[str, Any]) -> None:
        self.frames.append((time.monotonic(), event["data"]))
        self.client.send("Page.screencastFrameAck", {"sessionId": event["sessionId"]})

    def __exit__(self, *problem: object) -> None:
        self.client.send("Page.stopScreencast")
        if problem[0]:
            return
        kept = [self.frames[0]]
        for frame in self.frames[1:]:
            if frame[0] - kept[-1][0] >= FRAME:
                kept.append(frame)
        kept.append((time.monotonic(), self.frames[-1][1]))
        images = [Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB") for _, data in kept]
        # One palette for all, so that unchanged parts stay unchanged.
        samples = Image.new("RGB", (images[0].width, len(images) * images[0].height // 4))
        for number, image in enumerate(images):
            samples.paste(image.reduce((1, 4)), (0, number * image.height // 4))
        palette = samples.quantize(COLORS)
        first, *others = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
        times = [round(1000 * (after - before)) for (before, _), (after, _) in pairwise(kept)] + [2000]
        first.save(self.file, save_all=True, append_images=others, duration=times, loop=0, optimize=True)


def close_showcase(page: Page) -> None:
    page.tab.locator("#showcase").get_by_role("button", name="Close", exact=True).click()


PICTURES = {
    "first.gif": recording,
    "page.png": write,
    "inside.png": inside,
    "cell.png": cell,
    "compare.png": compare,
    "train.png": train,
}

if __name__ == "__main__":
    main()
