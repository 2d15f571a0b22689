"""Several runs in one figure: `python -m tts.plots.overlay A.csv B.csv --labels xs s --out both.png`.

Each run is the CSV of a figure of accuracy against N (columns method, n, accuracy, low, high). Runs may differ in the
policy, the PRM or the profile. Colour and marker show the method, as in all figures; the dash shows the run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tts.errors import InputError
from tts.plots.style import STRATEGIES, Look, log2_axis, style

NEEDED = ("method", "n", "accuracy", "low", "high")
DASHES = ("-", "--", ":", "-.")


def read(path: str | Path) -> pd.DataFrame:
    """The points of one figure; InputError where the file isn't the CSV of a figure of accuracy against N."""
    try:
        points = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be read ({' '.join(str(error).split())}): name a figure's CSV") from None
    if "source" in points:  # the writeup's numbers, the same in every run
        points = points[points.source.isna()]
    if "panel" in points:
        points = points[points.panel != "difference"]
    if missing := [name for name in NEEDED if name not in points]:
        raise InputError(f"{path} has no column {', '.join(missing)}: name the CSV of a figure of accuracy against N")
    if points[points.n.notna()].duplicated(["method", "n"]).any():
        raise InputError(f"{path} has several points for a method and N, such as quintiles: name another figure's CSV")
    return points


def overlay(runs: dict[str, pd.DataFrame], *, methods: Sequence[str] = ()) -> Figure:
    """One figure of several runs: label -> points with the columns NEEDED.

    methods: which to draw; by default all that every run has. Points without n (greedy lines) are left out. A method
    that some run lacks, or runs with no method in common, raise InputError.
    """
    curves = {label: points[points.n.notna()] for label, points in runs.items()}
    first, *others = curves.values()
    shared = [name for name in first.method.unique() if all((points.method == name).any() for points in others)]
    if unknown := [name for name in methods if name not in shared]:
        raise InputError(f"methods: {unknown[0]!r} is not in every run: choose of {', '.join(shared) or 'none'}")
    if not shared:
        raise InputError("the runs have no method in common: there is nothing to compare")
    fig, ax = plt.subplots(figsize=(6.4, 4.4))
    extra = iter(("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#000000"))
    looks = {name: STRATEGIES.get(name) or Look(name, next(extra, "#666666"), marker="o") for name in methods or shared}
    for dash, points in zip(DASHES * len(curves), curves.values()):
        for name, look in looks.items():
            line = points[points.method == name].sort_values("n")
            ax.plot(line.n, 100 * line.accuracy, color=look.color, marker=look.marker, ls=dash)
            ax.fill_between(line.n, 100 * line.low, 100 * line.high, color=look.color, alpha=0.08, lw=0)
    log2_axis(ax, sorted({int(n) for points in curves.values() for n in points.n}))
    ax.set(xlabel="generations per problem, N", ylabel="accuracy (%)")
    entries = [Line2D([], [], **look.line | {"linestyle": ""}) for look in looks.values()]
    entries += [
        Line2D([], [], color="#666666", ls=dash, label=label) for dash, label in zip(DASHES * len(curves), curves)
    ]
    fig.legend(handles=entries, loc="outside upper center", ncols=3)
    return fig


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw what the command line asks for and save it."""
    parser = argparse.ArgumentParser(
        prog="python -m tts.plots.overlay", description="Draw two or more runs into one figure."
    )
    parser.add_argument("csv", nargs="+", help="CSV files of figures, such as figures/10_all_methods.csv")
    parser.add_argument("--labels", nargs="*", default=[], help="what the legend calls them (default: their paths)")
    parser.add_argument("--methods", nargs="*", default=[], help="which methods (default: all that every run has)")
    parser.add_argument("--out", default="overlay.png", help="the picture to write")
    args = parser.parse_args(arguments)
    labels = args.labels or args.csv
    if len(labels) != len(args.csv) or len(set(labels)) != len(labels):
        raise InputError(f"--labels: give {len(args.csv)} different ones, one a file")
    style()
    fig = overlay({label: read(path) for label, path in zip(labels, args.csv, strict=True)}, methods=args.methods)
    fig.savefig(args.out)
    print(args.out)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
