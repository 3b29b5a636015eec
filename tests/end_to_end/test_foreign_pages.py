"""Web pages of other sites, and DNS rebinding: no route of either server serves them, not even a browser."""

import json
import re
import shutil
from contextlib import closing
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

from app.api.request import Limits
from app.api.server import Api
from app.registry import ModelRegistry
from tests.end_to_end.conftest import free_port, serving, until_ready

pytestmark = pytest.mark.browser

EVIL = "evil.localhost"  # which browsers resolve to this computer, as they do a rebound name
# Runs in a page of another site: everything that such a page can try. Returns what it could read or run.
ATTACK = """async (server) => {
    const got = [], attempts = [], quick = {signal: AbortSignal.timeout(8000)};
    const record = (name) => (value) => value === undefined || got.push([name, String(value).slice(0, 200)]);
    const attempt = (name, promise) => attempts.push(promise.then(record(name), () => undefined));
    const event = JSON.stringify({data: [], fn_index: 0, session_hash: "evil", trigger_id: null});
    const completion = JSON.stringify({model: "boat", prompt: "a", max_tokens: 3});
    const call = JSON.stringify({jsonrpc: "2.0", id: 1, method: "tools/list"});
    const file = () => {
        const form = new FormData();
        form.append("files", new File(["stolen disk space"], "evil.txt"));
        return form;
    };
    const posts = [
        ["/gradio_api/queue/join", event], ["/gradio_api/call/list_models", '{"data": []}'],
        ["/gradio_api/mcp/", call], ["/v1/completions", completion], ["/gradio_api/upload", file()],
        ["/login", new URLSearchParams({username: "a", password: "b"})],
    ];
    for (const [path, body] of posts) {
        for (const type of ["application/json", "text/plain", null]) {
            const headers = type && typeof body === "string" ? {"Content-Type": type} : {};
            const request = {...quick, method: "POST", body, headers};
            attempt(`fetch ${path}`, fetch(server + path, request).then((answer) => answer.text()));
            attempt(`no-cors ${path}`, fetch(server + path, {...request, mode: "no-cors"})
                .then((answer) => answer.text()).then((text) => text || undefined));
        }
        const sent = new Promise((done) => {
            const request = new XMLHttpRequest();
            request.onloadend = () => done(request.responseText || undefined);
            request.open("POST", server + path);
            request.send(body);
        });
        attempt(`xhr ${path}`, sent);
        navigator.sendBeacon(server + path, body);
    }
    for (const path of ["/", "/config", "/gradio_api/info", "/v1/models", "/health", "/theme.css"]) {
        attempt(`fetch ${path}`, fetch(server + path, quick).then((answer) => answer.text()));
        attempt(`with credentials ${path}`,
            fetch(server + path, {...quick, credentials: "include"}).then((answer) => answer.text()));
    }
    for (const path of ["/gradio_api/queue/data?session_hash=evil", "/gradio_api/heartbeat/evil",
            "/gradio_api/mcp/sse", "/v1/completions"]) {
        attempt(`events ${path}`, new Promise((done) => {
            const source = new EventSource(server + path);
            source.onopen = () => done("open");
            source.onmessage = (message) => done(message.data);
            source.onerror = () => { source.close(); done(undefined); };
        }));
    }
    const load = (tag, attribute, path) => new Promise((done) => {
        const element = document.createElement(tag);
        element.onload = () => done("loaded");
        element.onerror = () => done(undefined);
        element[attribute] = server + path;
        if (tag === "link") element.rel = "stylesheet";
        document.body.append(element);
    });
    attempt("style", load("link", "href", "/theme.css"));
    attempt("script", load("script", "src", "/static/js/iframeResizer.contentWindow.min.js"));
    attempt("image", load("img", "src", "/static/img/logo.svg"));
    // Forms send their answer to a frame, which this page cannot read.
    for (const [path, type] of [["/gradio_api/upload", "multipart/form-data"], ["/login", ""],
            ["/gradio_api/queue/join", "text/plain"], ["/v1/completions", "text/plain"]]) {
        const form = Object.assign(document.createElement("form"), {
            method: "POST", action: server + path, enctype: type, target: "frame",
        });
        const input = Object.assign(document.createElement("input"), {type: "file", name: "files"});
        const chosen = new DataTransfer();
        chosen.items.add(new File(["stolen disk space"], "evil.txt"));
        input.files = chosen.files;
        form.append(input);
        const frame = Object.assign(document.createElement("iframe"), {name: "frame"});
        document.body.append(frame, form);
        form.submit();
        await new Promise((done) => setTimeout(done, 300));
        frame.remove();
        form.remove();
    }
    await Promise.all(attempts);
    return got;
}"""


@pytest.fixture(scope="module")
def served(tmp_path_factory, trained_run):
    """The page, with MCP, and the API."""
    page, api = tmp_path_factory.mktemp("page"), tmp_path_factory.mktemp("api")
    shutil.copytree(trained_run, page / "runs" / "boat")
    shutil.copytree(trained_run, api / "runs" / "boat")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(page / "temporary"))
        with (
            serving(page, "--port", free_port(), "--mcp") as first,
            serving(api, "--api", "--port", free_port()) as second,
        ):
            yield {"page": until_ready(first, "The page"), "api": until_ready(second)}


@pytest.fixture(scope="module")
def evil_origin(other_site):
    """The origin of a page of another site."""
    return f"http://{EVIL}:{other_site}"


@pytest.fixture
def evil_page(context, evil_origin):
    page = context.new_page()
    page.goto(evil_origin)
    yield page
    page.close()


def routes(kind, folder):
    """(method, path) of each route of a server."""
    if kind == "api":
        app = Api(ModelRegistry([folder]), Limits()).app()
    else:
        from gradio.routes import App

        from app.page import build

        app = App.create_app(build(ModelRegistry([folder])), mcp_server=True)
    found = {("OPTIONS", "/"), ("POST", "/gradio_api/mcp/"), ("GET", "/nothing")}
    groups = (getattr(route, "original_router", None) for route in app.routes)
    included = [route for group in groups if group for route in group.routes]
    for route in filter(lambda route: hasattr(route, "path"), [*app.routes, *included]):
        path = re.sub(r"\{[^}]*\}", "x", route.path)
        found |= {(method, path) for method in getattr(route, "methods", None) or {"GET", "POST"}}
    return sorted(found)


@pytest.mark.parametrize("kind", ["page", "api"])
def test_no_route_serves_other_names_or_pages(served, kind, tmp_path):
    netloc = urlsplit(served[kind].address).netloc
    port = netloc.rpartition(":")[2]
    tested = routes(kind, tmp_path)
    assert len(tested) > (60 if kind == "page" else 8)
    for method, path in tested:
        for headers in (
            {"Host": f"evil.example:{port}", "Origin": f"http://evil.example:{port}"},  # rebinding
            {"Host": f"evil.example:{port}"},
            {"Host": netloc, "Origin": "http://evil.example"},
            {"Host": netloc, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        ):
            with closing(HTTPConnection(netloc, timeout=10)) as connection:
                connection.request(method, path, body="{}" if method == "POST" else None, headers=headers)
                response = connection.getresponse()
                body = response.read().decode()
            assert response.status == 403, (method, path, headers)
            assert "Access-Control-Allow-Origin" not in response.headers
            if method != "HEAD":
                answer = json.loads(body)
                message = answer["error"]["message"] if kind == "api" else answer["detail"]
                assert message and "\n" not in message


@pytest.mark.parametrize("kind", ["page", "api"])
def test_page_of_another_site_gets_nothing(served, kind, evil_page):
    server = served[kind]
    address = f"http://{urlsplit(server.address).netloc}"
    assert evil_page.evaluate(ATTACK, address) == []
    assert not server.ended()
    assert "rejected: POST" in server.log.read_text()
    temporary = server.log.parent / "temporary"
    assert not [path for path in temporary.rglob("*") if path.is_file()]


@pytest.mark.parametrize("kind", ["page", "api"])
def test_rebound_name_gets_nothing(served, kind, context):
    port = urlsplit(served[kind].address).port
    page = context.new_page()
    response = page.goto(f"http://{EVIL}:{port}/config")
    assert response.status == 403
    # The page is now of the same origin as the server, as far as the browser knows.
    models = "/v1/models" if kind == "api" else "/gradio_api/info"
    texts = page.evaluate(
        """async ([get, post]) => {
            const answers = [await fetch(get), await fetch(post, {method: "POST", body: "{}"})];
            return Promise.all(answers.map(async (answer) => [answer.status, await answer.text()]));
        }""",
        [models, "/v1/completions" if kind == "api" else "/gradio_api/queue/join"],
    )
    assert [status for status, _ in texts] == [403, 403] and not any("boat" in text for _, text in texts)
    page.close()


def test_page_of_another_site_may_link_to_the_page_but_not_frame_it(served, evil_page):
    address = served["page"].address
    evil_page.evaluate("(url) => document.body.innerHTML = `<iframe src=${url}></iframe>`", address)
    evil_page.wait_for_timeout(1000)
    frame = evil_page.frames[1]
    assert frame.locator("#generate").count() == 0
    evil_page.evaluate("(url) => document.body.innerHTML = `<a href=${url}>open</a>`", address)
    evil_page.click("a")
    evil_page.locator("#generate:enabled").wait_for()
