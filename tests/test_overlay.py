"""Two runs in one figure: what is drawn is what the files say, and what can't be compared is refused in a line."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from tts.errors import InputError
from tts.plots import overlay


def points(method, heights):
    return pd.DataFrame(
        [(method, n, height, height - 0.1, height + 0.1) for n, height in heights.items()], columns=overlay.NEEDED
    )


RUNS = {
    "xs": pd.concat(
        [points("majority", {1: 0.3, 4: 0.4}), points("dvts", {4: 0.5}), points("greedy xs", {float("nan"): 0.3})]
    ),
    "s": pd.concat([points("majority", {4: 0.6, 1: 0.5}), points("greedy xs", {float("nan"): 0.3})]),
}


def test_the_methods_that_all_runs_have_are_drawn():
    fig = overlay.overlay(RUNS)
    drawn = [
        (list(line.get_xdata()), [round(y) for y in line.get_ydata()], line.get_linestyle())
        for line in fig.axes[0].lines
    ]
    assert drawn == [([1, 4], [30, 40], "-"), ([1, 4], [50, 60], "--")]
    labels = [text.get_text() for text in fig.legends[0].get_texts()]
    assert labels == ["majority voting", "xs", "s"]
    plt.close(fig)


def test_a_figures_other_panel_and_the_writeups_numbers_are_left_out(tmp_path):
    parts = [
        RUNS["xs"].assign(panel="accuracy"),
        points("majority", {4: 0.1}).assign(panel="difference"),
        points("majority", {4: 0.296}).assign(source="a chart"),
    ]
    pd.concat(parts).to_csv(tmp_path / "figure.csv", index=False)
    found = overlay.read(tmp_path / "figure.csv")
    pd.testing.assert_frame_equal(found[list(overlay.NEEDED)], RUNS["xs"].reset_index(drop=True))


def test_what_can_not_be_compared():
    with pytest.raises(InputError, match="'dvts' is not in every run: choose of majority"):
        overlay.overlay(RUNS, methods=["dvts"])
    with pytest.raises(InputError, match="no method in common"):
        overlay.overlay({"a": points("majority", {1: 0.1}), "b": points("dvts", {1: 0.1})})


def test_the_command(tmp_path, capsys):
    for label, run in RUNS.items():
        run.to_csv(tmp_path / f"{label}.csv", index=False)
    files = [str(tmp_path / f"{label}.csv") for label in RUNS]
    overlay.main([*files, "--out", str(tmp_path / "both.png")])
    assert (tmp_path / "both.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(InputError, match="--labels: give 2 different ones"):
        overlay.main([*files, "--labels", "one"])
    with pytest.raises(InputError, match="can't be read"):
        overlay.main([str(tmp_path / "none.csv")])
    pd.concat([RUNS["xs"], RUNS["xs"]]).to_csv(tmp_path / "twice.csv", index=False)
    with pytest.raises(InputError, match="has several points for a method and N"):
        overlay.main([str(tmp_path / "twice.csv")])
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="has no column method, n, accuracy, low, high"):
        overlay.main([str(tmp_path / "other.csv")])
