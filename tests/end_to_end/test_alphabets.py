"""Every alphabet, line end and odd byte, from the file through training to the terminal, a pipe and the
page."""

import io
import json
import random
import re
import statistics
import sys
import time
from pathlib import Path

import pexpect
import pytest
from PIL import Image

import lm
from lm.cli import run_generate
from lm.console.escaping import printable
from lm.generation.text_generator import Piece
from tests.conftest import ROOT, our_environment, script, started
from tests.end_to_end.conftest import serving, until_ready
from tests.end_to_end.page import Page

FAMILY, RAINBOW = "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f3f3\ufe0f\u200d\U0001f308"
WORDS = {
    "chinese": ["海上", "小船", "夜里", "月亮", "回家", "我们"],
    "arabic": ["البحر", "قارب", "صغير", "الليل", "هادئ", "القمر"],
    "devanagari": ["समुद्र", "हिन्दी", "रोशनी", "क्षितिज", "शान्त", "चाँद"],
    "emoji": [FAMILY, RAINBOW, "👩🏽\u200d🚀", "🇩🇪", "⛵", "❤\ufe0f"],
}
CONTROLS = ["sea\0", "\0boat", "\x1b[31mred", "\x07bell", "cr\rcr", "c1\x9b5m", "tab\tx", "\x7fdel"]
SMALL = ["--hidden-size", 64, "--layers", 1, "--batch-size", 8, "--bptt", 48, "--lr", 1e-2]
# An ASCII locale that Python must not turn into UTF-8.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def lines_of(words, count, end="\n", seed=0):
    choose = random.Random(seed)
    return [" ".join(choose.choices(words, k=choose.randint(3, 7))) + end for _ in range(count)]


def on_a_terminal(name, *arguments, cwd):
    """What a script writes to a terminal."""
    command = " ".join(map(str, [sys.executable, ROOT / name, *arguments]))
    shown, status = pexpect.run(command, cwd=cwd, env=our_environment(), withexitstatus=True, timeout=60)
    assert status == 0, shown
    return shown.decode().replace("\r\n", "\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("alphabets")


@pytest.fixture(scope="module")
def multilingual(folder):
    """A model of four alphabets, trained on a file from Windows, and what training showed on a terminal."""
    lines = [line for words in WORDS.values() for line in lines_of(words, 250, end="\r\n")]
    random.Random(0).shuffle(lines)
    (folder / "all.txt").write_bytes(b"\xef\xbb\xbf" + "".join(lines).encode())
    shown = on_a_terminal(
        "train.py", "--dataset", "all.txt", *SMALL, "--steps", 300, "--out", "runs/all", cwd=folder
    )
    return folder / "runs" / "all", shown


@pytest.fixture(scope="module")
def controls(folder):
    """A model of control characters, trained on a table, whose line ends are kept."""
    rows = [{"text": "".join(lines_of(CONTROLS, 50, end="\r\n", seed=i))} for i in range(15)]
    (folder / "controls.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = ["--dataset", "controls.jsonl", *SMALL, "--steps", 200, "--out", "runs/controls"]
    result = script("train.py", *settings, cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "␀" in result.stdout and "␛[31mred" in result.stdout
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", result.stdout)
    return folder / "runs" / "controls"


@pytest.fixture(scope="module")
def byte_model(folder, multilingual):
    """A model of the bytes of the four alphabets, trained in an ASCII locale."""
    settings = ["--dataset", "all.txt", "--tokenizer", "byte", *SMALL, "--steps", 300, "--out", "runs/bytes"]
    result = script("train.py", *settings, cwd=folder, env=ASCII)
    assert result.returncode == 0 and not result.stderr
    assert r"\u" in result.stdout  # its samples
    return folder / "runs" / "bytes"


def known_word_fractions(text):
    """For each alphabet, the fraction of known words among those that start with its letters."""
    found = {}
    for name, words in WORDS.items():
        seen = [word for word in text.split() if any(word[0] == known[0] for known in words)]
        found[name] = sum(word in words for word in seen) / max(len(seen), 1)
    return found


def test_every_alphabet_is_learned_and_generated(multilingual):
    run, _ = multilingual
    settings = ["--num-samples", 12, "--length", 200, "--temperature", 0.6, "--seed", 1]
    result = script("generate.py", run, *settings, "--json", cwd=run)
    texts = [json.loads(line)["text"].rpartition(" ")[0] for line in result.stdout.splitlines()]
    fractions = known_word_fractions(" ".join(texts))
    assert min(fractions.values()) > 0.8, fractions
    assert "\ufffd" not in result.stdout
    assert lm.load(run).tokenizer.unknown_in("\ufeff\r") == ["\ufeff", "\r"]  # in the file, not in the text


def test_samples_on_a_terminal_have_no_padding(multilingual):
    # Terminals disagree on the width of some characters, so padding would wrap into empty lines.
    _, shown = multilingual
    lines = re.findall(r" {6}\x1b\[2m(.*)\x1b\[0m( *)$", shown, re.MULTILINE)
    assert len(lines) > 20
    assert not any(padding for _, padding in lines)
    # Ten samples may lack an alphabet.
    assert statistics.median(known_word_fractions(" ".join(s for s, _ in lines)).values()) > 0.5


def test_prompt_from_windows_is_normalized_like_the_training_text(multilingual, tmp_path):
    run, _ = multilingual
    (tmp_path / "p.txt").write_bytes("\ufeffالبحر هادئ\r\nचाँद ".encode())
    result = script(
        "generate.py", run, "--prompt-file", "p.txt", "--length", 50, "--seed", 1, cwd=tmp_path, text=False
    )
    [expected] = lm.load(run).generate("البحر هادئ\nचाँद ", max_new_tokens=50, seed=1)
    assert result.stdout.decode() == f"البحر هادئ\nचाँद {expected.text}\n"
    assert b"warning" not in result.stderr


@pytest.mark.slow
def test_control_characters_are_piped_as_they_are_and_visible_on_a_terminal(controls):
    options = [controls, "--seed", 1, "--length", 1500]
    piped = script("generate.py", *options, cwd=controls, text=False).stdout.decode()
    assert all(c in piped for c in "\0\x1b\x07\x7f\x9b") and "\r\n" in piped and "cr\rcr" in piped
    shown = on_a_terminal("generate.py", *options, cwd=controls)
    assert shown.startswith(printable(piped))
    assert all(picture in shown for picture in ("sea␀", "␛[31mred", "␇bell", "cr␍cr", "␡del", "c1\ufffd5m"))


class FixedModel:
    """A model that generates the characters of `text`, one per token."""

    backward = False

    def __init__(self, text):
        self.text = text

    def stream(self, prompt):
        return (Piece(character, 0, 0.0, ()) for character in self.text)


@pytest.mark.parametrize("text", [f"{FAMILY} a {RAINBOW}", "a\r\nb\rc\r", "end\u200d"])
def test_joiners_are_shown_with_what_they_join_and_line_ends_immediately(text, monkeypatch):
    written = []
    monkeypatch.setattr(run_generate, "write", written.append)
    assert run_generate.stream(FixedModel(text), "") == len(text)
    assert "".join(written) == text + "\n"
    assert not any(part.endswith(("\u200d", "\r")) for part in written[:-1])


@pytest.mark.slow
def test_bytes_are_streamed_as_whole_characters(byte_model):
    pieces = list(lm.load(byte_model).stream("海上", max_new_tokens=900, temperature=0.5, seed=1))
    learned = "".join(piece.text for piece in pieces)
    assert "\ufffd" not in learned and max(known_word_fractions(learned).values()) > 0.8
    wild = [byte_model, "--prompt", "海上", "--seed", 1, "--length", 600, "--temperature", 5]
    record = json.loads(script("generate.py", *wild, "--json", cwd=byte_model, text=False).stdout)
    streamed = script("generate.py", *wild, cwd=byte_model, text=False).stdout.decode()
    whole = bytes(token for token in record["tokens"] if token < 256).decode("utf-8", "replace")
    assert whole.count("\ufffd") > 50
    assert whole.startswith(record["text"]) and len(whole) - len(record["text"]) <= 1
    assert streamed == f"海上{record['text']}\n"


@pytest.mark.slow
def test_ascii_terminal_shows_escapes(multilingual):
    run, _ = multilingual
    common = ["generate.py", run, "--prompt", FAMILY, "--seed", 1, "--length", 30]
    [expected] = lm.load(run).generate(FAMILY, max_new_tokens=30, seed=1)
    plain = script(*common, cwd=run, env=ASCII)
    assert plain.stdout.encode().decode("unicode_escape") == f"{FAMILY}{expected.text}\n"
    record = json.loads(script(*common, "--json", cwd=run, env=ASCII).stdout)
    assert (record["prompt"], record["text"]) == (FAMILY, expected.text)


@pytest.mark.parametrize("flag", ["--prompt", "--stop"])
def test_argument_that_is_not_utf8_is_a_one_line_error(multilingual, flag):
    result = script("generate.py", flag, "caf\udce9", cwd=multilingual[0])
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"error: the text of {flag} is not UTF-8, at byte 3.\n"


def test_file_name_that_is_not_utf8_is_a_one_line_error(tmp_path):
    (tmp_path / "caf\udce9.txt").write_text("text")
    result = script("train.py", "--dataset", "caf\udce9.txt", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("error: --dataset 'caf\\udce9.txt' is not UTF-8")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.slow
def test_single_line_of_50_mb_is_read_in_constant_memory(tmp_path):
    words = [word for known in WORDS.values() for word in known]
    line = "".join(lines_of(words, 2000, end=" "))
    with (tmp_path / "line.txt").open("w", encoding="utf-8") as file:
        file.writelines([line] * (50_000_000 // len(line.encode()) + 1))
    output = tmp_path / "output"
    with output.open("w") as file:
        command = ["--dataset", "line.txt", "--out", "run", "--validation-split", 0.01]
        command += ["--hidden-size", 16, "--layers", 1, "--steps", 3]
        process = started("train.py", *command, cwd=tmp_path, stdout=file)
    memory = []  # MB, while the token stream is built
    while process.poll() is None:
        printed = output.read_text()
        if "Reading" in printed and "validation text" not in printed:
            status = Path(f"/proc/{process.pid}/status").read_text()
            memory += [int(size) / 1024 for size in re.findall(r"RssAnon:\s+(\d+)", status)]
        time.sleep(0.01)
    assert process.returncode == 0
    stages = [
        "Reading line …",
        "Counting characters …",
        "Tokenizing the train text …",
        "Tokenizing the validation text …",
    ]
    assert output.read_text().splitlines()[:4] == stages
    assert len(memory) > 10
    assert max(memory) - memory[0] < 40  # the text takes 50 as bytes and 100 as a string


@pytest.fixture(scope="module")
def page(context, folder, multilingual):
    with serving(folder) as server:
        tab = context.new_page()
        tab.goto(until_ready(server).address)
        tab.locator("#facts table").wait_for()
        yield Page(tab)
        tab.close()


def choose(page, name):
    page.choose_model(name)


@pytest.mark.browser
def test_page_shows_each_paragraph_in_its_own_direction(page, multilingual):
    choose(page, "all")
    page.set(Length=100, Seed=1)
    page.editor.fill("البحر ")
    expected = lm.load(multilingual[0]).stream("البحر ", max_new_tokens=100, seed=1)
    assert page.write() == "البحر " + "".join(piece.text for piece in expected)
    page.editor.fill("البحر قارب\nsea boat")
    picture = Image.open(io.BytesIO(page.editor.screenshot())).convert("L")
    middle, line = picture.width // 2, 24  # pixels; below the padding
    for top, side in ((12, "right"), (12 + line, "left")):
        ink = {
            name: sum(picture.crop((begin, top, begin + middle - 4, top + line)).histogram()[:100])
            for name, begin in (("left", 4), ("right", middle))
        }
        assert max(ink, key=ink.get) == side and min(ink.values()) == 0, ink


@pytest.mark.slow
def test_page_shows_control_characters_and_continues_from_them(page, controls):
    page.reload()  # the page may be older than the model
    page.tab.locator("#facts table").wait_for()
    choose(page, "controls")
    page.set(Length=120, Seed=1)
    page.editor.fill("tab")
    first = page.write()
    assert sum(picture in first for picture in "␀␛␇␡␍") > 2
    page.editor.fill("sea␀ ␛")
    expected = lm.load(controls).stream("sea\0 \x1b", max_new_tokens=120, seed=1)
    assert page.write() == "sea␀ ␛" + printable("".join(piece.text for piece in expected))
    assert not page.messages()
