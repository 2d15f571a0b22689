"""What the notebooks' sentences say holds in the committed figures' points, and their cells are short.

A sentence about a result stands in STATEMENTS with its check. Sentences about how something works need none.
"""

import re
import statistics
from itertools import product
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from tts.companion import ledger_table
from tts.companion.parameters import notebooks

ROOT = Path(__file__).parents[1]
NOTEBOOKS = notebooks()
LONGEST, MEDIAN = 15, 7  # lines of a code cell


def points(name):
    """The committed points of a figure, without the writeup's."""
    table = pd.read_csv(ROOT / "figures" / f"{name}.csv")
    return table[table.source.isna()] if "source" in table else table


def at(table, method, value="accuracy"):
    """N -> value of a method."""
    rows = table[(table.method == method) & table.n.notna()]
    return rows.set_index("n")[value]


def apart(a, b, at_least=0.0):
    """Whether a is above b wherever both have a value, by more than at_least."""
    both = a.index.intersection(b.index)
    return len(both) > 0 and bool((a[both] - b[both] > at_least).all())


def paired(name, method):
    """N -> the interval's ends of the difference to weighted Best-of-N, in a figure's lower panel."""
    table = points(name)
    return table[(table.panel == "difference") & (table.method == method)].set_index("n")[["low", "high"]]


def claim_rows(claim, run=""):
    """The ledger's rows of a claim, from the default run or the one in figures/run."""
    rows = ledger_table.read(ROOT / "figures" / run)
    return rows[rows.claim == claim]


def verdicts(claim):
    """part -> verdict of a claim."""
    return claim_rows(claim).set_index("part").verdict


def level_up_to_two():
    majority = at(points("05_majority_voting"), "majority")
    return abs(majority[2] - majority[1]) < 0.005 and majority.iloc[-1] > majority[2]


def often_among_the_samples():
    table = points("05_majority_voting")
    return at(table, "pass_at_n").iloc[-1] > at(table, "majority").iloc[-1] + 0.1


def below_greedy():
    table = points("05_majority_voting")
    greedy = table[table.label == "policy-xs"].accuracy.item()
    return round(100 * at(table, "majority")[1]) == 25 and round(100 * greedy) == 35


def below_one_in_m():
    table = points("08_collapse")
    share, drawn = (at(table[table.kind == "first steps"], name, "value") for name in ("beam_search", "majority"))
    at_random = [1 / 4, drawn[4] * 4 / 16, drawn[16] * 16 / 64]  # N / M independent first steps, as a share of N
    return [round(100 * one) for one in at_random] == [25, 21, 14] and bool((share[[16, 64]] < at_random[1:]).all())


def ahead_of_both_votes():
    table = points("07_best_of_n")
    weighted, vanilla, plain = (at(table, name) for name in ("best_of_n_weighted", "best_of_n_vanilla", "majority"))
    return apart(weighted[weighted.index >= 2], plain) and apart(weighted[weighted.index >= 4], vanilla)


def vanilla_rises_and_falls():
    table = points("07_best_of_n")
    vanilla = at(table, "best_of_n_vanilla")
    return vanilla.iloc[0] < vanilla.max() > vanilla.iloc[-1] and vanilla.iloc[-1] < at(table, "majority").iloc[-1]


def not_told_from_best_of_n():
    ends = paired("10_all_methods", "beam_search")
    return bool((ends.low < 0).all()) and bool((ends.high > 0).all())


def ahead_on_hard_behind_on_easy():
    table = points("09_difficulty").dropna(subset=["quintile"])
    wide = table.pivot(index=["quintile", "n"], columns="method", values="accuracy")
    gain = (wide.beam_search - wide.best_of_n_weighted).unstack("n")
    hard = gain.loc[[4, 5]]
    return (
        bool((hard > 0).all(axis=None))
        and hard.sum(axis=1).idxmax() == 4
        and bool((gain.loc[[1, 2], 16:] < 0).all(axis=None))
    )


def searches_not_told_apart():
    return set(verdicts("6a")) | set(verdicts("6b")) == {"too few problems to judge"}


def dvts_covers_more():
    table = points("10_coverage")
    beam, trees, alone = (at(table, name) for name in ("beam_search", "dvts", "pass_at_n"))
    return apart(trees[trees.index >= 16], beam) and apart(alone, trees) and apart(alone, beam)


def vote_ahead_up_to_its_cost():
    table = points("10_cost").dropna(subset=["n"])
    once = table[table.scored == "once"]
    vote, others = once[once.method == "majority"].sort_values("flops"), once[once.method != "majority"]
    cheaper = others[others.flops <= vote.flops.max()]
    return all(vote[vote.flops <= row.flops].accuracy.max() > row.accuracy for row in cheaper.itertuples())


def greedy_better_and_cheaper():
    table = points("10_cost")
    greedy, others = table[table.method.str.startswith("greedy")], table[table.n > 1]
    return all(((greedy.flops < row.flops) & (greedy.accuracy > row.accuracy)).any() for row in others.itertuples())


def choice_gains_and_keeps_half():
    table = points("12_compute_optimal")
    two, single = (at(table[table.panel == "accuracy"], name) for name in ("two folds", "best single"))
    over = {name: at(table[table.panel == "difference"], name) for name in ("predicted", "best single")}
    kept = (over["predicted"] - over["best single"]) / (two - single)
    return bool((two - single).between(0.02, 0.06).all()) and bool((kept > 0.5).all())


def where_the_headline_ends():
    table = points("02_headline")
    reached = at(table, "policy-xs, compute-optimal").iloc[-1]
    next_larger = table[table.label.fillna("").str.startswith("policy-s")].accuracy.iloc[0]
    [first], [second] = verdicts("8a"), verdicts("8b")
    return reached > next_larger and first == "too few problems to judge" and second == "not reproduced"


def full_run_tells_beam_search():
    """The sentence is about figures/full, whose run has more problems."""
    table = points("full/08_beam_search")
    gain = at(table[table.panel == "difference"], "beam_search")
    return [round(100 * gain[n], 1) for n in (4, 64)] == [4.1, -2.0]


def full_run_tells_dvts():
    rows = [claim_rows("6b", run=run).iloc[0] for run in ("full", "n256")]
    return all(row.low > 0 for row in rows) and [f"{100 * row.ours:.1f}" for row in rows] == ["2.7", "3.5"]


def most_steps_are_often_right():
    steps = points("08_step_success").steps
    return [round(100 * steps.iloc[i] / steps.sum()) for i in (-1, 0)] == [55, 4]


def weaker_verifiers_cover_less():
    table = points("08_verifiers")
    found = {of: rows[rows.n == 16].set_index(["verifier", "method"]).accuracy for of, rows in table.groupby("of")}
    covers = [found["coverage"][name, "beam_search"] for name in ("exact", "prm-strong", "prm", "prm-weak")]
    exact = [found["coverage"]["exact", name] - found["accuracy"]["exact", name] for name in ("beam_search", "dvts")]
    return [round(100 * one) for one in covers] == [77, 60, 52, 41] and max(exact) < 0.03


def trees_by_quintile():
    table = points("11_difficulty").dropna(subset=["quintile"])
    wide = (100 * table[table.n == 64].pivot(index="quintile", columns="method", values="accuracy")).round()
    return wide.dvts.tolist() == [97, 72, 52, 25, 5] and wide.beam_search.tolist() == [93, 62, 47, 28, 10]


def of_the_second_policy():
    table = points("13_second_policy")
    best = at(table[table.panel == "accuracy"], "compute_optimal")
    rival = table[table.method == "greedy policy-l"].accuracy.item()
    return round(100 * (best[16] - rival)) == -6 and round(100 * (best[16] - best[4])) == 9


def greedy_against_the_real_models():
    table = points("13_second_policy").set_index("method").accuracy
    ours = [100 * table[f"greedy {name}"] for name in ("policy-xs", "policy-m")]
    return [round(a - b) for a, b in zip(ours, (26.0, 49.8), strict=True)] == [9, 5]


def searches_gain_most():
    table = points("14_verifiers").pivot(index="verifier", columns="method", values="accuracy")
    return table.loc["prm-weak"].idxmin() == table.loc["exact"].idxmax() == "beam_search"


def lost_where():
    table = points("14_share").pivot(index=["method", "verifier"], columns="part", values="value").xs("prm", level=1)
    way, vote = (table[f"lost by the verifier {where}"] for where in ("on the way", "in the vote"))
    return (
        way["beam_search"] > vote["beam_search"] and abs(way["best_of_n_weighted"]) < 1e-9 < vote["best_of_n_weighted"]
    )


def search_is_cheaper_than_best_of_n():
    table = points("14_cost").query("n == 16").pivot(index="verifier", columns="method", values="flops")
    share = table[["beam_search", "dvts"]].div(table.best_of_n_weighted, axis=0)
    return bool(share.drop("exact").stack().between(0.7, 0.95).all()) and bool(
        share.loc["exact"].between(0.98, 1.02).all()
    )


def vote_ahead_of_the_prm():
    table = points("15_self_verification")
    vote, prm = (table[table.method == name].sort_values("flops") for name in ("majority", "PRM"))
    both = prm[prm.flops <= vote.flops.max()]
    return all(vote[vote.flops <= row.flops].accuracy.max() > row.accuracy for row in both.itertuples()) and (
        prm.accuracy.max() > vote.accuracy.max() + 0.05
    )


def early_votes_save_little():
    table = points("16_early_vote")
    early = table[(table.method != "majority") & table.n.notna()]
    easiest = table[table.fifth == 1].samples
    return bool((early.n > 0.75 * 64).all()) and easiest.max() < early.n.min()


def moved_below_and_choice_above():
    table = points("17_moved_budget")
    ours = table[table.panel == "difference"].set_index("method").accuracy
    return bool((ours["moved"] < 0).all()) and bool((ours["compute-optimal"] > 0).all())


def lookahead_gains_nothing():
    return bool((claim_rows("9i").ours < 0).all())


def scorers_told(measure):
    table = points("19_own_rollouts")
    return table[table.measure == measure].set_index("scorer").value


def labels_alike():
    auc = scorers_told("AUC within problems")
    return abs(auc["own-rollouts"] - auc["own-exact"]) < 0.01 and verdicts("9k").iloc[0] == "holds"


def heads_no_better_than_nothing():
    auc, vote = scorers_told("AUC within problems"), scorers_told("weighted Best-of-N")
    table = points("15_self_verification").query("method == 'majority' and n == 16")
    [plain] = table.accuracy
    own = ["own-rollouts", "own-exact"]
    return (auc[own] < auc["likelihood a token"]).all() and (vote[own] < plain + 0.005).all()


def plain_vote_two_points_ahead():
    gap = scorers_told("plain vote at its FLOPs")["own-rollouts"] - scorers_told("weighted Best-of-N")["own-rollouts"]
    return 0.015 < gap < 0.025 and claim_rows("9j").high.iloc[-1] > 0


def whose_problems_counts():
    table = points("20_subjects").pivot(index="trained on", columns="problems of", values="value")
    rows, columns = (table.drop("all subjects").mean(axis=axis) for axis in (1, 0))
    home = np.mean([table.loc[name, name] for name in table.columns])
    small = 0 < home - rows.mean() < 0.03 and verdicts("9l").iloc[0] == "too few problems to judge"
    return np.ptp(rows) < 0.04 and np.ptp(columns) > 0.15 and small


def trained(measure):
    """trained on -> accuracy after the last round, mean of the seeds, in points; "nothing yet" among them."""
    rows = points("21_self_training").query("measure == @measure and `training seed` == 'mean'")
    return 100 * rows.sort_values("round").groupby("trained on").accuracy.last()


def gains_by_training():
    """Of greedy decoding and majority: source -> points, rounded."""
    of = [trained(measure) for measure in ("greedy", "majority, N = 16")]
    return {source: [round(one[source] - one["nothing yet"]) for one in of] for source in of[0].index}


def training_helps():
    held = verdicts("9n")[["greedy", "majority, N = 16"]] == "holds"
    return gains_by_training()["search"] == [9, 5] and held.all() and "holds" not in set(verdicts("9o"))


def samples_help_more():
    return gains_by_training()["samples"] == [11, 8] and gains_by_training()["original"] == [8, 8]


def next_search_gains_from_new_examples():
    one_thing = verdicts("9p")["DVTS, N = 16"] == "does not hold"
    found = trained("DVTS, N = 16")[["nothing yet", "original", "search", "samples"]]
    return one_thing and found.round(1).tolist() == [49, 57.5, 49.5, 49.5]


def full_run_tells_sources():
    asked = ["greedy", "majority, N = 16"]
    here, there = (claim_rows("9o", run=run).set_index("part").loc[asked] for run in ("", "full"))
    return (here.high > 0).all() and (there.high < 0).all()


def ceiling_after_training():
    return trained("pass@16")[["search", "samples", "original", "nothing yet"]].round().tolist() == [64, 68, 73, 65]


def votes_left():
    greedy, vote, covered = (trained(what) for what in ("greedy", "majority, N = 16", "pass@16"))
    gap = (covered - greedy).round()
    closed = (100 * (vote - greedy) / (covered - greedy)).round()
    order = ["nothing yet", "search", "samples", "original"]
    return gap[order].tolist() == [30, 20, 22, 30] and closed[order].tolist() == [14, 5, 6, 16]


def strong_verifier_passes_greedy():
    [row] = (
        points("full/08_verifier_gains")
        .query("verifier == 'prm-strong' and question.str.startswith('3b: N = 64')")
        .itertuples()
    )
    return row.low > 0 and round(100 * row.accuracy, 1) == 5.2


# notebook, words that stand in it, whether they hold
STATEMENTS = [
    ("01", "The vote is level up to N = 2, as it has to be, and then rises", level_up_to_two),
    ("01", "A right answer is often among the samples, and the vote does not find it.", often_among_the_samples),
    ("01", "One sample is right much less often than greedy decoding: 25 % against 35 %.", below_greedy),
    ("03", "ahead of the plain vote at every N from 2 on, and ahead of vanilla from 4 on", ahead_of_both_votes),
    ("03", "at the largest N it is below the plain vote", vanilla_rises_and_falls),
    ("04", "have 25, 21 and 14 % of N different ones at N = 4, 16 and 64", below_one_in_m),
    ("04", "beam search can't be told from weighted Best-of-N at any N", not_told_from_best_of_n),
    ("04", "it is 4.1 points ahead at N = 4 and 2 behind at 64", full_run_tells_beam_search),
    (
        "04",
        "half of the steps (55 %) the policy is right nine times in ten or more, and at 4 %",
        most_steps_are_often_right,
    ),
    ("04", "the less beam search covers at N = 16: 77, 60, 52 and 41 %", weaker_verifiers_cover_less),
    ("04", "At N = 64 on 500 problems it is above with that one too, by 5.2 points", strong_verifier_passes_greedy),
    ("04", "it is at 55.0 %, 5 points above the real one", greedy_against_the_real_models),
    ("05", "in quintile 4 above all, and behind in the two easiest quintiles", ahead_on_hard_behind_on_easy),
    ("06", "At no N can beam search and DVTS be told apart", searches_not_told_apart),
    ("06", "In coverage DVTS is ahead of beam search from N = 16 on.", dvts_covers_more),
    ("06", "plain majority voting is ahead of every method that uses the verifier", vote_ahead_up_to_its_cost),
    ("06", "there is a greedy point that is better and cheaper", greedy_better_and_cheaper),
    (
        "06",
        "DVTS is 2.7 points ahead at N = 64, and [with N to 256](../figures/n256/README.md) 3.5",
        full_run_tells_dvts,
    ),
    ("06", "DVTS is at 97, 72 and 52 % in quintiles 1 to 3, where beam search is at 93, 62 and 47", trees_by_quintile),
    ("07", "a few points above the best single method at each N, and more than half", choice_gains_and_keeps_half),
    ("08", "it can't be told at the largest N, and `policy-s` stays below `policy-l`", where_the_headline_ends),
    ("08", "compute-optimal 6 below. Its last step of N still gained 9 points", of_the_second_policy),
    ("08", "9 points above it, and on these 500 problems `policy-m` is 5 above 8B", greedy_against_the_real_models),
    ("09", "the worst of the three with `prm-weak` and the best with `exact`", searches_gain_most),
    ("09", "Beam search loses most of it on the way, and Best-of-N all of it in the vote.", lost_where),
    ("09", "a search costs a little less than Best-of-N at the same N", search_is_cheaper_than_best_of_n),
    ("09", "At equal FLOPs the plain vote is ahead of the PRM wherever both were run.", vote_ahead_of_the_prm),
    ("09", "But little is saved. This policy is seldom of one mind", early_votes_save_little),
    (
        "09",
        "the moved budget is below one N for all, and the choice of a method above it",
        moved_below_and_choice_above,
    ),
    ("09", "all differences are below zero, though by the ledger's intervals a hundred", lookahead_gains_nothing),
    ("09", "is as good as the one with exact labels", labels_alike),
    ("09", "neither is better in the vote than no verifier at all", heads_no_better_than_nothing),
    ("09", "the plain vote has two points more, which 500 problems don't prove", plain_vote_two_points_ahead),
    ("09", "The rows are alike, the columns are not", whose_problems_counts),
    ("10", "two rounds on search's solutions add nine points to greedy decoding and five to a vote", training_helps),
    ("10", "add eleven and eight, and as much original data eight and eight", samples_help_more),
    (
        "10",
        "which take it from 49 to 57.5 %, where its own solutions take it to 49.5",
        next_search_gains_from_new_examples,
    ),
    ("10", "search is behind samples in both, and those intervals leave 0 out", full_run_tells_sources),
    ("10", "64 % after search, 68 after samples and 73 after new examples, where it was at 65", ceiling_after_training),
    ("10", "20 to 22 points are left, of which the vote closes 5 to 6 %", votes_left),
]


@pytest.mark.parametrize(("number", "words", "holds"), STATEMENTS, ids=lambda value: getattr(value, "__name__", ""))
def test_what_is_said_holds(number, words, holds):
    [path] = [path for path in NOTEBOOKS if path.name.startswith(number)]
    prose = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    assert words in re.sub(r"\s+", " ", " ".join(prose)), "the sentence was changed: change its check as well"
    assert holds(), f"{path.name} says: {words}"


def code_cells(path):
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", [])]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_are_short(path):
    lines = [len(cell.source.splitlines()) for cell in code_cells(path)]
    assert max(lines) <= LONGEST, code_cells(path)[lines.index(max(lines))].source
    assert statistics.median(lines) <= MEDIAN


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_picture_is_shown_by_the_cell_that_finishes_it(path):
    """A figure is shown where its first cell ends: what a later cell adds is in the file alone."""
    for cell in code_cells(path):
        if any("image/png" in output.get("data", {}) for output in cell.outputs):
            assert re.search(r"\.(save_figure|show_trees)\(", cell.source), cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_two_exercises_with_folded_answers(path):
    cells = nbformat.read(path, as_version=4).cells
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert re.search(r"^## \d+\. Exercises$", prose, re.MULTILINE)
    assert prose.count("\n**1.** ") == prose.count("\n**2.** ") == 1 or prose.count("**2.** ") == 1
    assert sum("show.folded(" in cell.source for cell in code_cells(path)) == 2


def test_every_notebook_links_what_is_not_reproduced():
    assert (ROOT / "notebooks" / "NOT_REPRODUCED.md").exists()
    for path in NOTEBOOKS:
        assert "(NOT_REPRODUCED.md)" in path.read_text(encoding="utf-8"), path.name


# What docs/what_we_learned.md says of the run in figures/full: words, table, how its rows are chosen, numbers in %.
LEARNT = [
    ("goes from 23 to 40 %", "05_majority_voting", "majority", [1, 64], [23, 40]),
    ("for 76 % of the problems", "10_coverage", "pass_at_n", [64], [76]),
    ("Weighted Best-of-N reaches 48 %.", "07_best_of_n", "best_of_n_weighted", [64], [48]),
    ("for 57 % of the problems, against 70 % for DVTS", "10_coverage", "beam_search", [64], [57]),
    ("against 70 % for DVTS", "10_coverage", "dvts", [64], [70]),
]


# The same of the run in figures/n256.
LEARNT_AT_256 = [
    ("a vote reaches 42 %, weighted", "05_majority_voting", "majority", [42]),
    ("weighted Best-of-N and DVTS 51 %,", "10_all_methods", "best_of_n_weighted", [51]),
    ("weighted Best-of-N and DVTS 51 %, beam search 47 %.", "10_all_methods", "dvts", [51]),
    ("beam search 47 %.", "10_all_methods", "beam_search", [47]),
    ("goes on falling, to 30 %", "10_all_methods", "best_of_n_vanilla", [30]),
    ("for 62 % of the problems from beam search", "10_coverage", "beam_search", [62]),
    ("for 80 % from DVTS", "10_coverage", "dvts", [80]),
    ("for 86 % from independent samples", "10_coverage", "pass_at_n", [86]),
]


def learnt():
    return re.sub(r"\s+", " ", (ROOT / "docs" / "what_we_learned.md").read_text(encoding="utf-8"))


OF_RUN = [("full", *row) for row in LEARNT] + [("n256", *row[:3], [256], row[3]) for row in LEARNT_AT_256]


@pytest.mark.parametrize(("run", "words", "name", "method", "ns", "percent"), OF_RUN, ids=lambda value: str(value)[:20])
def test_what_we_learned_has_the_runs_numbers(run, words, name, method, ns, percent):
    assert words in learnt(), "the sentence was changed: change its check as well"
    table = points(f"{run}/{name}")
    found = at(table[table.panel == "accuracy"] if "panel" in table else table, method)
    assert [round(100 * found[n]) for n in ns] == percent


def test_what_we_learned_has_the_ledgers_numbers():
    said = {
        ("1b", "N = 32 to 64"): "gains {0:.1f} points in its last doubling",
        ("6b", "N = 64"): "{0:.1f} points [{1:.1f}, {2:.1f}] ahead of it at N = 64",
        ("6a", "N = 4"): "beam search is {0:.1f} points [{1:.1f}, {2:.1f}] ahead of DVTS",
        ("7", "N = 64"): "gains {0:.1f} points [{1:.1f}, {2:.1f}] over the best single method at N = 64",
        ("9a", "beam search"): "beam search by {0:.1f} points more [{1:.1f}, {2:.1f}]",
        ("9d", "a token, N = 16"): "for free: {0:.1f} points [{1:.1f}, {2:.1f}] in a vote of 16",
        ("9i", "k = 2, N = 16"): "costs beam search {3:.1f} points [{5:.1f}, {4:.1f}] at N = 16",
        ("9n", "greedy"): "greedy decoding by {0:.1f} points [{1:.1f}, {2:.1f}]",
        ("9o", "greedy"): "its right samples: by {3:.1f} points [{5:.1f}, {4:.1f}]",
        ("9p", "majority"): "in a vote of 16 it gains {3:.1f} points less [{5:.1f}, {4:.1f}] than from those",
        ("3b", "N = 32 (interpolated)"): "on all 3,000 problems {3:.1f} below at N = 32",
        ("8b", ""): "11 times as large: {0:.1f} points [{1:.1f}, {2:.1f}] at N = 64",
        ("6b", "N = 256"): "DVTS is {0:.1f} points [{1:.1f}, {2:.1f}] ahead of beam search, which stopped",
        ("8a", ""): "can't be told apart: +{0:.1f} points [{1:.1f}, {2:.1f}]",
    }
    for (claim, part), words in said.items():
        rows = claim_rows(claim, run="n256" if "256" in part else "full")
        row = rows[rows.part.str.contains(part, regex=False)].iloc[0]
        numbers = [100 * row.ours, 100 * row.low, 100 * row.high]
        assert words.format(*numbers, *(-number for number in numbers)) in learnt(), claim


def test_what_we_learned_of_the_largest_budget():
    table = points("n256/10_all_methods")
    beam = at(table[table.panel == "accuracy"], "beam_search")
    assert beam[4] < beam[16] < beam[64] > beam[256], "it stopped gaining at 64"


def test_what_we_learned_of_difficulty():
    table = points("full/09_difficulty").dropna(subset=["quintile"])
    wide = table[table.n == 64].pivot(index="quintile", columns="method", values="accuracy")
    gain, alone = 100 * (wide.beam_search - wide.best_of_n_weighted), 100 * wide.best_of_n_weighted
    words = "beam search loses {:.1f} and {:.1f} points to Best-of-N, on the two hardest it gains {:.1f} and {:.1f}, "
    words += "where Best-of-N solves {:.1f} and {:.1f} %."
    assert words.format(-gain[1], -gain[2], gain[4], gain[5], alone[4], alone[5]) in learnt()


def test_what_we_learned_of_difficulty_without_labels():
    table = points("full/12_compute_optimal").query("panel == 'difference'")
    chosen, predicted, single = (at(table, name) for name in ("two folds", "predicted", "best single"))
    told = {n: [round(100 * (one[n] - single[n]), 1) for one in (chosen, predicted)] for n in (64, 16)}
    words = (
        "gains {0} points [2.1, 5.4] over the best single method at N = 64, measured on problems that it was not "
        "chosen on, and {2} at 16; at 4 next to nothing, where beam search alone is best. Difficulty is known here "
        "from 256 further samples a problem and their labels. Estimated by the verifier instead, it gives {1} "
        "points at 64 and {3} at 16."
    )
    assert words.format(*told[64], *told[16]) in learnt()


def test_what_we_learned_of_verifiers():
    gains = points("full/08_verifier_gains").set_index(["question", "verifier", "method"])

    def said(question, verifier, method):
        row = 100 * gains.loc[(question, verifier, method)]
        return f"{row.accuracy:+.1f} [{row.low:.1f}, {row.high:.1f}]"

    names = {"exact": "exact", "prm-strong": "`prm-strong`", "prm": "`prm`, the mirror", "prm-weak": "`prm-weak`"}
    assert set(gains.index.get_level_values("verifier")) == set(names)
    for verifier, name in names.items():
        asked = product((16, 64), ("beam_search", "dvts"))
        cells = [said(f"N = {n}, minus Best-of-N", verifier, method) for n, method in asked]
        assert re.search(rf"\| {re.escape(name)} \| [.\d]+ \| {re.escape(' | '.join(cells))} \|", learnt()), name
    short = -100 * gains.loc["3a: N = 4, minus Best-of-N at 16"].accuracy
    assert f"stays {short.min():.1f} to {short.max():.0f} points behind Best-of-N at 16" in learnt()
    strong, mirror = (
        said("3b: N = 64, minus greedy policy-m", verifier, "beam_search") for verifier in ("prm-strong", "prm")
    )
    assert f"as the writeup says: by {strong[1:].replace(' ', ' points ', 1)} on these problems" in learnt()
    assert f"stays {mirror.split()[0][1:]} points below" in learnt()
    ahead = [
        100 * gains.loc[f"N = {n}, minus Best-of-N"].accuracy.loc[verifier].diff().abs().iloc[-1]
        for n, verifier in ((16, "exact"), (16, "prm-weak"), (64, "prm-weak"))
    ]
    words = (
        "one tree is the best use of the budget: {:.1f} points [0.6, 7.5] ahead of DVTS at N = 16. With a weak one a "
    )
    words += (
        "single overrated step can lose the whole tree, and separate trees protect against that: DVTS is {:.1f} points "
    )
    assert (words + "[0.8, 7.6] ahead at 16 and {:.1f} [3.2, 10.6] at 64").format(*ahead) in learnt()
    exact = points("full/08_verifiers").set_index(["verifier", "of", "method", "n"]).accuracy["exact"]
    percent = 100 * exact["coverage", "beam_search", 4], 100 * exact["accuracy", "best_of_n_weighted", 16]
    assert "for {:.0f} % of the problems, and Best-of-N at 16 solves {:.0f} %".format(*percent) in learnt()


def test_what_we_learned_of_the_smallest_budget():
    table = points("full/10_all_methods")
    for method, words in (
        ("beam_search", "search by {0:.1f} points [{1:.1f}, {2:.1f}]"),
        ("dvts", "DVTS by {0:.1f} [{1:.1f}, {2:.1f}]"),
    ):
        [row] = table[(table.panel == "difference") & (table.method == method) & (table.n == 4)].itertuples()
        assert words.format(100 * row.accuracy, 100 * row.low, 100 * row.high) in learnt()


def test_a_larger_policy_is_the_better_buy_with_the_verifier_taken_as_free():
    """The cost of N plain votes is what a method would cost without its verifier's work."""
    assert "with its work taken as free, each point would still lie below a cheaper greedy one" in learnt()
    table = points("full/10_cost")
    free = at(table, "majority", "flops")
    greedy = table[table.method.str.startswith("greedy")]
    for row in table[table.n.notna()].itertuples():
        if row.n >= 2:  # one sample costs less than any greedy solution but the policy's own
            assert row.accuracy < greedy[greedy.flops <= free[row.n]].accuracy.max(), (row.method, row.n)
