"""How close the embedded world's inputs are to the real experiment's: `python -m tts.tiny.mirror`.

Inputs are what can be measured without a search: sizes, greedy accuracies, independent samples and their votes. They
are matched on the development split; what searches do with them is the outcome and is not looked at here.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..analysis.curves import pass_at_k, vote_curve
from ..analysis.difficulty import step_success
from ..analysis.grading import answer_codes
from ..analysis.verifiers import sibling_auc, within_auc
from . import MODELS
from .checker import check, content, solved
from .evaluate import POLICIES, RIGHT, Solutions, answer, draw_solutions
from .hub import load
from .prm_training import score
from .problems import Instance, benchmark

NS = (4, 16, 64, 256)
# The real experiment: Llama-3.2-1B, 3B, Llama-3.1-8B and 70B on MATH-500 with the RLHFlow 8B PRM. Sizes from the model
# cards, greedy from arXiv 2502.06703, the rest recomputed by third parties from the writeup's published completions.
REAL = {
    "parameters, xs : s : m : l": "1 : 2.6 : 6.5 : 57",
    "greedy, xs, s, m, l": "26.0, 41.4, 49.8, 65.2",
    "pass@1": "23.9",
    "pass@4, 16, 64, 256": "46.0, 66.0, 81.0, 89.6",
    "majority@4, 16, 64, 256": "29.6, 40.0, 43.7, 44.8",
    "steps a solution": "7.5",
    "worst step's share of -log pass@1": "not known",
    "PRM : xs": "6.5",
    "gap closed at 4, 16, 64, 256": "57, 27, 15, 7-13",
    "vanilla - majority at the largest N": "-1.2",
    "AUC within problems": "about .7",
    "AUC among the children of one right parent, by depth": "not known",
}


def shown(values: Sequence[float], digits: int = 1) -> str:
    """Numbers with so many digits after the point."""
    return ", ".join(f"{value:.{digits}f}" for value in values)


def coded(problems: Sequence[Instance], solutions: Solutions) -> tuple[np.ndarray, np.ndarray]:
    """Answers as numbers, (P, S), and that of the right one, (P,): see tts.analysis.grading.answer_codes."""
    keys = [[answer(p, steps) for steps in many] for p, many in zip(problems, solutions, strict=True)]
    return answer_codes(keys, [RIGHT] * len(problems))


def worst_share(problems: Sequence[Instance], solutions: Solutions) -> float:
    """Mean share of -log pass@1 in a problem's worst step, over the problems that are right now and then."""
    labels = [(p.text, check(p, steps)) for p, many in zip(problems, solutions, strict=True) for steps in many if steps]
    table = step_success(*zip(*labels, strict=True))
    shares = []
    for _, steps in table.groupby("problem"):
        likely = steps[steps.reached >= 4]  # fewer say nothing about a step
        if likely.success.min() > 0 and likely.success.prod() < 1:
            bits = -np.log(likely.success)
            shares.append(bits.max() / bits.sum())
    return float(np.mean(shares))


def policy_rows(problems: Sequence[Instance], solutions: Solutions) -> dict[str, str]:
    """The rows of independent samples without a verifier."""
    codes, gold = coded(problems, solutions)
    ns = [n for n in NS if n <= codes.shape[1]]
    passed = 100 * pass_at_k(codes == gold[:, None], [1, *ns]).mean(axis=0)
    majority = 100 * vote_curve(codes, gold, ns).mean(axis=0)
    return {
        "pass@1": shown(passed[:1]),
        "pass@4, 16, 64, 256": shown(passed[1:]),
        "majority@4, 16, 64, 256": shown(majority),
        "steps a solution": shown([np.mean([len(steps) for many in solutions for steps in many])]),
        "worst step's share of -log pass@1": f"{100 * worst_share(problems, solutions):.0f} %",
    }


def prm_rows(problems: Sequence[Instance], solutions: Solutions, scores: list[list[list[float]]]) -> dict[str, str]:
    """The rows of independent samples with a verifier, whose last score counts."""
    codes, gold = coded(problems, solutions)
    ns = [n for n in NS if n <= codes.shape[1]]
    last = np.array([[steps[-1] if steps else 0.0 for steps in many] for many in scores])
    passed = pass_at_k(codes == gold[:, None], ns).mean(axis=0)
    majority = vote_curve(codes, gold, ns).mean(axis=0)
    weighted = vote_curve(codes, gold, ns, rule="weighted", scores=last).mean(axis=0)
    vanilla = vote_curve(codes, gold, ns, rule="vanilla", scores=last).mean(axis=0)
    flat = [
        (problem.text, [content(step) for step in steps], values, check(problem, steps))
        for problem, many, scored in zip(problems, solutions, scores, strict=True)
        for steps, values in zip(many, scored, strict=True)
        if steps
    ]
    siblings = sibling_auc(*zip(*flat, strict=True))
    return {
        "weighted@4, 16, 64, 256": shown(100 * weighted),
        "vanilla@4, 16, 64, 256": shown(100 * vanilla),
        "gap closed at 4, 16, 64, 256": shown(100 * (weighted - majority) / (passed - majority), 0),
        "vanilla - majority at the largest N": shown([100 * (vanilla - majority)[-1]]),
        "AUC within problems": shown([np.nanmean(within_auc(last, codes == gold[:, None]))], 2),
        "AUC among the children of one right parent, by depth": shown([v.mean() for v in siblings.values()], 2),
    }


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--problems", type=int, default=250, help="of the development split")
    parser.add_argument("--samples", type=int, default=256, help="of the smallest policy, a problem")
    parser.add_argument("--prms", nargs="*", default=("prm", "prm-strong", "prm-weak"))
    parser.add_argument("--models", type=Path, default=MODELS)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    everything = [problem for problem, _ in benchmark("dev")]
    sizes, greedy = [], []
    for name in POLICIES:
        model, codec = load(args.models / f"policy-{name}")
        sizes.append(model.parameter_count())
        drawn = draw_solutions(model, codec, everything, each=1, temperature=0.0, seed=0)
        greedy.append(100 * np.mean([solved(p, s[0]) for p, s in zip(everything, drawn, strict=True)]))
    problems = everything[: args.problems]
    model, codec = load(args.models / "policy-xs")
    samples = draw_solutions(model, codec, problems, each=args.samples, temperature=0.8, seed=5)
    here = {
        "parameters, xs : s : m : l": " : ".join(f"{size / sizes[0]:.3g}" for size in sizes),
        "greedy, xs, s, m, l": shown(greedy),
        **policy_rows(problems, samples),
    }
    columns = {"real": REAL, "here": here}
    for name in args.prms:
        prm, codec = load(args.models / name)
        flat = [(problem.text, steps) for problem, many in zip(problems, samples, strict=True) for steps in many]
        texts = list(dict.fromkeys((text, tuple(steps)) for text, steps in flat))  # each distinct one once
        known = dict(zip(texts, score(prm, codec, texts), strict=True))
        scored = [[known[problem.text, tuple(steps)] for steps in many] for problem, many in zip(problems, samples)]
        columns[name] = {"PRM : xs": f"{prm.parameter_count() / sizes[0]:.3g}", **prm_rows(problems, samples, scored)}
    lines = ["|  | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for row in dict.fromkeys(key for column in columns.values() for key in column):
        lines.append(f"| {row} | " + " | ".join(column.get(row, "") for column in columns.values()) + " |")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
