"""The section of the Look inside tab for items of a study and minimal pairs, one sentence per line."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape
from itertools import groupby
from typing import Any

import gradio as gr
import numpy as np

from lm.errors import UserError
from lm.evaluation.metrics import Estimate
from lm.insight.pairs import ScoredPairs
from lm.insight.scored_text import ScoredText
from lm.insight.spans import pieces, token_spans
from lm.language_model import LanguageModel
from lm.tokenization.documents import SEPARATOR

from ...ui.custom_html import custom_html
from ...ui.errors import INTERNAL, event_value, show_errors
from ...ui.fields import UNLABELED
from ...ui.i18n import localized, translate
from ...ui.token_view import MAX_LEVEL, on_one_line, surprisal_legend, surprisal_level
from .analysis import file_name, in_bits
from .items import Study, has_pairs, pairs_csv, pairs_of, score_lines, score_pairs_of, score_table
from .section import Inside, dim_while_outdated

_EXAMPLE = "The boat that was lost sank.\nThe boat lost at sea sank."
_KINDS = {"lines": score_lines, "table": score_table}


class Sentences:
    """The section's components and event handlers, laid out in the enclosing Blocks. `heavy` are the settings
    of its events."""

    def __init__(self, inside: Inside, heavy: dict[str, Any]) -> None:
        self._inside = inside
        self.kind = gr.Radio(
            [
                (localized("One sentence per line"), "lines"),
                (localized("Minimal pairs"), "pairs"),
                (localized("Table"), "table"),
            ],
            value="lines",
            label=localized("Kind of sentences"),
            elem_id="inside-kind",
            **UNLABELED,
        )
        self.text = gr.Textbox(
            _EXAMPLE,
            label=localized("Sentences, each read by itself"),
            info=localized("Pairs: the better sentence first. Table: the first line names the columns."),
            lines=4,
            max_lines=4,
            elem_id="inside-sentences",
        )
        with gr.Row():
            self.score = gr.Button(
                localized("Score"), variant="primary", min_width=80, elem_id="inside-score"
            )
            self.file = custom_html(
                "open_file.js",
                '<label><span></span><input type="file" accept=".csv,.tsv,.txt"></label>',
                "inside-csv",
                label=localized("Open CSV or TSV"),
            )
        self.result = gr.HTML(elem_id="inside-scored")
        inputs = [inside.model, self.kind, self.text]
        opened = self.file.click(self.on_file, None, [self.text, self.kind], **INTERNAL)
        scored = [
            event(self.on_score, inputs, self.result, **heavy) for event in (self.score.click, opened.success)
        ]
        dim_while_outdated(self.result, scored, [inside.model.change, self.kind.input, self.text.input])

    def on_file(self, event: gr.EventData) -> tuple[str, str]:
        """The text of a table that the browser has read, and whether it has minimal pairs."""
        with show_errors():
            text = event_value(event, "text")
            if not isinstance(text, str):
                raise UserError("the file is not in UTF-8: save it in this encoding first.")
            if not text.strip("\ufeff \t\r\n"):
                raise UserError("the file is empty: choose another one.")
            return text, "pairs" if has_pairs(text) else "table"

    def on_score(self, name: str | None, kind: str, text: str) -> str:
        """Score the sentences and show them with links to download the tables."""
        with show_errors():
            model = self._inside.models.load(name)
            if kind == "pairs":
                pairs = pairs_of(text or "")
                scored = score_pairs_of(model, pairs)
                link = _link(
                    name, "pairs", pairs_csv(pairs, scored, model, name or ""), translate("Pairs (CSV)")
                )
                return pairs_html(scored, model, link)
            study = _KINDS.get(kind, score_lines)(model, text or "")
            links = (
                _link(name, "tokens", study.csv("per_token", name or ""), translate("Tokens (CSV)")),
                _link(name, "words", study.csv("per_word", name or ""), translate("Words (CSV)")),
            )
            return items_html(study, " ".join(links))


def items_html(study: Study, links: str) -> str:
    """Each sentence in the colors of its tokens, with its bits and its mean entropy, as HTML."""
    scored, model = study.scored, study.model
    rows = []
    documents = scored.text.split(SEPARATOR)
    for number, document, (begin, end) in zip(study.items.rows.numbers, documents, study.bounds, strict=True):
        mean = study.entropies[begin:end].mean() if end > begin else 0.0
        sentence = _sentence(scored, model, document, slice(begin, end))
        rows.append((str(number), sentence, f"{scored.bits[begin:end].sum():.1f}", f"{mean:.2f}"))
    heads = ("", translate("Sentence"), translate("Bits"), translate("Entropy per token"))
    count = translate("{count:,} sentence" if len(rows) == 1 else "{count:,} sentences", count=len(rows))
    note = f'<p class="note" role="status">{escape(count)} · {links}</p>'
    return f"{note}{_legend(scored.unknown)}{_table(heads, rows)}"


def pairs_html(scored: ScoredPairs, model: LanguageModel, link: str) -> str:
    """The sentences of each pair side by side, with their bits and which is more probable, as HTML."""
    rows = []
    results = zip(scored.good, scored.bad, scored.correct, scored.ties, strict=True)
    for number, (good, bad, correct, tie) in enumerate(results, 1):
        verdict = translate("tie") if tie else translate("correct") if correct else translate("wrong")
        sides = (
            part
            for side in (good, bad)
            for part in (_sentence(side, model, side.text, slice(None)), f"{side.bits.sum():.1f}")
        )
        rows.append((str(number), *sides, escape(verdict)))
    heads = ("", translate("Better"), translate("Bits"), translate("Worse"), translate("Bits"), "")
    accuracy = translate(
        "Accuracy {accuracy} on {count:,} pair, ties counted as correct."
        if len(rows) == 1
        else "Accuracy {accuracy} on {count:,} pairs, ties counted as correct.",
        accuracy=_with_interval(scored.accuracy().estimate),
        count=len(rows),
    )
    note = f'<p class="note" role="status">{escape(accuracy)} {link}</p>'
    return f"{note}{_legend(int(scored.unknown.sum()))}{_table(heads, rows)}"


def _with_interval(estimate: Estimate) -> str:
    """'0.67 (0.21 to 1.00)'."""
    value = f"{estimate.value:.2f}"
    if not estimate.interval:
        return value
    low, high = estimate.interval
    return translate("{value} ({low:.2f} to {high:.2f})", value=value, low=low, high=high)


def _sentence(scored: ScoredText, model: LanguageModel, text: bytes, part: slice) -> str:
    """The tokens of a sentence, a part of those scored, colored by surprisal, with the bits of each word
    above it; unknown ones are hatched."""
    tokens, bits, unknown = (values[part] for values in (scored.tokens, scored.bits, scored.is_unknown))
    starts, _ = token_spans(model.tokenizer, text, tokens)
    word, is_space = (values[part] for values in scored.word_of_token)
    words = np.where(is_space, -1, word).tolist()
    texts = pieces(text.decode("utf-8", "replace"), starts)
    shown = []
    for of_word, group in groupby(range(len(words)), words.__getitem__):
        members = list(group)
        spans = "".join(_token(texts[at], float(bits[at]), bool(unknown[at])) for at in members)
        shown.append(spans if of_word < 0 else f"<ruby>{spans}<rt>{bits[members].sum():.1f}</rt></ruby>")
    return f'<code class="sentence">{"".join(shown)}</code>'


def _token(text: str, bits: float, is_unknown: bool) -> str:
    tip = in_bits(bits) + (f", {translate('unknown')}" if is_unknown else "")
    hatched = ' class="unknown"' if is_unknown else ""
    level = surprisal_level(bits)
    colored = f' data-level="{level}"' if level and not is_unknown else ""
    return f'<span{hatched}{colored} title="{escape(tip)}">{escape(on_one_line(text))}</span>'


def _legend(unknown: int) -> str:
    """What the colors of the tokens mean, and the hatching if there are `unknown` tokens."""
    low, high, first, _ = surprisal_legend()
    scale = "".join(f'<span data-level="{level}"></span>' for level in range(first, MAX_LEVEL + 1))
    hatched = ""
    if unknown:
        note = translate("hatched: unknown, with the surprisal of <unk> ({count:,})", count=unknown)
        hatched = f'<span><span class="unknown"></span>{escape(note)}</span>'
    return f'<div class="legend">{escape(low)}<span class="scale">{scale}</span>{escape(high)}{hatched}</div>'


def _table(heads: Iterable[str], rows: Iterable[tuple[str, ...]]) -> str:
    """A table; the first cell of each row names it. Cells are HTML, heads are text."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' if text else "<td></td>" for text in heads)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for first, *cells in rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll" tabindex="0">{table}</div>'


def _link(model: str | None, table: str, content: str, text: str) -> str:
    """A link with which the browser downloads a table."""
    data = base64.b64encode(content.encode("utf-8")).decode("ascii")
    name = file_name(model, f"{table}.csv")
    return f'<a download="{escape(name)}" href="data:text/csv;charset=utf-8;base64,{data}">{escape(text)}</a>'
