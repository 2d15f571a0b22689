"""The tables of the model cards: `python -m tts.tiny.evaluate --split dev`.

Policies: greedy, pass@1, majority and pass@N from samples at T = 0.8. Reward models: step AUC, first-error accuracy,
calibration, and AUC within problems, which is what choosing between solutions of one problem lives on.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..analysis.verifiers import auc, calibration_error, finds_error, until_error
from . import MODELS
from .checker import check, content, solved, steps_of
from .hub import load
from .model import TinyLlama
from .prm_training import score
from .problems import LEVELS, Instance, benchmark
from .sampling import sample
from .tokenizer import Codec

POLICIES = ("xs", "s", "m", "l")
RIGHT = "right"  # an answer's key that no wrong answer has
Solutions = list[list[list[str]]]  # problem, sample, steps


def draw_solutions(
    model: TinyLlama, codec: Codec, problems: Sequence[Instance], *, each: int, temperature: float, seed: int
) -> Solutions:
    """`each` solutions of every problem as steps."""
    prompts = [codec.prompt(p.text) for p in problems for _ in range(each)]
    drawn = sample(model, prompts, codec=codec, temperature=temperature, seed=seed)
    texts = [steps_of(codec.decode(ids)) for ids, _ in drawn]
    return [texts[i * each : (i + 1) * each] for i in range(len(problems))]


def answer(problem: Instance, steps: Sequence[str]) -> str | None:
    """What a solution votes for: RIGHT for all forms of the right answer, else its last formula, None without one."""
    return RIGHT if solved(problem, steps) else content(steps[-1]) if steps else None


def voted(problem: Instance, solutions: Sequence[Sequence[str]]) -> bool:
    """Whether the most frequent answer is right; all forms of the right answer are one, ties go to the first seen."""
    answers = [answer(problem, steps) for steps in solutions]
    return Counter(answers).most_common(1)[0][0] == RIGHT


def policy_table(problems: Sequence[Instance], greedy: Solutions, sampled: Solutions) -> dict[str, float]:
    """Per cent: greedy in all and by level, pass@1, majority@4/16/64 (over disjoint groups) and pass@N."""
    hits = np.array([solved(p, s[0]) for p, s in zip(problems, greedy)])
    row = {"greedy": hits.mean()}
    for level in LEVELS:
        row[f"greedy L{level}"] = hits[[p.level == level for p in problems]].mean()
    right = np.array([[solved(p, steps) for steps in s] for p, s in zip(problems, sampled)])
    n = right.shape[1]
    row["pass@1"] = right.mean()
    for k in (4, 16, 64):
        if k <= n:
            groups = [[voted(p, s[i : i + k]) for i in range(0, n - k + 1, k)] for p, s in zip(problems, sampled)]
            row[f"majority@{k}"] = np.mean(groups)
    row[f"pass@{n}"] = right.any(1).mean()
    return {name: 100 * float(value) for name, value in row.items()}


def prm_table(problems: Sequence[Instance], sampled: Solutions, scores: list[list[list[float]]]) -> dict[str, float]:
    """How well step scores tell right from wrong.

    step AUC        pooled over steps up to and with the first wrong one
    first error     per cent of solutions whose first score under .5 is their first wrong step (or both none)
    calibration     expected calibration error of these step scores in ten equal bins
    within last/min/prod   mean AUC of reduced scores, right against wrong solutions of one problem, over the problems
                    that have both; vanilla: per cent right when each problem's best-scored solution is taken
    """
    every = [values for scored in scores for values in scored]
    labels = [check(problem, steps) for problem, solutions in zip(problems, sampled) for steps in solutions]
    values, truth = until_error(every, labels)
    reductions = {"last": lambda s: s[-1], "min": min, "prod": lambda s: float(np.prod(s))}
    within: dict[str, list[float]] = {name: [] for name in reductions}
    best: dict[str, list[bool]] = {name: [] for name in reductions}
    for problem, solutions, scored in zip(problems, sampled, scores):
        good = [solved(problem, steps) for steps in solutions]
        for name, reduce in reductions.items():
            reduced = np.array([reduce(v) if v else 0.0 for v in scored])
            best[name].append(good[int(reduced.argmax())])
            if 0 < sum(good) < len(good):
                mask = np.array(good)
                within[name].append(auc(reduced[mask], reduced[~mask]))
    row = {
        "step AUC": auc(values[truth], values[~truth]),
        "first error": 100 * float(finds_error(every, labels).mean()),
    }
    row["calibration"] = calibration_error(values, truth)
    row |= {f"within {name}": float(np.mean(v)) if v else float("nan") for name, v in within.items()}
    return row | {f"vanilla {name}": 100 * float(np.mean(v)) for name, v in best.items()}


def show(title: str, rows: dict[str, dict[str, float]]) -> str:
    """A Markdown table."""
    columns = list(next(iter(rows.values())))
    lines = [f"| {title} | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for name, row in rows.items():
        cells = [f"{row[c]:.3f}" if abs(row[c]) <= 1 else f"{row[c]:.1f}" for c in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


CARD = """---
library_name: transformers
license: apache-2.0
tags: [math, synthetic, {tag}]
---
# {name}

{role} A Llama trained from scratch on procedurally generated problems (`tts/tiny`), which are all that it can do.
It has never seen a word or number from elsewhere.

{table}

{legend}

| training | |
|---|---|
{facts}

Retrain with `python -m tts.tiny.train {command}`; the table is what `python -m tts.tiny.evaluate` prints.
The weights are stored in bfloat16 and the table is of these.
"""
POLICY_LEGEND = (
    "Per cent (standard error of {problems} problems: about {error:.0f} points); temperature 0 for greedy (L1-L5: by "
    "level), 0.8 for the rest."
)
PRM_LEGEND = (
    "On {problems} problems with {scored} samples of each policy, so it differs from tables with more. First error and "
    "vanilla in per cent. within: mean over problems of the AUC of right against wrong solutions of one problem; "
    "vanilla: accuracy of the best-scored of the solutions."
)
PLAYS = {
    "policy-xs": "The policy that plays the 1B model.",
    "policy-s": "The policy that plays the 3B model.",
    "policy-m": "The policy that plays the 8B model.",
    "policy-l": "The policy that plays the 70B model.",
    "prm": "The mirror: it plays the writeup's 8B process reward model.",
    "prm-strong": "A stronger verifier than the mirror, `prm`: the same training run later.",
    "prm-weak": "A weaker verifier than the mirror, `prm`: the same training run earlier.",
}
PRM_ROLE = (
    "A process reward model in the RLHFlow format: a user turn a step, then P(+) against P(-). `tts/tiny/README.md` "
    "says how it was chosen and what its votes gain."
)


def prm_command(name: str, facts: dict[str, object]) -> str:
    """The arguments of tts.tiny.train that a reward model was trained with."""
    counts = " ".join(str(facts["problems"].get(size, 0)) for size in POLICIES)
    return (
        f"prm --name {name} --base {facts['base']} --layers {facts['layers']} --tokens {facts['tokens']} "
        f"--problems {counts} --made {facts['made']}"
    )


def write_card(folder: Path, table: str, *, problems: int, scored: int) -> None:
    """The model card: what the model is, its table, how it was trained.

    scored: solutions a problem that a reward model's table is of.
    """
    facts = json.loads((folder / "training.json").read_text())
    policy = folder.name.startswith("policy-")
    legend = POLICY_LEGEND if policy else PRM_LEGEND
    text = CARD.format(
        tag="text-generation" if policy else "process-reward-model",
        name=folder.name,
        role=" ".join(filter(None, (PLAYS.get(folder.name), not policy and PRM_ROLE))),
        table=table,
        legend=legend.format(problems=problems, scored=scored, error=50 / problems**0.5),
        facts="\n".join(f"| {key} | {value} |" for key, value in facts.items()),
        command=folder.name.replace("-", " ") if policy else prm_command(folder.name, facts),
    )
    (folder / "README.md").write_text(text)


def main() -> None:
    """Read the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--split", choices=("dev", "test"), default="dev")
    parser.add_argument("--policies", nargs="*", default=POLICIES)
    parser.add_argument("--prms", nargs="*", default=("prm", "prm-strong", "prm-weak"))
    parser.add_argument("--samples", type=int, default=16, help="solutions a problem for the policies' table")
    parser.add_argument("--scored", type=int, default=8, help="of these, scored by the reward models")
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--models", type=Path, default=MODELS)
    parser.add_argument("--cards", choices=("policies", "prms", "all"), help="whose cards get the tables")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    problems = [problem for problem, _ in benchmark(args.split)][: args.problems]
    policies, reward = {}, {name: {} for name in args.prms}
    for size in args.policies:
        model, codec = load(args.models / f"policy-{size}")
        greedy = draw_solutions(model, codec, problems, each=1, temperature=0.0, seed=0)
        sampled = draw_solutions(model, codec, problems, each=args.samples, temperature=0.8, seed=1)
        policies[size] = policy_table(problems, greedy, sampled)
        print(show("policy", {size: policies[size]}), flush=True)
        few = [s[: args.scored] for s in sampled]
        for name in args.prms:
            prm, prm_codec = load(args.models / name)
            flat = iter(score(prm, prm_codec, [(p.text, s) for p, many in zip(problems, few) for s in many]))
            scores = [[next(flat) for _ in many] for many in few]
            reward[name][f"{size}"] = prm_table(problems, few, scores)
            for level in LEVELS:
                chosen = [i for i, p in enumerate(problems) if p.level == level]
                rows = ([x[i] for i in chosen] for x in (problems, few, scores))
                reward[name][f"{size}, level {level}"] = prm_table(*rows)
    counts = {"problems": len(problems), "scored": args.scored}
    for size, row in policies.items() if args.cards in ("policies", "all") else ():
        write_card(args.models / f"policy-{size}", show(f"{args.split} split", {f"policy-{size}": row}), **counts)
    for name, rows in reward.items() if args.cards in ("prms", "all") else ():
        write_card(args.models / name, show(f"{args.split} split", rows), **counts)
    print("\n" + show("policy", policies))
    for name, rows in reward.items():
        print("\n" + show(f"{name}: policy", rows))


if __name__ == "__main__":
    main()
