"""Figures: the same bytes every time, and never without words or points."""

import json

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.layout_engine import ConstrainedLayoutEngine

from tts.plots.accuracy import accuracy_figure, choice_map, difficulty_bars, difficulty_panels, panels, verifier_panels
from tts.plots.saving import gallery, save_figure
from tts.plots.style import GREY, STRATEGIES, label_right, log2_axis, style

WORDS = {"says": "A line [that]\n rises."}


@pytest.fixture(autouse=True)
def _plain_style():
    with plt.rc_context():
        yield
    plt.close("all")


def draw(points):
    style()
    fig, ax = plt.subplots()
    ax.plot(points.n, points.accuracy, **STRATEGIES["majority"].line)
    ax.fill_between(points.n, points.accuracy - 0.1, points.accuracy + 0.1, alpha=0.2)
    log2_axis(ax, points.n).legend()
    return fig


@pytest.fixture
def points():
    return pd.DataFrame({"n": [1, 2, 4], "accuracy": [1 / 3, 0.5, 2 / 3]})


def test_a_readers_matplotlibrc_has_no_say():
    with matplotlib.rc_context({"text.usetex": True, "font.size": 30, "axes.facecolor": "red"}):
        style()
        assert (matplotlib.rcParams["text.usetex"], matplotlib.rcParams["font.size"]) == (False, 10)
        assert matplotlib.rcParams["axes.facecolor"] == "white"


def test_same_bytes_twice(tmp_path, points):
    for folder in ("one", "two"):
        save_figure(draw(points), "maj", points, folder=tmp_path / folder, **WORDS)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["maj.csv", "maj.json", "maj.png", "maj.svg"]
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_a_figure_is_laid_out_once_and_everywhere_alike(tmp_path, points, monkeypatch):
    laid_out = []
    execute = ConstrainedLayoutEngine.execute
    monkeypatch.setattr(ConstrainedLayoutEngine, "execute", lambda *a: laid_out.append(a) or execute(*a))
    fig = draw(points)
    save_figure(fig, "maj", points, folder=tmp_path, **WORDS)
    place = fig.axes[0].get_position().bounds
    fig.canvas.draw()  # as a notebook shows it
    assert len(laid_out) == 1
    assert fig.axes[0].get_position().bounds == place != (0, 0, 1, 1)


def test_labels_in_the_margin_keep_their_distance():
    ax = plt.figure().add_subplot()
    label_right(ax, {"high": 60.0, "low": 30.0, "hardly higher": 31.0}, gap=5)
    assert [(text.get_text(), text.xy[1]) for text in ax.texts] == [("low", 30), ("hardly higher", 35), ("high", 60)]
    plt.close(ax.figure)


def test_csv_has_the_points_and_the_sidecar_the_words(tmp_path, points):
    save_figure(draw(points), "maj", points, folder=tmp_path, **WORDS)
    assert (tmp_path / "maj.csv").read_text() == "n,accuracy\n1,0.333333\n2,0.5\n4,0.666667\n"
    words = json.loads((tmp_path / "maj.json").read_text())
    alt = "A line [that] rises. Chart against generations per problem, N. 3 points."
    assert words == {"caption": "A line [that] rises.", "alt": alt}
    assert ">majority voting</text>" in (tmp_path / "maj.svg").read_text()  # text stays text


def test_diagram_has_no_points(tmp_path, points):
    save_figure(draw(points), "diagram", None, folder=tmp_path, **WORDS)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".png", ".svg"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"says": " "}, "says of figure maj is empty"),
        ({"data": pd.DataFrame()}, "data of figure maj is empty"),
        ({"name": "../maj"}, "name='../maj'"),
        ({"name": ""}, "name=''"),
    ],
)
def test_nothing_is_written_without_words_points_or_a_name(tmp_path, points, change, message):
    with pytest.raises(ValueError, match=message):
        save_figure(draw(points), **{"name": "maj", "data": points, "folder": tmp_path, **WORDS, **change})
    assert not list(tmp_path.iterdir())


def test_a_figure_of_accuracy_has_curves_error_bars_and_all_its_greedy_lines():
    rows = [(method, n, n / 10, n / 10 - 0.05, n / 10 + 0.1) for method in ("majority", "dvts") for n in (2, 4)]
    points = pd.DataFrame(rows, columns=["method", "n", "accuracy", "low", "high"])
    lines = pd.DataFrame({"method": ["greedy small", "greedy large"], "accuracy": [0.05, 0.9]})
    [ax] = accuracy_figure(points, [2, 4], greedy=lines).axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in ax.lines if len(line.get_xdata()) == 2}
    assert drawn["majority voting"] == [20, 40]
    [(line, caps, _)] = ax.containers
    assert list(line.get_ydata()) == [20, 40]
    assert [list(cap.get_ydata()) for cap in caps] == [pytest.approx([15, 35]), pytest.approx([30, 50])]
    low, high = ax.get_ylim()
    assert low < 5 < 90 < high
    assert [text.get_text() for text in ax.texts] == ["greedy small", "greedy large"]
    assert [text.get_text() for text in ax.figure.legends[0].get_texts()] == ["majority voting", "DVTS"]
    assert accuracy_figure(points, [2, 4], greedy=lines, ylim=(0, 100)).axes[0].get_ylim() == (0, 100)


@pytest.mark.slow
def test_the_map_of_choices_says_method_and_accuracy_and_leaves_the_style_alone(tmp_path):
    style()
    before = dict(plt.rcParams)
    accuracy = np.array([[1, 0.98], [0.9, 0.8], [0.5, 0.6], [0.2, 0.3], [0, 0.123]])
    labels = np.array([["majority voting", "Best-of-N, weighted"], *[["DVTS", "beam search"]] * 4])
    for folder in ("one", "two"):
        fig = choice_map(accuracy, labels, [4, 16])
        ax = fig.axes[0]
        save_figure(fig, "map", None, "A map.", folder=tmp_path / folder)
    words = [text.get_text() for text in ax.texts]
    assert words[:2] == ["majority voting\n100%", "Best-of-N,\nweighted\n98%"]
    assert words[-2:] == ["DVTS\n0%", "beam search\n12%"]
    assert ax.get_ylim() == (5, 0)  # the easiest quintile on top
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["4", "16"]
    for suffix in ("png", "svg"):
        assert (tmp_path / "one" / f"map.{suffix}").read_bytes() == (tmp_path / "two" / f"map.{suffix}").read_bytes()
    assert dict(plt.rcParams) == before


def luminance(colour):
    """Relative luminance of a colour in sRGB, as WCAG 2.1 defines it."""
    parts = np.array(to_rgb(colour))
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


def test_text_on_the_map_of_choices_has_the_contrast_that_wcag_asks_for():
    accuracy = np.linspace(0, 1, 105).reshape(5, 21)
    ax = choice_map(accuracy, np.full(accuracy.shape, "DVTS"), range(21)).axes[0]
    for words, cell in zip(ax.texts, ax.collections[0].get_facecolors(), strict=True):
        dark, light = sorted((luminance(words.get_color()), luminance(cell[:3])))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, words.get_text()


NUMBERS = pd.DataFrame(
    {
        "method": ["majority", "majority", "greedy 8B"],
        "n": [2, 64, None],
        "accuracy": [0.3, 0.5, 0.7],
        "label": ["", "", "8B"],
        "source": ["a chart", "a chart", "a paper"],
    }
)


def rows_of(methods, n=(2, 4), **columns):
    """Points of these methods at N = 2 and 4, each with an interval of 5 points down and 10 up."""
    rows = [(method, at, i / 5, i / 5 - 0.05, i / 5 + 0.1) for method in methods for i, at in enumerate(n, 1)]
    return pd.DataFrame(rows, columns=["method", "n", "accuracy", "low", "high"]).assign(**columns)


def entries(fig):
    return [text.get_text() for text in fig.legends[0].get_texts()]


def test_the_writeups_numbers_are_grey_marks_of_the_methods_shape_where_n_is_shown():
    [ax] = accuracy_figure(rows_of(["majority"]), [2, 4], writeup=NUMBERS).axes
    marks = [line for line in ax.lines if line.get_color() == GREY]
    seen = [(list(line.get_xdata()), list(line.get_ydata()), line.get_marker()) for line in marks]
    assert seen == [([2.0], [30.0], "o"), ([0, 0.018], [70, 70], "None")]  # N = 64 is not on the axis
    assert [text.get_text() for text in ax.texts] == ["8B"]
    assert entries(ax.figure)[1:] == ["the writeup's models, same marks", "the writeup's greedy baselines"]
    own = next(line for line in ax.lines if line.get_label() == "majority voting")
    assert marks[0].get_markerfacecolor() == "none", "what lies under it can be seen"
    assert (marks[0].zorder, marks[0].get_markersize()) > (own.zorder, own.get_markersize())
    assert marks[0].get_markersize() > own.get_markersize(), "and it can be seen around a mark of ours"


def test_labels_at_the_left_edge_are_clear_of_the_first_marks():
    fig = accuracy_figure(rows_of(["majority"], n=[1, 64]), [1, 64], writeup=NUMBERS)
    fig.canvas.draw()
    ax = fig.axes[0]
    radius = 5.5 / 2 * fig.dpi / 72
    label = ax.texts[0].get_window_extent()
    assert label.x1 < ax.transData.transform((1, 50))[0] - radius


def test_a_method_of_the_writeups_alone_has_its_own_entry():
    theirs = NUMBERS[:1].assign(method="theirs")
    looks = {"theirs": {"label": "best single method", "marker": "X"}}
    fig = accuracy_figure(rows_of(["majority"]), [2, 4], writeup=theirs, looks=looks)
    assert entries(fig) == ["majority voting", "the writeup's best single method"]
    assert fig.legends[0].legend_handles[1].get_marker() == "X"
    out_of_sight = accuracy_figure(rows_of(["majority"]), [2, 4], writeup=theirs.assign(n=64), looks=looks)
    assert entries(out_of_sight) == ["majority voting"]


def test_every_method_has_a_mark_that_the_writeups_can_have_too():
    assert [name for name, look in STRATEGIES.items() if not look.marker] == ["greedy"]


def test_the_writeups_marks_stand_where_those_of_the_same_method_do():
    theirs = pd.concat([NUMBERS[:1], NUMBERS[:1].assign(method="dvts")])
    methods = ["majority", "dvts", "beam_search"]
    fig = panels({"all": rows_of(methods)}, [2, 4], writeup={"all": theirs}, apart=0.5)
    ours = {line.get_color(): line.get_xdata()[0] for line, _, _ in fig.axes[0].containers}
    marks = {line.get_marker(): line.get_xdata()[0] for line in fig.axes[0].lines if line.get_color() == GREY}
    for method in ("majority", "dvts"):
        assert marks[STRATEGIES[method].marker] == ours[STRATEGIES[method].color]
    assert marks["o"] < 2 == marks["D"]


def test_the_legend_says_what_is_known_of_the_writeup():
    fig = accuracy_figure(rows_of(["majority"]), [2, 4], writeup=NUMBERS[2:])
    assert entries(fig)[1:] == ["the writeup's greedy baselines"]


def test_panels_have_bars_and_no_bands():
    points = rows_of(["majority", "dvts"])
    fig = panels({"some": points}, [2, 4], dotted={"some": rows_of(["majority"])}, writeup={"some": NUMBERS})
    [ax] = fig.axes
    assert (len(ax.containers), len(ax.collections)) == (2, 2), "the bars of two methods, and nothing else"
    lines = [line.get_linestyle() for line in ax.lines if line.get_color() == STRATEGIES["majority"].color]
    assert [dash for dash in lines if dash != "None"] == ["-", ":"], "None: the caps of the bars"
    assert entries(fig) == ["majority voting", "DVTS", "coverage", "the writeup's models, same marks"]
    assert fig.legends[0].legend_handles[2].get_linestyle() == ":"


def test_paired_differences_stand_below_and_take_the_intervals_from_the_curves():
    points, paired = rows_of(["majority", "dvts"]), rows_of(["dvts"])
    above, below = accuracy_figure(points, [2, 4], paired=paired).axes
    assert not above.collections
    assert not above.containers, "no bands or bars that hide a paired difference"
    [(line, caps, _)] = below.containers
    assert list(line.get_ydata()) == [20, 40]
    assert line.get_linestyle() == "None"
    assert [list(cap.get_ydata()) for cap in caps] == [pytest.approx([15, 35]), pytest.approx([30, 50])]
    assert list(below.lines[0].get_ydata()) == [0, 0]


def test_differences_by_verifier_stand_in_a_panel_a_question():
    """By hand: two verifiers, of which the second has no DVTS at N = 16."""
    rows = [
        ("N = 4, minus Best-of-N", "strong", "beam_search", 0.1, 0.05, 0.2),
        ("N = 4, minus Best-of-N", "strong", "dvts", 0.3, 0.2, 0.4),
        ("N = 16, minus Best-of-N", "strong", "dvts", 0.2, 0.1, 0.3),
        ("N = 4, minus Best-of-N", "weak", "beam_search", -0.1, -0.3, 0.0),
        ("N = 4, minus Best-of-N", "weak", "dvts", 0.0, -0.1, 0.1),
    ]
    columns = ["question", "verifier", "method", "accuracy", "low", "high"]
    four, sixteen = verifier_panels(pd.DataFrame(rows, columns=columns)).axes
    assert [ax.get_title() for ax in (four, sixteen)] == ["N = 4,\nminus Best-of-N", "N = 16,\nminus Best-of-N"]
    assert [text.get_text() for text in four.get_xticklabels()] == ["strong", "weak"]
    (beam, caps, _), (dvts, _, _) = four.containers
    assert list(beam.get_xdata()) == pytest.approx([-0.1, 0.9])
    assert list(beam.get_ydata()) == pytest.approx([10, -10])
    assert [list(cap.get_ydata()) for cap in caps] == [pytest.approx([5, -30]), pytest.approx([20, 0])]
    assert list(dvts.get_xdata()) == pytest.approx([0.1, 1.1]), "side by side"
    [(alone, _, _)] = sixteen.containers
    assert (list(alone.get_xdata()), list(alone.get_ydata())) == ([0], [20])


def test_the_differences_of_one_n_stand_on_one_strip():
    methods = ["majority", "dvts", "beam_search"]
    below = accuracy_figure(rows_of(methods), [2, 4], paired=rows_of(methods)).axes[1]
    ends = [(strip.get_x(), strip.get_x() + strip.get_width()) for strip in below.patches]
    assert len(ends) == 2
    assert ends[0][1] < ends[1][0]
    for i, (left, right) in enumerate(ends):
        at = [line.get_xdata()[i] for line, _, _ in below.containers]
        assert left < min(at) <= (2, 4)[i] <= max(at) < right


def test_difficulty_has_a_panel_a_quintile_and_one_for_all_problems():
    methods = ["majority", "best_of_n_weighted"]
    points = pd.concat(rows_of(methods, quintile=q) for q in range(1, 6))
    fig = difficulty_panels(points, overall=rows_of(methods), writeup=NUMBERS)
    titles = [ax.get_title() for ax in fig.axes]
    assert titles[:3] == ["quintile 1 (easiest)", "quintile 2", "quintile 3"]
    assert titles[3:] == ["quintile 4", "quintile 5 (hardest)", "all problems"]
    assert all(len(ax.containers) == 2 for ax in fig.axes)
    assert [sum(line.get_color() == GREY for line in ax.lines) for ax in fig.axes] == [0, 0, 0, 0, 0, 1]
    [bars] = difficulty_bars(points).axes
    assert len(bars.patches) == 5 * 2 * 2


def test_log2_axis_has_plain_ticks(points):
    ax = draw(points).axes[0]
    ax.figure.canvas.draw()
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "2", "4"]


def test_strategies_are_told_apart_without_colour():
    looks = list(STRATEGIES.values())
    assert len({look.color for look in looks}) == len(looks)
    assert len({(look.marker, look.linestyle) for look in looks}) == len(looks)
    grey = [0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in (to_rgb(look.color) for look in looks)]
    assert max(grey) < 0.75  # readable on white


def test_gallery_lists_every_figure(tmp_path, points):
    save_figure(draw(points), "two", points, folder=tmp_path, **WORDS)
    save_figure(draw(points), "one", None, folder=tmp_path, **WORDS)
    page = gallery(tmp_path).read_text()
    assert page.index("## one") < page.index("## two")
    assert "![A line (that) rises. Chart" in page
    assert "](two.png)" in page
    assert "[SVG](two.svg) · [CSV](two.csv)" in page
    assert "one.csv" not in page
    assert gallery(tmp_path).read_text() == page


def test_gallery_links_the_notebook_that_saves_a_figure(tmp_path, points):
    notebooks = [tmp_path / "notebooks" / f"0{i}_x.ipynb" for i in (1, 2)]
    notebooks[0].parent.mkdir()
    notebooks[0].write_text(json.dumps({"cells": [{"source": ['save_figure(fig, "two")']}]}))
    notebooks[1].write_text(json.dumps({"cells": [{"source": ['save_figure(fig, "twofold")']}]}))
    save_figure(draw(points), "two", points, folder=tmp_path / "figures", **WORDS)
    page = gallery(tmp_path / "figures", notebooks=notebooks).read_text()
    assert "[CSV](two.csv) · [01_x](../notebooks/01_x.ipynb)" in page
    assert "02_x" not in page
