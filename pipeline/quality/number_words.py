"""Number words by language, with their inflected forms: data for `numbers`."""

# From 2 to 19, then the tens from 20 to 90, then 100 and 1000; forms of one number separated by "/". A dash: none.
_CARDINALS = {
    "en": (
        "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
        "eighteen nineteen twenty thirty forty/fourty fifty sixty seventy eighty ninety hundred thousand"
    ),
    "de": (
        "zwei/zwo/zweien/zweier drei/dreien/dreier vier/vieren/vierer fünf/fünfen sechs sieben acht neun zehn elf "
        "zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn achtzehn neunzehn zwanzig dreißig/dreissig vierzig fünfzig "
        "sechzig siebzig achtzig neunzig hundert/einhundert tausend/eintausend"
    ),
    "fr": (
        "deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize dix-sept dix-huit "
        "dix-neuf vingt/vingts trente quarante cinquante soixante septante octante/huitante nonante cent/cents mille"
    ),
    "cs": (
        "dva/dvě/dvou/dvěma/dvěmi/dvoje/dvojí tři/tří/třem/třemi/třech/třema/troje "
        "čtyři/čtyř/čtyřem/čtyřmi/čtyřech/čtyřma/čtvero pět/pěti/patero šest/šesti sedm/sedmi osm/osmi devět/devíti "
        "deset/deseti/desíti jedenáct/jedenácti dvanáct/dvanácti třináct/třinácti čtrnáct/čtrnácti patnáct/patnácti "
        "šestnáct/šestnácti sedmnáct/sedmnácti osmnáct/osmnácti devatenáct/devatenácti dvacet/dvaceti třicet/třiceti "
        "čtyřicet/čtyřiceti padesát/padesáti šedesát/šedesáti sedmdesát/sedmdesáti osmdesát/osmdesáti "
        "devadesát/devadesáti sto/stovka tisíc/tisíce"
    ),
    "pt": (
        "dois/duas três quatro cinco seis sete oito nove dez onze doze treze quatorze/catorze quinze "
        "dezesseis/dezasseis dezessete/dezassete dezoito dezenove/dezanove vinte trinta quarenta cinquenta sessenta "
        "setenta oitenta noventa cem/cento mil"
    ),
    "es": (
        "dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciséis/dieciseis "
        "diecisiete dieciocho diecinueve veinte treinta cuarenta cincuenta sesenta setenta ochenta noventa "
        "cien/ciento mil"
    ),
    "it": (
        "due tre quattro cinque sei sette otto nove dieci undici dodici tredici quattordici quindici sedici "
        "diciassette diciotto diciannove venti trenta quaranta cinquanta sessanta settanta ottanta novanta cento mille"
    ),
    "nl": (
        "twee/tweeën drie/drieën vier/vieren vijf/vijven zes/zessen zeven acht negen tien elf twaalf dertien veertien "
        "vijftien zestien zeventien achttien negentien twintig dertig veertig vijftig zestig zeventig tachtig negentig "
        "honderd duizend"
    ),
    "pl": (
        "dwa/dwie/dwóch/dwu/dwóm/dwoma/dwiema/dwaj/dwoje/dwojga/dwojgiem trzy/trzech/trzem/trzema/trzej/troje/trojga "
        "cztery/czterech/czterem/czterema/czterej/czworo/czworga pięć/pięciu/pięcioma/pięcioro sześć/sześciu/sześcioro "
        "siedem/siedmiu/siedmioro osiem/ośmiu/ośmioro dziewięć/dziewięciu dziesięć/dziesięciu jedenaście/jedenastu "
        "dwanaście/dwunastu trzynaście/trzynastu czternaście/czternastu piętnaście/piętnastu szesnaście/szesnastu "
        "siedemnaście/siedemnastu osiemnaście/osiemnastu dziewiętnaście/dziewiętnastu dwadzieścia/dwudziestu "
        "trzydzieści/trzydziestu czterdzieści/czterdziestu pięćdziesiąt/pięćdziesięciu sześćdziesiąt/sześćdziesięciu "
        "siedemdziesiąt/siedemdziesięciu osiemdziesiąt/osiemdziesięciu dziewięćdziesiąt/dziewięćdziesięciu sto/stu "
        "tysiąc/tysiąca"
    ),
    "ru": (
        "два/две/двух/двум/двумя/двое/двоих/двоим три/трёх/трех/трём/трем/тремя/трое/троих "
        "четыре/четырёх/четырех/четырём/четырем/четырьмя/четверо/четверых пять/пяти/пятью/пятеро/пятерых "
        "шесть/шести/шестью/шестеро/шестерых семь/семи/семеро/семерых восемь/восьми/восемью девять/девяти/девятью "
        "десять/десяти/десятью одиннадцать/одиннадцати двенадцать/двенадцати тринадцать/тринадцати "
        "четырнадцать/четырнадцати пятнадцать/пятнадцати шестнадцать/шестнадцати семнадцать/семнадцати "
        "восемнадцать/восемнадцати девятнадцать/девятнадцати двадцать/двадцати тридцать/тридцати сорок/сорока "
        "пятьдесят/пятидесяти шестьдесят/шестидесяти семьдесят/семидесяти восемьдесят/восьмидесяти девяносто/девяноста "
        "сто/ста тысяча/тысячи/тысяч"
    ),
    "ja": "ふたり/ふたつ みっつ よっつ いつつ むっつ ななつ やっつ ここのつ",
    "zh": "",
}
_VALUES = [*range(2, 20), *range(20, 100, 10), 100, 1000]

# Words that may stand for a number of the other side and mean nothing where it has none.
LOOSE: dict[str, dict[str, float]] = {
    "en": {
        "one": 1, "both": 2, "couple": 2, "couples": 2, "pair": 2, "pairs": 2, "duo": 2, "twin": 2, "twins": 2,
        "double": 2, "second": 2, "half": 2, "trio": 3, "triplets": 3, "triple": 3, "third": 3, "quartet": 4,
        "fourth": 4, "fifth": 5, "dozen": 12, "dozens": 12, "hundreds": 100, "first": 1,
    },
    "de": {
        "ein": 1, "eine": 1, "einen": 1, "einem": 1, "einer": 1, "eines": 1, "eins": 1, "beide": 2, "beiden": 2,
        "beider": 2, "beides": 2, "paar": 2, "paare": 2, "pärchen": 2, "duo": 2, "zwillinge": 2, "zweit": 2,
        "zweite": 2, "zweiten": 2, "zweiter": 2, "doppelt": 2, "trio": 3, "dritt": 3, "dritte": 3, "dritten": 3,
        "quartett": 4, "viert": 4, "vierte": 4, "dutzend": 12, "dutzende": 12, "hunderte": 100,
    },
    "fr": {
        "un": 1, "une": 1, "couple": 2, "couples": 2, "paire": 2, "paires": 2, "duo": 2, "deuxième": 2, "second": 2,
        "seconde": 2, "double": 2, "jumeaux": 2, "jumelles": 2, "trio": 3, "troisième": 3, "quatuor": 4,
        "quatrième": 4, "dizaine": 10, "douzaine": 12, "quinzaine": 15, "vingtaine": 20, "trentaine": 30,
        "centaine": 100,
    },
    "cs": {
        "jeden": 1, "jedna": 1, "jedno": 1, "oba": 2, "obě": 2, "obou": 2, "oběma": 2, "dvojice": 2, "dvojici": 2,
        "dvojicí": 2, "pár": 2, "páry": 2, "páru": 2, "párem": 2, "dvojčata": 2, "duo": 2, "druhý": 2, "druhá": 2,
        "druhé": 2, "trojice": 3, "trojici": 3, "trojicí": 3, "trio": 3, "třetí": 3, "čtveřice": 4, "čtveřici": 4,
        "čtveřicí": 4, "pětice": 5, "pětici": 5, "pěticí": 5, "šestice": 6, "šestici": 6, "tucet": 12, "tuctu": 12,
    },
    "pt": {
        "um": 1, "uma": 1, "ambos": 2, "ambas": 2, "casal": 2, "casais": 2, "par": 2, "dupla": 2, "gêmeos": 2,
        "gémeos": 2, "segundo": 2, "segunda": 2, "trio": 3, "terceiro": 3, "terceira": 3, "quarteto": 4, "dúzia": 12,
    },
    "es": {
        "un": 1, "una": 1, "uno": 1, "ambos": 2, "ambas": 2, "pareja": 2, "par": 2, "dúo": 2, "gemelos": 2,
        "segundo": 2, "segunda": 2, "trío": 3, "tercero": 3, "tercera": 3, "cuarteto": 4, "docena": 12,
    },
    "it": {
        "un": 1, "una": 1, "uno": 1, "entrambi": 2, "entrambe": 2, "coppia": 2, "paio": 2, "duo": 2, "gemelli": 2,
        "secondo": 2, "seconda": 2, "trio": 3, "terzo": 3, "terza": 3, "quartetto": 4, "dozzina": 12,
    },
    "nl": {"een": 1, "één": 1, "beide": 2, "paar": 2, "koppel": 2, "duo": 2, "tweeling": 2, "trio": 3, "dozijn": 12},
    "pl": {
        "jeden": 1, "jedna": 1, "obaj": 2, "oba": 2, "obie": 2, "para": 2, "pary": 2, "parę": 2, "dwójka": 2,
        "dwójki": 2, "trójka": 3, "trójki": 3, "trio": 3, "czwórka": 4, "piątka": 5, "tuzin": 12,
    },
    "ru": {
        "один": 1, "одна": 1, "оба": 2, "обе": 2, "обоих": 2, "пара": 2, "пару": 2, "пары": 2, "двойня": 2,
        "близнецы": 2, "трио": 3, "тройка": 3, "дюжина": 12, "дюжину": 12,
    },
}  # fmt: skip

# First parts of compounds: zweistöckig, dvoupatrový.
PREFIXES: dict[str, dict[str, float]] = {
    "de": {"zwei": 2, "doppel": 2, "drei": 3, "vier": 4, "fünf": 5, "sechs": 6, "sieben": 7, "acht": 8, "zehn": 10},
    "cs": {"dvou": 2, "tří": 3, "troj": 3, "čtyř": 4, "pěti": 5, "šesti": 6},
    "nl": {"twee": 2, "dubbel": 2, "drie": 3, "vier": 4, "vijf": 5},
    "pl": {"dwu": 2, "trój": 3, "trzy": 3, "cztero": 4},
    "ru": {"двух": 2, "трёх": 3, "трех": 3, "четырёх": 4, "четырех": 4},
}

CONNECTORS = {"en": frozenset({"and"}), "fr": frozenset({"et"}), "es": frozenset({"y"}), "pt": frozenset({"e"})}

# What a Chinese or Japanese numeral counts: without it, 三 is part of another word.
COUNTERS = "个個名位只隻条條人辆輛把匹张張块塊对對双雙支座棵架件头頭岁歲歳层層种種艘台根杯排本枚つ羽軒足着組回艇階"


def _compounds(language: str, words: dict[str, float]) -> dict[str, float]:
    """Numbers from 21 to 99 that are written as one word."""
    units = {word: value for word, value in words.items() if value < 10}
    tens = {word: value for word, value in words.items() if value in range(20, 100, 10)}
    if language == "de":
        units["ein"] = 1
        return {f"{unit}und{ten}": tens[ten] + units[unit] for unit in units for ten in tens}
    if language == "nl":
        units["een"] = 1
        joints = {unit: "ën" if unit.endswith("e") else "en" for unit in units}
        return {f"{unit}{joints[unit]}{ten}": tens[ten] + units[unit] for unit in units for ten in tens}
    if language == "it":
        units |= {"uno": 1, "tré": 3}
        return {
            (ten[:-1] if unit[0] in "uo" else ten) + unit: tens[ten] + units[unit] for unit in units for ten in tens
        }
    if language == "es":
        units |= {"uno": 1, "dós": 2, "trés": 3, "séis": 6}
        return {f"veinti{unit}": 20 + units[unit] for unit in units}
    return {}


def _words(language: str, listed: str) -> dict[str, float]:
    words = {
        form: float(value) for forms, value in zip(listed.split(), _VALUES, strict=False) for form in forms.split("/")
    }
    return words | _compounds(language, words)


WORDS = {language: _words(language, listed) for language, listed in _CARDINALS.items()}
