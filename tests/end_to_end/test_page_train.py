"""The Train tab: real jobs, started and watched in a real browser."""

import base64
import os
import re
import shutil
import signal

import pytest

from lm.memorization.training_text import find_training_text
from tests.conftest import some_text
from tests.end_to_end.conftest import free_port, serving, until_ready
from tests.end_to_end.page import PHONE

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def trainer(tmp_path_factory, browser, trained_run):
    folder = tmp_path_factory.mktemp("trainer")
    shutil.copytree(trained_run, folder / "runs" / "boat")
    with serving(folder, "--port", free_port()) as server:
        yield until_ready(server)


@pytest.fixture
def page(open_page, trainer):
    return open_page(trainer, tab_name="Train")


def choose(page, label, option):
    page.tab.get_by_label(label, exact=True).click()
    page.tab.get_by_role("option", name=option).click()


def upload(page, file):
    with page.tab.expect_file_chooser() as chooser:
        page.tab.get_by_role("button", name="Upload a text").click()
    chooser.value.set_files(file)
    page.wait_for(
        lambda: (
            file.name.removesuffix(".txt") in page.tab.get_by_label("Training text", exact=True).input_value()
        )
    )


def fill_in(page, text_file, time, title=""):
    upload(page, text_file)
    choose(page, "Hidden size", "64")
    page.tab.get_by_label("Training time", exact=True).fill(time)
    page.tab.get_by_label("Training time", exact=True).press("Enter")
    page.tab.locator("#train-title :is(input, textarea)").fill(title)


def state(page):
    return page.tab.locator("#train-state").inner_text()


def steps_of_the_curves(page):
    """The x coordinates of each line in the picture of the losses."""
    _, data = page.tab.locator("#train-curve img").get_attribute("src").split("base64,")
    lines = re.findall(r'<polyline[^>]*points="([^"]+)"', base64.b64decode(data).decode())
    return [[float(point.split(",")[0]) for point in line.split()] for line in lines]


def press(page, name):
    page.tab.get_by_role("button", name=name, exact=True).click()


def test_preview_train_watch_and_write(page, text_file, open_page, trainer):
    fill_in(page, text_file, "10s", "my boat")
    press(page, "Preview")
    report = page.tab.locator("#train-report")
    page.wait_for(lambda: "Memory" in report.inner_text(), seconds=60)
    for part in ("characters for training", "2 layers of 64 units", "characters/s", "MB"):
        assert part in report.inner_text()
    press(page, "Start training")
    page.wait_for(lambda: "my boat" in page.tab.get_by_label("Training jobs", exact=True).input_value())
    curve = page.tab.locator("#train-curve img")
    page.wait_for(
        lambda: curve.count() and curve.evaluate("e => e.complete && e.naturalWidth > 0"), seconds=60
    )
    page.wait_for(lambda: "left" in state(page) and "characters/s" in state(page))
    # Closing the page does not end the job, and a new page shows it.
    page.tab.close()
    page = open_page(trainer, tab_name="Train")
    page.wait_for(lambda: "done" in state(page), seconds=60)
    assert "validation" in state(page)
    page.wait_for(lambda: page.tab.title() == "done · my boat")
    slider, sample = page.tab.get_by_role("slider", name="Samples"), page.tab.locator("#train-samples pre")
    latest = sample.inner_text()
    slider.click()
    assert page.tab.title().startswith("Write with")
    page.tab.keyboard.press("Home")  # before training, all characters are equally likely
    assert page.tab.locator("#train-samples output").inner_text() == "after step 1"
    page.wait_for(lambda: len(set(sample.inner_text())) > len(set(latest)))
    page.tab.keyboard.press("End")
    assert sample.inner_text() == latest
    curves = steps_of_the_curves(page)
    assert len(curves) >= 2 and all(steps == sorted(steps) for steps in curves)
    press(page, "Write with this model")
    page.wait_for(lambda: page.tab.get_by_label("Model", exact=True).input_value().startswith("my boat"))
    page.set(Length=20)
    page.editor.fill("The sea ")
    assert len(page.write()) == 28


@pytest.mark.slow
def test_pause_resume_and_stop_a_job_while_another_is_queued(page, text_file, trainer):
    fill_in(page, text_file, "60s", "first")
    press(page, "Start training")
    page.wait_for(lambda: "running" in state(page) and "left" in state(page), seconds=60)
    page.tab.locator("#train-title :is(input, textarea)").fill("second")
    press(page, "Start training")
    page.wait_for(lambda: "position 1 in the queue" in state(page))
    press(page, "Stop")
    page.wait_for(lambda: "stopped" in state(page))
    page.tab.get_by_label("Training jobs", exact=True).click()
    page.tab.get_by_role("option", name="first").click()
    press(page, "Pause")
    page.wait_for(lambda: "paused" in state(page), seconds=30)
    press(page, "Resume")
    page.wait_for(lambda: "running" in state(page) and "validation" in state(page), seconds=60)
    press(page, "Stop")
    page.wait_for(lambda: "stopped" in state(page), seconds=30)
    press(page, "Write with this model")
    page.wait_for(lambda: page.tab.get_by_label("Model", exact=True).input_value().startswith("first"))


@pytest.mark.slow
def test_a_restarted_server_shows_the_running_job(open_page, text_file, tmp_path):
    with serving(tmp_path, "--port", free_port()) as server:
        page = open_page(until_ready(server), tab_name="Train")
        fill_in(page, text_file, "60s", "steady")
        press(page, "Start training")
        page.wait_for(lambda: "left" in state(page), seconds=60)
        os.kill(server.process.pid, signal.SIGKILL)
        page.tab.close()
    with serving(tmp_path, "--port", free_port()) as server:
        page = open_page(until_ready(server), tab_name="Train")
        page.wait_for(lambda: "running" in state(page) and "left" in state(page))
        press(page, "Stop")
        page.wait_for(lambda: "stopped" in state(page), seconds=30)


def test_invalid_settings_are_reported(page):
    page.tab.get_by_label("Or a Hugging Face dataset").fill("../../etc/passwd")
    press(page, "Start training")
    page.wait_for_message("is not the id of a dataset")
    page.tab.get_by_label("Or a Hugging Face dataset").fill("")
    page.tab.get_by_label("Training time", exact=True).fill("3 years")
    page.tab.get_by_label("Training time", exact=True).press("Enter")
    press(page, "Start training")
    page.wait_for_message("must be a duration")


FRENCH = "Le café était fermé, et la mer était calme. Où est passée la clé de l'hôtel ?\n"


def note(page):
    return page.tab.locator("#train-note").inner_text().strip()


def train(page, trainer, file, title):
    """Train the text of the form, which is in `file`, until there is a model."""
    choose(page, "Hidden size", "64")
    page.tab.get_by_label("Training time", exact=True).fill("10s")
    page.tab.get_by_label("Training time", exact=True).press("Enter")
    page.tab.locator("#train-title :is(input, textarea)").fill(title)
    press(page, "Start training")
    page.wait_for(lambda: title in page.tab.get_by_label("Training jobs", exact=True).input_value())
    runs = trainer.output.parent / "runs"
    page.wait_for(lambda: file.name in state(page) and (runs / title / "config.json").exists(), seconds=90)
    press(page, "Stop")
    page.wait_for(lambda: "stopped" in state(page))


def trained_text(trainer, title):
    """The text of the run whose name starts with `title`, from its tokens."""
    return "".join(find_training_text(trainer.output.parent / "runs" / title))


def test_the_encoding_of_an_upload_is_suggested_and_chosen(page, trainer, tmp_path):
    file = tmp_path / "hotel.txt"
    file.write_bytes((FRENCH * 200).encode("cp1252"))
    assert not page.tab.get_by_label("Encoding", exact=True).is_visible()  # the section is closed
    upload(page, file)
    page.wait_for(lambda: "hotel.txt is not UTF-8: byte 0xe9 at position 6" in note(page))
    assert "it looks like cp1252 ('Le café était fermé" in note(page)
    assert note(page).endswith("choose cp1252 under “Encoding”.")
    press(page, "Preview")
    page.wait_for_message("it looks like cp1252", seconds=60)
    choose(page, "Encoding", "Western European (cp1252) · Le café était fermé, et la mer")
    page.wait_for(lambda: not note(page))
    train(page, trainer, file, "hotel")
    assert "cp1252" in state(page) and trained_text(trainer, "hotel").startswith(FRENCH)
    # Another text is read in the default way again.
    file.write_text(FRENCH)
    upload(page, file)
    encoding = page.tab.get_by_label("Encoding", exact=True)
    page.wait_for(lambda: encoding.input_value() == "Automatic")
    # Any other codec can be typed.
    encoding.fill("latin-99")
    encoding.press("Enter")
    page.wait_for(lambda: "“latin-99” is not an encoding that Python knows" in note(page))
    press(page, "Start training")
    page.wait_for_message("“latin-99” is not an encoding that Python knows")


def test_the_column_of_a_table_is_chosen(page, trainer, tmp_path):
    lines = some_text(12_000).splitlines()
    file = tmp_path / "letters.csv"
    rows = [f"From letter {n};{line};{n}\n" for n, line in enumerate(lines)]
    file.write_text("source;quote;year\n" + "".join(rows))
    upload(page, file)
    page.wait_for(lambda: "Several columns of letters contain text; choose one" in note(page))
    column = page.tab.get_by_label("Text column", exact=True)
    assert column.input_value() == "Automatic"
    assert not page.tab.get_by_label("Between documents", exact=True).count()  # of text files
    choose(page, "Text column", f"quote · '{lines[0][:10]}")
    page.wait_for(lambda: not note(page))
    press(page, "Preview")
    report = page.tab.locator("#train-report")
    page.wait_for(lambda: "Memory" in report.inner_text(), seconds=60)
    for part in (
        f"'quote', chosen with “Text column”; {len(lines):,} rows",
        lines[0],
        "a semicolon between cells, header source, quote, year",
    ):
        assert part in report.inner_text()
    train(page, trainer, file, "letters")
    text = trained_text(trainer, "letters")
    assert text.startswith(lines[0]) and lines[1] in text and "letter" not in text
    # Where only one column has text, it is the automatic choice.
    file.write_text("source;quote;year\n" + "".join(f"{n};{line};{n}\n" for n, line in enumerate(lines)))
    upload(page, file)
    page.wait_for(lambda: column.input_value() == "Automatic: quote")


def test_documents_are_separated_by_what_was_typed(page, tmp_path):
    file = tmp_path / "tales.txt"
    file.write_text("".join(f"{some_text(100, n)}\n%%\n" for n in range(100)))
    upload(page, file)
    page.tab.get_by_role("button", name="How the text is read").click()
    separator = page.tab.get_by_label("Between documents", exact=True)
    separator.fill("\\n%%\\n")
    separator.press("Enter")
    press(page, "Preview")
    report = page.tab.locator("#train-report")
    page.wait_for(lambda: "Memory" in report.inner_text(), seconds=60)
    assert "tales: 90 documents" in report.inner_text() and "\\n%%\\n" in report.inner_text()
    # Of a dataset on the Hub, it is not known what there is to choose.
    page.tab.get_by_label("Or a Hugging Face dataset").fill("owner/name")
    page.tab.get_by_label("Or a Hugging Face dataset").press("Enter")
    page.wait_for(lambda: page.tab.get_by_label("Text column", exact=True).count() == 1)
    page.wait_for(lambda: separator.input_value() == "None: each file is one document")
    assert page.tab.get_by_label("List of rows").count() == 1


def test_the_tab_fits_a_phone(open_page, trainer):
    page = open_page(trainer, size=PHONE, tab_name="Train")
    page.tab.get_by_role("button", name="Start training").wait_for()
    page.tab.get_by_role("button", name="How the text is read").click()
    page.tab.get_by_label("Between documents", exact=True).wait_for()
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
