"""Drawing problems: every problem has a split of its own, decided by a hash of its numbers.

A problem's key is its family and its numbers without sign or order. The key alone decides whether the problem may be
drawn for training, development or test, so that no rewording, reordering or change of sign can carry a test problem
into training.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from random import Random

from .families import FAMILIES, Draft, Family
from .work import Work

SUBJECTS = tuple(sorted(FAMILIES))
LEVELS = (1, 2, 3, 4, 5)
SPLITS = {"train": range(0, 80), "dev": range(80, 90), "test": range(90, 100)}  # shares of the hash, in per cent
SIZES = {"dev": 1000, "test": 3000}
WORDS = ("Then", "Now", "Next", "So", "Here", "Thus", "Again", "Hence")  # a step may begin with any of them


@dataclass(frozen=True)
class Instance:
    """A problem with everything that is right about it: its work and all the forms of its answer."""

    subject: str
    level: int
    key: str
    text: str
    work: Work
    answers: tuple[str, ...]

    def solution(self, rng: Random) -> list[str]:
        """A right solution as steps: an example of the work in random words, the answer mostly in canonical form."""
        answer = self.answers[0] if rng.random() < 0.8 else rng.choice(self.answers)
        return [worded(rng.choice(WORDS), step) for step in self.work.example(rng)] + [boxed(answer)]


def worded(word: str, formula: str) -> str:
    """A step but the last: a word that changes nothing, and a formula."""
    return f"{word} ${formula}$."


def boxed(answer: str) -> str:
    """The last step of every solution."""
    return f"So $\\boxed{{{answer}}}$."


def stable_hash(*parts: object) -> int:
    """A 64-bit number that is the same in every process and on every machine."""
    return int.from_bytes(blake2b("|".join(map(str, parts)).encode(), digest_size=8).digest(), "big")


def split_of(key: str) -> str:
    """The split that a key belongs to."""
    share = stable_hash("split", key) % 100
    return next(name for name, shares in SPLITS.items() if share in shares)


def instance(function: Family, subject: str, level: int, rng: Random) -> Instance:
    """One problem of a family."""
    draft: Draft = function(rng, level)
    key = f"{function.__name__}:{','.join(map(str, sorted(map(abs, draft.numbers))))}"
    return Instance(subject, level, key, draft.text, draft.work, draft.answers)


def draw(split: str, seed: int, index: int, *, subject: str | None = None, level: int | None = None) -> Instance:
    """Problem number index of an endless stream; it depends on its arguments alone."""
    rng = Random(stable_hash("draw", split, seed, index))
    chosen_subject, chosen_level = subject or rng.choice(SUBJECTS), level or rng.choice(LEVELS)
    while True:
        problem = instance(FAMILIES[chosen_subject], chosen_subject, chosen_level, rng)
        if split_of(problem.key) == split:
            return problem


def benchmark(split: str, *, seed: int = 2026) -> Iterator[tuple[Instance, dict]]:
    """The frozen problems of a split with their rows in MATH-500's columns: subjects and levels in turn.

    No text comes twice.
    """
    seen: set[str] = set()
    index = 0
    for position in range(SIZES[split]):
        subject = SUBJECTS[position % len(SUBJECTS)]
        level = LEVELS[position // len(SUBJECTS) % len(LEVELS)]
        while True:
            problem = draw(split, seed, index, subject=subject, level=level)
            index += 1
            if problem.text not in seen:
                break
        seen.add(problem.text)
        steps = [worded(WORDS[0], step) for step in problem.work.example(Random(0))] + [boxed(problem.answers[0])]
        slug = subject.lower().replace(" & ", "_and_").replace(" ", "_")
        yield (
            problem,
            {
                "problem": problem.text,
                "solution": "\n\n".join(steps),
                "answer": problem.answers[0],
                "subject": subject,
                "level": level,
                "unique_id": f"{split}/{slug}/{position}.json",
            },
        )


def write(split: str, path: Path) -> None:
    """Freeze a split as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for _, row in benchmark(split)), encoding="utf-8")


if __name__ == "__main__":
    from . import DATA

    for name in SIZES:
        write(name, DATA / f"{name}.jsonl")
