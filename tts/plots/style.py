"""How figures look: one style, one colour and one marker a strategy, and the axes that several figures share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import matplotlib.style
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# On top of matplotlib's own defaults, so that a reader's matplotlibrc has no say.
_STYLE = ["default", str(Path(__file__).with_name("tts.mplstyle"))]

GREY = "#8c8c8c"  # of the writeup's numbers beside ours
# The colours of diagrams and trees, in which a colour is not a strategy's.
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
    "pass_at_n": Look("pass@N (ceiling)", "#000000", ">", ":"),
}
# What a reader sees in place of a method's name in the code: in legends, tables and alt texts.
LABELS = {name: look.label for name, look in STRATEGIES.items()} | {
    "best_of_n": "Best-of-N",
    "dvts_best": "DVTS, best child only",
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
