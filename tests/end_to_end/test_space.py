"""space/: a Space of the Hub, as the Hub runs it and shows it in a frame of its own page."""

import functools
import os
import shutil
import threading
import tomllib
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub import SpaceCard
from packaging.requirements import Requirement
from packaging.version import Version

from tests.conftest import ROOT
from tests.end_to_end.conftest import PAGE, Server, free_port, until_ready
from tests.processes import Fork

NAME = "me-demo.localhost"


@pytest.fixture
def sites(tmp_path):
    """The address of a web server for pages of any site below localhost, with the page frame.html."""
    (tmp_path / "web").mkdir()
    handler = functools.partial(SimpleHTTPRequestHandler, directory=tmp_path / "web")
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def space(tmp_path, trained_run, sites):
    """The Space, serving a model, as an installation of the package would; hub.localhost is the Hub."""
    code = (ROOT / "space" / "app.py").read_text("utf-8")
    assert "https://huggingface.co" in code
    code = code.replace("https://huggingface.co", f"http://hub.localhost:{sites}")
    (tmp_path / "app.py").write_text(code, "utf-8")
    (tmp_path / "lm_studio").symlink_to(ROOT / "app")
    (tmp_path / "lm").symlink_to(ROOT / "lm")
    shutil.copytree(trained_run, tmp_path / "hub" / "boat")
    environment = {
        **os.environ,
        "PYTHONPATH": str(tmp_path),
        "MODELS": str(tmp_path / "hub" / "boat"),
        "GRADIO_SERVER_PORT": str(free_port()),
        "SYSTEM": "spaces",
        "SPACE_ID": "me/demo",
        "SPACE_HOST": NAME,
    }
    output, log = tmp_path / "out", tmp_path / "log"
    with output.open("wb") as out, log.open("wb") as err:
        process = Fork([tmp_path / "app.py"], tmp_path, environment, stdout=out, stderr=err, libraries=PAGE)
    yield until_ready(Server(process, output, log))
    process.terminate()
    process.wait(timeout=10)


@pytest.mark.browser
def test_the_hub_shows_the_space_in_a_frame_and_others_cannot(space, sites, context, tmp_path):
    port = space.address.rstrip("/").rpartition(":")[2]
    frame = f'<iframe src="http://{NAME}:{port}/" width="1000" height="700"></iframe>'
    (tmp_path / "web" / "frame.html").write_text(frame, "utf-8")
    page = context.new_page()
    page.goto(f"http://hub.localhost:{sites}/frame.html")
    shown = page.frame_locator("iframe")
    shown.locator("#generate:enabled").click()
    shown.locator("#status").get_by_text("tokens/s").wait_for()
    assert shown.get_by_role("tab").all_text_contents() == ["Write", "Look inside", "Compare", "Models"]
    assert shown.get_by_label("Model", exact=True).input_value().startswith("boat · LSTM")
    page.goto(f"http://elsewhere.localhost:{sites}/frame.html")
    page.wait_for_timeout(500)
    assert page.frames[1].locator("#generate").count() == 0
    page.close()
    assert "Traceback" not in space.log.read_text("utf-8")


def test_its_metadata_is_what_the_hub_expects():
    folder = ROOT / "space"
    card = SpaceCard.load(folder / "README.md").data
    assert (card.sdk, card.app_file) == ("gradio", "app.py") and (folder / card.app_file).is_file()
    assert card.short_description and len(card.short_description) <= 60
    assert card.license == "mit" and isinstance(card.python_version, str)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    (gradio,) = (Requirement(line) for line in extras["studio"] if line.startswith("gradio"))
    assert Version(card.sdk_version) in gradio.specifier
    (required,) = (folder / "requirements.txt").read_text("utf-8").split()
    assert required == "recurrent-lm[studio]"
