"""Two languages: nothing on the page lacks its Chinese, and both say the same things."""

import ast
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from gradio.context import LocalContext

from app.ui.i18n import chinese, localized, translate, translations

APP = Path(__file__).parents[3] / "app"
FIELD = re.compile(r"\{[^}]*\}")


def sentences():
    """Each sentence that stands in the code as the argument of `localized` or `translate`."""
    for path in APP.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("localized", "translate"):
                for part in ast.walk(node.args[0]):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        yield path.name, part.value


def test_every_sentence_in_the_code_is_translated():
    found = list(sentences())
    assert len(found) > 40
    assert not [(where, text) for where, text in found if text not in chinese()]


def test_both_languages_put_in_the_same_values():
    for english, other in chinese().items():
        assert sorted(FIELD.findall(english)) == sorted(FIELD.findall(other)), english
        assert other.strip()


def test_no_sentence_is_translated_twice_in_different_ways():
    known = {}
    for file in sorted((APP / "ui" / "translations").glob("*.json")):
        for english, other in json.loads(file.read_text("utf-8")).items():
            assert known.setdefault(english, other) == other, (file.name, english)


@pytest.mark.parametrize("languages, chinese_is_said", [
    ("zh-CN,zh;q=0.9,en;q=0.8", True), ("zh-TW", True), ("en-US,zh;q=0.5", False), ("", False), ("de", False),
])  # fmt: skip
def test_a_person_is_told_in_the_language_of_the_browser(languages, chinese_is_said):
    token = LocalContext.request.set(SimpleNamespace(headers={"accept-language": languages}))
    try:
        assert (translate("Stop") == "停止") == chinese_is_said
    finally:
        LocalContext.request.reset(token)
    assert translate("Stop") == "Stop"


def test_the_browser_knows_every_label_by_the_same_name():
    tables = translations().translations_dict
    assert tables["en"][localized("Stop").key] == "Stop" and tables["zh"][localized("Stop").key] == "停止"
    assert len(tables["en"]) == len(tables["zh"]) == len(chinese())
    with pytest.raises(KeyError, match="no Chinese"):
        localized("something that nobody has translated")
