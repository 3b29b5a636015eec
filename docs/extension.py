"""A griffe extension: prepares this project's docstrings for the pages of the Python API.

- Doctest lines (`>>>`) become fenced code.
- A field of a dataclass takes its description from the comment on its line.
- A setting takes its default and its description from `setting(default, "help", ...)`.
- `LanguageModel.stream` in backticks becomes a link, if a page shows LanguageModel.
- <unk> and <eos> become code instead of HTML tags.
"""

import ast
import re
from pathlib import Path
from typing import Any

import griffe

_PAGES = "".join(page.read_text() for page in Path(__file__).parent.glob("reference/*.md"))
_SHOWN = re.findall(r"^::: (lm\.[\w.]+\.[A-Z]\w+)$", _PAGES, re.MULTILINE)
_PATHS = {path.rpartition(".")[2]: path for path in _SHOWN}
_LINK = re.compile(rf"`({'|'.join(_PATHS)})(\.\w+)?`")
_DOCTEST = re.compile(r"(?:^(?:>>>|\.\.\.).*\n?)+", re.MULTILINE)
_TAG = re.compile(r"(?<!`)<(?:unk|eos)>(?!`)")
_COMMENT = re.compile(r"  # (.+)$")


class Docstrings(griffe.Extension):
    """Apply the rules above to everything that griffe finds."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of `obj` as Markdown."""
        if obj.docstring:
            obj.docstring.value = to_markdown(obj.docstring.value)

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """Describe the fields of a dataclass, before griffe derives its signature from them."""
        if not any("dataclass" in str(decorator.value) for decorator in cls.decorators):
            return
        for field in cls.attributes.values():
            text = ""
            if isinstance(field.value, griffe.ExprCall) and str(field.value.function) == "setting":
                field.value, text = field.value.arguments[0], ast.literal_eval(str(field.value.arguments[1]))
            elif found := _COMMENT.search(field.source.split("\n")[0]):
                text = found[1]
            if text and not field.docstring:
                field.docstring = griffe.Docstring(f"{text[0].upper()}{text[1:]}.", parent=field)


def to_markdown(text: str) -> str:
    """A docstring as Markdown."""
    text = _DOCTEST.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", text)
    text = _TAG.sub(r"`\g<0>`", text)
    return _LINK.sub(link, text)


def link(found: re.Match[str]) -> str:
    """A reference to a class or one of its members as a link."""
    name, member = found[1], found[2] or ""
    return f"[`{name}{member}`][{_PATHS[name]}{member}]"
