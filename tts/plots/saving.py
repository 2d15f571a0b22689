"""Figures on disk: save_figure() writes a figure with its points, caption and alt text; gallery() lists all figures."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from os.path import relpath
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from tts.plots.style import styled
from tts.plots.words import alt_text, caption

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def save_figure(
    fig: Figure,
    name: str,
    data: pd.DataFrame | None,
    says: str,
    *,
    folder: str | Path,
    about: str = "",
    looks: Mapping[str, Mapping[str, object]] = MappingProxyType({}),
) -> None:
    """Write folder/name.png, .svg, .csv (exactly the points plotted) and .json (caption and alt text).

    The same figure and data give the same bytes every time. says: one sentence on what the figure shows; caption and
    alt text add what is plotted (tts.plots.words). about: what was run, for the caption. looks: those that the figure
    was drawn with (tts.plots.accuracy), whose labels are the methods' names in the alt text. data: None for a diagram,
    which has no points and gets no CSV. ValueError if the sentence or the points are missing or the name can't be a
    file's.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise ValueError(f"name={name!r}: use only small letters, digits, - and _, since it becomes a file name")
    if not says.strip():
        raise ValueError(f"says of figure {name} is empty: say in one sentence what the figure shows")
    if data is not None and data.empty:
        raise ValueError(f"data of figure {name} is empty: pass the points that are plotted")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with styled():  # svg.hashsalt and fonttype are read when saving
        fig.savefig(folder / f"{name}.png", metadata={"Software": None})
        fig.set_layout_engine("none")  # the layout stands; to find it again takes longer than to draw the figure
        fig.savefig(folder / f"{name}.svg", metadata={"Date": None})
    if data is not None:
        data.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
    names = {method: str(look["label"]) for method, look in looks.items() if "label" in look}
    words = {"caption": caption(fig, says, about, data), "alt": alt_text(fig, says, data, names)}
    words = {what: " ".join(text.split()) for what, text in words.items()}
    (folder / f"{name}.json").write_text(json.dumps(words, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def gallery(folder: str | Path, *, notebooks: Sequence[Path] = ()) -> Path:
    """Write folder/README.md with every figure that save_figure put there and its caption; returns the page's path.

    notebooks: each figure links to the ones among them that contain its quoted name, which are those that save it.
    """
    folder = Path(folder)
    cells = {notebook: notebook.read_text(encoding="utf-8") for notebook in notebooks}
    parts = ["# Figures\n", "Made by the notebooks; each also as SVG, with the plotted points as CSV.\n"]
    if (folder / "runs.csv").exists():
        parts.append(_runs(folder / "runs.csv"))
    for sidecar in sorted(folder.glob("*.json")):
        name, words = sidecar.stem, json.loads(sidecar.read_text(encoding="utf-8"))
        parts.append(f"## {name}\n")
        parts.append(f"![{_one_line(words['alt'])}]({name}.png)\n")
        parts.append(f"{words['caption']}\n")
        points = f" · [CSV]({name}.csv)" if sidecar.with_suffix(".csv").exists() else ""
        makers = [notebook for notebook, text in cells.items() if f'\\"{name}\\"' in text]
        source = "".join(f" · [{maker.stem}]({relpath(maker, folder)})" for maker in makers)
        parts.append(f"[SVG]({name}.svg){points}{source}\n")
    page = folder / "README.md"
    page.write_text("\n".join(parts), encoding="utf-8")
    return page


def _runs(file: Path) -> str:
    """The table of how each notebook was run (tts.companion.runner.note_runs) in Markdown."""
    with file.open(encoding="utf-8", newline="") as lines:
        heads, *rows = csv.reader(lines)
    about = (
        "How they were made. *seconds* is the notebook's own time, which reads what is stored; *stored hours* is the "
        "time that the engines needed for all that is in that store. Parameters: those that differ from the cells'.\n"
    )
    table = [heads, ["---"] * len(heads), *rows]
    return about + "\n" + "\n".join("| " + " | ".join(row) + " |" for row in table) + "\n"


def _one_line(text: str) -> str:
    return text.replace("[", "(").replace("]", ")")
