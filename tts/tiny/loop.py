"""The training loop that policies and reward models share: schedule, progress, checkpoints, exact resume."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from .batches import Examples

Loss = Callable[[dict[str, Tensor]], tuple[Tensor, dict[str, float]]]


def scheduled_rate(seen: int, peak: float, warm: int) -> float:
    """Learning rate after `seen` tokens: up in a straight line over `warm` tokens, then constant.

    It does not depend on where the run ends, so a model after 2 M tokens is what a run of 4 M tokens passes through.
    """
    return peak * min(1.0, (seen + 1) / warm)


def stream(data: Examples, *, tokens: int, seed: int) -> Iterator[dict[str, torch.Tensor]]:
    """Batches without end, a new order each pass."""
    epoch = 0
    while True:
        for batch in data.batches(tokens=tokens, seed=seed, epoch=epoch):
            yield {k: torch.from_numpy(v) for k, v in batch.items()}
        epoch += 1


def _print(line: str) -> None:
    print(line, flush=True)


def fit(
    model: nn.Module,
    loss: Loss,
    data: Examples,
    *,
    tokens: int,  # to train on in all, padding left out
    batch: int,  # tokens a batch
    learning_rate: float,
    warm: int = 200_000,  # tokens over which the rate rises
    seed: int,
    folder: Path,
    slow: Collection[str] = (),  # parameters whose names start with one of these learn at `pace` times the rate
    pace: float = 0.1,
    device: str = "cpu",
    every: int = 100,  # steps between progress lines
    checkpoint: float = 120.0,  # seconds between checkpoints
    stop_after: int | None = None,  # steps; leaves a checkpoint, as an interruption would
    average: float = 0.998,  # of the weights: what a step keeps of the average so far
    snapshots: int = 0,  # tokens between averaged weights that are kept in folder/N.pt; 0: none
    say: Callable[[str], None] = _print,  # takes a line of progress
) -> dict[str, float]:
    """Train in place and return the last mean losses; goes on from folder/state.pt if that is there.

    The rate is constant and the model ends with the running average of its weights, which does what lowering the rate
    would. A resumed run takes the very batches and steps that an uninterrupted one would.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state_file, log = folder / "state.pt", folder / "log.jsonl"
    sorts: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        sorts.setdefault((parameter.dim() == 2, name.startswith(tuple(slow))), []).append(parameter)
    groups = [
        {"params": members, "weight_decay": 0.05 if matrix else 0.0, "pace": pace if late else 1.0}
        for (matrix, late), members in sorts.items()
    ]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), fused=True)
    seen, step, spent = 0, 0, 0.0
    averaged = {name: value.detach().clone() for name, value in model.state_dict().items()}
    if state_file.exists():
        state = torch.load(state_file, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        averaged = state["averaged"]
        seen, step, spent = state["seen"], state["step"], state["seconds"]

    def save() -> None:
        part = state_file.with_suffix(".part")
        kept = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "averaged": averaged}
        kept |= {"seen": seen, "step": step}
        torch.save(kept | {"seconds": spent + time.perf_counter() - begun}, part)
        part.replace(state_file)

    begun = saved = time.perf_counter()
    batches = stream(data, tokens=batch, seed=seed)
    for _ in range(step):
        next(batches)
    sums: dict[str, float] = {}
    means: dict[str, float] = {}
    count = 0
    while seen < tokens and step != stop_after:
        arrays = {k: v.to(device) for k, v in next(batches).items()}
        for group in optimizer.param_groups:
            group["lr"] = group["pace"] * scheduled_rate(seen, learning_rate, warm)
        with torch.autocast(device.partition(":")[0], dtype=torch.bfloat16):
            value, parts = loss(arrays)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        keep = min(average, (step + 1) / (step + 10))  # a short memory at first
        get_ema_multi_avg_fn(keep)(list(averaged.values()), list(model.state_dict().values()), step)
        before = seen
        seen += int((arrays["tokens"] != 0).sum())
        step += 1
        count += 1
        if snapshots and seen // snapshots > before // snapshots:
            torch.save(averaged, folder / f"{seen // snapshots * snapshots}.pt")
        for k, v in parts.items():
            sums[k] = sums.get(k, 0.0) + v
        if step % every == 0 or seen >= tokens:
            means = {k: v / count for k, v in sums.items()}
            sums, count = {}, 0
            seconds = spent + time.perf_counter() - begun
            line = {
                "step": step,
                "tokens": seen,
                "seconds": round(seconds, 1),
                **{k: round(v, 4) for k, v in means.items()},
            }
            with log.open("a") as file:
                file.write(json.dumps(line) + "\n")
            left = seconds / seen * (tokens - seen)
            shown = "  ".join(f"{k} {v:.4f}" for k, v in means.items())
            say(f"{seen / tokens:6.1%}  {seen / seconds:,.0f} tokens/s  {left:,.0f} s left  {shown}")
            if not all(math.isfinite(v) for v in means.values()):
                raise FloatingPointError(f"the loss is not finite at step {step}: lower the learning rate")
        if time.perf_counter() - saved > checkpoint:
            save()
            saved = time.perf_counter()
    save()
    model.load_state_dict(averaged)
    return means
