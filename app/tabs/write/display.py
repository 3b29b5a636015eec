"""What the Write tab displays: what the model has written, spans of the text, and the status."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from ...continuation import Progress
from ...draft import GOES_ON, NO_BITS, Draft
from ...ui.i18n import translate


def written_value(
    run: str, model: str, base: str, drafts: Sequence[Draft], seeds: Sequence[int | None], picked: str = ""
) -> dict[str, Any]:
    """What drafts have added to `base`, for static/writing.js: the text after the UTF-16 code unit `at`, with
    its bits for each code unit, and the seed. `picked` is what the user chose after `base`."""
    # The two halves of a Windows line ending replace the last character of the base.
    kept = base if all(draft.text.startswith(base) for draft in drafts) else base[:-1]
    texts = []
    for draft, seed in zip(drafts, seeds, strict=True):
        text, bits = draft.text[len(kept) :], draft.bits[len(kept) :]
        texts.append({"text": text, "bits": _for_utf16(text, bits), "seed": seed})
    return {
        "run": run,
        "model": model,
        "at": utf16_length(kept),
        "picked": utf16_length(picked),
        "texts": texts,
    }


def utf16_length(text: str) -> int:
    """The number of UTF-16 code units, in which the browser counts."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def utf16_spans(text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans of characters as spans of UTF-16 code units: characters above U+FFFF count twice."""
    offsets = [0, *accumulate(1 + (character > "\uffff") for character in text)]
    return [(offsets[start], offsets[end]) for start, end in spans]


def _for_utf16(text: str, bits: str) -> str:
    """The marks of a draft's characters as marks of UTF-16 code units; see app.draft."""
    if text.isascii() or max(text) <= "\uffff":
        return bits
    return "".join(
        mark if character <= "\uffff" else mark + (NO_BITS if mark == NO_BITS else GOES_ON)
        for character, mark in zip(text, bits, strict=True)
    )


def status_line(progress: Progress, seed: int) -> str:
    """The seed, the number of tokens and the speed of a generation."""
    status = translate(
        "seed {seed} · {tokens:,} token · {speed:,.0f} tokens/s"
        if progress.tokens == 1
        else "seed {seed} · {tokens:,} tokens · {speed:,.0f} tokens/s",
        seed=seed,
        tokens=progress.tokens,
        speed=progress.tokens_per_second,
    )
    return status + (f" · {translate('the model ended the text')}" if progress.ended else "")
