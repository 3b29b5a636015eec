"""What `lm generate` does: load models, generate text and print it."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from typing import Any

from lm.cli.interactive import interact
from lm.cli.warnings import warn_about_unknown_text
from lm.config.schema import SamplingConfig
from lm.config.settings import settings_of
from lm.console.escaping import printable
from lm.console.wording import plural
from lm.errors import UserError
from lm.generation.request import seed_or_random
from lm.insight.infill import infill
from lm.language_model import LanguageModel, load
from lm.storage.model_folder import default_model

_LINE_ENDS = re.compile("[\x85\u2028\u2029]")  # at which some readers of JSON lines split them


def generate(options: argparse.Namespace) -> int:
    """Generate and print what the options of lm/cli/generate.py describe. Returns the exit status.

    Raises UserError for options that do not fit the model.
    """
    model = load(
        default_model() if options.model is None else options.model, options.device, options.precision
    )
    if options.mix:
        others = [(load(name, options.device, options.precision), weight) for name, weight in options.mix]
        model = model.mixed_with(others)
    if "suffix" in options and not model.backward:
        raise UserError(
            "--suffix requires a model trained with --direction backward; this one reads forward."
        )
    sides = [options.infill.replace("|", "", 1)] if "infill" in options else []
    for prompt in [*options.prompts, *sides]:
        warn_about_unknown_text(model, prompt, options.unknown)
    settings = {name: getattr(options, name) for name in settings_of(SamplingConfig) if name in options}
    settings |= {
        "stop": options.stop,
        "unknown": options.unknown,
        "ban": options.ban,
        "match": options.match,
        "choices": options.choice,
    }
    if options.length is not None:
        settings["max_new_tokens"] = options.length
    beams = getattr(options, "beams", 1)
    seed = seed_or_random(options.seed)
    if options.interactive:
        return interact(model, options.prompts[0], seed=seed, **settings)
    begin = time.perf_counter()
    if "infill" in options:
        count = fill_gap(model, options, seed=seed, **settings)
    elif len(options.prompts) == options.num_samples == beams == 1 and not options.json:
        count = stream(model, options.prompts[0], seed=seed, **settings)
    else:
        count = write_samples(model, options, beams, seed=seed, **settings)
    seconds = time.perf_counter() - begin
    speed = f"{plural(count, 'token')} in {seconds:.2f} s ({count / seconds:,.0f} tokens/s)"
    print(speed if beams > 1 else f"{speed}, seed {seed}", file=sys.stderr)
    return 0


def stream(model: LanguageModel, prompt: str, **settings: Any) -> int:
    """Print one text as it is generated. Returns the number of tokens."""
    if model.backward:  # the text can be read only when complete
        (sample,) = model.generate(prompt, **settings)
        write(model.direction.join(prompt, sample.text) + "\n")
        return len(sample.tokens)
    pieces = model.stream(prompt, **settings)  # raises errors before anything is printed
    write(prompt)
    count, held = 0, ""
    for piece in pieces:
        count += 1
        text = held + piece.text
        # Half a line ending, or a joiner, which terminals render only together with the next character.
        held = text[-1:] if text.endswith(("\r", "\u200d")) else ""
        write(text.removesuffix(held))
    write(held + "\n")
    return count


def write_samples(model: LanguageModel, options: argparse.Namespace, beams: int, **settings: Any) -> int:
    """Print several texts, or one as JSON. Returns the number of tokens."""
    count = options.num_samples
    if beams > 1:
        del settings["seed"]
        settings |= {"beams": beams, "length_penalty": getattr(options, "length_penalty", 1.0)}
        found = [
            (p, sample)
            for p in options.prompts
            for sample in model.generate(p, num_samples=count, **settings)
        ]
    else:
        samples = model.generate(options.prompts, num_samples=count, **settings)
        found = list(zip([p for p in options.prompts for _ in range(count)], samples, strict=True))
    for number, (prompt, sample) in enumerate(found, start=1):
        if options.json:
            write_json(prompt, sample.text, sample.tokens, sample.logprobs, sample.seed)
        else:
            origin = f"found with {beams} beams" if sample.seed is None else f"seed {sample.seed}"
            write(f"--- sample {number}, {origin}\n{model.direction.join(prompt, sample.text)}\n\n")
    return sum(len(sample.tokens) for _, sample in found)


def fill_gap(model: LanguageModel, options: argparse.Namespace, **settings: Any) -> int:
    """Print the best fillings of the gap in --infill. Returns the number of tokens."""
    if options.backward_model is None:
        raise UserError("--infill requires a backward model: name it with --backward-model.")
    left, bar, right = options.infill.partition("|")
    if not bar:
        raise UserError("--infill takes the text before and after the gap, separated by a |.")
    other = load(options.backward_model, options.device, options.precision)
    gaps = infill(model, other, left, right, **settings)
    for gap in gaps[: options.num_samples]:
        if options.json:
            write_json(left, gap.text, gap.tokens, [], settings["seed"], right=right, score=gap.score)
        else:
            write(f"{left}{gap.text}{right}\n")
    return sum(len(gap.tokens) for gap in gaps)


def write_json(
    prompt: str, text: str, tokens: list[int], logprobs: list[float], seed: int | None, **more: Any
) -> None:
    """Print one text as a line of JSON, in ASCII unless standard output is Unicode."""
    is_unicode = sys.stdout.encoding.lower().startswith("utf")
    record = {"prompt": prompt, "text": text, "tokens": tokens, "logprobs": logprobs, "seed": seed, **more}
    line = json.dumps(record, ensure_ascii=not is_unicode)
    write(_LINE_ENDS.sub(lambda match: f"\\u{ord(match[0]):04x}", line) + "\n")


def write(text: str) -> None:
    """Print text unchanged, or to a terminal with its control characters made visible."""
    print(printable(text) if sys.stdout.isatty() else text, end="", flush=True)
