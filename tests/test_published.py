"""The schema of the published completions: names of configs, what a completion says, files of all kinds of damage."""

import json
from pathlib import Path

import made_folder
import pytest
from made_folder import POLICY, name_of, write

from tts.errors import InputError
from tts.results import published
from tts.results.published import Config, NotPublishedError, check, find_configs, solved_rows, steps_and_scores

PROBLEMS = made_folder.problems()
BY_ID = {problem.id: problem for problem in PROBLEMS}
RUNS = Path(__file__).resolve().parents[2] / "shared" / "data" / "reference_runs"


def test_the_name_of_a_config_says_its_settings():
    best = Config.parse("best_of_n", name_of("best_of_n", 256, 3), "owner/x")
    assert (best.n, best.seed, best.temperature, best.top_p, best.max_tokens) == (256, 3, 0.8, 1.0, 2048)
    beam = Config.parse("beam_search", name_of("beam_search", 64, 0), "owner/x")
    assert (beam.n, beam.seed, beam.width, beam.depth, beam.lookahead, beam.max_tokens) == (64, 0, 4, 40, 0, 0)
    assert Config.parse("best_of_n", name_of("beam_search", 64, 0), "owner/x") is None


@pytest.mark.parametrize(
    "name",
    [
        "n-merged",
        "default",
        name_of("dvts", 16, 0).replace("n-16", "n-merged"),
        name_of("dvts", 16, 0) + "--evals",
        name_of("dvts", 16, 0).replace("last", "prod"),
        name_of("dvts", 16, 0).replace("0.8", ".8"),
    ],
)
def test_other_names_are_no_runs(name):
    assert Config.parse("dvts", name, "owner/x") is None


@pytest.mark.parametrize(
    ("text", "scores", "expected"),
    [
        ("a\n\nb", [0.1, 0.2], (["a\n\n", "b"], [0.1, 0.2])),
        ("a\n\nb\n\n", [0.1, 0.2, 0.9], (["a\n\n", "b\n\n"], [0.1, 0.2])),  # the empty step after the blank line
        ("a\n\nb\n\n", [0.1, 0.2], (["a\n\n", "b\n\n"], [0.1, 0.2])),
        ("a\n\n\n\nb", [0.1, 0.9, 0.2], (["a\n\n", "\n\nb"], [0.1, 0.2])),
        ("", [0.9], ([], [])),
        ("", [], ([], [])),
        ("a\n\nb", [0.1], None),
        ("a\n\nb", [0.1, 0.2, 0.3], None),
        ("a", [], None),
    ],
)
def test_a_score_a_step(text, scores, expected):
    assert steps_and_scores(text, scores) == expected


def test_the_last_step_of_a_search_may_hold_blank_lines():
    assert steps_and_scores("a\n\nb\n\nc\n\nd", [0.1, 0.2], depth=2) == (["a\n\n", "b\n\nc\n\nd"], [0.1, 0.2])
    assert steps_and_scores("a\n\nb\n\nc", [0.1, 0.2], depth=3) is None


def test_children_of_one_step():
    ended_at_once = "a\n\nb\n\n"
    assert published.shares_parent(["a\n\nb\n\nc", "a\n\nb\n\nd", ended_at_once, "a\n\nb\n\ne\n\n"])
    assert published.shares_parent(["x", "y"])
    assert not published.shares_parent(["a\n\nb", "c\n\nb"])
    assert not published.shares_parent(["a\n\nb\n\nc", "a\n\nd"])


def test_a_blank_line_at_the_end_is_an_unfinished_step():
    row = {"completions": ["a", "a\n\n", "\\boxed{1}\n\n", ""]}
    assert published.finished(row) == [True, False, True, True]
    assert published.finished(row | {"finished": [True, True, False, True]}) == [True, True, False, True]


# --- Folders --------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "best_of_n", 8, 0, of=PROBLEMS)
    write(tmp_path, "best_of_n", 8, 1, of=PROBLEMS, suffix=".jsonl")
    write(tmp_path, "best_of_n", 4, 2, of=PROBLEMS, name="n-merged")
    made_folder.evals(tmp_path, "best_of_n", 8, 1, {1: (0.1, 0.2, 0.3)})
    return tmp_path


def configs(folder, method="best_of_n"):
    return find_configs(str(folder), f"meta-llama/{POLICY}@main", method)


def test_parquet_and_json_lines_are_found_by_name(folder):
    assert [(one.n, one.seed, one.files[0].suffix) for one in configs(folder)] == [(8, 0, ".parquet"), (8, 1, ".jsonl")]
    assert configs(folder, "dvts") == []
    for config in configs(folder):
        found = list(solved_rows(config, BY_ID))
        assert [problem for problem, _ in found] == PROBLEMS
        assert all(
            len(row["completions"]) == len(row["scores"]) == len(row["completion_tokens"]) == 8 for _, row in found
        )
    assert [published.evals(one) for one in configs(folder)] == [
        [],
        [{"n": 1, "acc_naive": 0.1, "acc_weighted": 0.2, "acc_maj": 0.3}],
    ]


def test_columns_in_another_order_and_no_ids(tmp_path):
    def reversed_without_ids(rows):
        return [{name: row[name] for name in reversed(row) if name != "unique_id"} for row in rows]

    write(tmp_path, "best_of_n", 8, 0, of=PROBLEMS, change=reversed_without_ids)
    [config] = configs(tmp_path)
    assert [problem.id for problem, _ in solved_rows(config, BY_ID)] == list(BY_ID)  # by text
    assert check(config, BY_ID, BY_ID) == 0


def without(name):
    return lambda rows: [{key: value for key, value in row.items() if key != name} for row in rows]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("scores"), "there is no column `scores`"),
        (lambda rows: [*rows, rows[2]], "problem test/p2 is there twice"),
        (lambda rows: rows[:4], r"2 of 6 problems are missing, such as test/p4"),
        (lambda rows: [row | {"problem": "Another?"} for row in rows], "its text is not that of `problems`"),
        (
            lambda rows: [row | {"scores": row["scores"][:7]} for row in rows],
            "7 completions, not 8|8 completions and 7",
        ),
        (lambda rows: [row | {"scores": [[0.5]] * 9} for row in rows], "has 9 scores$|8 completions and 9 scores"),
    ],
    ids=["no scores", "twice", "missing", "another text", "too few scores", "too many scores"],
)
def test_what_is_wrong_with_a_config_is_one_line(tmp_path, change, message, suffix):
    write(tmp_path, "best_of_n", 8, 0, of=PROBLEMS, change=change, suffix=suffix)
    [config] = configs(tmp_path)
    for read in (lambda: check(config, BY_ID, BY_ID), lambda: list(solved_rows(config, BY_ID))):
        with pytest.raises(NotPublishedError, match=message) as error:
            read()
        assert "\n" not in str(error.value)
        assert f"{POLICY}-best-of-N-completions, n-8, seed 0" in str(error.value)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
@pytest.mark.parametrize("left", [0.5, 0.0])
def test_a_torn_file_is_one_line_and_stays_as_it_is(tmp_path, suffix, left):
    path = write(tmp_path, "best_of_n", 8, 0, of=PROBLEMS, suffix=suffix)
    torn = path.read_bytes()[: int(left * path.stat().st_size)]
    path.write_bytes(torn)
    [config] = configs(tmp_path)
    expected = "can't be read|6 of 6 problems are missing"  # an empty file of lines is whole, and has no problem
    with pytest.raises(NotPublishedError, match=expected) as error:
        check(config, BY_ID, BY_ID)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == torn


def test_rows_of_problems_that_the_data_lack_are_counted(tmp_path):
    path = write(tmp_path, "best_of_n", 8, 0, of=made_folder.problems(9), suffix=".jsonl")
    [config] = configs(tmp_path)
    assert check(config, BY_ID, BY_ID) == 3
    some = dict(list(BY_ID.items())[:2])
    assert check(config, some, BY_ID) == 3  # a run of fewer problems is no reason to complain
    assert len(list(solved_rows(config, some))) == 2
    assert len(path.read_text().splitlines()) == 9


def test_without_the_hub_it_ends_in_one_line():
    with pytest.raises(InputError, match="HuggingFaceH4/Llama-3.2-1B-Instruct-DVTS-completions can't be read") as error:
        find_configs("HuggingFaceH4", "Llama-3.2-1B-Instruct", "dvts")  # the tests run offline
    assert "check the network, or give a folder" in str(error.value)
    assert "\n" not in str(error.value)
    config = Config.parse("dvts", name_of("dvts", 16, 0), "HuggingFaceH4/none", revision="0" * 40)
    with pytest.raises(NotPublishedError, match="n-16, seed 0") as error:
        list(published.rows(config, ["problem"]))
    assert "\n" not in str(error.value)
    assert published.evals(config) == []


def test_a_data_set_that_moved_is_one_line(monkeypatch):
    import httpx
    import huggingface_hub
    from huggingface_hub.errors import RepositoryNotFoundError

    def moved(self, name, **_):
        raise RepositoryNotFoundError("404", response=httpx.Response(404, request=httpx.Request("GET", "http://x")))

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", moved)
    with pytest.raises(
        InputError, match="is not on the hub, or private, or has moved: name its owner of today"
    ) as error:
        find_configs("HuggingFaceH4", "Llama-3.2-1B-Instruct", "dvts")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("source", ["./nowhere", "no/where", "~/nowhere"])
def test_a_folder_that_is_not_there(source):
    with pytest.raises(InputError, match=f"replay: there is no folder {source}"):
        find_configs(source, "Llama-3.2-1B-Instruct", "dvts")


@pytest.mark.skipif(not RUNS.is_dir(), reason=f"needs the reference's runs in {RUNS}")
def test_real_runs_have_a_score_a_step():
    """Of 124 completions all have; three are of beam searches that wrote their last step to the end."""
    fits, long = 0, 0
    for name in ("bayesprm_prev", "bayesprm_beam4", "rajlm10", "scatyf3_llama3b_n4"):
        depth = 40 if name == "bayesprm_beam4" else 0
        for row in map(json.loads, (RUNS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()):
            for text, scores in zip(row["completions"], row["scores"], strict=True):
                found = steps_and_scores(text, scores, depth=depth)
                fits += found is not None
                assert found is None or "".join(found[0]) == text
                long += found is not None and steps_and_scores(text, scores) is None
    assert (fits, long) == (124, 3)
