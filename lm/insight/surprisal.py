"""How surprising each token and each word of a text is to a model.

>>> import lm
>>> from lm.insight.surprisal import score_text
>>> scored = score_text(lm.load("runs/hamlet"), "To be, or not to be")
>>> scored.figures.bits_per_character.value
>>> scored.per_word()["surprisal"]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from lm.config.schema import CacheConfig, DynamicConfig
from lm.errors import UserError
from lm.escaping import escaped
from lm.evaluation.dynamic import adaptive_losses
from lm.evaluation.losses import token_losses
from lm.evaluation.metrics import Figures, figures
from lm.language_model import LanguageModel
from lm.tokenization.positions import Words, positions, token_starts, words_in, words_of_tokens
from lm.tokenization.tokenizer import Tokenizer

Table = dict[str, Sequence]  # the columns by their names


@dataclass(frozen=True)
class ScoredText:
    """A text with the loss of each token."""

    tokenizer: Tokenizer
    text: bytes  # UTF-8 with SEPARATOR between documents
    tokens: np.ndarray  # (tokens,)
    losses: np.ndarray  # (tokens,) float64, nats

    @cached_property
    def starts(self) -> np.ndarray:
        """The byte (tokens,) of the text at which each token begins."""
        return token_starts(self.tokenizer, self.text, self.tokens)

    @cached_property
    def words(self) -> Words:
        """The words of the text, which are what stands between white space."""
        return words_in(self.text)

    @cached_property
    def figures(self) -> Figures:
        """Nats per token, perplexity, bits per character and per byte, with their intervals."""
        return figures(self.losses, self.starts, self.text)

    @property
    def bits(self) -> np.ndarray:
        """The surprisal (tokens,) of each token, in bits."""
        return self.losses / math.log(2)

    @property
    def unknown(self) -> int:
        """How many tokens are <unk>."""
        return self.tokenizer.count_unknown(self.tokens)

    def per_token(self) -> Table:
        """A row for each token, with its surprisal in bits; see `token_table`."""
        return token_table({"surprisal": self})

    def per_word(self) -> Table:
        """A row for each word, with its surprisal in bits; see `word_table`."""
        return word_table({"surprisal": self})


def score_text(
    model: LanguageModel,
    text: str | bytes,
    *,
    dynamic: DynamicConfig | None = None,
    cache: CacheConfig | None = None,
    precision: torch.dtype = torch.float32,
    progress: Callable[[float], None] = lambda fraction: None,
) -> ScoredText:
    """Score each token of a text, or of documents as UTF-8 with SEPARATOR between them.

    With `dynamic` evaluation or a neural `cache` the model goes on learning from what it has read,
    for the time of this call. Raises UserError for an empty text and for one of which the model
    knows nothing.
    """
    if isinstance(text, str):  # as texts are read for the training
        text = text.replace("\r\n", "\n").encode("utf-8", "replace")
    tokens = model.tokenizer.encode_bytes(text)
    if not len(tokens):
        raise UserError("the text is empty: there is nothing to score.")
    check_known(model.tokenizer, tokens)
    if dynamic or cache:
        losses = adaptive_losses(
            model.network,
            tokens,
            model.start,
            dynamic=dynamic,
            cache=cache,
            precision=precision,
            progress=progress,
        )
    else:
        losses = token_losses(model.network, tokens, model.start, precision=precision, progress=progress)
    return ScoredText(model.tokenizer, text, tokens, losses)


def two_sided(forward: ScoredText, backward: ScoredText) -> ScoredText:
    """The mean of the losses that a forward and a backward model of the same tokens have at each.

    That is minus the logarithm of the geometric mean of p(token | all before it) and p(token | all
    after it): a pseudo-score that sees both sides of a token, no probability of the text.
    """
    return replace(forward, losses=(forward.losses + backward.losses) / 2)


def token_table(scores: Mapping[str, ScoredText]) -> Table:
    """A row for each token: what it is (see `lm.escaping.escaped`), the word that it belongs to (empty
    for white space alone), document, line and column (from 1), the offset in the document (in
    characters, from 0), and a column of bits for each of `scores`, which are of the same tokens."""
    scored = next(iter(scores.values()))
    word, space = words_of_tokens(scored.starts, len(scored.text), scored.words)
    texts = [*map(escaped, map(str.encode, scored.words.texts)), ""]
    words = [texts[number] for number in np.where(space, len(texts) - 1, word).tolist()]
    columns: Table = {"token": _names(scored.tokenizer, scored.tokens), "word": words}
    columns |= _places(scored.text, scored.starts)
    return columns | {name: one.bits for name, one in scores.items()}


def word_table(scores: Mapping[str, ScoredText]) -> Table:
    """A row for each word of `text.split()`: the word, its place as in `token_table`, how many tokens
    it has, and for each of `scores` the sum of their bits and of those of the white space after it.

    White space that is part of a token (" boat") counts as that token does, with the word. What
    follows a word are the tokens of white space alone up to the next word: spaces, ends of lines and
    of documents. Only what stands before the first word is in no row.
    """
    scored = next(iter(scores.values()))
    word, space = words_of_tokens(scored.starts, len(scored.text), scored.words)
    count, follows = len(scored.words.texts), space & (word >= 0)
    columns: Table = {"word": [escaped(text.encode()) for text in scored.words.texts]}
    columns |= _places(scored.text, scored.words.starts)
    columns["tokens"] = np.bincount(word[~space], minlength=count)
    for name, one in scores.items():
        bits = one.bits
        columns[name] = np.bincount(word[~space], bits[~space], minlength=count)
        columns["space" if name == "surprisal" else f"{name}_space"] = np.bincount(
            word[follows], bits[follows], minlength=count
        )
    return columns


def table_lines(table: Table) -> Iterator[str]:
    """A table as tab-separated lines, the names of its columns first."""
    yield "\t".join(table) + "\n"
    columns = (
        (f"{value:.5f}" for value in column)
        if isinstance(column, np.ndarray) and column.dtype.kind == "f"
        else map(str, column)
        for column in table.values()
    )
    for row in zip(*columns, strict=True):
        yield "\t".join(row) + "\n"


def _places(text: bytes, places: np.ndarray) -> Table:
    at = positions(text, places)
    return {"document": at.document, "line": at.line, "column": at.column, "offset": at.offset}


def _names(tokenizer: Tokenizer, tokens: np.ndarray) -> list[str]:
    """How each token is written in a table: its part of the text, or its name where it has none."""
    names = {}
    for token in np.unique(tokens).tolist():
        part = tokenizer.bytes_of(token) or str(tokenizer.backend.id_to_token(token)).encode()
        names[token] = escaped(part)
    return [names[token] for token in tokens.tolist()]


def check_known(tokenizer: Tokenizer, tokens: np.ndarray) -> None:
    """Raises UserError for tokens of which a model knows none."""
    if tokenizer.unk is None:
        return
    known = np.setdiff1d(tokens, [tokenizer.unk, tokenizer.eos])
    if np.any(tokens == tokenizer.unk) and not tokenizer.decode(known).strip():
        what = "words" if tokenizer.kind == "word" else "characters"
        raise UserError(
            f"the model knows none of the {what} of this text, so its score would mean nothing: score a"
            " text like those that it was trained on."
        )
