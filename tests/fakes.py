"""A scripted policy and a scripted scorer: no weights, every call logged, checked and, where a test asks, held up.

A token is a character, "$" ends the turn, and "|" ends the prompt. A script is a function (written so far, seed) -> the
next step; the seed is None for greedy requests.
"""

import random
from collections import defaultdict
from dataclasses import fields

from tts.policy import Completion, Sampling
from tts.problems import Problem

PROBLEM = Problem(id="p1", text="Q", answer="1")


def with_sampling(**settings):
    """A strategy's settings, in which the fields of a Sampling among them (seed, temperature, ...) are one."""
    drawing = {field.name: settings.pop(field.name) for field in fields(Sampling) if field.name in settings}
    return settings | {"sampling": Sampling(**drawing)}


async def at_once(*_):
    """The gate of a fake that never makes anyone wait."""


class ScriptedPolicy:
    name = fingerprint = "scripted"

    def __init__(self, script, *, context=10_000, gate=at_once):
        self.script, self.context, self.gate = script, context, gate
        self.requests = []  # (problem, written, seed, temperature)
        self.generated = 0

    def prompt(self, problem):
        return tuple(map(ord, problem + "|"))

    async def sample(self, prefix, sampling, *, stop=None):
        assert isinstance(prefix, tuple)
        seed, temperature, max_tokens = sampling.seed, sampling.temperature, sampling.max_tokens
        problem, written = "".join(map(chr, prefix)).split("|")
        room = min(max_tokens, self.context - len(prefix))
        assert room >= 1, "a request without room for a token"
        self.requests.append((problem, written, seed, temperature))
        await self.gate(problem, written)
        text = ""
        while not text.endswith("$") and len(text) < room and not (stop and stop in text):
            text += self.script(written + text, None if temperature == 0 else seed)
        if stop and stop in text:
            text = text[: text.index(stop) + len(stop)]
        text = text[:room]
        self.generated += len(text)
        finish = "end" if text.endswith("$") else "stop" if stop and text.endswith(stop) else "length"
        text = text.rstrip("$")
        return Completion(tuple(map(ord, text)), text, -float(len(text)), finish)


class ScriptedScorer:
    name = fingerprint = "scripted"

    def __init__(self, rule, *, gate=at_once):
        self.rule, self.gate = rule, gate  # rule: the steps up to one -> its score
        self.scored = []  # (problem, steps up to it) for each newly scored step

    async def score(self, problem, steps, *, known=()):
        steps = tuple(steps)
        right = [self.rule(steps[: k + 1]) for k in range(len(steps))]
        assert list(known) == right[: len(known)], "known scores are those of the first steps"
        assert len(known) < len(steps), "a call with nothing to score"
        assert all(step.strip() for step in steps), "an empty step"
        self.scored += [(problem, steps[: k + 1]) for k in range(len(known), len(steps))]
        await self.gate(problem, steps)
        return right


def table(draws, greedy=None):
    """The script that continues each text with its listed continuations in turn, in order of the draw."""
    drawn = defaultdict(int)

    def script(written, seed):
        if seed is None:
            return greedy[written]
        drawn[written] += 1
        return draws[written][drawn[written] - 1]

    return script


def dice(*steps):
    """The script that draws one of the steps, by what was written and the seed alone."""
    return lambda written, seed: random.Random(f"{written}{seed}").choice(steps)


def by_last(**scores):
    """The rule that scores a step by its letters alone."""
    return lambda steps: scores[steps[-1].strip()]


def by_hash(steps):
    """A score in [0, 1] that depends on all the steps, white space apart; eighths, so that ties happen."""
    return random.Random(" ".join(step.strip() for step in steps)).randrange(9) / 8


def by_hand():
    """A script and a rule. With N = 4, M = 2 beam search keeps b and d; be finishes; then it keeps d g, of which i and
    j finish and k goes on to l.
    """
    script = table(
        {
            "": ["a\n\n", "b\n\n", "c\n\n", "d\n\n"],
            "b\n\n": ["e$", "f\n\n"],
            "d\n\n": ["g\n\n", "h\n\n"],
            "d\n\ng\n\n": ["i$", "j$", "k\n\n"],
            "d\n\ng\n\nk\n\n": ["l$"],
        }
    )
    return script, by_last(a=0.1, b=0.9, c=0.2, d=0.8, e=0.3, f=0.4, g=0.7, h=0.1, i=0.5, j=0.6, k=0.2, l=0.9)
