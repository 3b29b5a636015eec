"""Every message that the page can show exists in both languages, and names fields instead of flags."""

import re
from pathlib import Path

import gradio
import pytest
from gradio.context import LocalContext

from app.ui.errors import as_sentence
from app.ui.i18n import chinese
from app.ui.messages import FIELDS, in_words_of_the_page, messages
from lm.config.schema import SETTINGS, SamplingConfig
from lm.config.settings import flag_of, settings_of
from tests.app.ui.raised import constants_of, templates_of

# What the page never calls: command lines, several processes, the API server, which has its own errors.
ELSEWHERE = (
    "lm/__init__.py",
    "lm/cli",
    "lm/export",
    "lm/distributed.py",
    "lm/transformers",
    "lm/config/presets.py",
    "lm/training/tracking.py",
    "app/api",
    "app/command_line.py",
    "app/launch.py",
)
CHINESE = re.compile(r"[\u4e00-\u9fff]")
VALUE = "«x»"


@pytest.fixture(scope="module")
def said():
    """(file, line, message) for each message in the code, with values that are not numbers."""
    found = [
        (file, line, template.replace("{}", VALUE))
        for file, line, template in templates_of("lm", "app")
        if not file.startswith(ELSEWHERE)
    ]
    # The others only pass on another message, or say whose it is.
    return [(file, line, text) for file, line, text in found if re.search(r"\w", text.replace(VALUE, ""))]


def test_every_message_in_the_code_has_chinese(said, in_chinese):
    assert len({text for _, _, text in said}) > 250
    missing = [one for one in said if not CHINESE.search(in_words_of_the_page(one[2]))]
    assert not missing, f"add to app/ui/messages/: {missing}"


def test_every_value_of_a_message_is_in_its_translations():
    for message in messages():
        for words in filter(None, (message.english, message.chinese)):
            used = {int(number) for number in re.findall(r"\{(\d)\}", words)}
            assert used <= set(range(len(message.numbers))), words
        assert CHINESE.search(message.chinese) or message.chinese.startswith("dropout"), message


def test_every_translated_message_is_in_the_code():
    """A message that has changed must not keep an entry that nothing matches."""
    code = constants_of("lm", "app", Path(gradio.__file__).parent / "components")
    for message in messages():
        phrases = [phrase.strip() for phrase in re.split(r"[.,;:()'`]", "\n".join(message.parts))]
        phrases = [line for phrase in phrases for line in phrase.split("\n") if len(line) > 20]
        assert not phrases or any(phrase[len(phrase) // 2 :].strip() in code for phrase in phrases), (
            message.parts
        )


def test_no_message_names_a_flag(said, in_chinese):
    for _ in range(2):
        shown = [in_words_of_the_page(text) for _, _, text in said]
        assert not [text for text in shown if "--" in text]
        LocalContext.request.set(None)  # in English


@pytest.mark.parametrize("name", sorted({*settings_of(SamplingConfig), *SETTINGS}))
def test_every_setting_has_words_for_its_flag(name):
    shown = in_words_of_the_page(
        f"{flag_of(name)} 7 is wrong: use --no-{name.replace('_', '-')} or {flag_of(name)}."
    )
    assert "--" not in shown and shown.count("“") == 3


def test_fields_are_called_by_their_labels(in_chinese):
    assert all(label in chinese() for label in FIELDS.values())
    assert (
        in_words_of_the_page("--max-time must be at least 10, got 5.") == "“训练时间” 最小为 10，而不是 5。"
    )


def test_messages_name_only_fields_that_exist():
    english, chinese_texts = chinese().keys(), chinese().values()
    for message in messages():
        if message.english:
            for words, known in ((message.english, english), (message.chinese, chinese_texts)):
                for label in re.findall("“([^”{]+)”", words):
                    assert any(text.startswith(label) for text in known), words


def test_values_stay_as_they_are(in_chinese):
    assert (
        in_words_of_the_page("--seed and --lr cannot be combined; choose one budget.")
        == "“seed” and “lr” 不能同时使用；请只选一种训练预算。"
    )
    assert (
        in_words_of_the_page("no file matches 'a --hidden-size b'.") == "没有文件与“a --hidden-size b”匹配。"
    )
    assert in_words_of_the_page("no file matches '{0}'.") == "没有文件与“{0}”匹配。"
    assert in_words_of_the_page("no file matches 'test'.") == "没有文件与“test”匹配。"


def test_messages_inside_messages_are_translated(in_chinese):
    shown = as_sentence("No estimate: measuring it takes more than 60 seconds. Try a smaller size.")
    assert shown == "无法估计：测量需要 60 秒以上。请尝试更小的尺寸。"
    assert (
        as_sentence("LSTM, 2 layers of 128 units, 217,938 parameters")
        == "LSTM，2 层，每层 128 个单元，共 217,938 个参数"
    )
    assert (
        as_sentence("LSTM, 1 layer of 128 units, embeddings of 64, 17,938 parameters")
        == "LSTM，1 层，每层 128 个单元，词嵌入 64 维，共 17,938 个参数"
    )
    assert (
        as_sentence("the training text has 1,234 tokens") == "The training text has 1,234 tokens"
    )  # not known


def test_english_says_what_to_do_on_the_page():
    error = "hotel.txt is not UTF-8: byte 0xe9 at position 6; it looks like cp1252 ('café'): use --encoding"
    error += " cp1252."
    assert as_sentence(error).endswith("If that line is right, choose cp1252 under “Encoding”.")
    assert as_sentence("several columns of a contain text; choose one with --text-column: b, c.") == (
        "Several columns of a contain text; choose one under “Text column”: b, c."
    )
    assert as_sentence("--max-time must be in [10, 86,400], got 5.") == (
        "“Training time” must be from 10 to 86,400, got 5."
    )
    assert as_sentence("Value 7 is greater than maximum value 5.") == "The value must be at most 5, not 7."
    assert as_sentence("--bptt must be at most 512, got 600.") == "“bptt” must be at most 512, got 600."


def test_hostile_messages_take_no_time():
    for text in ("'" * 20_000, "x is not UTF-8: " * 2000, "--" * 20_000, "{} {0} {1}" * 3000):
        in_words_of_the_page(text)
