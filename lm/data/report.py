"""What the user sees of a text: a table of facts, and warnings where training would go wrong."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from typing import Any

from lm.config.schema import ModelConfig
from lm.console.wording import plural
from lm.data.corpus import Corpus
from lm.data.decoding import replaced_warning
from lm.data.values import listed, shortened

# Limits above which there is a warning.
_REPEATED = 0.3  # fraction of the validation text
_UNKNOWN = 0.05  # fraction of the validation tokens
_ODD = 0.1  # fraction of the distinct characters
_WEIGHTS_PER_TOKEN = 4  # of the training text


def rows(corpus: Corpus, full: bool = False) -> dict[str, str]:
    """The facts about a text by their labels; `full` adds its most and least common characters."""
    train, facts = corpus.train.counts, corpus.facts
    documents = plural(train.documents, "document")
    if train.documents > 1:
        documents += f" (the longest has {plural(facts.get('longest_document', 0), 'character')})"
    sizes = f"{plural(train.characters, 'character')} for training"
    sizes += f", {corpus.validation.counts.characters:,} for validation"
    if corpus.test:
        sizes += f", {corpus.test.counts.characters:,} for testing"
    result = {
        "Text": f"{corpus.name}: {documents}, {sizes}",
        "Tokens": f"{corpus.tokenizer.kind}, {plural(corpus.tokenizer.vocab_size, 'type')},"
        f" {train.tokens:,} for training, {train.characters / train.tokens:.2f} characters per token",
    }
    result |= table_rows([table for table in facts.get("tables", []) if table["training"]])
    if files := corpus.facts.get("files"):
        result["Files"] = "; ".join(files)
    if unknown := corpus.validation.counts.unknown:
        percent = 100 * unknown / corpus.validation.counts.tokens
        shown = f"{percent:.2g}" if percent < 10 else f"{percent:.0f}"
        result["Unknown"] = f"{plural(unknown, 'validation token')} ({shown}%)"
    if full and facts:
        result["Characters"] = f"{facts['distinct_characters']:,} distinct"
        result["Most common"] = _counts(facts["commonest"])
        if rarest := [item for item in facts["rarest"] if item not in facts["commonest"]]:
            result["Least common"] = _counts(rarest)
        result["Repeated"] = f"{facts['repeated']:.1%} of the validation text is also in the training text"
    return result


def _counts(characters: Iterable[tuple[str, int]]) -> str:
    return "  ".join(f"{_shown(c)} {count:,}" for c, count in characters)


def table_rows(tables: list[dict[str, Any]]) -> dict[str, str]:
    """How each of the tables was read: its column and why, an example, delimiter and header."""
    result = {}
    for table in tables:
        of = f" of {table['dataset']}" if len(tables) > 1 else ""
        column = f"'{shortened(table['column'])}', {table['why']}; "
        column += f"{'the first ' if table['sample'] else ''}{plural(table['rows'], 'row')}"
        column += f", {table['empty']:,} without text" if table["empty"] else ""
        column += f"; more text in {listed(table['longer'])}" if table["longer"] else ""
        result[f"Column{of}"] = column
        result[f"Example{of}"] = table["example"]
        if table["format"]:
            result[f"Format{of}"] = table["format"]
    return result


def warnings(corpus: Corpus, weights: int, model: ModelConfig) -> list[str]:
    """What to know before training `model`, with `weights` weights in its recurrent layers, on the text."""
    facts, tokens = corpus.facts, corpus.train.counts.tokens
    result: list[str] = list(facts.get("warnings", []))
    if facts.get("repeated", 0) > _REPEATED:
        result.append(
            f"{facts['repeated']:.0%} of the validation text occurs verbatim in the training text, so the"
            " validation loss says little about new text."
        )
    if weights > _WEIGHTS_PER_TOKEN * tokens:
        # A layer has about 8 * hidden_size**2 weights; as many as there are tokens are plenty.
        fitting = max(16, 8 * int(math.sqrt(tokens / (8 * model.layers)) / 8))
        advice = []
        if model.hidden_size != "auto" and fitting < model.hidden_size:
            advice.append(f"--hidden-size {fitting}")
        if model.dropout != "auto" and model.dropout < 0.3:
            advice.append("--dropout 0.3")
        result.append(
            f"the text is small ({tokens:,} tokens) for recurrent layers with {weights:,} weights, so the"
            f" model may memorize it; try {' and '.join(advice)}{', or ' if advice else ''}more text."
        )
    distinct = facts.get("distinct_characters", 0)
    for table in facts.get("tables", []):
        result += (warning for warning in table["warnings"] if warning not in result)
    if facts.get("odd_characters", 0) > max(_ODD * distinct, 8):
        result.append(
            f"{facts['odd_characters']:,} of the {distinct:,} distinct characters are control characters or"
            " unassigned: is this text, and is it UTF-8?"
        )
    if line := replaced_warning(facts.get("replaced", 0), facts.get("decoded", 0)):
        result.append(line)
    result += facts.get("own_encoding", [])
    if facts.get("unknown"):
        counts = corpus.train.counts
        result.append(
            f"the training text has {plural(counts.unknown, 'token')} ({counts.unknown / counts.tokens:.2%})"
            f" unknown to the tokenizer, such as {' '.join(map(repr, facts['unknown']))}."
        )
    if corpus.validation.counts.unknown > _UNKNOWN * corpus.validation.counts.tokens:
        result.append(
            "a large part of the validation text is <unk>, so its bits per character are misleadingly low;"
            " another --tokenizer (byte, bpe, unigram) can represent any text."
        )
    if not facts.get("exact", True):
        result.append("this tokenizer does not reproduce every text exactly.")
    return result


def _shown(character: str) -> str:
    """A character as it can be printed anywhere."""
    printable = character.isprintable() and not unicodedata.combining(character) and character != " "
    return character if printable else repr(character)
