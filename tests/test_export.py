"""Our results in the schema of the published completions: written, replayed, and the same curves come back."""

import asyncio

import numpy as np
import pyarrow.parquet
import pytest
from fakes import ScriptedPolicy, ScriptedScorer, by_hash, dice

from tts.companion.parameters import load_profile
from tts.companion.setup import set_up
from tts.errors import InputError
from tts.experiment import sweep
from tts.policy import Sampling
from tts.problems import Problem
from tts.results import export as module
from tts.results.export import export
from tts.results.store import Store

PROBLEMS = [Problem(id=f"p{i}", text=f"Q{i}", answer="1", level=1) for i in range(10)]
STEPS = ("a\n\n", "b\n\n", "\\boxed{1}$", "\\boxed{2}$", "\\boxed{1}\n\n$", "c$")
PROVENANCE = {"engine": "scripted"}


def policy():
    made = ScriptedPolicy(dice(*STEPS))
    made.prompt_settings, made.provenance, made.close = {}, PROVENANCE, nothing
    return made


def prm():
    made = ScriptedScorer(by_hash)
    made.provenance, made.close = PROVENANCE, nothing
    return made


async def nothing():
    """What closing a fake does."""


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A store with two seeds, and the sweep that made it."""
    folder = tmp_path_factory.mktemp("export") / "store"
    made = sweep(
        PROBLEMS, policy(), prm(), Store(folder), seeds={0: 16, 1: 16}, n_difficulty=4, sampling=Sampling(max_tokens=60)
    )
    return folder, asyncio.run(made)


def written(folder, store):
    return export(Store(store), folder, PROBLEMS, policy(), prm(), source="made/up")


def test_round_trip(tmp_path, stored):
    store, ours = stored
    made = written(tmp_path / "made", store)
    assert len(made) == 2 + 2 * 4  # two strategies at two N, two seeds
    (tmp_path / "problems.jsonl").write_text(
        "".join(f'{{"unique_id": "{one.id}", "problem": "{one.text}", "answer": "1"}}\n' for one in PROBLEMS)
    )
    named = {"replay": str(tmp_path / "made"), "problems": str(tmp_path / "problems.jsonl"), "policy_model": "scripted"}
    sizes = {"n_problems": 0, "n_max": 16, "seeds_n_max": 16, "n_seeds": 2, "n_difficulty": 4, "max_tokens": 60}
    none = {"second_model": "", "other_prms": "", "greedy_models": "", "prm_model": "fake"}
    setup = set_up(load_profile("default") | named | sizes | none)
    theirs = asyncio.run(setup.sweep())
    assert theirs.seeds == {0: 16, 1: 16}  # the four more of seed 0 tell the difficulty
    assert ours.accuracy.keys() == theirs.accuracy.keys()
    for method, values in ours.accuracy.items():
        assert np.array_equal(values, theirs.accuracy[method]), method
    for method in ours.solutions:
        assert np.array_equal(ours.coverage(method), theirs.coverage(method)), method
        assert np.array_equal(ours.vote(method, "vanilla"), theirs.vote(method, "vanilla")), method
    assert np.array_equal(ours.oracle, theirs.oracle)
    assert np.allclose(ours.predicted, theirs.predicted)
    before, after = ours.samples[0], theirs.samples[0]
    for column in ("text", "tokens", "finish", "scores", "outcome"):
        assert before[column].tolist() == after[column].tolist(), column


def test_the_columns_are_those_of_the_data_sets(tmp_path, stored):
    made = written(tmp_path, stored[0])
    [path] = [path for path in made if "--n-20--max_tokens-60--bsz-1--seed-0--" in str(path)]
    assert path.parent.name == "made_up--T-0.8--top_p-1.0--n-20--max_tokens-60--bsz-1--seed-0--agg_strategy-last"
    table = pyarrow.parquet.read_table(path).to_pylist()
    assert [row["unique_id"] for row in table] == [problem.id for problem in PROBLEMS]
    head = (
        "problem solution answer subject level unique_id completions pred completion_tokens finished scores agg_scores"
    )
    votes = [f"pred_{rule}@{2**i}" for i in range(5) for rule in ("weighted", "maj", "naive")]
    assert list(table[0]) == [*head.split(), *votes]
    for row in table:
        assert len(row["completions"]) == len(row["scores"]) == len(row["agg_scores"]) == 20
        assert row["agg_scores"] == [scores[-1] if scores else 0.0 for scores in row["scores"]]
        assert all(row[vote].startswith("\\boxed{") for vote in votes)
    card = (path.parents[1] / "README.md").read_text()
    assert f"- config_name: {path.parent.name}" in card
    assert "hf upload OWNER/scripted-best-of-N-completions" in card


def test_a_tree_of_dvts_has_all_its_last_children(tmp_path, stored):
    store, ours = stored
    [path] = [
        path
        for path in written(tmp_path, store)
        if "DVTS" in str(path) and "--n-16--" in str(path) and "seed-0" in str(path)
    ]
    rows = pyarrow.parquet.read_table(path).to_pylist()
    assert {len(row["completions"]) for row in rows} == {16}
    finished = [solution.text for search in ours.searches["dvts"][16] for solution in search.solutions]
    assert len(finished) < 16 * len(PROBLEMS)
    every = [pair for row in rows for pair in zip(row["completions"], row["finished"], strict=True)]
    assert [text for text, ended in every if ended] == finished


def test_what_is_not_complete_is_left_out(tmp_path, stored, capsys):
    more = [*PROBLEMS, Problem(id="new", text="Q?", answer="1")]
    with pytest.raises(InputError, match="has no results of scripted with scripted on these problems"):
        export(Store(stored[0]), tmp_path, more, policy(), prm(), source="x")
    assert capsys.readouterr().err.count("lacks some of these problems or scores: left out") == 10
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_failed_write_leaves_the_old_file(tmp_path, stored, monkeypatch):
    [first, *_] = written(tmp_path, stored[0])
    before = first.read_bytes()

    def no_space(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pyarrow.parquet.ParquetWriter, "write_table", no_space)
    with pytest.raises(InputError, match="can't write .* free some space or name another folder"):
        written(tmp_path, stored[0])
    assert first.read_bytes() == before
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--problems", "nowhere.jsonl"], "there is no file nowhere.jsonl"),
        (["--policy", "policy-xxl"], "--policy="),
        (["--store", "no-store", "--n-problems", "5"], "no-store has no results of policy-xs with prm"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert module.main(["out", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
