"""The Train tab: texts that are pasted, dropped or downloaded, and what to do with a job that is over."""

import json
import shutil

import pytest

from app.jobs.uploads import FOLDER
from tests.conftest import some_text
from tests.end_to_end.conftest import free_port, serving, until_ready
from tests.end_to_end.hub import put
from tests.end_to_end.page import DESKTOP, sizes
from tests.end_to_end.test_page_train import press, state
from tests.hub.server import HubServer

pytestmark = pytest.mark.browser

DROP = """([type, data]) => {
  const transfer = new DataTransfer();
  if (data.name) transfer.items.add(new File([data.text], data.name));
  else transfer.setData("text/plain", data.text);
  const options = { bubbles: true, cancelable: true };
  const event = type === "paste"
    ? new ClipboardEvent("paste", { ...options, clipboardData: transfer })
    : new DragEvent("drop", { ...options, dataTransfer: transfer });
  document.querySelector("#train-state").dispatchEvent(event);
}"""
TINY = "The boat is small.\nThe sea is large.\n\nThe boat sails over the sea, and the sea carries it home.\n"


@pytest.fixture(scope="module")
def trainer(tmp_path_factory, browser):
    folder = tmp_path_factory.mktemp("trainer")
    with HubServer(folder) as hub:
        put(hub, "org/large/data/train.txt", some_text(200_000) * 110)
        put(hub, "org/small/data/train.txt", some_text(20_000))
        variables = {**hub.environment(folder / "hf"), "LM_CACHE": str(folder / "cache")}
        with serving(folder, "--port", free_port(), **variables) as server:
            yield until_ready(server)


def field(page, label):
    return page.tab.get_by_label(label, exact=True)


def fill(page, label, value):
    field(page, label).fill(value)
    field(page, label).press("Enter")


def stored(trainer, beginning):
    """The stored text whose name begins like this."""
    (file,) = (trainer.output.parent / "runs" / FOLDER).glob(f"*/{beginning}*.txt")
    return file.read_bytes().decode()


def in_view(page, locator):
    box = locator.bounding_box()
    return box["y"] >= 0 and box["y"] + min(box["height"], 100) <= page.tab.viewport_size["height"]


@sizes
def test_a_tiny_pasted_text_is_trained_further_repeated_and_fine_tuned(open_page, trainer, size):
    page = open_page(trainer, size=size, tab_name="Train")
    name = f"My novel (draft {size['width']})"
    page.tab.evaluate(DROP, ["paste", {"text": TINY}])
    text = field(page, "Training text")
    page.wait_for(lambda: text.input_value() == "The boat is small. The sea is · 96 bytes")
    assert stored(trainer, "The boat is small") == TINY
    fill(page, "Training time", "10s")
    field(page, "Name").fill(name)
    press(page, "Start training")
    page.wait_for(lambda: field(page, "Training jobs").input_value().startswith(name))
    page.wait_for(lambda: "left" in state(page), seconds=60)
    assert in_view(page, page.tab.locator("#train-state progress"))
    page.wait_for(lambda: page.tab.title().endswith(f"% · {name}"))
    page.wait_for(lambda: "done" in state(page), seconds=60)
    page.wait_for(lambda: page.tab.title() == f"done · {name}")
    press(page, "Same settings again")
    note = page.tab.locator("#train-report")
    page.wait_for(lambda: "The form has the settings" in note.inner_text())
    assert [field(page, label).input_value() for label in ("Name", "Training time")] == [name, "10s"]
    press(page, "Start from this model")
    page.wait_for(lambda: field(page, "Start from").input_value().startswith("My nov"))
    page.wait_for(lambda: not page.tab.locator("#train-cell").is_visible())
    field(page, "Name").fill("finer")
    press(page, "Start training")
    page.wait_for(lambda: "left" in state(page) and "finer" in field(page, "Training jobs").input_value(), 60)
    press(page, "Stop")
    page.wait_for(lambda: "stopped" in state(page), seconds=60)
    page.tab.get_by_label("Training jobs", exact=True).click()
    page.tab.get_by_role("option", name=name).first.click()
    press(page, "Train 2 more minutes")
    page.wait_for(lambda: "about 1:" in state(page), seconds=60)
    press(page, "Stop")
    page.wait_for(lambda: "stopped" in state(page), seconds=60)
    config = json.loads((trainer.output.parent / "runs" / name / "config.json").read_text())
    assert config["trained_on"]["characters"] < 100


def test_a_dropped_file_keeps_its_name(open_page, trainer):
    page = open_page(trainer, tab_name="Train")
    page.tab.evaluate(DROP, ["drop", {"name": "我的小说 [2].txt", "text": TINY * 20}])
    text = field(page, "Training text")
    page.wait_for(lambda: text.input_value() == "我的小说 [2] · 2 KB")
    page.tab.evaluate(DROP, ["drop", {"text": "Dropped words, of which a text is made."}])
    page.wait_for(lambda: text.input_value().startswith("Dropped words, of which a text"))
    fill(page, "Or paste or drop a text", "Typed words.\nAnd more.")  # Enter stores them
    page.wait_for(lambda: text.input_value().startswith("Typed words. And more"))
    assert stored(trainer, "Typed words") == "Typed words.\nAnd more."
    text.focus()  # what is pasted into a field stays there
    page.tab.evaluate(
        DROP.replace('"#train-state"', '"#train-title :is(input, textarea)"'), ["paste", {"text": "x"}]
    )
    assert text.input_value().startswith("Typed words")


@sizes
def test_a_large_download_is_asked_for_first(open_page, trainer, size):
    page = open_page(trainer, size=size, tab_name="Train")
    downloads = trainer.output.parent / "hf"

    def downloaded():
        return max((f.stat().st_size for f in downloads.rglob("*") if f.is_file()), default=0)

    before = downloaded()
    question = page.tab.locator("#train-question")
    fill(page, "Or a Hugging Face dataset", "org/large")
    for button in ("Preview", "Start training"):
        press(page, button)
        page.wait_for(question.is_visible, seconds=60)
        assert "org/large is a download of 22 MB." in question.inner_text() and in_view(page, question)
        press(page, "Cancel")
        page.wait_for(lambda: not question.is_visible())
    assert downloaded() == before and "org/large" not in field(page, "Training jobs").input_value()
    fill(page, "Or a Hugging Face dataset", "org/small")
    press(page, "Preview")  # needs no question
    report = page.tab.locator("#train-report")
    page.wait_for(lambda: "Memory" in report.inner_text(), seconds=60)
    page.wait_for(lambda: in_view(page, report))
    if size != DESKTOP:
        return  # a text is downloaded once
    fill(page, "Or a Hugging Face dataset", "org/large")
    press(page, "Start training")
    press(page, "Download it")
    page.wait_for(lambda: "org/large" in state(page), seconds=60)
    press(page, "Stop")
    page.wait_for(lambda: "stopped" in state(page), seconds=60)


def test_the_form_and_the_tab_survive_a_reload_and_a_lost_text_is_reported(open_page, trainer, tmp_path):
    page = open_page(trainer, tab_name="Train")
    (tmp_path / "kept.txt").write_text(TINY * 3)
    page.tab.locator("#train input[type=file]").set_input_files(tmp_path / "kept.txt")
    text = field(page, "Training text")
    page.wait_for(lambda: text.input_value().startswith("kept"))
    field(page, "GRU").check()
    fill(page, "Training time", "33s")
    field(page, "Name").fill("my name")
    page.wait_for(lambda: "my name" in page.tab.evaluate("sessionStorage['lm.train']"))
    page.reload()
    page.wait_for(lambda: text.is_visible() and text.input_value().startswith("kept"))
    assert field(page, "GRU").is_checked() and field(page, "Name").input_value() == "my name"
    assert field(page, "Training time").input_value() == "33s"
    (file,) = (trainer.output.parent / "runs" / FOLDER).glob("*/kept.txt")
    shutil.rmtree(file.parent)
    page.reload()
    page.wait_for_message("The chosen text no longer exists: choose another one.")
    page.wait_for(lambda: text.input_value() == "Python standard library")
    assert field(page, "Training time").input_value() == "33s"
