"""Batched sampling with a key-value cache, for making training data and tables; the product's engines are elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .model import TinyLlama
from .tokenizer import Codec


@torch.inference_mode()
def sample(
    model: TinyLlama,
    prompts: Sequence[Sequence[int]],
    *,
    codec: Codec,
    temperature: float,
    seed: int,
    most: int = 192,  # new tokens at most
    batch: int = 256,
) -> list[tuple[list[int], bool]]:
    """For each prompt the sampled ids without the end token, and whether the turn was ended.

    Draws depend on the seed and on the order of the prompts. temperature 0 is greedy.
    """
    generator = torch.Generator(device=model.embedding.weight.device).manual_seed(seed)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    out: list[tuple[list[int], bool]] = [([], False)] * len(prompts)
    for begin in range(0, len(order), batch):
        chosen = order[begin : begin + batch]
        results = _sample_batch(model, [prompts[i] for i in chosen], codec, temperature, generator, most)
        for i, result in zip(chosen, results):
            out[i] = result
    return out


def _sample_batch(
    model: TinyLlama,
    prompts: list[Sequence[int]],
    codec: Codec,
    temperature: float,
    generator: torch.Generator,
    most: int,
) -> list[tuple[list[int], bool]]:
    device = model.embedding.weight.device
    longest = max(map(len, prompts))
    ids = torch.tensor([[codec.pad] * (longest - len(p)) + list(p) for p in prompts], device=device)
    padding = ids == codec.pad
    cache: list[list[torch.Tensor]] = [[] for _ in model.blocks]
    rows = list(range(len(prompts)))  # which prompt each row of the batch belongs to
    out: list[list[int]] = [[] for _ in prompts]
    ended = [False] * len(prompts)
    most = min(most, model.shape.context - longest)
    for _ in range(most):
        with torch.autocast(device.type, dtype=torch.bfloat16):
            logits = model.logits(model(ids, cache=cache, padding=padding)[:, -1]).float()
        if temperature == 0:
            drawn = logits.argmax(-1)
        else:
            # Gumbel's trick: the largest of logit plus noise is a draw from the softmax.
            noise = -torch.empty_like(logits).exponential_(generator=generator).log()
            drawn = (logits / temperature + noise).argmax(-1)
        kept = []
        for slot, token in enumerate(drawn.tolist()):
            if token == codec.end:
                ended[rows[slot]] = True
            else:
                out[rows[slot]].append(token)
                kept.append(slot)
        if not kept:
            break
        ids = drawn[:, None]
        padding = torch.cat([padding, torch.zeros_like(padding[:, :1])], dim=1)
        if len(kept) < len(rows):
            index = torch.tensor(kept, device=device)
            ids, padding = ids[index], padding[index]
            cache = [[t[index] for t in layer] for layer in cache]
            rows = [rows[slot] for slot in kept]
    return list(zip(out, ended))
