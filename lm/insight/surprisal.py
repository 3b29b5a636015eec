"""The surprisal of each token and word of a text under a model.

>>> import lm
>>> from lm.insight.surprisal import score_text
>>> scored = score_text(lm.load("runs/hamlet"), "To be, or not to be")
>>> scored.metrics.bits_per_character.value
>>> scored.per_word()["surprisal"]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from lm.config.schema import CacheConfig, DynamicConfig
from lm.errors import UserError
from lm.escaping import escaped
from lm.evaluation.dynamic import dynamic_losses
from lm.evaluation.losses import Validation, token_losses
from lm.evaluation.metrics import Metrics, compute_metrics
from lm.evaluation.texts import losses_of_texts
from lm.language_model import LanguageModel
from lm.model.device import Precision, choose_precision
from lm.tokenization.documents import SEPARATOR, count_characters
from lm.tokenization.positions import Words, positions, token_starts, words_in, words_of_tokens
from lm.tokenization.tokenizer import Tokenizer

Table = dict[str, list[str] | np.ndarray]  # columns by name


@dataclass(frozen=True)
class ScoredText:
    """A text with the loss of each token."""

    tokenizer: Tokenizer
    text: bytes  # UTF-8 with SEPARATOR between documents
    tokens: np.ndarray  # (tokens,)
    losses: np.ndarray  # (tokens,) float64, nats

    @cached_property
    def starts(self) -> np.ndarray:
        """The byte offset (tokens,) at which each token starts."""
        return token_starts(self.tokenizer, self.text, self.tokens)

    @cached_property
    def words(self) -> Words:
        """The words of the text, separated by whitespace."""
        return words_in(self.text)

    @cached_property
    def metrics(self) -> Metrics:
        """Nats per token, perplexity, bits per character and byte, with confidence intervals.

        Raises UserError if the text is empty.
        """
        if not len(self.tokens):
            raise UserError("the text is empty.")
        return compute_metrics(self.losses, self.starts, self.text)

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
        """The number of <unk> tokens."""
        return self.tokenizer.count_unknown(self.tokens)

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


def score_text(
    model: LanguageModel,
    text: str | bytes,
    *,
    dynamic: DynamicConfig | None = None,
    cache: CacheConfig | None = None,
    precision: Precision = Precision.FP32,
    progress: Callable[[float], None] = lambda fraction: None,
) -> ScoredText:
    """Score each token of a text, or of documents in UTF-8 with SEPARATOR between them.

    With `dynamic` evaluation or a continuous `cache`, the scores adapt to the text read so far; the model
    itself does not change. Raises UserError if the text is empty or entirely unknown to the model.
    """
    data, tokens = encode_known(model.tokenizer, text)
    if dynamic or cache:
        losses = dynamic_losses(
            model.network,
            tokens,
            model.start_token,
            dynamic=dynamic,
            cache=cache,
            precision=precision,
            progress=progress,
        )
    else:
        losses = token_losses(
            model.network, tokens, model.start_token, precision=precision, progress=progress
        )
    return ScoredText(model.tokenizer, data, tokens, losses)


def score_texts(
    model: LanguageModel,
    texts: Sequence[str],
    *,
    precision: str = "fp32",
    progress: Callable[[float], None] = lambda fraction: None,
) -> list[ScoredText]:
    """Score many texts at once, each by itself: as `model.score` does, but many times as fast.

    >>> for scored in lm.score_texts(model, ["The sea was calm.", "The boat"]):
    ...     print(scored.bits.sum(), scored.token_texts, scored.per_word()["surprisal"])

    Args:
        texts: each read from the empty state, after the model's start token. Characters and words that the
            model does not know are scored as <unk>; an empty text has no tokens.
        precision: of the matrix products: "fp32", "bf16", "tf32" (on a GPU) or "auto".
        progress: called with the fraction that is done.

    Returns a `ScoredText` for each text, in their order, with the `tokens` of `model.score` and arrays
    (tokens,) of their `losses` (nats), `logprobs` (nats) and `bits`. On a CPU with oneDNN, these are those
    of `model.score` to the last bit in fp32, and do not depend on the other texts.

    Raises UserError for an ensemble, and if `texts` is not a list of strings.
    """
    model.require_one_network("score a text")
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise UserError("lm.score_texts takes a list of texts, each a str.")
    encoded = [model.tokenizer.encode(text) for text in texts]
    bounds: np.ndarray = np.cumsum([0, *map(len, encoded)])
    tokens = np.concatenate([np.zeros(0, model.tokenizer.dtype), *encoded])
    losses = losses_of_texts(
        model.network,
        tokens,
        bounds,
        model.start_token,
        precision=choose_precision(precision, model.device),
        progress=progress,
    )
    spans = pairwise(bounds.tolist())
    return [
        ScoredText(model.tokenizer, text.encode("utf-8", "replace"), tokens[begin:end], losses[begin:end])
        for text, (begin, end) in zip(texts, spans, strict=True)
    ]


def evaluate(model: LanguageModel, texts: str | Sequence[str]) -> Validation:
    """How well a model predicts a text, or several documents: what `lm evaluate --dataset` prints for a file.

    >>> lm.evaluate(model, "To be, or not to be").bits_per_character

    Of several documents, each starts after the end of the one before, as in training. `score_text` also has
    confidence intervals, and the surprisal of each token and word. Raises UserError if there is no text, or
    if the model knows nothing of it.
    """
    model.require_one_network("score a text")
    documents = [texts] if isinstance(texts, str) else texts
    text = SEPARATOR.join(_as_read(document) for document in documents if document)
    scored = score_text(model, text)
    metrics = {name: estimate.value for name, estimate in vars(scored.metrics).items()}
    return Validation(**metrics, tokens=len(scored.tokens))


def encode_known(tokenizer: Tokenizer, text: str | bytes) -> tuple[bytes, np.ndarray]:
    """The text as UTF-8, normalized as in training, and its tokens (tokens,).

    Raises UserError if the text is empty or none of it is known to the tokenizer.
    """
    if isinstance(text, str):
        text = text.replace("\r\n", "\n").encode("utf-8", "replace")
    tokens = tokenizer.encode_bytes(text)
    if not len(tokens):
        raise UserError("the text is empty.")
    if tokenizer.count_unknown(tokens):
        known = np.setdiff1d(tokens, [tokenizer.unk, tokenizer.eos])
        if not tokenizer.decode(known).strip():
            unit = {"char": "characters", "word": "words"}.get(tokenizer.kind, "tokens")
            raise UserError(
                f"the model knows none of the {unit} of this text: choose one similar to its training text."
            )
    return text, tokens


def _as_read(text: str) -> bytes:
    """The UTF-8 of a text, with the line breaks of a file that has been read."""
    return text.replace("\r\n", "\n").replace("\r", "\n").encode("utf-8", "replace")


def two_sided(forward: ScoredText, backward: ScoredText) -> ScoredText:
    """The mean of the losses of a forward and a backward model on the same tokens.

    It equals the negative log of the geometric mean of p(token | all tokens before) and p(token | all tokens
    after): a score that sees both sides of each token, but not a probability of the text.
    """
    return replace(forward, losses=(forward.losses + backward.losses) / 2)


def token_table(scores: Mapping[str, ScoredText]) -> Table:
    """One row per token: the token (see `lm.escaping.escaped`), its word (empty for whitespace), its
    document, line and column (from 1), its character offset in the document (from 0), and its bits in a
    column for each of `scores`, which have the same tokens."""
    scored = next(iter(scores.values()))
    word, is_space = words_of_tokens(scored.starts, len(scored.text), scored.words)
    texts = [*map(escaped, map(str.encode, scored.words.texts)), ""]
    words = [texts[index] for index in np.where(is_space, len(texts) - 1, word).tolist()]
    columns: Table = {"token": _token_names(scored.tokenizer, scored.tokens), "word": words}
    columns |= _position_columns(scored.text, scored.starts)
    return columns | {name: each.bits for name, each in scores.items()}


def word_table(scores: Mapping[str, ScoredText]) -> Table:
    """One row per word of `text.split()`: the word, its position as in `token_table`, its number of tokens
    and, for each of `scores`, the total bits of the word and of the whitespace after it.

    Whitespace inside a token (" boat") counts toward the word. The whitespace after a word is all
    whitespace-only tokens up to the next word: spaces, newlines and separators of documents. Whitespace
    before the first word is not in the table.
    """
    scored = next(iter(scores.values()))
    word, is_space = words_of_tokens(scored.starts, len(scored.text), scored.words)
    count, follows = len(scored.words.texts), is_space & (word >= 0)
    columns: Table = {"word": [escaped(text.encode()) for text in scored.words.texts]}
    columns |= _position_columns(scored.text, scored.words.starts)
    columns["tokens"] = np.bincount(word[~is_space], minlength=count)
    for name, each in scores.items():
        bits = each.bits
        space = "space" if name == "surprisal" else f"{name}_space"
        columns[name] = np.bincount(word[~is_space], bits[~is_space], minlength=count)
        columns[space] = np.bincount(word[follows], bits[follows], minlength=count)
    return columns


def table_lines(table: Table) -> Iterator[str]:
    """The table as tab-separated lines, column names first."""
    yield "\t".join(table) + "\n"
    columns = (
        (f"{value:.5f}" for value in column)
        if isinstance(column, np.ndarray) and column.dtype.kind == "f"
        else map(str, column)
        for column in table.values()
    )
    for row in zip(*columns, strict=True):
        yield "\t".join(row) + "\n"


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
