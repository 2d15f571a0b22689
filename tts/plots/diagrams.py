"""Diagrams, which are drawing code throughout: the searches (figure 3), the parts (4), scores of steps and of one
solution (6).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch

INK, PALE, KEPT, CHOSEN = "#333333", "#b5b5b5", "#0072B2", "#D55E00"

# Each node: (x, depth, parent's index or None, state); the state is "kept", "dropped" or "chosen".
_BEST_OF_N = [(1.5, 0, None, "kept")] + [
    (x, depth, 0 if depth == 1 else 4 * (depth - 2) + x + 1, "chosen" if (x, depth) == (2, 4) else "kept")
    for depth in (1, 2, 3, 4)
    for x in range(4)
]
_BEAM = [
    (1.5, 0, None, "kept"),
    *[(x, 1, 0, "kept" if x in (1, 2) else "dropped") for x in range(4)],
    *[(x, 2, 2 if x < 2 else 3, "kept" if x in (2, 3) else "dropped") for x in range(4)],
    *[(x, 3, 7 if x < 2 else 8, "kept" if x in (0, 1) else "dropped") for x in range(4)],
    *[(x, 4, 9 if x < 2 else 10, "chosen" if x == 1 else "kept") for x in range(4)],
]
_DVTS = [
    (0.5, 0, None, "kept"),
    (2.5, 0, None, "kept"),
    *[(x, 1, x // 2, "kept" if x in (1, 2) else "dropped") for x in range(4)],
    *[(x, 2, 3 if x < 2 else 4, "kept" if x in (0, 2) else "dropped") for x in range(4)],
    *[(x, 3, 6 if x < 2 else 8, "kept" if x in (1, 3) else "dropped") for x in range(4)],
    *[(x, 4, 11 if x < 2 else 13, "chosen" if x == 3 else "kept") for x in range(4)],
]


def search_strategies() -> Figure:
    """Best-of-N, beam search and DVTS side by side, each with N = 4 solutions (and M = 2 where there is a width)."""
    fig, axes = plt.subplots(1, 3, figsize=(9.6, 4.2), layout="constrained")
    panels = (
        ("Best-of-N", _BEST_OF_N, "N whole solutions,\nscored at the end"),
        ("Beam search", _BEAM, "the best N / M partial solutions of all\nare kept, each gets M children"),
        ("DVTS", _DVTS, "N / M separate trees,\neach keeps its own best child"),
    )
    for ax, (name, nodes, caption) in zip(axes, panels, strict=True):
        _tree(ax, nodes)
        ax.set_title(name, fontsize=12, fontweight="bold", color=INK)
        ax.text(1.5, -4.75, caption, ha="center", va="top", fontsize=9, color=INK)
    marks = [
        Line2D([], [], marker="o", ls="", ms=9, color=KEPT, label="step that is kept"),
        Line2D([], [], marker="X", ls="", ms=9, color=PALE, label="step that the PRM's score drops"),
        Line2D([], [], marker="*", ls="", ms=14, color=CHOSEN, label="solution with the best score"),
    ]
    fig.legend(handles=marks, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return fig


def _tree(ax: Axes, nodes: list[tuple[float, int, int | None, str]]) -> None:
    style = {"kept": ("o", 90, KEPT), "dropped": ("X", 90, PALE), "chosen": ("*", 260, CHOSEN)}
    for x, depth, parent, state in nodes:
        if parent is not None:
            above = nodes[parent]
            colour = PALE if state == "dropped" else INK
            ax.plot(
                [above[0], x],
                [-above[1], -depth],
                color=colour,
                lw=1.3,
                ls=":" if state == "dropped" else "-",
                zorder=1,
            )
        marker, size, colour = style[state]
        ax.scatter(
            [x],
            [-depth],
            marker="s" if parent is None else marker,
            s=size,
            color=INK if parent is None else colour,
            zorder=2,
        )
    roots = [node for node in nodes if node[2] is None]
    ax.text(1.5, 0.42, "problem" if len(roots) == 1 else "problem, once a tree", ha="center", fontsize=9, color=INK)
    ax.set(xlim=(-0.6, 3.6), ylim=(-5.6, 0.8))
    ax.axis("off")


def system() -> Figure:
    """Problem -> the policy's partial solutions -> the PRM's step scores -> the strategy, which goes round or votes."""
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
    """Steps as text, one below the other, each with its score in [0, 1] as a bar; wrong: index of a step to mark.

    Step k is at height -k and its score s at x = s; the text stands left of 0.
    """
    for k, (step, score) in enumerate(zip(steps, scores, strict=True)):
        good = score >= 0.5
        ax.barh(-k, 1, height=0.5, color="#f2f2f2", zorder=1)
        ax.barh(-k, score, height=0.5, color=KEPT if good else "white", ec=KEPT if good else CHOSEN, lw=1.4, zorder=2)
        if not good:
            ax.barh(-k, score, height=0.5, color="none", ec=CHOSEN, hatch="////", lw=0, zorder=3)
        ax.text(1.04, -k, f"{score:.3f}", va="center", fontsize=9, color=INK)
        words = _shortened(step, 40)
        ax.text(
            -0.05, -k, words, ha="right", va="center", fontsize=8.5, family="monospace", color=INK, parse_math=False
        )
    if wrong is not None:
        ax.text(1.27, -wrong, "first wrong step", va="center", fontsize=9, color=CHOSEN, fontweight="bold")
    ax.set(xlim=(-1.9, 2.0), ylim=(-len(steps) + 0.4, 0.6))
    ax.axis("off")


def reductions(steps: Sequence[str], scores: Sequence[float], reduced: Mapping[str, float]) -> Figure:
    """One solution's step scores and what each reduction makes of them; lines show which steps a reduction looks at."""
    rows = max(len(steps), 1.4 * len(reduced))
    fig, ax = plt.subplots(figsize=(9.6, 0.7 + 0.42 * rows), layout="constrained")
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
    return fig


def _shortened(text: str, most: int) -> str:
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return text if len(text) <= most else text[: most - 1] + "…"
