"""The map in CONTRIBUTING.md lists every file with the first line of its docstring.

`python -m tests.test_contributing` rewrites the map.
"""

import ast
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
FOLDERS = ("lm", "app", "benchmarks")
SUFFIXES = (".py", ".js", ".css", ".json")
MAP = re.compile(r"(?<=<!-- map -->\n```text\n).*?(?=```\n<!-- /map -->)", re.DOTALL)


def tracked() -> list[Path]:
    """The files of the map."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.py", *FOLDERS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = map(Path, sorted(set(listed.stdout.splitlines())))
    wanted = (p for p in paths if p.suffix in SUFFIXES and (len(p.parts) == 1 or p.parts[0] in FOLDERS))
    return [p for p in wanted if (ROOT / p).exists() and "pretrained" not in p.parts]


def first_line(path: Path) -> str:
    """The first line of a file's docstring, or of the comment at its top."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.suffix == ".py":
        line = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    else:
        comment = re.match(r"(?://|/\*)\s*(.*?)\s*(?:\*/)?\n", text)
        line = comment[1] if comment else ""
    return line.removesuffix(".")


def expected_map() -> str:
    """Every file, indented below its folder."""
    lines: list[str] = []
    folders: tuple[str, ...] = ()
    # A folder's own files come before its subfolders, and __init__.py describes the folder itself.
    for path in sorted(tracked(), key=lambda p: [*((1, part) for part in p.parts[:-1]), (0, p.name)]):
        parents = path.parts[:-1]
        if parents != folders:
            for depth in range(len(parents)):
                if parents[: depth + 1] != folders[: depth + 1]:
                    lines.append(f"{'  ' * depth}{parents[depth]}/")
            folders = parents
        if path.name == "__init__.py":
            lines[-1] = f"{lines[-1]:28} {first_line(path)}".rstrip()
        else:
            lines.append(f"{'  ' * len(parents) + path.name:28} {first_line(path)}".rstrip())
    return "\n".join(lines) + "\n"


def test_the_map_lists_every_file():
    found = MAP.search(CONTRIBUTING.read_text(encoding="utf-8"))
    assert found and found[0] == expected_map(), "run: python -m tests.test_contributing"


def test_every_python_file_says_what_it_contains():
    silent = [str(path) for path in tracked() if path.suffix == ".py" and not first_line(path)]
    assert not silent


if __name__ == "__main__":
    text = CONTRIBUTING.read_text(encoding="utf-8")
    CONTRIBUTING.write_text(MAP.sub(lambda match: expected_map(), text), encoding="utf-8")
