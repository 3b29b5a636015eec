"""Ready-made tokenizers are judged by their own tokens: unknown is what they encode as unknown."""

import json

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings, strategies as st
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers

import lm
from lm.cli.run_evaluate import evaluate
from lm.config.schema import DataConfig, ModelConfig
from lm.data import report
from lm.data.corpus import cached_corpus, open_corpus
from lm.data.find_source import find_tokenizer
from lm.errors import DataError, UserError
from lm.insight.infill import infill
from lm.insight.surprisal import score_text
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.documents import CHUNK, SEPARATOR
from lm.tokenization.positions import token_starts
from lm.tokenization.special_tokens import start_token
from lm.tokenization.tokenizer import Tokenizer, describe_unknown
from lm.tokenization.vocabulary import load_external, train_tokenizer

UNK = "[UNK]"
ATOMS = r"\[[^\]]+\]|[A-Z][a-z]|."


def numbered(tokens):
    return {token: index for index, token in enumerate(tokens)}


def word_level(tokens, pattern):
    backend = tokenizers.Tokenizer(models.WordLevel(numbered([UNK, *tokens]), unk_token=UNK))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return backend


def bpe(tokens, fuse):
    characters = dict.fromkeys("".join(tokens))
    pairs = [(token[0], token[1]) for token in tokens if len(token) == 2]
    names = numbered(dict.fromkeys([UNK, *characters, *map("".join, pairs)]))
    return tokenizers.Tokenizer(models.BPE(names, pairs, unk_token=UNK, fuse_unk=fuse))


def word_piece(tokens):
    names = [UNK, *tokens, *(f"##{token}" for token in tokens)]
    backend = tokenizers.Tokenizer(models.WordPiece(numbered(dict.fromkeys(names)), unk_token=UNK))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return backend


def unigram(tokens):
    return tokenizers.Tokenizer(models.Unigram([(UNK, 0.0), *((token, -2.0) for token in tokens)], unk_id=0))


KINDS = {
    "wordlevel": lambda tokens: word_level(tokens, ATOMS),
    "bpe": lambda tokens: bpe(tokens, False),
    "fused bpe": lambda tokens: bpe(tokens, True),
    "wordpiece": word_piece,
    "unigram": unigram,
}
TOKENS = st.lists(st.sampled_from(["a", "b", "é", "日", "ab", "Cl", "Mg", "C", " "]), min_size=1, unique=True)
TEXTS = st.lists(st.text(alphabet="abcé日CMlgxy [ ]\n", max_size=30), min_size=1, max_size=3)


def load(backend, folder):
    backend.save(str(folder / "tokenizer.json"))
    return load_external(folder / "tokenizer.json")[0]


def smiles(folder):
    return load(word_level(["C", "Cl", "O", "[nH]", "Mg"], ATOMS), folder)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(tokens=TOKENS, documents=TEXTS)
def test_unknown_parts_are_what_the_tokenizer_maps_to_its_unknown_token(
    tmp_path_factory, kind, tokens, documents
):
    tokenizer = load(KINDS[kind](tokens), tmp_path_factory.mktemp("external"))
    encodings = [tokenizer.backend.encode(text, add_special_tokens=False) for text in documents]
    spans = [
        text[start:end]
        for text, encoding in zip(documents, encodings, strict=True)
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
        if token == tokenizer.unk
    ]
    text = SEPARATOR.join(document.encode() for document in documents)
    assert tokenizer.unknown_in(text) == list(dict.fromkeys(spans))
    ids = tokenizer.encode_bytes(text)
    assert tokenizer.count_unknown(ids) == len(spans)
    assert len(ids) == sum(len(encoding.ids) for encoding in encodings) + len(documents) - 1
    for document, encoding in zip(documents, encodings, strict=True):
        known = [token for token in encoding.ids if token != tokenizer.unk]
        assert tokenizer.encode(document, skip_unknown=True).tolist() == known


def test_atoms_are_known_by_their_names(tmp_path):
    tokenizer = smiles(tmp_path)
    text = "CClMy[nH]xO"
    assert tokenizer.unknown_in(text) == ["My", "x"]
    assert tokenizer.decode(tokenizer.encode(text, skip_unknown=True)) == "CCl[nH]O"
    assert tokenizer.decode(tokenizer.encode("CCl[nH]OMg")) == "CCl[nH]OMg"
    assert describe_unknown(tokenizer, "NaAgAuFeCuSnPbTiXe") == (
        "'Na', 'Ag', 'Au', 'Fe', 'Cu', 'Sn', 'Pb', 'Ti' …"
    )


def test_a_long_text_is_judged_as_it_is_encoded(tmp_path):
    """In chunks, with the index of each unknown token."""
    tokenizer = smiles(tmp_path)
    text = "CClO[nH] My" * 5000
    ids = tokenizer.encode(text)
    assert tokenizer.count_unknown(ids) == 10000
    assert tokenizer.encode(text, skip_unknown=True).tolist() == ids[ids != tokenizer.unk].tolist()


def test_skipped_words_are_not_cut_out_of_other_words():
    tokenizer = train_tokenizer("word", ["the boat <unk>"])
    assert tokenizer.decode(tokenizer.encode("the he boat <unk>", skip_unknown=True)) == "the boat <unk>"


def test_prompts_are_judged_by_the_tokens_of_the_tokenizer(tmp_path):
    tokenizer = smiles(tmp_path)
    model = LanguageModel(RecurrentLM(ModelConfig(hidden_size=8, layers=1), tokenizer.vocab_size), tokenizer)
    with pytest.raises(UserError, match="the model does not know 'My', 'Na': leave them out"):
        model.encode("CClMyNa", "error")
    assert model.encode("CClMgO", "error") == model.encode("CClMyMgO", "skip") == [1, 2, 5, 3]
    assert model.encode("CClMyO") == [1, 2, 0, 3]
    scored = score_text(model, b"CCl" + SEPARATOR + b"ONaMg")
    assert (scored.unknown, len(scored.tokens)) == (1, 6)


def test_the_report_counts_and_shows_unknown_tokens(tmp_path):
    smiles(tmp_path)
    (tmp_path / "text.smi").write_text("CCl[nH]O\n" * 400 + "MyNa\n" * 2 + "CCl\n" * 200)
    config = DataConfig(dataset=(str(tmp_path / "text.smi"),), tokenizer=str(tmp_path))
    corpus = open_corpus(config)
    unknown = [corpus.tokenizer.unk]
    assert corpus.facts["unknown"] == ["\n", "My", "Na"]
    assert corpus.train.counts.unknown == int(np.isin(corpus.train.tokens, unknown).sum()) > 400
    (line,) = (
        line for line in report.warnings(corpus, 0, ModelConfig()) if "unknown to the tokenizer" in line
    )
    assert line.endswith("such as '\\n' 'My' 'Na'.")
    assert not corpus.facts["exact"]


@pytest.mark.parametrize(
    ("tokens", "exact"), [(["C", "Cl", "O", "[nH]", "\n"], True), (["C", "Cl", "O", "\n"], False)]
)
def test_a_tokenizer_is_exact_if_its_tokens_reproduce_the_text(tmp_path, tokens, exact):
    load(word_level(tokens, ATOMS + r"|\n"), tmp_path)
    (tmp_path / "text.smi").write_text("CCl[nH]O\n" * 400)
    corpus = open_corpus(DataConfig(dataset=(str(tmp_path / "text.smi"),), tokenizer=str(tmp_path)))
    assert corpus.facts["exact"] == exact


def test_a_tokenizer_that_changes_only_a_later_text_is_not_exact(tmp_path):
    backend = train_tokenizer("bpe", ["the sea was calm"], 300).backend
    backend.normalizer = normalizers.NFKC()
    backend.save(str(tmp_path / "tokenizer.json"))
    names = [tmp_path / name for name in ("plain.txt", "ligature.txt", "plainer.txt")]
    for name, text in zip(names, ("the sea was calm\n", "the \ufb01sh swam\n", "a boat\n"), strict=True):
        name.write_text(text * 40, encoding="utf-8")

    def exact(*files):
        return open_corpus(DataConfig(dataset=tuple(map(str, files)), tokenizer=str(tmp_path))).facts["exact"]

    assert exact(names[0], names[2])
    assert not exact(names[0], names[1])


@pytest.mark.parametrize("scheme", ["always", "first"])
def test_spaces_at_the_start_of_a_text_do_not_make_its_parts_inexact(tmp_path, monkeypatch, scheme):
    backend = tokenizers.Tokenizer(
        models.Unigram([("<unk>", 0.0), *((c, -1.0) for c in "▁abcdefghijklmnopqrst\n")], 0)
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    backend.decoder = decoders.Metaspace(prepend_scheme=scheme)
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "a.txt").write_text("a sea of  fish\n" * 200)
    monkeypatch.setattr("lm.data.text.BLOCK", 100)
    corpus = open_corpus(DataConfig(dataset=(str(tmp_path / "a.txt"),), tokenizer=str(tmp_path)))
    assert corpus.facts["exact"]


def test_only_a_split_that_keeps_the_whole_text_is_joined_without_spaces(tmp_path):
    backend = word_level(["C", "O"], r"\s")
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s"), behavior="removed")
    tokenizer = load(backend, tmp_path)
    assert tokenizer.decode(tokenizer.encode("C O")) == "C O"


def test_a_tokenizer_without_an_unknown_token_names_what_to_do(tmp_path):
    tokenizer = load(tokenizers.Tokenizer(models.WordLevel({"a": 0, "c": 1}, unk_token=UNK)), tmp_path)
    with pytest.raises(DataError, match=r"no token for a part of this text .*: add an unknown token"):
        tokenizer.encode("b")
    assert tokenizer.unknown_in("a") == []


def test_tokenizers_that_only_resemble_ours_are_used_as_they_are(tmp_path):
    characters = word_level(["a", "b"], r"[\s\S]")
    characters.normalizer = normalizers.Lowercase()
    assert load(characters, tmp_path).encode("Ab").tolist() == [1, 2]
    names = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_ = tokenizers.Tokenizer(models.BPE(numbered(names), []))
    bytes_.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    assert load(bytes_, tmp_path).encode("a\n").tolist() == [names.index("a"), names.index("Ċ")]


def test_evaluation_names_the_unknown_tokens(tmp_path, capsys):
    tokenizer = smiles(tmp_path)
    network = RecurrentLM(ModelConfig(hidden_size=8, layers=1), tokenizer.vocab_size)
    LanguageModel(network, tokenizer).save(tmp_path / "model")
    (tmp_path / "text.smi").write_text("CClMyO" * 30)
    options = {
        "model": str(tmp_path / "model"),
        "dataset": str(tmp_path / "text.smi"),
        "device": "cpu",
        "precision": "fp32",
        "json": True,
    }
    assert evaluate(options, {}, {}) == 0
    out, err = capsys.readouterr()
    assert (json.loads(out)["unknown"], json.loads(out)["tokens"]) == (30, 120)
    assert "the model does not know 30 of the 120 tokens ('My')" in err
    assert lm.load(tmp_path / "model").tokenizer.unknown_in("MyCl") == ["My"]


@pytest.mark.parametrize("name", ["charr", "wrod", "ungram"])
def test_misspelled_tokenizers_are_recognized(name, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    kind = {"charr": "char", "wrod": "word", "ungram": "unigram"}[name]
    with pytest.raises(UserError, match=rf"got '{name}'; did you mean '{kind}'\?"):
        find_tokenizer(name)


def test_misspelled_tokenizer_files_are_recognized(tmp_path):
    smiles(tmp_path)
    with pytest.raises(UserError, match=r"no tokenizer file .*; did you mean '.*tokenizer\.json'\?"):
        find_tokenizer(str(tmp_path / "tokeniser.json"))


def test_saved_external_tokenizers_keep_their_unknown_token(tmp_path):
    tokenizer = smiles(tmp_path)
    tokenizer.save(tmp_path / "again.json")
    again = Tokenizer.load(tmp_path / "again.json")
    assert (again.kind, again.unk, again.unknown_in("My")) == (tokenizer.kind, tokenizer.unk, ["My"])


SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
WITH_A_SPACE_BEFORE = {
    "prepended": {
        "normalizer": normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    },
    "always": {"pre_tokenizer": pre_tokenizers.Metaspace(prepend_scheme="always")},
    "first": {"pre_tokenizer": pre_tokenizers.Metaspace(prepend_scheme="first", split=False)},
    "bytes": {
        "pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=True),
        "decoder": decoders.ByteLevel(),
    },
    "stripped": {
        "normalizer": normalizers.Strip(left=True, right=False),
        "pre_tokenizer": pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Digits()]),
    },
}


def with_a_space_before(folder, name="prepended"):
    """A tokenizer of characters that puts a space before a text."""
    backend = bpe("abc\né" + SPACE + "".join(sorted(pre_tokenizers.ByteLevel.alphabet())), False)
    for step, value in WITH_A_SPACE_BEFORE[name].items():
        setattr(backend, step, value)
    return load(backend, folder)


def whole(tokenizer, text):
    """What `tokenizers` makes of a text in one piece."""
    return tokenizer.backend.encode(text, add_special_tokens=False)


@pytest.mark.parametrize("name", WITH_A_SPACE_BEFORE)
def test_a_space_is_put_before_a_document_but_not_within_it(tmp_path, name):
    tokenizer = with_a_space_before(tmp_path, name)
    documents = ["ab\n" * (CHUNK // 2), "b", "", "ca é\n\nZ" * (CHUNK // 4), "a"]
    raw = SEPARATOR.join(map(str.encode, documents))
    encodings = [whole(tokenizer, document) for document in documents]
    expected = [token for encoding in encodings for token in (*encoding.ids, tokenizer.eos)][:-1]
    assert tokenizer.encode_bytes(raw).tolist() == expected
    cut = raw.index(b"\n", len(raw) // 2)
    rest = tokenizer.encode_bytes(raw[cut:], continues=True)
    assert [*tokenizer.encode_bytes(raw[:cut]), *rest] == expected
    offsets = np.maximum.accumulate([start for start, _ in encodings[0].offsets])
    starts = token_starts(tokenizer, documents[0].encode(), np.array(encodings[0].ids))
    assert starts.tolist() == offsets.tolist()
    known = [token for token in encodings[3].ids if token != tokenizer.unk]
    assert tokenizer.encode(documents[3], skip_unknown=True).tolist() == known


def test_tokenizers_that_put_a_space_before_every_word_keep_to_it(tmp_path):
    backend = bpe("ab" + SPACE, False)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer = load(backend, tmp_path)
    assert tokenizer.encode("\nb", continues=True).tolist() == whole(tokenizer, "b").ids
    assert len(whole(tokenizer, "b").ids) == 2


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """The settings for two documents in blocks of 50 bytes, and the documents."""
    monkeypatch.setenv("LM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("lm.data.text.BLOCK", 50)
    with_a_space_before(tmp_path)
    documents = ["ab\nc" * 100, "\nca" * 100]
    lines = [json.dumps({"text": document}) for document in documents]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    return DataConfig(dataset=(str(tmp_path / "rows.jsonl"),), tokenizer=str(tmp_path)), documents


def test_each_document_of_a_stream_has_one_space_before_it(rows):
    config, (first, second) = rows
    corpus = open_corpus(config)
    tokenizer, second = corpus.tokenizer, second[: corpus.train.counts.characters - len(first)]
    expected = [*whole(tokenizer, first).ids, tokenizer.eos, *whole(tokenizer, second).ids]
    assert corpus.train.tokens.tolist() == expected


def test_streams_with_spaces_within_documents_are_not_used_again(rows, monkeypatch):
    with monkeypatch.context() as earlier_version:
        earlier_version.setattr("lm.tokenization.subwords._within_documents", lambda spec: None)
        before = open_corpus(rows[0])
    after = open_corpus(rows[0])
    assert len(after.train.tokens) < len(before.train.tokens)
    assert cached_corpus(before.key).train.counts == before.train.counts  # for runs that began with it


def test_a_text_that_is_fed_in_parts_has_one_space_before_it(tmp_path):
    tokenizer = with_a_space_before(tmp_path)
    model = LanguageModel(RecurrentLM(ModelConfig(hidden_size=8, layers=1), tokenizer.vocab_size), tokenizer)
    session = model.session()
    for part in ("ab", "\nc", "a"):
        session.feed(part)
    assert session.tokens[1:] == model.encode("ab\nca")
    session.add(tokenizer.eos)
    session.feed("b")
    assert session.tokens[1:] == [*model.encode("ab\nca"), tokenizer.eos, *model.encode("b")]


def test_a_model_of_a_single_document_starts_after_a_line_break_without_a_space(tmp_path):
    tokenizer = with_a_space_before(tmp_path)
    assert start_token(tokenizer, single_document=True) == tokenizer.backend.token_to_id("\n")


def test_the_text_of_a_gap_has_no_space_before_it(tmp_path):
    tokenizer = with_a_space_before(tmp_path, "bytes")
    forward, backward = (
        LanguageModel(
            RecurrentLM(ModelConfig(hidden_size=8, layers=1, direction=direction), tokenizer.vocab_size),
            tokenizer,
        )
        for direction in ("forward", "backward")
    )
    (gap,) = infill(forward, backward, "ab", "ca", choices=["c"], candidates=1)
    assert gap.tokens == [tokenizer.backend.token_to_id("c")]
    # The gap and what is read after it; " " and "ab" are before it.
    scores = [*forward.score("abcca")[3:], *backward.score("abcca")[:4]]
    assert gap.score == pytest.approx(np.mean([score.logprob for score in scores]))
