"""An answer's form: which brackets, lists, relations it is made of, as a typed key. What is inside them is a scalar,
which read() hands to the reader it is given: simple_number() here, or the parser's in tts._answer_worker."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from fractions import Fraction

Key = tuple  # nested tuples of str and int, the first item naming the type
Scalar = Callable[[str], Key]


class Unreadable(Exception):
    """This text is no answer that a key can be computed for: it is compared as text."""


class TooLarge(Unreadable):
    """Its value is beyond the limits."""


_TOKEN = re.compile(r"\\begin\s*\{[^{}]*\}|\\end\s*\{[^{}]*\}|\\[A-Za-z]+|\\.|.", re.ASCII | re.DOTALL)
_OPENING = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", r"\langle": r"\rangle"}
_RELATIONS = ("=", "<", ">", r"\le", r"\ge", r"\ne", r"\in", r"\approx")
_FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}

_NUMBER = r"[+-]?\s*(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_DECIMAL = re.compile(rf"({_NUMBER})")
_FRACTION = re.compile(
    r"([+-]?)\s*(?:\\frac\s*\{\s*([+-]?\s*[0-9]+)\s*\}\s*\{\s*([+-]?\s*[0-9]+)\s*\}|([0-9]+)\s*/\s*([0-9]+))"
)
_BASE = re.compile(r"\(?\s*([0-9A-Za-z]+)\s*\)?\s*_\s*\{?\s*(?:\\text\s*\{\s*)?([0-9]{1,2})\s*\}*", re.ASCII)
_MATRIX = re.compile(r"[(\[]?\s*\\begin\s*\{([pbB]?matrix|array)\}(.*)\\end\s*\{\1\}\s*[)\]]?", re.DOTALL)
_COLUMNS = re.compile(r"\s*\{[lcr| ]*\}")
_SYMBOL = r"(?:[A-Za-z]|\\(?!in|le|ge|ne|pi|frac|sqrt|cup|infty|pm)[a-zA-Z]+)"
_NAME = re.compile(
    rf"{_SYMBOL}\s*'*(?:_\s*(?:\w|\{{[^{{}}]*\}}))?(?:\s*\^\s*\{{-1\}})?(?:\s*\(\s*{_SYMBOL}(?:\s*,\s*{_SYMBOL})*\s*\))?"
    r"|(?:m\s*)?\\angle\s*[A-Z]{1,3}|[A-Z]{2,3}|\\text\s*\{[^{}]*\}|[A-Za-z ]{3,}",
    re.ASCII,
)
_NAMES = re.compile(rf"\(\s*{_SYMBOL}(?:\s*,\s*{_SYMBOL})*\s*\)", re.ASCII)


def read(text: str, scalar: Scalar) -> Key:
    """The typed key of a normalised answer. Raises Unreadable, or what scalar raises."""
    text = _unwrap(text.strip())
    if not text:
        raise Unreadable("empty")
    if len(items := _split(text, (",", ";"))) > 1:
        return _listed([piece for _, piece in items], scalar)
    if len(parts := _split(text, (r"\cup",))) > 1:
        return ("union", *sorted({read(piece, scalar) for _, piece in parts}, key=_order))
    if len(sides := _split(text, _RELATIONS)) > 1:
        return _relation(sides, scalar)
    if text in (r"\emptyset", r"\{\}", r"\{ \}"):
        return ("set",)
    if matrix := _MATRIX.fullmatch(text):
        return _matrix(matrix[2], scalar)
    if bracketed := _bracketed(text):
        return _group(*bracketed, scalar)
    if base := _BASE.fullmatch(text):
        return _base(base[1], int(base[2]))
    if len(terms := _split(text, (":",))) > 1:
        return _ratio([scalar(piece) for _, piece in terms])
    if text.lstrip("+").strip() == r"\infty":
        return ("infinity", "+")
    if text.startswith("-") and text[1:].strip() == r"\infty":
        return ("infinity", "-")
    if r"\pm" in text:
        return _listed([text], scalar)
    return scalar(text)


def number_key(value: Fraction) -> Key:
    """The key of an exact rational."""
    return (
        ("rational", short(f"{value.numerator:x}"), short(f"{value.denominator:x}"))
        if _long(value)
        else ("rational", str(value))
    )


def short(digits: str) -> str:
    """Digits as they are, or their hash where they are many: keys stay small, and equal digits stay equal."""
    return digits if len(digits) <= 80 else "sha256:" + hashlib.sha256(digits.encode()).hexdigest()


def _long(value: Fraction) -> bool:
    return max(value.numerator.bit_length(), value.denominator.bit_length()) > 256


def simple_number(text: str) -> Key:
    """An integer, a decimal or a fraction of integers, exactly and without the parser. Raises Unreadable for all else."""
    if match := _DECIMAL.fullmatch(text):
        return number_key(Fraction(match[1].replace(" ", "")))
    if match := _FRACTION.fullmatch(text):
        sign, *parts = match.groups()
        top, bottom = (int(part.replace(" ", "")) for part in parts if part is not None)
        if bottom:
            return number_key(Fraction(-top if sign == "-" else top, bottom))
    raise Unreadable("no simple number")


def _split(text: str, separators: tuple[str, ...]) -> list[tuple[str, str]]:
    """The pieces of text between the separators that stand outside all brackets, each with the separator before it.

    Raises Unreadable where brackets don't match; (3,4] does, as an interval.
    """
    pieces, open_, separator, start = [], [], "", 0
    for token in _TOKEN.finditer(text):
        word = token[0]
        if word in _OPENING or word.startswith(r"\begin"):
            open_.append(word)
        elif word in (")", "]", "}", r"\}", r"\rangle") or word.startswith(r"\end"):
            if not open_ or not _match(open_.pop(), word):
                raise Unreadable("brackets don't match")
        elif word in separators and not open_:
            pieces.append((separator, text[start : token.start()].strip()))
            separator, start = word, token.end()
    if open_:
        raise Unreadable("brackets don't match")
    return [*pieces, (separator, text[start:].strip())]


def _match(opening: str, closing: str) -> bool:
    if opening.startswith(r"\begin"):
        return closing.startswith(r"\end")
    return _OPENING[opening] == closing or (opening in "([" and closing in ")]")


def _bracketed(text: str) -> tuple[str, str, str] | None:
    """(opening, inside, closing) if one pair of brackets encloses the whole text."""
    tokens = [token[0] for token in _TOKEN.finditer(text)]
    if tokens[0] not in _OPENING:
        return None
    depth = 0
    for index, word in enumerate(tokens):
        depth += (word in _OPENING) - (word in (")", "]", "}", r"\}", r"\rangle"))
        if depth == 0:
            return (tokens[0], "".join(tokens[1:-1]).strip(), word) if index == len(tokens) - 1 else None
    return None


def _unwrap(text: str) -> str:
    """Without braces around everything: {x} is x."""
    while (whole := _bracketed(text) if text else None) and whole[0] == "{":
        text = whole[1]
    return text


def _group(opening: str, inside: str, closing: str, scalar: Scalar) -> Key:
    if not inside:
        raise Unreadable("empty brackets")
    items = [piece for _, piece in _split(inside, (",", ";"))]
    if opening == r"\{":
        return ("set", *sorted({read(item, scalar) for item in _both_signs(items)}, key=_order))
    if len(items) == 1:
        return read(inside, scalar)
    if len(items) == 2 and "[" + "]" != opening + closing != "(" + ")" or (opening, len(items)) == ("[", 2):
        return ("interval", opening, *(read(item, scalar) for item in items), closing)
    return ("tuple", *(read(item, scalar) for item in items))


def _listed(items: list[str], scalar: Scalar) -> Key:
    """A bare list: its order doesn't count, how often something stands in it does. "x=1, x=2" is 1, 2; "x=1, y=2" is not."""
    named = [_split(item, ("=",)) for item in items]
    names = [sides[0][1] if len(sides) == 2 and _is_name(sides[0][1]) else None for sides in named]
    if len({name for name in names if name}) > 1:
        if None in names:
            raise Unreadable("some items have a name and some have not")
        pairs = [
            ("named", re.sub(r"\s", "", name), read(sides[1][1], scalar))
            for name, sides in zip(names, named, strict=True)
        ]
        return ("system", *sorted(pairs, key=_order))
    keys = sorted((read(item, scalar) for item in _both_signs(items)), key=_order)
    return ("set" if len(set(keys)) == len(keys) else "multiset", *keys)


def _both_signs(items: list[str]) -> list[str]:
    """1 ± 2 is two items of its list."""
    if any(item.count(r"\pm") > 1 or r"\mp" in item for item in items):
        raise Unreadable("more than one choice of sign")
    return [item.replace(r"\pm", sign) for item in items for sign in ("+-" if r"\pm" in item else "+")]


def _order(key: Key) -> str:
    return json.dumps(key)


def _is_name(text: str) -> bool:
    return bool(_NAME.fullmatch(text) or _NAMES.fullmatch(text))


def _relation(sides: list[tuple[str, str]], scalar: Scalar) -> Key:
    relations = [relation for relation, _ in sides[1:]]
    pieces = [piece for _, piece in sides]
    if not all(pieces):
        raise Unreadable("a side is empty")
    if relations == [r"\in"]:
        return read(pieces[1], scalar) if _is_name(pieces[0]) else _unreadable("membership")
    if set(relations) <= {"=", r"\approx"}:
        while len(pieces) > 1 and _is_name(pieces[0]):
            del pieces[0], relations[0]
        while relations and relations[-1] == r"\approx":  # the exact value, not its approximation
            del pieces[-1], relations[-1]
        if len(pieces) == 1:
            return read(pieces[0], scalar)
        if len(pieces) == 2 and re.fullmatch(_SYMBOL, pieces[1]) and not re.search("[A-Za-z]", pieces[0]):  # 5 = x
            return read(pieces[0], scalar)
        if len(pieces) == 2:
            return scalar("=".join(pieces))
        raise Unreadable("a chain of equations")
    return _inequality(pieces, relations, scalar)


def _inequality(pieces: list[str], relations: list[str], scalar: Scalar) -> Key:
    """a < x <= b and x > a as the intervals they are."""
    if any(relation not in _FLIPPED for relation in relations):
        raise Unreadable("relation")
    if relations[0] in (">", r"\ge"):
        pieces, relations = pieces[::-1], [_FLIPPED[relation] for relation in relations[::-1]]
    if len(pieces) == 2:
        infinity = ("infinity", "-"), ("infinity", "+")
        if re.fullmatch(_SYMBOL, pieces[0]):
            low, high, strict = infinity[0], read(pieces[1], scalar), (True, relations[0] == "<")
        elif re.fullmatch(_SYMBOL, pieces[1]):
            low, high, strict = read(pieces[0], scalar), infinity[1], (relations[0] == "<", True)
        else:
            raise Unreadable("relation")
    elif len(pieces) == 3 and re.fullmatch(_SYMBOL, pieces[1]) and relations[1] in ("<", r"\le"):
        low, high = read(pieces[0], scalar), read(pieces[2], scalar)
        strict = relations[0] == "<", relations[1] == "<"
    else:
        raise Unreadable("relation")
    if strict == (True, True):
        return ("tuple", low, high)
    return ("interval", "(" if strict[0] else "[", low, high, ")" if strict[1] else "]")


def _matrix(inside: str, scalar: Scalar) -> Key:
    rows = [piece for _, piece in _split(_COLUMNS.sub("", inside, count=1), (r"\cr",))]
    if rows and not rows[-1]:
        rows.pop()
    cells = [[scalar(cell) for _, cell in _split(row, ("&",))] for row in rows]
    if len({len(row) for row in cells}) != 1:
        raise Unreadable("rows of a matrix differ in length")
    return ("matrix", len(cells), len(cells[0]), *(key for row in cells for key in row))


def _base(digits: str, base: int) -> Key:
    """52_8 keeps its base: it is not 52, nor 52_7, nor 42. Digits are written without leading zeros."""
    if not 2 <= base <= 36 or not digits[0].isdigit() and len(digits) < 2:
        raise Unreadable("subscript")
    try:
        int(digits, base)
    except ValueError:
        raise Unreadable("a digit is not below its base") from None
    return ("base", base, short(digits.upper().lstrip("0") or "0"))


def _ratio(keys: list[Key]) -> Key:
    """3:4 in lowest terms if its terms are rational; a type of its own, not a quotient."""
    if all(key[0] == "rational" and len(key) == 2 for key in keys):
        values = [Fraction(key[1]) for key in keys]
        if scale := next((value for value in values if value), None):
            keys = [number_key(value / scale) for value in values]
    return ("ratio", *keys)


def _unreadable(reason: str) -> Key:
    raise Unreadable(reason)
