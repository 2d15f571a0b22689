"""Training a policy: next-token loss on right solutions, each a route drawn at random."""

from __future__ import annotations

from pathlib import Path
from random import Random

import torch
from torch.nn import functional

from .batches import Examples, gather
from .loop import Loss
from .model import Shape, TinyLlama
from .problems import draw
from .tokenizer import Codec

SHAPES = {
    "xs": Shape(width=64, layers=2, heads=2, hidden=128),
    "s": Shape(width=64, layers=3, heads=2, hidden=96),
    "m": Shape(width=64, layers=3, heads=2, hidden=160),
    "l": Shape(width=160, layers=4, heads=5, hidden=448),
}
RATES = {"xs": 4e-3, "s": 4e-3, "m": 4e-3, "l": 2e-3}  # peak learning rates


def policy_examples(codec: Codec, *, tokens: int, seed: int, cache: Path | None = None) -> Examples:
    """Fresh problems with one right solution each, about `tokens` tokens; target "answer" marks what to learn."""
    if cache and cache.exists():
        return Examples.load(cache)
    rows, count, index = [], 0, 0
    while count < tokens:
        problem = draw("train", seed, index)
        prompt = codec.prompt(problem.text)
        answer = [*codec.encode("\n\n".join(problem.solution(Random(index)))), codec.end]
        rows.append((prompt + answer, {"answer": [0] * len(prompt) + [1] * len(answer)}))
        count += len(prompt) + len(answer)
        index += 1
    examples = gather(rows)
    if cache:
        cache.parent.mkdir(parents=True, exist_ok=True)
        examples.save(cache)
    return examples


def policy_loss(model: TinyLlama) -> Loss:
    """Mean negative log-likelihood of the answers' tokens."""

    def loss(batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        hidden = model(batch["tokens"][:, :-1])
        learnt = batch["answer"][:, 1:].bool()
        logits = model.logits(hidden[learnt]).float()
        value = functional.cross_entropy(logits, batch["tokens"][:, 1:][learnt])
        return value, {"loss": value.item()}

    return loss
