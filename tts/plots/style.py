"""How figures look: one style, one colour and one marker a strategy, and the axes that several figures share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import matplotlib.style
import numpy as np
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# On top of matplotlib's own defaults, so that a reader's matplotlibrc has no say.
_STYLE = ["default", str(Path(__file__).with_name("tts.mplstyle"))]

# Of diagrams and trees, where colour is not a strategy's.
INK, PALE, KEPT, CHOSEN = "#333333", "#b5b5b5", "#0072B2", "#D55E00"


@dataclass(frozen=True)
class Look:
    """How one strategy is drawn in every figure: told apart by marker and dash as well as by colour."""

    label: str
    color: str
    marker: str
    linestyle: str = "-"

    @property
    def line(self) -> dict[str, str]:
        """The keyword arguments of `ax.plot`."""
        return {"label": self.label, "color": self.color, "marker": self.marker, "linestyle": self.linestyle}


# Okabe and Ito's colours; yellow is left out, it can't be read on white.
STRATEGIES = {
    "greedy": Look("greedy", "#666666", "", "--"),
    "majority": Look("majority voting", "#0072B2", "o"),
    "best_of_n_vanilla": Look("Best-of-N, vanilla", "#56B4E9", "v", "-."),
    "best_of_n_weighted": Look("Best-of-N, weighted", "#E69F00", "^"),
    "beam_search": Look("beam search", "#009E73", "s"),
    "dvts": Look("DVTS", "#D55E00", "D"),
    "compute_optimal": Look("compute-optimal", "#CC79A7", "*"),
    "pass_at_n": Look("pass@n (ceiling)", "#000000", "", ":"),
}


@contextmanager
def styled() -> Iterator[None]:
    """Use the project's style inside a with block."""
    with matplotlib.style.context(_STYLE):
        yield


def style() -> None:
    """Use the project's style for every figure from here on."""
    matplotlib.style.use(_STYLE)
    plt.ioff()  # a notebook shows its figures in any case; interactive, it draws each once more before that


def log2_axis(ax: Axes, ns: Sequence[int]) -> Axes:
    """Make x a labelled log2 axis of N with one tick, written as a plain number, at each of ns; returns ax."""
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_locator(FixedLocator(sorted(set(ns))))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
    ax.set_xlabel("generations per problem, N")
    return ax


def label_right(ax: Axes, heights: Mapping[str, float], *, gap: float = 4.5) -> None:
    """Label horizontal lines in the margin to the right of ax: label -> height in data units.

    Labels that would be less than `gap` data units apart are moved up.
    """
    last = float("-inf")
    for label, height in sorted(heights.items(), key=lambda item: item[1]):
        last = max(height, last + gap)
        ax.annotate(label, (1.01, last), xycoords=("axes fraction", "data"), va="center", fontsize=8)


def draw_curves(
    ax: Axes,
    points: pd.DataFrame,
    *,
    x: str = "n",
    looks: Mapping[str, Mapping[str, object]] | None = None,
    bars: Sequence[str] = ("beam_search", "dvts"),
    bands: Sequence[str] | None = None,
    apart: float = 0.0,
) -> None:
    """Accuracy over N with 95 % intervals: lines with bands, and the methods in `bars` as points with error bars.

    points: columns method, x, accuracy, low, high in [0, 1], as tts.analysis.curves.intervals makes them. x: the column
    that is the x axis. looks: method -> keyword arguments of `ax.plot`; they override those of STRATEGIES. bands: the
    methods whose lines get a band; None for all. apart: the distance, in doublings of x, between the error bars that
    methods in `bars` have at one x; 0 draws them on top of one another.
    """
    shown = [method for method in bars if (points.method == method).any()]
    for method, rows in points.groupby("method", sort=False):
        look = {**STRATEGIES[method].line, **(looks or {}).get(method, {})} if method in STRATEGIES else looks[method]
        height, low, high = 100 * rows.accuracy, 100 * rows.low, 100 * rows.high
        if method in bars:
            at = rows[x] * 2 ** (apart * (shown.index(method) - (len(shown) - 1) / 2))
            ax.errorbar(at, height, [height - low, high - height], capsize=3, elinewidth=1.2, zorder=4, **look)
        else:
            ax.plot(rows[x], height, **look)
            if bands is None or method in bands:
                ax.fill_between(rows[x], low, high, color=look["color"], alpha=0.12, lw=0)


def greedy_lines(ax: Axes, lines: pd.DataFrame) -> None:
    """Draw greedy baselines as dashed lines across ax, with labels in the margin.

    lines: columns method (the label) and accuracy in [0, 1].
    """
    for height in 100 * lines.accuracy:
        ax.axhline(height, color=STRATEGIES["greedy"].color, ls="--", lw=1.2, zorder=1)
    low, high = ax.get_ylim()
    label_right(ax, dict(zip(lines.method, 100 * lines.accuracy, strict=True)), gap=0.045 * (high - low))


def accuracy_figure(
    points: pd.DataFrame,
    ns: Sequence[int],
    *,
    greedy: pd.DataFrame | None = None,
    looks: Mapping[str, Mapping[str, object]] | None = None,
    bars: Sequence[str] = ("beam_search", "dvts"),
    bands: Sequence[str] | None = None,
    apart: float = 0.0,
    ylim: tuple[float, float] | None = None,
    columns: int = 2,
) -> Figure:
    """A figure of accuracy over N: curves as in draw_curves(), greedy baselines as in greedy_lines(), a legend above.

    ns: the ticks of N. ylim: limits of the accuracy in %; None fits them to what is drawn. columns: of the legend.
    """
    fig, ax = plt.subplots(figsize=(6.2, 4.4))
    draw_curves(ax, points, looks=looks, bars=bars, bands=bands, apart=apart)
    log2_axis(ax, ns).set_ylabel("accuracy (%)")
    if ylim is not None:
        ax.set_ylim(ylim)  # before the lines: their labels keep a distance that depends on it
    if greedy is not None:
        greedy_lines(ax, greedy)
    fig.legend(loc="outside upper center", ncols=columns)
    return fig


def difficulty_bars(ax: Axes, points: pd.DataFrame) -> None:
    """Accuracy by quintile and budget: each quintile has one place for each budget, in which the methods are overlaid.

    points: columns quintile, n, method (a key of STRATEGIES), accuracy in [0, 1]. Each method's bar is narrower than
    the one behind it, so every top can be seen; hatches tell the methods apart without colour.
    """
    methods, budgets = list(dict.fromkeys(points.method)), sorted(set(points.n))
    for i, method in enumerate(methods):
        rows = points[points.method == method]
        at = [row.quintile * (len(budgets) + 1) + budgets.index(row.n) for row in rows.itertuples()]
        look = STRATEGIES[method]
        ax.bar(
            at,
            100 * rows.accuracy,
            width=0.92 * (1 - i / len(methods)),
            color=look.color,
            hatch=("", "//", "..", "xx", "--")[i],
            label=look.label,
            edgecolor="white" if i == 0 else "black",
            lw=0.6,
        )
    slots = [(q, n) for q in sorted(set(points.quintile)) for n in budgets]
    ax.set_xticks([q * (len(budgets) + 1) + budgets.index(n) for q, n in slots], [str(n) for _, n in slots], fontsize=7)
    ax.tick_params(axis="x", length=0)
    for q in sorted(set(points.quintile)):
        middle = q * (len(budgets) + 1) + (len(budgets) - 1) / 2
        name = {1: "1 (easiest)", 5: "5 (hardest)"}.get(q, str(q))
        ax.annotate(name, (middle, -0.1), xycoords=("data", "axes fraction"), ha="center", va="top", fontsize=9)
    ax.set_xlabel("difficulty quintile; in each, the generations per problem, N", labelpad=26)
    ax.set(ylabel="accuracy (%)", ylim=(0, 100))
    ax.grid(visible=False, axis="x")


def difficulty_alt(points: pd.DataFrame) -> str:
    """The alt text of difficulty_bars: accuracies at the largest N, by quintile and method."""
    largest = points[points.n == points.n.max()]
    parts = [
        f"quintile {q}: " + ", ".join(f"{STRATEGIES[row.method].label} {row.accuracy:.0%}" for row in rows.itertuples())
        for q, rows in largest.groupby("quintile")
    ]
    return "Bar chart in five groups, quintile 1 (easiest) to 5 (hardest). At the largest N: " + "; ".join(parts) + "."


def choice_map(ax: Axes, accuracy: np.ndarray, labels: np.ndarray, budgets: Sequence[int]) -> None:
    """A heat map of the chosen method by quintile and budget: its accuracy in [0, 1] and its label, both (5, budgets).

    The text says everything that the colours say, so the map can be read in grey. It is white on the cells below 44 %
    and black on the others, since seaborn's own choice is hard to read on the middle of this colour map.
    """
    import seaborn  # slow to import, and one figure needs it

    text = np.array([f"{label}\n{value:.0%}".replace(", ", ",\n") for label, value in zip(labels.flat, accuracy.flat)])
    seaborn.heatmap(
        100 * accuracy,
        annot=text.reshape(accuracy.shape),
        fmt="",
        vmin=0,
        vmax=100,
        cmap="viridis",
        ax=ax,
        linewidths=1,
        annot_kws={"fontsize": 8},
        cbar_kws={"label": "accuracy (%)"},
    )
    for words, value in zip(ax.texts, accuracy.flat, strict=True):
        words.set_color("white" if value < 0.44 else "black")
    ax.set_xticklabels(budgets)
    ax.set_yticklabels(["1 (easiest)", "2", "3", "4", "5 (hardest)"], rotation=0)
    ax.set(xlabel="generations per problem, N", ylabel="difficulty quintile")
    ax.tick_params(length=0)
