"""Verifier heads on a policy, small enough to train ten in minutes: `python -m tts.tiny.heads FOLDER` makes them.

A head says how likely each step of a solution is to be right. It is a layer of 32 units over what `policy-xs` computes
anyway when it reads the solution: its last hidden state after the step, and how likely it thought the tokens of the
step, and of all steps so far. The policy itself stays as it is. Two heads learn from the policy's own solutions:
`own-rollouts` from labels by roll-out, so from nothing but the policy and the answers, and `own-exact` from exact
labels of the same solutions. One learns from solutions of each subject with exact labels, and `all subjects` from as
many of all of them.

A finished head is kept in FOLDER under a name that says what it depends on, so a run that is stopped goes on with the
next one, and one that finds all of them trains nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ..analysis.cost import Size
from ..errors import ContextExceeded
from ..models.checkpoint import open_checkpoint
from ..models.scoring import filled, trimmed
from ..results.store import settings_hash
from ..tree import split_steps
from . import MODELS
from .checker import check
from .hub import load
from .model import TinyLlama
from .prm_training import rollout_labels, sampled_solutions
from .problems import SUBJECTS, Instance, draw
from .tokenizer import Codec

BASE = "policy-xs"
VERSION = 1  # of what a head reads and how it is trained: raise it with every change
UNITS, RATE, DECAY, PASSES, BATCH = 32, 3e-3, 0.01, 40, 256
ROLLOUTS = 4  # continuations of a step that is asked about
EACH = 2  # solutions a problem

Solution = tuple[Instance, Sequence[str]]
Labels = Sequence[Sequence[bool]]


class Head(nn.Module):
    """P(right) from what is read of a step, [steps, what is read] -> [steps]."""

    def __init__(self, inputs: int, *, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.inner, self.outer = nn.Linear(inputs, UNITS), nn.Linear(UNITS, 1)
        for layer in (self.inner, self.outer):
            with torch.no_grad():
                layer.weight.normal_(0.0, layer.in_features**-0.5, generator=generator)
                layer.bias.zero_()
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))

    def forward(self, read: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.outer(functional.gelu(self.inner((read - self.mean) / self.scale)))[:, 0]

    @torch.inference_mode()
    def scores(self, read: np.ndarray) -> list[float]:
        """One score a step of one solution."""
        return torch.sigmoid(self(torch.from_numpy(read))).tolist() if len(read) else []


def heads(folder: Path, *, solutions: int, seed: int = 0, threads: int = 1) -> dict[str, tuple[Head, dict]]:
    """All heads by name, each with what is known of its training; those that are not in the folder are trained.

    solutions: of each head's training, about.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return own_heads(folder, solutions=solutions, seed=seed) | subject_heads(folder, solutions=solutions, seed=seed)
    finally:
        torch.set_num_threads(before)


def own_heads(folder: Path, *, solutions: int, seed: int = 0) -> dict[str, tuple[Head, dict]]:
    """own-rollouts and own-exact: the same solutions of the policy, labelled by roll-outs or by exact checking."""
    found = {}
    for name, rollouts in (("own-rollouts", ROLLOUTS), ("own-exact", 0)):

        def examples(policy: TinyLlama, codec: Codec, rollouts: int = rollouts) -> tuple[list[Solution], Labels, dict]:
            drawn = _sampled(codec, policy, solutions // EACH, seed=20_000 + seed)
            exact, spent = [check(*one) for one in drawn], 0
            labels = exact
            if rollouts:
                labels, spent = rollout_labels(codec, policy, drawn, rollouts=rollouts, seed=seed)
            written = sum(len(codec.encode("\n\n".join(steps))) for _, steps in drawn)
            known = {"solution_tokens": written, "label_tokens": spent, "agreement": agreement(labels, exact)}
            return drawn, labels, known

        found[name] = _kept(folder, name, examples, seed=seed, about={"solutions": solutions, "rollouts": rollouts})
    return found


def subject_heads(folder: Path, *, solutions: int, seed: int = 0) -> dict[str, tuple[Head, dict]]:
    """One head a subject, and "all subjects" with as many of the policy's own solutions, with exact labels."""
    found = {}
    for subject in (*SUBJECTS, None):

        def examples(
            policy: TinyLlama, codec: Codec, subject: str | None = subject
        ) -> tuple[list[Solution], Labels, dict]:
            drawn = _sampled(codec, policy, solutions // EACH, seed=30_000 + seed, subject=subject)
            return drawn, [check(*one) for one in drawn], {}

        name = subject or "all subjects"
        found[name] = _kept(folder, name, examples, seed=seed, about={"sampled": solutions, "subject": subject})
    return found


def _sampled(codec: Codec, policy: TinyLlama, problems: int, *, seed: int, subject: str | None = None) -> list:
    drawn = [draw("train", seed, index, subject=subject) for index in range(max(problems, 2))]
    return list(sampled_solutions(codec, policy, drawn, each=EACH, seed=seed).values())


def base() -> tuple[TinyLlama, Codec]:
    """The policy that all heads sit on, and its codec."""
    return load(MODELS / BASE)


def agreement(labels: Labels, exact: Labels) -> float:
    """The share of steps with the exact label."""
    pairs = [pair for told, truth in zip(labels, exact, strict=True) for pair in zip(told, truth, strict=True)]
    return round(sum(told == truth for told, truth in pairs) / len(pairs), 4)


@torch.inference_mode()
def readings(
    policy: TinyLlama, codec: Codec, solutions: Sequence[tuple[str, Sequence[str]]], *, batch: int = 128
) -> list[np.ndarray]:
    """What a head reads of each (problem, steps): [steps, width + 7].

    The policy's last hidden state at the blank line after a step; then in nats, of the step's tokens: the sum of their
    log-probabilities, the sum and the largest of how far each lies behind the policy's favourite; the same three of all
    steps so far; and the number of the step. A step's first word is drawn from many, so how unlikely a token is says
    less than how far it is behind the favourite. Raises ContextExceeded for what is too long.
    """
    made = [_written(codec, *one) for one in solutions]
    order = sorted((i for i, (_, ends) in enumerate(made) if ends), key=lambda i: len(made[i][0]))
    out = [np.zeros((0, policy.shape.width + 7), np.float32)] * len(made)
    for begin in range(0, len(order), batch):
        chosen = order[begin : begin + batch]
        longest = len(made[chosen[-1]][0])
        if longest > policy.shape.context:
            raise ContextExceeded(f"{longest} tokens are more than the {policy.shape.context} that {BASE} reads")
        ids = torch.tensor([made[i][0] + [codec.pad] * (longest - len(made[i][0])) for i in chosen])
        hidden = policy(ids)
        logits = torch.log_softmax(policy.logits(hidden[:, :-1]), dim=-1)
        likely = logits.gather(-1, ids[:, 1:, None])[..., 0]
        behind = logits.max(dim=-1).values - likely
        for row, i in enumerate(chosen):
            out[i] = _of_steps(hidden[row].numpy(), likely[row].numpy(), behind[row].numpy(), made[i][1])
    return out


def readings_of(solutions: Sequence[tuple[str, str]]) -> list[np.ndarray]:
    """The same of whole texts: of each (problem, solution)."""
    return readings(*base(), [(problem, split_steps(text)) for problem, text in solutions])


def _written(codec: Codec, problem: str, steps: Sequence[str]) -> tuple[list[int], list[int]]:
    """The token ids of a solution with a blank line after each step, and the places of these."""
    ids = codec.prompt(problem)
    ends = [len(ids) - 1]
    for step in steps:
        ids += [*codec.encode(step.strip()), codec.blank]
        ends.append(len(ids) - 1)
    return ids, ends if len(ends) > 1 else []


def _of_steps(hidden: np.ndarray, likely: np.ndarray, behind: np.ndarray, ends: Sequence[int]) -> np.ndarray:
    """The readings of one solution; ends: where the prompt and each step with its blank line end."""
    parts = [slice(a, b - 1) for a, b in zip(ends, ends[1:])]  # likely[i] is of token i + 1; without the blank line
    own = np.array([[likely[p].sum(), behind[p].sum(), behind[p].max(initial=0.0)] for p in parts])
    so_far = np.column_stack([own[:, :2].cumsum(axis=0), np.maximum.accumulate(own[:, 2])])
    return np.column_stack([hidden[list(ends[1:])], own, so_far, np.arange(len(parts))]).astype(np.float32)


def train_head(read: Sequence[np.ndarray], labels: Labels, *, seed: int) -> tuple[Head, float]:
    """A head trained on readings and labels of all steps of solutions, and its last mean loss."""
    inputs = torch.from_numpy(np.concatenate(read))
    targets = torch.tensor([one for told in labels for one in told], dtype=torch.float32)
    head, generator = Head(inputs.shape[1], seed=seed), torch.Generator().manual_seed(seed)
    head.mean, head.scale = inputs.mean(dim=0), inputs.std(dim=0) + 1e-3
    optimizer = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=DECAY)
    mean = float("nan")
    for _ in range(PASSES):
        losses = []
        for chosen in torch.randperm(len(inputs), generator=generator).split(BATCH):
            loss = functional.binary_cross_entropy_with_logits(head(inputs[chosen]), targets[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        mean = float(np.mean(losses))
    return head, mean


class HeadScorer:
    """A head as a step scorer (tts.prm.StepScorer). Its cost is counted as that of a verifier of the policy's size,
    which reads each solution anew, though the policy has computed all of it when it wrote the solution.

    It reads one solution at a time, and remembers nothing: fast enough for a model this small.
    """

    provenance: Mapping[str, str] = {"engine": "tts.tiny.heads"}

    def __init__(self, name: str, head: Head) -> None:
        self.name, self.head = name, head
        self.policy, self.codec = base()
        weights = {key: value.tolist() for key, value in head.state_dict().items()}
        self.fingerprint = f"head:{VERSION}:{settings_hash({'base': _weights(), 'head': weights})}"

    @property
    def size(self) -> Size:
        """The policy's."""
        return open_checkpoint(BASE).size

    async def score(self, problem: str, steps: Sequence[str], *, known: Sequence[float] = ()) -> list[float]:
        """See StepScorer.score."""
        texts = trimmed(steps, known)
        [read] = readings(self.policy, self.codec, [(problem, [text for text in texts if text])])
        return filled(texts, known, self.head.scores(read)[sum(map(bool, texts[: len(known)])) :])

    async def close(self) -> None:
        """There is nothing to let go of."""


def _kept(
    folder: Path, name: str, examples: Callable, *, seed: int, about: Mapping[str, object]
) -> tuple[Head, dict[str, object]]:
    """The head that was trained so, and what is known of it; made now where it is not there."""
    recipe = [UNITS, RATE, DECAY, PASSES, BATCH, EACH]
    settings = {"base": _weights(), "version": VERSION, "recipe": recipe, "seed": seed} | about
    path = folder / f"{name.lower().replace(' & ', '-and-').replace(' ', '-')}-{settings_hash(settings)}.pt"
    policy, codec = base()
    if not path.exists():
        print(f"head {name}: sampling, labels and training", file=sys.stderr, flush=True)
        solutions, labels, known = examples(policy, codec)
        read = readings(policy, codec, [(problem.text, steps) for problem, steps in solutions])
        head, loss = train_head(read, labels, seed=seed)
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        facts = {"steps": sum(map(len, labels)), **known, "loss": round(loss, 4)}
        torch.save({"head": head.state_dict(), "facts": json.dumps(facts)}, part)
        part.replace(path)
    kept = torch.load(path, weights_only=True)
    head = Head(policy.shape.width + 7)
    head.load_state_dict(kept["head"])
    return head, json.loads(kept["facts"])


def _weights() -> str:
    """What names the policy's weights."""
    return settings_hash({"weights": (MODELS / BASE / "model.safetensors").read_bytes().hex()})


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="where the heads are kept; the notebook's is store/heads")
    parser.add_argument("--solutions", type=int, default=800, help="of each head's training")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    for name, (_, facts) in heads(args.folder, solutions=args.solutions, threads=args.threads).items():
        print(name, facts)


if __name__ == "__main__":
    main()
