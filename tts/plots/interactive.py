"""Search trees to look into: the picture of tts.plots.trees, in which each step says under the pointer what it is.

A notebook stores such a view as plotly's JSON with the static picture beside it. JupyterLab shows the picture until the
pointer is on it and then plotly's, by the extension that comes with plotly, so no network is needed. Where no scripts
run (GitHub, nbconvert, `run_all.sh report`) the picture stays.
"""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image

from tts.plots.style import CHOSEN, INK, PALE, styled
from tts.plots.trees import RIGHT, SCORES, STATES, area_of_one, draw, edges

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from plotly.graph_objects import Figure as Interactive
    from plotly.graph_objects import Scatter

PLOTLY = "application/vnd.plotly.v1+json"
DPI = 85  # of the picture: plotly shows it in its own size, which has to fit beside JupyterLab's list of files
PIXELS = DPI / 72  # of a point
CONFIG = {
    "displaylogo": False,
    "modeBarButtons": [["zoom2d", "pan2d", "resetScale2d"]],  # none that leads elsewhere
    "typesetMath": False,  # else a text with two dollars goes to MathJax
}
LINE, LONGEST = 60, 400  # characters of a step: in a line, and at most
# The markers of trees.STATES, and how edges are drawn, in plotly's words.
SYMBOLS = dict(zip("soX*D<v", "square circle x star diamond triangle-left triangle-down".split(), strict=True))
DROPPED = {"color": PALE, "width": 1, "dash": "dot"}
ALIVE = {"color": INK, "width": 1}
TO_CHOSEN = {"color": CHOSEN, "width": 3}


@dataclass(frozen=True, repr=False)
class View:
    """What a notebook stores to show it: kind (MIME type) -> content."""

    data: Mapping[str, object]

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Mapping[str, object]:
        return self.data

    def __repr__(self) -> str:
        return "Search trees; JupyterLab shows each step under the pointer."


def view(tables: Mapping[str, pd.DataFrame], picture: Figure | None = None) -> View:
    """Trees below one another: title -> table of tts.plots.trees.node_table().

    picture: what tts.plots.trees.draw() made of them, if it is there already; it is closed, since a notebook would show
    it a second time.
    """
    picture = picture or draw(tables)
    drawn = figure(tables).update_layout(height=round(DPI * picture.get_figheight())).to_plotly_json()
    small = _png(picture)
    plt.close(picture)
    return View({PLOTLY: drawn | {"config": CONFIG}, "image/png": small})


def figure(tables: Mapping[str, pd.DataFrame]) -> Interactive:
    """The trees in plotly, one panel each; a point for each row of their tables that has a place in them."""
    from plotly.subplots import make_subplots

    deep = [int(table.depth.max()) + 1 for table in tables.values()]
    titles = [escape(title, quote=False) for title in tables]
    fig = make_subplots(len(tables), row_heights=deep, subplot_titles=titles, vertical_spacing=0.06)
    named = set()  # in the legend, which is one for all panels
    for row, table in enumerate(tables.values(), start=1):
        for trace in _traces(table):
            trace.update(legendgroup=trace.name, showlegend=bool(trace.name) and trace.name not in named)
            named.add(trace.name)
            fig.add_trace(trace, row, 1)
        fig.update_yaxes(range=[deep[row - 1] - 0.5, -0.5], row=row)
    fig.update_xaxes(visible=False)
    fig.update_yaxes(title="step", dtick=1, showgrid=False, zeroline=False)
    fig.update_annotations(x=0, xanchor="left", font_size=14)  # the titles
    fig.update_layout(
        template={},
        paper_bgcolor="white",  # as of all figures, in a dark notebook too
        plot_bgcolor="white",
        font={"color": "black"},
        margin={"l": 40, "r": 10, "t": 30, "b": 10},
        hoverlabel={"align": "left", "bgcolor": "white", "font": {"color": "black"}},
        legend={"orientation": "h", "y": -0.02, "yanchor": "top"},
        coloraxis={"colorscale": SCORES, "cmin": 0, "cmax": 1, "colorbar": {"title": "score", "thickness": 14}},
    )
    return fig


def hover(step: Mapping[str, object]) -> str:
    """What is said of a row of node_table(): plotly's markup, so all of the model's text in it is escaped."""
    _, _, words = STATES[step["state"]]
    if step["state"] == "root":
        return words
    whole = " ".join(step["text"].split())
    text = whole if len(whole) <= LONGEST else f"{whole[:LONGEST]}…"
    lines = [escape(line, quote=False) for line in textwrap.wrap(text, LINE)] or ["(blank)"]
    known = {True: "right, as all before it", False: "wrong, or after a wrong step"}
    facts = [words, "no score" if np.isnan(step["score"]) else f"score {step['score']:.3f}"]
    facts += [known[step["right"]]] if step["right"] in known else []
    facts += [f"{step['count']} equal siblings"] if step["count"] > 1 else []
    facts += ["leads to the chosen answer"] if step["chosen"] else []
    return "<br>".join([*lines, "", *facts])


def _traces(table: pd.DataFrame) -> Iterator[Scatter]:
    """Edges, rings and steps of one panel, from the bottom up."""
    from plotly.graph_objects import Scatter

    still = {"hoverinfo": "skip"}
    of_edges = edges(table)
    kinds = np.select([of_edges.chosen, of_edges.alive], [2, 1], 0)
    for kind, (name, line) in enumerate([("", DROPPED), ("", ALIVE), ("leads to the chosen answer", TO_CHOSEN)]):
        some = of_edges[kinds == kind]
        x = np.column_stack([some.from_x, some.x, np.full(len(some), np.nan)]).ravel()
        y = np.column_stack([some.depth - 1, some.depth, np.full(len(some), np.nan)]).ravel()
        if len(some):
            yield Scatter(x=_plain(x), y=_plain(y), mode="lines", line=line, name=name, **still)
    shapes = pd.DataFrame.from_dict(STATES, orient="index", columns=["marker", "size", "words"])
    around = area_of_one(table) * table["count"] * table.state.map(shapes["size"])
    table = table.assign(wide=PIXELS * around**0.5)
    if len(ringed := table[table.right.eq(True)]):
        look = {"symbol": "circle-open", "size": _plain(ringed.wide + 8), "opacity": 1}
        look |= {"color": RIGHT, "line": {"width": 2}}
        name = "a right step, and all before it"
        yield Scatter(x=_plain(ringed.x), y=_plain(ringed.depth), mode="markers", marker=look, name=name, **still)
    for (state, unscored), steps in table.groupby(["state", table.score.isna()]):
        symbol, _, words = STATES[state]
        look = {"symbol": SYMBOLS[symbol], "size": _plain(steps.wide), "opacity": 1, "line": {"color": INK, "width": 1}}
        if unscored:
            look["color"] = INK if state == "root" else "white"
        else:
            look |= {"color": _plain(steps.score), "coloraxis": "coloraxis"}
        said = [hover(step) for step in steps.to_dict("records")]
        place = {"x": _plain(steps.x), "y": _plain(steps.depth)}
        yield Scatter(**place, mode="markers", marker=look, name=words, hovertext=said, hoverinfo="text")


def _plain(numbers: pd.Series | np.ndarray) -> list[float | None]:
    """Numbers that stay readable in a notebook's JSON; NaN is a gap."""
    return [None if np.isnan(number) else round(float(number), 4) for number in numbers]


def _png(picture: Figure) -> str:
    """The picture as a PNG of 256 colours, which takes a quarter of the room."""
    plain, small = BytesIO(), BytesIO()
    with styled():
        picture.savefig(plain, format="png", dpi=DPI)
    few = Image.open(plain).convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few.save(small, "PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode()
