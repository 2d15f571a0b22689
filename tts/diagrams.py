"""The writeup's diagrams, drawn: how the three searches grow (figure 3) and how the parts work together (figure 4)."""

from __future__ import annotations

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
    ax.text(9.7, -0.28, "finished", ha="center", fontsize=9, color=INK)
    ax.set(xlim=(-0.2, 12.1), ylim=(-0.6, 2.4))
    ax.axis("off")
    return fig
