"""Write text with a trained model.

    lm generate                           the newest run, or the model that ships with lm
    lm generate runs/hamlet --prompt "HAMLET:" --length 1000
    lm generate --num-samples 4 --seed 7 --json
    lm generate --match '[A-Z][a-z]+, [0-9]{4}'
    lm generate --interactive             pick the next tokens by hand

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
from typing import TYPE_CHECKING, Any

from lm.cli.parser import add_settings, make_parser
from lm.config.schema import SamplingConfig
from lm.config.settings import settings_of
from lm.errors import UserError
from lm.escaping import printable

if TYPE_CHECKING:
    from lm.language_model import LanguageModel


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = make_parser("generate", __doc__ or "")
    add = parser.add_argument
    add("model", nargs="?", default=None, metavar="MODEL", help="a run, a saved folder or a Hub id")
    text = parser.add_mutually_exclusive_group()
    text.add_argument("--prompt", default="", metavar="TEXT", help="how the text begins, or ends if backward")
    text.add_argument("--prompt-file", metavar="F", help="read it from a file; '-': standard input")
    text.add_argument("--prompts-file", metavar="F", help="many prompts, one a line, continued together")
    text.add_argument("--suffix", metavar="TEXT", help="how the text ends; for a backward model")
    text.add_argument("--infill", metavar="LEFT|RIGHT", help="what stands between; with --backward-model")
    add("--length", type=at_least(1), default=None, metavar="N",
        help="tokens to write (default: 400; 80 into a gap)")  # fmt: skip
    add("--num-samples", type=at_least(1), default=1, metavar="N", help="texts, written together")
    add("--interactive", action="store_true", default=False, help="pick the next tokens by hand")
    add_settings(parser, SamplingConfig, "how the next token is chosen")
    add("--beams", type=at_least(1), default=1, metavar="N", help="search for the likeliest text instead")
    add("--length-penalty", type=float, default=1.0, metavar="A",
        help="a text's score in it: its log-probability, divided by its length to the power A")  # fmt: skip
    limits = parser.add_argument_group("what the text may be")
    limits.add_argument(
        "--stop", action="append", default=[], metavar="STRING", help="end before it; repeatable"
    )
    limits.add_argument(
        "--ban", action="append", default=[], metavar="STRING", help="never write it; repeatable"
    )
    limits.add_argument(
        "--match", default=None, metavar="REGEX", help="a regular expression that it must match"
    )
    limits.add_argument(
        "--choice", action="append", default=[], metavar="TEXT", help="one of these; repeatable"
    )
    add("--mix", action="append", default=[], metavar="MODEL=W", type=weighted,
        help="average its probabilities in, with this weight; repeatable")  # fmt: skip
    add("--backward-model", default=None, metavar="MODEL", help="reads the other way, for --infill")
    add("--seed", type=at_least(0), default=None, metavar="N", help="the same seed, the same text")
    add("--unknown", choices=("error", "skip", "replace"), default="replace",
        help="what to do with characters of the prompt that the vocabulary lacks")  # fmt: skip
    add("--json", action="store_true", default=False, help="one object a line: text, tokens, logprobs")
    add("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to compute")
    add("--precision", choices=("auto", "fp32", "bf16", "int8"), default="fp32",
        help="of the weights; int8: on a CPU (default: fp32)")  # fmt: skip
    return parser.parse_args(arguments)


def at_least(minimum: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if value < minimum:
            raise argparse.ArgumentTypeError(f"must be at least {minimum}")
        return value

    return number


def weighted(text: str) -> tuple[str, float]:
    model, _, weight = text.rpartition("=")
    try:
        return model, float(weight)
    except ValueError:
        raise argparse.ArgumentTypeError(f"takes a model and its weight, such as {text}=0.5") from None


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    prompts = read_prompts(options)
    texts = {
        name: [from_argument(f"--{name}", t) for t in getattr(options, name)] for name in ("stop", "ban")
    }
    choices = [from_argument("--choice", text) for text in options.choice]
    match = options.match and from_argument("--match", options.match)

    from lm.language_model import load
    from lm.saving import default_model

    def loaded(name: str | Path) -> LanguageModel:
        return load(name, options.device, options.precision)

    model = loaded(options.model or default_model())
    if options.mix:
        model = model.mixed_with([(loaded(name), weight) for name, weight in options.mix])
    if "suffix" in options and not model.backward:
        raise UserError("--suffix is for a model trained with --direction backward; this one reads forward.")
    for prompt in prompts:
        warn_of_unknown(model, prompt, options.unknown)
    settings = {name: getattr(options, name) for name in settings_of(SamplingConfig) if name in options}
    settings |= {"unknown": options.unknown, **texts}
    settings["max_new_tokens"] = options.length or (80 if "infill" in options else 400)
    settings |= {"match": match, "choices": choices}
    seed = options.seed if options.seed is not None else time.time_ns() % 2**31
    if options.interactive:
        from lm.cli.interactive import interact

        return interact(model, prompts[0], seed=seed, **settings)
    begin = time.perf_counter()
    if "infill" in options:
        count = fill(model, options, seed=seed, **settings)
    elif len(prompts) == options.num_samples == options.beams == 1 and not options.json:
        count = stream(model, prompts[0], seed=seed, **settings)
    else:
        count = write_samples(model, prompts, options, seed=seed, **settings)
    seconds = time.perf_counter() - begin
    print(
        f"{count:,} tokens in {seconds:.2f} s, {count / seconds:,.0f} a second; seed {seed}", file=sys.stderr
    )
    return 0


def read_prompts(options: argparse.Namespace) -> list[str]:
    if "prompts_file" in options:
        prompts = read_text(options.prompts_file).splitlines()
        if not prompts:
            raise UserError(
                f"the prompt file {options.prompts_file} is empty: write one prompt on each line."
            )
        return prompts
    if "prompt_file" in options:
        return [read_text(options.prompt_file)]
    if "suffix" in options:
        return [from_argument("--suffix", options.suffix)]
    return [from_argument("--prompt", options.prompt)]


def read_text(file: str) -> str:
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
    from lm.tokenization.tokenizer import describe_unknown

    missing = describe_unknown(model.tokenizer, prompt) if unknown != "error" else ""
    if missing:
        what = "replaced by <unk>" if unknown == "replace" else "left out"
        print(f"warning: the model does not know {missing}; {what}.", file=sys.stderr)


def stream(model: LanguageModel, prompt: str, **settings: Any) -> int:
    if model.backward:  # its text is known from the end on, and can be read only when it is whole
        (sample,) = model.generate(prompt, **settings)
        show(model.direction.join(prompt, sample.text) + "\n")
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


def write_samples(
    model: LanguageModel, prompts: list[str], options: argparse.Namespace, **settings: Any
) -> int:
    settings |= {"beams": options.beams, "length_penalty": options.length_penalty}
    samples = model.generate(prompts, num_samples=options.num_samples, **settings)
    of = [prompt for prompt in prompts for _ in range(options.num_samples)]
    for number, (prompt, sample) in enumerate(zip(of, samples, strict=True), start=1):
        if options.json:
            show_json(prompt, sample.text, sample.tokens, sample.logprobs, sample.seed)
        else:
            text = model.direction.join(prompt, sample.text)
            how = f"one of the {options.beams} best" if sample.seed is None else f"seed {sample.seed}"
            show(f"--- sample {number}, {how}\n{text}\n\n")
    return sum(len(sample.tokens) for sample in samples)


def fill(model: LanguageModel, options: argparse.Namespace, **settings: Any) -> int:
    from lm.insight.infill import infill
    from lm.language_model import load

    if options.backward_model is None:
        raise UserError("--infill needs a model that reads the other way: name it with --backward-model.")
    other = load(options.backward_model, options.device, options.precision)
    left, bar, right = from_argument("--infill", options.infill).partition("|")
    if not bar:
        raise UserError("--infill takes what stands before the gap and behind it, with a | between them.")
    gaps = infill(model, other, left, right, **settings)
    for gap in gaps[: options.num_samples]:
        if options.json:
            show_json(left, gap.text, gap.tokens, [], settings["seed"], right=right, score=gap.score)
        else:
            show(f"{left}{gap.text}{right}\n")
    return sum(len(gap.tokens) for gap in gaps)


def show_json(
    prompt: str, text: str, tokens: list[int], logprobs: list[float], seed: int | None, **more: Any
) -> None:
    every_character = sys.stdout.encoding.lower().startswith("utf")
    record = {"prompt": prompt, "text": text, "tokens": tokens, "logprobs": logprobs, "seed": seed, **more}
    show(json.dumps(record, ensure_ascii=not every_character) + "\n")


def show(text: str) -> None:
    """Print text: exactly as it is, but what a terminal would obey is made visible on one."""
    print(printable(text) if sys.stdout.isatty() else text, end="", flush=True)
