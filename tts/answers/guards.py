"""What must not reach the parser: limits on an answer's text, all of them far above what the MATH-500 golds need.

The parser's time grows exponentially with nesting and with stacked exponents or indices. The evaluation that follows
(tts.answers.values) has its own limits on size.
"""

from __future__ import annotations

import re
import unicodedata

CHARACTERS = 400  # the longest gold has 53
DIGITS = 100  # of one number
NESTING = 8  # of brackets and braces of every kind
TOWER = 2  # stacked exponents or indices
FACTORIALS = 3
BARS = 8  # of absolute values
CELLS = 100  # of lists and matrices

_NUMBER = re.compile(rf"[0-9]{{{DIGITS + 1}}}")
_FACTORIAL = re.compile(r"(?<!\\)!")
_LARGE_FACTORIAL = re.compile(r"[0-9]{5,}[\s)}]*(?<!\\)!")
_LARGE_BINOMIAL = re.compile(r"\\[dt]?binom\s*\{?\s*[0-9]{5,}|[0-9]{5,}\s*\\choose")
_ATOM = re.compile(r"\\[A-Za-z]+|[0-9]+|\S", re.ASCII)
_UNDECIDABLE = re.compile(
    r"\\(?:i*int|oint|sum|prod|coprod|bigcup|bigcap|lim|limsup|liminf|partial|nabla)(?![A-Za-z])|\\frac\s*\{\s*d[^{}]{0,9}\}\s*\{\s*d\s*[a-z]\s*\}"
)
_PROGRAM = re.compile(
    r"\\(?:def|edef|gdef|xdef|let|newcommand|renewcommand|providecommand|csname|expandafter|loop|repeat|input|include"
    r"|write|read|openout|openin|immediate|catcode|special|usepackage|require|href|url)(?![A-Za-z])"
)


def refuse(text: str) -> str | None:
    """Why this text must not be parsed, or None."""
    if len(text) > CHARACTERS:
        return "long"
    if not text.isprintable() and any(
        unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn") for character in re.sub(r"[\n\t\r]", "", text)
    ):
        return "control characters"
    if _NUMBER.search(text):
        return "digits"
    if _UNDECIDABLE.search(text):
        return "sum, integral or limit"
    if _PROGRAM.search(text):
        return "TeX program"
    if len(_FACTORIAL.findall(text)) > FACTORIALS or _LARGE_FACTORIAL.search(text) or _LARGE_BINOMIAL.search(text):
        return "factorials"
    if text.count("|") > BARS:
        return "bars"
    if text.count("&") + text.count(",") + text.count(r"\\") > CELLS:
        return "cells"
    if _nesting(text) > NESTING:
        return "nesting"
    if re.search(r"[\^_]", text) and _tower(text) > TOWER:
        return "tower"
    return None


def _nesting(text: str) -> int:
    depth = deepest = 0
    for character in text:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth = max(0, depth - 1)
    return deepest


def _tower(text: str) -> int:
    """How many exponents or indices are stacked: 1 for x^2y^2, 2 for x^{2^3}, 2^3^2 and x_i^2."""
    outside: list[int] = []  # the height on which each open bracket stands
    height = tallest = 0  # of the token being read
    raised = False  # just after ^ or _
    for token in _ATOM.findall(text):
        if token in "^_":
            height += 1
            tallest = max(tallest, height + sum(outside))
            raised = True
        elif token in "([{":
            outside.append(height if raised else 0)
            height, raised = 0, False
        elif token in ")]}":
            height, raised = (outside.pop() if outside else 0), False
        elif raised:
            raised = False
        else:  # a new base
            height = 0
    return tallest
