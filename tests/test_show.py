"""What notebooks display: sources, problems, tables, folded answers."""

import pandas as pd
from toys import ROOT

from tts import voting
from tts.answers import canonical_keys
from tts.companion import show
from tts.models.open import open_policy
from tts.problems import Problem
from tts.results.replay import published_policy


def test_a_source_is_that_of_the_module():
    code = show.source(voting.majority, voting.vanilla).data
    assert code.startswith("def majority")
    assert "def vanilla" in code


def test_a_problem_shows_what_there_is():
    words = show.problem(Problem("id1", "What is $1+1$?", "2", level=3)).data
    assert words == "**Problem**, level 3, id `id1`\n\nWhat is $1+1$?\n\n**Gold answer**: $2$"


def test_shares_are_per_cent_with_a_sign_where_it_matters():
    html = show.shares(pd.DataFrame({"a": [0.5], "gain": [0.25], "count": [7]}), "about", signed=["gain"]).to_html()
    assert all(text in html for text in (">50.0%<", ">+25.0%<", ">7<", "about"))
    assert ">50.0%<" in show.shares(pd.Series({"a": 0.5})).to_html()


def test_an_answer_is_folded_and_text_is_escaped():
    html = show.folded("a < b").data
    assert html == "<details><summary><b>Answer, from this run</b></summary><p>a &lt; b</p></details>"
    assert "<table" in show.folded(pd.DataFrame({"a": [1]})).data


def test_a_policy_is_described_by_its_files():
    found = show.model(open_policy(str(ROOT / "tts" / "tiny" / "models" / "policy-xs"), engine="transformers"))
    assert list(found) == ["weights", "layers", "width", "vocabulary", "tokens in training"]
    assert show.model(object()) == {}


def test_ballots_by_hand():
    """8 has one good solution, 14 two that add up to more; the third answer nobody chose and it has one vote."""
    graded = pd.DataFrame(
        {
            "key": pd.Series(["8", "14", "14", "3", None], dtype=object),
            "answer": ["8", "14", "14.0", "3", None],
            "correct": [False, True, True, False, False],
            "scores": [[0.7], [0.1, 0.4], [0.5], [0.2], [1.0]],
            "index": range(5),
        }
    )
    table = show.ballots({"all": graded}, "last", most=1).data.reset_index()
    assert table.answer.tolist() == ["14", "8"]
    assert table["chosen by"].tolist() == ["majority, weighted", "vanilla"]
    assert table["sum of scores"].round(2).tolist() == [0.9, 0.7]
    assert table.votes.tolist() == [2, 1]


def test_ballots_where_nobody_answers():
    nobody = {
        "key": pd.Series([None], dtype=object),
        "answer": [None],
        "correct": [False],
        "scores": [[0.5]],
        "index": 0,
    }
    assert show.ballots({"all": pd.DataFrame(nobody)}, "last").data.empty
    nothing = pd.DataFrame(nobody)[:0]
    assert show.ballots({"returned nothing": nothing}, "last").data.empty


def test_ballots_have_one_spelling():
    answers = [r"\left(27,43\right)", "(28, 61)", r"\left(28,61\right)"]
    keys = [found.key for found in canonical_keys(answers)]
    graded = pd.DataFrame(
        {"key": pd.Series(keys, dtype=object), "answer": answers, "correct": False, "scores": [[0.5]] * 3}
    )
    table = show.ballots({"all": graded.assign(index=range(3))}, "last").data.reset_index()
    assert dict(zip(table.answer, table.votes, strict=True)) == {"(28, 61)": 2, "(27,43)": 1}


def test_tables_have_the_labels_of_the_legend():
    table = pd.DataFrame(
        {("accuracy", "best_of_n_weighted"): [0.5], ("accuracy", "dvts_best"): [0.25], ("plan", "N = 4"): ["dvts"]},
        index=pd.MultiIndex.from_tuples([("policy-xs", "beam_search")], names=["policy", "method"]),
    )
    found = show.named(table)
    columns = [("accuracy", "Best-of-N, weighted"), ("accuracy", "DVTS, best child only"), ("plan", "N = 4")]
    assert list(found) == columns
    assert list(found.index) == [("policy-xs", "beam search")]
    assert found.index.names == ["policy", "method"]
    assert found.iloc[0].tolist() == [0.5, 0.25, "DVTS"]
    assert pd.api.types.is_float_dtype(found.dtypes.iloc[0]), "a number stays a number, for show.shares"
    assert show.named(pd.Series({"majority": 1}), majority="samples").index.tolist() == ["samples"]


def test_tokens_of_a_policy_without_a_tokenizer_are_said_to_be_missing():
    policy = open_policy(str(ROOT / "tts" / "tiny" / "models" / "policy-xs"), engine="transformers")
    assert show.tokens(policy, "1+1=2").replace(" ", "") == "1+1=2"
    assert show.tokens(published_policy("meta-llama/Llama-3.2-1B-Instruct"), "1+1=2") == (
        "Llama-3.2-1B-Instruct has no tokenizer here."
    )
