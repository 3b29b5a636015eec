"""What is printed for people: names with control characters do not control the terminal."""

import io

from rich.console import Console

from lm.console.terminal import Terminal

NAME = "\x1b[31m[red]x[/nothing]\x07\x9b"
SHOWN = "␛[31m[red]x[/nothing]␇\ufffd"


def printed(act, terminal=False):
    shown = Terminal()
    shown.console = Console(file=io.StringIO(), force_terminal=terminal, highlight=False, soft_wrap=True)
    act(shown)
    return shown.console.file.getvalue()


def report(terminal):
    with terminal.progress() as show:
        show(NAME, 0.5)


def test_lines_tables_and_progress_show_control_characters():
    actions = (
        lambda t: t.say(NAME),
        lambda t: t.table({"Run": NAME}),
        lambda t: t.table([(NAME, "value")]),
        report,
    )
    for act in actions:
        assert SHOWN in printed(act) and not set("\x1b\x07\x9b") & set(printed(act))
    for act in actions:
        text = printed(act, terminal=True)
        assert SHOWN in text and "\x1b[31m[red]" not in text and "\x07" not in text
