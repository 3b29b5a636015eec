"""Everything the documentation mentions exists: commands, flags, files, imports, extras, labels."""

import ast
import dataclasses
import importlib
import json
import pydoc
import re
import shlex
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from functools import cache
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.testing import assert_allclose
from torch.distributed.run import get_args_parser as torchrun_parser

import lm
from app.command_line import parse_app, parse_serve
from lm.cli import data, evaluate, export, generate, train
from lm.config import schema
from lm.config.schema import CacheConfig, DynamicConfig, ModelConfig
from lm.config.settings import flag_of
from lm.model.network import RecurrentLM
from lm.tokenization.vocabulary import train_tokenizer
from tests.conftest import called

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")),
    *sorted(ROOT.glob("docs/**/*.md")),
]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PARSERS = {
    "train": train.parse,
    "generate": generate.parse,
    "evaluate": evaluate.parse,
    "export": export.parse,
    "app": parse_app,
    "serve": parse_serve,
    "data": data.parse,
}
GUIDES = [page for page in PAGES if page.parent == ROOT / "docs" and page.stem != "log"]
SCRIPTS = {"train.py": "train", "generate.py": "generate"}
ELSEWHERE = {"--rdzv-endpoint", "--signal"}  # flags of torchrun and Slurm

_BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_PATH = re.compile(r"(?:\.ci|app|benchmarks|docs|lm|notebooks|tests)/[\w./-]+")
_FLAG = re.compile(r"--[a-z][a-z-]+")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page: Path, *languages: str) -> Iterator[str]:
    """The fenced blocks of a page in these languages, without their indentation."""
    for indent, language, text in _BLOCK.findall(page.read_text()):
        if language in languages:
            yield re.sub(rf"^{indent}", "", text, flags=re.MULTILINE)


def spans(page: Path) -> list[str]:
    """The inline code of a page, with the \\| of tables undone."""
    return [span.replace("\\|", "|") for span in _SPAN.findall(_BLOCK.sub("", page.read_text()))]


def simple_commands(line: str) -> Iterator[list[str]]:
    """The words of each command of a shell line, without variables in front, pipes and redirections."""
    line = re.sub(r"\s\d?>\s*\S+", "", line)
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, "|"]:
        if re.fullmatch(r"[();<>|&]+", word):
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words.pop(0)
            if words:
                yield words
            words = []
        else:
            words.append(word)


def commands(page: Path) -> Iterator[list[str]]:
    """Every command in the shell blocks of a page."""
    for text in blocks(page, "bash"):
        for line in text.replace("\\\n", " ").splitlines():
            if not line.startswith("#"):
                yield from simple_commands(line)
    for text in blocks(page, "console"):
        for line in text.splitlines():
            if line.startswith("$ "):
                yield from simple_commands(line.removeprefix("$ "))


def parse(arguments: list[str]) -> None:
    """Parse the arguments of `lm` with the parser of the subcommand; argparse exits if they are wrong."""
    name, *rest = arguments
    PARSERS[name](rest)


@cache
def flags_of(name: str) -> set[str]:
    """The flags that a subcommand lists in its help."""
    with redirect_stdout(StringIO()) as help_text, suppress(SystemExit):
        parse([name, "--help"])
    return set(_FLAG.findall(help_text.getvalue()))


def check_benchmark(words: list[str]) -> None:
    script = ROOT / words[0]
    flags = {word for word in words if _FLAG.fullmatch(word)}
    assert flags <= set(_FLAG.findall(script.read_text()))


def check(words: list[str]) -> None:
    """Fail if one of our commands does not exist or does not take these arguments."""
    match words:
        case ["lm", *rest] | ["python", "-m", "lm", *rest] if rest:
            parse(rest)
        case ["python", "-m", "app", *rest]:
            parse(["app", *rest])
        case ["python", script, *rest] if script in SCRIPTS:
            parse([SCRIPTS[script], *rest])
        case ["python", script, *rest] if script.startswith("benchmarks/"):
            check_benchmark([script, *rest])
        case ["python", "-c", code]:
            check_python(code)
        case ["torchrun" | "srun", *_]:
            options = torchrun_parser().parse_args(words[words.index("torchrun") + 1 :])
            launcher = ["python", "-m"] if options.module else ["python"]
            check([*launcher, options.training_script, *options.training_script_args])
        case ["pip", "install", *rest]:
            for extra in re.findall(r"\[([\w,]+)\]", " ".join(rest)):
                assert set(extra.split(",")) <= set(PYPROJECT["project"]["optional-dependencies"])


def check_python(code: str) -> None:
    """Fail if a snippet does not compile, or names something of lm that does not exist."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            for name in node.names:
                if name.name.split(".")[0] == "lm":
                    importlib.import_module(name.name)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lm":
            module = importlib.import_module(node.module)
            assert all(hasattr(module, name.name) for name in node.names), ast.unparse(node)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "lm":
            assert hasattr(lm, node.attr), ast.unparse(node)


@each_page
def test_commands_parse(page: Path):
    for words in commands(page):
        try:
            check(words)
        except (SystemExit, AssertionError, KeyError) as error:
            pytest.fail(f"{page.name}: {shlex.join(words)}: {error}")


def test_commands_are_found():
    """The test above looks at what it should: several ways to write a command."""
    found = [words for page in PAGES for words in commands(page)]
    for start in (["lm", "train"], ["lm", "serve"], ["torchrun"], ["pip", "install"], ["python"]):
        assert any(words[: len(start)] == start for words in found), start


@each_page
def test_flags_exist(page: Path):
    """`lm train --resume` in a sentence names flags of `lm train`; `--resume` alone those of any command."""
    benchmarks = ROOT.glob("benchmarks/*.py")
    of_benchmarks = {flag for script in benchmarks for flag in _FLAG.findall(script.read_text())}
    known = of_benchmarks.union(ELSEWHERE, *map(flags_of, PARSERS))
    for span in spans(page):
        if command := re.match(r"(?:.* \| )?lm (\w+)(.*)", span):
            assert command[1] in [*PARSERS, "COMMAND"], span
            allowed = {"--help"} if command[1] == "COMMAND" else flags_of(command[1])
            assert set(_FLAG.findall(command[2])) <= allowed, span
        elif span.startswith("--"):
            assert set(_FLAG.findall(span)) <= known, span


@pytest.mark.parametrize("name", PARSERS)
def test_every_flag_is_in_a_guide(name: str):
    """The reference of settings is not enough: it says what a flag does, but not when to use it."""
    guides = "".join(page.read_text() for page in GUIDES)
    flags = {flag for flag in flags_of(name) if not flag.startswith("--no-")} - {"--help"}
    assert sorted(flags - set(_FLAG.findall(guides))) == []


@each_page
def test_names_of_python_exist(page: Path):
    """`lm.train`, `lm.insight.surprisal` and `model.score(...)` in a sentence."""
    for span in spans(page):
        if found := re.match(r"lm(?:\.\w+)+", span):
            assert pydoc.locate(found[0]), span
        elif (found := re.match(r"model\.(\w+)", span)) and span != "model.safetensors":
            assert hasattr(lm.LanguageModel, found[1]), span


@each_page
def test_paths_exist(page: Path):
    named = {span for span in spans(page) if _PATH.fullmatch(span)}
    assert [path for path in named if not (ROOT / path).exists()] == []


@each_page
def test_links_lead_to_files(page: Path):
    links = {link.partition("#")[0] for link in _LINK.findall(page.read_text()) if ":" not in link}
    assert [link for link in links if not (page.parent / link).exists()] == []


@each_page
def test_links_lead_to_headings(page: Path):
    """Those that the site does not check, because they are in README.md and other files outside docs/."""
    for link in _LINK.findall(page.read_text()):
        file, _, anchor = link.partition("#")
        if ":" in link or not anchor or anchor.startswith("lm."):
            continue
        target = page.parent / file if file else page
        headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}, link


def test_readme_links_to_every_guide():
    links = set(_LINK.findall((ROOT / "README.md").read_text()))
    assert {f"docs/{page.name}" for page in GUIDES} <= links


@each_page
def test_lines_are_wrapped(page: Path):
    """At 120 characters, apart from tables, images and code."""
    lines = _BLOCK.sub("", page.read_text()).splitlines()
    assert [line for line in lines if len(line) > 120 and not line.startswith(("|", "!["))] == []


@each_page
def test_blocks_name_their_language(page: Path):
    """The tests of this file do not see the commands of others."""
    fences = re.findall(r"^ *```(.*)$", page.read_text(), re.MULTILINE)
    assert all(fences[::2]) and not any(fences[1::2])


@each_page
def test_snippets_import_what_exists(page: Path):
    for code in blocks(page, "python"):
        check_python(code)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A folder with the models that the snippets load."""
    folder = tmp_path_factory.mktemp("docs")
    tokenizer = train_tokenizer("char", iter(["HAMLET: To be, or not to be\n"]), 100)
    for name in ("hamlet", "mine", "forward", "backward"):
        direction = "backward" if name == "backward" else "forward"
        network = RecurrentLM(ModelConfig(hidden_size=8, direction=direction), tokenizer.vocab_size)
        endless = {"trained_on": {"dataset": "hamlet", "documents": 1, "characters": 27}}
        lm.LanguageModel(network, tokenizer, endless).save(folder / "runs" / name)
    (folder / "my.txt").write_text("HAMLET: To be, or not to be\n" * 100)
    return folder


@each_page
def test_snippets_run(page: Path, models: Path, monkeypatch):
    """Those that use lm alone, without what they send to the Hub, and with trainings of a few steps."""
    monkeypatch.chdir(models)
    for code in blocks(page, "python"):
        code = re.sub(r'"[a-z]+\.txt"(.*)max_time="2m"', r'"my.txt"\1steps=3, hidden_size=8, layers=1', code)
        tree = ast.parse(code.replace("model.push_to_hub", "print"))
        imported = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
        if {(getattr(n, "module", None) or n.names[0].name).split(".")[0] for n in imported} == {"lm"}:
            exec(compile(tree, str(page), "exec"), {})


def console(page: Path) -> list[tuple[str, str]]:
    """The commands of the console blocks of a page, each with its output."""
    parts = [part for text in blocks(page, "console") for part in re.split(r"^\$ ", text, flags=re.MULTILINE)]
    return [(command, output) for command, _, output in (part.partition("\n") for part in parts) if command]


@pytest.mark.slow
@pytest.mark.parametrize("page", [ROOT / "docs" / "generating.md", ROOT / "docs" / "linguistics.md"])
def test_outputs_of_the_pretrained_model(page: Path, tmp_path: Path, monkeypatch):
    """Up to rounding, which differs between machines. The files are those that `cat` shows."""
    monkeypatch.chdir(tmp_path)
    number = re.compile(r"\d+\.\d+")
    for command, output in console(page):
        words = next(simple_commands(command))
        if words[0] == "cat":
            Path(words[1]).write_text(output)
        elif "pretrained" in words:
            result = called(words[1], *words[2:])
            lines = result.stdout.splitlines(keepends=True)
            printed = "".join(lines[: output.count("\n")] if "| head" in command else lines)
            assert number.sub("", printed) == number.sub("", output), command
            wanted, found = (np.array(number.findall(text), float) for text in (output, printed))
            assert_allclose(found, wanted, atol=0.001, err_msg=command)


@each_page
def test_reference_shows_what_exists(page: Path):
    shown = re.findall(r"^::: (\S+)(?:\n {4}.*)*?(?:\n +members: \[(.*)\])?$", page.read_text(), re.MULTILINE)
    for path, members in shown:
        module, _, name = path.rpartition(".")
        found = getattr(importlib.import_module(module), name, None) or importlib.import_module(path)
        fields = getattr(found, "__dataclass_fields__", {})
        assert [m for m in members.split(", ") if m and not hasattr(found, m) and m not in fields] == []


def test_defaults_of_evaluation():
    page = (ROOT / "docs" / "evaluating.md").read_text()
    for field in [*dataclasses.fields(DynamicConfig), *dataclasses.fields(CacheConfig)]:
        assert f"| `{flag_of(field.name)}` | {field.default} |" in page


def test_reference_of_the_settings_shows_every_class():
    shown = re.findall(
        r"^::: lm\.config\.schema\.(\w+)$", (ROOT / "docs/reference/settings.md").read_text(), re.M
    )
    assert set(shown) == {name for name in schema.__all__ if name.endswith("Config")} - {"RunConfig"}


def test_labels_of_the_web_ui():
    """Italics on the page about the web UI are labels, apart from the names of states."""
    labels = {key for file in ROOT.glob("app/ui/translations/*.json") for key in json.loads(file.read_text())}
    named = set(re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", (ROOT / "docs" / "studio.md").read_text()))
    assert named - labels - {"h", "c"} == set()


def test_extras_of_the_quickstart():
    """The table lists every extra for users."""
    extras = set(PYPROJECT["project"]["optional-dependencies"]) - {"test", "dev", "docs"}
    assert extras <= set(spans(ROOT / "docs" / "index.md"))


def test_citation():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["cff-version"], citation["title"]) == ("1.2.0", PYPROJECT["project"]["name"])
    assert str(citation["version"]) == lm.__version__


def test_site_lists_every_page():
    configuration = tomllib.loads((ROOT / "zensical.toml").read_text())
    listed = set(re.findall(r"[\w/-]+\.md", json.dumps(configuration["project"]["nav"])))
    assert listed == {str(page.relative_to(ROOT / "docs")) for page in ROOT.glob("docs/**/*.md")}


def test_changelog_names_modules_that_exist():
    """The column "now" of the table of moved modules."""
    modules = re.findall(r"^\| `[\w.]+` \| `([\w.]+)` \|$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert len(modules) > 30
    assert [module for module in modules if not find_spec(module)] == []
