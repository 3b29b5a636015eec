"""The Compare tab as a person meets it, with models of different tokens and directions."""

import re
import shutil
import time

import pytest

from tests.conftest import SMALL, script
from tests.end_to_end.conftest import free_port, serving, until_ready
from tests.end_to_end.page import DESKTOP, PHONE

TEXT = "The sea was calm.\nZyx went to the small boat at night.\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory, browser, text_file, trained_run, backward_run):
    """A page with a model of characters, one of words, a saved one, and one that reads right to left."""
    folder = tmp_path_factory.mktemp("compare")
    result = script(
        "train.py", "--dataset", text_file, *SMALL, "--steps", 30, "--tokenizer", "word",
        "--out", "runs/words", cwd=folder,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    shutil.copytree(backward_run, folder / "runs" / "taob")
    saved = shutil.copytree(trained_run, folder / "runs" / "<b>saved")
    shutil.rmtree(saved / "training")
    shutil.copytree(trained_run, folder / "runs" / "boat")
    with serving(folder, "--models", "runs", "--port", free_port()) as server:
        yield until_ready(server)


class Comparing:
    """What a person sees of the tab, and does on it."""

    def __init__(self, page):
        self.page, self.tab, self.wait_for = page, page.tab, page.wait_for
        self.run, self.stop = page.tab.locator("#compare-run"), page.tab.locator("#compare-stop")
        self.add = page.tab.locator("#compare-add")
        self.prompt = page.tab.get_by_label("Prompt")
        page.wait_for(lambda: page.tab.locator("#compare-curves :is(img, .note)").count())

    def choose(self, number, name):
        self.tab.locator(f"#compare-model-{number} input").click()
        options = self.tab.get_by_role("listbox").locator("li")
        options.and_(self.tab.get_by_role("option", name=name, exact=True)).click()
        self.wait_for(lambda: not options.count())  # it takes a moment to close

    def set(self, field, value):
        self.tab.locator(f"#compare-{field} input[type=number]").fill(str(value))

    def text(self, number):
        return self.tab.locator(f"#compare-text-{number} textarea").input_value()

    def line(self, number):
        return self.tab.locator(f"#compare-line-{number}").inner_text().strip()

    def chosen(self):
        inputs = [self.tab.locator(f"#compare-model-{n} input") for n in range(1, 5)]
        return [one.input_value() for one in inputs if one.is_visible()]

    def at_rest(self):
        self.wait_for(lambda: self.run.is_enabled() and not self.stop.is_enabled())

    def write(self):
        self.run.click()
        self.wait_for(lambda: self.text(1) or self.line(1))
        self.at_rest()

    def score(self, text):
        self.tab.get_by_label("Text to score").fill(text)
        self.tab.locator("#compare-score").click()
        self.wait_for(lambda: self.tab.locator("#compare-figures tbody tr").count())
        self.at_rest()

    def rows(self, table):
        rows = self.tab.locator(f"#compare-{table} tbody tr").all()
        return [row.locator("th, td").all_inner_texts() for row in rows]


@pytest.fixture
def open_comparing(open_page, server):
    return lambda **options: Comparing(open_page(server, tab_name="Compare", **options))


@pytest.fixture
def comparing(open_comparing):
    return open_comparing()


def test_two_models_write_beside_each_other_little_by_little(comparing):
    comparing.choose(1, "boat")
    comparing.choose(2, "words")
    comparing.prompt.fill("The sea ")
    comparing.set("length", 20_000)
    # Counted in the page: to ask from here takes a busy browser longer than to show all of it.
    comparing.tab.evaluate("""() => {
        const sides = [1, 2].map((n) => document.querySelector(`#compare-text-${n} textarea`));
        window.seen = new Set();
        setInterval(() => {
            const [one, two] = sides.map((side) => side.value.length);
            if (one > 8 && two > 8) window.seen.add(`${one} ${two}`);
        }, 5);
    }""")
    comparing.run.click()
    comparing.wait_for(lambda: comparing.tab.evaluate("seen.size") > 3)
    assert len(comparing.text(1)) < 20_000 and len(comparing.text(2)) < 20_000
    comparing.stop.click()
    comparing.at_rest()
    comparing.set("length", 500)
    comparing.run.click()
    comparing.wait_for(lambda: len(comparing.text(1)) == 508)
    comparing.at_rest()
    one, two = comparing.text(1), comparing.text(2)
    assert one.startswith("The sea ") and two.startswith("The sea ") and one != two
    assert len(one) == 508 and 508 <= len(two) < 530
    assert comparing.line(1) == "seed 1 · 500 characters · 500 tokens"
    assert re.fullmatch(r"seed 1 · 5\d\d characters · \d+ tokens", comparing.line(2))


@pytest.mark.slow
def test_settings_of_one_model_are_compared_and_a_seed_gives_the_same_texts_again(comparing):
    comparing.choose(1, "boat")
    comparing.choose(2, "boat")
    comparing.set("length", 200)
    comparing.set("temperature-2", 0.3)
    comparing.write()
    first = comparing.text(1), comparing.text(2)
    assert first[0] != first[1]
    comparing.set("seed", 5)
    comparing.run.click()
    comparing.wait_for(lambda: comparing.line(1).startswith("seed 5 "))
    comparing.at_rest()
    assert comparing.text(1) != first[0]
    comparing.set("seed", 1)
    comparing.set("temperature-2", 0.8)
    comparing.run.click()
    comparing.wait_for(lambda: comparing.line(1).startswith("seed 1 "))
    comparing.at_rest()
    assert comparing.text(1) == comparing.text(2) == first[0]


@pytest.mark.slow
def test_columns_are_added_up_to_four_and_removed_down_to_two_with_what_they_hold(comparing):
    tab = comparing.tab
    remove = tab.get_by_role("button", name="Remove this column")
    assert len(comparing.chosen()) == 2 and remove.count() == 0
    for count in (3, 4):
        comparing.add.click()
        comparing.wait_for(lambda count=count: len(comparing.chosen()) == count)
    comparing.wait_for(lambda: not comparing.add.is_enabled())
    for number, name in enumerate(("boat", "words", "boat", "<b>saved"), start=1):
        comparing.choose(number, name)
    comparing.set("length", 50)
    comparing.set("temperature-3", 0.1)
    comparing.write()
    texts = [comparing.text(n) for n in (1, 2, 3, 4)]
    assert len(set(texts)) == 3 and all(texts) and texts[0] == texts[3]
    remove.nth(1).click()
    comparing.wait_for(lambda: comparing.chosen() == ["boat", "boat", "<b>saved"])
    comparing.wait_for(lambda: [comparing.text(n) for n in (1, 2, 3)] == [texts[0], texts[2], texts[3]])
    assert comparing.add.is_enabled()
    assert tab.locator("#compare-temperature-2 input[type=number]").input_value() == "0.1"
    remove.nth(0).click()
    comparing.wait_for(lambda: comparing.chosen() == ["boat", "<b>saved"])
    comparing.wait_for(lambda: remove.count() == 0)


@pytest.mark.parametrize("how", ["Stop", "Escape", "leave"])
def test_stop_and_leaving_end_the_computation(comparing, server, how):
    before = len(server.ended())
    comparing.choose(1, "boat")
    comparing.choose(2, "<b>saved")
    comparing.prompt.fill("The sea ")
    comparing.set("length", 20_000)
    comparing.prompt.press("Control+Enter")
    comparing.wait_for(lambda: len(comparing.text(1)) > 100 and len(comparing.text(2)) > 100)
    assert not comparing.run.is_enabled() and not comparing.add.is_enabled()
    if how == "Stop":
        comparing.stop.click()
    elif how == "Escape":
        comparing.tab.keyboard.press("Escape")
    else:
        comparing.tab.close()
    deadline = time.monotonic() + 2
    while len(server.ended()) == before:
        assert time.monotonic() < deadline, "the computation goes on for nobody"
        time.sleep(0.02)
    assert server.ended()[-1].endswith("beside each other: stopped")
    if how != "leave":
        comparing.at_rest()
        assert 100 < len(comparing.text(1)) < 20_000 and comparing.add.is_enabled()


@pytest.mark.slow
def test_a_model_that_reads_right_to_left_says_so_and_the_other_writes(comparing):
    comparing.choose(1, "taob")
    comparing.choose(2, "boat")
    comparing.set("length", 30)
    comparing.prompt.fill("The ☃ ")
    comparing.run.click()
    comparing.wait_for(lambda: comparing.text(2))
    comparing.at_rest()
    assert "reads right to left" in comparing.line(1) and comparing.text(1) == ""
    assert "30 characters" in comparing.line(2) and "does not know '☃'" in comparing.line(2)
    comparing.choose(2, "taob")
    comparing.run.click()
    comparing.page.wait_for_message("cannot go on with a text")
    comparing.at_rest()


@pytest.mark.parametrize("length", ["0", pytest.param("30000", marks=pytest.mark.slow)])
def test_a_length_out_of_range_is_one_message(comparing, length):
    comparing.set("length", length)
    comparing.run.click()
    comparing.page.wait_for_message("The length is a number of characters from 1 to 20,000")
    comparing.at_rest()


def test_the_loss_curves_are_one_picture_and_follow_the_choice(comparing):
    comparing.choose(1, "boat")
    comparing.choose(2, "words")
    curves = comparing.tab.locator("#compare-curves")
    picture = curves.get_by_role("img")
    comparing.wait_for(lambda: re.search("boat to .* words to", picture.get_attribute("alt") or ""))
    assert picture.evaluate("e => e.complete && e.naturalWidth > 0")
    assert "figures look better than they are: words" in curves.inner_text()
    over_text = picture.get_attribute("src")
    comparing.tab.get_by_label("over the time").check()
    comparing.wait_for(lambda: picture.get_attribute("src") != over_text)
    comparing.choose(2, "<b>saved")
    comparing.wait_for(lambda: "Without a loss curve: <b>saved." in curves.inner_text())
    assert "words" not in picture.get_attribute("alt")


def test_a_text_is_scored_by_each_model_and_the_words_are_shown_where_they_disagree(comparing):
    comparing.choose(1, "boat")
    comparing.choose(2, "words")
    comparing.add.click()
    comparing.wait_for(lambda: len(comparing.chosen()) == 3)
    comparing.choose(3, "taob")
    comparing.score(TEXT)
    figures = {row[0].split("\n")[0]: row for row in comparing.rows("figures")}
    assert set(figures) == {"boat", "words", "taob"}
    assert "does not know" in figures["words"][0] and int(figures["boat"][3]) == len(TEXT)
    for name, *_ in figures.values():
        bits, total = (float(figures[name.split("\n")[0]][n].replace(",", "")) for n in (1, 4))
        assert bits == pytest.approx(total / len(TEXT), abs=0.002)
    comparing.wait_for(lambda: comparing.rows("places"))
    places = comparing.rows("places")
    assert 5 < len(places) <= 10
    differences = [float(row[-1]) for row in places]
    assert differences == sorted(differences, reverse=True)
    for _, _, *bits, difference in places:
        bits = list(map(float, bits))
        assert len(bits) == 3 and float(difference) == pytest.approx(max(bits) - min(bits), abs=0.11)
    marked = comparing.tab.locator("#compare-places mark").all_inner_texts()
    assert "Zyx" not in marked and set(marked) <= set(TEXT.split())
    assert places[0][1].replace("↵ ", "\n").strip() in TEXT


@pytest.mark.slow
def test_the_words_are_coloured_and_each_tells_its_bits(comparing):
    comparing.choose(1, "boat")
    comparing.choose(2, "taob")
    comparing.score(TEXT)
    view = comparing.tab.locator("#compare-view .tokens")
    words = view.locator("[data-index]")
    comparing.wait_for(lambda: words.count() == len(TEXT.split()))
    assert view.evaluate("e => e.textContent") == TEXT
    levels = lambda: words.evaluate_all("w => w.map(e => e.dataset.level || '0')")  # noqa: E731
    apart = levels()
    assert min(map(int, apart)) < -2  # the second model was more surprised
    comparing.choose(1, "taob")
    comparing.choose(2, "boat")
    comparing.score(TEXT)
    comparing.wait_for(lambda: [int(level) for level in levels()] == [-int(level) for level in apart])
    words.nth(4).click()
    told = comparing.tab.locator("#compare-word")
    comparing.wait_for(
        lambda: re.fullmatch(r"“Zyx” · taob: [\d.]+ bits · boat: [\d.]+ bits.*", told.inner_text().strip())
    )
    view.press("ArrowRight")
    view.press("Enter")
    comparing.wait_for(lambda: told.inner_text().strip().startswith("“went”"))
    comparing.tab.get_by_label("surprisal of boat").check()
    comparing.wait_for(lambda: max(levels()) == levels()[4] != apart[4])  # it has never seen that word
    assert min(map(int, levels())) >= 0


def test_what_is_scored_and_what_models_are_called_is_shown_as_text(comparing):
    comparing.choose(1, "<b>saved")
    comparing.choose(2, "boat")
    text = "<img src=x onerror=alert(1)> ${alert(2)} boat"
    comparing.score(text)
    assert sorted(row[0].split("\n")[0] for row in comparing.rows("figures")) == ["<b>saved", "boat"]
    comparing.wait_for(
        lambda: comparing.tab.locator("#compare-view .tokens").evaluate("e => e.textContent") == text
    )
    assert comparing.tab.locator("#compare b, #compare-view img").count() == 0


@pytest.mark.slow
def test_an_empty_text_and_one_that_is_too_long_are_one_message_each(comparing):
    comparing.tab.locator("#compare-score").click()
    comparing.page.wait_for_message("The text is empty")
    comparing.at_rest()
    comparing.tab.get_by_label("Text to score").fill("x" * 40_001)
    comparing.tab.locator("#compare-score").click()
    comparing.page.wait_for_message("40,001 characters")
    comparing.at_rest()


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
def test_nothing_is_wider_than_the_screen(open_comparing, size, theme):
    comparing = open_comparing(path=f"?__theme={theme}", size=size)
    for count in (3, 4):
        comparing.add.click()
        comparing.wait_for(lambda count=count: len(comparing.chosen()) == count)
    comparing.choose(1, "boat")
    comparing.choose(2, "words")
    comparing.score(TEXT + "x" * 300)
    comparing.wait_for(lambda: comparing.rows("places"))
    assert comparing.tab.evaluate("document.documentElement.scrollWidth") <= size["width"]
    for part in (comparing.run, comparing.stop, comparing.add):
        box = part.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= size["width"] and box["height"] >= 32


@pytest.mark.slow
def test_in_chinese(open_page, server):
    page = open_page(server, tab_name="比较", locale="zh-CN")
    page.wait_for(lambda: page.tab.locator("#compare-curves :is(img, .note)").count())
    assert page.tab.locator("#compare-run").inner_text() == "并排写作"
    page.tab.get_by_label("要打分的文本").fill(TEXT)
    page.tab.locator("#compare-score").click()
    page.wait_for(lambda: "每字符比特数" in page.tab.locator("#compare-figures").inner_text())
