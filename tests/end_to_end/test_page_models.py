"""The Models tab as a person meets it: looking through models, renaming, deleting and downloading them."""

import json
import os
import shutil
import time
import zipfile

import pytest

import lm
from tests.end_to_end.conftest import free_port, serving, until_ready
from tests.end_to_end.page import DESKTOP, PHONE

CARD = "# boat\n\n<script>alert(1)</script> ![x](http://elsewhere.example/track.png) **bold**\n"


@pytest.fixture(scope="module")
def put_models(tmp_path_factory, trained_run, backward_run):
    """Puts the models of the page there anew: each of an age, a hostile one among them."""
    runs = tmp_path_factory.mktemp("models") / "runs"

    def put_models():
        shutil.rmtree(runs, ignore_errors=True)
        for age, name in enumerate(("boat", "taob", "ship")):
            folder = shutil.copytree(backward_run if name == "taob" else trained_run, runs / name)
            os.utime(folder / "model.safetensors", (1.7e9 - age,) * 2)
        config = json.loads((folder / "config.json").read_text())
        config["parameters"], config["trained_on"]["dataset"] = 9, "<img src=x onerror=alert(1)>"
        (folder / "config.json").write_text(json.dumps(config))
        (runs / "boat" / "README.md").write_text(CARD)
        return runs

    return put_models


@pytest.fixture(scope="module")
def server(put_models, browser):
    with serving(put_models().parent, "--models", "runs", "--port", free_port()) as server:
        yield until_ready(server)


@pytest.fixture
def runs(server, put_models):
    return put_models()


class Shelf:
    """What a person sees of the tab, and does on it."""

    def __init__(self, page):
        self.page, self.tab, self.wait_for = page, page.tab, page.wait_for
        self.wait_for(lambda: "Cell" in self.facts)

    @property
    def facts(self):
        return self.tab.locator("#models-facts").inner_text()

    @property
    def chosen(self):
        return self.tab.get_by_label("Chosen model").input_value()

    def names(self):
        return self.tab.locator("#models-table .virtual-row [role=gridcell]:first-child").all_inner_texts()

    def choose(self, name):
        self.tab.get_by_label("Chosen model").click()
        self.tab.get_by_role("option", name=name, exact=True).click()
        self.wait_for(
            lambda: self.tab.locator("#models-name textarea, #models-name input").input_value() == name
        )

    def press(self, name):
        self.tab.get_by_role("button", name=name, exact=True).click()

    def message(self, part):
        self.page.wait_for_message(part)

    def rename(self, name):
        self.tab.get_by_label("New name").fill(name)
        self.press("Rename")


@pytest.fixture
def shelf(server, runs, open_page):
    return Shelf(open_page(server, tab_name="Models"))


def models_in(runs):
    return sorted(path.name for path in runs.iterdir() if path.name != ".jobs")


def head(shelf):
    return shelf.tab.get_by_label("Model", exact=True).first.input_value()


def test_all_models_are_in_a_table_that_can_be_searched_and_sorted(shelf):
    shelf.wait_for(lambda: shelf.names() == ["boat", "taob", "ship", "shipped with lm"])
    table = shelf.tab.locator("#models-table").inner_text()
    for part in ("LSTM", "1 × 32", "boat.txt", "char, ", "2023-11-14", "<img src=x onerror=alert(1)>"):
        assert part in table
    find = shelf.tab.get_by_label("Find")
    find.fill("LSTM taob")
    shelf.wait_for(lambda: shelf.names() == ["taob"])
    find.fill("1×32")
    shelf.wait_for(lambda: shelf.names() == ["boat", "taob", "ship"])
    find.fill("nothing of the kind")
    shelf.wait_for(lambda: shelf.names() == [])
    find.fill("")
    shelf.wait_for(lambda: len(shelf.names()) == 4)
    # By numbers, not by how they are written: 9 is the smallest.
    parameters = shelf.tab.locator("#models-table .header-table th", has_text="Parameters")
    parameters.hover()
    parameters.get_by_role("button").click()
    shelf.tab.get_by_role("menuitem", name="Sort ascending").click()
    shelf.wait_for(lambda: shelf.names() == ["ship", "boat", "taob", "shipped with lm"])
    shelf.tab.locator("#models-table [role=gridcell]", has_text="ship").first.click()
    shelf.wait_for(lambda: shelf.chosen == "ship")


@pytest.mark.slow
def test_facts_curve_and_card_of_the_chosen_model_are_shown_and_its_card_runs_nothing(shelf, trained_run):
    assert shelf.chosen == "boat"
    config = json.loads((trained_run / "config.json").read_text())
    for part in ("LSTM, 1 × 32 units", f"{config['parameters']:,}", "boat.txt"):
        assert part in shelf.facts
    assert shelf.tab.locator("#models-facts .curve").evaluate("e => e.complete && e.naturalWidth > 0")
    card = shelf.tab.locator("#models-card")
    assert "<script>alert(1)</script>" in card.inner_text()
    assert card.locator("strong").inner_text() == "bold" and card.locator("script, img").count() == 0
    shelf.tab.locator("#models-table [role=gridcell]", has_text="taob").first.click()
    shelf.wait_for(lambda: "right to left" in shelf.facts and shelf.chosen == "taob")
    shelf.choose("ship")
    shelf.wait_for(lambda: "<img src=x onerror=alert(1)>" in shelf.facts)


def test_a_model_is_renamed_and_the_head_of_the_page_follows(shelf, runs):
    assert head(shelf) == "boat"
    shelf.rename("canoe")
    shelf.message("It is called “canoe” now.")
    shelf.wait_for(lambda: shelf.chosen == "canoe" and "canoe" in shelf.names())
    shelf.wait_for(lambda: head(shelf) == "canoe")
    assert (runs / "canoe" / "training" / "checkpoint").is_dir() and not (runs / "boat").exists()
    shelf.choose("taob")
    shelf.tab.get_by_label("New name").fill("reversed")
    shelf.tab.get_by_label("New name").press("Enter")
    shelf.wait_for(lambda: "reversed" in shelf.names())
    assert head(shelf) == "canoe"


@pytest.mark.parametrize(
    "name",
    [
        "../out",
        "taob",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("/tmp/out", " ", ".x", "<b>x</b>")),
    ],
)
def test_a_name_that_cannot_be_is_one_message(shelf, runs, name):
    shelf.rename(name)
    shelf.wait_for(lambda: shelf.page.messages())
    assert not shelf.tab.locator(".toast-body b").count()
    assert models_in(runs) == ["boat", "ship", "taob"]


def test_deleting_asks_first_and_can_be_taken_back(shelf, runs):
    shelf.press("Delete …")
    sure = shelf.tab.locator("#models-question")
    shelf.wait_for(lambda: "Delete “boat”?" in sure.inner_text())
    shelf.press("Keep it")
    shelf.wait_for(lambda: not sure.is_visible())
    shelf.press("Delete …")
    shelf.wait_for(sure.is_visible)
    shelf.choose("ship")  # a question about one model is not answered for another
    shelf.wait_for(lambda: not sure.is_visible())
    assert (runs / "boat").is_dir()
    shelf.press("Delete …")
    shelf.press("Delete it for good")
    shelf.message("“ship” is deleted.")
    shelf.wait_for(lambda: shelf.names() == ["boat", "taob", "shipped with lm"] and shelf.chosen == "boat")
    assert models_in(runs) == ["boat", "taob"]
    shelf.tab.get_by_role("tab", name="Write").click()
    shelf.tab.get_by_label("Model", exact=True).first.click()
    options = shelf.tab.get_by_role("option").all()
    assert [o.get_attribute("aria-label") for o in options] == ["boat", "taob", "shipped with lm"]


@pytest.mark.slow
def test_two_people_who_delete_one_model_and_one_who_writes_with_it(server, open_page, shelf, runs):
    other, writer = Shelf(open_page(server, tab_name="Models")), open_page(server)
    writer.start_writing_for_long()
    for one in (shelf, other):
        one.press("Delete …")
        one.wait_for(one.tab.locator("#models-really").is_visible)
    shelf.press("Delete it for good")
    shelf.message("is deleted")
    # Meanwhile another model gets the name of the one that the other person sees.
    (runs / "taob").rename(runs / "boat")
    other.press("Delete it for good")
    other.message("'boat' has changed in the meantime")
    assert (runs / "boat").is_dir()
    length = len(writer.text)
    writer.wait_for(lambda: len(writer.text) > length + 100)
    writer.stop.click()
    writer.at_rest()


@pytest.mark.slow
def test_a_run_that_is_going_on_is_neither_renamed_nor_deleted(shelf, runs):
    progress = runs / "boat/training/checkpoint/progress.json"
    progress.write_text(json.dumps(json.loads(progress.read_text()) | {"finished": False}))
    os.utime(runs / "boat/training/metrics.jsonl", (time.time(),) * 2)
    shelf.press("Delete …")
    shelf.press("Delete it for good")
    shelf.message("'boat' is being trained")
    shelf.rename("canoe")
    shelf.wait_for(lambda: shelf.page.messages().count("being trained") > 1)
    assert (runs / "boat").is_dir()


@pytest.mark.slow
def test_the_shipped_model_can_be_looked_at_but_not_changed(shelf):
    shelf.tab.get_by_label("Chosen model").click()
    shelf.tab.get_by_role("option", name="shipped with lm").click()
    shelf.wait_for(lambda: "python" in shelf.facts)
    for name in ("Rename", "Delete …"):
        assert not shelf.tab.get_by_role("button", name=name, exact=True).is_enabled()
    assert shelf.tab.get_by_role("button", name="Download", exact=True).is_enabled()


def test_a_model_is_downloaded_as_a_zip_that_works(shelf, runs, tmp_path):
    for name in ("boat", "taob"):
        shelf.choose(name)
        with shelf.tab.expect_download() as download:
            shelf.press("Download")
        assert download.value.suggested_filename == f"{name}.zip"
        with zipfile.ZipFile(download.value.path()) as packed:
            packed.extractall(tmp_path / "out")
        assert sorted(p.name for p in (tmp_path / "out" / name).iterdir()) == [
            "README.md", "config.json", "model.safetensors", "tokenizer.json",
        ]  # fmt: skip
        written = [
            lm.load(f / name, device="cpu").generate("The ", seed=1)[0].text for f in (runs, tmp_path / "out")
        ]
        assert written[0] == written[1]


@pytest.mark.parametrize(
    ("size", "theme"),
    [
        pytest.param(DESKTOP, "light", marks=pytest.mark.slow),
        pytest.param(DESKTOP, "dark", marks=pytest.mark.slow),
        pytest.param(PHONE, "light", marks=pytest.mark.slow),
        (PHONE, "dark"),
    ],
    ids=["desktop, light", "desktop, dark", "phone, light", "phone, dark"],
)
def test_nothing_is_wider_than_the_screen(server, open_page, runs, size, theme):
    (runs / "boat" / "README.md").write_text("# boat\n\n    " + "x" * 300 + "\n\n" + "y" * 300)
    shelf = Shelf(open_page(server, f"?__theme={theme}", tab_name="Models", size=size))
    shelf.wait_for(lambda: "yyy" in shelf.tab.locator("#models-card").inner_text())
    shelf.press("Delete …")
    shelf.wait_for(shelf.tab.locator("#models-really").is_visible)
    assert shelf.tab.evaluate("document.documentElement.scrollWidth") <= size["width"]
    for part in ("download", "delete", "really", "keep", "rename"):
        box = shelf.tab.locator(f"#models-{part}").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= size["width"] and box["height"] >= 32


@pytest.mark.slow
def test_in_chinese(server, runs, open_page):
    page = open_page(server, tab_name="模型库", locale="zh-CN")
    page.wait_for(lambda: "参数" in page.tab.locator("#models-table").inner_text())
    assert page.tab.locator("#models-rename").inner_text() == "重命名"
