"""Decoding: exactly the text that was encoded, in any encoding and any blocks; or one clear line."""

import io
import re

import pytest
from hypothesis import assume, example, given, settings, strategies as st

from lm.data import decoding
from lm.data.binary_files import binary_kind
from lm.data.decoding import Decoded, decoded, open_text, own_encoding_warning, replaced_warning
from lm.data.encodings import is_utf_8
from lm.errors import DataError

FRENCH = "Le garçon lève la tête.\nLa façade d’un café, à côté : « Où êtes-vous allée cet été ? »\n"
CHINESE = "江南的雨下了三天，渡口的老人还在等最后一班船。\n他数着灯，一盏、两盏。\n"
RUSSIAN = "Он вышел из дома рано утром, когда город ещё спал.\nНикто не видел его.\n"
JAPANESE = "港の朝は静かで、船はまだ眠っている。\n老人は灯りを数えた。\n"
ENCODINGS = ("utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be", "utf-7", "gb18030", "cp1252")
ENCODINGS += ("cp932", "euc_jp", "big5", "koi8-r", "iso2022_jp", "hz", "latin-1", "utf-8-sig")


def read(raw, encoding=None, errors="strict", done=None, line_breaks=True):
    blocks = decoded(io.BytesIO(raw), "t.txt", encoding, errors, done, line_breaks)
    return b"".join(blocks).decode()


def error_of(raw, encoding=None):
    with pytest.raises(DataError) as raised:
        read(raw, encoding)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def with_line_feeds(text):
    return text.replace("\r\n", "\n").replace("\r", "\n")


def own_encoding(raw, encoding):
    """Whether bytes in this encoding happen to be UTF-8, or to begin with a byte-order mark."""
    if encoding.startswith("utf-"):
        return False
    return raw[:2] in (b"\xff\xfe", b"\xfe\xff") or (not raw.isascii() and is_utf_8(raw))


TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\r\n\té中é"), max_size=60)


@given(text=TEXTS, encoding=st.sampled_from(ENCODINGS), size=st.integers(1, 9))
@example(text="a\r\nb\rc\r\r\n", encoding="utf-16-le", size=1)
@settings(deadline=None)
def test_decoding_gives_exactly_the_text_in_blocks_of_any_size(text, encoding, size):
    before, decoding.BLOCK = decoding.BLOCK, size
    try:
        if encoding == "iso2022_jp":
            text = text.replace("\x1b", "")  # begins an escape sequence there
        raw = text.encode(encoding, "ignore")
        assume(not own_encoding(raw, encoding))
        expected = raw.decode(encoding).removeprefix("\ufeff")
        assert read(raw, encoding) == with_line_feeds(expected)
        assert read(raw, encoding, line_breaks=False) == expected
        assert read(raw, encoding, "replace") == with_line_feeds(expected)
        with open_text(io.BytesIO(raw), "t.txt", encoding) as opened:
            assert opened.read() == expected
    finally:
        decoding.BLOCK = before


@given(text=TEXTS, encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]))
@settings(deadline=None)
def test_encodings_with_a_byte_order_mark_need_no_flag(text, encoding):
    text = text.replace("\0", "").removeprefix("\ufeff")
    assert read(text.encode(encoding)) == with_line_feeds(text)


@given(raw=st.binary(max_size=80), encoding=st.sampled_from([None, *ENCODINGS]), size=st.integers(1, 9))
@settings(deadline=None)
def test_any_bytes_are_decoded_or_one_line_says_why_not(raw, encoding, size):
    before, decoding.BLOCK = decoding.BLOCK, size
    try:
        read(raw, encoding, "replace", done := Decoded())
        assert 0 <= done.replaced <= done.characters
        read(raw, encoding)
        assert not done.replaced
    except DataError as error:
        assert "\n" not in str(error) and re.match(r"t\.txt (is not|looks like) ", str(error))
    finally:
        decoding.BLOCK = before


@pytest.mark.parametrize("text", ["plain ASCII text\n", "naïve café\n", FRENCH, "ab\r\ncd\n"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_byte_order_mark_is_recognized(text, encoding):
    assert read(text.encode(encoding)) == with_line_feeds(text)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_chinese_utf_16_without_a_byte_order_mark_is_recognized(encoding):
    assert read((CHINESE * 20).encode(encoding)) == CHINESE * 20


@pytest.mark.parametrize("raw", [b"a\0b", b"ab\0cd\0ef\0gh\0", b"\0" * 20, b"a\rb\0c\r", b"x\0\0y" * 9])
def test_utf_8_with_zero_bytes_is_not_taken_for_utf_16(raw):
    assert read(raw) == with_line_feeds(raw.decode())


@pytest.mark.parametrize(
    ("text", "encoding", "likely"),
    [
        (FRENCH, "cp1252", "cp1252"),
        ("a plain text " * 4 + "a Façade …", "cp1252", "cp1252"),
        (CHINESE, "gb18030", "gb18030"),
        (CHINESE, "gbk", "gb18030"),
        (RUSSIAN, "cp1251", "cp1251"),
        (RUSSIAN * 3, "koi8-r", "koi8-r"),
        (JAPANESE, "shift_jis", "cp932"),
        ("江南的風景，渡口的老人還在等最後一班船。\n", "big5", "big5"),
        ("Příliš žluťoučký kůň úpěl ďábelské ódy.\n", "cp1250", "cp1250"),
    ],
)
def test_error_names_the_likely_encoding_and_shows_a_line(text, encoding, likely):
    raw = b"plain\n" + text.encode(encoding)
    message = error_of(raw)
    position = next(i for i, byte in enumerate(raw) if byte > 0x7F)
    assert re.match(
        rf"t\.txt is not UTF-8: byte 0x[0-9a-f]{{2}} at position \d+; it looks like {likely} \('", message
    )
    assert message.endswith(f"'): use --encoding {likely}.")
    assert "replace" not in message
    line = raw.decode(encoding)[:position].count("\n")
    shown = message.partition("('")[2].rpartition("')")[0].strip("… ")
    assert shown in raw.decode(encoding).split("\n")[line]
    assert read(raw, likely) == raw.decode(encoding)


def test_error_for_a_wrong_encoding_suggests_utf_8():
    assert "is not ascii" in (message := error_of(FRENCH.encode(), "ascii"))
    assert message.endswith("use --encoding utf-8.")


def test_position_counts_bytes_of_the_file_in_any_encoding(monkeypatch):
    monkeypatch.setattr(decoding, "BLOCK", 7)
    raw = "\ufeffabcdefgh".encode("utf-16-le") + b"\x00\xd8a\x00"
    assert "is not utf-16-le: byte 0x00 at position 18" in error_of(raw)


def test_position_in_utf_8_does_not_count_a_mark_that_is_not_there():
    assert "byte 0xff at position 3;" in error_of(b"abc\xff", "utf-8")
    assert "byte 0xff at position 6;" in error_of(b"\xef\xbb\xbfabc\xff", "utf-8")


def test_byte_order_mark_is_dropped_only_at_the_beginning(monkeypatch):
    monkeypatch.setattr(decoding, "BLOCK", 4)
    text = "\ufeffab\ufeffcd\ufeff"
    for encoding in ("gb18030", "utf-16-le"):
        assert read(text.encode(encoding), encoding) == text[1:]


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
def test_byte_order_of_utf_16_is_recognized_without_a_mark(order):
    assert read("hello world".encode(order), "utf-16") == "hello world"
    assert read("中".encode("utf-16-le"), "utf-16") == "中"  # if it cannot be recognized


def test_line_in_an_error_is_shortened_on_both_sides():
    message = error_of(f"{'x' * 30}a café au lait{'y' * 30}\nplain".encode("cp1252"))
    shown = message.partition("('")[2].rpartition("')")[0]
    assert shown == f"… {'x' * 25}a café au lait{'y' * 21} …"
    message = error_of("a café au lait\nplain".encode("cp1252"))
    assert "('a café au lait')" in message


@pytest.mark.parametrize(
    ("raw", "encoding"),
    [
        *((text.encode()[:-1], None) for text in (CHINESE.strip(), JAPANESE + "港", "é" * 9)),
        (FRENCH.encode() + "größer".encode()[:3], None),
        ((CHINESE * 5).encode("gb18030")[:-2], "gb18030"),
        ((JAPANESE * 5).encode("cp932", "ignore") + b"\x83", "cp932"),
        (FRENCH.encode("utf-16") + b"x", None),
        (FRENCH.encode("utf-16-le") + b"x", "utf-16-le"),
        (FRENCH.encode("utf-32")[:-2], None),
    ],
)
def test_text_that_ends_within_a_character_is_not_taken_for_another_encoding(raw, encoding):
    with pytest.raises(DataError, match="the file ends within a character: get the whole file") as error:
        read(raw, encoding)
    assert "use --encoding " not in str(error.value).replace("--encoding-errors", "")
    assert read(raw, encoding, errors="replace").endswith("\ufffd")


def test_a_few_characters_of_another_encoding_are_damage():
    assert "a damaged character" in error_of("naïve café déjà".encode() + b"\n\xff and more\n")
    assert "a damaged character" in error_of("It’s a “fine” day…\n".encode() + b"It\x92s mine\n")


def test_halves_of_surrogate_pairs_are_replaced_and_counted():
    done = Decoded()
    assert read(b"x+2D3AP7/2D3eA", "utf-7", errors="replace", done=done) == "x\ufffd\uc03f\ubff6\u0f77\ufffd"
    assert done.replaced == 2


def test_damaged_utf_8_is_not_taken_for_another_encoding():
    message = error_of(CHINESE.encode() + b"\xe4\xb8\n" + CHINESE.encode())
    assert "it is UTF-8 with a damaged character" in message
    assert "--encoding-errors replace" in message


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"\xff\xd8\xff\xe0" + bytes(range(256)), "a JPEG image"),
        (b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n1 0 obj", "a PDF document"),
        (b"PK\x03\x04\x14\0\x08\x08\x08\0\x90\x91", "a zip archive or an office document"),
        (b"PK\x03\x04" + b"text" * 99, "a zip archive or an office document"),
        (b"BM" + b"\0" * 9 + b"text" * 99, "a BMP image"),
        (b"\x00\x01\x80\x90" * 30, "a binary file"),
        (bytes(range(256)) * 9, "a binary file"),
    ],
)
def test_error_for_a_binary_file_says_what_it_is(raw, kind):
    assert binary_kind(raw) == kind
    assert f" looks like {kind}, not text" in error_of(raw + b"\xff")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "gb18030", "cp932", "utf-32"])
@pytest.mark.parametrize(
    "text", [FRENCH, CHINESE * 9, JAPANESE * 9, "BM and MZ are letters", "ID3 GIF8 RIFF"]
)
def test_text_is_not_binary(text, encoding):
    raw = text.encode(encoding, "ignore")
    assert binary_kind(raw) is None


def test_replaced_characters_are_counted():
    done = Decoded()
    assert read(b"a\xffb\xe4\xb8c\xef\xbf\xbd", errors="replace", done=done) == "a\ufffdb\ufffdc\ufffd"
    assert (done.replaced, done.characters) == (2, 6)
    assert replaced_warning(1, 1000) is None
    assert "changed 2 of 1,999 characters (0.10%)" in replaced_warning(2, 1999)
    assert replaced_warning(0, 0) is None


CZECH = "Příliš žluťoučký kůň úpěl ďábelské ódy.\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [("plain\nDeklica je šla.\nplain", "iso8859-2"), ("Perché è così?", "cp1252"), ("ağaç\n", "cp1254")],
)
def test_error_shows_the_same_line_in_each_of_several_likely_encodings(text, encoding):
    message = error_of(text.encode(encoding))
    assert "; it may be " in message
    assert message.endswith("'): name the one whose line is right with --encoding.")
    shown = dict(re.findall(r"([\w-]+) \('([^']*)'\)", message))
    line = next(line for line in text.split("\n") if not line.isascii())
    assert len(shown) > 1 and shown[encoding] == line
    assert shown == {name: line.encode(encoding).decode(name) for name in shown}


def test_error_shows_a_line_in_which_the_likely_encodings_differ():
    message = error_of("Él é bom.\nParlò così?\n".encode("cp1252"))
    assert "at position 0; it may be " in message
    assert "cp1252 ('Parlò così?')" in message and "cp1250 ('Parlň cosě?')" in message


SINGLE_BYTE = ("cp1250", "koi8-r", "iso8859-2", "cp437", "mac_roman", "iso2022_jp", "cp037")


@pytest.mark.parametrize("encoding", SINGLE_BYTE)
@pytest.mark.parametrize("text", [CZECH, FRENCH, RUSSIAN, CHINESE, "an é", "x" * 50 + "é"])
def test_utf_8_is_not_read_in_a_single_byte_encoding(monkeypatch, text, encoding):
    for size in (4, 20, decoding.BLOCK):
        monkeypatch.setattr(decoding, "BLOCK", size)
        assert read(text.encode(), encoding, done=(done := Decoded())) == text
        assert list(done.own_encoding) == ["t.txt"]


@pytest.mark.parametrize("encoding", ["gb18030", "cp932", "euc_jp", "big5", "cp949"])
def test_utf_8_is_not_read_in_an_encoding_of_several_bytes(encoding):
    assert read((CHINESE + FRENCH).encode(), encoding) == CHINESE + FRENCH


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
@pytest.mark.parametrize("text", [FRENCH * 4, RUSSIAN, CHINESE])
def test_utf_8_is_not_read_in_an_encoding_of_wide_characters(monkeypatch, text, encoding):
    for size in (4, 20, decoding.BLOCK):
        monkeypatch.setattr(decoding, "BLOCK", size)
        assert read(text.encode(), encoding, done=(done := Decoded())) == text
        assert list(done.own_encoding) == ["t.txt"]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("plain", "cp1252"),
        (FRENCH, "cp1252"),
        (CHINESE, "gb18030"),
        ("隆", "gb18030"),  # also UTF-8
        ("臺", "big5"),
        ("é", "utf-16-le"),
    ],
)
def test_text_in_the_named_encoding_is_read_in_it(text, encoding):
    assert read(text.encode(encoding), encoding, done=(done := Decoded())) == text
    assert not done.own_encoding


@pytest.mark.parametrize("end", [b"\xe9", b"\xc3", b"\xc3\xa9\xe9"])
def test_one_byte_that_is_not_utf_8_decides_however_late(monkeypatch, end):
    monkeypatch.setattr(decoding, "BLOCK", 16)
    raw = b"plain text " * 20 + b"\xc3\xa9 " * 20 + end
    assert read(raw, "cp1252") == raw.decode("cp1252")


@pytest.mark.parametrize("encoding", ["cp1252", "gb18030", "utf-8", "utf-16-be", "utf-32", "ascii", "hz"])
@pytest.mark.parametrize("marked", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("text", ["plain", CZECH, CHINESE])
def test_a_byte_order_mark_counts_more_than_the_named_encoding(text, marked, encoding):
    if (marked, encoding) == ("utf-32", "utf-16-be"):
        return  # the mark could be that of UTF-16 and a NUL
    assert read(text.encode(marked), encoding, done=(done := Decoded())) == text
    assert bool(done.own_encoding) == (encoding != marked.removesuffix("-sig"))


def test_files_in_their_own_encoding_are_counted():
    assert own_encoding_warning([]) is None
    assert own_encoding_warning(["/d/a.txt"]).startswith("--encoding was not used for 1 file (a.txt): ")
    four = own_encoding_warning(["zip://d/a.txt::b.zip", "/d/b", "/d/c", "/d/d"])
    assert four.startswith("--encoding was not used for 4 files (a.txt, b, c, …): ")


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (JAPANESE, "iso2022_jp"),
        ("ｶﾀｶﾅ" + JAPANESE, "iso2022_jp_ext"),
        ("아침에 강으로 갔다.\n", "iso2022_kr"),
        (CHINESE, "hz"),
    ],
)
@pytest.mark.parametrize("before", ["", "plain text, " * 99 + "\n"])
def test_text_with_escape_sequences_is_an_error_that_names_its_encoding(monkeypatch, text, encoding, before):
    monkeypatch.setattr(decoding, "BLOCK", 1000)
    raw = (before + text).encode(encoding)
    message = error_of(raw)
    assert message.startswith(f"t.txt looks like {encoding} ('")
    assert text[:9] in message
    assert message.endswith(f"'): use --encoding {encoding}, or utf-8 to keep its escape sequences.")
    assert read(raw, encoding) == before + text
    assert read(raw, "utf-8") == raw.decode()
    assert binary_kind(raw) is None


@pytest.mark.parametrize(
    "text",
    [
        "\x1b[1mbold\x1b(B\x1b[m",
        '(format t "~{~a~^, ~}~%" list)',
        "a ~{b}~ c",
        "~{ab~a~}",
        "costs \x1b $B",
        "~{~}",
    ],
)
def test_other_escape_sequences_are_text(text):
    assert read(text.encode()) == text
