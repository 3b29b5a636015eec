"""The Train tab: real jobs, started and watched in a real browser."""

import base64
import os
import re
import shutil
import signal

import pytest

from tests.end_to_end.conftest import free_port, serving, until_ready
from tests.end_to_end.page import PHONE


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


def fill_in(page, text_file, time, title=""):
    with page.tab.expect_file_chooser() as chooser:
        page.tab.get_by_role("button", name="Upload a text").click()
    chooser.value.set_files(text_file)
    page.wait_for(lambda: text_file.name in page.tab.get_by_label("Training text", exact=True).input_value())
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
    assert page.tab.get_by_label("Latest sample").input_value()
    curves = steps_of_the_curves(page)
    assert len(curves) >= 2 and all(steps == sorted(steps) for steps in curves)
    press(page, "Write with this model")
    page.wait_for(lambda: page.tab.get_by_label("Model", exact=True).input_value().startswith("my-boat-lstm"))
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
    page.wait_for(lambda: page.tab.get_by_label("Model", exact=True).input_value().startswith("first-lstm"))


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
    page.tab.get_by_label("Or a dataset on the Hugging Face Hub").fill("../../etc/passwd")
    press(page, "Start training")
    page.wait_for_message("is not the id of a dataset")
    page.tab.get_by_label("Or a dataset on the Hugging Face Hub").fill("")
    page.tab.get_by_label("Training time", exact=True).fill("3 years")
    page.tab.get_by_label("Training time", exact=True).press("Enter")
    press(page, "Start training")
    page.wait_for_message("is not a duration")


def test_a_public_page_has_no_train_tab(tmp_path):
    from app.page import build
    from app.registry import ModelRegistry

    shared = build(ModelRegistry([tmp_path]))
    labels = [getattr(block, "id", None) for block in shared.blocks.values() if type(block).__name__ == "Tab"]
    assert "train" not in labels and "write" in labels


def test_the_tab_fits_a_phone(open_page, trainer):
    page = open_page(trainer, size=PHONE, tab_name="Train")
    page.tab.get_by_role("button", name="Start training").wait_for()
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
