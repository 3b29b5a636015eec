"""Documents within a text file: what Python's split says, wherever the blocks end."""

import pytest
from hypothesis import example, given, settings, strategies as st

from lm.config.schema import DataConfig
from lm.console.progress import no_progress
from lm.data.corpus import open_corpus
from lm.data.eval_text import read_held_out, read_whole
from lm.data.separation import separated, without_empty
from lm.errors import UserError
from lm.tokenization.documents import SEPARATOR
from tests.data.conftest import found, read

TEXTS = st.text(st.sampled_from("ab \t\n*é中"), max_size=60)


def split(text, separator, size):
    raw = text.encode()
    blocks = (raw[start : start + size] for start in range(0, len(raw), size))
    joined = b"".join(without_empty(separated(blocks, separator)))
    return [document.decode() for document in joined.split(SEPARATOR)] if joined else []


@given(
    text=TEXTS,
    separator=st.sampled_from(["*", "**", "a*a", "\\n**\\n", "中é", "aab", "a"]),
    size=st.integers(1, 9),
)
@example(text="a**aaba*a*a***", separator="**", size=1)
@settings(deadline=None)
def test_a_string_separates_as_in_python(text, separator, size):
    expected = text.split(separator.replace("\\n", "\n"))
    assert split(text, separator, size) == list(filter(None, expected))


@given(text=TEXTS, size=st.integers(1, 9))
@settings(deadline=None)
def test_each_line_is_a_document(text, size):
    assert split(text, "line", size) == list(filter(None, text.split("\n")))


@given(text=st.text(st.sampled_from("ab \t\n\né"), max_size=60), size=st.integers(1, 9))
@example(text="\n \n  a\n \t\n\n b \nc\n\n", size=3)
@example(text="a  \n", size=2)
@settings(deadline=None)
def test_blank_lines_separate_runs_of_other_lines(text, size):
    documents, lines = [], []
    for line in [*text.split("\n"), ""]:
        if line.strip(" \t"):
            lines.append(line)
        elif lines:
            documents.append("\n".join(lines))
            lines = []
    assert split(text, "blank-line", size) == documents


@pytest.mark.parametrize(
    ("separator", "text"),
    [
        (r"\t", "a\tb"),
        (r"\\n", "a\\nb"),
        (r"\u4e2d", "a中b"),
        (r"\ud83d\ude00", "a😀b"),
        (r"\x41", "aAb"),
        (r"\r\n--\r\n", "a\n--\nb"),
        ("<|endoftext|>", "a<|endoftext|>b"),
        (r"\d", "a\\db"),
    ],
)
def test_separators_have_escapes(separator, text):
    assert split(text, separator, 100) == ["a", "b"]


@pytest.fixture
def tales(tmp_path, monkeypatch):
    monkeypatch.setenv("LM_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "tales.txt"
    file.write_bytes(b"".join(b"tale %d\r\n***\r\n" % number for number in range(200)))
    return file


def test_documents_of_a_file_are_separated_by_eos(tales):
    plain = DataConfig(dataset=str(tales))
    config = DataConfig(dataset=str(tales), document_separator=r"\n***\n", validation_split="0.5")
    corpus = open_corpus(config)
    assert corpus.train.counts.documents + corpus.validation.counts.documents in (200, 201)
    assert corpus.tokenizer.unknown_in("*") == ["*"]
    assert open_corpus(plain).train.counts.documents == 1
    whole = read_whole(config, None, no_progress).text
    assert whole.split(SEPARATOR) == [b"tale %d" % number for number in range(200)]
    held_out = read_held_out(config, "validation", no_progress).text
    assert whole.endswith(held_out) and held_out.count(SEPARATOR) + 1 == corpus.validation.counts.documents


def test_separator_of_tables_and_empty_separator_are_errors(tmp_path, tales):
    (tmp_path / "t.jsonl").write_text('{"text": "a"}')
    with pytest.raises(UserError, match=r"applies only to text files: leave it out for .*/t\.jsonl\.$"):
        found(tmp_path / "t.jsonl", document_separator="line")
    with pytest.raises(UserError, match="must be a string"):
        found(tales, document_separator="")
    for half in (r"\ud83d", "\udca7"):  # the second is a byte of the command line that is not UTF-8
        with pytest.raises(UserError, match="is not UTF-8"):
            found(tales, document_separator=half)


def test_files_stay_documents_of_their_own(tmp_path):
    for name, text in (("a", "1\n2\n"), ("b", "\n"), ("c", "3\n4")):
        (tmp_path / name).write_text(text)
    assert read(tmp_path, document_separator="line") == ["1", "2", "3", "4"]
    assert read(tmp_path) == ["1\n2\n", "\n", "3\n4"]
