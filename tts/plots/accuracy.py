"""Figures of accuracy: curves over N, paired differences, panels by difficulty, the writeup's numbers in grey.

Points are tables as tts.analysis.curves.intervals makes them: method, n, accuracy, low, high, each in [0, 1].
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from tts.plots.style import GREY, STRATEGIES, label_right, log2_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SEARCHES = ("beam_search", "dvts")
THIN = {"linestyle": ":", "linewidth": 1.2, "marker": ""}  # of dotted lines beside the curves
Looks = Mapping[str, Mapping[str, object]]


def draw_curves(
    ax: Axes,
    points: pd.DataFrame,
    *,
    x: str = "n",
    looks: Looks | None = None,
    bars: Sequence[str] = SEARCHES,
    bands: Sequence[str] | None = None,
    apart: float = 0.0,
) -> None:
    """Accuracy over N with 95 % intervals: lines with bands, and the methods in `bars` as points with error bars.

    x: the column that is the x axis. looks: method -> keyword arguments of `ax.plot`; they override those of
    STRATEGIES. bands: the methods whose lines get a band; None for all. apart: the distance, in doublings of x, between
    the error bars that methods in `bars` have at one x; 0 draws them on top of one another.
    """
    places = _places(points, bars, apart, x)
    for method, rows in points.groupby("method", sort=False):
        look = _look(method, looks)
        if method in bars:
            _error_bars(ax, [places[method, value] for value in rows[x]], rows, look)
        else:
            ax.plot(rows[x], 100 * rows.accuracy, **look)
            if bands is None or method in bands:
                ax.fill_between(rows[x], 100 * rows.low, 100 * rows.high, color=look["color"], alpha=0.12, lw=0)


def _error_bars(ax: Axes, at: Sequence[float], rows: pd.DataFrame, look: Mapping[str, object]) -> None:
    height, low, high = 100 * rows.accuracy, 100 * rows.low, 100 * rows.high
    ax.errorbar(at, height, [height - low, high - height], capsize=3, elinewidth=1.2, zorder=4, **look)


def _in(points: pd.DataFrame, methods: Sequence[str]) -> list[str]:
    return [method for method in methods if (points.method == method).any()]


def _places(points: pd.DataFrame, bars: Sequence[str], apart: float, x: str = "n") -> dict[tuple[str, float], float]:
    """(method, value of x) -> where its mark stands. Those of one x stand side by side, a single one in its place."""
    places = {}
    for value, rows in points.groupby(x):
        here = _in(rows, bars)
        shifts = [apart * (i - (len(here) - 1) / 2) for i in range(len(here))]
        places |= {(method, value): value * 2**shift for method, shift in zip(here, shifts, strict=True)}
    return places


def _look(method: str, looks: Looks | None) -> dict[str, object]:
    look = (looks or {}).get(method, {})
    return {**STRATEGIES[method].line, **look} if method in STRATEGIES else dict(look)


def greedy_lines(ax: Axes, lines: pd.DataFrame) -> None:
    """Draw greedy baselines as dashed lines across ax, with labels in the margin.

    lines: columns method, accuracy in [0, 1], and label for the words in the margin; without it they are the method.
    """
    for height in 100 * lines.accuracy:
        ax.axhline(height, color=STRATEGIES["greedy"].color, ls="--", lw=1.2, zorder=1)
    low, high = ax.get_ylim()
    words = lines.get("label", lines.method)
    label_right(ax, dict(zip(words, 100 * lines.accuracy, strict=True)), gap=0.045 * (high - low))


def writeup_marks(
    ax: Axes,
    numbers: pd.DataFrame,
    *,
    looks: Looks | None = None,
    places: Mapping[tuple[str, float], float] = MappingProxyType({}),
) -> None:
    """Draw the writeup's numbers (tts.companion.writeup) in grey.

    A number with an n is an outline of its method's shape, large enough to be seen around a mark of ours at the same
    place; one without is a greedy baseline, a tick at the left edge with its label. places: where our own marks stand
    (_places): each outline is around its method's.
    """
    for method, rows in numbers[numbers.n.notna()].groupby("method", sort=False):
        outline = _outline(_look(method, looks).get("marker") or "_")
        at = [places.get((method, n), n) for n in rows.n]
        ax.plot(at, 100 * rows.accuracy, zorder=5, label="_", **outline)
    for row in numbers[numbers.n.isna()].itertuples():
        place = ax.get_yaxis_transform()
        ax.plot([0, 0.018], [100 * row.accuracy] * 2, color=GREY, lw=1.6, transform=place, label="_")
        words = ax.text(0.024, 100 * row.accuracy, row.label, color=GREY, fontsize=7, va="center", transform=place)
        words.set_path_effects([withStroke(linewidth=2.5, foreground="white")])  # a line of ours may run behind it


def _outline(marker: object) -> dict[str, object]:
    return {"marker": marker, "mfc": "none", "mec": GREY, "color": GREY, "ls": "", "ms": 8.5, "mew": 1.2}


def _room_for_labels(ax: Axes, ns: Sequence[int]) -> None:
    """Keep the labels at the left edge free of marks: those at the smallest N stand 9 % of the width away."""
    left, right = np.log2(ax.get_xlim())
    first = np.log2(min(ns))
    ax.set_xlim(left=2 ** min(left, first - 0.09 / 0.91 * (right - first)))


def accuracy_figure(
    points: pd.DataFrame,
    ns: Sequence[int],
    *,
    greedy: pd.DataFrame | None = None,
    writeup: pd.DataFrame | None = None,
    paired: pd.DataFrame | None = None,
    looks: Looks | None = None,
    bars: Sequence[str] = SEARCHES,
    bands: Sequence[str] | None = None,
    apart: float = 0.0,
    ylim: tuple[float, float] | None = None,
) -> Figure:
    """A figure of accuracy over N, with a legend above it.

    ns: the ticks of N. greedy: as in greedy_lines(). writeup: as in writeup_marks(). looks, bars, bands, apart: as in
    draw_curves(). ylim: limits of the accuracy in %; None fits them to what is drawn.
    paired: differences to weighted Best-of-N on the same problems, drawn in a panel below with their intervals. The
    curves then have no intervals of their own: those of two methods overlap long before their difference is in doubt.
    """
    fig, axes = plt.subplots(
        1 + (paired is not None),
        figsize=(6.2, 4.4 if paired is None else 6.2),
        height_ratios=[1] if paired is None else [1.7, 1],
        sharex=True,
        squeeze=False,
    )
    ax = axes[0, 0]
    if writeup is not None:
        writeup = writeup[writeup.n.isna() | writeup.n.isin(ns)]
        writeup_marks(ax, writeup, looks=looks, places=_places(points, bars, apart))
    if paired is None:
        draw_curves(ax, points, looks=looks, bars=bars, bands=bands, apart=apart)
    else:
        draw_curves(ax, points, looks=looks, bars=(), bands=())
        draw_differences(axes[1, 0], paired, looks=looks)
    for one in axes[:, 0]:
        log2_axis(one, ns)
    if writeup is not None and writeup.n.isna().any():
        _room_for_labels(ax, ns)
    for one in axes[:-1, 0]:
        one.set_xlabel("")
    ax.set_ylabel("accuracy (%)")
    if ylim is not None:
        ax.set_ylim(ylim)  # before the lines: their labels keep a distance that depends on it
    if greedy is not None:
        greedy_lines(ax, greedy)
    _legend(fig, axes.flat, 2, writeup, looks)
    return fig


def draw_differences(ax: Axes, paired: pd.DataFrame, *, looks: Looks | None = None) -> None:
    """Paired differences to weighted Best-of-N with their intervals, in points; those of one N side by side.

    A shaded strip holds those of one N together.
    """
    ax.axhline(0, color=STRATEGIES["best_of_n_weighted"].color, lw=1.4, zorder=1)
    methods, apart = list(paired.method.unique()), 0.17
    draw_curves(ax, paired, looks=looks, bars=methods, apart=apart)
    _strips(ax, paired, apart)
    for line in ax.lines[1:]:
        line.set_linestyle("none")  # between two budgets nothing was measured
    at_least(ax)
    ax.set_ylabel("minus weighted\nBest-of-N (points)")


def _strips(ax: Axes, points: pd.DataFrame, apart: float) -> None:
    """Shade the place of each N, which the marks stand side by side in."""
    for n, methods in points.groupby("n").method.nunique().items():
        half = 2 ** (apart * (methods + 0.5) / 2)
        ax.axvspan(n / half, n * half, color="#f2f2f2", lw=0, zorder=0)


def at_least(ax: Axes, points: float = 2.0) -> None:
    """Let the y axis span so many points where all that is drawn is one number: a scale of hundredths would mislead."""
    low, high = ax.get_ylim()
    if high - low < points:
        ax.set_ylim((low + high - points) / 2, (low + high + points) / 2)


def _legend(
    fig: Figure,
    axes: Iterable[Axes],
    columns: int,
    writeup: pd.DataFrame | None = None,
    looks: Looks | None = None,
    dotted: str = "",
) -> None:
    """One legend above the figure for what is in its panels, each label once, and for the writeup's numbers.

    A method of the writeup's that is none of ours has an entry of its own, by its label in looks. dotted: what dotted
    lines without marks are, if there are any.
    """
    entries = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if dotted:
        entries[dotted] = Line2D([], [], color=STRATEGIES["greedy"].color, **THIN)
    for method in [] if writeup is None else dict.fromkeys(writeup.method[writeup.n.notna()]):
        look = _look(method, looks)
        is_ours = look.get("label") in entries
        label = "models, same marks" if is_ours else look.get("label", method)
        entries[f"the writeup's {label}"] = Line2D([], [], **_outline("o" if is_ours else look.get("marker")))
    if writeup is not None and writeup.n.isna().any():
        entries["the writeup's greedy baselines"] = Line2D([], [], color=GREY, lw=1.6)
    fig.legend(entries.values(), entries.keys(), loc="outside upper center", ncols=columns)


def panels(
    parts: Mapping[str, pd.DataFrame],
    ns: Sequence[int],
    *,
    dotted: Mapping[str, pd.DataFrame] | None = None,
    writeup: Mapping[str, pd.DataFrame] | None = None,
    looks: Looks | None = None,
    apart: float = 0.16,
    ylabel: str = "accuracy (%)",
) -> Figure:
    """Panels of shares over N, with error bars, all on one scale from 0 to 100 %: title -> points.

    dotted: coverage, as dotted lines without marks or bars in the panel of that title. writeup: its numbers, as in
    writeup_marks(), in the panel of that title. Six panels stand in two rows. apart: as in draw_curves().
    """
    rows = 1 if len(parts) < 5 else 2
    across = -(-len(parts) // rows)
    fig, axes = plt.subplots(
        rows, across, figsize=(0.8 + 2.45 * across, 0.9 + 2.2 * rows), sharex=True, sharey=True, squeeze=False
    )
    theirs = {title: numbers[numbers.n.isin(ns)] for title, numbers in (writeup or {}).items()}
    for ax, (title, points) in zip(axes.flat, parts.items()):
        barred = list(points.method.unique())
        if title in theirs:
            writeup_marks(ax, theirs[title], looks=looks, places=_places(points, barred, apart))
        if apart:
            _strips(ax, points[points.method.isin(barred)], apart)
        draw_curves(ax, points, looks=looks, bars=barred, bands=(), apart=apart)
        if dotted and title in dotted:
            thin = dict.fromkeys(dotted[title].method, THIN | {"label": "_"})
            draw_curves(ax, dotted[title], looks=thin, bars=(), bands=())
        log2_axis(ax, ns).set_xlabel("")
        ax.set_title(title, fontsize=9)
    for ax in axes.flat[len(parts) :]:
        ax.set_visible(False)
    for ax in axes.flat[len(parts) - across : len(parts)]:  # the lowest of each column, also above an empty place
        ax.tick_params(labelbottom=True)
    axes[0, 0].set_ylim(-3, 103)
    fig.supxlabel("generations per problem, N", fontsize=10)
    fig.supylabel(ylabel, fontsize=10)
    numbers = pd.concat(theirs.values()) if theirs else None
    _legend(fig, axes.flat[: len(parts)], 2 if across <= 2 else 4, numbers, looks, dotted="coverage" if dotted else "")
    return fig


def verifier_panels(leads: pd.DataFrame) -> Figure:
    """Differences by verifier with error bars, a panel for each question.

    leads: columns question, verifier, method, accuracy, low, high: a method's accuracy minus that of what the question
    compares it with, in [-1, 1]. The verifiers stand from left to right in the order of the table.
    """
    questions, verifiers = leads.question.unique(), list(leads.verifier.unique())
    methods = list(leads.method.unique())
    fig, axes = plt.subplots(1, len(questions), figsize=(0.8 + 2.45 * len(questions), 3.2), sharey=True, squeeze=False)
    for ax, question in zip(axes.flat, questions):
        ax.axhline(0, color=GREY, lw=1.2, zorder=1)
        here = leads[leads.question == question]
        drawn = _in(here, methods)
        for i, method in enumerate(drawn):
            rows = here[here.method == method]
            at = [verifiers.index(name) + 0.2 * (i - (len(drawn) - 1) / 2) for name in rows.verifier]
            _error_bars(ax, at, rows, {**_look(method, None), "linestyle": "none"})
        ax.set_xticks(range(len(verifiers)), verifiers, rotation=25, ha="right", rotation_mode="anchor", fontsize=8)
        ax.set_xlim(-0.5, len(verifiers) - 0.5)
        ax.set_title(question.replace(", minus", ",\nminus"), fontsize=9)
    axes[0, 0].set_ylabel("difference (points)")
    _legend(fig, axes.flat, 4)
    return fig


def difficulty_panels(
    points: pd.DataFrame, *, overall: pd.DataFrame | None = None, writeup: pd.DataFrame | None = None
) -> Figure:
    """Accuracy over N in a panel a quintile, a line a method with its intervals.

    points: columns quintile, n, method, accuracy, low, high. overall: the same for all problems, without quintile, in a
    sixth panel; writeup: the writeup's numbers, which are known for all problems only.
    """
    names = {1: "quintile 1 (easiest)", 5: "quintile 5 (hardest)"}
    parts = {names.get(q, f"quintile {q}"): rows for q, rows in points.groupby("quintile")}
    parts |= {} if overall is None else {"all problems": overall}
    return panels(parts, sorted(set(points.n)), writeup=None if writeup is None else {"all problems": writeup})


def difficulty_bars(points: pd.DataFrame) -> Figure:
    """The writeup's own form of difficulty_panels(): a place for each quintile and budget, the methods overlaid in it.

    Each method's bar is narrower than the one behind it, so every top can be seen; hatches tell the methods apart
    without colour. There is no room for intervals.
    """
    fig, ax = plt.subplots(figsize=(8, 4))
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
    _legend(fig, [ax], len(methods))
    return fig


def choice_map(accuracy: np.ndarray, labels: np.ndarray, budgets: Sequence[int]) -> Figure:
    """A heat map of the chosen method by quintile and budget: its accuracy in [0, 1] and its label, both (5, budgets).

    The text says everything that the colours say, so the map can be read in grey. It is white on the cells below 44 %
    and black on the others, since seaborn's own choice is hard to read on the middle of this colour map.
    """
    import seaborn  # slow to import, and one figure needs it

    fig, ax = plt.subplots(figsize=(6.4, 3.8))
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
    return fig
