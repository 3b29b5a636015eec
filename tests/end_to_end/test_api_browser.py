"""The API as a web page of another origin uses it, in a real browser: blocked unless the server allows it."""

import re
from contextlib import contextmanager

import pytest

from tests.conftest import ROOT
from tests.end_to_end.conftest import free_port, serving, until_ready

pytestmark = pytest.mark.browser

KEY = "secret"
# Runs in the page: streams a completion and returns its text, how many pieces arrived, and the last event.
STREAM = """async ([address, key, body]) => {
    const headers = {"Content-Type": "application/json", "Authorization": `Bearer ${key}`};
    const request = {method: "POST", headers, body: JSON.stringify({...body, stream: true})};
    const response = await fetch(`${address}/completions`, request);
    if (!response.ok) return {status: response.status, error: (await response.json()).error};
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let pieces = 0, received = "";
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
        pieces++;
        received += part.value;
    }
    const events = received.trim().split("\\n\\n").map((line) => line.slice("data: ".length));
    const choices = events.slice(0, -1).map((event) => JSON.parse(event).choices[0]);
    return {status: response.status, pieces, last: events.at(-1), text: choices.map((c) => c.text).join("")};
}"""
MODELS = "async (address) => (await (await fetch(`${address}/models`)).json()).data.length"


RECIPE = re.compile(r"^```html\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def page_origin(other_site):
    """The origin of a blank page."""
    return f"http://localhost:{other_site}"


@pytest.fixture
def page(context, page_origin):
    page = context.new_page()
    page.goto(page_origin)
    yield page
    page.close()


@contextmanager
def serving_api(folder, trained_run, *flags):
    with serving(folder, "--api", "--port", free_port(), "--models", trained_run.parent, *flags) as server:
        yield until_ready(server)


def stream(page, server, key=KEY, **body):
    return page.evaluate(STREAM, [server.address, key, {"model": "boat", "max_tokens": 3000, **body}])


@pytest.mark.parametrize("everyone", [False, True])
def test_page_of_an_allowed_origin_streams(tmp_path, trained_run, page, page_origin, everyone):
    allowed = "*" if everyone else page_origin
    with serving_api(
        tmp_path, trained_run, "--api-key", KEY, "--allow-origin", "http://a.test", "--allow-origin", allowed
    ) as server:
        answer = stream(page, server, prompt="The sea", seed=1)
        assert (answer["status"], answer["last"], len(answer["text"])) == (200, "[DONE]", 3000)
        assert answer["pieces"] > 3
        # The page can read errors, too.
        assert "temperature" in stream(page, server, temperature=9)["error"]["message"]
        assert stream(page, server, key="wrong")["error"]["code"] == "invalid_api_key"


def test_recipe_of_the_documentation_runs(tmp_path, trained_run, page, page_origin):
    (recipe,) = RECIPE.findall((ROOT / "docs" / "api.md").read_text())
    with serving_api(tmp_path, trained_run, "--allow-origin", page_origin) as server:
        page.set_content(recipe.replace("http://127.0.0.1:8000/v1", server.address))
        page.wait_for_function("document.querySelector('pre').textContent.length >= 60", timeout=30_000)
        assert len(page.locator("pre").text_content()) == 60


@pytest.mark.parametrize("flags", [(), ("--allow-origin", "http://localhost:1")])
def test_page_of_another_origin_is_blocked(tmp_path, trained_run, page, flags):
    from playwright.sync_api import Error

    with serving_api(tmp_path, trained_run, *flags) as server:
        for attempt in (lambda: stream(page, server), lambda: page.evaluate(MODELS, server.address)):
            with pytest.raises(Error, match="Failed to fetch"):
                attempt()
        assert not server.ended()  # the browser did not even send the request
        page.goto(server.address.removesuffix("v1") + "health")  # now a page of the same origin
        assert page.evaluate(MODELS, server.address) > 0
        assert stream(page, server, max_tokens=5)["last"] == "[DONE]"
