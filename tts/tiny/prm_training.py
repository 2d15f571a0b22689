"""Training a process reward model in the RLHFlow format: a dialogue a solution, a user turn a step.

Three kinds of example: solutions sampled from every policy, right solutions, and right solutions with one number
changed. The model is a policy with new layers on top: the policy's own layers go on working steps out, the first new
layer compares that with what is written, and the others gather it where the verdict is read. Four losses say so:
- verdict: "+" against "-" where the assistant's turn begins, the only one that counts in use;
- language, after the policy's layers: next-token loss on the steps that are right;
- surprise, after the first new layer: how unlikely the policy's layers thought each token, which needs no label;
- prefix: at every token of a step, whether the step can still become right. It says which token went wrong, where the
  verdict says only that one did.
The heads of the last three are dropped when the model is saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

import torch
from torch import nn
from torch.nn import functional

from .batches import Examples, gather
from .checker import check, possible, solved, steps_of
from .loop import Loss
from .model import Block, Norm, Shape, TinyLlama
from .problems import Instance, draw
from .sampling import sample
from .tokenizer import Codec

RIGHT, WRONG = 1, 2  # target values; 0 is "nothing to learn here"
UNKNOWN = 3  # of a token's prefix: it is part of a step, and nobody knows whether the step can still become right


def dialogue(codec: Codec, problem: str, steps: Sequence[str]) -> tuple[list[int], list[int]]:
    """The token ids of a solution's dialogue and, for each step, the index where its verdict is read.

    The last "+" is left out: nothing depends on it.
    """
    ids, verdicts = [], []
    for i, step in enumerate(steps):
        if i:
            ids += [codec.plus, codec.end]
        ids += [codec.user, *codec.encode(f"{problem} {step}" if i == 0 else step), codec.assistant]
        verdicts.append(len(ids) - 1)
    return ids, verdicts


def labelled(
    codec: Codec, problem: Instance, steps: Sequence[str], labels: Sequence[bool] | None = None
) -> tuple[list[int], dict[str, list[int]]]:
    """One training example: a dialogue with its three kinds of target; labels default to exact checking.

    With other labels (roll-outs) there is no telling which token went wrong: the prefix targets are UNKNOWN then.
    """
    exact = labels is None
    labels = check(problem, steps) if labels is None else labels
    ids, verdicts = dialogue(codec, problem.text, steps)
    verdict, language, prefix = ([0] * len(ids) for _ in range(3))
    begin = 0
    for i, (good, end) in enumerate(zip(labels, verdicts)):
        verdict[end] = RIGHT if good else WRONG
        ways = possible(problem, steps[:i]) if exact and (good or i == 0 or labels[i - 1]) else []
        seen, offset = "", len(problem.text) + 1 if i == 0 else 0
        for at in range(begin + 1 if i == 0 else begin + 4, end):
            seen += codec.text_of[ids[at]]
            written = seen[offset:]
            if len(seen) <= offset:
                continue
            language[at] = int(good)
            ways = [way for way in ways if way.startswith(written)]
            prefix[at] = (RIGHT if ways else WRONG) if exact else UNKNOWN
        begin = end
    return ids, {"verdict": verdict, "language": language, "prefix": prefix}


def corrupt(rng: Random, steps: list[str]) -> list[str]:
    """The solution with one number of one step changed, as a slip would: a digit, a sign, ten too many or too few."""
    at = rng.randrange(len(steps))
    step = steps[at]
    digits = [i for i, c in enumerate(step) if c.isdigit()]
    equals = step.rfind("=")
    late = [i for i in digits if i > equals]
    place = rng.choice(late if late and rng.random() < 0.75 else digits)
    kind = rng.random()
    if kind < 0.12 and equals > 0 and step[equals + 1] == "-":
        changed = step[: equals + 1] + step[equals + 2 :]
    elif kind < 0.2 and equals > 0 and step[equals + 1].isdigit():
        changed = step[: equals + 1] + "-" + step[equals + 1 :]
    else:
        old = int(step[place])
        near = [d for d in (old - 1, old + 1) if 0 <= d <= 9]
        new = rng.choice(near) if rng.random() < 0.5 else rng.choice([d for d in range(10) if d != old])
        changed = step[:place] + str(new) + step[place + 1 :]
    return [*steps[:at], changed, *steps[at + 1 :]]


def cut(rng: Random, steps: list[str], labels: Sequence[bool], *, share: float = 0.6) -> list[str]:
    """The solution, in a share of all cases cut after its first error: what follows teaches little."""
    if not all(labels) and rng.random() < share:
        return steps[: list(labels).index(False) + 1]
    return steps


def made_examples(
    codec: Codec, *, count: int, seed: int, corrupted: float = 0.7, subject: str | None = None
) -> Examples:
    """Fresh right solutions, a share of them with one number changed."""
    rows = []
    for index in range(count):
        rng = Random(seed * 1_000_003 + index)
        problem = draw("train", 7_000 + seed, index, subject=subject)
        steps = problem.solution(rng)
        if rng.random() < corrupted:
            steps = corrupt(rng, steps)
        rows.append(labelled(codec, problem, cut(rng, steps, check(problem, steps))))
    return gather(rows)


def sampled_examples(
    codec: Codec,
    policy: TinyLlama,
    *,
    problems: int,
    each: int,
    seed: int,
    temperature: float = 0.9,
    rollouts: int = 0,
    subject: str | None = None,
    cache: Path | None = None,
) -> Examples:
    """Solutions sampled from a policy on training problems, labelled by exact checking or, if asked, by roll-outs."""
    if cache and cache.exists():
        return Examples.load(cache)
    drawn = [draw("train", 9_000 + seed, index, subject=subject) for index in range(problems)]
    kept = sampled_solutions(codec, policy, drawn, each=each, seed=seed, temperature=temperature)
    told = rollout_labels(codec, policy, list(kept.values()), rollouts=rollouts, seed=seed)[0] if rollouts else None
    rows = []
    for at, (i, (problem, steps)) in enumerate(kept.items()):
        shown = cut(Random(seed * 1_000_003 + i), steps, told[at] if told else check(problem, steps))
        rows.append(labelled(codec, problem, shown, told[at][: len(shown)] if told else None))
    examples = gather(rows)
    if cache:
        cache.parent.mkdir(parents=True, exist_ok=True)
        examples.save(cache)
    return examples


def sampled_solutions(
    codec: Codec, policy: TinyLlama, problems: Sequence[Instance], *, each: int, seed: int, temperature: float = 0.9
) -> dict[int, tuple[Instance, list[str]]]:
    """`each` solutions a problem with their problems, by number; those that did not end or are long are left out."""
    prompts = [codec.prompt(p.text) for p in problems for _ in range(each)]
    kept = {}
    for i, (ids, ended) in enumerate(sample(policy, prompts, codec=codec, temperature=temperature, seed=seed)):
        steps = steps_of(codec.decode(ids))
        if ended and 0 < len(steps) <= 24:
            kept[i] = problems[i // each], steps
    return kept


def rollout_labels(
    codec: Codec,
    policy: TinyLlama,
    solutions: Sequence[tuple[Instance, Sequence[str]]],
    *,
    rollouts: int,
    seed: int,
) -> tuple[list[list[bool]], int]:
    """Monte-Carlo labels, one list a solution, and the tokens that were sampled for all of them.

    A step is right if any of so many continuations of it is solved (the hard estimate of Math-Shepherd, arXiv
    2312.08935). Then so are all steps before it, so the last right one is found by bisection (arXiv 2406.06592), and a
    solution that is solved needs no continuation. This takes no checker of steps, only the answer, but it calls a right
    step wrong where the policy cannot finish from it.
    """
    low = [len(steps) if solved(problem, steps) else 0 for problem, steps in solutions]  # so many steps are right
    high = [len(steps) for _, steps in solutions]  # at most; the last step of an unsolved one is wrong
    high = [at if at == most else most - 1 for at, most in zip(low, high)]
    spent = wave = 0
    while open_ := [i for i in range(len(solutions)) if low[i] < high[i]]:
        middle = {i: (low[i] + high[i] + 1) // 2 for i in open_}
        prompts = [
            codec.prompt(solutions[i][0].text) + codec.encode("\n\n".join(solutions[i][1][: middle[i]]) + "\n\n")
            for i in open_
            for _ in range(rollouts)
        ]
        drawn = sample(policy, prompts, codec=codec, temperature=0.8, seed=1000 * seed + wave)
        spent, wave = spent + sum(len(ids) for ids, _ in drawn), wave + 1
        for at, i in enumerate(open_):
            tries = drawn[at * rollouts : (at + 1) * rollouts]
            if any(solved(solutions[i][0], steps_of(codec.decode(ids))) for ids, _ in tries):
                low[i] = middle[i]
            else:
                high[i] = middle[i] - 1
    return [[k < right for k in range(len(steps))] for right, (_, steps) in zip(low, solutions)], spent


class RewardModel(nn.Module):
    """A policy's layers with new ones on top, and the heads that training alone needs."""

    def __init__(self, llama: TinyLlama, *, base: int) -> None:
        super().__init__()
        self.llama, self.base = llama, base  # base: layers of the policy
        width = llama.shape.width
        self.base_norm, self.first_norm = Norm(width), Norm(width)
        self.base_norm.load_state_dict(llama.norm.state_dict())
        self.prefix = nn.Linear(width, 2)
        self.surprise = nn.Linear(width, 1)

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Hidden states after the policy's layers, after the first new one, and after all."""
        stream: list[torch.Tensor] = []
        last = self.llama(ids, stream=stream)
        return self.base_norm(stream[self.base - 1]), self.first_norm(stream[self.base]), last


def grown(policy: TinyLlama, *, layers: int, context: int, seed: int, seen: torch.Tensor | None = None) -> TinyLlama:
    """A policy's weights with new layers on top that change little at first.

    seen: token ids [batch, time] of some dialogues, 0 where padded; with them the first new layer begins as one that
    looks at the token before, and the new layers write at the scale of what they add to.
    """
    shape = Shape(**{**policy.shape.as_dict(), "layers": policy.shape.layers + layers, "context": context})
    model = TinyLlama(shape, seed=seed)
    model.load_state_dict(policy.state_dict(), strict=False)
    if seen is not None:
        stream: list[torch.Tensor] = []
        with torch.no_grad():
            policy(seen, stream=stream)
            below = stream[-1][seen != 0]
            scale = below.square().mean().sqrt()
            for block in model.blocks[policy.shape.layers :]:
                block.attention.out.weight *= scale
                block.down.weight *= scale
            first = model.blocks[policy.shape.layers]
            look_back(first, first.before_attention(below), model.cos[1], model.sin[1])
            first.attention.out.weight *= 5.0  # what is fetched is half of what is there
    return model


def look_back(
    block: Block, inputs: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *, waves: int = 3, sharpness: float = 7.0
) -> None:
    """Set a layer's queries and keys so that every head attends to the token before, whatever the tokens are.

    inputs [tokens, width]: what its attention reads; cos, sin [size of a head]: by which one position turns.
    Whether a token was likely is known one position earlier than the token itself, and to compare the two they have to
    be brought together. Left to itself training didn't find that pattern in 7 M tokens, because it pays only once the
    comparison works and the other way round.

    Queries and keys are one fixed vector each, times what is nearly 1 for all tokens (a least-squares fit). Turned by
    their positions their product is a sum of cosines of the distance, greatest at one back; the slowest wave, which
    hardly turns, moves it so far down that only one back is above 0 and the fit's error can't change the order.
    """
    width, half = inputs.shape[1], len(cos) // 2
    one = torch.linalg.solve(inputs.T @ inputs + 10.0 * torch.eye(width, device=inputs.device), inputs.sum(0))
    key, query = torch.zeros(2, 2 * half, device=inputs.device)
    key[:waves] = sharpness
    query[:waves], query[half : half + waves] = sharpness * cos[:waves], -sharpness * sin[:waves]
    key[half - 1], query[half - 1] = sharpness, -sharpness * (waves + cos[:waves].sum()) / 2
    qkv = block.attention.qkv.weight.view(3, -1, 2 * half, width)
    qkv[0], qkv[1] = query[:, None] * one, key[:, None] * one


def verdict_logits(model: TinyLlama, hidden: torch.Tensor, codec: Codec) -> torch.Tensor:
    """Logits of "+" and "-" [..., 2] from hidden states."""
    return functional.linear(hidden, model.embedding.weight[[codec.plus, codec.minus]])


def mean_loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy, 0 of nothing: a batch of solutions cut at a wrong first step has no right step to learn."""
    return functional.cross_entropy(logits.float(), truth, reduction="sum") / max(len(truth), 1)


def prm_loss(
    model: RewardModel, codec: Codec, *, language: float = 0.5, prefix: float = 1.0, surprise: float = 0.5
) -> Loss:
    """The four losses, each a mean over its own targets."""

    def loss(batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        own, first, hidden = model(batch["tokens"])
        at, learnt, told = batch["verdict"] > 0, batch["language"][:, 1:] > 0, batch["prefix"][:, 1:] > 0
        known = (batch["prefix"] > 0) & (batch["prefix"] < UNKNOWN)
        verdict = mean_loss(verdict_logits(model.llama, hidden[at], codec), batch["verdict"][at] - 1)
        words = mean_loss(model.llama.logits(own[:, :-1][learnt]), batch["tokens"][:, 1:][learnt])
        still = mean_loss(model.prefix(hidden[known]), batch["prefix"][known] - 1)
        with torch.no_grad():
            logits = model.llama.logits(own[:, :-1]).float()
            thought = functional.cross_entropy(logits.transpose(1, 2), batch["tokens"][:, 1:], reduction="none")
        read = model.surprise(first[:, 1:]).float()[..., 0]
        reading = functional.smooth_l1_loss(read[told], thought[told].clamp(max=6.0), reduction="sum")
        reading = reading / max(int(told.sum()), 1)
        value = verdict + language * words + prefix * still + surprise * reading
        shown = {"verdict": verdict, "language": words, "prefix": still, "surprise": reading}
        return value, {name: part.item() for name, part in shown.items()}

    return loss


@torch.inference_mode()
def score(
    model: TinyLlama, codec: Codec, solutions: Sequence[tuple[str, Sequence[str]]], *, batch: int = 128
) -> list[list[float]]:
    """For each (problem, steps) the probability that each step is right."""
    made = [dialogue(codec, problem, steps) if steps else ([], []) for problem, steps in solutions]
    order = sorted((i for i, (ids, _) in enumerate(made) if ids), key=lambda i: len(made[i][0]))
    out: list[list[float]] = [[] for _ in solutions]
    for begin in range(0, len(order), batch):
        chosen = order[begin : begin + batch]
        longest = len(made[chosen[-1]][0])
        ids = torch.tensor([made[i][0] + [codec.pad] * (longest - len(made[i][0])) for i in chosen])
        ids = ids.to(model.embedding.weight.device)
        with torch.autocast(ids.device.type, dtype=torch.bfloat16):
            hidden = model(ids)
        for row, i in zip(hidden, chosen):
            logits = verdict_logits(model, row[made[i][1]].float(), codec)
            out[i] = torch.softmax(logits, dim=-1)[:, 0].tolist()
    return out
