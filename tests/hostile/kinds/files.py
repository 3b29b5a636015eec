"""Hostile files of all names: missing, links, pipes; also README.md, training/ and the folder itself."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.hostile.damage import BIG, BRACKETS, ESCAPE, Damage, Kinds, add_kinds, sparse, with_file

KINDS: Kinds = {}
add = partial(add_kinds, KINDS)


def deleted(file: str) -> Damage:
    return lambda folder: (folder / file).unlink()


def instead(file: str, make: Callable[[Path], object]) -> Damage:
    """Delete a file and make something else of its name."""

    def replace(folder: Path) -> None:
        (folder / file).unlink()
        make(folder / file)

    return replace


def link(target: str) -> Callable[[Path], None]:
    """Make a symbolic link."""
    return lambda path: path.symlink_to(target)


def fifo(path: Path) -> None:
    """Make a named pipe that nobody writes to."""
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    """Make a socket that nobody listens to."""
    here = os.getcwd()
    os.chdir(path.parent)  # the address of a socket has at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def outside(content: str) -> Callable[[Path], None]:
    """Make a link to a good file outside the folder."""

    def make(path: Path) -> None:
        target = next(parent for parent in path.parents if parent.name == "runs").with_name("outside")
        target.write_text(content)
        path.symlink_to(target)

    return make


def moved_out(file: str) -> Damage:
    """Move a file out of the folder and leave a link to it."""

    def move(folder: Path) -> None:
        target = folder.parents[1] / "moved"
        shutil.move(folder / file, target)
        (folder / file).symlink_to(target)

    return move


def renamed(name: str | bytes) -> Damage:
    def rename(folder: Path) -> None:
        os.rename(folder, os.path.join(os.fsencode(folder.parent), os.fsencode(name)))

    return rename


def dated(file: str, seconds: float) -> Damage:
    return lambda folder: os.utime(folder / file, (seconds, seconds))


# the files of a model
for group, file, without in (
    ("config", "config.json", "not a model folder"),
    ("weights", "model.safetensors", "model.safetensors is missing"),
    ("tokenizer", "tokenizer.json", "tokenizer.json is missing"),
):
    add(group, without, missing=deleted(file))
    add(
        group,
        "is not a regular file",
        directory=instead(file, Path.mkdir),
        fifo=instead(file, fifo),
        socket=instead(file, unix_socket),
        loop=instead(file, link(file)),
    )
    add(
        group,
        "is a link that leaves its folder",
        link=moved_out(file),
        link_passwd=instead(file, link("/etc/passwd")),
        link_zero=instead(file, link("/dev/zero")),
        link_up=instead(file, link(f"../other/{file}")),
        link_process=instead(file, link("/proc/self/environ")),
        dangling=instead(file, link("/nowhere/x")),
    )

# README.md
add(
    "card",
    None,
    missing=deleted("README.md"),
    link_passwd=instead("README.md", link("/etc/passwd")),
    link_zero=instead("README.md", link("/dev/zero")),
    link=instead("README.md", outside("SECRET")),
    fifo=instead("README.md", fifo),
    directory=instead("README.md", Path.mkdir),
    sparse=sparse("README.md", 100 << 30),
    binary=with_file("README.md", os.urandom(100_000)),
    script=with_file("README.md", "<script>alert(1)</script> [x](javascript:alert(1)) ![y](http://z/)"),
    quotes=with_file("README.md", ">" * 190_000 + "x"),
    brackets=with_file("README.md", "[" * 190_000),
    links=with_file("README.md", "[a](" * 45_000),
    images=with_file("README.md", "![" * 90_000),
    stars=with_file("README.md", "*a **b " * 27_000),
    ticks=with_file("README.md", "".join("`" * n + " " for n in range(1, 600))),
    lists=with_file("README.md", "\n".join(" " * n + "- x" for n in range(600))),
    table=with_file("README.md", "|" * 1000 + "\n" + "|-" * 1000 + "|\n" + ("|" * 1000 + "\n") * 180),
    angles=with_file("README.md", "<" * 190_000),
    front_matter=with_file("README.md", "---\n" + "a: &a [*a]\n" * 15_000),
    references=with_file("README.md", "".join(f"[{n}]: x\n" for n in range(12_000)) + "[1]" * 12_000),
)


# training/
add(
    "training",
    None,
    curve_passwd=instead("training/loss.svg", link("/etc/passwd")),
    curve_fifo=instead("training/loss.svg", fifo),
    curve_sparse=sparse("training/loss.svg", 100 << 30),
    metrics_link=instead("training/metrics.jsonl", outside("SECRET")),
    metrics_zero=instead("training/metrics.jsonl", link("/dev/zero")),
    metrics_fifo=instead("training/metrics.jsonl", fifo),
    metrics_sparse=sparse("training/metrics.jsonl", 100 << 30),
    metrics_deep=with_file("training/metrics.jsonl", BRACKETS + "\n"),
    metrics_numbers=with_file(
        "training/metrics.jsonl", f'{{"step": {BIG}, "tokens": {BIG}, "validation_loss": {BIG}}}\n' * 3
    ),
    metrics_list=with_file("training/metrics.jsonl", "[1]\n[2]\n"),
    metrics_strings=with_file("training/metrics.jsonl", '{"step": "x", "validation_loss": {}}\n' * 3),
    metrics_binary=with_file("training/metrics.jsonl", os.urandom(10_000)),
    progress_fifo=instead("training/checkpoint/progress.json", fifo),
    progress_deep=with_file("training/checkpoint/progress.json", BRACKETS),
    progress_list=with_file("training/checkpoint/progress.json", "[]"),
    lock_fifo=lambda folder: fifo(folder / "training" / "lock"),
    lock_zero=lambda folder: link("/dev/zero")(folder / "training" / "lock"),
    lock_deep=with_file("training/lock", "[" * 900),
    lock_number=with_file("training/lock", f'{{"process": {BIG}, "host": {BIG}}}'),
    elsewhere=lambda folder: (shutil.rmtree(folder / "training"), (folder / "training").symlink_to("/etc")),
    file=lambda folder: (shutil.rmtree(folder / "training"), (folder / "training").touch()),
)


# the folder itself
add(
    "folder",
    None,
    from_1970=dated("model.safetensors", 0),
    from_1900=dated("model.safetensors", -2_200_000_000),
    from_the_future=dated("model.safetensors", 15_000_000_000),
    name_html=renamed("<img src=x onerror=alert(1)>"),
    name_escape=renamed(f"a{ESCAPE}b"),
    name_newline=renamed("a\nb"),
    name_right_to_left=renamed("a\u202eb"),
    name_long=renamed("x" * 200),
    name_dash=renamed("--help"),
    more_files=lambda folder: [(folder / f"x{number}").touch() for number in range(2000)],
)
add("folder", "a name that is not UTF-8", name_not_utf8=renamed(b"a\xff"))
add(
    "folder",
    "",
    empty=lambda folder: (shutil.rmtree(folder), folder.mkdir()),
    loop=lambda folder: (shutil.rmtree(folder), folder.symlink_to(folder)),
    dangling=lambda folder: (shutil.rmtree(folder), folder.symlink_to("/nowhere")),
    file=lambda folder: (shutil.rmtree(folder), folder.touch()),
    fifo=lambda folder: (shutil.rmtree(folder), os.mkfifo(folder)),
)
