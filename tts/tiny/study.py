"""The small reward models that notebook 09 trains: `python -m tts.tiny.study FOLDER` makes them ahead of it.

Each is policy-xs with two new layers, about one and a half times its size. Two learn from the policy's own solutions:
`own-rollouts` from labels by roll-out, so from nothing but the policy and the answers, and `own-exact` from exact
labels of the same solutions. One learns from each subject with exact labels, and `all-subjects` from all of them.

All start from one `stem`, which no label has touched. It reads the policy's own solutions as dialogues, goes on
predicting them, and learns to say at every token how much less likely that was than the policy's favourite there. Then
the last layer is set to look where that is much. What is left to learn from labels is little, so it takes a tenth of
the tokens that `prm` took.

A finished model is kept in FOLDER under a name that says what it depends on. A run that is stopped goes on from its
last checkpoint, and one that finds all of them trains nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random

import torch
from torch.nn import functional

from ..results.store import settings_hash
from . import MODELS
from .batches import Examples, gather
from .checker import check
from .hub import export, load
from .loop import Loss, fit
from .model import Block, TinyLlama
from .prm_training import (
    RewardModel,
    corrupt,
    cut,
    grown,
    labelled,
    mean_loss,
    rollout_labels,
    sampled_solutions,
    verdict_logits,
)
from .problems import SUBJECTS, Instance, draw
from .tokenizer import Codec
from .train import note

BASE = "policy-xs"
LAYERS = 2
RATE, PACE = 3e-3, 0.15  # learning rate, and the share of it at which the policy's own layers change
ROLLOUTS = 4  # continuations of a step that is asked about
EACH = 2  # solutions a problem
PASSES = 2.5  # of the examples in a training run, about
LENGTH = 120  # tokens of an example, about
STEM = 2  # times as many tokens as each model has

Solution = tuple[Instance, Sequence[str]]
Labels = Sequence[Sequence[bool]]


def scorers(folder: Path, *, tokens: int, seed: int = 0, threads: int = 1) -> dict[str, Path]:
    """The folders of all reward models by name, each trained on so many tokens where it is not there yet."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return own_scorers(folder, tokens=tokens, seed=seed) | subject_scorers(folder, tokens=tokens, seed=seed)
    finally:
        torch.set_num_threads(before)


def own_scorers(folder: Path, *, tokens: int, seed: int = 0) -> dict[str, Path]:
    """own-rollouts and own-exact: the same solutions of the policy, labelled by roll-outs or by exact checking.

    Each solution is cut by its own labels (tts.tiny.prm_training.cut).
    """
    problems = max(8, round(tokens / PASSES / LENGTH / EACH))
    paths = {}
    for name, rollouts in (("own-rollouts", ROLLOUTS), ("own-exact", 0)):

        def examples(rollouts: int = rollouts) -> tuple[Examples, dict[str, object]]:
            policy, codec = load(MODELS / BASE)
            solutions = _sampled(codec, policy, problems, seed=20_000 + seed)
            exact, spent = [check(*one) for one in solutions], 0
            labels = exact
            if rollouts:
                labels, spent = rollout_labels(codec, policy, solutions, rollouts=rollouts, seed=seed)
            written = sum(len(codec.encode("\n\n".join(steps))) for _, steps in solutions)
            facts = {"solution_tokens": written, "label_tokens": spent, "agreement": agreement(labels, exact)}
            return examples_of(codec, solutions, labels, seed=seed), facts

        about = {"problems": problems, "each": EACH, "rollouts": rollouts}
        paths[name] = _kept(folder, name, examples, tokens=tokens, seed=seed, about=about)
    return paths


def subject_scorers(folder: Path, *, tokens: int, seed: int = 0) -> dict[str, Path]:
    """One reward model a subject, and "all subjects" with as many tokens, with exact labels.

    Half of the solutions are the policy's own; half are right ones, most of them with one number changed.
    """
    problems = max(8, round(tokens / PASSES / LENGTH / EACH / 2))
    paths = {}
    for subject in (*SUBJECTS, None):

        def examples(subject: str | None = subject) -> tuple[Examples, dict[str, object]]:
            policy, codec = load(MODELS / BASE)
            solutions = _sampled(codec, policy, problems, seed=30_000 + seed, subject=subject)
            for index in range(EACH * problems):
                rng = Random(seed * 1_000_003 + index)
                problem = draw("train", 40_000 + seed, index, subject=subject)
                steps = problem.solution(rng)
                solutions.append((problem, corrupt(rng, steps) if rng.random() < 0.7 else steps))
            return examples_of(codec, solutions, [check(*one) for one in solutions], seed=seed), {}

        name = (subject or "all subjects").lower().replace(" & ", "-and-").replace(" ", "-")
        about = {"subject": subject, "problems": problems, "each": EACH}
        paths[subject or "all subjects"] = _kept(folder, name, examples, tokens=tokens, seed=seed, about=about)
    return paths


def _sampled(codec: Codec, policy: TinyLlama, problems: int, *, seed: int, subject: str | None = None) -> list:
    drawn = [draw("train", seed, index, subject=subject) for index in range(problems)]
    return list(sampled_solutions(codec, policy, drawn, each=EACH, seed=seed).values())


def agreement(labels: Labels, exact: Labels) -> float:
    """The share of steps with the exact label."""
    pairs = [pair for told, truth in zip(labels, exact, strict=True) for pair in zip(told, truth, strict=True)]
    return round(sum(told == truth for told, truth in pairs) / len(pairs), 4)


def examples_of(codec: Codec, solutions: Sequence[Solution], labels: Labels | None, *, seed: int) -> Examples:
    """Training examples with these labels of their steps; None leaves the verdicts out and lets all be predicted.

    No example says which token of a step went wrong: roll-outs can't tell.
    """
    rows = []
    for i, (problem, steps) in enumerate(solutions):
        told = labels[i] if labels else [True] * len(steps)
        shown = cut(Random(seed * 1_000_003 + i), list(steps), told)
        ids, targets = labelled(codec, problem, shown, told[: len(shown)])
        rows.append((ids, targets if labels else targets | {"verdict": [0] * len(ids)}))
    return gather(rows)


def study_loss(model: RewardModel, codec: Codec, *, language: float = 0.5, favour: float = 0.5) -> Loss:
    """Three losses: the verdicts; after the policy's layers the next token of right steps; after the first new layer
    how much less likely each token was than the favourite of the policy's layers, in nats.

    A step's first word is drawn from many, so how unlikely a token is says less (tts.tiny.prm_training.prm_loss).
    """

    def loss(batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        own, first, hidden = model(batch["tokens"])
        at, learnt, inside = batch["verdict"] > 0, batch["language"][:, 1:] > 0, batch["prefix"][:, 1:] > 0
        verdict = mean_loss(verdict_logits(model.llama, hidden[at], codec), batch["verdict"][at] - 1)
        words = mean_loss(model.llama.logits(own[:, :-1][learnt]), batch["tokens"][:, 1:][learnt])
        with torch.no_grad():
            behind = behind_favourite(model.llama.logits(own[:, :-1][inside]), batch["tokens"][:, 1:][inside])
        reading = functional.smooth_l1_loss(model.surprise(first[:, 1:][inside])[:, 0], behind)
        shown = {"verdict": verdict, "language": words, "favour": reading}
        return verdict + language * words + favour * reading, {name: part.item() for name, part in shown.items()}

    return loss


def behind_favourite(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """By how many nats a token [tokens] is less likely than the likeliest one, from logits [tokens, vocabulary]."""
    return (logits.max(dim=-1).values - logits.gather(-1, tokens[:, None])[:, 0]).clamp(max=6.0)


def stem(folder: Path, *, tokens: int, seed: int = 0) -> RewardModel:
    """The reward model that all others start from, made where it is not there yet. It has seen no label."""
    policy, codec = load(MODELS / BASE)
    path = folder / f"stem-{_name(tokens=tokens, seed=seed)}.pt"
    work = folder / "work" / path.stem

    def examples() -> tuple[Examples, dict[str, object]]:
        problems = max(8, round(tokens / PASSES / LENGTH / EACH))
        return examples_of(codec, _sampled(codec, policy, problems, seed=10_000 + seed), None, seed=seed), {}

    if path.exists():
        model = RewardModel(grown(policy, layers=LAYERS, context=1024, seed=seed), base=policy.shape.layers)
        model.load_state_dict(torch.load(path, weights_only=True))
        return model
    data, _ = _once(work, examples)
    seen = next(data.batches(tokens=8192, seed=seed))
    ids = torch.from_numpy(seen["tokens"])
    llama = grown(policy, layers=LAYERS, context=1024, seed=seed, seen=ids)
    model = RewardModel(llama, base=policy.shape.layers)
    _fit(model, codec, data, tokens=tokens, seed=seed, work=work, name="stem")
    with torch.no_grad():
        stream: list[torch.Tensor] = []
        llama(ids, stream=stream)
        inside = torch.from_numpy(seen["prefix"])[:, 1:] > 0
        own = model.base_norm(stream[model.base - 1])[:, :-1]
        behind = behind_favourite(llama.logits(own[inside]), ids[:, 1:][inside])
        block = llama.blocks[-1]
        look_at(block, block.before_attention(stream[-2][:, 1:][inside]), behind)
    part = path.with_suffix(".part")
    torch.save(model.state_dict(), part)
    part.replace(path)
    shutil.rmtree(work)
    return model


def look_at(block: Block, inputs: torch.Tensor, values: torch.Tensor, *, sharpness: float = 1.5) -> None:
    """Set a layer's first head so that it looks where a value is large, whatever the tokens and the distance.

    inputs [tokens, width]: what its attention reads; values [tokens]: what a linear fit of the inputs finds. Queries
    are one fixed vector, keys the value, both in the wave that positions hardly turn.
    """
    width = inputs.shape[1]
    size = width // block.attention.heads
    square = inputs.T @ inputs + 10.0 * torch.eye(width)
    one, fitted = (torch.linalg.solve(square, inputs.T @ of) for of in (torch.ones(len(inputs)), values))
    query, key, _ = block.attention.qkv.weight.view(3, -1, size, width)
    query[0], key[0] = 0.0, 0.0
    query[0, size // 2 - 1], key[0, size // 2 - 1] = one * size**0.5, sharpness * fitted


def facts_of(path: Path) -> dict[str, object]:
    """How a kept model was trained."""
    return json.loads((path / "training.json").read_text(encoding="utf-8"))


def _kept(
    folder: Path,
    name: str,
    examples: Callable[[], tuple[Examples, dict[str, object]]],
    *,
    tokens: int,
    seed: int,
    about: Mapping[str, object],
) -> Path:
    """The folder of a reward model that was trained so; made now where it is not there."""
    path = folder / f"{name}-{_name(tokens=tokens, seed=seed, **about)}"
    if (path / "training.json").exists():
        return path
    work, part = folder / "work" / path.name, folder / "work" / f"{path.name}-part"
    model = stem(folder, tokens=STEM * tokens, seed=seed)
    data, facts = _once(work, examples)
    codec = load(MODELS / BASE)[1]
    means = _fit(model, codec, data, tokens=tokens, seed=seed, work=work, name=name)
    shutil.rmtree(part, ignore_errors=True)
    export(model.llama, codec.tokenizer, part, prm_format="rlhflow")
    note(part, base=BASE, layers=LAYERS, rate=RATE, pace=PACE, tokens=tokens, seed=seed, **about, **facts, **means)
    part.replace(path)
    shutil.rmtree(work)
    return path


def _name(**settings: object) -> str:
    """A name for what a training run depends on."""
    weights = settings_hash({"weights": (MODELS / BASE / "model.safetensors").read_bytes().hex()})
    recipe = {"base": weights, "layers": LAYERS, "rate": RATE, "pace": PACE, "passes": PASSES, "stem": STEM}
    return settings_hash(recipe | settings)


def _once(work: Path, examples: Callable) -> tuple[Examples, dict[str, object]]:
    """The examples of a run and what is known of them, made once and kept until the model is there."""
    work.mkdir(parents=True, exist_ok=True)
    data, facts = work / "examples.npz", work / "facts.json"
    if not data.exists():
        found, known = examples()
        facts.write_text(json.dumps(known), encoding="utf-8")
        found.save(data)
    return Examples.load(data), json.loads(facts.read_text(encoding="utf-8"))


def _fit(
    model: RewardModel, codec: Codec, data: Examples, *, tokens: int, seed: int, work: Path, name: str
) -> dict[str, float]:
    return fit(
        model,
        study_loss(model, codec),
        data,
        tokens=tokens,
        batch=1024,
        learning_rate=RATE,
        warm=max(1, min(50_000, tokens // 4)),
        slow=("llama.embedding", *(f"llama.blocks.{i}." for i in range(model.base))),
        pace=PACE,
        seed=seed,
        folder=work,
        half=False,
        average=0.99,
        tell=lambda line: print(f"{name}: {line}", file=sys.stderr, flush=True),
    )


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="where the models are kept; the notebook's is store/trained")
    parser.add_argument("--tokens", type=int, default=150_000, help="of each model's training; the stem has twice that")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    for name, path in scorers(args.folder, tokens=args.tokens, threads=args.threads).items():
        print(f"{name}: {path}")


if __name__ == "__main__":
    main()
