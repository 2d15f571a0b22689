"""One spelling for each thing: an answer's text before it is read. Every line is a policy or a synonym."""

from __future__ import annotations

import re

_CHARACTERS = {  # what models write for a command
    "π": r"\pi ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "φ": r"\phi ", "λ": r"\lambda ",
    "∞": r"\infty ", "√": r"\sqrt", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "∕": "/", "⁄": "/",
    "−": "-", "–": "-", "—": "-", "±": r"\pm ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ",
    "∈": r"\in ", "∪": r"\cup ", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "°": r"^\circ ", "′": "'", "’": "'",
    "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}",
    "⁰": "^0", "¹": "^1", "²": "^2", "³": "^3", "⁴": "^4", "⁵": "^5", "⁶": "^6", "⁷": "^7", "⁸": "^8", "⁹": "^9",
    "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\n": " ", "\t": " ", "\r": " ", "£": " ", "€": " ", "¢": " ",
}  # fmt: skip
_CHARACTERS |= {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}  # full-width forms
_CHARACTERS = str.maketrans(_CHARACTERS)

_FUNCTIONS = "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|gcd|lcm|max|min"


def _commands(names: str, meaning: str) -> tuple[str, str]:
    return rf"\\(?:{names})(?![A-Za-z])", meaning


_SYNONYMS = [
    (re.compile(pattern, re.ASCII), meaning)
    for pattern, meaning in [
        # what doesn't change the meaning
        _commands(r"left|right|mleft|mright|[bB]igg?[lrm]?", ""),
        _commands(r"displaystyle|textstyle|scriptstyle|limits|mathstrut|rm|bf|it|hline", ""),
        _commands(r"math(?:rm|bf|it|sf|tt|normal)|text(?:bf|it|rm|sf|tt|normal|up)", r"\\text"),
        _commands(r"mbox|hbox|operatorname|emph|bm|boldsymbol", r"\\text"),
        # synonyms
        _commands(r"[dtc]frac", r"\\frac"),
        _commands(r"[dt]binom", r"\\binom"),
        _commands(r"leq|leqslant", r"\\le"),
        _commands(r"geq|geqslant", r"\\ge"),
        _commands(r"neq", r"\\ne"),
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
        (r"(?<![A-Za-z\\])(pi|sqrt)(?![A-Za-z])", r"\\\1"),
        (rf"(?<![A-Za-z\\])({_FUNCTIONS})(?![A-Za-z])", r"\\\1"),
        (rf"\\text\s*\{{\s*({_FUNCTIONS})\s*\}}", r"\\\1 "),
        # "10,\!080" and "10{,}080" and "10\,080" are one number wherever they stand ("10,080" see _thousands)
        (r"(?<=[0-9])\s*(?:\{,\}|,\s*\\!|\\[,!;: ])\s*(?=[0-9]{3}(?![0-9]))", ""),
        # space, mathematics delimiters, currencies
        _commands(r"quad|qquad|thinspace|enspace", " "),
        (r"\\[,!;:> ]|~|\\hspace\s*\{[^{}]*\}", " "),
        (r"\\\$|\$|\\[()\[\]]", " "),
        _commands(r"pounds|euro", " "),
        # words
        (r"^\s*\\text\s*\{\s*([0-9.][^{}]*)\}\s*$", r"\1"),  # \text{5 cm}
        (r",?\s*(?:\\text\s*\{[,\s]*and\s*\}|\sand(?=\s))\s*", ", "),
        (r",?\s*(?:\\text\s*\{[,\s]*or\s*\}|\sor(?=\s))\s*", "; "),
        (r"\^\s*\{?\s*\\text\s*\{\s*(?:st|nd|rd|th)\s*\}\s*\}?", ""),  # 5^{\text{th}}
        (r"(?<=[0-9})])\s*\\text\s*\{\s*[mgshLlNJWVK]\s*\}(?:\s*\^\s*\{?\s*[0-9]\s*\}?)?\s*$", ""),  # 100 \text{ m}
        (r"\\text\s*\{([^{}A-Za-z]*[A-Za-z]?[^{}A-Za-z]*)\}", r" \1 "),  # no word in it: \text{(C)}, \text{5}
    ]
]
_ROW_END = re.compile(r"\\\\(?:\s*\[[0-9. a-z]*\])?")
_CIRCLE = r"(?:\s*\^\s*\{?\s*\\circ(?![A-Za-z])\s*\}?|\s*\\degrees?(?![A-Za-z]))"
_TRIGONOMETRY = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_NUMBER_OF_DEGREES = re.compile(rf"([0-9]+(?:\.[0-9]+)?){_CIRCLE}")
_DEGREES = re.compile(rf"{_CIRCLE}(?:\s*[CF])?(?![A-Za-z])")
_PERCENT = re.compile(r"\s*\\?%|\s*\\text\s*\{\s*per\s?cent\s*\}|(?<=[0-9])\s*per\s?cent(?![a-z])")
_CLOCK = re.compile(r"[0-9]:[0-9]{2}")
_SENTENCE = r"(?!\s*(?:if|is|for|or|and|to|of|not|no|mod|when|where|with|in(?!\s*\})|at|more|less|as)\b)"
_TEXT_UNIT = re.compile(
    rf"(?<=[^,;=\s])\s*\\text\s*\{{{_SENTENCE}[A-Za-z\s./-]+\}}(?:\s*\^\s*\{{?\s*[0-9]\s*\}}?)?\s*(?=,|;|\.?$)"
)
_BARE_UNIT = re.compile(
    rf"(?<=[0-9}})])\s+{_SENTENCE}(?:(?:cm|mm|km|kg|mg|ml|ft|in|mi|lb|oz|hr)(?![A-Za-z])|[A-Za-z]{{3,}})"
    r"(?:\s*\^\s*\{?[0-9]\}?)?(?:[\s/][A-Za-z]{2,})*\s*\.?$"
)
_THOUSANDS = re.compile(r"(?<![0-9,.])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9,])")
_REPEATING = re.compile(r"([0-9]*)\.([0-9]{0,20})\\overline\s*\{\s*([0-9]{1,20})\s*\}")
_SCIENTIFIC = re.compile(r"(?<![0-9.A-Za-z])([0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE]([+-]?[0-9]{1,3})(?![0-9A-Za-z])")
_BARE_NUMERATOR = re.compile(r"\\frac\s*([0-9A-Za-z])\s*(?=[0-9A-Za-z{\\])")
_BARE_DENOMINATOR = re.compile(r"\\frac\s*(\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})\s*([0-9A-Za-z])")
_ROUND_ROOT = re.compile(r"\\sqrt\s*\(([^()]*)\)")
_BARE_ROOT = re.compile(r"\\sqrt\s*(\[[^\[\]]*\])?\s*([0-9A-Za-z])")
_CHOOSE = re.compile(r"\{?\s*([0-9A-Za-z]+)\s*\\choose(?![A-Za-z])\s*([0-9A-Za-z]+)\s*\}?")
_INEQUALITY = re.compile(r"[<>]|\\[lg]e(?![A-Za-z])")
_OR = re.compile(r",?\s*(?:\\text\s*\{[,\s]*or\s*\}|(?<=\s)or(?=\s))\s*")
_BARE_NEGATIVE_EXPONENT = re.compile(r"\^\s*(-\s*(?:[0-9]+|[A-Za-z]))")
_EDGES = re.compile(r"^(?:\s|[;:,=]|\\approx(?![A-Za-z]))+|[\s.;:,]+$")
_SPACES = re.compile(r"\s+")


def normalise(answer: str) -> str:
    """The answer without delimiters, sizes, styles, units, currencies, degree and percent signs, thousands separators
    and a final full stop; with a comma for "and", a semicolon for "or", and with braces where LaTeX lets them out.
    """
    text = answer.translate(_CHARACTERS)
    # a row's end in a matrix; elsewhere a backslash that was escaped twice
    text = _ROW_END.sub(r"\\cr ", text) if r"\begin" in text else re.sub(r"\\\\(?=[A-Za-z{}])", r"\\", text)
    if _INEQUALITY.search(text):  # x < 1 or x > 2
        text = _OR.sub(r" \\cup ", text)
    for pattern, meaning in _SYNONYMS:
        text = pattern.sub(meaning, text)
    if _TRIGONOMETRY.search(text):  # a degree is a number inside a function, a unit elsewhere
        text = _NUMBER_OF_DEGREES.sub(r"(\1 \\cdot \\frac{\\pi}{180})", text)
    text = _PERCENT.sub("", _DEGREES.sub("", text))
    text = _SPACES.sub(" ", text).strip()
    if not _CLOCK.search(text):  # "3:30 p.m." stays a text
        text = _BARE_UNIT.sub("", _TEXT_UNIT.sub("", text))
    text = _thousands(_EDGES.sub("", text))
    text = _REPEATING.sub(_repeating, text)
    text = _SCIENTIFIC.sub(r"\1 \\cdot 10^{\2}", text)
    text = _BARE_NUMERATOR.sub(r"\\frac{\1}", text)
    text = _BARE_DENOMINATOR.sub(r"\\frac\1{\2}", text)
    text = _ROUND_ROOT.sub(r"\\sqrt{\1}", text)
    text = _BARE_ROOT.sub(r"\\sqrt\1{\2}", text)
    text = _CHOOSE.sub(r"\\binom{\1}{\2}", text)
    text = _BARE_NEGATIVE_EXPONENT.sub(r"^{\1}", text)
    return _SPACES.sub(" ", text).strip()


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
