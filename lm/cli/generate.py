"""Generate text with a trained model.

lm generate                           the newest run, else the pretrained model
lm generate runs/hamlet --prompt "HAMLET:" --length 1000
lm generate --num-samples 4 --seed 7 --json
lm generate --match '[A-Z][a-z]+, [0-9]{4}'
lm generate --interactive             choose among the next tokens

Text goes to standard output as it is generated, everything else to standard
error. The text of a model trained with --direction backward leads up to the
prompt.
"""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Sequence

from lm.cli.parser import MODEL, add_device, add_settings, check_requirements, integer_type, make_parser
from lm.config.schema import FILTERS, PENALTIES, SamplingConfig, SearchConfig
from lm.config.settings import build, check_not_empty, flag_of, settings_of
from lm.console.streams import read_input
from lm.errors import UserError
from lm.files.paths import expanded
from lm.generation.request import UNKNOWN, check_search

# Flags that have no effect in a mode, and flags that require another flag.
_IGNORED = {
    "interactive": (
        *("infill", "prompts_file", "beams", "length_penalty", "json", "num_samples", "length"),
        "backward_model",
    ),
    "infill": ("beams", "length_penalty"),
}
_REQUIRES = {
    "backward_model": ("infill",),
    "encoding": ("prompt_file", "prompts_file"),
    "repetition_window": PENALTIES,
}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The flags of the command that were given. Exits with status 2 if they are invalid."""
    parser = make_parser("generate", __doc__ or "")
    add = parser.add_argument
    model = f"{MODEL} (default: the newest run, else 'pretrained')"
    add("model", nargs="?", default=None, metavar="MODEL", help=model)
    text = parser.add_mutually_exclusive_group()
    text.add_argument("--prompt", default="", metavar="TEXT", help="the text to continue (default: none)")
    text.add_argument(
        "--prompt-file", metavar="FILE", help="read the prompt from a file; '-': standard input"
    )
    text.add_argument("--prompts-file", metavar="FILE", help="read one prompt per line; they share a batch")
    encoding = "encoding of the prompt file, such as cp1252 (default: as for `lm train`)"
    add("--encoding", default=None, metavar="NAME", help=encoding)
    text.add_argument("--suffix", metavar="TEXT", help="the end of the text (backward models only)")
    text.add_argument("--infill", metavar="LEFT|RIGHT", help="fill the gap at the | (with --backward-model)")
    length = "maximum number of tokens"
    add_number(parser, "--length", 1, 1_000_000_000, length, shown="400, or 80 with --infill")
    samples = "number of texts, generated in one batch"
    add_number(parser, "--num-samples", 1, 100_000, samples, shown="1", default=1)
    add("--interactive", action="store_true", default=False, help="choose among the next tokens")
    add_settings(parser, SamplingConfig, "sampling")
    add_settings(parser, SearchConfig, "beam search")
    limits = parser.add_argument_group("constraints")
    for flag, metavar, what in (
        ("--stop", "STRING", "end the text before this string; repeatable"),
        ("--ban", "STRING", "never generate this string; repeatable"),
        ("--choice", "TEXT", "generate this text or another --choice; repeatable"),
    ):
        limits.add_argument(flag, action="append", default=[], metavar=metavar, help=what)
    limits.add_argument(
        "--match", default=None, metavar="REGEX", help="generate a match of this regular expression"
    )
    models = parser.add_argument_group("more models")
    models.add_argument(
        "--mix",
        action="append",
        default=[],
        metavar="MODEL=W",
        type=weighted_model,
        help="average in the probabilities of this model with weight W; repeatable",
    )
    models.add_argument(
        "--backward-model", default=None, metavar="MODEL", help="the backward model for --infill"
    )
    seed = "the same seed generates the same text"
    add_number(parser, "--seed", 0, 2**64 - 1, seed, shown="a new one")
    add(
        "--unknown",
        choices=UNKNOWN,
        default="replace",
        help="how to handle prompt characters that are missing from the vocabulary (default: replace)",
    )
    add("--json", action="store_true", default=False, help="print one JSON object per text")
    precisions = ("auto", "fp32", "tf32", "bf16", "int8")
    add_device(parser, precisions, "the weights; tf32 requires a GPU, int8 a CPU")
    return parser.parse_args(arguments)


def add_number(
    parser: argparse.ArgumentParser,
    flag: str,
    minimum: int,
    maximum: int,
    help: str,
    shown: str,
    default: int | None = None,
) -> None:
    """Add a flag for a whole number; `shown` is the default as the help names it."""
    help = f"{help} (default: {shown}; range: [{minimum}, {maximum}])"
    parser.add_argument(flag, type=integer_type(minimum, maximum), default=default, metavar="N", help=help)


def weighted_model(text: str) -> tuple[str, float]:
    """An argument type: 'runs/hamlet=0.5' -> ('runs/hamlet', 0.5)."""
    model, _, weight = text.rpartition("=")
    try:
        value = float(weight)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a model and its weight, such as {text}=0.5") from None
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"the weight of {model} must be in (0, 1), got {weight}")
    return model, value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status. Raises UserError."""
    options = parse(arguments)
    check_combination(options)
    options.prompts = read_prompts(options)
    for name in ("stop", "ban", "choice"):
        setattr(options, name, [decoded(f"--{name}", text) for text in getattr(options, name)])
    if options.match is not None:
        options.match = decoded("--match", options.match)
    if "infill" in options:
        options.infill = decoded("--infill", options.infill)
    from lm.cli.run_generate import generate  # imports torch, for which --help should not wait

    return generate(options)


def check_combination(options: argparse.Namespace) -> None:
    """Raise UserError for flags that would be ignored. A value that is the default does no harm."""
    values = vars(options)
    given = {name for name, value in values.items() if value not in (None, []) and value is not False}
    settings = {**settings_of(SamplingConfig), **settings_of(SearchConfig)}
    given -= {name for name in given & settings.keys() if values[name] == settings[name].default}
    given -= {"num_samples"} if options.num_samples == 1 else set()
    for mode in ("interactive", "infill"):
        if mode in given and (ignored := [name for name in _IGNORED[mode] if name in given]):
            raise UserError(f"{flag_of(ignored[0])} cannot be combined with --{mode}.")
    check_requirements(given, _REQUIRES.items())
    if options.interactive and getattr(options, "prompt_file", None) == "-":
        raise UserError("--prompt-file - and --interactive would both read standard input: use a file.")
    if options.match is not None and options.choice:
        raise UserError("--match and --choice contradict each other: use one of them.")
    if "greedy" in given and "temperature" in given and options.temperature != 0:
        raise UserError("--temperature has no effect with --greedy: leave one of them out.")
    check_not_empty(
        {name: values.get(name) for name in ("stop", "ban", "prompt_file", "prompts_file", "encoding")}
    )
    chosen = {name: value for name, value in values.items() if name in settings}
    sampling = {name: value for name, value in chosen.items() if name in settings_of(SamplingConfig)}
    search = {name: value for name, value in chosen.items() if name not in sampling}
    check_search(build(SearchConfig, search), build(SamplingConfig, sampling), options.seed)
    greedy = "--greedy" if "greedy" in given else "--temperature 0" if values.get("temperature") == 0 else ""
    if greedy and (ignored := [name for name in FILTERS if name in given]):
        raise UserError(f"{flag_of(ignored[0])} has no effect with {greedy}: leave one of them out.")


def read_prompts(options: argparse.Namespace) -> list[str]:
    """The prompts, from wherever they are to be read. Raises UserError if a file cannot be read."""
    if "prompts_file" in options:
        text = read_text(options.prompts_file, options.encoding, line_breaks=False)
        *prompts, last = re.split("\r?\n", text)  # str.splitlines also splits at form feeds and others
        prompts += [last] if last else []
        if not prompts:
            raise UserError(f"the prompt file {options.prompts_file} is empty: write one prompt per line.")
        return [prompt.replace("\r", "\n") for prompt in prompts]  # as in training
    if "prompt_file" in options:
        return [read_text(options.prompt_file, options.encoding)]
    if "suffix" in options:
        return [decoded("--suffix", options.suffix)]
    return [decoded("--prompt", options.prompt)]


def read_text(file: str, encoding: str | None, line_breaks: bool = True) -> str:
    """The text of a file ('-': standard input), decoded as in training, and with its `line_breaks`. Raises
    UserError."""
    from lm.data import decoding, encodings  # numpy, for which --help should not wait

    if encoding is not None:
        encodings.check_encoding(encoding)
    name = "standard input" if file == "-" else f"the prompt file {file}"
    try:
        content = io.BytesIO(read_input() if file == "-" else expanded(file).read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror}.") from error
    return b"".join(decoding.decoded(content, name, encoding, line_breaks=line_breaks)).decode()


def decoded(flag: str, text: str) -> str:
    """The value of a flag, decoded as UTF-8 whatever the locale. Raises UserError."""
    try:
        return text.encode("utf-8", "surrogateescape").decode()
    except (UnicodeEncodeError, UnicodeDecodeError) as error:
        raise UserError(f"the text of {flag} is not UTF-8, at byte {error.start}.") from error
