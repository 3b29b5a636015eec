"""Messages in a browser whose language is Chinese: what Gradio has in English only is Chinese as well."""

import re

import pytest

from app.jobs.uploads import MAX_SIZE
from tests.end_to_end.conftest import free_port, serving, until_ready

pytestmark = pytest.mark.browser
ENGLISH = re.compile(r"[A-Za-z]{3,}")


@pytest.fixture
def page(open_page, tmp_path, trained_run):
    with serving(tmp_path, "--models", trained_run.parent, "--port", free_port()) as server:
        yield open_page(until_ready(server), locale="zh-CN")


def shown(page):
    """The messages that have appeared; they are closed."""
    page.wait_for(lambda: page.messages() and not ENGLISH.search(page.messages()))
    message = page.messages()
    for button in reversed(page.tab.get_by_role("button", name="关闭", exact=True).all()):
        button.click()
    page.wait_for(lambda: not page.messages())
    return message


def test_no_message_is_in_english(page, tmp_path):
    page.tab.get_by_label("长度", exact=True).fill("0")
    page.generate.click()
    assert "错误" in shown(page)
    page.go_to("训练")
    large = tmp_path / "large.txt"
    with open(large, "wb") as file:
        file.truncate(MAX_SIZE + 1)
    page.tab.locator("#train input[type=file]").set_input_files(large)
    assert "文件过大：最大为 200.0 MB。" in shown(page)
    page.tab.route("**/queue/join*", lambda route: route.fulfill(status=503, json={"detail": "busy"}))
    page.tab.locator("#train-look").click()
    assert "服务器繁忙" in shown(page)
    page.troubles.clear()  # the failed request
