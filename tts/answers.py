"""Answers: found in a solution, and given a key that votes group by and grading compares.

canonical_key() is a function of the answer alone, so "same key" is an equivalence whatever it does: no pair is ever compared,
nothing depends on what was read before.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

from tts._answer_form import Key, Unreadable, read, short, simple_number
from tts._answer_pool import POOL
from tts._answer_text import normalise, refuse

VERSION = 1  # of the policies: the same answer may have another key in another version
DEADLINE = 60.0  # seconds for one answer; a worker ends itself after 10 seconds of its own time

Status = Literal["parsed", "text", "rejected", "timeout", "empty", "none"]


class Canonical(NamedTuple):
    """An answer's key (None: no answer, no vote) and how it came about."""

    key: Key | None
    status: Status


_NO_ANSWER = Canonical(None, "none")
_cache: dict[tuple[int, str], Canonical] = {}

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def extract_answer(text: str) -> str | None:
    r"""What the last whole \boxed{...} holds (\fbox{...} and MATH's "\boxed 5$" too), or None.

    Of nested boxes the outermost counts. A box that is never closed (a truncated solution) is no box.
    """
    start = text.find("\\boxed"), text.find("\\fbox")
    start = min((place for place in start if place >= 0), default=-1)
    if start < 0:
        return None
    opened, closes = [], {}
    for brace in _BRACE.finditer(text, start):
        if brace[0] == "{":
            opened.append(brace.start())
        elif brace[0] == "}" and opened:
            closes[opened.pop()] = brace.start()
    answer, end = None, start
    for box in _BOX.finditer(text, start):
        if box.start() < end:
            continue  # inside the box before
        if text[box.end() : box.end() + 1] == "{":
            if box.end() in closes:
                end = closes[box.end()]
                answer = text[box.end() + 1 : end].strip()
        elif bare := re.match(r"[^\n{}$]*(?=\$)|[^\s{}$]+", text[box.end() :]):
            answer, end = bare[0].strip(), box.end() + bare.end()
    if answer is not None and (inner := extract_answer(answer)) is not None and _BOX.match(answer):
        return inner
    return answer


def canonical_key(answer: str | None) -> Key | None:
    """The key of one answer; canonical_keys() is the way for many."""
    return canonical_keys([answer])[0].key


def canonical_keys(
    answers: Iterable[str | None], *, workers: int | None = None, deadline: float = DEADLINE
) -> list[Canonical]:
    """(key, status) of each answer, in order. Each different answer is read once in the life of this process.

    workers: processes to read with, at most (default: the cores that may be used, up to 4); the result doesn't depend on it.
    """
    answers = list(answers)
    texts: dict[str, list[str]] = {}  # normalised answers for the parser, each with the answers that it stands for
    for answer in dict.fromkeys(answers):
        if answer is None or (VERSION, answer) in _cache:
            continue
        text, found = _quick(answer)
        if found is None:
            texts.setdefault(text, []).append(answer)
        else:
            _cache[VERSION, answer] = found
    if texts:
        limit = workers or min(4, len(os.sched_getaffinity(0)))
        replies = POOL.read(list(texts), workers=limit, deadline=deadline)
        for (text, same), reply in zip(texts.items(), replies, strict=True):
            found = _found(text, reply)
            for answer in same:
                _cache[VERSION, answer] = found
    return [_NO_ANSWER if answer is None else _cache[VERSION, answer] for answer in answers]


def _quick(answer: str) -> tuple[str, Canonical | None]:
    """The normalised answer, and its key where that needs no parser."""
    if refuse(answer):
        return answer, Canonical(_text_key(answer), "rejected")
    text = normalise(answer)
    if not text:
        return text, Canonical(None, "empty")
    if refuse(text):
        return text, Canonical(_text_key(text), "rejected")
    try:
        return text, Canonical(read(text, simple_number), "parsed")
    except Unreadable:
        return text, None


def _found(text: str, reply: list | None) -> Canonical:
    if reply is None:
        return Canonical(_text_key(text), "timeout")
    key, status = reply
    return Canonical(_tuples(key) if status == "parsed" else _text_key(text), status)


def _tuples(key: list) -> Key:
    return tuple(_tuples(part) if isinstance(part, list) else part for part in key)


def _text_key(text: str) -> Key:
    """What couldn't be read equals only what is written the same, spaces aside, and in words the case aside."""
    plain = re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text)
    plain = re.sub(r"\s+", "", plain)
    return ("text", short(plain.casefold() if not re.search(r"[\\^_=+*/0-9]", plain) else plain))
