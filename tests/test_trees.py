"""Trees: every node in its place and its state, every picture with the same bytes twice."""

import asyncio

import fakes
import matplotlib.pyplot as plt
import numpy as np
import pytest
from fakes import PROBLEM, ScriptedPolicy, ScriptedScorer, by_hash, by_last, dice, table, with_sampling

from tts.plots.saving import save_figure
from tts.plots.trees import STATES, draw, node_table
from tts.strategies import beam_search, best_of_n, dvts, majority

MIXED = ("a\n\n", "b\n\n", "cc\n\n", "\n\n", "d$", "ee$", "$")  # steps, blank ones, ends, an end after a blank line


def run(strategy, script, rule=by_hash, **settings):
    scorers = () if strategy is majority else (ScriptedScorer(rule),)
    return asyncio.run(strategy(PROBLEM, ScriptedPolicy(script), *scorers, **with_sampling(**settings)))


@pytest.fixture
def by_hand():
    return run(beam_search, *fakes.by_hand(), n=4, beam_width=2)


def test_node_table_by_hand(by_hand):
    chosen = by_hand.solutions[1].path
    rows = node_table(by_hand, chosen=[chosen]).set_index("path")
    assert chosen == (0, 3, 0, 0)
    assert rows.state.to_dict() == {
        "0": "root",
        **dict.fromkeys(["0.0", "0.2", "0.1.1", "0.3.1"], "dropped"),
        **dict.fromkeys(["0.1", "0.3", "0.3.0", "0.3.0.2"], "kept"),
        **dict.fromkeys(["0.1.0", "0.3.0.0", "0.3.0.1", "0.3.0.2.0"], "solution"),
    }
    assert rows.x.to_dict() == {
        **{"0": 1.5, "0.0": 0, "0.1": 1, "0.2": 2, "0.3": 3},
        **{"0.1.0": 0, "0.1.1": 1, "0.3.0": 2, "0.3.1": 3},  # centred they would be 0.5, 1.5, 2.5 and 3.5
        **{"0.3.0.0": 1, "0.3.0.1": 2, "0.3.0.2": 3, "0.3.0.2.0": 3},
    }
    assert rows.depth.to_dict() == {path: path.count(".") for path in rows.index}
    assert rows.score["0.3.0"] == 0.7
    assert np.isnan(rows.score["0"])
    assert rows.text["0.1.0"] == "e"
    assert set(rows.index[rows.chosen]) == {"0", "0.3", "0.3.0", "0.3.0.0"}


def test_a_solution_that_is_forgotten_a_cut_step_and_a_copy_are_told_apart():
    script = table({"": ["a$", "b\n\n", "b\n\n", "ccccccccc"], "b\n\n": ["dddddddd", "e$", "f$", "g$"]})
    settings = {"n": 4, "beam_width": 4, "max_tokens": 8, "drop_duplicates": True}
    rows = node_table(run(dvts, script, by_last(a=0.1, b=0.9, e=0.5, f=0.5, g=0.5), **settings)).set_index("path")
    assert rows.state[["0.0", "0.1", "0.2"]].tolist() == ["finished", "kept", "cut"]
    assert rows["count"][["0.0", "0.1", "0.2"]].tolist() == [1, 2, 1], "the copy is one with its sibling"
    assert rows.state[["0.1.0", "0.1.1"]].tolist() == ["cut", "solution"]
    assert rows.score[["0.2", "0.1.0"]].isna().all()


def test_independent_samples_are_chains_of_one_root():
    script = table({"": ["a\n\nb$", "$", "a\n\ncccc"]})
    best = run(best_of_n, script, by_last(a=0.5, b=0.9, ccc=0.1), n=3, max_tokens=6)
    rows = node_table(best, chosen=[(0,), (1,)]).set_index("path")  # sample 1 is blank: it has no step to mark
    assert rows.text.to_dict() == {"0": "", "0.0": "a\n\n", "0.0.0": "b", "0.2": "a\n\n", "0.2.0": "ccc"}
    assert rows.state.tolist() == ["root", "kept", "kept", "solution", "cut"]
    assert rows.score.fillna(-1).to_dict() == {"0": -1, "0.0": 0.5, "0.2": 0.5, "0.0.0": 0.9, "0.2.0": 0.1}
    assert set(rows.index[rows.chosen]) == {"0", "0.0", "0.0.0"}
    assert rows.x.to_dict() == {"0": 0.5, "0.0": 0, "0.2": 1, "0.0.0": 0, "0.2.0": 1}
    rows.loc["0.2", "score"] = np.nan  # longer than the scorer's context
    without = node_table(run(majority, dice(*MIXED), n=4))
    assert without.score.isna().all()
    fig = draw({"Best-of-N": rows.reset_index(), "majority": without})
    for ax, drawn in zip(fig.axes, (rows, without), strict=False):
        assert sum(marks.get_offsets()[:, 0].count() for marks in ax.collections) == len(drawn)  # masked: not drawn
    plt.close(fig)


def test_equal_siblings_are_one_with_all_that_follows_them():
    """Two equal a's, of which both go on: their children are one family; an end is another thing than a step."""
    draws = {"": ["a\n\n", "a\n\n", "b\n\n", "a$"], "a\n\n": ["c$", "d$", "c$"]}
    search = run(beam_search, table(draws), by_last(a=0.9, b=0.1, c=0.5, d=0.4), n=4, beam_width=2)
    rows = node_table(search, right=lambda steps: [step.strip() != "d" for step in steps]).set_index("path")
    assert rows.text.str.strip().to_dict() == {"0": "", "0.0": "a", "0.1": "b", "0.2": "a", "0.0.0": "c", "0.0.1": "d"}
    assert rows["count"].to_dict() == {"0": 1, "0.0": 2, "0.1": 1, "0.2": 1, "0.0.0": 2, "0.0.1": 1}
    assert rows.state.to_dict() == {
        "0": "root",
        "0.0": "kept",
        "0.1": "dropped",
        **dict.fromkeys(["0.2", "0.0.0", "0.0.1"], "solution"),
    }
    assert rows.right.to_dict() == {"0": None, "0.0": True, "0.1": True, "0.2": True, "0.0.0": True, "0.0.1": False}
    fig = draw({"merged": rows.reset_index()}, texts=True)
    rings = [marks for marks in fig.axes[0].collections if len(marks.get_facecolor()) == 0]
    assert [len(marks.get_offsets()) for marks in rings] == [4]
    assert "c\n0.50 ×2" in [text.get_text() for text in fig.axes[0].texts]
    plt.close(fig)


@pytest.mark.parametrize("strategy", [beam_search, dvts])
@pytest.mark.parametrize("n", [1, 4, 10, 64])
def test_every_row_is_in_order_without_overlap_or_crossing(strategy, n):
    for seed in range(5):
        search = run(strategy, dice(*MIXED), n=n, depth=8, seed=seed)
        rows = node_table(search)
        assert rows["count"].sum() == len(search.nodes) + len(search.ended)
        assert set(rows.state) <= set(STATES)
        assert rows.x.min() >= 0
        for _, row in rows.groupby("depth"):
            assert (np.diff(row.x) >= 1 - 1e-9).all()  # by path: children of one parent stand together, in its order
        widest = rows[rows.depth > 0].groupby("depth").size().max()
        if len(search.ended) == 1:
            assert rows.x.max() <= widest - 1 + 1e-9


def test_a_search_whose_first_steps_were_all_cut_has_a_picture():
    search = run(beam_search, table({"": ["aaaa"] * 4}), n=4, max_tokens=3)
    assert search.solutions == []
    rows = node_table(search)
    assert rows.state.tolist() == ["root", "cut"]
    assert rows["count"].tolist() == [1, 4]
    plt.close(draw({"all cut": rows}))


@pytest.mark.slow
def test_pictures_have_a_panel_a_tree_and_the_same_bytes_twice(by_hand, tmp_path):
    wide = run(dvts, dice(*MIXED), n=24)
    tables = {"beam": node_table(by_hand, chosen=[by_hand.solutions[0].path]), "DVTS": node_table(wide)}
    for folder in ("one", "two"):
        fig = draw(tables)
        panels = [ax for ax in fig.axes if ax.get_title(loc="left")]
        assert [ax.get_title(loc="left") for ax in panels] == ["beam", "DVTS"]
        numbers = [len(ax.texts) for ax in panels]
        assert numbers == [12, 0]  # a wide tree has no room for numbers
        save_figure(fig, "tree", tables["beam"], "Trees.", folder=tmp_path / folder)
        plt.close(fig)
    for suffix in ("png", "svg", "csv"):
        assert (tmp_path / "one" / f"tree.{suffix}").read_bytes() == (tmp_path / "two" / f"tree.{suffix}").read_bytes()
