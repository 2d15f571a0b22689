"""RLHFlow's format, a dialogue: each step is a user's turn, and the assistant answers "+" or "-".

Turn 1 is problem + " " + step 1. The score of step k is the probability of "+" against "-" at the position that
predicts the assistant's turn k. All the assistant's turns before it say "+", whatever their scores were.
(github.com/RLHFlow, math-rm.)
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from tts.models.checkpoint import MARKS
from tts.models.formats.layout import Layout, TokenHead
from tts.models.formats.text import Text

GOOD, BAD = "+", "-"


class RLHFlow:
    """For any causal language model with a chat template."""

    name = "rlhflow"

    def __init__(self, text: Text) -> None:
        self._text = text
        first, opening, closing = self._frame()
        # The template's text next to a content is encoded together with it, as in the whole rendered template.
        start, ids, self._before_first = text.cut(first)
        self._first = (*text.encode(start), *ids)
        self._after, asking, before_answer = text.cut(opening)
        after_answer, closing, self._before = text.cut(closing)
        if not asking or not closing or after_answer:
            raise text.wrong("its chat template puts no special token between the turns")
        ids, good, bad = text.choices(before_answer, GOOD, BAD)
        self._asking = (*asking, *ids)
        self._closing = (good, *closing)
        self.head = TokenHead(good, bad)

    @staticmethod
    def fits(text: Text) -> bool:
        """A causal language model with a chat template."""
        return text.is_causal and text.has_template

    def layout(self, problem: str, steps: Sequence[str]) -> Layout:
        """See Format.layout."""
        ids, positions = list(self._first), []
        for i, step in enumerate(steps):
            before, content = (self._before, step) if i else (self._before_first, f"{problem.strip()} {step}")
            ids += self._closing if i else ()
            ids += self._text.encode(before + content + self._after)
            ids += self._asking
            positions.append(len(ids) - 1)
        return Layout(tuple(ids), tuple(positions))

    def _frame(self) -> tuple[str, str, str]:
        """The template's text before the first turn, between a step and its "+", and between "+" and the next step."""
        turns = [turn for mark in MARKS for turn in (mark, GOOD)]
        whole = self._text.conversation(turns)
        parts = [whole.partition(mark) for mark in MARKS]
        first = parts[0][0]
        between = [whole[whole.find(a) + len(a) : whole.find(b)] for a, b in itertools.pairwise(MARKS)]
        opening, _, closing = between[0].rpartition(GOOD)
        rest = parts[2][2]
        if (
            any(whole.count(mark) != 1 for mark in MARKS)
            or len(set(between)) != 1
            or not rest.startswith(opening + GOOD)
        ):
            raise self._text.wrong("its chat template treats the turns of one dialogue differently")
        return first, opening, closing
