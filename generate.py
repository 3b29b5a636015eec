#!/usr/bin/env python
"""Write text with a trained model.

    python generate.py                           the newest run, or the model that ships with lm
    python generate.py runs/hamlet --prompt "HAMLET:" --length 1000
    python generate.py --num-samples 4 --seed 7 --json

Text goes to standard output as it is made, everything else to standard error. What a model trained
with --direction backward writes leads up to the prompt.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lm.command_line import add_settings, make_parser, run
from lm.config import SamplingConfig
from lm.errors import UserError
from lm.settings import settings_of
from lm.visible import printable

if TYPE_CHECKING:
    from lm.language_model import LanguageModel


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("model", nargs="?", default=None, metavar="MODEL", help="a run, a saved folder or a Hub id")
    text = parser.add_mutually_exclusive_group()
    text.add_argument("--prompt", default="", metavar="TEXT", help="how the text begins, or ends if backward")
    text.add_argument("--prompt-file", metavar="F", help="read it from a file; '-': standard input")
    add("--length", type=at_least(1), default=400, metavar="N", help="tokens to write (default: 400)")
    add("--num-samples", type=at_least(1), default=1, metavar="N", help="texts, written together")
    add_settings(parser, SamplingConfig, "how the next token is chosen")
    add("--stop", action="append", default=[], metavar="STRING", help="end before it; repeatable")
    add("--seed", type=at_least(0), default=None, metavar="N", help="the same seed, the same text")
    add("--unknown", choices=("error", "skip", "replace"), default="replace",
        help="what to do with characters of the prompt that the vocabulary lacks")  # fmt: skip
    add("--json", action="store_true", default=False, help="one object a line: text, tokens, logprobs")
    add("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to compute")
    add("--precision", choices=("auto", "fp32", "bf16"), default="fp32", help="of the weights")
    return parser.parse_args(arguments)


def at_least(minimum: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if value < minimum:
            raise argparse.ArgumentTypeError(f"must be at least {minimum}")
        return value

    return number


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    prompt = read_prompt(options)
    stop = [from_argument("--stop", string) for string in options.stop]

    from lm.hub import default_model, load

    model = load(options.model or default_model(), options.device, options.precision)
    warn_of_unknown(model, prompt, options.unknown)
    settings = {name: getattr(options, name) for name in settings_of(SamplingConfig) if name in options}
    settings |= {"max_new_tokens": options.length, "stop": stop, "unknown": options.unknown}
    seed = options.seed if options.seed is not None else time.time_ns() % 2**31
    begin = time.perf_counter()
    if options.num_samples == 1 and not options.json:
        count = stream(model, prompt, seed=seed, **settings)
    else:
        count = write_samples(model, prompt, options, seed=seed, **settings)
    seconds = time.perf_counter() - begin
    print(
        f"{count:,} tokens in {seconds:.2f} s, {count / seconds:,.0f} a second; seed {seed}", file=sys.stderr
    )
    return 0


def read_prompt(options: argparse.Namespace) -> str:
    file = getattr(options, "prompt_file", None)
    if file is None:
        return from_argument("--prompt", options.prompt)
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        # As texts are read for the training.
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except OSError as error:
        raise UserError(f"the prompt file {file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"the prompt file {file} is not UTF-8, at byte {error.start}.") from error


def from_argument(flag: str, text: str) -> str:
    """What was typed behind a flag, in UTF-8 whatever the locale says of it."""
    try:
        return text.encode("utf-8", "surrogateescape").decode()
    except UnicodeError as error:
        raise UserError(f"the text of {flag} is not UTF-8, at byte {error.start}.") from error


def warn_of_unknown(model: LanguageModel, prompt: str, unknown: str) -> None:
    missing = model.tokenizer.unknown_in(prompt) if unknown != "error" else []
    if missing:
        what = "replaced by <unk>" if unknown == "replace" else "left out"
        names = ", ".join(map(repr, missing[:8])) + (" …" if len(missing) > 8 else "")
        print(f"warning: the model does not know {names}; {what}.", file=sys.stderr)


def stream(model: LanguageModel, prompt: str, **settings) -> int:
    if model.backward:  # its text is known from the end on, and can be read only when it is whole
        (sample,) = model.generate(prompt, **settings)
        show(f"{sample.text}{prompt}\n")
        return len(sample.tokens)
    pieces = model.stream(prompt, **settings)  # refuses bad settings before anything is printed
    show(prompt)
    count, held = 0, ""
    for piece in pieces:
        count += 1
        text = held + piece.text
        # Half of a line's end, or a joiner, which terminals know only together with what it joins.
        held = text[-1:] if text.endswith(("\r", "\u200d")) else ""
        show(text.removesuffix(held))
    show(held + "\n")
    return count


def write_samples(model: LanguageModel, prompt: str, options: argparse.Namespace, **settings) -> int:
    samples = model.generate(prompt, num_samples=options.num_samples, **settings)
    every_character = sys.stdout.encoding.lower().startswith("utf")
    for number, sample in enumerate(samples, start=1):
        if options.json:
            record = {"text": sample.text, "tokens": sample.tokens, "logprobs": sample.logprobs}
            record = {"prompt": prompt, **record, "seed": sample.seed}
            show(json.dumps(record, ensure_ascii=not every_character) + "\n")
        else:
            text = sample.text + prompt if model.backward else prompt + sample.text
            show(f"--- sample {number}, seed {sample.seed}\n{text}\n\n")
    return sum(len(sample.tokens) for sample in samples)


def show(text: str) -> None:
    """Print text: exactly as it is, but what a terminal would obey is made visible on one."""
    print(printable(text) if sys.stdout.isatty() else text, end="", flush=True)


def script() -> int:
    return run(main)


if __name__ == "__main__":
    sys.exit(script())
