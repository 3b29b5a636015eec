"""What was found in a text: facts for a person, and warnings where training would go wrong."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lm.data.text import in_order
from lm.tokenization.tokenizer import SEPARATOR, is_ascii

if TYPE_CHECKING:
    from lm.config.schema import ModelConfig
    from lm.data.corpus import Corpus

_REPEATED = 0.3  # share of the validation text that makes a warning
_UNKNOWN = 0.05  # share of its tokens that makes one
_ODD = 0.1  # share of the distinct characters that makes one
_PER_TOKEN = 4  # weights for each token of the training text that make one
SHOWN = 20  # commonest and rarest characters
_CODE_POINTS = 0x110000
_END = ord(SEPARATOR.decode("utf-8", "surrogateescape"))
_SPAN = 64  # tokens
_LONG = 1 << 25  # tokens
_CHUNK = 1 << 20


def rows(corpus: Corpus, full: bool = False) -> dict[str, str]:
    """What a person wants to know of a text before training on it; `full` with its commonest and
    rarest characters."""
    train, facts = corpus.train.counts, corpus.facts
    documents = f"{train.documents:,} document" + ("s" if train.documents > 1 else "")
    if train.documents > 1:
        documents += f" (the longest of {facts.get('longest_document', 0):,} characters)"
    sizes = (
        f"{train.characters:,} characters to train on, {corpus.validation.counts.characters:,} to validate"
    )
    if corpus.test:
        sizes += f", {corpus.test.counts.characters:,} to test"
    result = {
        "Text": f"{corpus.name}: {documents}, {sizes}",
        "Tokens": f"{corpus.tokenizer.kind}, {corpus.tokenizer.vocab_size:,} types,"
        f" {train.tokens:,} to train on, {train.characters / train.tokens:.2f} characters each",
    }
    if unknown := corpus.validation.counts.unknown:
        share = 100 * unknown / corpus.validation.counts.tokens
        result["Unknown"] = f"{unknown:,} of the validation tokens ({share:.2g}%)"
    if full and facts:
        result["Characters"] = f"{facts['distinct_characters']:,} different ones"
        for name in ("commonest", "rarest"):
            result[name.capitalize()] = "  ".join(f"{_shown(c)} {count:,}" for c, count in facts[name])
        result["Repeated"] = f"{facts['repeated']:.1%} of the validation text, word for word"
    return result


def warnings(corpus: Corpus, weights: int, model: ModelConfig) -> list[str]:
    """What a person should know before training a model with so many weights in its layers on the
    text, a line each."""
    facts, tokens, result = corpus.facts, corpus.train.counts.tokens, []
    if facts.get("repeated", 0) > _REPEATED:
        result.append(
            f"{facts['repeated']:.0%} of the validation text stands word for word in the training text:"
            " its loss says little about new text."
        )
    if weights > _PER_TOKEN * tokens:
        # A layer has about 8·hidden² weights; as many as tokens are plenty.
        fitting = max(16, 8 * int(math.sqrt(tokens / (8 * model.layers)) / 8))
        advice = [f"--hidden-size {fitting}"] if fitting < model.hidden_size else []
        advice += ["--dropout 0.3"] if model.dropout != "auto" and model.dropout < 0.3 else []
        result.append(
            f"the text is small for layers of {weights:,} weights ({tokens:,} tokens): the model may learn it"
            f" by heart; try {' and '.join(advice)}{', or ' if advice else ''}more text."
        )
    distinct = facts.get("distinct_characters", 0)
    if facts.get("odd_characters", 0) > max(_ODD * distinct, 8):
        result.append(
            f"{facts['odd_characters']:,} of the {distinct:,} different characters are control signs or not"
            " assigned at all: is this a text, and is it UTF-8?"
        )
    if facts.get("unknown"):
        counts = corpus.train.counts
        result.append(
            f"{counts.unknown:,} tokens of the training text ({counts.unknown / counts.tokens:.2%}) are"
            f" unknown to the tokenizer, such as {' '.join(map(repr, facts['unknown']))}."
        )
    if corpus.validation.counts.unknown > _UNKNOWN * corpus.validation.counts.tokens:
        result.append(
            "a large part of the validation text is <unk>, so its bits per character are too good to be"
            " true; another --tokenizer (byte, bpe, unigram) knows every text."
        )
    if not facts.get("exact", True):
        result.append("this tokenizer does not give every text back as it was.")
    return result


@dataclass(frozen=True)
class Survey:
    """What a training text consists of."""

    characters: dict[str, int]  # how often each occurs
    longest: int  # characters in the longest document

    def saved(self) -> dict[str, Any]:
        """The part that is worth keeping."""
        ranked = sorted(self.characters.items(), key=lambda item: (-item[1], item[0]))
        odd = sum(map(_is_odd, self.characters))
        return {
            "longest_document": self.longest,
            "distinct_characters": len(ranked),
            "odd_characters": odd,
            "commonest": ranked[:SHOWN],
            "rarest": ranked[: -SHOWN - 1 : -1],
        }


def survey(blocks: Iterable[bytes]) -> Survey:
    """Count the characters of a text, and find its longest document."""
    totals = np.zeros(_CODE_POINTS, np.int64)
    longest = current = 0
    for counts, lengths in in_order(_survey_block, blocks):
        totals[: len(counts)] += counts
        current += lengths[0]
        longest = max(longest, current, *lengths[1:])
        if len(lengths) > 1:
            current = lengths[-1]
    totals[_END] = 0
    present = np.flatnonzero(totals)
    return Survey({chr(c): int(totals[c]) for c in present}, int(longest))


def _survey_block(block: bytes) -> tuple[np.ndarray, list[int]]:
    """How often each code point occurs, and the characters of each document in the block."""
    if is_ascii(block):
        codes, end = np.frombuffer(block, np.uint8), SEPARATOR[0]
        counts = _count_bytes(block)[:0x80]
    else:
        text = block.decode("utf-8", "surrogateescape").encode("utf-32-le", "surrogatepass")
        codes, end = np.frombuffer(text, np.uint32), _END
        counts = np.bincount(codes)
    borders = np.flatnonzero(codes == end)
    lengths = np.diff(borders, prepend=-1, append=len(codes)) - 1
    return counts, lengths.tolist()


def _count_bytes(block: bytes) -> np.ndarray:
    """How often each byte occurs (256,): counted in pairs, which takes half as long."""
    pairs = np.bincount(np.frombuffer(block, np.uint16, len(block) // 2), minlength=1 << 16).reshape(256, 256)
    counts = pairs.sum(axis=0) + pairs.sum(axis=1)
    if len(block) % 2:
        counts[block[-1]] += 1
    return counts


def repeated(train: np.ndarray, validation: np.ndarray) -> float:
    """The share of the validation text that stands word for word in the training text, 0 to 1.

    Spans of 64 tokens are compared by their hashes (Karp and Rabin 1987), at those places alone
    that the tokens themselves choose (Schleimer, Wilkerson and Aiken 2003): about one in 32, in a
    long text one in 256.
    """
    rarity = 5 if len(train) < _LONG else 8
    none = np.zeros(0, np.uint64)
    wanted = np.unique(np.concatenate([none, *_spans(validation, rarity)]))
    if not len(wanted):
        return 0.0
    found = np.zeros(len(wanted), bool)
    for hashes in _spans(train, rarity):
        places = np.searchsorted(wanted, hashes).clip(max=len(wanted) - 1)
        found[places[wanted[places] == hashes]] = True
    return float(found.mean())


def _spans(tokens: np.ndarray, rarity: int) -> Iterator[np.ndarray]:
    """Hashes (spans,) uint64 of the chosen spans, chunk by chunk."""
    chunks = (tokens[begin : begin + _CHUNK + _SPAN - 1] for begin in range(0, len(tokens), _CHUNK))
    return in_order(lambda chunk: _spans_of(np.asarray(chunk), rarity), chunks)


def _spans_of(tokens: np.ndarray, rarity: int) -> np.ndarray:
    if len(tokens) < _SPAN:
        return np.zeros(0, np.uint64)
    # A place is chosen by its first four tokens, whatever stands around them.
    first = tokens[: len(tokens) - _SPAN + 4].astype(np.uint16)
    mixed = np.zeros(len(first) - 3, np.uint16)
    for offset in range(4):
        mixed += first[offset : offset + len(mixed)]
        mixed *= np.uint16(0x9E37)
        mixed ^= mixed >> np.uint16(7)
    places = np.flatnonzero(mixed < 1 << (16 - rarity))
    hashes = np.zeros(len(places), np.uint64)
    for offset in range(_SPAN):
        hashes = hashes * np.uint64(0x100000001B3) + tokens[places + offset] + np.uint64(1)
    return hashes


def _is_odd(character: str) -> bool:
    """Whether no written language uses it: control, unassigned and private characters."""
    return character not in "\t\n\r\f\0" and unicodedata.category(character) in ("Cc", "Cn", "Co")


def _shown(character: str) -> str:
    """A character as it can be printed anywhere."""
    printable = character.isprintable() and not unicodedata.combining(character) and character != " "
    return character if printable else repr(character)
