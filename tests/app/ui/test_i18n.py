"""Both languages are complete and consistent, and each user gets the right one."""

import ast
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from gradio.context import LocalContext

from app.sampling import SLIDERS
from app.ui.i18n import chinese, localized, translate, translations
from app.ui.sliders import help_sentence

APP = Path(__file__).parents[3] / "app"
FIELD = re.compile(r"\{[^}]*\}")


def translated_texts():
    """(file name, text) for each literal argument of `localized` and `translate` in the code."""
    for path in APP.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("localized", "translate"):
                for part in ast.walk(node.args[0]):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        yield path.name, part.value


def test_every_text_in_the_code_is_translated():
    found = list(translated_texts())
    assert len(found) > 40
    assert not [(name, text) for name, text in found if text not in chinese()]


def test_every_translation_is_used():
    code = "".join(ast.unparse(ast.parse(path.read_text())) for path in APP.rglob("*.py"))
    scripts = "".join(path.read_text() for path in (APP / "static").glob("*.js"))
    help_texts = {help_sentence(name) for name in SLIDERS}  # from SamplingConfig
    unused = {english for english in chinese() if repr(english) not in code} - help_texts
    assert not {english for english in unused if f'"{english}"' not in scripts}


def test_the_texts_of_scripts_are_those_of_browser_json():
    scripts = "".join(path.read_text() for path in (APP / "static").glob("*.js"))
    calls = re.findall(r'lm\.translate\([^"]*"([^"]+)"(?: : "([^"]+)")?', scripts)
    browser = json.loads((APP / "ui" / "translations" / "browser.json").read_text("utf-8"))
    assert {text for call in calls for text in call if text} == set(browser)


def test_translations_have_the_same_fields():
    for english, other in chinese().items():
        assert sorted(FIELD.findall(english)) == sorted(FIELD.findall(other)), english
        assert other.strip()


def test_a_text_in_two_files_has_the_same_translation():
    known = {}
    for file in sorted((APP / "ui" / "translations").glob("*.json")):
        for english, other in json.loads(file.read_text("utf-8")).items():
            assert known.setdefault(english, other) == other, (file.name, english)


@pytest.mark.parametrize(
    "languages, expects_chinese",
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", True),
        ("zh-TW", True),
        ("en-US,zh;q=0.5", False),
        ("", False),
        ("de", False),
    ],
)
def test_messages_are_in_the_language_of_the_browser(languages, expects_chinese):
    token = LocalContext.request.set(SimpleNamespace(headers={"accept-language": languages}))
    try:
        assert (translate("Stop") == "停止") == expects_chinese
    finally:
        LocalContext.request.reset(token)
    assert translate("Stop") == "Stop"


def test_the_browser_gets_every_text_in_both_languages():
    tables = translations().translations_dict
    assert tables["en"][localized("Stop").key] == "Stop" and tables["zh"][localized("Stop").key] == "停止"
    assert len(tables["en"]) == len(tables["zh"]) == len(chinese())
    with pytest.raises(KeyError, match="no Chinese"):
        localized("a text without a translation")
