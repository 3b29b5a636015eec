"""Encodings: unknown names are errors with a hint, and UTF-16 and UTF-32 are recognized without a mark."""

import pytest
from hypothesis import example, given, settings, strategies as st

from lm.data.encodings import check_encoding, encoding_of, recognize_wide
from lm.errors import UserError


@pytest.mark.parametrize(
    "name", ["cp1252", "windows-1252", "UTF-16", "gb18030", "utf8", "latin-1", "big5hkscs"]
)
def test_encodings_of_python_are_known(name):
    assert check_encoding(name) == name


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("gb1803", "did you mean 'gb18030'"),
        ("cp12522", "did you mean 'cp1252'"),
        ("base64", "examples"),
        ("rot13", "examples"),
        ("undefined", "examples"),
        ("a\0b", "examples"),
    ],
)
def test_unknown_encoding_is_an_error_with_a_hint(name, hint):
    with pytest.raises(UserError, match=hint):
        check_encoding(name)


SENTENCES = {
    "English": "The sea was calm, and a small boat went out.",
    "French": "Où étiez-vous cet été ? Nous étions « près du lac ».",
    "Māori": "Āe, i haere ngā tamariki ki te moana i te ata.",
    "decomposed": "La citta\u0300 e\u0300 bella perche\u0301 si vede il mare.",
    "Vietnamese": "Buổi sáng cô bé đi lấy nước ở sông.",
    "Polish": "Dziewczyna poszła rano po wodę do źródła.",
    "Russian": "Мороз и солнце, а мы идём к реке.",
    "Greek": "Το κορίτσι πήγε το πρωί για νερό.",
    "Armenian": "Աղջիկը առավոտյան գնաց գետի մոտ։",
    "Georgian": "გოგონა დილით მდინარეზე წავიდა.",
    "Hebrew": "הילדה הלכה בבוקר להביא מים.",
    "Arabic": "ذهبت البنت في الصباح لتجلب الماء.",
    "Persian": "دختر صبح به کنار رود رفت تا آب بیاورد.",
    "Hindi": "लड़की सुबह नदी से पानी लाने गई।",
    "Bengali": "মেয়েটি সকালে নদী থেকে জল আনতে গেল।",
    "Punjabi": "ਕੁੜੀ ਸਵੇਰੇ ਨਦੀ ਤੋਂ ਪਾਣੀ ਲੈਣ ਗਈ।",
    "Tamil": "சிறுமி காலையில் ஆற்றுக்குச் சென்றாள்.",
    "Telugu": "అమ్మాయి ఉదయం నదికి వెళ్ళింది.",
    "Malayalam": "പെൺകുട്ടി രാവിലെ പുഴയിലേക്ക് പോയി.",
    "Sinhala": "කෙල්ල උදේ ගඟට ගියා.",
    "Thai": "เด็กหญิงไปตักน้ำที่แม่น้ำตอนเช้า แล้วกลับบ้าน",
    "Lao": "ເດັກນ້ອຍໄປຕັກນ້ຳຢູ່ແມ່ນ້ຳ ຕອນເຊົ້າ",
    "Burmese": "မိန်းကလေးသည် မနက်တွင် မြစ်သို့သွားသည်။",
    "Khmer": "ក្មេងស្រីទៅដងទឹក នៅពេលព្រឹក។",
    "Tibetan": "བུ་མོ་ཞོགས་པར་ཆུ་ལེན་དུ་སོང་། ཕྱིར་ལོག",
    "Amharic": "ልጅቷ ጠዋት ውሃ ለመቅዳት ሄደች።",
    "Chinese": "女孩早上去河边打水。冬天来了，河水结了冰，孩子们学会了滑冰。",
    "Japanese": "女の子は朝、川へ水をくみに行った。祖父は笑った。",
    "Korean": "소녀는 아침에 강으로 물을 길으러 갔다.",
}
WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")


@pytest.mark.parametrize("encoding", WIDE)
@pytest.mark.parametrize("language", SENTENCES)
@pytest.mark.parametrize("template", ["{}\n", "{}\r\n", "id,text\n1,{}\n"])
def test_utf_16_and_utf_32_are_recognized_without_a_mark(language, template, encoding):
    text = template.format(SENTENCES[language])
    for repeated in (text, text * 40):
        assert encoding_of(repeated.encode(encoding), None) == (encoding, b"")
        assert encoding_of(repeated.encode(encoding), encoding[:6]) == (encoding, b"")


# The UTF-8 of single characters and zero bytes may be the UTF-16 of others.
WORDS = st.sampled_from(
    [word for line in SENTENCES.values() for word in line.split() if len(word.encode()) > 1]
)
BETWEEN = st.sampled_from([" "] * 5 + ["\n", "\t", "\0", ", ", "\r\n", "\0\0", "\x1f", "\x01", ""])


@given(pairs=st.lists(st.tuples(WORDS, BETWEEN), min_size=2, max_size=40))
@example(pairs=[("1", "\t"), ("0", "\n")] * 20)
@example(pairs=[("abc", "\0")] * 20)
@example(pairs=[("ab", "\0"), ("cd", "\0"), ("é", "")] * 9)
@settings(deadline=None, max_examples=500)
def test_utf_8_is_never_taken_for_utf_16(pairs):
    raw = "".join(word + between for word, between in pairs).encode()
    assert recognize_wide(raw) is None


@given(st.lists(st.tuples(st.sampled_from(["Façade", "café", "où", "un", "Été"]), BETWEEN), min_size=5))
@settings(deadline=None)
def test_other_encodings_with_zero_bytes_are_not_taken_for_utf_16(pairs):
    assert recognize_wide("".join(a + b for a, b in pairs if b >= " ").encode("cp1252")) is None
