"""Writes settings as YAML, and reads YAML that anyone may have written: of limited size, depth and number of
values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lm.errors import UserError, one_line
from lm.files.model_files import read_bytes

_MAX_BYTES = 4 << 20  # a config.yaml has about 2,000; `--dataset` may name thousands of files
MAX_VALUES = 20_000  # PyYAML reads about 40,000 in a second
MAX_CHARACTERS = 2 << 20  # in all values, those of aliases included
_MAX_DEPTH = 10  # a list of strings has two levels

_NAME = ' in "<unicode string>"'  # of every text that PyYAML reads
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp")


def as_yaml(settings: Mapping[str, Any]) -> str:
    """The content of a file of settings, from which `read_settings` reads the same texts."""
    return yaml.dump(dict(settings), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Writes unusual characters as escape sequences."""

    def represent_str(self, text: str) -> yaml.ScalarNode:
        # Otherwise, the line breaks U+0085, U+2028 and U+2029 are written as such, and read as spaces.
        return self.represent_scalar("tag:yaml.org,2002:str", text, None if text.isprintable() else '"')


_Dumper.add_representer(str, _Dumper.represent_str)


def read_settings(path: Path, folder: Path | None = None) -> dict[str, Any]:
    """The settings in a YAML file by their names. Numbers are strings, which `Setting.check` converts.

    With a `folder`, the file must be a regular one inside it; otherwise, it may also be a pipe. Raises
    UserError if it cannot be read, is too large, too deep or not YAML, or does not contain settings.
    """
    content = _content(path) if folder is None else read_bytes(path, folder, _MAX_BYTES)
    try:
        values = yaml.load(content.decode(), _Loader) or {}
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {_reason(error)}.") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} must contain lines of the form 'name: value'.")
    return {_name(name): value for name, value in values.items()}


def _name(key: object) -> str:
    return str(key).replace("-", "_")


def _content(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {_reason(error)}.") from error
    if len(content) > _MAX_BYTES:
        raise UserError(f"{path} has more than {_MAX_BYTES:,} bytes, the limit of a file of settings.")
    return content


def _reason(error: Exception) -> str:
    """What is wrong with a file and, if it is not YAML, where."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        where = f"line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}"
        return f"{one_line(error.problem)} in {where}"
    return getattr(error, "strerror", None) or one_line(error, 300).replace(_NAME, "").rstrip(".")


class _Loader(yaml.SafeLoader):
    """Raises YAMLError if a name occurs twice, and before a value is constructed that is too large."""

    # As on the command line: in YAML 1.1, 010 is 8, 1:30 is 90, 1e-3 is no number, and a folder 1.10 is 1.1.
    _as_written: dict[str | None, Any] = dict.fromkeys(_NUMBERS, yaml.SafeLoader.construct_scalar)
    yaml_constructors = yaml.SafeLoader.yaml_constructors | _as_written

    _values, _characters, _depth = 0, 0, 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        is_alias = self.check_event(yaml.AliasEvent)
        self._values += 1
        self._depth += 1
        if self._values > MAX_VALUES:
            raise yaml.YAMLError(f"it has more than {MAX_VALUES:,} values.")
        if self._depth > _MAX_DEPTH:
            raise yaml.YAMLError(f"it is nested more than {_MAX_DEPTH} levels deep.")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(node, yaml.ScalarNode):
            self._characters += len(node.value)
            if self._characters > MAX_CHARACTERS:
                raise yaml.YAMLError(f"its values have more than {MAX_CHARACTERS:,} characters.")
        elif is_alias:  # of lists of lists, a few lines make billions of values
            raise yaml.YAMLError("an alias (*) can only repeat a single value, not a list or a mapping.")
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        # What is not valid for its tag, such as !!bool x, raises errors of any kind.
        except Exception as error:
            found = f"found '{one_line(str(node.value), 40)}' as !!{node.tag.rpartition(':')[2]}"
            raise yaml.MarkedYAMLError(problem=found, problem_mark=node.start_mark) from error

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        names = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if (name := _name(key.value)) in names:
                raise yaml.MarkedYAMLError(problem=f"found '{name}' again", problem_mark=key.start_mark)
            names.add(name)
        return node
