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


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (None, "It shows. Run: x."),
        (POINTS.assign(low=0, high=1), "95 % bootstrap intervals"),
        (POINTS.assign(low=0, high=1, quintile=1), "95 % Wilson intervals"),
        (POINTS, "Dashed lines are greedy decoding"),
        (POINTS.assign(flops=1), "Crosses are greedy decoding"),
        (POINTS.assign(source=["a chart", "a chart", None, "a paper"]), "on MATH-500: a chart; a paper."),
    ],
)
def test_a_caption_explains_the_marks_that_are_there(data, expected):
    words = caption("It shows.", "Run: x.", data)
    assert expected in words
    assert words.startswith("It shows.")
    assert words.endswith("Run: x.")
    assert ("Grey" in words) == (data is not None and "source" in data)


def test_an_alt_text_has_the_last_point_of_every_line():
    words = alt_text(axes(""), "It shows.", POINTS)
    assert words == (
        "It shows. Chart of accuracy (%) against N. majority voting 50% at N = 4; DVTS 25% at N = 4; greedy x 70%."
    )


def test_an_alt_text_names_panels_and_leaves_the_writeups_numbers_out():
    data = pd.concat([POINTS[:2].assign(quintile=2), POINTS[:1].assign(source="a chart", quintile=2)])
    words = alt_text(axes("one", "two"), "It shows.", data)
    assert "Chart in 2 panels (one, two)" in words
    assert "majority voting, quintile 2 50% at N = 4" in words
    assert "30%" not in words


def test_a_long_alt_text_says_how_much_it_leaves_out():
    many = pd.DataFrame({"method": [f"m{i}" for i in range(20)], "n": 4, "accuracy": 0.5})
    assert alt_text(axes(""), "It shows.", many).endswith("; and 8 more in the CSV.")


def test_other_values_than_shares_are_plain_numbers():
    bins = pd.DataFrame({"from": [0.0, 0.5], "to": [0.5, 1.0], "steps": [10, 250]})
    assert "250." in alt_text(axes(""), "It shows.", bins)


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
