"""A replay: seeds, budgets and difficulty from what a folder has, votes by hand, and nothing that samples."""

import asyncio

import made_folder
import numpy as np
import pytest
from made_folder import POLICY, name_of, write, write_all

from tts.analysis.grading import grade_searches
from tts.companion import published as command
from tts.companion.parameters import load_profile
from tts.companion.setup import set_up
from tts.errors import InputError
from tts.policy import Sampling
from tts.results import collect
from tts.results.published import NotPublishedError
from tts.results.replay import PublishedScorer, ReplayStore, greedy_baseline, published_policy
from tts.strategies import beam_search, dvts

PROBLEMS = made_folder.problems(10)
LLAMA, PRM = published_policy(f"meta-llama/{POLICY}"), PublishedScorer("prm")
SAMPLING = Sampling(max_tokens=2048)


def store(tmp_path, folder, problems=PROBLEMS):
    return ReplayStore(tmp_path / "store", str(folder), problems)


@pytest.fixture
def folder(tmp_path):
    write_all(tmp_path / "made", of=PROBLEMS)
    return tmp_path / "made"


# --- Seeds, and what tells the difficulty ---------------------------------------------------------


def test_all_seeds_that_are_there(tmp_path, folder, capsys):
    assert store(tmp_path, folder).plan_samples(LLAMA, {0: 16, 1: 8, 2: 16}) == {0: 16, 1: 8}
    assert capsys.readouterr().err == (
        f"replay: {POLICY} has no best-of-N completions of seed 2: that seed is left out\n"
    )


def test_the_longest_seed_comes_first_and_a_broken_one_is_left_out(tmp_path, folder, capsys):
    path = folder / f"{POLICY}-best-of-N-completions" / name_of("best_of_n", 16, 0) / "train-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:1000])
    write(folder, "best_of_n", 4, 0, of=PROBLEMS)
    found = store(tmp_path, folder).plan_samples(LLAMA, {0: 16, 1: 16})
    assert list(found.items()) == [(1, 16), (0, 4)]
    assert "n-16, seed 0: train-00000-of-00001.parquet can't be read" in capsys.readouterr().err
    assert len(path.read_bytes()) == 1000


@pytest.mark.parametrize("longer", [True, False])
def test_difficulty_comes_from_samples_that_are_not_graded(tmp_path, folder, longer):
    """The later ones of a longer config, or another seed, which is then left out."""
    if longer:
        write(folder, "best_of_n", 32, 0, of=PROBLEMS)
    replayed = store(tmp_path, folder)
    seeds = replayed.plan_samples(LLAMA, {0: 16, 1: 16}, aside=8)
    assert seeds == ({0: 16, 1: 16} if longer else {0: 16})
    drawn = asyncio.run(collect.sample(PROBLEMS, LLAMA, replayed, n=24, sampling=SAMPLING))
    for i, problem in enumerate(PROBLEMS):
        mine = drawn[drawn.problem == problem.id]
        n, seed, first = (32, 0, 16) if longer else (16, 1, 0)
        graded, aside = (list(made_folder.rows("best_of_n", *of, of=PROBLEMS))[i] for of in ((16, 0), (n, seed)))
        assert mine.text.tolist() == graded["completions"] + aside["completions"][first : first + 8]
        assert mine.scores.tolist() == graded["scores"] + aside["scores"][first : first + 8]
        assert mine.tokens.tolist() == graded["completion_tokens"] + aside["completion_tokens"][first : first + 8]


def test_too_few_samples_are_one_line(tmp_path, folder):
    with pytest.raises(InputError, match="n_max is 64, but of the best-of-N completions of .* they go to 16"):
        store(tmp_path, folder).plan_samples(LLAMA, {0: 64})
    with pytest.raises(InputError, match="n_difficulty is 17, but .* has no so many samples"):
        store(tmp_path, folder).plan_samples(LLAMA, {0: 16}, aside=17)
    with pytest.raises(InputError, match="n_max is 16, but .*Llama-3.2-3B-Instruct there are none in"):
        store(tmp_path, folder).plan_samples(published_policy("Llama-3.2-3B-Instruct"), {0: 16})


def test_a_cut_sample_and_scores_that_fit_no_step(tmp_path, capsys):
    def change(rows):
        rows[0]["completion_tokens"][0] = 2048
        rows[0]["scores"][1] = [0.5] * 9
        return rows

    write(tmp_path / "made", "best_of_n", 4, 0, of=PROBLEMS, change=change)
    replayed = store(tmp_path, tmp_path / "made")
    replayed.plan_samples(LLAMA, {0: 4})
    drawn = asyncio.run(collect.sample(PROBLEMS, LLAMA, replayed, n=4, sampling=SAMPLING))
    assert drawn.finish.tolist() == ["length"] + ["end"] * 39
    assert drawn.scores[1] == []
    assert drawn.unscored.tolist() == ["", "scores of another number than steps", *[""] * 38]
    assert "1 of 40 completions have scores that fit no step" in capsys.readouterr().err


def test_nothing_is_sampled_scored_or_written(tmp_path, folder):
    replayed = store(tmp_path, folder)
    replayed.plan_samples(LLAMA, {0: 16})
    for n, sampling, message in (
        (20, SAMPLING, "40 of these samples are missing: only what was published is there"),
        (4, Sampling(max_tokens=256), "no published samples with .*max_tokens = 256"),
        (4, Sampling(temperature=1.0), "temperature = 1.0"),
        (4, Sampling(seed=1), "seed = 1"),
    ):
        with pytest.raises(InputError, match=message):
            asyncio.run(collect.sample(PROBLEMS, LLAMA, replayed, n=n, sampling=sampling))
    drawn = asyncio.run(collect.sample(PROBLEMS, LLAMA, replayed, n=4, sampling=SAMPLING))
    for call in (
        lambda: LLAMA.sample((), SAMPLING),
        lambda: PRM.score("Q", ["a"]),
        lambda: collect.score(PROBLEMS, drawn, PRM, replayed),
    ):
        with pytest.raises(NotPublishedError):
            asyncio.run(call())
    assert not (tmp_path / "store").exists()


# --- Searches -------------------------------------------------------------------------------------


def searched(replayed, strategy, n, seed=0):
    sampling = Sampling(max_tokens=2048, seed=seed)
    return asyncio.run(collect.search(PROBLEMS, strategy, LLAMA, PRM, replayed, n=n, sampling=sampling))


def test_a_beam_search_without_its_tree(tmp_path, folder):
    found = searched(store(tmp_path, folder), beam_search, 4)
    rows = list(made_folder.rows("beam_search", 4, 0, of=PROBLEMS))
    for search, row, problem in zip(found, rows, PROBLEMS, strict=True):
        assert (search.problem, search.n, search.nodes, search.ended) == (problem.id, 4, [], [])
        assert [one.text for one in search.solutions] == row["completions"]
        assert [one.scores for one in search.solutions] == row["scores"]
        assert all("".join(one.steps) == one.text for one in search.solutions)


@pytest.mark.parametrize("n", [4, 8, 16])
def test_smaller_dvts_is_the_first_trees_without_their_unfinished_children(tmp_path, folder, n):
    found = searched(store(tmp_path, folder), dvts, n)
    for search, row in zip(found, made_folder.rows("dvts", 16, 0, of=PROBLEMS), strict=True):
        kept = [i for i in range(n) if i % 4 < 3]  # the fourth child of each tree has no answer yet
        assert [one.text for one in search.solutions] == [row["completions"][i] for i in kept]
        assert [one.path for one in search.solutions] == [(i // 4, i % 4) for i in kept]
        assert [one.scores for one in search.solutions] == [row["scores"][i] for i in kept]


def test_completions_that_are_no_trees_are_not_cut_into_trees(tmp_path):
    write(tmp_path / "made", "dvts", 16, 0, of=PROBLEMS, change=lambda rows: [
        row | {"completions": [f"{i}\n\n{text}" for i, text in enumerate(row["completions"])],
               "scores": [[0.5, *scores] for scores in row["scores"]]} for row in rows])  # fmt: skip
    replayed = store(tmp_path, tmp_path / "made")
    assert len(searched(replayed, dvts, 16)) == len(PROBLEMS)
    with pytest.raises(NotPublishedError, match="only 0 of 20 groups of 4 completions are children of one step"):
        searched(replayed, dvts, 8)


@pytest.mark.parametrize(
    ("strategy", "n", "seed", "message"),
    [
        (beam_search, 64, 0, "no beam-search completions of seed 0 at N = 64, M = 4"),
        (beam_search, 4, 5, "of seed 5"),
        (dvts, 6, 0, "no DVTS completions of seed 0 at N = 6"),
        (collect.partial(beam_search, beam_width=2), 4, 0, "M = 2"),
        (collect.partial(beam_search, drop_duplicates=True), 4, 0, "drop_duplicates = True"),
        (collect.partial(beam_search, lookahead=1), 4, 0, "lookahead = 1"),
        (collect.partial(beam_search, depth=20), 4, 0, "no beam-search completions"),
    ],
)
def test_a_search_that_was_not_published(tmp_path, folder, strategy, n, seed, message):
    with pytest.raises(NotPublishedError, match=message) as error:
        searched(store(tmp_path, folder), strategy, n, seed)
    assert "\n" not in str(error.value)


# --- A notebook's set-up --------------------------------------------------------------------------


@pytest.fixture
def parameters(tmp_path, folder):
    write_all(folder, of=PROBLEMS, seeds=(2,))
    path = tmp_path / "problems.jsonl"
    rows = (f'{{"unique_id": "{one.id}", "problem": "{one.text}", "answer": "{one.answer}"}}\n' for one in PROBLEMS)
    path.write_text("".join(rows))
    profile = load_profile("default") | load_profile("replay")
    few = {"n_problems": 10, "n_max": 16, "seeds_n_max": 16, "n_difficulty": 8, "n_seeds": 3, "second_model": ""}
    return profile | few | {"replay": str(folder), "problems": str(path), "store": str(tmp_path / "store")}


def test_a_sweep_of_what_is_there(folder, parameters, capsys):
    """One search config is missing, one torn: their seeds are left out. By hand: the accuracies of the files."""
    beams = folder / f"{POLICY}-beam-search-completions"
    (beams / name_of("beam_search", 4, 1) / "train-00000-of-00001.parquet").unlink()
    torn = beams / name_of("beam_search", 16, 0) / "train-00000-of-00001.parquet"
    torn.write_bytes(torn.read_bytes()[:-9])
    setup = set_up(parameters)
    assert setup.seeds == {0: 16, 1: 16}  # seed 2 tells the difficulty
    assert setup.budgets == [4, 16]
    swept = asyncio.run(setup.sweep(keep_trees=True))
    said = capsys.readouterr().err
    assert "the samples of seed 2 tell the difficulty" in said
    assert f"{POLICY} has no beam-search completions of seed 1 at N = 4, M = 4; that seed is left out" in said
    assert "beam-search-completions, n-16, seed 0: train-00000-of-00001.parquet can't be read" in said
    assert [len(of_n) for of_n in swept.solutions["beam_search"].values()] == [1, 1]
    assert [len(of_n) for of_n in swept.solutions["dvts"].values()] == [2, 2]

    def right(method, n, seed):
        """The share of right completions of each problem, in the files."""
        found = made_folder.rows(method, n, seed, of=PROBLEMS)
        return [np.mean(["\\boxed{1}" in text for text in row["completions"]]) for row in found]

    ones = (np.array(right("best_of_n", 16, 0)) + right("best_of_n", 16, 1)) / 2
    assert np.allclose(swept.coverage()[:, 0], ones)
    aside = [np.mean(["\\boxed{1}" in text for text in row["completions"][:8]])
             for row in made_folder.rows("best_of_n", 16, 2, of=PROBLEMS)]  # fmt: skip
    assert np.allclose(swept.oracle, aside)
    table = swept.outcomes({"beam_search": "beam search", "dvts": "DVTS", "dvts_best": "best"}, {})
    assert table.loc[("DVTS", 16), "returned"] == 0.75
    assert table.loc[("best", 16), "returned"] == 0.25
    assert table.filter(like="ended").loc[["beam search", "DVTS"]].isna().all(axis=None)
    assert "Left out: " in setup._repr_markdown_()
    assert "no trees" in setup._repr_markdown_()


def test_the_best_child_of_a_tree_without_nodes_has_the_highest_last_score(tmp_path, folder):
    from tts.analysis.diversity import best_only

    found = searched(store(tmp_path, folder), dvts, 16)
    graded = grade_searches(found, PROBLEMS, read=best_only)
    for search in found:
        best = graded[graded.problem == search.problem]
        trees = [[one for one in search.solutions if one.path[0] == tree] for tree in range(4)]
        assert best.text.tolist() == [max(tree, key=lambda one: one.scores[-1]).text for tree in trees]


def test_a_budget_that_a_method_lacks_is_left_out_for_all(folder, parameters, capsys):
    for seed in (0, 1, 2):
        (folder / f"{POLICY}-beam-search-completions" / name_of("beam_search", 16, seed)).rename(folder / f"away{seed}")
    setup = set_up(parameters)
    assert setup.budgets == [4]
    swept = asyncio.run(setup.sweep())
    assert swept.budgets == [4]
    assert swept.ns == [1, 2, 4, 8, 16]
    assert swept.accuracy["majority"].shape == swept.accuracy["dvts"].shape == (10, 1)
    said = capsys.readouterr().err
    assert said.count("at N = 16, M = 4, nor of another seed: this N is left out") == 1


def test_greedy_lines_have_their_source(parameters):
    setup = set_up(parameters)
    greedy = asyncio.run(setup.greedy())
    assert list(greedy) == [
        f"Llama-{name}-Instruct (arXiv 2502.06703)" for name in ("3.2-1B", "3.2-3B", "3.1-8B", "3.1-70B")
    ]
    assert [one.correct.mean() for one in greedy.values()] == pytest.approx([0.260, 0.414, 0.498, 0.652])
    assert (setup.own(greedy) == 0.26).all()
    assert setup.rival(greedy, 2).times == pytest.approx(6.5, abs=0.05)
    assert setup.rival(greedy, 3).name == "Llama-3.1-70B-Instruct (arXiv 2502.06703)"
    with pytest.raises(InputError, match="no greedy accuracy of policy-xs is known: choose from Llama-3.2-1B-Instruct"):
        greedy_baseline("policy-xs")


def test_other_verifiers_are_one_line(parameters):
    with pytest.raises(InputError, match='other_prms is "exact": of published completions only one verifier is known'):
        set_up(parameters | {"other_prms": "exact"})
    with pytest.raises(InputError, match="has no searches with these settings: check beam_width, depth"):
        set_up(parameters | {"beam_width": 2})


def test_the_profile_fits_the_notebooks():
    from tts.companion.parameters import check_parameters, figures_subfolder

    profile = load_profile("replay")
    check_parameters(profile)
    assert profile.keys() <= load_profile("default").keys()
    assert figures_subfolder(load_profile("default") | profile) == "replay"
    for name in ("policy_model", "second_model"):
        assert profile[name] in profile["greedy_models"]


# --- Votes beside theirs --------------------------------------------------------------------------


def test_votes_and_why_they_differ_by_hand(tmp_path):
    texts = ["x\n\n\\boxed{2}\n\n", "y\n\n\\boxed{1}", "the answer is 7", "\\boxed{1.0}"]
    scores = [[0.1, 0.2, 0.99], [0.5, 0.6], [0.9], [0.3]]  # the first has the score of an empty step

    def change(rows):
        preds = {
            "pred_naive@4": "\\boxed{2}",  # by 0.99
            "pred_weighted@4": "\\boxed{7}",  # read from a phrase
            "pred_maj@4": "\\boxed{2}",  # 1 and 1.0 apart, ties to the first
        }
        agg = [one[-1] for one in scores]
        return [row | {"completions": texts, "scores": scores, "agg_scores": agg} | preds for row in rows]

    write(tmp_path, "best_of_n", 4, 0, of=PROBLEMS, change=change)
    made_folder.evals(tmp_path, "best_of_n", 4, 0, {2: (0, 0, 0), 4: (0.5, 40.0, 1.0)})
    replayed = store(tmp_path, tmp_path)
    [config] = replayed.configs(POLICY, "best_of_n")
    found = command.votes(config, replayed.problems).set_index(["n", "rule"])
    assert found.loc[4].ours.tolist() == [1.0, 1.0, 1.0]  # .6; .6 + .3 against .2; two against one
    assert found.loc[2].ours.tolist() == [1.0, 1.0, 0.0]  # among the first two; a tie goes to the first
    assert found.loc[4].published.tolist() == [0.5, 0.4, 1.0]
    assert found.loc[4]["read"].tolist() == [0.0, 0.0, 0.0]
    assert found.loc[2][["read", *command.REASONS]].isna().all(axis=None)  # no choices were published at 2
    reasons = found.loc[4][list(command.REASONS)].T
    assert reasons[reasons.naive > 0].index.tolist() == ["empty step"]
    assert reasons[reasons.weighted > 0].index.tolist() == ["no box"]
    assert reasons[reasons.maj > 0].index.tolist() == ["grouping"]
    assert (reasons.sum() == len(PROBLEMS)).all()


def test_an_unfinished_sibling_votes_there_and_not_here(tmp_path):
    texts = ["a\n\n\\boxed{1}", "a\n\nit is 5\n\n", "a\n\n\\boxed{1}", "a\n\nit is 5\n\n"]
    change = lambda rows: [  # noqa: E731
        row | {"completions": texts, "scores": [[0.1, 0.2], [0.9, 0.9, 0.9]] * 2, "pred_naive@4": "\\boxed{5}"}
        for row in rows
    ]
    write(tmp_path, "dvts", 4, 0, of=PROBLEMS, change=change)
    replayed = store(tmp_path, tmp_path)
    [config] = replayed.configs(POLICY, "dvts")
    naive = command.votes(config, replayed.problems).set_index("rule").loc["naive"]
    assert (naive.ours, naive["no box"], naive.unfinished) == (1.0, len(PROBLEMS), 0)


def test_the_command_prints_the_inputs_and_the_votes(tmp_path, folder, parameters, capsys):
    arguments = ["--replay", str(folder), "--problems", parameters["problems"], "--policies", POLICY]
    assert command.main([*arguments, "--n-max", "16", "--n-seeds", "3"]) == 0
    table = capsys.readouterr().out
    for row in ("pass@1", "gap closed at 4, 16", "AUC within problems", "length against place at 4, 16"):
        assert f"| {row} |" in table
    assert command.main([*arguments, "--votes"]) == 0
    votes = capsys.readouterr().out
    assert "| best_of_n | 16 | 16 | weighted |" in votes
    assert "| beam-search | 16 | weighted | 48.3 |" in votes
    assert command.main(["--replay", str(tmp_path), "--problems", parameters["problems"], "--votes"]) == 2
    error = capsys.readouterr().err
    assert "has no completions of Llama-3.2-1B-Instruct that can be read" in error
    assert error.count("\n") == 1


def test_the_rows_are_called_as_in_the_mirrors_table():
    from tts.analysis import inputs
    from tts.tiny.mirror import REAL

    asked = load_profile("replay")["n_max"]
    tables = [_graded(of) for of in range(2)]
    rows = inputs.sample_rows(tables, PROBLEMS, n_max=asked)
    shared = set(rows) & set(REAL)
    assert shared >= {"pass@1", "pass@4, 16, 64, 256", "majority@4, 16, 64, 256", "gap closed at 4, 16, 64, 256"}
    assert shared >= {"vanilla - majority at the largest N", "AUC within problems", "steps a solution"}


def _graded(seed):
    import random

    import pandas as pd

    from tts.analysis.grading import grade

    draw = random.Random(seed)
    pairs = [(one.id, i, *made_folder.solution(draw)) for one in PROBLEMS for i in range(256)]
    return grade(pd.DataFrame(pairs, columns=["problem", "index", "text", "scores"]).assign(finish="end"), PROBLEMS)


def test_where_scores_first_fall():
    from tts.analysis.inputs import first_low, length_order

    assert [first_low(scores) for scores in ([0.9, 0.4, 0.1], [0.5], [], [0.1])] == [2, 0, 0, 1]
    import pandas as pd

    frame = pd.DataFrame({"problem": list("aaabbb"), "index": [0, 1, 2] * 2, "text": "x xx xxx xx x x".split()})
    assert length_order(frame) == pytest.approx((1 - np.sqrt(3) / 2) / 2)
