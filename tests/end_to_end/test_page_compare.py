"""The Compare tab in a browser, with models of different tokens and directions."""

import re
import shutil
import time

import pytest

from tests.conftest import SMALL, script
from tests.end_to_end.conftest import free_port, serving, until_ready
from tests.end_to_end.page import PHONE, looks

pytestmark = pytest.mark.browser

TEXT = "The sea was calm.\nZyx went to the small boat at night.\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory, browser, text_file, trained_run, backward_run):
    """A page with a character model, a word model, a saved model and one that reads right to left."""
    folder = tmp_path_factory.mktemp("compare")
    settings = [*SMALL, "--steps", 30, "--tokenizer", "word", "--out", "runs/words"]
    result = script("train.py", "--dataset", text_file, *settings, cwd=folder)
    assert result.returncode == 0, result.stderr
    shutil.copytree(backward_run, folder / "runs" / "taob")
    saved = shutil.copytree(trained_run, folder / "runs" / "<b>saved")
    shutil.rmtree(saved / "training")
    shutil.copytree(trained_run, folder / "runs" / "boat")
    with serving(folder, "--models", "runs", "--port", free_port()) as server:
        yield until_ready(server)


class ComparePage:
    """What a user sees and does on the tab."""

    def __init__(self, page):
        self.page, self.tab, self.wait_for = page, page.tab, page.wait_for
        self.run, self.stop = page.tab.locator("#compare-run"), page.tab.locator("#compare-stop")
        self.add = page.tab.locator("#compare-add")
        self.prompt = page.tab.get_by_label("Prompt")
        page.wait_for(lambda: page.tab.locator("#compare-curves :is(img, .note)").count())

    def choose(self, number, name):
        self.page.choose_model(name, f"#compare-model-{number}")

    def set(self, field, value):
        self.tab.locator(f"#compare-{field} input[type=number]").fill(str(value))

    def text(self, number):
        return self.tab.locator(f"#compare-text-{number} textarea").input_value()

    def status(self, number):
        return self.tab.locator(f"#compare-line-{number}").inner_text().strip()

    def chosen(self):
        models = [f"#compare-model-{n}" for n in range(1, 5)]
        return [self.page.chosen_model(m) for m in models if self.tab.locator(m).is_visible()]

    def wait_until_idle(self):
        self.wait_for(lambda: self.run.is_enabled() and not self.stop.is_enabled())

    def generate(self):
        self.run.click()
        self.wait_for(lambda: self.text(1) or self.status(1))
        self.wait_until_idle()

    def score(self, text):
        self.tab.get_by_label("Text to score").fill(text)
        self.tab.locator("#compare-score").click()
        self.wait_for(lambda: self.tab.locator("#compare-figures tbody tr").count())
        self.wait_until_idle()

    def rows(self, table):
        rows = self.tab.locator(f"#compare-{table} tbody tr:not(.remark)").all()
        return [row.locator("th, td").all_inner_texts() for row in rows]


@pytest.fixture
def open_tab(open_page, server):
    return lambda **options: ComparePage(open_page(server, tab_name="Compare", **options))


@pytest.fixture
def compare(open_tab):
    return open_tab()


def test_two_models_generate_side_by_side_and_the_texts_stream_in(compare):
    compare.choose(1, "boat")
    compare.choose(2, "words")
    compare.prompt.fill("The sea ")
    compare.set("length", 20_000)
    # Counted in the page: polling from here would be slower than the updates.
    compare.tab.evaluate("""() => {
        const outputs = [1, 2].map((n) => document.querySelector(`#compare-text-${n} textarea`));
        window.seen = new Set();
        setInterval(() => {
            const [one, two] = outputs.map((output) => output.value.length);
            if (one > 8 && two > 8) window.seen.add(`${one} ${two}`);
        }, 5);
    }""")
    compare.run.click()
    compare.wait_for(lambda: compare.tab.evaluate("seen.size") > 3)
    assert len(compare.text(1)) < 20_000 and len(compare.text(2)) < 20_000
    compare.stop.click()
    compare.wait_until_idle()
    compare.set("length", 500)
    compare.run.click()
    compare.wait_for(lambda: len(compare.text(1)) == 508)
    compare.wait_until_idle()
    one, two = compare.text(1), compare.text(2)
    assert one.startswith("The sea ") and two.startswith("The sea ") and one != two
    assert len(one) == 508 and 508 <= len(two) < 530
    assert compare.status(1) == "seed 1 · 500 characters · 500 tokens"
    assert re.fullmatch(r"seed 1 · 5\d\d characters · \d+ tokens", compare.status(2))


@pytest.mark.slow
def test_settings_of_one_model_are_compared_and_the_same_seed_gives_the_same_texts(compare):
    compare.choose(1, "boat")
    compare.choose(2, "boat")
    compare.set("length", 200)
    compare.set("temperature-2", 0.3)
    compare.generate()
    first = compare.text(1), compare.text(2)
    assert first[0] != first[1]
    compare.set("seed", 5)
    compare.run.click()
    compare.wait_for(lambda: compare.status(1).startswith("seed 5 "))
    compare.wait_until_idle()
    assert compare.text(1) != first[0]
    compare.set("seed", 1)
    compare.set("temperature-2", 0.8)
    compare.run.click()
    compare.wait_for(lambda: compare.status(1).startswith("seed 1 "))
    compare.wait_until_idle()
    assert compare.text(1) == compare.text(2) == first[0]


@pytest.mark.slow
def test_the_fields_survive_a_reload(compare):
    compare.prompt.fill("The sea ")
    compare.set("length", 50)
    compare.set("temperature-2", 0.1)
    scored = compare.tab.get_by_label("Text to score")
    scored.fill(TEXT)
    compare.wait_for(lambda: "Zyx" in compare.tab.evaluate("sessionStorage['lm.compare'] ?? ''"))
    compare.page.reload()
    compare.wait_for(lambda: scored.is_visible() and scored.input_value() == TEXT)
    assert compare.prompt.input_value() == "The sea "
    numbers = [
        compare.tab.locator(f"#compare-{name} input[type=number]") for name in ("length", "temperature-2")
    ]
    assert [number.input_value() for number in numbers] == ["50", "0.1"]


def test_columns_are_added_up_to_four_and_removed_with_their_contents_down_to_two(compare):
    tab = compare.tab
    remove = tab.get_by_role("button", name="Remove column")
    assert len(compare.chosen()) == 2 and remove.count() == 0
    for count in (3, 4):
        compare.add.click()
        compare.wait_for(lambda count=count: len(compare.chosen()) == count)
    compare.wait_for(lambda: not compare.add.is_enabled())
    for number, name in enumerate(("boat", "words", "boat", "<b>saved"), start=1):
        compare.choose(number, name)
    compare.set("length", 50)
    compare.set("temperature-3", 0.1)
    compare.generate()
    texts = [compare.text(n) for n in (1, 2, 3, 4)]
    assert len(set(texts)) == 3 and all(texts) and texts[0] == texts[3]
    remove.nth(1).click()
    compare.wait_for(lambda: compare.chosen() == ["boat", "boat", "<b>saved"])
    compare.wait_for(lambda: [compare.text(n) for n in (1, 2, 3)] == [texts[0], texts[2], texts[3]])
    assert compare.add.is_enabled()
    assert tab.locator("#compare-temperature-2 input[type=number]").input_value() == "0.1"
    remove.nth(0).click()
    compare.wait_for(lambda: compare.chosen() == ["boat", "<b>saved"])
    compare.wait_for(lambda: remove.count() == 0)


@pytest.mark.parametrize("how", ["Stop", "Escape", "leave"])
def test_stop_and_leaving_end_the_computation(compare, server, how):
    before = len(server.ended())
    compare.choose(1, "boat")
    compare.choose(2, "<b>saved")
    compare.prompt.fill("The sea ")
    compare.set("length", 20_000)
    compare.prompt.press("Control+Enter")
    compare.wait_for(lambda: len(compare.text(1)) > 100 and len(compare.text(2)) > 100)
    assert not compare.run.is_enabled() and not compare.add.is_enabled()
    if how == "Stop":
        compare.stop.click()
    elif how == "Escape":
        compare.tab.keyboard.press("Escape")
    else:
        compare.tab.close()
    deadline = time.monotonic() + 2
    while len(server.ended()) == before:
        assert time.monotonic() < deadline, "the computation continues"
        time.sleep(0.02)
    assert server.ended()[-1].endswith("side by side: stopped")
    if how != "leave":
        compare.wait_until_idle()
        assert 100 < len(compare.text(1)) < 20_000 and compare.add.is_enabled()


@pytest.mark.slow
def test_a_model_that_reads_right_to_left_says_so_and_the_other_generates(compare):
    compare.choose(1, "taob")
    compare.choose(2, "boat")
    compare.set("length", 30)
    compare.prompt.fill("The ☃ ")
    compare.run.click()
    compare.wait_for(lambda: compare.text(2))
    compare.wait_until_idle()
    assert "reads right to left" in compare.status(1) and compare.text(1) == ""
    assert "30 characters" in compare.status(2) and "does not know '☃'" in compare.status(2)
    compare.choose(2, "taob")
    compare.run.click()
    compare.page.wait_for_message("cannot continue a text")
    compare.wait_until_idle()


@pytest.mark.parametrize("length", ["0", pytest.param("30000", marks=pytest.mark.slow)])
def test_a_length_out_of_range_is_an_error(compare, length):
    compare.set("length", length)
    compare.run.click()
    compare.page.wait_for_message("The length must be between 1 and 20,000 characters")
    compare.wait_until_idle()


def test_the_loss_curves_follow_the_selected_models(compare):
    compare.choose(1, "boat")
    compare.choose(2, "words")
    curves = compare.tab.locator("#compare-curves")
    image = curves.get_by_role("img")
    compare.wait_for(lambda: re.search("boat: .* words: ", image.get_attribute("alt") or ""))
    assert image.evaluate("e => e.complete && e.naturalWidth > 0")
    assert "too good: words" in curves.inner_text()
    over_characters = image.get_attribute("src")
    compare.tab.get_by_label("Training time").check()
    compare.wait_for(lambda: image.get_attribute("src") != over_characters)
    compare.choose(2, "<b>saved")
    compare.wait_for(lambda: "No loss curve: <b>saved." in curves.inner_text())
    assert "words" not in image.get_attribute("alt")


def test_a_text_is_scored_by_each_model_and_their_disagreements_are_listed(compare):
    compare.choose(1, "boat")
    compare.choose(2, "words")
    compare.add.click()
    compare.wait_for(lambda: len(compare.chosen()) == 3)
    compare.choose(3, "taob")
    compare.score(TEXT)
    scores = {row[0]: row for row in compare.rows("figures")}
    assert set(scores) == {"boat", "words", "taob"}
    assert int(scores["boat"][3]) == len(TEXT)
    remark = compare.tab.locator("#compare-figures tr", has_text="words").locator("+ .remark")
    assert "of the tokens are unknown to this model" in remark.inner_text()
    for _, bits, _, _, total in scores.values():
        assert float(bits) == pytest.approx(float(total.replace(",", "")) / len(TEXT), abs=0.002)
    compare.wait_for(lambda: compare.rows("places"))
    disagreements = compare.rows("places")
    assert 5 < len(disagreements) <= 10
    differences = [float(row[-1]) for row in disagreements]
    assert differences == sorted(differences, reverse=True)
    for _, _, *bits, difference in disagreements:
        bits = list(map(float, bits))
        assert len(bits) == 3 and float(difference) == pytest.approx(max(bits) - min(bits), abs=0.11)
    marked = compare.tab.locator("#compare-places mark").all_inner_texts()
    assert "Zyx" not in marked and set(marked) <= set(TEXT.split())
    assert disagreements[0][1].replace("↵", "\n").strip() in TEXT


@pytest.mark.slow
def test_the_words_are_colored_and_each_shows_its_bits(compare):
    compare.choose(1, "boat")
    compare.choose(2, "taob")
    compare.score(TEXT)
    view = compare.tab.locator("#compare-view .tokens")
    words = view.locator("[data-index]")
    compare.wait_for(lambda: words.count() == len(TEXT.split()))
    assert view.evaluate("e => e.textContent") == TEXT

    def levels():
        return [int(level) for level in words.evaluate_all("w => w.map(e => e.dataset.level || '0')")]

    differences = levels()
    assert min(differences) < -2  # the second model was more surprised
    compare.choose(1, "taob")
    compare.choose(2, "boat")
    compare.score(TEXT)
    compare.wait_for(lambda: levels() == [-level for level in differences])
    words.nth(4).click()
    details = compare.tab.locator("#compare-word")
    compare.wait_for(
        lambda: re.fullmatch(
            r"“\u2068Zyx\u2069” · taob: [\d.]+ bits · boat: [\d.]+ bits.*", details.inner_text().strip()
        )
    )
    view.press("ArrowRight")
    view.press("Enter")
    compare.wait_for(lambda: details.inner_text().strip().startswith("“\u2068went\u2069”"))
    compare.tab.get_by_label("Surprisal under boat").check()
    compare.wait_for(lambda: max(levels()) == levels()[4] != differences[4])  # a word it has never seen
    assert min(levels()) >= 0


def test_texts_and_model_names_are_escaped(compare):
    compare.choose(1, "<b>saved")
    compare.choose(2, "boat")
    text = "<img src=x onerror=alert(1)> ${alert(2)} boat"
    compare.score(text)
    assert sorted(row[0] for row in compare.rows("figures")) == ["<b>saved", "boat"]
    compare.wait_for(
        lambda: compare.tab.locator("#compare-view .tokens").evaluate("e => e.textContent") == text
    )
    assert compare.tab.locator("#compare b, #compare-view img").count() == 0


@pytest.mark.slow
def test_an_empty_text_and_a_long_one_are_errors(compare):
    compare.tab.locator("#compare-score").click()
    compare.page.wait_for_message("The text is empty")
    compare.wait_until_idle()
    compare.tab.get_by_label("Text to score").fill("x" * 40_001)
    compare.tab.locator("#compare-score").click()
    compare.page.wait_for_message("40,001 characters")
    compare.wait_until_idle()


@looks
def test_nothing_is_wider_than_the_screen(open_tab, size, theme):
    compare = open_tab(path=f"?__theme={theme}", size=size)
    for count in (3, 4):
        compare.add.click()
        compare.wait_for(lambda count=count: len(compare.chosen()) == count)
    compare.choose(1, "boat")
    compare.choose(2, "words")
    compare.score(TEXT + "x" * 300)
    compare.wait_for(lambda: compare.rows("places"))
    assert compare.tab.evaluate("document.documentElement.scrollWidth") <= size["width"]
    if size == PHONE:
        contexts = compare.tab.locator("#compare-places .context")
        assert max(contexts.evaluate_all("e => e.map(e => e.offsetHeight)")) <= 3 * 21  # three lines
    for part in (compare.run, compare.stop, compare.add):
        box = part.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= size["width"] and box["height"] >= 32


@pytest.mark.slow
def test_in_chinese(open_page, server):
    page = open_page(server, tab_name="比较", locale="zh-CN")
    page.wait_for(lambda: page.tab.locator("#compare-curves :is(img, .note)").count())
    assert page.tab.locator("#compare-run").inner_text() == "并排写作"
    page.tab.get_by_label("待评分文本").fill(TEXT)
    page.tab.locator("#compare-score").click()
    page.wait_for(lambda: "每字符比特数" in page.tab.locator("#compare-figures").inner_text())
