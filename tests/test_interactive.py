"""The interactive trees: a point for each step, the model's text escaped, the static picture beside them."""

import asyncio
import base64
import json
import subprocess
import sys
from io import BytesIO

import matplotlib.image
import matplotlib.pyplot as plt
import pytest
from fakes import PROBLEM, ScriptedPolicy, ScriptedScorer, by_hash, by_last, dice, table

from tts.plots.interactive import DPI, LINE, LONGEST, PLOTLY, figure, hover, view
from tts.plots.trees import STATES, draw, node_table
from tts.policy import Sampling
from tts.strategies import beam_search, dvts

RIGHT, WRONG = "right, as all before it", "wrong, or after a wrong step"
CHOSEN = "leads to the chosen answer"
MIXED = ("a\n\n", "b\n\n", "cc\n\n", "d$", "ee$")


def searched(strategy, script, rule=by_hash, *, n):
    work = strategy(PROBLEM, ScriptedPolicy(script), ScriptedScorer(rule), n=n, sampling=Sampling(seed=0))
    return asyncio.run(work)


@pytest.fixture
def tables():
    return {
        name: node_table(
            search, chosen=[search.solutions[0].path], right=lambda steps: [step[0] != "c" for step in steps]
        )
        for name, strategy in {"beam search": beam_search, "DVTS": dvts}.items()
        for search in [searched(strategy, dice(*MIXED), n=16)]
    }


def points(drawn):
    """(panel's y axis, x, y, what the pointer says) of every step."""
    return [
        (trace.yaxis, *point)
        for trace in drawn.data
        if trace.hovertext
        for point in zip(trace.x, trace.y, trace.hovertext, strict=True)
    ]


def test_each_row_of_the_tables_is_one_point_at_its_place(tables):
    found = points(figure(tables))
    assert len(found) == sum(map(len, tables.values())), "equal siblings are one point"
    assert sum(tables["DVTS"]["count"]) > len(tables["DVTS"]), "and there are some"
    for axis, rows in zip(("y", "y2"), tables.values(), strict=True):
        wanted = [(axis, round(row["x"], 4), row["depth"], hover(row)) for row in rows.to_dict("records")]
        assert sorted(point for point in found if point[0] == axis) == sorted(wanted)


def test_each_edge_joins_a_step_to_its_parent(tables):
    for axis, rows in zip(("y", "y2"), tables.values(), strict=True):
        place = {path: (round(x, 4), depth) for path, x, depth in zip(rows.path, rows.x, rows.depth, strict=True)}
        wanted = {(place[path.rpartition(".")[0]], place[path]) for path in rows.path if "." in path}
        lines = [trace for trace in figure(tables).data if trace.mode == "lines" and trace.yaxis == axis]
        ends = [end for line in lines for end in zip(line.x, line.y, strict=True)]
        assert set(zip(ends[::3], ends[1::3], strict=True)) == wanted
        assert set(ends[2::3]) == {(None, None)}, "a gap after each"


def test_the_legend_names_each_state_once(tables):
    shown = [trace.name for trace in figure(tables).data if trace.showlegend]
    assert len(set(shown)) == len(shown)
    states = {state for rows in tables.values() for state in rows.state}
    assert {STATES[state][2] for state in states} <= set(shown)
    assert {"a right step, and all before it", CHOSEN} <= set(shown)


def test_what_the_pointer_says():
    script = table({"": ["a\n\n", "a\n\n", "b$", "c\n\n"], "a\n\n": ["d$", "e$", "e$", "e$"]})
    search = searched(dvts, script, by_last(a=0.9, b=0.25, c=0.1, d=0.5, e=0.4), n=4)
    rows = node_table(search, chosen=[search.solutions[0].path], right=lambda steps: [step[0] < "c" for step in steps])
    assert {row["text"].strip(): hover(row).split("<br>") for row in rows.to_dict("records")} == {
        "": ["problem"],
        "a": ["a", "", "kept and expanded", "score 0.900", RIGHT, "2 equal siblings", CHOSEN],
        "b": ["b", "", "finished, not returned", "score 0.250", RIGHT],
        "c": ["c", "", "dropped", "score 0.100", WRONG],
        "d": ["d", "", "finished: a solution", "score 0.500", WRONG, CHOSEN],
        "e": ["e", "", "finished: a solution", "score 0.400", WRONG, "3 equal siblings"],
    }


STEP = {"state": "kept", "score": 0.5, "right": None, "count": 1, "chosen": False}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ('<a href="https://example.org">5</a>', '&lt;a href="https://example.org"&gt;5&lt;/a&gt;'),
        ("1 &lt; 2 & <b>3</b>", "1 &amp;lt; 2 &amp; &lt;b&gt;3&lt;/b&gt;"),
        ("first\n\nthen<br>last", "first then&lt;br&gt;last"),
        ("%{x} $7+3=10$", "%{x} $7+3=10$"),
        ("\n\n", "(blank)"),
    ],
)
def test_a_step_is_text_and_never_markup(text, shown):
    assert hover(STEP | {"text": text}) == f"{shown}<br><br>kept and expanded<br>score 0.500"


def test_a_long_step_is_wrapped_and_cut_before_it_is_escaped():
    lines = hover(STEP | {"text": "< " * 1000, "score": float("nan")}).split("<br>")
    assert lines[-3:] == ["", "kept and expanded", "no score"]
    step = " ".join(lines[:-3]).replace("&lt;", "<")
    assert step == ("< " * 1000)[:LONGEST].strip() + " …" or step == ("< " * 1000)[:LONGEST] + "…"
    assert all(len(line.replace("&lt;", "<")) <= LINE for line in lines)
    assert max(len(line) for line in hover(STEP | {"text": "x" * 1000}).split("<br>")) <= LINE


def test_titles_are_escaped(tables):
    drawn = figure({"<b>beam</b>": tables["DVTS"]})
    assert [note.text for note in drawn.layout.annotations] == ["&lt;b&gt;beam&lt;/b&gt;"]


@pytest.mark.slow
def test_a_view_holds_plotly_and_the_static_picture_and_is_the_same_twice(tables):
    shown = view(tables)._repr_mimebundle_()
    assert set(shown) == {PLOTLY, "image/png"}
    height, width, _ = matplotlib.image.imread(BytesIO(base64.b64decode(shown["image/png"]))).shape
    picture = draw(tables)
    assert (width, height) == tuple(picture.get_size_inches() * DPI // 1)
    assert shown[PLOTLY]["layout"]["height"] == pytest.approx(height, abs=1)
    assert shown[PLOTLY]["config"]["typesetMath"] is False
    assert plt.get_fignums() == [picture.number], "a view closes its own"
    again = view(tables, picture)._repr_mimebundle_()
    assert plt.get_fignums() == []
    assert json.dumps(again, allow_nan=False) == json.dumps(shown, allow_nan=False)
    assert len(json.dumps(shown, indent=1)) < 300_000


def test_plotly_is_loaded_only_when_a_view_is_made():
    code = "import sys, tts.plots.interactive; sys.exit('plotly' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
