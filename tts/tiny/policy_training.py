"""Training a policy: next-token loss on right solutions, each a route drawn at random."""

from __future__ import annotations

from pathlib import Path
from random import Random

import torch
from torch.nn import functional

from .batches import Examples, gather
from .loop import Loss
from .model import Shape, TinyLlama
from .problems import LEVELS, draw
from .tokenizer import Codec

SHAPES = {
    "xs": Shape(width=64, layers=3, heads=2, hidden=96),
    "s": Shape(width=96, layers=3, heads=3, hidden=192),
    "m": Shape(width=128, layers=4, heads=4, hidden=320),
    "l": Shape(width=192, layers=7, heads=6, hidden=512),
}
LEVEL_WEIGHTS = (5, 4, 3, 2, 1)  # as in real corpora, hard problems are rarer than easy ones
SUBJECT_WEIGHTS = {  # the subjects that are harder to learn are seen more often, so that they differ less
    "Algebra": 4, "Counting & Probability": 3, "Geometry": 2, "Intermediate Algebra": 1, "Number Theory": 4,
    "Prealgebra": 2, "Precalculus": 3,
}  # fmt: skip
DATA_TOKENS = 12_000_000  # that all sizes draw from, in the same order
STOPS = {"xs": 5_750_000, "s": 4_500_000, "m": 3_500_000, "l": 4_750_000}  # tokens; chosen on the development split
RATES = {"xs": 4e-3, "s": 3e-3, "m": 2e-3, "l": 1.4e-3}  # learning rates


def policy_examples(codec: Codec, *, tokens: int, seed: int, cache: Path | None = None) -> Examples:
    """Fresh problems with one right solution each, about `tokens` tokens; target "answer" marks what to learn."""
    if cache and cache.exists():
        return Examples.load(cache)
    rows, count, index = [], 0, 0
    while count < tokens:
        rng = Random(index)
        level = rng.choices(LEVELS, LEVEL_WEIGHTS)[0]
        subject = rng.choices(list(SUBJECT_WEIGHTS), list(SUBJECT_WEIGHTS.values()))[0]
        problem = draw("train", seed, index, subject=subject, level=level)
        rows.append(example(codec, problem.text, "\n\n".join(problem.solution(Random(index)))))
        count += len(rows[-1][0])
        index += 1
    examples = gather(rows)
    if cache:
        cache.parent.mkdir(parents=True, exist_ok=True)
        examples.save(cache)
    return examples


def example(codec: Codec, problem: str, solution: str) -> tuple[list[int], dict[str, list[int]]]:
    """The token ids of a problem and its solution; target "answer" marks the solution, which is to be learnt."""
    prompt, answer = codec.prompt(problem), [*codec.encode(solution), codec.end]
    return prompt + answer, {"answer": [0] * len(prompt) + [1] * len(answer)}


def policy_loss(model: TinyLlama) -> Loss:
    """Mean negative log-likelihood of the answers' tokens."""

    def loss(batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        hidden = model(batch["tokens"][:, :-1])
        learnt = batch["answer"][:, 1:].bool()
        logits = model.logits(hidden[learnt]).float()
        value = functional.cross_entropy(logits, batch["tokens"][:, 1:][learnt])
        return value, {"loss": value.item()}

    return loss
