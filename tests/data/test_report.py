"""The report: facts about a text, and warnings where training would go wrong."""

import numpy as np
import pytest

from lm.config.schema import DataConfig, ModelConfig
from lm.data.corpus import open_corpus
from lm.data.report import rows, warnings
from tests.conftest import some_text

SMALL = ModelConfig(hidden_size=8, layers=1, dropout=0.0)

pytestmark = pytest.mark.usefixtures("empty_cache")


def corpus_of(tmp_path, text, **settings):
    (tmp_path / "t.txt").write_bytes(text.encode() if isinstance(text, str) else text)
    return open_corpus(DataConfig(dataset=str(tmp_path / "t.txt"), **settings))


def test_report_has_the_facts_about_a_text(tmp_path):
    corpus = corpus_of(tmp_path, "ab" * 450 + "c" * 100, validation_split="0.2")
    short = rows(corpus)
    assert short["Text"] == "t: 1 document, 800 characters for training, 200 for validation"
    assert short["Tokens"] == "char, 4 types, 800 for training, 1.00 characters per token"
    assert short["Unknown"] == "100 validation tokens (50%)"
    strange = corpus_of(tmp_path, "ab" * 450 + "c" * 100, validation_split="0.1")
    assert rows(strange)["Unknown"] == "100 validation tokens (100%)"
    full = rows(corpus, full=True)
    assert full["Most common"] == "a 400  b 400"
    assert set(full) - set(short) == {"Characters", "Most common", "Repeated"}
    letters = "".join(chr(ord("a") + n) * (40 - n) for n in range(22))
    full = rows(corpus_of(tmp_path, letters + "a" * 351, validation_split="0.351"), full=True)
    assert full["Most common"].startswith("a 40  b 39") and full["Least common"] == "v 19  u 20"


def test_small_text_is_warned_about_with_advice(tmp_path):
    corpus = corpus_of(tmp_path, some_text(40_000))
    assert warnings(corpus, 50_000, SMALL) == []
    (small,) = warnings(corpus, 1_000_000, ModelConfig(hidden_size=256, layers=2, dropout=0.0))
    assert "for recurrent layers with 1,000,000 weights" in small
    assert small.endswith("try --hidden-size 40 and --dropout 0.3, or more text.")
    (no_advice,) = warnings(corpus, 1_000_000, ModelConfig(hidden_size=16, layers=8, dropout=0.4))
    assert no_advice.endswith("try more text.")


def test_repeated_text_is_warned_about(tmp_path):
    (warning,) = warnings(corpus_of(tmp_path, some_text(10_000) * 2), 1000, SMALL)
    assert "100% of the validation text occurs verbatim in the training text" in warning


def test_binary_file_is_warned_about_but_not_chinese(tmp_path):
    noise = bytes(np.random.default_rng(0).integers(0x20, 256, 20_000).astype(np.uint8))
    (warning, *_) = warnings(corpus_of(tmp_path, noise, encoding="latin-1"), 1000, SMALL)
    assert "is this text" in warning
    chinese = "".join(map(chr, np.random.default_rng(0).integers(0x4E00, 0x9FA0, 20_000)))
    assert not any("is this text" in w for w in warnings(corpus_of(tmp_path, chinese), 1000, SMALL))


def test_files_in_their_own_encoding_are_warned_about(tmp_path):
    text = some_text(10_000) + " Façade"
    (warning,) = warnings(corpus_of(tmp_path, text, encoding="cp1252"), 1000, SMALL)
    assert (
        warning == "--encoding was not used for 1 file (t.txt): UTF-8 and byte-order marks take precedence."
    )
    assert not warnings(corpus_of(tmp_path, text.encode("cp1252"), encoding="cp1252"), 1000, SMALL)


def test_replaced_characters_are_warned_about(tmp_path):
    text = some_text(10_000).encode()
    damaged = corpus_of(tmp_path, text + b"\xe9" * 20, encoding_errors="replace")
    (warning,) = warnings(damaged, 1000, SMALL)
    assert "--encoding-errors replace changed 20 of 10,020 characters (0.20%)" in warning
    assert warnings(corpus_of(tmp_path, text + b"\xe9" * 5, encoding_errors="replace"), 1000, SMALL) == []


def test_many_unknown_tokens_are_warned_about(tmp_path):
    (warning,) = warnings(corpus_of(tmp_path, some_text(9000) + "日" * 1000), 1000, SMALL)
    assert "<unk>" in warning


def test_one_is_singular(tmp_path):
    (tmp_path / "t.csv").write_text("id,text\n1,éü\n", encoding="utf-8")
    corpus = open_corpus(DataConfig(dataset=str(tmp_path / "t.csv"), tokenizer="byte"))
    shown = rows(corpus)
    assert shown["Text"] == "t: 1 document, 1 character for training, 1 for validation"
    assert shown["Column"] == "'text', named text; 1 row"
