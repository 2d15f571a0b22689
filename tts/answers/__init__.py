r"""Find the answer in a solution, and give it a key by which votes group and grading compares.

canonical_key() is a function of one answer, so "same key" is an equivalence by construction: pairs are never compared,
and the key doesn't depend on which answers were read before. Reading never guesses. An answer that can't be read, or
that can be read in two ways, is a text: it equals only what is written the same way. So two spellings of one answer may
have two keys, but different answers share one only where a policy drops what tells them apart, such as a unit.
The policies (each has its pairs in tests/test_answers_pairs.py):

numbers      Decimals are exact: 0.5 = 1/2, 5.0 = 5, 0.33 is not 1/3. No tolerance anywhere. 1\frac{1}{2} and 1 1/2 are
             mixed numbers, 3/2 (only if the fraction is below 1, and nothing is multiplied to it: 2\frac{1}{2}x is a
             text). 0.\overline{3} is 1/3, 1.5e3 is 1500. 10,080 and 10 080 are one number, but in brackets a comma
             separates: (3,100) is a point. Other numbers side by side ("3 4") are a text.
constants    Roots, pi, e and functions by their first 15 digits out of at least 60; a rational result is that rational.
             An odd root of a negative number is real. i is the imaginary unit, \log has base 10, a degree in a sine is
             pi/180.
percent      The sign is a unit: 5\% is 5, not 0.05.
units        Dropped: currencies, degrees, and the words after a value. 5 cm = 5 km = 5 \text{ m} = 5: problems name
             their unit. Kept, which makes the answer a text: words of number (million, dozen, thirds, squared), words
             that change a value (5 below zero, 5 north, 6 p.m., 5\% increase), different units in one answer (3 red,
             5 blue; 2 h 30 min), and primes (30'). 10cm is 10, but 5 m is 5 times m, and 5in is 5 times i times n.
base         52_8 is neither 52 nor 52_7.
ratio        3:4 = 6:8, but not 3/4. What may be a time of day (6:00, or 3:30, which is not in lowest terms) is a text,
             unless it has spaces: 3 : 30 = 1:10. So is a ratio with a 0.
lists        1, 2 = 2, 1 = \{1, 2\} = "1 and 2" = "1 or 2" = "x = 1, x = 2". 1 \pm 2 is 3, -1. Repetitions count in a
             list (3, 3 is not 3), but not in a set \{3, 3\} or after "or". "x = 1, y = 2" is a system: its names count,
             and "x = 1 or y = 2" is a text. A \quad or a line break separates equations; other values with a gap
             between them are a text.
brackets     (1, 2) is ordered, a point or an open interval (they are written alike); (1, 2] is an interval; [1, 2, 3]
             is (1, 2, 3). 1 < x \le 2, x \in (1, 2] and \{x | 1 < x \le 2\} are (1, 2]. Unions have no order.
names        A leading name is dropped, whichever it is: x = 5, f(x) = 5, f(2) = 5, \angle A = 5, Area = 5 and 5 = x
             are 5; y = 2x + 1 is 2x + 1; a:b = 3:4 is 3:4. A name is a variable, a length, an angle, a word, or an
             unknown function with its argument. A known function of a variable is no name: \cos x = 0.6 and
             x^{-1} = 5 are equations. Latin names in a bracket or a ratio must be in alphabetical order:
             (y, x) = (1, 2) is a text.
chains       x = 3 + 2 = 5 is 5. Sides without letters must be equal; formulas are passed over (A = \pi r^2 = 9\pi).
             "x = 1 y = 2" and "n = 5: m = 6" are texts. Of an approximation the exact side counts: x = 1/3 \approx 0.33
             is 1/3.
equations    Left minus right, up to a constant factor: x + y = 1 is 2 - 2x = 2y.
expressions  By exact or 15-digit values at three fixed points, one of them negative: (a+5)(b+2) = ab+2a+5b+10, but |x|
             is not x. Letters count in their case: R is not r. f(x+y) is f times (x+y).
matrices     By their entries, whatever their brackets; a column is not a point.
words        By their letters, without case and spaces. Three letters in a row are a word unless they are neighbours in
             the alphabet (xyz). \text{(C)}, (C) and C are one choice.
ambiguous    1/2x, 2^3^2, 2^63^5, e^-2x, √2x and 2e-3x are texts. n!=6 is n \ne 6, 5!=120 a factorial.
no answer    No box, or only empty ones: no key and no vote.

A model's text is untrusted. It is checked (guards), spelled one way (spelling) and taken apart (form). What is not a
simple number by then is parsed in a process that can be killed (pool, worker, values). Nothing evaluates it as Python.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, Protocol

from tts.answers.form import Key, UnreadableError, read, short, simple_number
from tts.answers.guards import refuse
from tts.answers.pool import POOL, usable_cores
from tts.answers.spelling import normalise
from tts.errors import InputError

VERSION = 2  # of the policies; the key of an answer may change with it
DEADLINE = 300.0  # seconds for one answer, even on a starved machine; a worker ends after 5 s of its own CPU time

Status = Literal["parsed", "text", "rejected", "timeout", "empty", "none"]
STATUSES: tuple[Status, ...] = ("parsed", "text", "rejected", "timeout", "empty", "none")


class Canonical(NamedTuple):
    """An answer's key and how it was found.

    parsed    read: a typed key
    text      can't be read: compared as text
    rejected  refused by a guard or a limit on size: compared as text
    timeout   took too much time or memory, or its worker died: compared as text
    empty     a box with nothing in it: no key and no vote
    none      no box: no key and no vote
    """

    key: Key | None
    status: Status


class Memory(Protocol):
    """Where keys outlast a process, such as tts.results.keys.KeptKeys. Neither method raises for what is damaged."""

    def read(self) -> Mapping[str, Canonical]:
        """What is there by answer; the parts of a key may be lists."""

    def append(self, found: Mapping[str, Canonical]) -> None:
        """Keep new ones."""


_NO_ANSWER = Canonical(None, "none")
_cache: dict[tuple[int, str], Canonical] = {}
_memory: Memory | None = None

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_BARE = re.compile(r"[^\n{}$]{0,400}(?=\$)|(?=[^\s{}$]{0,400}[0-9])[^\s{}$]{1,400}")
_PROSE = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{2}|\\(?:boxed|fbox)(?![A-Za-z])")
_BLANK = re.compile(r"(?:[\s.,:;~$]|\\[,:;!> ]|\\(?:q?quad|[lc]?dots)(?![A-Za-z])|\\$)*")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def extract_answer(text: str) -> str | None:
    r"""The content of the last \boxed{...} or \fbox{...} that is closed and not empty.

    "" if every box is empty, None if there is no box. A box that is never closed (a truncated solution) is no box.
    Of nested boxes the outermost counts. MATH's "\boxed 5$" is a box too, "a \boxed as you asked" is not.
    """
    if not (first := _BOX.search(text)):
        return None
    start = first.start()
    opened, closes = [], {}
    for brace in _BRACE.finditer(text, start):
        if brace[0] == "{":
            opened.append(brace.start())
        elif brace[0] == "}" and opened:
            closes[opened.pop()] = brace.start()
    answer, end = None, start
    for box in _BOX.finditer(text, start):
        if box.start() < end:
            continue  # inside the previous box
        opening = box.end()
        if opening in closes:
            end = closing = closes[opening]
            # a box in a box
            while (inner := _BOX.match(text, opening + 1)) and closes.get(inner.end()) == closing - 1:
                opening, closing = inner.end(), closing - 1
            content = text[opening + 1 : closing].strip()
        elif (bare := _BARE.match(text, opening)) and not _PROSE.search(bare[0]):
            content, end = bare[0].strip(), bare.end()
        else:
            continue
        if answer is None or not _BLANK.fullmatch(content):
            answer = content
    return answer


def canonical_key(answer: str | None) -> Key | None:
    """The key of one answer. For many answers use canonical_keys(), which is faster."""
    return canonical_keys([answer])[0].key


def canonical_keys(
    answers: Iterable[str | None], *, workers: int | None = None, deadline: float = DEADLINE
) -> list[Canonical]:
    """(key, status) of each answer, in order. This process reads each different answer once and remembers it.

    workers   at most so many processes read (default: the usable cores, up to 4); keys don't depend on it
    deadline  seconds of wall-clock time for one answer
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers must be at least 1, or None for the default (got {workers})")
    answers = list(answers)
    new: dict[str, Canonical] = {}
    texts: dict[str, list[str]] = {}  # normalised answers for the parser: the answers with this spelling
    for answer in dict.fromkeys(answers):
        if answer is None or (VERSION, answer) in _cache:
            continue
        text, found = _quick(answer)
        if found is None:
            texts.setdefault(text, []).append(answer)
        else:
            new[answer] = found
    if texts:
        limit = workers or min(4, usable_cores())
        replies = POOL.read(list(texts), workers=limit, deadline=deadline)
        for (text, same), reply in zip(texts.items(), replies, strict=True):
            new |= dict.fromkeys(same, _found(text, reply))
    _cache.update({(VERSION, answer): found for answer, found in new.items()})
    if new and _memory:
        _memory.append(new)
    return [_NO_ANSWER if answer is None else _cache[VERSION, answer] for answer in answers]


def spelled(answer: str) -> str:
    """An answer in the one spelling that is read, to be shown: without sizes, spaces and what else says nothing."""
    return answer if refuse(answer) else normalise(answer)


def remember(memory: Memory | None) -> None:
    """From here on take the keys that memory has, and give it those that are found. No key depends on it."""
    global _memory
    _memory = memory
    for answer, (key, status) in memory.read().items() if memory else ():
        _cache[VERSION, answer] = Canonical(key and _tuples(key), status)


def _quick(answer: str) -> tuple[str, Canonical | None]:
    """The normalised answer, and its key if that needs no parser."""
    if refuse(answer):
        return answer, Canonical(_text_key(answer), "rejected")
    text = normalise(answer)
    if not text:
        return text, Canonical(None, "empty")
    if refuse(text):
        return text, Canonical(_text_key(text), "rejected")
    try:
        return text, Canonical(read(text, simple_number), "parsed")
    except UnreadableError:
        return text, None


def _found(text: str, reply: list | None) -> Canonical:
    if reply is None:
        return Canonical(_text_key(text), "timeout")
    key, status = reply
    return Canonical(_tuples(key) if status == "parsed" else _text_key(text), status)


def _tuples(key: list | tuple) -> Key:
    return tuple(_tuples(part) if isinstance(part, (list, tuple)) else part for part in key)


def _text_key(text: str) -> Key:
    """The key of what can't be read. Spaces don't count, except between digits; case doesn't count in words alone."""
    plain = re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text)
    plain = re.sub(r"(?<![0-9.])\s+|\s+(?![0-9.])", "", plain)  # "1 1/2x" is not "11/2x"
    plain = plain.encode(errors="backslashreplace").decode()  # half a surrogate pair could not be stored
    return ("text", short(plain.casefold() if not re.search(r"[\\^_=+*/0-9]", plain) else plain))
