"""Runs every command that needs no server, in one process and an empty folder.

The text has characters that an old console lacks.
"""

import sys
from pathlib import Path

import lm
from lm.cli.main import main
from lm.cli.parser import run

SHAPE = "--hidden-size 16 --layers 1 --batch-size 8 --bptt 16"
OFTEN = "--sample-every 10 --save-every 10 --eval-every 10"


def command(*arguments: object) -> None:
    assert run(lambda: main([*map(str, arguments)])) == 0, arguments


text = "→ 海が好き × the sea.\n" * 300
Path("海 x.txt").write_text(text, encoding="utf-8", newline="")
command("train", "海 x.txt", *SHAPE.split(), *OFTEN.split(), "--steps", 30, "--out", "run")
command("train", "海 x.txt", *SHAPE.split(), "--steps", 10, "--quiet")
loaded = lm.load("run")  # in memory while its files are replaced
command("train", "--resume", "run", "--steps", 50)
for _ in range(2):
    loaded.save("copy")
    session = lm.load("copy").session()
    session.feed("→ 海")
    session.save("my.session")
    lm.Session.load(loaded, "my.session")
command("export", "run", "page.html")
command("train", "海 x.txt", *SHAPE.split(), "--find-lr")
command("train", "海 x.txt", *SHAPE.split(), "--steps", 5, "--out", "run", "--overwrite", "--quiet")
command("train", "海 x.txt", "--init-from", "run", "--batch-size", 8, "--bptt", 16, "--steps", 5, "--quiet")
command("generate", "run", "--prompt", "→ 海", "--length", 20, "--json")
command("generate", "run", "--prompt", "→ 海", "--length", 20)
command("evaluate", "run", "--dataset", "海 x.txt", "--per-word", "words.tsv", "--per-token", "tokens.tsv")
command("data", "info")
command("data", "clear")
for path in Path().rglob("*"):
    assert "partial" not in path.name and path.name != "lock", path
    if path.is_file() and path.suffix not in (".safetensors", ".session"):
        assert "\r" not in path.read_bytes().decode("utf-8"), path
print("all done", sys.platform)
