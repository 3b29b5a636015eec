"""A text is cut into documents or blocks that are whole, whatever its tokenizer."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from lm.evaluation import resampling
from lm.evaluation.metrics import compute_metrics
from lm.evaluation.resampling import interval_of, parts_of, resample
from lm.insight.surprisal import score_text
from lm.tokenization.documents import SEPARATOR
from lm.tokenization.positions import token_starts
from lm.tokenization.vocabulary import KINDS, train_tokenizer
from tests.insight.networks import make
from tests.tokenization.test_positions import DOCUMENTS, SAMPLE, joined, lowercase_wordpiece


def cut(lengths):
    """Documents of these lengths, read one character at a time."""
    text = SEPARATOR.join(b"x" * length for length in lengths)
    return parts_of(text, np.arange(len(text)))


def test_documents_are_resampled_if_there_are_enough():
    assert str(cut([50] * 10)) == "10 documents"
    assert str(cut([500] * 9)) == "45 blocks"
    assert str(cut([100] * 8 + [500, 900])) == "22 blocks"
    assert str(cut([500] * 30 + [100_000])) == "100 blocks"  # one of them is nearly the whole text
    assert str(cut([10] * 2_500)) == "1,000 groups of documents"
    assert str(cut([300])) == "3 blocks" and not cut([300]).enough
    assert cut([0] * 30).sums(np.arange(29), np.ones(29)).sum() == 29


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_sums_of_documents_are_those_of_each_document(kind, reset, monkeypatch):
    monkeypatch.setattr(resampling, "_MIN_PARTS", 1)
    documents = ["the sea\n", "", "é the boat", "中文 was", "\n", "calm.\n\n", "the"]
    scored = score_text(make(kind), joined(documents), reset=reset)
    assert str(scored.parts) == "7 documents"
    assert scored.parts.sizes.tolist() == [[len(d), len(d.encode())] for d in documents]
    rows = scored.per_token()
    expected = [0.0] * 7
    for bits, document in zip(rows["surprisal"], rows["document"], strict=True):
        expected[document - 1] += bits
    assert scored.parts.sums(scored.starts, scored.bits) == pytest.approx(expected)


TOKENIZERS = [*(train_tokenizer(kind, iter([SAMPLE]), 400) for kind in KINDS), lowercase_wordpiece()]


@given(documents=DOCUMENTS, first=st.sampled_from(TOKENIZERS), second=st.sampled_from(TOKENIZERS))
@settings(deadline=None, max_examples=200)
def test_no_token_of_either_tokenizer_is_in_two_blocks(documents, first, second):
    text = joined(documents)
    both = [token_starts(each, text, each.encode_bytes(text)) for each in (first, second)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resampling, "_MIN_BLOCK_SIZE", 1)
        parts = parts_of(text, *both)
    assert parts.offsets[0] == 0 and parts.offsets[-1] == len(text)
    assert (np.diff(parts.offsets) > 0).all() or not text
    assert parts.sizes.sum(axis=0).tolist() == [sum(map(len, documents)), len(text) - len(documents) + 1]
    characters = text.decode(errors="surrogateescape")
    offsets = np.cumsum([0, *(len(c.encode(errors="surrogateescape")) for c in characters)])
    visible = [
        o for o, c in zip(offsets.tolist(), characters, strict=False) if c != "\udcff" and not c.isspace()
    ]
    for border in parts.offsets[1:-1].tolist():
        assert border in offsets
        for starts in both:
            # The token of a character is the last that starts at or before it.
            before, after = (
                {np.searchsorted(starts, offset, side="right") - 1 for offset in part}
                for part in ([o for o in visible if o < border], [o for o in visible if o >= border])
            )
            left = np.searchsorted(starts, border)
            assert max(before, default=-1) < left <= min(after, default=left)


def test_words_and_pieces_of_words_have_blocks_in_common():
    """Of running text without line breaks, where a piece of a word begins with the space before it."""
    text = ("the sea was " * 900).encode()
    starts = [token_starts(t, text, t.encode_bytes(text)) for t in TOKENIZERS if t.kind in ("word", "bpe")]
    assert len(starts) == 2 and len(np.intersect1d(*starts)) < 3
    parts = parts_of(text, *starts)
    assert len(parts) >= 20
    assert np.ptp(np.diff(parts.offsets)) < 20


@pytest.mark.slow
def test_intervals_of_clustered_losses_contain_the_mean_95_percent_of_the_time():
    """Documents differ in their mean loss; without that, intervals of tokens would be too narrow."""
    trials, covered, naive = 200, 0, 0
    generator = np.random.default_rng(0)
    for _ in range(trials):
        lengths = generator.integers(20, 200, 60)
        means = 2 + 0.5 * generator.normal(size=60)
        losses = np.repeat(means, lengths + 1) + generator.normal(size=lengths.sum() + 60)
        text = SEPARATOR.join(b"x" * length for length in lengths.tolist())
        losses, starts = losses[: len(text)], np.arange(len(text))
        low, high = compute_metrics(losses, starts, parts_of(text, starts)).loss.interval
        covered += low <= 2 <= high
        naive += abs(losses.mean() - 2) <= 1.96 * losses.std() / len(losses) ** 0.5
    assert 0.9 <= covered / trials <= 0.99
    assert naive / trials < 0.6


def test_resampling_agrees_with_a_plain_bootstrap():
    sums = np.random.default_rng(1).random((40, 2))
    drawn = np.random.default_rng(0).integers(0, 40, (4000, 40))
    totals = np.array([[sums[part] for part in parts] for parts in drawn.tolist()]).sum(axis=1)
    assert resample(sums) == pytest.approx(totals)
    assert interval_of(np.arange(1001.0)) == (25, 975)
