"""The most likely encodings of text that is not UTF-8.

Each common encoding turns the bytes beyond ASCII into other characters. The likely ones give letters that a
language has, in places where letters are, and common ones more often than rare ones.
"""

from __future__ import annotations

import codecs
import math
import unicodedata
from collections import Counter

# Of encodings that decode a text to the same characters, the first is suggested.
_ENCODINGS = (
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258", "cp874"),
    *("gb18030", "cp932", "euc_jp", "cp949", "big5", "koi8_r", "koi8_u", "iso8859_15", "iso8859_2"),
    *("iso8859_5", "iso8859_6", "iso8859_7", "iso8859_8", "iso8859_13"),
    *("mac_roman", "cp850", "cp437", "cp852", "cp866"),
)
_OLD = ("iso8859", "mac", "cp4", "cp850", "cp852", "cp866")
# The percentage of letters beyond ASCII in each language, and these letters, the most frequent first.
_LETTERS = {
    "French": (3, "éàèêçùâîôûœëï"),
    "German": (1.4, "üäöß"),
    "Spanish": (2, "óáíéñúü"),
    "Portuguese": (3.4, "ãéáçíóêõúâàô"),
    "Italian": (0.8, "èàòùéì"),
    "Dutch": (0.1, "ëéïóèöü"),
    "Swedish": (6, "äåöé"),
    "Danish and Norwegian": (3, "åøæéòô"),
    "Finnish": (5.5, "äöå"),
    "Icelandic": (13, "áðíóéþæöúý"),
    "Catalan": (2.5, "àéóèíçòúïü"),
    "English": (0.02, "éèñïöü"),
    "Czech": (13, "íáéěřýžčšůúňóťď"),
    "Slovak": (10, "áíčéžýšúľťôňóďäŕĺ"),
    "Polish": (7, "łęąóżśćńź"),
    "Hungarian": (10, "éáöóőüíúű"),
    "Romanian": (6, "ăîşţâ"),
    "Croatian and Slovenian": (3, "čšžćđ"),
    "Turkish": (10, "ıüşğçöİâî"),
    "Lithuanian": (7, "ėšųįžąčūę"),
    "Latvian": (10, "āīēšūņļžčģķ"),
    "Estonian": (5, "äõüöšž"),
    "Vietnamese": (29, "\u0323\u0301\u0300đươôêâă\u0309\u0303àáéíúèùó"),
    "Russian": (100, "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъё"),
    "Ukrainian": (100, "оаинвітерслкдмупзяьбгчйхїцжюєшщфґ"),
    "Belarusian": (100, "анраеіылостякумцўдпвзьхбгчжёшйюэф"),
    "Bulgarian": (100, "аоеинтрсвлкдпмзягъбучцжщхйюшфь"),
    "Serbian": (100, "аоеинртсвјукдмлпзгбчшњљцжхћђфџ"),
    "Greek": (100, "ατοιεσηνρυκπλςμίόάέγήδύχθώφβξζψϊϋΐΰ"),
    "Hebrew": (100, "יוהלאתרבשמנכעדקחפםגצזטןסךץף"),
    "Arabic": (100, "ايلمونرتبةعدسفهكقحجشىصأطإخضغءزذثئآظؤ"),
    "Persian": (100, "ايندرهمتوسبشکزلگخقفپعجحآصطچغضثذژظئ"),
    "Thai": (100, "านร่อก้เงีมยลวิัดทสตะ็ปบคห์ุูแจพชำขใืไึโผถณซศญธๆษฟฐฤภฉฝฎฏฑฒฆฬฯ"),
}
_PUNCTUATION = "’“”–«»\xa0…—„‘°·€¿¡‚‹›£§½©®™•،؛؟"
_RARE = 1e-5  # the probability of any other character
_MISPLACED = 0.01  # factor for an uppercase letter or a symbol within a word, and for mixed alphabets
_UNUSUAL = 3.0  # at most: much of a text may be markup or in English
_PLAUSIBLE = -6.5  # mean logarithm of the probability of a byte in text
_CLOSE = 2.0  # difference of such logarithms up to which another encoding may be the right one, too
_NAMED = 3


def likely_encodings(sample: bytes) -> list[str]:
    """The likely encodings of text that is not UTF-8, the best first, each with other characters.

    Empty if nothing fits.
    """
    beyond = sum(byte > 0x7F for byte in sample)
    found: dict[str, tuple[float, str]] = {}  # by the text
    for name in _ENCODINGS:
        decoder = codecs.getincrementaldecoder(name)()
        try:
            text = decoder.decode(sample)
        except UnicodeDecodeError:
            continue
        text += "\ufffd" * len(decoder.getstate()[0])  # the first byte of a character is rare at the end
        score = _log_probability(text, name) - name.startswith(_OLD)
        if text not in found or score > found[text][0]:
            found[text] = score, name
    if not found or not beyond:
        return []
    ranked = sorted(found.values(), key=lambda each: -each[0])
    best = ranked[0][0]
    if best < _PLAUSIBLE * beyond:
        return []
    return [codecs.lookup(name).name for score, name in ranked[:_NAMED] if score >= best - _CLOSE]


def _log_probability(text: str, encoding: str) -> float:
    """The logarithm of the probability of the characters beyond ASCII, in the language that fits best."""
    characters: Counter[str] = Counter()
    factors = 0.0
    triples = Counter(zip(" " + text, text, text[1:] + " ", strict=False))
    for (before, character, after), count in triples.items():
        if character > "\x7f":
            characters[character] += count
            factors += count * _placed(before, character, after)
    if encoding in _EAST_ASIAN:
        return factors + sum(n * math.log(_east_asian(c, encoding)) for c, n in characters.items())
    beyond = sum(n for character, n in characters.items() if _is_letter(character))
    letters = beyond + sum(map(str.isalpha, text.encode("ascii", "ignore").decode()))
    return factors + max(
        sum(n * language.get(c, _LOG_RARE) for c, n in characters.items())
        - _deviance(beyond, letters * share / 100)
        for share, language in _LANGUAGES
    )


def _deviance(number: int, expected: float) -> float:
    """How much less probable a number is than the expected one, by Poisson's law: 0 to _UNUSUAL."""
    logarithm = number * math.log(number / expected) if number else 0.0
    return min(_UNUSUAL, logarithm - number + expected)


def _placed(before: str, character: str, after: str) -> float:
    """The logarithm of a factor for a character between two others."""
    letters = before.isalpha() + after.isalpha()
    if not _is_letter(character):
        return math.log(_MISPLACED) if letters == 2 and character not in "’·" else 0.0
    misplaced = character.isupper() and before.islower()
    misplaced |= any(c.isalpha() and _is_latin(c) != _is_latin(character) for c in (before, after))
    return math.log(_MISPLACED) if misplaced else 0.0


def _is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] in "LM"


def _is_latin(character: str) -> bool:
    return character < "\u0370" or "\u1e00" <= character < "\u1f00"


def _language(letters: str) -> dict[str, float]:
    """The logarithm of the probability of each character beyond ASCII, by Zipf's law."""
    result: dict[str, float] = {}
    for characters, probability in ((_PUNCTUATION, 0.15), (letters.upper(), 0.08), (letters, 0.77)):
        total = sum(1 / (rank + 3) for rank in range(len(characters)))
        for rank, character in enumerate(characters):
            result[character] = probability / (rank + 3) / total
    return {character: math.log(probability) for character, probability in result.items()}


_LOG_RARE = math.log(_RARE)
_LANGUAGES = [(share, _language(letters)) for share, letters in _LETTERS.values()]
# The common characters of East Asian encodings, as the standard that each began with orders them: the first
# and last byte pair, and the probability of each.
_EAST_ASIAN = {
    "gb18030": (("gb2312", 0xB0A1, 0xD7F9, 1 / 1500),),
    "big5": (("big5", 0xA440, 0xC67E, 1 / 2000),),
    "cp949": (("euc_kr", 0xB0A1, 0xC8FE, 1 / 600),),
    "cp932": (("euc_jp", 0xA4A1, 0xA5F6, 1 / 150), ("euc_jp", 0xB0A1, 0xCFD3, 1 / 2500)),
    "euc_jp": (("euc_jp", 0xA4A1, 0xA5F6, 1 / 150), ("euc_jp", 0xB0A1, 0xCFD3, 1 / 2500)),
}


def _east_asian(character: str, encoding: str) -> float:
    """The probability of a character in East Asian text."""
    if "\u3000" <= character <= "\u3011" or "\uff00" < character <= "\uff1f":
        return 0.01
    for standard, first, last, probability in _EAST_ASIAN[encoding]:
        pair = int.from_bytes(character.encode(standard, "ignore"), "big")
        if first <= pair <= last:
            return probability
    return _RARE
