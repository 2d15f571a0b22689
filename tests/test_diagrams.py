"""Figure 3 draws what the strategies do; figure 6 what the numbers say, and any text that a model may write."""

import asyncio
import warnings
from collections import Counter
from functools import partial

import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import same_color

from tts.plots.diagrams import _typeset, reductions, search_strategies, step_bars
from tts.plots.saving import save_figure
from tts.plots.scripted import scripted_search
from tts.plots.style import CHOSEN
from tts.plots.trees import STATES, node_table
from tts.strategies import beam_search, best_of_n, dvts


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


@pytest.fixture
def three():
    """The three searches of figure 3."""
    strategies = (best_of_n, partial(beam_search, beam_width=2), partial(dvts, beam_width=2))
    return [scripted_search(strategy, n=4) for strategy in strategies]


def test_figure_3_is_what_the_strategies_do(three):
    best, beam, trees = three
    assert [len(search.solutions) for search in three] == [4, 4, 4]
    rows = node_table(best, chosen=[best.solutions[2].path])
    assert (rows.groupby("depth").size() == [1, 4, 4, 4, 4]).all()  # a root and four chains
    assert rows[rows.chosen].text.tolist() == ["", *best.solutions[2].steps]
    kept = [node.path for node in beam.nodes if node.fate == "kept"]
    assert Counter(map(len, kept)) == {2: 2, 3: 2, 4: 2}  # N / M at each depth, (tree, child, ...)
    assert {path[0] for path in kept} == {0}
    kept = [node.path for node in trees.nodes if node.fate == "kept"]
    assert Counter((len(path), path[0]) for path in kept) == {(d, t): 1 for d in (2, 3, 4) for t in (0, 1)}


def test_figure_3_draws_these_searches(three):
    fig = search_strategies()
    assert [ax.get_title() for ax in fig.axes] == ["Best-of-N", "Beam search", "DVTS"]
    for ax, search in zip(fig.axes, three, strict=True):
        rows = node_table(search)
        drawn = sorted(tuple(place) for marks in ax.collections for place in marks.get_offsets())
        assert drawn == sorted(zip(rows.x, rows.depth, strict=True))
        assert [text.get_text() for text in ax.texts] == [f"{score:.2f}" for score in rows.score.dropna()]
        [stars] = [marks for marks in ax.collections if len(marks.get_facecolor()) == len(search.solutions)]
        orange = [same_color(colour, CHOSEN) for colour in stars.get_facecolor()]
        scores = rows.score[rows.state == "solution"]
        assert orange == (scores == scores.max()).tolist()
    words = [text.get_text() for text in fig.legends[0].get_texts()]
    assert words[:4] == [STATES[state][2] for state in ("root", "kept", "dropped", "solution")]


def test_figure_3_is_drawn_where_an_event_loop_runs():
    async def cell():
        return search_strategies()

    assert len(asyncio.run(cell()).axes) == 3


def test_bars_are_as_long_as_their_scores():
    ax = plt.figure().add_subplot()
    step_bars(ax, ["$1+1=2$", "So."], [0.75, 0.25], wrong=1)
    widths = {(round(bar.get_y() + bar.get_height() / 2), bar.get_width()) for bar in ax.patches}
    assert widths == {(0, 1), (0, 0.75), (-1, 1), (-1, 0.25)}  # each on a track of length 1
    words = [text.get_text() for text in ax.texts]
    assert words == ["0.750", "$1+1=2$", "0.250", "So.", "first wrong step"]
    assert [text.get_parse_math() for text in ax.texts if text.get_text() in ("$1+1=2$", "So.")] == [True, False]


def test_lines_come_from_the_steps_that_a_reduction_looks_at():
    three = {"min": 0.4, "prod": 0.252, "last": 0.7}
    fig = reductions({"typical": (["a", "b", "c"], [0.9, 0.4, 0.7], three), "rare": (["d"], [0.1], {"last": 0.1})})
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["typical", "rare"]
    starts = [(line.get_color(), -line.get_ydata()[0]) for line in fig.axes[0].lines]
    colours = list(dict.fromkeys(colour for colour, _ in starts))
    assert [[k for colour, k in starts if colour == one] for one in colours] == [[1], [0, 1, 2], [2]]
    assert {"min = 0.400", "prod = 0.252", "last = 0.700"} <= {text.get_text() for text in fig.axes[0].texts}


def test_any_text_can_be_drawn(tmp_path):
    steps = [r"$\frac{1}{2", "$$", "a\x00b\x1b[0m\nc", "<&>", "very long " * 50, ""]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a letter that the font lacks
        fig = reductions({"any": (steps, [0.1] * len(steps), {"last": 0.1})})
        save_figure(fig, "any", None, "Any text.", folder=tmp_path)
    drawn = (tmp_path / "any.svg").read_text()
    assert "\x00" not in drawn
    assert "\x1b" not in drawn
    assert max(len(text.get_text()) for text in fig.axes[0].texts) <= 40


@pytest.mark.parametrize(
    ("step", "drawn"),
    [
        (r"So $\boxed{7}$.", (r"So $\mathbf{7}$.", True)),
        (r"Then $3\cdot2=6$.\n\n", (r"Then $3\cdot2=6$.", True)),
        (r"$\frac{1}{2", (r"$\frac{1}{2", False)),  # can't be set
        ("no formula", ("no formula", False)),
        ("x" * 50, ("x" * 39 + "…", False)),
    ],
)
def test_a_step_is_set_as_mathematics_where_it_can_be(step, drawn):
    assert _typeset(step.replace("\\n", "\n"), 40) == drawn
