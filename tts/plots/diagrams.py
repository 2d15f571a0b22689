"""Diagrams: the searches (figure 3), the parts (figure 4), the scores of steps and of one solution (figure 6)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser
from matplotlib.patches import FancyBboxPatch

from tts.plots.scripted import scripted_search
from tts.plots.style import CHOSEN, INK, KEPT
from tts.plots.trees import add_key, draw_tree, node_table
from tts.strategies import beam_search, best_of_n, dvts


def search_strategies() -> Figure:
    """Best-of-N, beam search and DVTS side by side: real searches of a scripted policy and PRM, N = 4 and M = 2."""
    panels = (
        ("Best-of-N", best_of_n, "N whole solutions,\nthe best is chosen at the end"),
        ("Beam search", partial(beam_search, beam_width=2), "the best N / M steps of all\nget M children each"),
        ("DVTS", partial(dvts, beam_width=2), "N / M separate trees,\neach keeps its own best child"),
    )
    fig, axes = plt.subplots(1, 3, figsize=(9.6, 4.4), layout="constrained")
    tables = []
    for ax, (name, strategy, words) in zip(axes, panels, strict=True):
        search = scripted_search(strategy, n=4)
        best = max(search.solutions, key=lambda solution: solution.scores[-1])
        tables.append(node_table(search, chosen=[best.path]))
        draw_tree(ax, tables[-1], by_score=False)
        ax.set_title(name, fontsize=12, fontweight="bold", color=INK)
        ax.set_xlabel(words, fontsize=9, color=INK)
    for ax in axes[1:]:
        ax.set(yticks=[], ylabel="")
    add_key(fig, tables, by_score=False)
    return fig


def system() -> Figure:
    """How the parts work together: problem, policy, PRM, search strategy, answer; unfinished solutions go back."""
    fig, ax = plt.subplots(figsize=(9.6, 2.9), layout="constrained")
    boxes = (
        (0.0, "Problem", "text with one answer"),
        (2.5, "Policy", "samples the next step\nof N solutions"),
        (5.0, "PRM", "scores each step\nfrom 0 to 1"),
        (7.5, "Search strategy", "keeps, drops, expands"),
        (10.0, "Answer", "solutions grouped by\nanswer and ranked"),
    )
    for x, title, text in boxes:
        ax.add_patch(FancyBboxPatch((x, 0), 1.9, 1.2, boxstyle="round,pad=0.05", fc="#eef4f9", ec=KEPT, lw=1.4))
        ax.text(x + 0.95, 0.88, title, ha="center", va="center", fontsize=11, fontweight="bold", color=INK)
        ax.text(x + 0.95, 0.38, text, ha="center", va="center", fontsize=8.5, color=INK)
    arrow = {"arrowstyle": "-|>", "color": INK, "lw": 1.4}
    for x, *_ in boxes[:-1]:
        ax.annotate("", (x + 2.45, 0.6), (x + 1.95, 0.6), arrowprops=arrow)
    ax.annotate("", (3.45, 1.27), (8.45, 1.27), arrowprops=arrow | {"connectionstyle": "arc3,rad=0.25"})
    ax.text(5.95, 2.12, "unfinished: the kept steps are continued", ha="center", fontsize=9, color=INK)
    ax.text(9.65, 1.32, "finished", ha="center", fontsize=9, color=INK)
    ax.set(xlim=(-0.2, 12.1), ylim=(-0.2, 2.4))
    ax.axis("off")
    return fig


def step_bars(ax: Axes, steps: Sequence[str], scores: Sequence[float], *, wrong: int | None = None) -> None:
    """Draw the text of each step with its score in [0, 1] as a bar; wrong: the index of a step to mark as wrong.

    Step k is at y = -k, with its text to the left of x = 0 and a bar from 0 to its score; bars below 0.5 are hatched.
    """
    for k, (step, score) in enumerate(zip(steps, scores, strict=True)):
        good = score >= 0.5
        ax.barh(-k, 1, height=0.5, color="#f2f2f2", zorder=1)
        ax.barh(-k, score, height=0.5, color=KEPT if good else "white", ec=KEPT if good else CHOSEN, lw=1.4, zorder=2)
        if not good:
            ax.barh(-k, score, height=0.5, color="none", ec=CHOSEN, hatch="////", lw=0, zorder=3)
        ax.text(1.04, -k, f"{score:.3f}", va="center", fontsize=9, color=INK)
        words, is_math = _typeset(step, 40)
        ax.text(-0.05, -k, words, ha="right", va="center", fontsize=9.5, color=INK, parse_math=is_math)
    if wrong is not None:
        ax.text(1.27, -wrong, "first wrong step", va="center", fontsize=9, color=CHOSEN, fontweight="bold")
    ax.set(xlim=(-1.9, 2.0), ylim=(-len(steps) + 0.4, 0.6))
    ax.axis("off")


Example = tuple[Sequence[str], Sequence[float], Mapping[str, float]]  # steps, their scores, reduction -> result


def reductions(examples: Mapping[str, Example]) -> Figure:
    """Solutions below one another, each with its step scores and the results of reductions of them: title -> example.

    Lines lead from a reduction to the steps that determine its result.
    """
    heights = [0.7 + 0.42 * max(len(steps), 1.4 * len(reduced)) for steps, _, reduced in examples.values()]
    fig, axes = plt.subplots(
        len(examples), figsize=(9.6, sum(heights)), height_ratios=heights, squeeze=False, layout="constrained"
    )
    for ax, (title, example) in zip(axes[:, 0], examples.items(), strict=True):
        _reduced(ax, *example)
        ax.set_title(title, fontsize=10, loc="left")
    return fig


def _reduced(ax: Axes, steps: Sequence[str], scores: Sequence[float], reduced: Mapping[str, float]) -> None:
    rows = max(len(steps), 1.4 * len(reduced))
    step_bars(ax, steps, scores)
    middle, gap = -(len(steps) - 1) / 2, rows / len(reduced)
    looks = ((CHOSEN, "-"), ("#009E73", ":"), (KEPT, "--"), ("#CC79A7", "-."))
    said = {
        "min": "the weakest step",
        "prod": "all steps multiplied",
        "last": "the final step",
        "mean": "their average",
    }
    seen = {"min": [min(range(len(scores)), key=scores.__getitem__)], "last": [len(scores) - 1]}
    for place, ((name, value), (colour, dash)) in enumerate(zip(reduced.items(), looks, strict=False)):
        y = middle + ((len(reduced) - 1) / 2 - place) * gap
        box = FancyBboxPatch((2.15, y - 0.42), 0.95, 0.84, boxstyle="round,pad=0.03", fc="white", ec=colour, lw=1.6)
        ax.add_patch(box)
        ax.text(2.2, y + 0.15, f"{name} = {value:.3f}", va="center", fontsize=11, fontweight="bold", color=INK)
        ax.text(2.2, y - 0.22, said.get(name, ""), va="center", fontsize=8.5, color=INK)
        for k in seen.get(name, range(len(scores))):
            ax.plot([1.24, 2.1], [-k, y], color=colour, ls=dash, lw=1.4, zorder=0)
    top, bottom = (pick(0, middle + sign * (rows - gap) / 2) for pick, sign in ((max, 1), (min, -1)))
    ax.set(xlim=(-1.9, 3.2), ylim=(min(bottom, 1 - len(steps)) - 0.6, top + 0.6))


def _typeset(text: str, most: int) -> tuple[str, bool]:
    """A step as it is drawn, and whether it is mathematics that can be set; anything else is shortened plain text."""
    words = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    formula = re.sub(r"\\boxed\{([^{}]*)\}", r"\\mathbf{\1}", words)
    if len(formula) <= 2 * most and "$" in formula:
        try:
            MathTextParser("path").parse(formula)
            return formula, True
        except ValueError:
            pass
    return (words if len(words) <= most else words[: most - 1] + "…"), False
