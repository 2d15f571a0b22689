"""The words of a figure, made from what is drawn: its caption and its alt text, with one sentence by the author."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.collections import FillBetweenPolyCollection
from matplotlib.container import ErrorbarContainer
from pandas.api.types import is_numeric_dtype

from tts.plots.style import LABELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 12  # numbers in an alt text: who wants more has the CSV
VALUES = ("accuracy", "value", "score", "right", "steps")  # the column that is the height of a point


def caption(fig: Figure, says: str, about: str, data: pd.DataFrame | None) -> str:
    """What the author says, what the marks stand for, and what was run (about).

    An interval is named where the figure has error bars or bands: many points have one that is not drawn.
    """
    marks = []
    if data is not None and {"low", "high"} <= set(data.columns) and (kinds := _interval_marks(fig)):
        marks.append(f"{kinds} are 95 % {_intervals(_ours(data))}.")
    if data is not None and "method" in data and _ours(data).method.astype(str).str.startswith("greedy").any():
        shape = "Crosses" if "flops" in data else "Dashed lines"
        marks.append(f"{shape} are greedy decoding of the policies named.")
    if data is not None and "source" in data:
        sources = "; ".join(dict.fromkeys(data.source.dropna()))
        marks.append(f"Grey marks are the writeup's models on MATH-500: {sources}.")
    return " ".join(filter(None, (says, *marks, about)))


def _interval_marks(fig: Figure) -> str:
    """How the figure shows intervals: error bars, bands or both; "" where it shows none."""
    bars = any(isinstance(one, ErrorbarContainer) for ax in fig.axes for one in ax.containers)
    bands = any(isinstance(one, FillBetweenPolyCollection) for ax in fig.axes for one in ax.collections)
    return " and ".join(["error bars"] * bars + ["bands"] * bands).capitalize()


def _intervals(points: pd.DataFrame) -> str:
    """The kind of intervals: Wilson's in a quintile (tts.analysis.difficulty), from a bootstrap elsewhere."""
    of_quintile = points.get("quintile", pd.Series(index=points.index, dtype=float)).notna()
    if of_quintile.all():
        return "Wilson intervals over problems"
    if of_quintile.any():
        return "Wilson intervals over problems, in the panel of all problems bootstrap intervals"
    return "bootstrap intervals over problems"


def _ours(data: pd.DataFrame) -> pd.DataFrame:
    """The points without the writeup's."""
    return data[data.source.isna()] if "source" in data else data


def alt_text(fig: Figure, says: str, data: pd.DataFrame | None, names: Mapping[str, str] = MappingProxyType({})) -> str:
    """What the author says, what kind of picture it is, and its most important numbers or words.

    names: method -> what this figure's legend calls it, where that is not its label everywhere.
    """
    panels = [ax for ax in fig.axes if ax.get_visible() and ax.get_label() != "<colorbar>"]
    if data is None:
        return f"{says} Diagram with the words: {'; '.join(_words(panels))}."
    if {"path", "depth", "state"} <= set(data.columns):
        return f"{says} {_trees(data)}"
    titles = [title for ax in panels if (title := _title(ax))]
    labels = {name: _axis_label(fig, panels, name) for name in "xy"}
    many = f"{len(panels)} panels" + (f" ({', '.join(titles)})" if titles else "")
    parts = [
        f"Chart in {many}" if len(panels) > 1 else "Chart",
        *(f" {word} {labels[name]}" for word, name in (("of", "y"), ("against", "x")) if labels[name]),
    ]
    numbers = list(_numbers(data, LABELS | dict(names), in_points="(points)" in labels["y"]))
    more = f"; and {len(numbers) - MOST} more in the CSV" if len(numbers) > MOST else ""
    return f"{says} {''.join(parts)}. {'; '.join(numbers[:MOST])}{more}."


def _words(panels: list[Axes]) -> Iterator[str]:
    for ax in panels:
        texts = [ax.get_title(), *(text.get_text() for text in ax.texts), ax.get_xlabel()]
        yield from (" ".join(text.split()) for text in texts if any(letter.isalpha() for letter in text))


def _title(ax: Axes) -> str:
    return " ".join((ax.get_title() or ax.get_title(loc="left")).split())


def _axis_label(fig: Figure, panels: list[Axes], name: str) -> str:
    common = getattr(fig, f"get_sup{name}label")()
    own = [getattr(ax, f"get_{name}label")() for ax in panels]
    return " ".join((common or next(filter(None, own), "")).split())


def _numbers(data: pd.DataFrame, labels: Mapping[str, str], *, in_points: bool) -> Iterator[str]:
    """The last point of each line, in words; lines are told apart by all columns of text, and by quintile.

    A number without a name tells a listener nothing: where there is one line alone, its points are counted.
    """
    column = next((name for name in VALUES if name in data), None)
    ours = _ours(data)
    keys = [name for name in ours if not is_numeric_dtype(ours[name]) and name not in ("source", "label")]
    keys += [name for name in ours if name == "quintile"]
    if column is None or not keys:
        yield f"{len(ours)} points"
        return
    is_share = ours[column].abs().max() <= 1
    for names, rows in ours.groupby(keys, sort=False, dropna=False):
        row = rows.loc[rows.n.idxmax()] if "n" in rows and rows.n.notna().any() else rows.iloc[-1]
        named = [_name(key, one, labels) for key, one in zip(keys, names, strict=True)]
        if in_points or row.get("panel") == "difference":
            value = f"{100 * row[column]:+.1f} points"
        else:
            value = f"{row[column]:.0%}" if is_share else f"{row[column]:.3g}"
        at = f" at N = {row.n:.0f}" if "n" in rows and pd.notna(row.n) else ""
        yield f"{', '.join(filter(None, named))}: {value}{at}"


def _name(key: str, value: object, labels: Mapping[str, str]) -> str:
    if pd.isna(value):
        return ""
    return f"quintile {value:.0f}" if key == "quintile" else labels.get(value, str(value))


def _trees(data: pd.DataFrame) -> str:
    """Trees in words: of each, the steps, how deep they go and what became of them."""
    named = [name for name in data if name in ("tree", "method", "n")]
    said = []
    for names, table in data.groupby(named, sort=False) if named else [((), data)]:
        steps = table[table.depth > 0]
        drawn = int(steps["count"].sum())
        fates = ", ".join(f"{int(count)} {state}" for state, count in steps.groupby("state")["count"].sum().items())
        name = ", ".join(map(str, names))
        said.append(f"{name}: {drawn} steps down to depth {steps.depth.max()} ({fates})")
    return "Trees. " + "; ".join(said) + "."
