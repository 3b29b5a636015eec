"""The likely encodings of a text in many languages: the right one is first, or named with others."""

import unicodedata

import pytest

from lm.data.likely_encoding import likely_encodings

# The usual encodings of each language, a short text and a longer one.
TEXTS = {
    "French": (
        "cp1252 iso8859-15 mac_roman cp850",
        "Le garçon a posé sa tasse près de la fenêtre.",
        "Où étiez-vous cet été ? Nous sommes restés à la maison, où il faisait très chaud, et mon frère "
        "a peint la façade. Ma sœur dit que c'est déjà l'automne : les forêts sont rousses, la pêche "
        "est finie, et l'hôtel du château a fermé ses volets.",
    ),
    "German": (
        "cp1252 mac_roman cp850 cp437",
        "Die Bäckerin öffnet früh die Tür.",
        "Der große Hund schläft über dem Stall, und die Mädchen müssen für die Prüfung üben. Später "
        "fährt der Zug nach Süden; draußen wird es kühl. Äpfel und Nüsse liegen im Körbchen, weil "
        "Großmutter sie schön findet.",
    ),
    "Spanish": (
        "cp1252 mac_roman cp850",
        "Mañana saldré temprano con mi compañera.",
        "¿Dónde está el niño? Él jugó en el jardín hasta que llovió. Según la señora, el pingüino más "
        "pequeño comió después. Todavía no sé quién cantó aquella canción, pero sonó así durante muchos "
        "años.",
    ),
    "Portuguese": (
        "cp1252 mac_roman cp850",
        "A manhã não é fria e o pão está quente.",
        "Você já viu a estação nova? São três irmãs que vêm à praça com lições de avó. A ação começou "
        "às dez, porém ninguém quis ficar até ao fim; também não havia açúcar, só maçãs e limões.",
    ),
    "Italian": (
        "cp1252 mac_roman cp850",
        "La città è bella perché c'è il mare.",
        "Però non so più se verrà lunedì o martedì: la libertà è così, dice mio papà. Il caffè costa "
        "già troppo, e là giù nessuno sa cosa succederà all'università.",
    ),
    "Dutch": (
        "cp1252 mac_roman",
        "Hij heeft één idee en drie reünies gehad.",
        "De knieën van het kind deden pijn, maar de patiënt wilde coördineren wat België en Italië "
        "deden. Vóór vijf uur was het café leeg, zei één van de categorieën bezoekers.",
    ),
    "Swedish": (
        "cp1252 mac_roman cp850 cp437",
        "Flickan går över ån på våren.",
        "Det är inte så långt härifrån; båten ligger vid bryggan och väntar på några människor från ön. "
        "Åskan gick nyss förbi, men än är det för blåsigt för att ro, säger den äldsta av fiskarna.",
    ),
    "Danish": (
        "cp1252 mac_roman cp850",
        "Drengen løber ned på stranden og råber.",
        "Når vi kører over broen, ser vi små både, som sejler mod øerne. Æblerne på træet er røde, og "
        "min søster har købt brød. Så går vi hjem; måske får vi lært at læse kortet først.",
    ),
    "Norwegian": (
        "cp1252 mac_roman cp850",
        "Jenta så en blå båt på sjøen.",
        "Når været blir dårlig, må vi gå hjem før det blir mørkt. Ærlig talt synes jeg øya er vakrest "
        "om høsten. Gutten spør om å få være med på fjellet, der snøen ligger hvit også i mai.",
    ),
    "Finnish": (
        "cp1252 mac_roman cp850",
        "Tyttö meni äitinsä kanssa järvelle.",
        "Siellä ei näkynyt ketään, eikä isäkään löytänyt venettä. Yöllä tuuli yltyi, ja pöllö huusi "
        "metsässä. Me päätimme jäädä mökille, koska sää oli jäätävä; nyt syömme leipää ja lämmitämme "
        "saunaa.",
    ),
    "Icelandic": (
        "cp1252 mac_roman",
        "Stúlkan gekk niður að sjónum.",
        "Það var einu sinni bóndi sem átti þrjá syni. Þeir fóru út á vatnið, en báturinn lak og þá kom "
        "stór fugl. Enginn veit hvað hann sagði, því að vindurinn var of hávær; síðan ríkti kyrrð í "
        "dalnum og ærnar átu gras.",
    ),
    "Catalan": (
        "cp1252",
        "Demà anirem a la plaça amb la meva germà.",
        "Això és el que vàrem dir: no hi ha cap raó per témer. La cançó començà a mitjanit i durà fins "
        "que sortí el sol. Què més hi havia? Només pa, tomàquet i l'olor del camí.",
    ),
    "English": (
        "cp1252 mac_roman",
        "The café isn’t open, “perhaps tomorrow”, she said – but it’s cold.",
        "We’ve met before, haven’t we? “Not that I recall,” he said—and then, after a pause, “unless it "
        "was in the café.” It cost £5, and the naïve waiter didn’t notice. The rest of the evening was "
        "quiet… nobody sang.",
    ),
    "Czech": (
        "cp1250 iso8859-2 cp852",
        "Dívka šla ráno k řece pro vodu.",
        "Když přišla zima, řeka zamrzla a děti se učily bruslit. Říkali, že žádný člověk nemůže přejít "
        "až na druhý břeh. Můj dědeček se tomu smál: byl tam už třikrát a pokaždé něco ztratil, "
        "naposledy nůž. Čas běžel, ťukání utichlo a kůň spal.",
    ),
    "Slovak": (
        "cp1250 iso8859-2",
        "Dievča nieslo vodu z potôčika k mlynu.",
        "Keď prišla zima, rieka zamrzla a deti sa učili korčuľovať. Hovorilo sa, že žiadny človek "
        "nemôže prejsť až na druhý breh. Môj dedko sa smial: bol tam už trikrát a vždy niečo stratil, "
        "naposledy nôž. Čas ušiel a kôň spal na lúke.",
    ),
    "Polish": (
        "cp1250 iso8859-2 cp852",
        "Dziewczyna poszła rano po wodę do źródła.",
        "Kiedy przyszła zima, rzeka zamarzła, a dzieci uczyły się jeździć na łyżwach. Mówiono, że żaden "
        "człowiek nie może przejść na drugi brzeg. Mój dziadek się śmiał: był tam już trzy razy i "
        "zawsze coś zgubił, ostatnio nóż. Świat milczał, a koń spał.",
    ),
    "Hungarian": (
        "cp1250 iso8859-2 cp852",
        "A lány reggel vízért ment a folyóhoz.",
        "Amikor eljött a tél, a folyó befagyott, és a gyerekek korcsolyázni tanultak. Azt mondták, "
        "senki sem juthat át a túlsó partra. A nagyapám nevetett: ő már háromszor járt ott, és mindig "
        "elveszített valamit, legutóbb egy kést. Az idő múlt, a ló aludt, a szél hűvös erdőket fésült.",
    ),
    "Romanian": (
        "cp1250 iso8859-2",
        "Fata a mers dimineaţa să aducă apă.",
        "Când a venit iarna, râul a îngheţat şi copiii au învăţat să patineze. Se spunea că niciun om "
        "nu poate trece până pe malul celălalt. Bunicul meu râdea: fusese acolo de trei ori şi pierdea "
        "mereu câte ceva, ultima oară un cuţit. Însă într-o zi tăcu.",
    ),
    "Croatian": (
        "cp1250 iso8859-2",
        "Djevojka je ujutro pošla po vodu na izvor.",
        "Kad je došla zima, rijeka se zaledila i djeca su učila klizati. Govorili su da nijedan čovjek "
        "ne može prijeći na drugu obalu. Moj djed se smijao: već je tri puta bio ondje i uvijek je "
        "nešto izgubio, posljednji put nož. Čekali smo, a kuća je šutjela među brežuljcima.",
    ),
    "Slovenian": (
        "cp1250 iso8859-2",
        "Deklica je šla zjutraj po vodo.",
        "Ko je prišla zima, je reka zamrznila in otroci so se učili drsati. Govorili so, da noben "
        "človek ne more čez na drugi breg. Moj ded se je smejal: tam je bil že trikrat in vedno je kaj "
        "izgubil, nazadnje nož. Čas je bežal, hiša pa je spala.",
    ),
    "Turkish": (
        "cp1254 iso8859-9",
        "Kız sabah erkenden su almaya gitti.",
        "Kış gelince ırmak dondu, çocuklar kaymayı öğrendi. Hiç kimsenin karşı kıyıya geçemeyeceği "
        "söylenirdi. Dedem gülerdi: oraya üç kez gitmiş, her seferinde bir şey kaybetmişti, en son da "
        "bıçağını. Şimdi yağmur yağıyor, değirmen susuyor; İstanbul uzak.",
    ),
    "Lithuanian": (
        "cp1257 iso8859-13",
        "Mergaitė rytą ėjo vandens prie šaltinio.",
        "Kai atėjo žiema, upė užšalo ir vaikai mokėsi čiuožti. Sakydavo, kad joks žmogus negali pereiti "
        "į kitą krantą. Mano senelis juokėsi: jis ten buvo jau tris kartus ir visada ką nors pamesdavo, "
        "paskutinį kartą peilį. Laikas bėgo, o arklys miegojo, ąžuolai ošė, lūšis tylėjo.",
    ),
    "Latvian": (
        "cp1257 iso8859-13",
        "Meitene no rīta gāja pēc ūdens.",
        "Kad atnāca ziema, upe aizsala un bērni mācījās slidot. Runāja, ka neviens cilvēks nevar pāriet "
        "uz otru krastu. Mans vectēvs smējās: viņš tur bija jau trīs reizes un vienmēr kaut ko "
        "pazaudēja, pēdējo reizi nazi. Laiks gāja, zirgs gulēja, ķirši ziedēja, šķūnis krita.",
    ),
    "Estonian": (
        "cp1257 cp1252",
        "Tüdruk läks hommikul jõe äärde vett tooma.",
        "Kui tuli talv, jäätus jõgi ja lapsed õppisid uisutama. Räägiti, et ükski inimene ei pääse üle "
        "teisele kaldale. Minu vanaisa naeris: tema oli seal juba kolm korda käinud ja alati midagi ära "
        "kaotanud, viimati noa. Aeg läks, öö oli külm ja hobune magas.",
    ),
    "Russian": (
        "cp1251 koi8_r cp866 iso8859-5",
        "Девочка утром пошла к реке за водой.",
        "Когда пришла зима, река замёрзла, и дети учились кататься на коньках. Говорили, что никто не "
        "может перейти на другой берег. Мой дед смеялся: он был там уже три раза и всегда что-нибудь "
        "терял, в последний раз нож. Шло время, лошадь спала, съели щи.",
    ),
    "Ukrainian": (
        "cp1251 koi8_u",
        "Дівчина вранці пішла до річки по воду.",
        "Коли прийшла зима, річка замерзла, і діти вчилися кататися на ковзанах. Казали, що ніхто не "
        "може перейти на інший берег. Мій дід сміявся: він був там уже тричі й щоразу щось губив, "
        "востаннє ніж. Його кінь спав, а її хата мовчала; ґанок скрипів, є надія.",
    ),
    "Bulgarian": (
        "cp1251 cp866",
        "Момичето отиде сутринта за вода до реката.",
        "Когато дойде зимата, реката замръзна и децата се учеха да карат кънки. Казваха, че никой не "
        "може да мине на другия бряг. Дядо ми се смееше: той беше там вече три пъти и винаги губеше "
        "нещо, последния път ножа си. Времето течеше, а конят спеше.",
    ),
    "Serbian": (
        "cp1251 iso8859-5",
        "Девојка је ујутру пошла по воду на извор.",
        "Кад је дошла зима, река се заледила и деца су учила да клизају. Говорили су да ниједан човек "
        "не може прећи на другу обалу. Мој деда се смејао: већ је три пута био тамо и увек је нешто "
        "изгубио, последњи пут нож. Љубав и њива, ђак и џак.",
    ),
    "Greek": (
        "cp1253 iso8859-7",
        "Το κορίτσι πήγε το πρωί για νερό.",
        "Όταν ήρθε ο χειμώνας, το ποτάμι πάγωσε και τα παιδιά έμαθαν να κάνουν πατινάζ. Έλεγαν ότι "
        "κανένας άνθρωπος δεν μπορεί να περάσει στην άλλη όχθη. Ο παππούς μου γελούσε: είχε πάει εκεί "
        "τρεις φορές και πάντα κάτι έχανε, την τελευταία φορά ένα μαχαίρι.",
    ),
    "Hebrew": (
        "cp1255 iso8859-8",
        "הילדה הלכה בבוקר להביא מים.",
        "כשבא החורף קפא הנהר והילדים למדו להחליק. אמרו שאיש אינו יכול לעבור אל הגדה השנייה. סבא שלי "
        "צחק: הוא כבר היה שם שלוש פעמים ותמיד איבד משהו, בפעם האחרונה סכין. הזמן עבר והסוס ישן.",
    ),
    "Arabic": (
        "cp1256 iso8859-6",
        "ذهبت البنت في الصباح لتجلب الماء.",
        "عندما جاء الشتاء تجمد النهر وتعلم الأطفال التزلج. كانوا يقولون إن أحدا لا يستطيع أن يعبر إلى "
        "الضفة الأخرى. كان جدي يضحك: لقد كان هناك ثلاث مرات وفي كل مرة كان يفقد شيئا، وفي المرة الأخيرة "
        "سكينا.",
    ),
    "Persian": (
        "cp1256",
        "دختر صبح به کنار رود رفت تا آب بياورد.",
        "وقتي زمستان آمد، رودخانه يخ زد و بچه‌ها ياد گرفتند که سر بخورند. پدربزرگ من مي‌خنديد: او سه "
        "بار آنجا بود و هر بار چيزي گم مي‌کرد، بار آخر يک چاقو.",
    ),
    "Thai": (
        "cp874 iso8859-11",
        "เด็กหญิงไปตักน้ำที่แม่น้ำตอนเช้า",
        "เมื่อฤดูหนาวมาถึง แม่น้ำก็กลายเป็นน้ำแข็ง และเด็กๆ ก็หัดเล่นสเก็ต ปู่ของฉันหัวเราะ "
        "เขาเคยไปที่นั่นสามครั้งแล้ว และทำของหายทุกครั้ง ครั้งสุดท้ายเป็นมีด",
    ),
    "Vietnamese": (
        "cp1258",
        "Buổi sáng cô bé đi lấy nước ở sông.",
        "Khi mùa đông đến, dòng sông đóng băng và trẻ em học trượt băng. Người ta nói rằng không ai có "
        "thể sang bờ bên kia. Ông tôi cười: ông đã đến đó ba lần và lần nào cũng đánh mất một thứ gì đó.",
    ),
    "Chinese": (
        "gb18030 gbk",
        "女孩早上去河边打水。",
        "冬天来了，河水结了冰，孩子们学会了滑冰。人们说，谁也过不到对岸去。我的爷爷笑了：他已经去过三次，每次都丢了东西，最后一次丢的是一把刀。时间过去了，马睡着了。",
    ),
    "Traditional Chinese": (
        "big5",
        "女孩早上去河邊打水。",
        "冬天來了，河水結了冰，孩子們學會了滑冰。人們說，誰也過不到對岸去。我的爺爺笑了：他已經去過三次，每次都丟了東西，最後一次丟的是一把刀。時間過去了，馬睡著了。",
    ),
    "Japanese": (
        "cp932 euc_jp",
        "女の子は朝、川へ水をくみに行った。",
        "冬が来ると川は凍り、子どもたちはスケートを習った。だれも向こう岸へは渡れないと言われていた。祖父は笑った。もう三度もそこへ行き、そのたびに何かをなくした。最後はナイフだった。",
    ),
    "Korean": (
        "cp949 euc_kr",
        "소녀는 아침에 강으로 물을 길으러 갔다.",
        "겨울이 오자 강이 얼었고 아이들은 스케이트를 배웠다. 아무도 건너편 강가로 갈 수 없다고들 했다. "
        "할아버지는 웃었다. 그는 벌써 세 번이나 그곳에 갔고, 그때마다 "
        "무언가를 잃어버렸다.",
    ),
}


def encoded(text, encoding):
    """The text in an encoding: that of Vietnamese has letters and tones apart, older ones have few quotes."""
    if encoding == "cp1258":
        text = "".join(map(_apart, text))
    return text.encode(encoding, "ignore")


def _apart(character):
    try:
        character.encode("cp1258")
        return character
    except UnicodeEncodeError:
        letter, *marks = unicodedata.normalize("NFD", character)
        tones = "".join(mark for mark in marks if mark not in "\u0302\u0306\u031b")
        marks = "".join(mark for mark in marks if mark not in tones)
        return unicodedata.normalize("NFC", letter + marks) + tones


CASES = [(language, encoding) for language, (names, *_) in TEXTS.items() for encoding in names.split()]


@pytest.mark.parametrize(("language", "encoding"), CASES)
def test_a_sentence_has_its_encoding_among_the_likely_ones(language, encoding):
    raw = encoded(TEXTS[language][1], encoding)
    likely = likely_encodings(raw)
    readings = [raw.decode(name) for name in likely]
    assert raw.decode(encoding) in readings, readings
    assert len(set(readings)) == len(readings) <= 3


@pytest.mark.parametrize(("language", "encoding"), CASES)
@pytest.mark.parametrize(
    ("template", "repeated"), [("{}", 1), ("id,text\r\n1,{}\r\n", 20), ('<p class="text">{}</p>\n', 1)]
)
def test_a_few_sentences_have_their_encoding_first(language, encoding, template, repeated):
    raw = (
        template.format(encoded(TEXTS[language][2], encoding).decode("latin-1")).encode("latin-1") * repeated
    )
    (likely,) = likely_encodings(raw)
    assert raw.decode(likely) == raw.decode(encoding)


def test_a_letter_at_the_end_is_read():
    assert likely_encodings("un café".encode("cp1252")) == ["cp1252"]


def test_a_sample_may_end_within_a_character():
    raw = encoded(TEXTS["Chinese"][2], "gb18030")
    assert all(likely_encodings(raw[:end]) == ["gb18030"] for end in range(60, 80))


@pytest.mark.parametrize("raw", [b"", b"plain", bytes(range(128, 256)) * 9])
def test_nothing_is_likely_for_what_is_not_text(raw):
    assert likely_encodings(raw) == []
