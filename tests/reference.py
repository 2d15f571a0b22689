"""The reference mode: the answer that the reference code (huggingface/search-and-learn) extracts, and selects at n.

For comparison only; nothing else in tts works like this. It differs from tts.answers and tts.voting in three ways:
- a completion without a box has an answer all the same: what follows "final answer is", or the last number in the
  text, or the empty answer, and it votes;
- a box need not be closed, and an indented line break in it is dropped;
- accuracy at n is that of the first n completions, not an average over subsets.
Answers are grouped by tts.answers.canonical_key: the reference's own form depends on which answers came before.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tts.answers import canonical_keys
from tts.voting import majority, vanilla, weighted

_EMPTY = ("text", "")  # the group of completions that have no answer, in the reference one like any other
_PHRASES = ("he answer is", "final answer is", "答案是")
_NUMBER = re.compile(r"-?\d*\.?\d+")


def extract_answer(text: str) -> str:
    """The answer that the reference reads out of a completion, before it normalises it; "" if there is none."""
    text = text.replace("ки", "")  # a step mark of Math-Shepherd
    if "final answer is $" in text and "$. I hope" in text:
        answer = text.split("final answer is $", 1)[1].split("$. I hope", 1)[0].strip()
    elif "boxed" in text:
        answer = _after_box(text.rpartition("boxed")[2])
    elif phrase := next((phrase for phrase in _PHRASES if phrase in text), None):
        answer = text.rpartition(phrase)[2].strip()
    else:
        numbers = _NUMBER.findall(text.replace(",", ""))
        answer = numbers[-1] if numbers else ""
    answer = re.sub(r"\n\s*", "", answer).removeprefix(":")
    return answer.removesuffix(".").removesuffix("/")


def _after_box(rest: str) -> str:
    if not rest.startswith("{"):
        return rest.split("$")[0].strip()
    depth = 0
    for index, character in enumerate(rest):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return rest[1:index]
    return rest[1:]


def predictions(completions: Sequence[str], scores: Sequence[float], *, n: int) -> dict[str, str]:
    """What the reference predicts from the first n completions and their scores.

    "weighted", "maj" and "naive" are its columns pred_weighted@n, pred_maj@n and pred_naive@n.

    scores: one a completion, the last of its step scores. Ties go to the first completion.
    """
    answers = [extract_answer(completion) for completion in completions[:n]]
    keys = [found.key or _EMPTY for found in canonical_keys(answers)]
    chosen = {
        "weighted": weighted(keys, scores[:n]),
        "maj": majority(keys),
        "naive": vanilla(keys, scores[:n]),
    }
    return {method: answers[keys.index(key)] for method, key in chosen.items()}
