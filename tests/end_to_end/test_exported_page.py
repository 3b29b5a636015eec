"""Pages that `lm export` writes, as users see them: in a real browser without a network."""

import re
import time

import pytest
import torch
from axe_playwright_python.sync_playwright import Axe

import lm
from lm.config.schema import ModelConfig
from lm.export import export
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.vocabulary import train_tokenizer
from tests.conftest import script
from tests.end_to_end.exported import model_in
from tests.end_to_end.page import DESKTOP, PHONE

pytestmark = pytest.mark.browser

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
_WRITE_AND_STOP = """async () => {
    document.querySelector("#write").click();
    while (document.querySelector("#text").textContent.length < 200) await new Promise(requestAnimationFrame);
    document.querySelector("#stop").click();
}"""


class Page:
    """An exported page as a user sees it."""

    def __init__(self, tab):
        self.tab = tab

    @property
    def text(self):
        return self.tab.locator("#text").text_content()

    def button(self, name):
        return self.tab.get_by_role("button", name=name, exact=True)

    def set(self, **fields):
        for name, value in fields.items():
            self.tab.get_by_label(name, exact=True).fill(str(value))

    def write(self, button="Write"):
        self.button(button).click()
        return self.at_rest()

    def at_rest(self):
        self.wait_for(lambda: self.status.startswith(("Done", "Stopped")))
        return self.text

    @property
    def status(self):
        return self.tab.locator("#status").text_content()

    def wait_for(self, condition):
        # Not by Playwright, which would evaluate a string in the page: its policy forbids that.
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, self.status
            self.tab.wait_for_timeout(20)


@pytest.fixture
def open_file(offline):
    """Opens exported files; nothing may be requested, run or reported that is not in the file."""
    tabs, troubles = [], []

    def open_file(path, size=DESKTOP):
        tab = offline.new_page()
        tabs.append(tab)
        tab.set_viewport_size(size)
        tab.set_default_timeout(30_000)
        tab.on("pageerror", lambda error: troubles.append(str(error)))
        tab.on("console", lambda message: troubles.append(message.text))
        tab.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.dismiss()))
        own = (path.as_uri(), "blob:null/")
        tab.on("request", lambda request: request.url.startswith(own) or troubles.append(request.url))
        tab.goto(path.as_uri())
        page = Page(tab)
        page.button("Write").and_(tab.locator(":enabled")).wait_for()
        return page

    yield open_file
    for tab in tabs:
        tab.close()
    assert not troubles


@pytest.fixture(scope="module")
def boat(tmp_path_factory, trained_run):
    """The page of a small trained model, written by the command."""
    folder = tmp_path_factory.mktemp("pages")
    result = script("-m lm", "export", trained_run, "boat.html", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert re.fullmatch(r"boat\.html: \d+ KB\n", result.stdout)
    return folder / "boat.html"


@pytest.fixture
def page(open_file, boat):
    return open_file(boat)


def test_a_page_writes_the_text_of_the_model_and_says_what_it_is(page, trained_run):
    model = lm.load(trained_run, device="cpu")
    assert page.tab.title() == "boat"
    page.set(Temperature=0, Length=200)
    page.tab.get_by_label("Begin with").fill("The sea ")
    (expected,) = model.generate("The sea ", greedy=True, max_new_tokens=200)
    assert page.write() == "The sea " + expected.text
    facts = page.tab.locator("footer").inner_text()
    assert "LSTM, 1 × 32 units" in facts and "boat.txt" in facts and "Bits per character" in facts
    assert str(trained_run.parent) not in page.tab.content()


def test_stop_continue_and_copy(page):
    page.set(Length=20_000, Seed=3)
    page.tab.get_by_label("Begin with").fill("The sea ")
    page.tab.evaluate(_WRITE_AND_STOP)
    first = page.at_rest()
    assert first.startswith("The sea ")
    assert 200 <= len(first) < 20_000 and page.status.startswith("Stopped")
    page.set(Length=100)
    second = page.write("Continue")
    assert second.startswith(first) and len(second) == len(first) + 100
    page.tab.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    page.button("Copy").click()
    page.button("Copied").wait_for()
    assert page.tab.evaluate("copied") == second


def test_pointing_at_a_token_shows_alternatives_and_choosing_one_continues_from_it(page, boat, trained_run):
    model = model_in(boat.read_text(), lm.load(trained_run, device="cpu"))
    page.set(Length=60, Seed=3)
    text = page.write()
    tokens = page.tab.locator("#text i")
    tokens.nth(4).hover()
    session = model.session()
    session.feed(text[:4])
    expected = [(name.replace(" ", "␣"), 100 * p) for name, _, p in session.next(8) if p >= 0.001]
    options = page.tab.locator("#options button")
    shown = [option.split() for option in options.all_inner_texts()]
    assert [name for name, _ in shown] == [name for name, _ in expected]
    percents = [float(percent.removesuffix("%")) for _, percent in shown]
    assert percents == pytest.approx([percent for _, percent in expected], abs=0.06)
    tokens.nth(4).click()
    other = next(option for option in options.all() if "chosen" not in (option.get_attribute("class") or ""))
    label = other.locator("code").inner_text().replace("␣", " ").replace("↵", "\n")
    other.click()
    changed = page.at_rest()
    assert changed[:5] == text[:4] + label and len(changed) == 60
    assert not page.tab.locator("#panel").is_visible()


def test_a_text_is_kept_as_long_as_the_length_is_missing(page):
    page.set(Length=60, Seed=3)
    text = page.write()
    page.set(Length="")
    page.button("Continue").click()
    tokens = page.tab.locator("#text i")
    tokens.nth(4).click()
    page.tab.locator("#options button:not(.chosen)").first.click()
    assert page.tab.evaluate("document.activeElement.id") == "length"
    page.set(Length=10)
    continued = page.write("Continue")
    assert continued[:60] == text and len(continued) == 70


def test_alternatives_by_keyboard(page):
    page.set(Length=60, Seed=3)
    text = page.write()
    page.tab.locator("#text").focus()
    for _ in range(3):
        page.tab.keyboard.press("ArrowRight")
    assert page.tab.locator("#text .current").text_content() == text[2]
    page.tab.keyboard.press("Enter")
    page.tab.keyboard.press("Tab")
    label = page.tab.evaluate("document.activeElement.querySelector('code').textContent")
    page.tab.keyboard.press("Enter")
    assert page.at_rest()[:3] == text[:2] + label.replace("␣", " ").replace("↵", "\n")


def test_alternatives_on_a_phone(open_file, boat):
    page = open_file(boat, PHONE)
    page.tab.emulate_media(reduced_motion="reduce")
    page.set(Length=600, Seed=3)
    page.write()
    token = page.tab.locator("#text i", has_text=re.compile("[a-z]")).nth(250)
    to_the_bottom = (
        "e => scrollBy({ top: e.getBoundingClientRect().bottom - innerHeight, behavior: 'instant' })"
    )
    token.evaluate(to_the_bottom)
    box = token.bounding_box()
    assert box["y"] > PHONE["height"] - 50
    page.tab.mouse.click(box["x"] + 1, box["y"] + 5)  # a click on the element would scroll
    panel = page.tab.locator("#panel").bounding_box()
    assert panel["y"] + panel["height"] <= PHONE["height"]

    def bottom():
        box = page.tab.locator("#text .current").bounding_box()
        return box["y"] + box["height"]

    page.wait_for(lambda: bottom() <= panel["y"])
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_have_no_accessibility_violations(page, scheme):
    page.tab.emulate_media(color_scheme=scheme)
    page.set(Length=80, Seed=3)
    page.write()
    page.tab.get_by_label("Show surprise").check()
    page.tab.locator("#text i").nth(9).click()
    results = Axe().run(page.tab)
    assert not results.violations_count, results.generate_report()


def test_characters_that_the_model_does_not_know_are_named(page):
    page.tab.get_by_label("Begin with").fill("日本 <b>")
    note = page.tab.locator("#unknown")
    page.wait_for(lambda: note.text_content())
    assert re.findall("“(.)”", note.inner_text()) == ["日", "本", "<", ">"]


def test_a_backward_page_writes_to_the_left_of_the_prompt(open_file, tmp_path, backward_run):
    model = lm.load(backward_run, device="cpu")
    export(model, tmp_path / "taob.html")
    page = open_file(tmp_path / "taob.html")
    page.set(Temperature=0, Length=150)
    page.tab.get_by_label("End with").fill(" light.")
    (expected,) = model.generate(" light.", greedy=True, max_new_tokens=150)
    assert page.write() == expected.text + " light."


def test_names_facts_and_tokens_are_text_and_never_run(open_file, tmp_path):
    torch.manual_seed(0)
    words = HOSTILE.replace("img src", "img/src")
    tokenizer = train_tokenizer("word", [f"{words} {{{{name}}}} <!-- <script> "])
    network = RecurrentLM(ModelConfig(hidden_size=8, embedding_size=8, layers=1), tokenizer.vocab_size)
    facts = {
        "trained_on": {"dataset": HOSTILE, "characters": HOSTILE},
        "validation": {"bits_per_character": HOSTILE},
    }
    path = tmp_path / "<img src=x onerror=alert(3)>.html"
    model = LanguageModel(network, tokenizer, facts)
    model.name = HOSTILE.replace("</", "<\\") + "&amp;{{weights}}"
    export(model, path)
    page = open_file(path)
    assert page.tab.title() == model.name == page.tab.locator("h1").inner_text()
    assert HOSTILE in page.tab.locator("footer").inner_text()
    page.tab.get_by_label("Begin with").fill(HOSTILE)
    page.set(Length=300, Temperature=1.5)
    assert words.split()[0] in page.write()
    page.tab.locator("#text i").nth(20).click()
    assert page.tab.locator("img, #text script, #panel script").count() == 0


def test_the_policy_of_a_page_forbids_other_scripts_and_the_network(boat, offline):
    tab = offline.new_page()
    tab.goto(boat.as_uri())
    blocked = tab.evaluate(
        """async () => {
            const blocked = [];
            const note = (event) => blocked.push(event.effectiveDirective);
            document.addEventListener("securitypolicyviolation", note);
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
            await fetch("http://127.0.0.1:9/").catch(() => {});
            new Image().src = "http://127.0.0.1:9/";
            await new Promise((done) => setTimeout(done, 100));
            return [window.ran ?? false, ...blocked];
        }"""
    )
    tab.close()
    assert blocked == [False, "script-src-elem", "connect-src", "img-src"]
