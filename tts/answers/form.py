"""An answer's form: its brackets, lists and relations, as a typed key.

What stands inside them is a scalar. read() passes it to the reader that it is given: simple_number() in this process,
the parser in a worker.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from fractions import Fraction

Key = tuple  # of str, int and such tuples; the first item names the type
Scalar = Callable[[str], Key]


class UnreadableError(Exception):
    """The text has no typed key and is compared as text."""


class TooLargeError(UnreadableError):
    """Its value is beyond the limits of tts.answers.values."""


_TOKEN = re.compile(r"\\begin\s*\{[^{}]*\}|\\end\s*\{[^{}]*\}|\\[A-Za-z]+|\\.|.", re.ASCII | re.DOTALL)
_PAIRS = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", r"\langle": r"\rangle"}
_CLOSING = frozenset(_PAIRS.values())
_FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}
_RELATIONS = ("=", *_FLIPPED, r"\ne", r"\in", r"\approx")
_MINUS_INFINITY, _INFINITY = ("infinity", "-"), ("infinity", "+")
_CONSTANTS = {
    r"\infty": _INFINITY,
    r"+\infty": _INFINITY,
    r"-\infty": _MINUS_INFINITY,
    r"\emptyset": ("set",),
    r"\{\}": ("set",),
    r"\mathbb{R}": ("tuple", _MINUS_INFINITY, _INFINITY),
}

_DECIMAL = re.compile(r"([+-]?)\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)")
_FRACTION = re.compile(
    r"([+-]?)\s*(?:\\frac\s*\{\s*(-?)\s*([0-9]+)\s*\}\s*\{\s*(-?)\s*([0-9]+)\s*\}|()([0-9]+)\s*/\s*()([0-9]+))"
)
_BASE = re.compile(r"\(?\s*([0-9A-Z]+)\s*\)?\s*_\s*\{?\s*([0-9]{1,2})\s*\}?")
_MATRIX = re.compile(r"[(\[]?\s*\\begin\s*\{([pbB]?matrix|array)\}(.*)\\end\s*\{\1\}\s*[)\]]?", re.DOTALL)
_COLUMNS = re.compile(r"\s*\{[lcr| ]*\}")
_GREEK = r"\\(?:alpha|beta|gamma|delta|epsilon|theta|lambda|mu|rho|sigma|tau|phi|varphi|omega|ell)"
_SYMBOL = rf"(?:[A-Za-z]|{_GREEK})"
_VARIABLE = re.compile(rf"{_SYMBOL}(?:\s*_\s*(?:\w|\{{\w+\}}))?", re.ASCII)
_NAME = re.compile(
    rf"{_SYMBOL}\s*'*(?:\s*_\s*(?:\w|\{{[^{{}}]*\}}))?"  # x, x', x_1, f(x), f(2), f^{-1}(x)
    rf"(?:(?:\s*\^\s*\{{-1\}})?\s*\(\s*(?:{_SYMBOL}|-?[0-9]+)(?:\s*,\s*{_SYMBOL})*\s*\))?"
    r"|m?\s*\\angle\s*[A-Z]{1,3}|[A-Z]{2,3}|\\text\s*\{[^{}]*\}",  # an angle, a length, a word
    re.ASCII,
)
_ITEM = rf"(?:[A-Z]{{2,3}}|{_VARIABLE.pattern})"
_NAMES = re.compile(rf"\(\s*{_ITEM}(?:\s*,\s*{_ITEM})+\s*\)|{_ITEM}(?:\s*:\s*{_ITEM})+", re.ASCII)  # (x, y), a:b
_NOT_IN_NAMES = re.compile(r"half|twice|double|triple|third|quarter|squared|cubed", re.IGNORECASE)
_GAP = re.compile(r"(?<=[0-9})\]!.]) ")
_TIME = re.compile(r"[0-9]{1,2}(?::[0-5][0-9]){1,2}")
_LETTER = re.compile(rf"(?<![A-Za-z\\])[A-Za-z]|{_GREEK}(?![A-Za-z])")
_SUCH_THAT = re.compile(rf"{_SYMBOL}\s*(?:\\in\s*\\mathbb\{{R\}}\s*)?[|:]\s*(.*)", re.DOTALL)


def read(text: str, scalar: Scalar) -> Key:
    """The typed key of a normalised answer. Raises UnreadableError, or what scalar raises."""
    text = text.strip()
    while (bracketed := _bracketed(text)) and bracketed[0] == "{":  # {x} is x
        text = bracketed[1]
    if len(items := _split(text, (",", ";", r"\lor", r"\quad"))) > 1:
        separators = {separator for separator, _ in items}
        if r"\quad" in separators and not all("=" in item for _, item in items):
            raise UnreadableError("values side by side")
        keys = _list([item for _, item in items], scalar)
        if r"\lor" in separators and keys[0] == "system":
            raise UnreadableError("x = 1 or y = 2")
        return _alternatives(keys) if separators & {";", r"\lor"} else keys
    if len(parts := _split(text, (r"\cup",))) > 1:
        return ("union", *sorted({read(part, scalar) for _, part in parts}, key=_order))
    if len(sides := _split(text, _RELATIONS)) > 1:
        return _relation([side for _, side in sides], [relation for relation, _ in sides[1:]], scalar)
    if constant := _CONSTANTS.get(re.sub(r"\s", "", text)):
        return constant
    if matrix := _MATRIX.fullmatch(text):
        return _matrix(matrix[2], scalar)
    if base := _BASE.fullmatch(text):
        return _base(base[1], int(base[2]))
    if bracketed:
        return _group(*bracketed, scalar)
    if len(terms := _split(text, (":",))) > 1:
        return _ratio(text, [scalar(term) for _, term in terms])
    if r"\pm" in text:
        return _list([text], scalar)
    if not text:
        raise UnreadableError("nothing")
    return scalar(text)


def simple_number(text: str) -> Key:
    """The key of an integer, a decimal or a fraction of integers, without the parser. Else raises UnreadableError."""
    if match := _DECIMAL.fullmatch(text):
        return number_key(Fraction(match[1] + match[2]))
    if match := _FRACTION.fullmatch(text):
        sign, top_sign, top, bottom_sign, bottom = (part for part in match.groups() if part is not None)
        if int(bottom):
            value = Fraction(int(top), int(bottom))
            return number_key(-value if (sign + top_sign + bottom_sign).count("-") % 2 else value)
    raise UnreadableError("not a simple number")


def number_key(value: Fraction) -> Key:
    """The key of an exact rational."""
    if max(value.numerator.bit_length(), value.denominator.bit_length()) <= 256:
        return ("rational", str(value))
    return ("rational", short(f"{value.numerator:x}/{value.denominator:x}"))


def short(digits: str) -> str:
    """The digits, or their hash if there are many, so that keys stay small."""
    return digits if len(digits) <= 100 else "sha256:" + hashlib.sha256(digits.encode()).hexdigest()


def is_product(letters: str) -> bool:
    """Letters side by side: xyz and abc are products, "odd" and "Evelyn" are words."""
    in_order = sorted(letters)
    return len(letters) < 3 or (len(letters) <= 4 and all(ord(b) - ord(a) == 1 for a, b in zip(in_order, in_order[1:])))


# -- brackets -------------------------------------------------------------------------------------------------------


def _split(text: str, separators: tuple[str, ...]) -> list[tuple[str, str]]:
    """The pieces between separators that stand outside all brackets, each with the separator before it.

    Raises UnreadableError where brackets don't match; "(3,4]" does, it is an interval.
    """
    pieces: list[tuple[str, str]] = []
    opened: list[str] = []
    separator, start = "", 0
    for token in _TOKEN.finditer(text):
        word = token[0]
        if word in _PAIRS or word.startswith(r"\begin"):
            opened.append(word)
        elif word in _CLOSING or word.startswith(r"\end"):
            if not opened or not _match(opened.pop(), word):
                raise UnreadableError("brackets don't match")
        elif word in separators and not opened:
            pieces.append((separator, text[start : token.start()].strip()))
            separator, start = word, token.end()
    if opened:
        raise UnreadableError("brackets don't match")
    return [*pieces, (separator, text[start:].strip())]


def _match(opening: str, closing: str) -> bool:
    if opening.startswith(r"\begin"):
        return closing.startswith(r"\end")
    return _PAIRS[opening] == closing or (opening in "([" and closing in ")]")


def _bracketed(text: str) -> tuple[str, str, str] | None:
    """(opening, inside, closing) if one pair of brackets encloses the whole text."""
    words = [token[0] for token in _TOKEN.finditer(text)]
    if not words or words[0] not in _PAIRS:
        return None
    depth = 0
    for index, word in enumerate(words):
        depth += (word in _PAIRS) - (word in _CLOSING)
        if depth == 0:
            return (words[0], "".join(words[1:-1]).strip(), word) if index == len(words) - 1 else None
    return None


def _group(opening: str, inside: str, closing: str, scalar: Scalar) -> Key:
    if opening == r"\{" and (condition := _SUCH_THAT.fullmatch(inside)):
        return read(condition[1], scalar)
    items = [item for _, item in _split(inside, (",", ";", r"\lor") if opening == r"\{" else (",", ";"))]
    if opening == r"\{":
        return ("set", *sorted({read(item, scalar) for item in _both_signs(items)}, key=_order))
    if len(items) == 1:
        return read(inside, scalar)
    keys = [read(item, scalar) for item in items]
    if len(keys) == 2 and (opening == "[" or closing == "]"):
        return ("interval", opening, *keys, closing)
    return ("tuple", *keys)


# -- lists ----------------------------------------------------------------------------------------------------------


def _list(items: list[str], scalar: Scalar) -> Key:
    """A bare list is a set, unless an item occurs twice. "x=1, x=2" is 1, 2; "x=1, y=2" is a system."""
    sides = [_split(item, ("=",)) for item in items]
    names = [re.sub(r"\s", "", pair[0][1]) if len(pair) == 2 and _is_name(pair[0][1]) else "" for pair in sides]
    if len(set(names) - {""}) > 1:
        if "" in names or len(set(names)) < len(names):
            raise UnreadableError("only some items have a name of their own")
        values = [read(pair[1][1], scalar) for pair in sides]
        return ("system", *sorted(zip(names, values, strict=True), key=_order))
    keys = sorted((read(item, scalar) for item in _both_signs(items)), key=_order)
    return ("set" if len(set(keys)) == len(keys) else "multiset", *keys)


def _alternatives(key: Key) -> Key:
    r"""Repetitions don't count between alternatives: \frac{5}{8} or 0.625 is one number."""
    if key[0] != "multiset":
        return key
    unique = sorted(set(key[1:]), key=_order)
    return unique[0] if len(unique) == 1 else ("set", *unique)


def _both_signs(items: list[str]) -> list[str]:
    """1 ± 2 is two items of its list."""
    if any(item.count(r"\pm") > 1 or r"\mp" in item for item in items):
        raise UnreadableError("more than one choice of sign")
    return [item.replace(r"\pm", sign) for item in items for sign in ("+-" if r"\pm" in item else "+")]


def _order(key: object) -> str:
    return json.dumps(key)


def _matrix(inside: str, scalar: Scalar) -> Key:
    if columns := _COLUMNS.match(inside):  # of an array: {cc}
        inside = inside[columns.end() :]
    rows = [row for _, row in _split(inside, (r"\cr",))]
    if not rows[-1]:
        rows.pop()
    cells = [[scalar(cell) for _, cell in _split(row, ("&",))] for row in rows]
    if len({len(row) for row in cells}) != 1:
        raise UnreadableError("rows of different length")
    return ("matrix", len(cells), len(cells[0]), *(key for row in cells for key in row))


# -- relations ------------------------------------------------------------------------------------------------------


def _is_name(text: str) -> bool:
    if _NAMES.fullmatch(text):  # in the order of the alphabet: (y, x) = (1, 2) is not the point (1, 2)
        names = re.findall(_ITEM, re.sub(r"\s", "", text), re.ASCII)
        return "\\" in text or names == sorted(set(names))
    if _NOT_IN_NAMES.search(text):
        return False
    words = text.split()
    return bool(_NAME.fullmatch(text)) or (all(map(str.isalpha, words)) and not all(map(is_product, words)))


def _relation(sides: list[str], relations: list[str], scalar: Scalar) -> Key:
    if not all(sides):
        raise UnreadableError("one side is empty")
    if relations == [r"\in"] and _is_name(sides[0]):
        return read(sides[1], scalar)
    if not set(relations) <= {"=", r"\approx"}:
        return _inequality(sides, relations, scalar)
    while relations and relations[-1] == r"\approx" and not (len(sides) == 2 and _is_name(sides[0])):
        sides, relations = sides[:-1], relations[:-1]  # keep the exact value, not the approximation
    if len(sides) == 1:
        return read(sides[0], scalar)
    if _is_name(sides[0]):  # f(x) = 2x is 2x
        return _end_of_chain(sides[1:], scalar)
    constant = [not _LETTER.search(side) for side in sides]
    if all(constant):  # \frac{6}{2} = 3
        keys = {read(side, scalar) for side in sides}
        if len(keys) == 1:
            return keys.pop()
    elif len(sides) == 2:  # 5 = x, or an equation
        return read(sides[0], scalar) if constant[0] and _VARIABLE.fullmatch(sides[1]) else scalar("=".join(sides))
    raise UnreadableError("a chain of equations, or one that doesn't hold")


def _end_of_chain(sides: list[str], scalar: Scalar) -> Key:
    r"""The last side. A side without letters must equal it; one with letters may be a formula: A = \pi r^2 = 9\pi."""
    key = read(sides[-1], scalar)
    for side in sides[:-1]:
        if _is_name(side):  # x = y = 5
            continue
        if not _LETTER.search(side):
            if read(side, scalar) != key:
                raise UnreadableError("a chain that doesn't hold")
        elif any(
            not _LETTER.search(side[: gap.start()]) and _is_name(side[gap.end() :]) for gap in _GAP.finditer(side)
        ):
            raise UnreadableError("a value, then a name: x = 1 y = 2")
        else:
            scalar(side)  # raises if it is no expression
    return key


def _inequality(sides: list[str], relations: list[str], scalar: Scalar) -> Key:
    """The interval that "a < x <= b" or "x > a" describes."""
    if not set(relations) <= set(_FLIPPED):
        raise UnreadableError("no interval")
    if relations[0] in (">", r"\ge"):
        sides, relations = sides[::-1], [_FLIPPED[relation] for relation in relations[::-1]]
    middle = [index for index, side in enumerate(sides) if _VARIABLE.fullmatch(side)]
    if (
        len(middle) != 1
        or not set(relations) <= {"<", r"\le"}
        or (len(sides), middle[0]) not in ((2, 0), (2, 1), (3, 1))
    ):
        raise UnreadableError("no interval")
    low = read(sides[0], scalar) if middle[0] == 1 else _MINUS_INFINITY
    high = read(sides[-1], scalar) if middle[0] < len(sides) - 1 else _INFINITY
    opening = "[" if middle[0] == 1 and relations[0] == r"\le" else "("
    closing = "]" if middle[0] < len(sides) - 1 and relations[-1] == r"\le" else ")"
    return ("tuple", low, high) if opening + closing == "()" else ("interval", opening, low, high, closing)


# -- numerals and ratios --------------------------------------------------------------------------------------------


def _base(digits: str, base: int) -> Key:
    """52_8 keeps its base: it is not 52, nor 52_7, nor 42."""
    if not 2 <= base <= 36 or any(int(digit, 36) >= base for digit in digits):
        raise UnreadableError("a digit that this base doesn't have")
    return ("base", base, short(digits.lstrip("0") or "0"))


def _ratio(text: str, keys: list[Key]) -> Key:
    """3:4, in lowest terms: a type of its own, not a quotient. 6:00 and 3:30 may be times of day, 3 : 30 is a ratio."""
    if ("rational", "0") in keys or (
        _TIME.fullmatch(text) and (":0" in text or math.gcd(*map(int, text.split(":"))) > 1)
    ):
        raise UnreadableError("a time of day, or a ratio with a zero")
    if all(key[0] == "rational" and not key[1].startswith("sha256") for key in keys):
        values = [Fraction(key[1]) for key in keys]
        if scale := next(filter(None, values), None):
            keys = [number_key(value / scale) for value in values]
    return ("ratio", *keys)
