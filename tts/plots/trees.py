"""The tree of one search as a table and as a picture, made from its Search (tts.tree) alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.lines import Line2D
from matplotlib.ticker import MultipleLocator
from scipy.optimize import isotonic_regression

from tts.plots.style import CHOSEN, INK, KEPT, PALE
from tts.tree import Node, Search, Solution

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAP = 1.0  # between two trees of DVTS; neighbours in a row are at least 1 apart
ROOM_FOR_NUMBERS = 20  # a wider picture has no numbers

# State of a node -> marker, relative size, words in the legend.
STATES = {
    "root": ("s", 1.0, "problem"),
    "kept": ("o", 1.0, "kept and expanded"),
    "dropped": ("X", 0.9, "dropped"),
    "solution": ("*", 1.8, "finished: a solution"),
    "finished": ("D", 0.6, "finished, not returned"),
    "duplicate": ("<", 0.8, "dropped as a sibling's copy"),
    "cut": ("v", 0.8, "cut: out of tokens or context"),
}
RANK = ("root", "solution", "kept", "finished", "dropped", "duplicate", "cut")  # of equal siblings the first is shown
SCORES = "viridis_r"  # the colours of scores
RIGHT = "#000000"  # of the ring around a right step
MOST_AREA = 600  # of the marker of the step that was drawn most often
COLOURS = {"root": INK, "dropped": PALE, "duplicate": PALE, "cut": PALE}  # of states, and KEPT for all others


def rings(tables: Mapping[str, pd.DataFrame]) -> str:
    """What a caption says of the rings in a picture of these node tables."""
    known = any(table.right.notna().any() for table in tables.values())
    return "Rings mark right steps" if known else "No ring marks a right step, as these steps can't be checked"


def node_table(
    search: Search,
    *,
    chosen: Collection[tuple[int, ...]] = (),
    right: Callable[[Sequence[str]], Sequence[bool] | None] = lambda steps: None,
) -> pd.DataFrame:
    """One row for each root and each different step, in the order of depth and path, with its place in the picture.

    Siblings that say the same are one row. Independent samples are chains below one root, never merged; a blank sample
    has no steps and no row. chosen: paths of solutions (Solution.path), such as those that gave the answer voted for.
    right: the steps from the first one on -> whether each is right (tts.models.exact.step_labels), None if unknown.
    The columns:
    path    "0.3.1": tree, child, child, counted among different ones     x      place in its row, from 0
    depth   number of steps up to and with this one, 0 a root     state  a key of STATES: of equal ones the best
    count   how many equal ones were drawn                        score  in [0, 1], NaN where there is none
    chosen  whether it lies on the path of a chosen solution      right  True, False or None
    text    of the step
    """
    steps = {node.path: (_state(node), node.score, node.text) for node in search.nodes}
    if not search.nodes:
        steps = {path: step for solution in search.solutions for path, step in _chain(solution)}
        chosen = [path for path in steps if path[1:2] in chosen]
        place = {path: path for path in steps}
    else:
        place = _merged(steps)
    on_path = {path[:length] for path in chosen for length in range(1, len(path) + 1)}
    members = defaultdict(list)
    for path in steps:
        members[place[path]].append(path)
    rows, left = [], 0.0
    for tree in range(1 + max((path[0] for path in steps), default=0)):
        places = _places([(tree,), *(path for path in members if path[0] == tree)])
        for path, x in places.items():
            equal = [steps[one] for one in members[path]] or [("root", None, "")]
            state, score, text = min(equal, key=lambda step: RANK.index(step[0]))
            texts = [steps[members[path[:length]][0]][2] for length in range(2, len(path) + 1)]
            label = (right(texts) or [None])[-1] if texts else None
            in_chosen = any(one in on_path for one in members[path] or [path])
            score = np.nan if score is None else score
            row = (left + x, len(path) - 1, state, len(equal), score, in_chosen, label, text)
            rows.append((".".join(map(str, path)), *row))
        left += max(places.values()) + 1 + GAP
    columns = ["path", "x", "depth", "state", "count", "score", "chosen", "right", "text"]
    return pd.DataFrame(rows, columns=columns).astype({"right": object})


def _merged(steps: Mapping[tuple[int, ...], tuple[str, float | None, str]]) -> dict[tuple[int, ...], tuple[int, ...]]:
    """Path -> the path of its step where equal siblings, and all that follows them, are one."""
    place, different = {}, defaultdict(dict)
    for path in sorted(steps):
        state, _, text = steps[path]
        parent = place.get(path[:-1], path[:-1])
        ending = "end" if state in ("solution", "finished") else "cut" if state == "cut" else ""
        siblings = different[parent]
        place[path] = siblings.setdefault((text.strip(), ending), (*parent, len(siblings)))
    return place


def _chain(solution: Solution) -> Iterator[tuple[tuple[int, ...], tuple[str, float | None, str]]]:
    """(path, (state, score, text)) of each step of independent sample i, whose own path is (i,), below root (0,)."""
    for k, (text, score) in enumerate(zip_longest(solution.steps, solution.scores)):
        last = "solution" if solution.finish == "end" else "cut"
        yield (0, *solution.path, *[0] * k), (last if k == len(solution.steps) - 1 else "kept", score, text)


def _places(paths: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], float]:
    """Path -> x. Each row is in the order of its paths, with neighbours at least 1 apart and close to their parents.

    With every row in this order no two edges cross. The places with the least squared distance from the parents are an
    isotonic regression.
    """
    rows = defaultdict(list)
    for path in sorted(paths):
        rows[len(path)].append(path)
    width = max(map(len, rows.values()))
    places = {}
    for row in rows.values():
        siblings = defaultdict(list)
        for path in row:
            siblings[path[:-1]].append(path)
        middle = [places.get(path[:-1], (width - 1) / 2) for path in row]
        offset = [i - (len(group) - 1) / 2 for group in siblings.values() for i in range(len(group))]
        index = np.arange(len(row))
        fitted = isotonic_regression(np.add(middle, offset) - index).x
        places |= zip(row, (np.clip(fitted, 0, width - len(row)) + index).tolist(), strict=True)
    return places


def _state(node: Node) -> str:
    if node.fate in ("tokens", "context"):
        return "cut"
    return "finished" if node.fate == "dropped" and node.finish == "end" else node.fate


def draw(tables: Mapping[str, pd.DataFrame], *, texts: bool = False) -> Figure:
    """Trees below one another, each under its title: title -> table of node_table(). texts: write the steps out."""
    deep = [table.depth.max() + 1 for table in tables.values()]
    fig, axes = plt.subplots(
        len(tables),
        figsize=(9.6, 1.1 + (0.8 if texts else 0.6) * sum(deep) + 0.3 * len(deep)),
        height_ratios=deep,
        squeeze=False,
    )
    for ax, (title, table) in zip(axes[:, 0], tables.items(), strict=True):
        ax.set_title(title, loc="left", fontsize=10)
        draw_tree(ax, table, texts=texts)
    add_key(fig, tables.values())
    fig.colorbar(ScalarMappable(cmap=SCORES), ax=axes, label="score of the step", aspect=30, fraction=0.03, pad=0.01)
    return fig


def add_key(fig: Figure, tables: Collection[pd.DataFrame], *, by_score: bool = True) -> None:
    """Put a legend below the figure that explains what draw_tree() drew from these tables."""
    nodes = pd.concat(tables)
    key = {}
    for state, (marker, size, words) in STATES.items():
        if state in set(nodes.state):
            inside = INK if state == "root" else "none" if by_score else COLOURS.get(state, KEPT)
            key[words] = Line2D([], [], marker=marker, ls="", ms=7 * size**0.5, mec=INK, mew=0.6, mfc=inside)
    if nodes.right.eq(True).any():
        ring = {"marker": "o", "ms": 11, "mfc": "none", "mec": RIGHT, "mew": 1.6}
        key["a right step, and all before it"] = Line2D([], [], ls="", **ring)
    if (nodes["count"] > 1).any():
        key["drawn k times (area)"] = Line2D([], [], marker=r"$\times k$", ls="", ms=14, mew=0, color="black")
    if nodes.chosen.any():
        end = {} if by_score else {"marker": "*", "ms": 9, "mec": INK, "mew": 0.6}
        key["leads to the chosen answer"] = Line2D([], [], color=CHOSEN, lw=2.6, **end)
    if not by_score:
        key["score of the step"] = Line2D([], [], marker="$0.5$", ls="", ms=16, mew=0, color="black")
    fig.legend(
        key.values(), key.keys(), loc="outside lower center", ncols=min(4 if by_score else 3, len(key)), fontsize=8.5
    )


def area_of_one(table: pd.DataFrame) -> float:
    """The area of the marker of a step that was drawn once, in square points: smaller in a wide picture."""
    wide = table.x.max() + 1
    area = 90 if wide <= ROOM_FOR_NUMBERS else 90 * ROOM_FOR_NUMBERS / wide
    return min(area, MOST_AREA / table["count"].max())


def edges(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each step that is no root: x and depth, from_x of its parent, whether alive (it went on), chosen."""
    x = table.set_index("path").x
    steps = table[table.depth > 0]
    from_x = steps.path.str.rpartition(".")[0].map(x)
    return steps[["x", "depth", "chosen"]].assign(from_x=from_x, alive=steps.state.isin(["kept", "solution"]))


def draw_tree(ax: Axes, table: pd.DataFrame, *, by_score: bool = True, texts: bool = False) -> None:
    """Draw the trees of one search into ax; table: see node_table().

    A node's marker shows what became of it, its area how often it was drawn, and its colour its score or, with
    by_score=False, the same as the marker; a node without a score is hollow. Score and count stand below the node
    where there is room, with texts=True below the step itself. A ring marks a right step. Bold edges lead to the
    chosen solutions.
    """
    wide, area = table.x.max() + 1, area_of_one(table)
    for edge in edges(table).itertuples():
        look = {"color": CHOSEN, "lw": 2.6} if edge.chosen else {"color": INK if edge.alive else PALE, "lw": 0.9}
        ends = [edge.from_x, edge.x], [edge.depth - 1, edge.depth]
        ax.plot(*ends, ls="-" if edge.alive else ":", zorder=1 + edge.chosen, **look)
    for (state, unscored), nodes in table.groupby(["state", table.score.isna()]):
        marker, size, _ = STATES[state]
        if state == "root":
            fill = {"color": INK}
        elif unscored:
            fill = {"facecolor": "white"}
        elif by_score:
            fill = {"c": nodes.score, "cmap": SCORES, "vmin": 0, "vmax": 1}
        else:
            ends = nodes.chosen & (state == "solution")
            fill = {"facecolor": np.where(ends, CHOSEN, COLOURS.get(state, KEPT))}
        sizes = size * area * nodes["count"]
        ax.scatter(nodes.x, nodes.depth, s=sizes, marker=marker, edgecolor=INK, linewidth=0.6, zorder=3, **fill)
    if len(ringed := table[table.right.eq(True)]):
        around = area * ringed["count"] * [STATES[state][1] for state in ringed.state]
        look = {"facecolor": "none", "edgecolor": RIGHT, "linewidth": 1.6, "zorder": 2.9}
        ax.scatter(ringed.x, ringed.depth, s=(around**0.5 + 4.5) ** 2, **look)
    if wide <= ROOM_FOR_NUMBERS:
        for node in table[table.score.notna()].rename(columns={"count": "count_"}).itertuples():
            away = 1.5 + (area * node.count_ * STATES[node.state][1]) ** 0.5 / 2 + 3 * (node.right is True)  # its ring
            words = f"{node.score:.2f}" + f" ×{node.count_}" * (node.count_ > 1)
            look = {"fontsize": 8 if texts or not by_score else 6.5, "ha": "center", "va": "top"}
            if texts:
                words, look["parse_math"] = f"{node.text.strip()}\n{words}", False
            label = ax.annotate(words, (node.x, node.depth), (0, -away), textcoords="offset points", **look)
            label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.8})  # edges run behind it
            label.set_zorder(2.5)  # and below the marks
    ax.set(xlim=(-0.7, wide - 0.1), ylim=(table.depth.max() + 0.5, -0.4), ylabel="step", xticks=[])
    ax.yaxis.set_major_locator(MultipleLocator(1))
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.grid(visible=False)
