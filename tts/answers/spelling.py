"""One spelling for each thing: answers are normalised before they are read. Every line is a policy or a synonym."""

from __future__ import annotations

import re
import unicodedata

from tts.answers.form import is_product

_CHARACTERS = {  # what models write instead of a command
    "π": r"\pi ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "φ": r"\phi ", "λ": r"\lambda ",
    "∞": r"\infty ", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "∕": "/", "⁄": "/",
    "−": "-", "–": "-", "—": "-", "±": r"\pm ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ",
    "⩽": r"\le ", "⩾": r"\ge ", "∈": r"\in ", "∪": r"\cup ", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}",
    "°": r"^\circ ", "′": "'", "’": "'", "\u00a0": " ", "\u2009": " ", "\u202f": " ", "£": " ", "€": " ", "¢": " ",
}  # fmt: skip
_CHARACTERS |= {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}  # full-width forms
_CHARACTERS |= {
    character: r"\frac{{{}}}{{{}}}".format(*unicodedata.normalize("NFKC", character).split("⁄"))
    for character in "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"
}
_CHARACTERS = str.maketrans(_CHARACTERS)
_RAISED = re.compile("[⁰¹²³⁴-⁹⁺⁻ⁿⁱ]+")
_LOWERED = re.compile("[₀-₉]+")
# √13, √x, √(x+1) and √3i, but not √2x, which may be either root
_RADICAL = re.compile(r"([√∛∜])\s*(?:([0-9]+(?:\.[0-9]+)?(?=i?(?![\w.(\\√^]))|[A-Za-z](?![\w(^]))|(?=[({]))")
_RADICALS = {"√": r"\sqrt", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]"}

_FUNCTIONS = "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|gcd|lcm|max|min"


def _commands(names: str, meaning: str) -> tuple[str, str]:
    return rf"\\(?:{names})(?![A-Za-z])", meaning


_SYNONYMS = [
    (re.compile(pattern, re.ASCII), meaning)
    for pattern, meaning in [
        # what doesn't change the meaning
        _commands(r"left|right|mleft|mright|[bB]igg?[lrm]?", ""),
        _commands(r"displaystyle|textstyle|scriptstyle|limits|mathstrut|rm|bf|it|hline|underline|[lL]arge|[hH]uge", ""),
        (r"\\(?:(?:text)?color|[hv]?phantom)\s*\{[^{}]*\}", ""),
        _commands(r"math(?:rm|bf|it|sf|tt|normal)|text(?:bf|it|rm|sf|tt|normal|up)", r"\\text"),
        _commands(r"mbox|hbox|operatorname|emph|bm|boldsymbol", r"\\text"),
        # synonyms
        _commands(r"[dtc]frac", r"\\frac"),
        _commands(r"[dt]binom", r"\\binom"),
        _commands(r"leq|leqslant", r"\\le"),
        _commands(r"geq|geqslant", r"\\ge"),
        _commands(r"neq", r"\\ne"),
        (r"\\not\s*=|(?<![0-9)!])!=", r"\\ne "),  # 5!=120 has a factorial
        (r"<=", r"\\le "),
        (r">=", r"\\ge "),
        _commands(r"lt", "<"),
        _commands(r"gt", ">"),
        _commands(r"varnothing", r"\\emptyset"),
        _commands(r"lbrace", r"\\{"),
        _commands(r"rbrace", r"\\}"),
        _commands(r"lbrack", "["),
        _commands(r"rbrack", "]"),
        _commands(r"[lr]?vert|mid", "|"),
        _commands(r"[lc]dots", r"\\dots"),
        _commands(r"colon", ":"),
        _commands(r"ast|star", "*"),
        _commands(r"div", "/"),
        (r"\*\*", "^"),
        (r"\\log\s*_\s*(?:e|\{\s*e\s*\})", r"\\ln "),
        (r"(?<![A-Za-z\\])infinity(?![A-Za-z])", r"\\infty"),
        (r"(?<![A-Za-z\\])(pi|sqrt|alpha|beta|gamma|delta|theta|lambda|sigma|phi|omega)(?![A-Za-z])", r"\\\1"),
        (rf"(?<![A-Za-z\\])({_FUNCTIONS})(?![A-Za-z])", r"\\\1"),
        (rf"\\text\s*\{{\s*({_FUNCTIONS})\s*\}}", r"\\\1 "),
        # "10,\!080" and "10{,}080" and "10\,080" are one number wherever they stand ("10,080" see _thousands)
        (r"(?<=[0-9])\s*(?:\{,\}|,\s*\\!|\\[,!;: ])\s*(?=[0-9]{3}(?![0-9]))", ""),
        # space, mathematics delimiters, currencies
        _commands(r"thinspace|enspace", " "),
        (r"\\[,!;:>\s]|~|\\hspace\s*\{[^{}]*\}", " "),
        (r"\\\$|\$|\\[()\[\]]", " "),
        _commands(r"pounds|euro", " "),
        # words
        (r"^\s*\\text\s*\{\s*([0-9.][^{}]*)\}\s*$", r"\1"),  # \text{5 cm}
        (r",?\s*(?:\\text\s*\{[,\s]*and\s*\}|\sand(?=\s)|\\(?:land|wedge)(?![A-Za-z]))\s*", ", "),
        (r",?\s*(?:\\text\s*\{[,\s]*or\s*\}|\sor(?=\s)|\\vee(?![A-Za-z]))\s*", r" \\lor "),
        (r"\^\s*\{?\s*\\text\s*\{\s*(?:st|nd|rd|th)\s*\}\s*\}?", ""),  # 5^{\text{th}}
        (r"\\text\s*\{([^{}A-Za-z]*)\}", r" \1 "),
    ]
]
_ROW_END = re.compile(r"\\\\(?:\s*\[[0-9. a-z]*\])?")
_LINE_END = re.compile(_ROW_END.pattern + r"(?=[\s0-9(+-]|[A-Za-z](?![A-Za-z]))")
# a \quad or a new line separates two values; next to a comma, a relation or a word it is only space
_GAP = re.compile(r"(?:\s*\\q?quad(?![A-Za-z]))+\s*")
_GAP_IN_A_VALUE = re.compile(r"(?<![0-9A-Za-z})\].!'])\\quad|\\quad(?= (?:[^-+0-9A-Za-z\\({[.]|\\(?!frac|sqrt)|$))")
_SPACED_THOUSANDS = re.compile(
    r"(?<![\w.,/^])(?<![0-9)}] )[1-9][0-9]{0,2}(?:[ \u00a0\u2009\u202f][0-9]{3})+(?![0-9]|\s*[/^]|\s[0-9])"
)
_CIRCLE = r"(?:\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))|\s*\\degrees?(?![A-Za-z]))"
_TRIGONOMETRY = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_NUMBER_OF_DEGREES = re.compile(rf"([0-9]+(?:\.[0-9]+)?){_CIRCLE}")
_DEGREES = re.compile(rf"{_CIRCLE}(?:\s*\\text\s*\{{\s*[CF]\s*\}}|\s*[CF](?![A-Za-z])|(?![A-Za-z]))")
_PERCENT = re.compile(r"\s*\\?%|\s*\\text\s*\{\s*per\s?cent\s*\}|(?<=[0-9])\s*per\s?cent(?![a-z])")
_CLOCK = re.compile(r"[0-9]:[0-9]{2}")
_NO_UNIT = re.compile(  # words that change the value that they follow
    r"(?:(?:hundred|thousand|[a-z]*illion)(?:th)?|(?:four|fif|six|seven|eigh|nin|ten|twelf)th|third|half|halve|quarter)s?"
    r"|dozens?|score|gross|one|two|three|four|five|six|seven|eight|nine|ten|twelve|sixteen|base|squared|cubed|factorial"
    r"|plus|minus|below|above|under|over|off|before|after|ago|early|late|ahead|behind|left|right|up|down"
    r"|north|south|east|west|[a-z]*wards?|[a-z]*clockwise|[ap]\.?m\.?|noon|midnight|bce?|ad|ce"
    r"|more|less|fewer|higher|lower|faster|slower|older|younger|increase|decrease|profit|loss|gain",
    re.IGNORECASE,
)
_WORD = re.compile(r"(?<![A-Za-z\\])[A-Za-z]+(?:\.[A-Za-z])*")
_SENTENCE = r"(?!\s*(?:if|is|for|or|and|to|of|not|no|mod|when|where|with|in(?!\s*\})|at|more|less|as)\b)"
_TEXT_UNIT = re.compile(
    rf"(?:(?<=[^,;=\s])\s*\\text\s*\{{{_SENTENCE}(?!\s*[A-Za-z]\s*\}})[A-Za-z\s./-]+\}}"
    r"|(?<=[0-9})])\s*\\text\s*\{\s*[mgshLlNJWVK]\s*\})"  # 100 \text{ m}
    r"(?:\s*\^\s*\{?\s*[0-9]\s*\}?)?\s*(?=,|;|\\lor|\.?$)"
)
_LETTER_IN_TEXT = re.compile(r"\\text\s*\{([^{}A-Za-z]*[A-Za-z][^{}A-Za-z]*)\}")  # no word: \text{(C)}
_BARE_UNIT = re.compile(
    rf"(?<=[0-9}})])\s+{_SENTENCE}(?:(?:cm|mm|km|kg|mg|ml|ft|in|mi|lb|oz|hr)(?![A-Za-z])|[A-Za-z]{{3,}})"
    r"(?:\s*\^\s*\{?[0-9]\}?)?(?:[\s/][A-Za-z]{2,}|/[a-z])*\s*\.?$"
)
_JOINED_UNIT = re.compile(
    r"((?:^|= ?)[+-]?[0-9][0-9.,]*)((?:cm|mm|km|kg|mg|ml|ft|lb|oz|hr)(?![A-Za-z])(?:\s*\^\s*\{?[0-9]\}?)?)\s*\.?$"
)
_THOUSANDS = re.compile(r"(?<![0-9,.])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9,])")
_REPEATING = re.compile(r"([0-9]*)\.([0-9]{0,20})\\overline\s*\{\s*([0-9]{1,20})\s*\}")
_SCIENTIFIC = re.compile(r"(?<![0-9.A-Za-z^])([0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE]([+-]?[0-9]+)(?![0-9A-Za-z]|\.[0-9])")
_BARE_NUMERATOR = re.compile(r"\\frac\s*([0-9A-Za-z])\s*(?=[0-9A-Za-z{\\])")
_BRACES = r"\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}"
_BARE_DENOMINATOR = re.compile(rf"\\frac\s*({_BRACES})\s*([0-9A-Za-z])")
_ROUND = re.compile(r"(\^|\\sqrt(?:\[3\]|\[4\])?)\s*\(((?:[^()]|\((?:[^()]|\([^()]*\))*\))*)\)")
_MIXED_NUMBER = re.compile(
    r"(?<![\w.,/^)}])(?<![\w)}] )([0-9]+) ([0-9]+)\s*/\s*([0-9]+)(?!\s*[0-9A-Za-z(\\/^{]|\.[0-9])", re.ASCII
)
_BARE_ROOT = re.compile(r"\\sqrt\s*(\[[^\[\]]*\])?\s*([0-9A-Za-z])")
_CHOOSE = re.compile(r"\{?\s*([0-9A-Za-z]+)\s*\\choose(?![A-Za-z])\s*([0-9A-Za-z]+)\s*\}?")
_INEQUALITY = re.compile(r"[<>]|\\[lg]e(?![A-Za-z])")
_OR = re.compile(r",?\s*(?:\\text\s*\{[,\s]*or\s*\}|(?<=\s)or(?=\s)|\\(?:lor|vee)(?![A-Za-z]))\s*")
_BARE_NEGATIVE_EXPONENT = re.compile(  # of e^-2, not of e^-2x
    r"\^\s*(-\s*(?:[0-9]+|[A-Za-z]))(?![0-9A-Za-z(]|\s*\\(?:frac|sqrt|pi))"
)
_BARE_EXPONENT = re.compile(rf"\^\s*(-?\s*\\(?:frac\s*{_BRACES}\s*|sqrt\s*(?:\[[^\[\]]*\]\s*)?){_BRACES})")
_POWERS_SIDE_BY_SIDE = re.compile(r"(\^\s*)([0-9]+)\s+(?=[0-9]+\s*\^)")
_EDGES = re.compile(r"^(?:\s|[;:,=]|\\(?:approx|lor)(?![A-Za-z]))+|[\s.;:,\\]+$")
_SPACES = re.compile(r"\s+")


def normalise(answer: str) -> str:
    r"""The answer without delimiters, sizes, styles, units, currencies, degree and percent signs, thousands separators
    and a final full stop; with a comma for "and", \lor for "or", and the braces that LaTeX lets writers leave out.
    """
    text = _SPACED_THOUSANDS.sub(lambda number: "".join(number[0].split()), answer)
    if not text.isascii():
        text = _ascii(text)
    if r"\\" in text:  # a row's end in a matrix, a line's end, or a backslash that was escaped twice
        text = _ROW_END.sub(r"\\cr ", text) if r"\begin" in text else _LINE_END.sub(r"\\quad ", text)
        text = re.sub(r"\\\\(?=[A-Za-z{},;:!%$])", r"\\", text)
    if _INEQUALITY.search(text):  # x < 1 or x > 2
        text = _OR.sub(r" \\cup ", text)
    for pattern, meaning in _SYNONYMS:
        text = pattern.sub(meaning, text)
    if _TRIGONOMETRY.search(text):  # a degree is a number inside a function, a unit elsewhere
        text = _NUMBER_OF_DEGREES.sub(r"(\1 \\cdot \\frac{\\pi}{180})", text)
    text = _PERCENT.sub("", _DEGREES.sub("", text))
    if r"\q" in text:
        text = _GAP_IN_A_VALUE.sub(" ", _GAP.sub(r"\\quad ", text))
    text = _SPACES.sub(" ", text).strip()
    if not _CLOCK.search(text):  # "3:30 p.m." stays a text
        text = _without_units(text)
    text = _LETTER_IN_TEXT.sub(r" \1 ", text)
    text = _thousands(_EDGES.sub("", text))
    text = _REPEATING.sub(_repeating, text)
    text = _SCIENTIFIC.sub(r"\1 \\cdot 10^{\2}", text)
    text = _BARE_NUMERATOR.sub(r"\\frac{\1}", text)
    text = _BARE_DENOMINATOR.sub(r"\\frac\1{\2}", text)
    text = _ROUND.sub(r"\1{\2}", text)
    text = _BARE_ROOT.sub(r"\\sqrt\1{\2}", text)
    text = _CHOOSE.sub(r"\\binom{\1}{\2}", text)
    if "^" in text:
        text = _BARE_NEGATIVE_EXPONENT.sub(r"^{\1}", text)
        text = _POWERS_SIDE_BY_SIDE.sub(r"\1{\2} ", _BARE_EXPONENT.sub(r"^{\1}", text))
    if "/" in text:
        text = _MIXED_NUMBER.sub(_mixed_number, text)
    return _SPACES.sub(" ", text).strip()


def _ascii(text: str) -> str:
    """The text with commands in place of Unicode characters."""
    text = _RADICAL.sub(lambda root: _RADICALS[root[1]] + (f"{{{root[2]}}}" if root[2] else ""), text)
    for pattern, raising in ((_RAISED, "^"), (_LOWERED, "_")):
        text = pattern.sub(lambda run, raising=raising: f"{raising}{{{unicodedata.normalize('NFKC', run[0])}}}", text)
    return text.translate(_CHARACTERS)


def _without_units(text: str) -> str:
    """5 cm is 5, and 5 cm, 3 cm are 5, 3. 3 red, 5 blue and 2 h 30 s keep their units, which tell them apart."""
    units: set[tuple[str, ...]] = set()

    def drop(unit: re.Match[str]) -> str:
        units.add(tuple(_WORD.findall(unit[0])))
        return ""

    value = _TEXT_UNIT.sub(drop, text)
    value = _BARE_UNIT.sub(drop, value)
    value = _JOINED_UNIT.sub(r"\1", value)
    if not units:
        return value
    rest = value.rpartition("=")[2].strip(" ()")
    if (
        len(units) > 1
        or any(_NO_UNIT.fullmatch(word) or (len(word) > 2 and is_product(word)) for word in units.pop())
        or (len(rest) == 1 and rest.isalpha())  # "A wins" is not A
        or r"\text" in rest
        or not all(map(is_product, _WORD.findall(rest)))
    ):
        return text
    return value


def _mixed_number(match: re.Match[str]) -> str:
    """1 1/2 is 3/2; 1 3/2 is left as it is."""
    whole, top, bottom = match.groups()
    return rf"{whole}\frac{{{top}}}{{{bottom}}}" if int(top) < int(bottom) else match[0]


def _thousands(text: str) -> str:
    """10,080 is one number, unless it stands in brackets, where a comma separates: (3,100) is a point."""
    depth, pieces = 0, []
    for piece in re.split(r"(\\[{}]|[()\[\]])", text):
        if piece[-1:] in ("(", "[", "{", ")", "]", "}") and len(piece) <= 2:
            depth += 1 if piece[-1] in "([{" else -1
        elif depth == 0:
            piece = _THOUSANDS.sub(lambda number: number[0].replace(",", ""), piece)
        pieces.append(piece)
    return "".join(pieces)


def _repeating(match: re.Match[str]) -> str:
    r"""0.1\overline{6} is 1/6."""
    whole, fixed, period = match.groups()
    bottom = (10 ** len(period) - 1) * 10 ** len(fixed)
    top = int(f"{whole or 0}{fixed}{period}") - int(f"{whole or 0}{fixed}")
    return rf"\frac{{{top}}}{{{bottom}}}"
