"""ScoredText: a text with the loss of each token, and its tables of tokens, words and regions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from lm.console.escaping import escaped
from lm.errors import UserError
from lm.evaluation.comparison import Comparison, compare_losses
from lm.evaluation.metrics import Metrics, compute_metrics
from lm.evaluation.resampling import Parts, parts_of
from lm.tokenization.documents import SEPARATOR, count_characters
from lm.tokenization.positions import Words, byte_spans, positions, words_in, words_of_tokens
from lm.tokenization.tokenizer import Tokenizer

Table = dict[str, list[Any] | np.ndarray]  # columns by name


class Values(list[Any]):
    """A column that is not escaped yet: text, numbers and other values of JSON, None where there is none."""


@dataclass(frozen=True)
class ScoredText:
    """A text with the loss of each token."""

    tokenizer: Tokenizer
    text: bytes  # UTF-8 with SEPARATOR between documents
    tokens: np.ndarray  # (tokens,)
    losses: np.ndarray  # (tokens,) float64, nats
    # If each document was read from the zero state: document i has the tokens from bounds[i] to
    # bounds[i + 1], and there is none between documents.
    bounds: np.ndarray | None = None
    skip_unknown: bool = False  # whether `metrics` leaves out unknown tokens

    @property
    def starts(self) -> np.ndarray:
        """The byte offset (tokens,) at which each token starts."""
        return self._spans[0]

    @property
    def ends(self) -> np.ndarray:
        """The byte offset (tokens,) after each token."""
        return self._spans[1]

    @cached_property
    def _spans(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each token starts and ends; see `byte_spans`."""
        if self.bounds is None:
            documents, bounds = [self.text], [0, len(self.tokens)]
        else:
            documents, bounds = self.text.split(SEPARATOR), self.bounds.tolist()
        spans, offset = [np.zeros((2, 0), np.int64)], 0
        for document, (begin, end) in zip(documents, pairwise(bounds), strict=True):
            spans.append(np.stack(byte_spans(self.tokenizer, document, self.tokens[begin:end])) + offset)
            offset += len(document) + 1
        starts, ends = np.concatenate(spans, axis=1)
        return starts, ends

    @cached_property
    def separators(self) -> np.ndarray:
        """The byte offset of each separator of documents."""
        return np.flatnonzero(np.frombuffer(self.text, np.uint8) == SEPARATOR[0])

    @cached_property
    def is_unknown(self) -> np.ndarray:
        """Whether each token (tokens,) replaces something that the model does not know. For a word tokenizer,
        a literal <unk> is a word."""
        unknown = self.tokenizer.unk
        if unknown is None:
            return np.zeros(len(self.tokens), bool)
        found: np.ndarray = self.tokens == unknown
        if found.any():
            name = str(self.tokenizer.backend.id_to_token(unknown))
            for token in np.flatnonzero(found).tolist():
                replaced = self.text[self.starts[token] : self.ends[token]].decode("utf-8", "replace")
                found[token] = replaced.strip() != name
        return found

    @cached_property
    def unwritten(self) -> int:
        """The bytes of whitespace that the tokens do not represent, because the tokenizer reads any
        whitespace between words as one space or line break. They cost no bits."""
        is_whitespace = np.frombuffer(self.text, np.uint8) != SEPARATOR[0]
        for start, end in zip(self.words.starts.tolist(), self.words.ends.tolist(), strict=True):
            is_whitespace[start:end] = False
        before = np.insert(np.cumsum(is_whitespace), 0, 0)  # the bytes of whitespace before each offset
        gaps = before[np.append(self.starts, len(self.text))] - before[np.insert(self.ends, 0, 0)]
        _, is_space = self.word_of_token
        words = np.append(~is_space, False) & np.insert(~is_space, 0, False)  # on both sides: with a space
        return int(np.maximum(gaps - words, 0).sum())

    @cached_property
    def word_of_token(self) -> tuple[np.ndarray, np.ndarray]:
        """See `words_of_tokens`; with `bounds`, whitespace before the first word of a document has none."""
        word, is_space = words_of_tokens(self.starts, len(self.text), self.words)
        if self.bounds is not None and len(self.words.starts):
            other = np.searchsorted(self.separators, self.words.starts)[word] != np.searchsorted(
                self.separators, self.starts
            )
            word = np.where(is_space & other, -1, word)
        return word, is_space

    @cached_property
    def words(self) -> Words:
        """The words of the text, separated by whitespace."""
        return words_in(self.text)

    @cached_property
    def parts(self) -> Parts:
        """The documents of the text, or blocks, that are resampled for the intervals."""
        return parts_of(self.text, self.starts)

    @cached_property
    def metrics(self) -> Metrics:
        """Nats per token, perplexity, bits per character and byte, with confidence intervals.

        Raises UserError if the text is empty.
        """
        if not len(self.tokens):
            raise UserError("the text is empty.")
        counted = ~self.is_unknown if self.skip_unknown else None
        return compute_metrics(self.losses, self.starts, self.parts, counted)

    @property
    def token_texts(self) -> list[str]:
        """How to show each token, as in the `text` of a `Score`."""
        return [self.tokenizer.token_name(token) for token in self.tokens.tolist()]

    @property
    def logprobs(self) -> np.ndarray:
        """The log-probability (tokens,) of each token in nats, as `Score.logprob`."""
        return -self.losses

    @property
    def bits(self) -> np.ndarray:
        """The surprisal (tokens,) of each token in bits."""
        return self.losses / math.log(2)

    @property
    def unknown(self) -> int:
        """The number of tokens that replace something the model does not know."""
        return int(np.count_nonzero(self.is_unknown))

    @property
    def size(self) -> dict[str, int]:
        """The number of tokens, characters, bytes and documents."""
        separators = self.text.count(SEPARATOR)
        return {
            "tokens": len(self.tokens),
            "characters": count_characters(self.text),
            "bytes": len(self.text) - separators,
            "documents": separators + 1,
        }

    def per_token(self) -> Table:
        """One row per token; see `token_table`."""
        return token_table({"surprisal": self})

    def per_word(self) -> Table:
        """One row per word; see `word_table`."""
        return word_table({"surprisal": self})


def two_sided(forward: ScoredText, backward: ScoredText) -> ScoredText:
    """The mean of the losses of a forward and a backward model on the same tokens.

    It equals the negative log of the geometric mean of p(token | all tokens before) and p(token | all tokens
    after): a score that sees both sides of each token, but not a probability of the text. Raises UserError if
    the tokens differ.
    """
    _check_same_tokens(forward, backward)
    return replace(forward, losses=(forward.losses + backward.losses) / 2)


def _check_same_tokens(first: ScoredText, *others: ScoredText) -> None:
    """Raise UserError if texts do not have the same tokens."""
    if not all(first.text == other.text and np.array_equal(first.tokens, other.tokens) for other in others):
        raise UserError("the scores must be those of the same text in the same tokens.")


def compare(first: ScoredText, second: ScoredText) -> Comparison:
    """The difference between two models that have scored the same text, whatever their tokenizers.

    >>> a, b = (score_text(lm.load(run), text) for run in ("runs/a", "runs/b"))
    >>> compare(a, b).bits_per_character  # below zero if runs/a predicts the text better

    Their bits are summed over the documents of the text or, if there are too few, over blocks of it that
    begin where neither model has a token that extends across the border. Raises UserError if the texts
    differ.
    """
    if first.text != second.text:
        raise UserError("both models must score the same text to compare them.")
    parts = parts_of(first.text, first.starts, second.starts)
    nats, others = (parts.sums(each.starts, each.losses) for each in (first, second))
    return compare_losses(parts, nats, others)


def token_table(scores: Mapping[str, ScoredText]) -> Table:
    """One row per token: the token (see `lm.console.escaping.escaped`), its word (empty for whitespace), its
    document, line and column (from 1), its character offset in the document (from 0), and its bits in a
    column for each of `scores`, which have the same tokens. Then whether it is unknown, the offset after it,
    and the number of its word in the document (from 1; 0 for whitespace). Raises UserError if the tokens
    differ."""
    scored = next(iter(scores.values()))
    _check_same_tokens(*scores.values())
    word, is_space = scored.word_of_token
    texts = [*scored.words.texts, ""]
    words = Values(texts[index] for index in np.where(is_space, len(texts) - 1, word).tolist())
    columns: Table = {"token": _token_names(scored.tokenizer, scored.tokens), "word": words}
    columns |= _position_columns(scored.text, scored.starts)
    columns |= {name: each.bits for name, each in scores.items()}
    numbers = np.append(_word_numbers(scored), 0)[np.where(is_space, len(scored.words.starts), word)]
    ends = positions(scored.text, scored.ends - 1).offset + 1
    return columns | {"unknown": scored.is_unknown, "end": ends, "word_number": numbers}


def word_table(scores: Mapping[str, ScoredText]) -> Table:
    """One row per word of `text.split()`: the word, its position as in `token_table`, its number of tokens
    and, for each of `scores`, the total bits of the word and of the whitespace after it.

    Whitespace inside a token (" boat") counts toward the word. The whitespace after a word is all
    whitespace-only tokens up to the next word: spaces, newlines and separators of documents. Whitespace
    before the first word is not in the table. The last columns are whether a token of the word is unknown,
    the offset after the word, and its number in the document (from 1). Raises UserError if the tokens differ.
    """
    scored = next(iter(scores.values()))
    _check_same_tokens(*scores.values())
    word, is_space = scored.word_of_token
    count, follows = len(scored.words.texts), is_space & (word >= 0)
    columns: Table = {"word": Values(scored.words.texts)}
    columns |= _position_columns(scored.text, scored.words.starts)
    columns["tokens"] = np.bincount(word[~is_space], minlength=count)
    for name, each in scores.items():
        bits = each.bits
        space = "space" if name == "surprisal" else f"{name}_space"
        columns[name] = np.bincount(word[~is_space], bits[~is_space], minlength=count)
        after = np.bincount(word[follows], bits[follows], minlength=count)
        columns[space] = after.astype(np.float64)  # without whitespace tokens, they are integers
    unknown = np.bincount(word[scored.is_unknown & ~is_space], minlength=count) > 0
    ends = positions(scored.text, scored.words.ends - 1).offset + 1
    return columns | {"unknown": unknown, "end": ends, "word_number": _word_numbers(scored)}


def region_table(scores: Mapping[str, ScoredText], starts: np.ndarray) -> Table:
    """One row per region, of which every document has at least one; they start at the byte offsets `starts`
    (regions,): the region, its position as in `token_table`, its number of tokens, its bits for each of
    `scores`, whether a token is unknown, the offset after it, and its number in the document (from 1).

    Whitespace before a region counts toward it, as in reading-time studies of models whose tokens begin
    with a space; whitespace at the end of a document counts toward its last region. A token across regions
    counts toward the one of its first character.
    """
    scored, count = next(iter(scores.values())), len(starts)
    document = np.searchsorted(scored.separators, starts)
    stops = np.append(scored.separators, len(scored.text))[document]
    stops = np.minimum(np.append(starts[1:], len(scored.text)), stops)
    texts = [scored.text[a:b].decode().strip() for a, b in zip(starts.tolist(), stops.tolist(), strict=True)]
    region = regions_of(scored, starts, scored.starts)
    inside = np.frombuffer(scored.text, np.uint8)[scored.starts] != SEPARATOR[0]
    columns: Table = {"region": Values(texts)}
    columns |= _position_columns(scored.text, starts)
    columns["tokens"] = np.bincount(region[inside], minlength=count)
    for name, each in scores.items():
        columns[name] = np.bincount(region[inside], each.bits[inside], minlength=count)
    unknown = np.bincount(region[scored.is_unknown], minlength=count) > 0
    lengths: np.ndarray = np.array([len(text) for text in texts], np.int64)
    numbers = numbers_within(document)
    ends = np.asarray(columns["offset"]) + lengths
    return columns | {"unknown": unknown, "end": ends, "region_number": numbers}


def regions_of(scored: ScoredText, regions: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The index (offsets,) of the region with the first visible character at or after each of the byte
    `offsets`, else of the last region of the document; `regions` are the offsets at which regions start."""
    word = np.searchsorted(scored.words.ends, offsets, side="right")
    visible = np.maximum(np.append(scored.words.starts, len(scored.text))[word], offsets)
    document = np.searchsorted(scored.separators, offsets)
    of_region = np.searchsorted(scored.separators, regions)
    last = np.searchsorted(of_region, document, side="right") - 1
    first = np.searchsorted(of_region, document)
    return np.clip(np.searchsorted(regions, visible, side="right") - 1, first, last)


def escaped_text(text: str) -> str:
    """A text as `escaped`, but with its spaces."""
    return " ".join(escaped(part.encode("utf-8", "replace")) for part in text.split(" "))


def numbers_within(documents: np.ndarray) -> np.ndarray:
    """The number (elements,), from 1, of each element in its document; `documents` (elements,) is sorted."""
    return np.arange(len(documents)) - np.searchsorted(documents, documents) + 1


def _word_numbers(scored: ScoredText) -> np.ndarray:
    """The number (words,) of each word in its document, from 1."""
    return numbers_within(np.searchsorted(scored.separators, scored.words.starts))


def _position_columns(text: bytes, offsets: np.ndarray) -> Table:
    at = positions(text, offsets)
    return {"document": at.document, "line": at.line, "column": at.column, "offset": at.offset}


def _token_names(tokenizer: Tokenizer, tokens: np.ndarray) -> list[str]:
    """How a table shows each token: its part of the text, or its name if it has none."""
    names = {}
    for token in np.unique(tokens).tolist():
        part = tokenizer.bytes_of(token) or str(tokenizer.backend.id_to_token(token)).encode()
        names[token] = escaped(part)
    return [names[token] for token in tokens.tolist()]
