"""An answer's text made plain, and checked, before anything parses it. Strings only: no parser, no SymPy."""

from __future__ import annotations

import re
import unicodedata

MAX_CHARACTERS = 400  # the longest MATH-500 gold has 60
MAX_DIGITS = 100  # in one number
MAX_NESTING = 8  # of brackets and braces: the parser's time grows exponentially with it
MAX_TOWER = 2  # exponents on exponents
MAX_FACTORIALS = 3
MAX_CELLS = 100  # separators of rows, cells and list elements

_LETTERS = {  # characters that models write for commands
    "π": r"\pi ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "φ": r"\phi ", "λ": r"\lambda ",
    "∞": r"\infty ", "√": r"\sqrt", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "∕": "/", "⁄": "/",
    "−": "-", "–": "-", "—": "-", "±": r"\pm ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ",
    "∈": r"\in ", "∪": r"\cup ", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "°": r"^\circ ", "′": "'",
    "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}",
    "⁰": "^0", "¹": "^1", "²": "^2", "³": "^3", "⁴": "^4", "⁵": "^5", "⁶": "^6", "⁷": "^7", "⁸": "^8", "⁹": "^9",
    "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\n": " ", "\t": " ", "\r": " ",
}  # fmt: skip
_LETTERS |= {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}  # full-width forms
_CHARACTERS = str.maketrans(_LETTERS)

_FUNCTIONS = "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|gcd|lcm|max|min"
_UNITS = "cm|mm|km|kg|mg|ml|ft|in|mi|lb|oz|hr|pm|am|mph"
_NUMBER_END = r"(?<=[0-9}).!])"

# In this order; each is a policy or a spelling of one thing.
_REWRITES = [
    (re.compile(pattern, re.ASCII), replacement)
    for pattern, replacement in [
        (r"\\(?:left|right|m?left|bigl?|bigr|Bigl?|Bigr|biggl?|biggr|Biggl?|Biggr)(?![A-Za-z])\s*\.?", ""),
        (r"\\(?:displaystyle|textstyle|scriptstyle|limits|mathstrut|rm|bf|it|hline)(?![A-Za-z])", ""),
        (r"\\(?:math(?:rm|bf|it|sf|tt|normal)|text(?:bf|it|rm|sf|tt|normal|up)|mbox|hbox|textnormal|operatorname\*?|emph|bm|boldsymbol|ensuremath)(?![A-Za-z])", r"\\text"),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\(?:dbinom|tbinom)(?![A-Za-z])", r"\\binom"),
        (r"\\(?:leq|leqslant)(?![A-Za-z])", r"\\le"),
        (r"\\(?:geq|geqslant)(?![A-Za-z])", r"\\ge"),
        (r"\\neq(?![A-Za-z])", r"\\ne"),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\(?:varnothing)(?![A-Za-z])", r"\\emptyset"),
        (r"\\(?:lbrace)(?![A-Za-z])", r"\\{"),
        (r"\\(?:rbrace)(?![A-Za-z])", r"\\}"),
        (r"\\(?:lbrack)(?![A-Za-z])", "["),
        (r"\\(?:rbrack)(?![A-Za-z])", "]"),
        (r"\\(?:lvert|rvert|vert|mid)(?![A-Za-z])", "|"),
        (r"\\(?:ldots|dots|cdots)(?![A-Za-z])", r"\\dots"),
        (r"\\(?:colon)(?![A-Za-z])", ":"),
        (r"\\(?:ast|star)(?![A-Za-z])", "*"),
        (r"\\(?:div)(?![A-Za-z])", "/"),
        (r"(?<![A-Za-z\\])infinity(?![A-Za-z])", r"\\infty"),
        (r"(?<![A-Za-z\\])(?:sqrt)\s*\(", r"\\sqrt("),
        (r"(?<![A-Za-z\\])pi(?![A-Za-z])", r"\\pi"),
        (rf"(?<![A-Za-z\\])({_FUNCTIONS})(?![A-Za-z])", r"\\\1"),
        (rf"\\text\s*\{{\s*({_FUNCTIONS})\s*\}}", r"\\\1 "),
        # thousands: "10,\!080" and "10{,}080" always, "10,080" outside brackets (see _thousands)
        (r"(?<=[0-9])\s*(?:\{,\}|,\s*\\!)\s*(?=[0-9]{3}(?![0-9]))", ""),
        (r"(?<=[0-9])\s*\\[,!;: ]\s*(?=[0-9]{3}(?![0-9]))", ""),
        (r"\\(?:quad|qquad|hspace\{[^{}]*\}|thinspace|enspace)(?![A-Za-z])", " "),
        (r"\\[,!;:> ]|~", " "),
        (r"\\\$|\$|\\\(|\\\)|(?<!\\)\\\[|(?<!\\)\\\]", " "),  # dollars: the currency and the mathematics delimiter
        (r"\\(?:pounds|euro)(?![A-Za-z])|[£€]", " "),
        (r",?\s*\\text\s*\{,?\s*(?:and|or)\s*\}\s*", ", "),
        (r",?\s+(?:and|or)\s+", ", "),
        (r"\^\s*\{?\s*\\text\s*\{\s*(?:st|nd|rd|th)\s*\}\s*\}?", ""),
        (r"\\text\s*\{([^{}A-Za-z]*[A-Za-z]?[^{}A-Za-z]*)\}", r" \1 "),  # no word in it: \text{(C)}, \text{5}
    ]
]  # fmt: skip
_DEGREE = re.compile(r"\s*\^\s*\{?\s*\\circ\s*\}?(?:\s*C|\s*F)?(?![A-Za-z])|\s*\\degree(?![A-Za-z])")
_TRIGONOMETRY = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_NUMBER_OF_DEGREES = re.compile(r"([0-9]+(?:\.[0-9]+)?)(?:\s*\^\s*\{?\s*\\circ\s*\}?|\s*\\degree(?![A-Za-z]))")
_PERCENT = re.compile(
    r"\s*\\?%|\s*\\text\s*\{\s*(?:percent|per cent|pct)\s*\}|(?<=[0-9])\s*(?:percent|per cent)\b", re.ASCII
)
_TEXT_UNIT = re.compile(
    rf"{_NUMBER_END}\s*\\text\s*\{{[^{{}}0-9]*\}}(?:\s*\^\s*\{{?\s*[0-9]\s*\}}?)?\s*\.?\s*(?=,|;|$)"
)
_BARE_UNIT = re.compile(
    rf"{_NUMBER_END}\s+(?:(?:{_UNITS})(?![A-Za-z])|[A-Za-z]{{3,}})(?:\s*\^\s*\{{?[0-9]\}}?)?(?:[\s/][A-Za-z]+)*\s*\.?\s*$"
)
_THOUSANDS = re.compile(r"(?<![0-9,.])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9,])")
_SCIENTIFIC = re.compile(r"(?<![0-9.A-Za-z])([0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE]([+-]?[0-9]{1,3})(?![0-9A-Za-z])")
_FIRST_BARE = re.compile(r"\\frac\s*([0-9A-Za-z])\s*(?=[0-9A-Za-z{\\])")
_SECOND_BARE = re.compile(r"\\frac\s*(\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})\s*([0-9A-Za-z])")
_BARE_ROOT = re.compile(r"\\sqrt\s*([0-9A-Za-z])")
_ROUND_ROOT = re.compile(r"\\sqrt\s*\(([^()]*)\)")
_BARE_NEGATIVE_EXPONENT = re.compile(r"\^\s*(-\s*(?:[0-9]+|[A-Za-z]))")
_SPACES = re.compile(r"\s+")


def normalise(answer: str) -> str:
    """The answer with one spelling for each thing: no delimiters, styles, sizes, units, degree or percent signs,
    thousands separators, words that join ("and", "or") or final full stop."""
    text = answer.translate(_CHARACTERS)
    # a row's end in a matrix, elsewhere a backslash that was escaped twice
    text = text.replace("\\\\", r"\cr ") if r"\begin" in text else re.sub(r"\\\\(?=[A-Za-z{}])", r"\\", text)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    if _TRIGONOMETRY.search(text):  # inside a function a degree is a number, elsewhere it is a unit
        text = _NUMBER_OF_DEGREES.sub(r"(\1 \\cdot \\frac{\\pi}{180})", text)
    text = _DEGREE.sub("", text)
    text = _PERCENT.sub("", text)
    text = _SPACES.sub(" ", text).strip()
    text = _TEXT_UNIT.sub("", text)
    text = _BARE_UNIT.sub("", text)
    text = text.strip().removesuffix(".").strip()
    text = _thousands(text)
    text = _SCIENTIFIC.sub(r"\1 \\cdot 10^{\2}", text)
    text = _FIRST_BARE.sub(r"\\frac{\1}", text)
    text = _SECOND_BARE.sub(r"\\frac\1{\2}", text)
    text = _ROUND_ROOT.sub(r"\\sqrt{\1}", text)
    text = _BARE_ROOT.sub(r"\\sqrt{\1}", text)
    text = _BARE_NEGATIVE_EXPONENT.sub(r"^{\1}", text)
    return _SPACES.sub(" ", text).strip()


def _thousands(text: str) -> str:
    """ "10,080" is one number, unless it stands in brackets, where a comma separates: (3,100) is a point."""
    depth, out, last = 0, [], 0
    for match in re.finditer(r"\\[{}]|[()\[\]]", text):
        if depth == 0:
            out.append(_THOUSANDS.sub(lambda m: m[0].replace(",", ""), text[last : match.start()]))
        else:
            out.append(text[last : match.start()])
        out.append(match[0])
        last = match.end()
        depth += 1 if match[0][-1] in "([{" else -1
    out.append(text[last:] if depth else _THOUSANDS.sub(lambda m: m[0].replace(",", ""), text[last:]))
    return "".join(out)


_REFUSED = re.compile(
    r"\\(?:i*int|oint|sum|prod|lim|limsup|liminf|partial|nabla|bigcup|bigcap|coprod"
    r"|def|edef|gdef|xdef|let|newcommand|renewcommand|providecommand|csname|expandafter|loop|input|include|write|read"
    r"|openout|openin|immediate|catcode|special|usepackage|require|href|url)(?![A-Za-z])"
)


def refuse(text: str) -> str | None:
    """Why a text must not reach the parser, or None: limits that every MATH-500 gold keeps by far."""
    if len(text) > MAX_CHARACTERS:
        return "long"
    if any(
        unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn")
        for character in text
        if character not in "\n\t\r"
    ):
        return "control characters"
    if re.search(rf"[0-9]{{{MAX_DIGITS + 1}}}", text):
        return "digits"
    if _REFUSED.search(text):
        return "command"
    if text.count("!") > MAX_FACTORIALS or re.search(r"[0-9]{5,}[\s)}]*!", text):
        return "factorials"
    if text.count("&") + text.count(",") + text.count(r"\\") > MAX_CELLS:
        return "cells"
    if _deepest(text, "([{", ")]}") > MAX_NESTING:
        return "nesting"
    if re.search(r"(?:\^\s*\{?[^{}^]{0,20}){%d}" % (MAX_TOWER + 1), text) and _tower(text) > MAX_TOWER:
        return "tower"
    return None


def _deepest(text: str, opening: str, closing: str) -> int:
    depth = deepest = 0
    for character in text:
        if character in opening:
            depth += 1
            deepest = max(deepest, depth)
        elif character in closing:
            depth = max(0, depth - 1)
    return deepest


def _tower(text: str) -> int:
    """How many exponents stand on one another: 1 for x^2, 2 for x^{2^3} and for 2^3^2."""
    open_exponents, tallest, run, after_caret = [], 0, 0, False
    for character in text:
        if character == " ":
            continue
        if character == "^":
            run += 1
            tallest = max(tallest, run + sum(open_exponents))
            after_caret = True
            continue
        if character in "({[":
            open_exponents.append(run if after_caret else 0)
            run = 0
        elif character in ")}]":
            run = open_exponents.pop() if open_exponents else 0
        elif not (after_caret or character.isalnum()):
            run = 0
        after_caret = False
    return tallest
