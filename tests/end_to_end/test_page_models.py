"""The Models tab in a browser: finding, renaming, deleting and downloading models."""

import json
import os
import shutil
import zipfile

import pytest

import lm
from lm.storage import model_folder
from lm.storage.run_lock import claimed
from tests.end_to_end.conftest import free_port, serving, until_ready
from tests.end_to_end.documents import stored, write_some
from tests.end_to_end.page import looks, sizes

pytestmark = pytest.mark.browser

CARD = "# boat\n\n<script>alert(1)</script> ![x](http://elsewhere.example/track.png) **bold**\n"


@pytest.fixture(scope="module")
def restore_models(tmp_path_factory, trained_run, backward_run):
    """A function that restores the server's models: of different ages, one with hostile metadata."""
    runs = tmp_path_factory.mktemp("models") / "runs"

    def restore_models():
        shutil.rmtree(runs, ignore_errors=True)
        for age, name in enumerate(("boat", "taob", "ship")):
            folder = shutil.copytree(backward_run if name == "taob" else trained_run, runs / name)
            os.utime(folder / "model.safetensors", (1.7e9 - age,) * 2)
        config = json.loads((folder / "config.json").read_text())
        config["parameters"], config["trained_on"]["dataset"] = 9, "<img src=x onerror=alert(1)>"
        (folder / "config.json").write_text(json.dumps(config))
        (runs / "boat" / "README.md").write_text(CARD)
        return runs

    return restore_models


@pytest.fixture(scope="module")
def server(restore_models, browser):
    with serving(restore_models().parent, "--models", "runs", "--port", free_port()) as server:
        yield until_ready(server)


@pytest.fixture
def runs(server, restore_models):
    return restore_models()


class ModelsPage:
    """What a user sees and does on the tab."""

    def __init__(self, page):
        self.page, self.tab, self.wait_for = page, page.tab, page.wait_for
        self.wait_for(lambda: "Cell" in self.facts)

    @property
    def facts(self):
        return self.tab.locator("#models-facts").inner_text()

    @property
    def selected(self):
        """The name above the facts; the list at the top has the same."""
        name = self.tab.locator("#models-selected h2").inner_text()
        return name if name == self.page.chosen_model() else None

    def names(self):
        return self.tab.locator("#models-table tbody .name").all_inner_texts()

    def row(self, name):
        return self.tab.locator(
            "#models-table tbody tr", has=self.tab.get_by_role("button", name=name, exact=True)
        )

    def select(self, name):
        """Select a model in the list at the top."""
        self.page.choose_model(name)
        self.wait_for(lambda: self.selected == self.tab.get_by_label("New name").input_value() == name)

    def click_row(self, name):
        self.row(name).locator(".name").click()
        self.wait_for(lambda: self.selected == name)

    def export(self, name, label, folder):
        """Download a file from the row of a model."""
        details = self.row(name).locator("details")
        if not details.evaluate("e => e.open"):
            details.locator("summary").click()
        with self.tab.expect_download() as download:
            details.get_by_role("button", name=label).click()
        self.wait_for(details.get_by_role("button", name=label).is_enabled)
        path = folder / download.value.suggested_filename
        download.value.save_as(path)
        return path

    def press(self, name):
        self.tab.get_by_role("button", name=name, exact=True).click()

    def message(self, part):
        self.page.wait_for_message(part)

    def rename(self, name):
        self.tab.get_by_label("New name").fill(name)
        self.press("Rename")


@pytest.fixture
def models(server, runs, open_page):
    return ModelsPage(open_page(server, tab_name="Models"))


def reload(page, model, length):
    """Reload the page, which then has the model and the length."""
    page.reload()
    field = page.tab.get_by_label("Length", exact=True)
    page.wait_for(lambda: (page.chosen_model(), field.input_value()) == (model, str(length)))


def folders_in(runs):
    return sorted(path.name for path in runs.iterdir() if path.name != ".jobs")


def test_the_table_of_models_can_be_searched_and_sorted(models):
    models.wait_for(lambda: models.names() == ["boat", "taob", "ship", "pretrained"])
    table = models.tab.locator("#models-table").inner_text()
    for part in ("LSTM", "1 × 32", "boat.txt", "char, ", "2023-11-14", "<img src=x onerror=alert(1)>"):
        assert part in table
    search = models.tab.get_by_label("Search")
    search.fill("LSTM taob")
    models.wait_for(lambda: models.names() == ["taob"])
    search.fill("1×32")
    models.wait_for(lambda: models.names() == ["boat", "taob", "ship"])
    search.fill("nothing of the kind")
    models.wait_for(lambda: models.names() == [])
    search.fill("")
    models.wait_for(lambda: len(models.names()) == 4)
    # Sorted by number, not by text: 9 is the smallest.
    parameters = models.tab.get_by_role("columnheader", name="Parameters")
    parameters.get_by_role("button").click()
    assert models.names() == ["ship", "boat", "taob", "pretrained"]
    parameters.get_by_role("button").press("Enter")
    assert models.names()[-1] == "ship" and parameters.get_attribute("aria-sort") == "descending"
    models.click_row("ship")


@pytest.mark.slow
def test_facts_curve_and_card_of_the_selected_model_are_shown_and_the_card_is_harmless(models, trained_run):
    assert models.selected == "boat"
    config = json.loads((trained_run / "config.json").read_text())
    for part in ("LSTM, 1 × 32 units", f"{config['parameters']:,}", "boat.txt"):
        assert part in models.facts
    assert models.tab.locator("#models-facts .curve").evaluate("e => e.complete && e.naturalWidth > 0")
    card = models.tab.locator("#models-card")
    assert "<script>alert(1)</script>" in card.inner_text()
    assert card.locator("strong").inner_text() == "bold" and card.locator("script, img").count() == 0
    models.click_row("taob")
    models.wait_for(lambda: "right to left" in models.facts)
    models.select("ship")
    models.wait_for(lambda: "<img src=x onerror=alert(1)>" in models.facts)


def test_renaming_a_model_keeps_it_selected(models, runs):
    assert models.selected == "boat"
    models.rename("canoe")
    models.message("Renamed to “canoe”.")
    models.wait_for(lambda: models.selected == "canoe" and "canoe" in models.names())
    assert (runs / "canoe" / "training" / "checkpoint").is_dir() and not (runs / "boat").exists()
    models.select("taob")
    models.tab.get_by_label("New name").fill("reversed")
    models.tab.get_by_label("New name").press("Enter")
    models.wait_for(lambda: models.selected == "reversed" and "reversed" in models.names())


def test_a_document_keeps_its_model_and_settings_whatever_happened_to_the_list(server, runs, open_page):
    """Its model is newer than the server, then gets another name, then is gone."""
    shutil.copytree(runs / "ship", runs / "late")
    page = open_page(server)
    page.choose_model("late")
    write_some(page, 33)
    stored(page)
    reload(page, "late", 33)
    page.go_to("Models")
    models = ModelsPage(page)
    models.wait_for(lambda: models.selected == "late")
    models.rename("later")
    models.wait_for(lambda: models.selected == "later")
    page.go_to("Write")
    stored(page)
    reload(page, "later", 33)
    assert not page.messages()
    shutil.rmtree(runs / "later")
    reload(page, "boat", 33)
    page.wait_for_message("The model of this document, “later”, is no longer here: choose another.")
    page.set(Length=34)
    stored(page)
    reload(page, "boat", 34)
    assert not page.messages()


@pytest.mark.parametrize(
    "name",
    [
        "../out",
        "taob",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("/tmp/out", " ", ".x", "<b>x</b>")),
    ],
)
def test_an_invalid_name_is_an_error(models, runs, name):
    models.rename(name)
    models.wait_for(lambda: models.page.messages())
    assert not models.tab.locator(".toast-body b").count()
    assert folders_in(runs) == ["boat", "ship", "taob"]


def test_deleting_asks_for_confirmation_and_can_be_canceled(models, runs):
    models.press("Delete…")
    question = models.tab.locator("#models-question")
    models.wait_for(lambda: "Delete “boat”?" in question.inner_text())
    models.press("Cancel")
    models.wait_for(lambda: not question.is_visible())
    models.press("Delete…")
    models.wait_for(question.is_visible)
    models.select("ship")  # selecting another model cancels the question
    models.wait_for(lambda: not question.is_visible())
    assert (runs / "boat").is_dir()
    models.press("Delete…")
    models.press("Delete permanently")
    models.message("Deleted “ship”.")
    models.wait_for(lambda: models.names() == ["boat", "taob", "pretrained"] and models.selected == "boat")
    assert folders_in(runs) == ["boat", "taob"]
    models.tab.get_by_role("tab", name="Write").click()
    models.tab.get_by_label("Model", exact=True).first.click()
    options = models.tab.get_by_role("option").all()
    labels = [option.get_attribute("aria-label").split(" · ")[0] for option in options]
    assert labels == ["boat", "taob", "pretrained"]


@pytest.mark.slow
def test_two_users_delete_a_model_while_a_third_writes_with_it(server, open_page, models, runs):
    other, writer = ModelsPage(open_page(server, tab_name="Models")), open_page(server)
    writer.start_long_generation()
    for page in (models, other):
        page.press("Delete…")
        page.wait_for(page.tab.locator("#models-really").is_visible)
    models.press("Delete permanently")
    models.message("Deleted")
    # Another model takes the name of the one the other user sees.
    (runs / "taob").rename(runs / "boat")
    other.press("Delete permanently")
    other.message("'boat' has changed in the meantime")
    assert (runs / "boat").is_dir()
    length = len(writer.text)
    writer.wait_for(lambda: len(writer.text) > length + 100)
    writer.stop.click()
    writer.at_rest()


@pytest.mark.slow
def test_a_run_in_progress_cannot_be_renamed_or_deleted(models, runs):
    with claimed(runs / "boat"):
        models.press("Delete…")
        models.press("Delete permanently")
        models.message(f"boat is being trained by process {os.getpid()} on ")
        models.rename("canoe")
        models.wait_for(lambda: models.page.messages().count("being trained") > 1)
    assert (runs / "boat").is_dir()


@pytest.mark.slow
def test_the_shipped_model_is_shown_but_cannot_be_changed(models):
    models.click_row("pretrained")
    models.wait_for(lambda: "python" in models.facts)
    for name in ("Rename", "Delete…"):
        assert not models.tab.get_by_role("button", name=name, exact=True).is_enabled()


def test_the_files_of_each_row_can_be_downloaded(models, runs, tmp_path):
    """The zip file works; tests/test_export.py tests the others."""
    for name, label, suffix in (
        ("boat", "All files (zip)", ".zip"),
        ("taob", "All files (zip)", ".zip"),
        ("ship", "ONNX", ".onnx"),
        ("ship", "Web page", ".html"),
    ):
        file = models.export(name, label, tmp_path)
        assert file.name == f"{name}{suffix}" and file.stat().st_size > 10_000
        if suffix == ".zip":
            with zipfile.ZipFile(file) as packed:
                packed.extractall(tmp_path / "out")
            assert {path.name for path in (tmp_path / "out" / name).iterdir()} == set(model_folder.FILES)
            written = [
                lm.load(folder / name, device="cpu").generate("The ", seed=1)[0].text
                for folder in (runs, tmp_path / "out")
            ]
            assert written[0] == written[1]
    assert models.selected == "boat"


@looks
def test_nothing_is_wider_than_the_screen(server, open_page, runs, size, theme):
    (runs / "boat" / "README.md").write_text("# boat\n\n    " + "x" * 300 + "\n\n" + "y" * 300)
    models = ModelsPage(open_page(server, f"?__theme={theme}", tab_name="Models", size=size))
    models.wait_for(lambda: "yyy" in models.tab.locator("#models-card").inner_text())
    models.press("Delete…")
    models.wait_for(models.tab.locator("#models-really").is_visible)
    assert models.tab.evaluate("document.documentElement.scrollWidth") <= size["width"]
    for part in ("delete", "really", "keep", "rename"):
        box = models.tab.locator(f"#models-{part}").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= size["width"] and box["height"] >= 32


@pytest.mark.slow
def test_in_chinese(server, runs, open_page):
    page = open_page(server, tab_name="模型库", locale="zh-CN")
    page.wait_for(lambda: "参数" in page.tab.locator("#models-table").inner_text())
    assert page.tab.locator("#models-rename").inner_text() == "重命名"


def test_a_failed_export_is_reported_and_can_be_repeated(models, runs, tmp_path):
    weights = runs / "ship" / "model.safetensors"
    weights.rename(runs / "weights")
    export = models.row("ship").get_by_role("button", name="ONNX")
    models.row("ship").get_by_text("Export").click()
    export.click()
    models.wait_for(lambda: models.page.messages() and export.is_enabled())
    (runs / "weights").rename(weights)
    with models.tab.expect_download():
        export.click()


@sizes
def test_each_row_opens_its_model_in_another_tab(open_page, server, runs, size):
    models = ModelsPage(open_page(server, tab_name="Models", size=size))
    for name, button, tab in (("ship", "Write", "Write"), ("taob", "Look inside", "Look inside")):
        models.row(name).get_by_role("button", name=button, exact=True).click()
        models.wait_for(lambda name=name: models.page.chosen_model() == name)
        models.tab.get_by_role("tab", name=tab, exact=True, selected=True).wait_for()
        models.page.go_to("Models")
        models.wait_for(lambda name=name: models.selected == name)
    compare = models.row("ship").get_by_role("button", name="Compare", exact=True)
    box = compare.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= size["width"]
    compare.focus()
    compare.press("Enter")
    models.wait_for(lambda: models.page.chosen_model("#compare-model-1") == "ship")
    assert models.page.chosen_model() == "ship"
    second = models.page.chosen_model("#compare-model-2")
    assert second != "ship"
    models.page.choose_model(second)
    models.wait_for(lambda: models.page.chosen_model("#compare-model-1") == second)
    models.wait_for(lambda: models.page.chosen_model("#compare-model-2") != second)


@sizes
def test_a_long_name_leaves_the_score_in_view(open_page, server, runs, size):
    name = "A very long name of a novel " * 4 + "(draft 2)"
    (runs / "boat").rename(runs / name)
    models = ModelsPage(open_page(server, tab_name="Models", size=size))
    models.page.choose_model("taob")
    models.row(name).locator(".name").click()
    models.wait_for(lambda: models.tab.locator("#models-selected h2").inner_text() == name)
    cells = models.row(name).locator("td").all()
    for cell in (cells[0], models.row(name).get_by_role("button", name="Write", exact=True)):
        box = cell.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= size["width"]
    facts = models.tab.locator("#models-facts").bounding_box()
    assert 0 <= facts["y"] < size["height"] - 100
    chosen = models.tab.locator("#model input")
    assert chosen.input_value().endswith(" bits")
    assert chosen.evaluate("e => e.scrollWidth <= e.clientWidth")
