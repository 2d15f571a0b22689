"""Captions and alt texts are made from what is plotted."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from tts.plots.words import alt_text, caption

POINTS = pd.DataFrame(
    [("majority", 2, 0.3), ("majority", 4, 0.5), ("dvts", 4, 0.25), ("greedy x", None, 0.7)],
    columns=["method", "n", "accuracy"],
)


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def axes(*titles):
    fig, several = plt.subplots(1, len(titles), squeeze=False)
    for ax, title in zip(several[0], titles, strict=True):
        ax.set(title=title, xlabel="N", ylabel="accuracy (%)")
    return fig


OF_QUINTILES = POINTS[:3].assign(low=0, high=1, quintile=1.0)


def with_bars(fig):
    fig.axes[0].errorbar([1], [1], [1])
    return fig


def with_bands(fig):
    fig.axes[0].fill_between([1, 2], [0, 0], [1, 1])
    return fig


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (None, "It shows. Run: x."),
        (POINTS, "Dashed lines are greedy decoding"),
        (POINTS.assign(flops=1), "Crosses are greedy decoding"),
        (POINTS.assign(source=["a chart", "a chart", None, None]), "on MATH-500: a chart."),
    ],
)
def test_a_caption_explains_the_marks_that_are_there(data, expected):
    words = caption(axes(""), "It shows.", "Run: x.", data)
    assert expected in words
    assert words.startswith("It shows.")
    assert words.endswith("Run: x.")
    assert ("Grey" in words) == (data is not None and "source" in data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (POINTS.assign(low=0, high=1), "are 95 % bootstrap intervals over problems."),
        (OF_QUINTILES, "are 95 % Wilson intervals over problems."),
        (
            pd.concat([OF_QUINTILES, POINTS[:3].assign(low=0, high=1)]),
            "are 95 % Wilson intervals over problems, in the panel of all problems bootstrap intervals.",
        ),
        (
            pd.concat([OF_QUINTILES, POINTS[:1].assign(source="a chart")]),
            "are 95 % Wilson intervals over problems. Grey",
        ),
    ],
    ids=["curves", "quintiles", "quintiles and all problems", "quintiles and the writeup"],
)
def test_a_caption_names_the_intervals_that_are_drawn(data, expected):
    assert f"Error bars {expected}" in caption(with_bars(axes("")), "", "", data)
    assert f"Bands {expected}" in caption(with_bands(axes("")), "", "", data)
    assert f"Error bars and bands {expected}" in caption(with_bands(with_bars(axes("", ""))), "", "", data)


def test_a_caption_names_no_intervals_where_none_are_drawn():
    """Bars of accuracies, and curves without bands, whose points have intervals all the same."""
    fig = axes("")
    fig.axes[0].bar([1, 2], [1, 1])
    fig.axes[0].plot([1, 2], [1, 1], "o--")
    for data in (OF_QUINTILES, POINTS.assign(low=0, high=1)):
        assert "interval" not in caption(fig, "It shows.", "", data)


def test_a_caption_names_no_greedy_lines_that_are_the_writeups():
    theirs = POINTS.assign(source=["a chart", None, None, "a paper"])
    assert "greedy" not in caption(axes(""), "It shows.", "", theirs)


def test_an_alt_text_has_the_last_point_of_every_line():
    words = alt_text(axes(""), "It shows.", POINTS)
    assert words == (
        "It shows. Chart of accuracy (%) against N. majority voting: 50% at N = 4; DVTS: 25% at N = 4; greedy x: 70%."
    )


def test_an_alt_text_names_panels_and_leaves_the_writeups_numbers_out():
    data = pd.concat([POINTS[:2].assign(quintile=2), POINTS[:1].assign(source="a chart"), POINTS[2:3]])
    words = alt_text(axes("one", "two"), "It shows.", data)
    assert "Chart in 2 panels (one, two)" in words
    assert "majority voting, quintile 2: 50% at N = 4; DVTS: 25%" in words, "the quintile is a whole number"
    assert "30%" not in words


def test_an_alt_text_has_the_names_of_the_legend():
    rows = POINTS[2:3].assign(method="dvts_best")
    assert "DVTS, best child only: 25%" in alt_text(axes(""), "It shows.", rows)
    words = alt_text(axes(""), "It shows.", POINTS, {"majority": "independent samples"})
    assert "independent samples: 50% at N = 4; DVTS: 25%" in words


def test_differences_are_in_points():
    data = pd.DataFrame(
        [("dvts", "accuracy", 0.5), ("dvts", "difference", -0.021), ("beam_search", "difference", -0.001)],
        columns=["method", "panel", "accuracy"],
    )
    words = alt_text(axes("", ""), "It shows.", data)
    assert "DVTS, accuracy: 50%; DVTS, difference: -2.1 points; beam search, difference: -0.1 points" in words
    fig = axes("")
    fig.axes[0].set_ylabel("gain (points)")
    assert "majority voting: +50.0 points" in alt_text(fig, "It shows.", POINTS)


def test_a_long_alt_text_says_how_much_it_leaves_out():
    many = pd.DataFrame({"method": [f"m{i}" for i in range(20)], "n": 4, "accuracy": 0.5})
    assert alt_text(axes(""), "It shows.", many).endswith("; and 8 more in the CSV.")


def test_numbers_without_a_name_are_counted():
    bins = pd.DataFrame({"from": [0.0, 0.5], "to": [0.5, 1.0], "steps": [10, 250]})
    assert alt_text(axes(""), "It shows.", bins) == "It shows. Chart of accuracy (%) against N. 2 points."


def test_other_values_than_shares_are_plain_numbers():
    assert "x: 250." in alt_text(axes(""), "It shows.", pd.DataFrame({"method": ["x"], "steps": [250]}))


def test_a_diagram_is_its_words_and_a_tree_its_steps():
    fig = axes("parts")
    fig.axes[0].text(0, 0, "the policy\nsamples")
    fig.axes[0].text(0, 0, "0.5")
    assert alt_text(fig, "It shows.", None) == "It shows. Diagram with the words: parts; the policy samples; N."
    nodes = pd.DataFrame(
        {"path": ["0", "0.0", "0.1"], "depth": [0, 1, 1], "state": ["root", "kept", "dropped"], "count": [1, 3, 1]}
    )
    words = alt_text(axes(""), "It shows.", nodes.assign(tree="beam"))
    assert words == "It shows. Trees. beam: 4 steps down to depth 1 (1 dropped, 3 kept)."
