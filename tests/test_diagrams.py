"""Figure 6 draws what the numbers say, and any text that a model may write."""

import warnings

import matplotlib.pyplot as plt
import pytest

from tts.plots.diagrams import reductions, step_bars
from tts.plots.saving import save_figure


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def test_bars_are_as_long_as_their_scores():
    ax = plt.figure().add_subplot()
    step_bars(ax, ["$1+1=2$", "So."], [0.75, 0.25], wrong=1)
    widths = {(round(bar.get_y() + bar.get_height() / 2), bar.get_width()) for bar in ax.patches}
    assert widths == {(0, 1), (0, 0.75), (-1, 1), (-1, 0.25)}  # each on a track of length 1
    words = [text.get_text() for text in ax.texts]
    assert words == ["0.750", "$1+1=2$", "0.250", "So.", "first wrong step"]


def test_lines_come_from_the_steps_that_a_reduction_looks_at():
    fig = reductions(["a", "b", "c"], [0.9, 0.4, 0.7], {"min": 0.4, "prod": 0.252, "last": 0.7})
    starts = [(line.get_color(), -line.get_ydata()[0]) for line in fig.axes[0].lines]
    colours = list(dict.fromkeys(colour for colour, _ in starts))
    assert [[k for colour, k in starts if colour == one] for one in colours] == [[1], [0, 1, 2], [2]]
    assert {"min = 0.400", "prod = 0.252", "last = 0.700"} <= {text.get_text() for text in fig.axes[0].texts}


def test_any_text_can_be_drawn(tmp_path):
    steps = [r"$\frac{1}{2", "$$", "a\x00b\x1b[0m\nc", "<&>", "very long " * 50, ""]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a letter that the font lacks
        fig = reductions(steps, [0.1] * len(steps), {"last": 0.1})
        save_figure(fig, "any", None, folder=tmp_path, caption="c", alt="a")
    drawn = (tmp_path / "any.svg").read_text()
    assert "\x00" not in drawn
    assert "\x1b" not in drawn
    assert max(len(text.get_text()) for text in fig.axes[0].texts) <= 40
