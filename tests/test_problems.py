"""Problems are read from three kinds of source, and a wrong one is refused in one clear line."""

import json
from pathlib import Path

import datasets
import pytest

from tts.errors import InputError
from tts.problems import Problem, load_problems

MATH500 = Path(__file__).parents[1] / "../shared/data/math500.jsonl"


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.skipif(not MATH500.exists(), reason="needs the MATH-500 file in ../shared/data")
def test_math500_is_read_whole():
    problems = load_problems(str(MATH500))
    assert len(problems) == 500
    assert problems[0].id == "test/precalculus/807.json"
    assert (problems[0].subject, problems[0].level) == ("Precalculus", 2)
    assert problems[0].answer == "\\left( 3, \\frac{\\pi}{2} \\right)"


def test_embedded_benchmark():
    problems = load_problems("tiny/test", n=200)
    assert len(problems) == 200
    assert {problem.level for problem in problems} == {1, 2, 3, 4, 5}


def test_local_file_in_order_and_optional_columns(tmp_path):
    rows = [
        {"problem": "1+1?", "answer": "2", "level": "Level 3", "type": "Algebra"},
        {"problem": "2+2?", "answer": "4"},
    ]
    path = write(tmp_path / "mine.jsonl", rows)
    assert load_problems(path) == [
        Problem(id="line 1", text="1+1?", answer="2", subject="Algebra", level=3),
        Problem(id="line 2", text="2+2?", answer="4"),
    ]
    assert load_problems(path, n=1) == load_problems(path)[:1]


def test_an_edited_text_is_another_problem():
    problem = Problem(id="a", text="1+1?", answer="2")
    assert problem.hash != Problem(id="a", text="1+2?", answer="2").hash
    assert problem.hash == Problem(id="a", text="1+1?", answer="two", level=4).hash


def test_hub_data_set(monkeypatch):
    calls = []

    def load_dataset(name, *, split, revision):
        calls.append((name, split, revision))
        return datasets.Dataset.from_list([{"problem": "1+1?", "answer": "2", "unique_id": "x", "level": 1}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert load_problems("owner/name")[0].id == "x"
    load_problems("owner/name@abc:dev")
    assert calls == [("owner/name", "test", None), ("owner/name", "dev", "abc")]


def test_hub_out_of_reach(monkeypatch):
    def load_dataset(*args, **kwargs):
        raise ConnectionError("offline\nlong story")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(InputError, match=r"hub data set owner/name can't be read \(offline\)"):
        load_problems("owner/name")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ('{"answer": "2"}\n', "no text in column `problem`"),
        ('{"problem": "1+1?"}\n', "no text in column `answer`"),
        ('{"problem": "1+1?", "answer": ""}\n', "no text in column `answer`"),
        ('{"problem": "1+1?", "answer": 2}\n', "no text in column `answer`"),
        ('{"problem": "1+1?", "answer": "2"}\n{"problem": "1+', "line 2 is not JSON"),
        ('["1+1?", "2"]\n', "line 1 is no JSON object"),
        ('{"problem": "a", "answer": "1", "id": "x"}\n{"problem": "b", "answer": "2", "id": "x"}\n', "id 'x' twice"),
    ],
)
def test_bad_files(tmp_path, content, message):
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        load_problems(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "n", "message"),
    [
        ("nowhere.jsonl", 0, "no file nowhere.jsonl"),
        ("nonsense", 0, "is no file and no data set"),
        ("tiny/test", -1, "n_problems is -1"),
        ("tiny/test", 10**6, "n_problems is 1000000, but tiny/test has"),
    ],
)
def test_bad_arguments(source, n, message):
    with pytest.raises(InputError, match=message):
        load_problems(source, n=n)
