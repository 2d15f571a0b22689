"""Problems are read from three kinds of source, and a wrong one is refused in one clear line."""

import gzip
import json
from pathlib import Path

import datasets
import pandas
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


# --- Files as they come ---------------------------------------------------------------------------

ROWS = [
    {"problem": "1+1 für Anfänger?", "answer": "2", "unique_id": "a", "level": 3, "subject": None},
    {"problem": "∑ 1\u2028 = ?", "answer": "\\frac{1}{2}", "unique_id": "b", "level": None, "subject": "Algebra"},
]
PROBLEMS = [
    Problem(id="a", text="1+1 für Anfänger?", answer="2", level=3),
    Problem(id="b", text="∑ 1\u2028 = ?", answer="\\frac{1}{2}", subject="Algebra"),
]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
ARRAY = pandas.DataFrame(ROWS).to_json(orient="records", force_ascii=False)
FILES = {
    "plain.jsonl": LINES.encode(),
    "escaped.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
    "bom.jsonl": LINES.encode("utf-8-sig"),
    "utf16.jsonl": LINES.encode("utf-16"),
    "utf16-be.jsonl": b"\xfe\xff" + LINES.encode("utf-16-be"),
    "windows.jsonl": LINES.replace("\n", "\r\n").encode("utf-8-sig"),
    "no-newline.jsonl": LINES.rstrip("\n").encode(),
    "empty-lines.jsonl": ("\n \n" + LINES.replace("\n", "\n\n\n")).encode(),
    "lines.jsonl.gz": gzip.compress(LINES.encode(), mtime=0),
    "utf16.jsonl.gz": gzip.compress(LINES.encode("utf-16"), mtime=0),
    "gzipped-without-a-name": gzip.compress(LINES.encode(), mtime=0),
    "array.json": ARRAY.encode(),
    "indented.json": json.dumps(ROWS, indent=1).encode("utf-8-sig"),
    "array.json.gz": gzip.compress(ARRAY.encode(), mtime=0),
}


@pytest.mark.parametrize("name", FILES)
def test_files_as_they_come(tmp_path, name):
    (tmp_path / name).write_bytes(FILES[name])
    assert load_problems(str(tmp_path / name)) == PROBLEMS
    assert load_problems(str(tmp_path / name), n=1) == PROBLEMS[:1]


@pytest.mark.parametrize("write", ["pandas", "datasets"])
def test_a_parquet_file(tmp_path, write):
    """Pandas makes floating numbers of a column of levels where one is missing."""
    path = tmp_path / "mine.parquet"
    table = pandas.DataFrame(ROWS) if write == "pandas" else datasets.Dataset.from_list(ROWS)
    table.to_parquet(str(path))
    assert load_problems(str(path)) == PROBLEMS
    assert load_problems(str(path), n=1) == PROBLEMS[:1]


def test_a_folder_with_a_data_set(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "test.jsonl").write_bytes(FILES["plain.jsonl"])
    assert load_problems(str(tmp_path / "mine")) == PROBLEMS
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match=f"data set {tmp_path}/nothing can't be read"):
        load_problems(str(tmp_path / "nothing"))


def test_ids_and_levels_as_they_come(tmp_path):
    rows = [
        {"unique_id": 7, "level": "Level 5"},
        {"id": 0, "level": "4"},
        {"unique_id": "", "id": "x", "level": 2.0},
        {"unique_id": None, "level": "Level ?"},  # as MATH has it
        {"level": "²"},
    ]
    path = write(tmp_path / "mine.jsonl", [{"problem": "1+1?", "answer": "2"} | row for row in rows])
    found = [(problem.id, problem.level) for problem in load_problems(path)]
    assert found == [("7", 5), ("0", 4), ("x", 2), ("line 4", 0), ("line 5", 0)]


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
    with pytest.raises(InputError, match=r"data set owner/name can't be read \(ConnectionError: offline\): check"):
        load_problems("owner/name")


# --- What is wrong is said in one line ------------------------------------------------------------


def lines(*rows):
    return "".join(json.dumps({"problem": "1+1?", "answer": "2"} | row) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("[]", "is empty"),
        ('{"answer": "2"}\n', r"line 1: no text in column `problem` \(found answer\)"),
        ('{"problem": "1+1?"}\n', "no text in column `answer`"),
        (lines({}, {"answer": ""}), "line 2: no text in column `answer`"),
        (lines({"answer": None}), "no text in column `answer`"),
        (lines({"problem": " \n"}), "no text in column `problem`"),
        ("{}", "found nothing"),
        ('{"problem": "1+1?", "answer": "2"}\n{"problem": "1+', "line 2 is not JSON"),
        ('[\n{"problem": "1+1?",\n"answer"', "line 3 is not JSON"),
        ("problem,answer\n1+1?,2\n", "line 1 is not JSON"),
        ("version https://git-lfs.github.com/spec/v1\n", "line 1 is not JSON"),
        ('"1+1?"\n', "line 1 is no JSON object"),
        ('["1+1?", "2"]\n', "row 1 is no JSON object"),
        (lines({"id": "x"}, {"id": "x"}), "line 2 has the id 'x' twice"),
        (lines({"id": 1}, {"id": "1"}), "line 2 has the id '1' twice"),
        # The wrong type is named, and what to write.
        (
            lines({}, {"answer": 2}),
            r"line 2: `answer` is a number \(2\), not text: write text in quotes, such as \"7\"",
        ),
        (lines({"answer": 0.5}), r"`answer` is a number \(0\.5\), not text"),
        (lines({"answer": ["1", "2"]}), r"`answer` is a list \(\['1', '2'\]\), not text"),
        (lines({"answer": {"value": 1}}), "`answer` is an object .*, not text"),
        (lines({"answer": True}), r"`answer` is true or false \(True\), not text"),
        (lines({"problem": ["1+1?"]}), "`problem` is a list .*, not text"),
        (lines({"unique_id": ["x"]}), "`unique_id` is a list .*, not text"),
        (lines({"id": 1.5}), r"`id` is a number \(1\.5\), not text"),
        (lines({"level": [1]}), "`level` is a list .*, not text"),
        (pandas.DataFrame(ROWS).to_json(), "line 1: `problem` is an object .*, not text"),  # column by column
    ],
)
def test_bad_files(tmp_path, content, message):
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=f"^problems: {path}.*{message}") as caught:
        load_problems(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "latin1.jsonl",
            LINES.splitlines()[0].encode("latin-1"),
            r"line 1 is not utf-8 \(.*\): save the file as UTF-8",
        ),
        ("later.jsonl", b'{"problem": "a", "answer": "1"}\n{"problem": "\xe9', "line 2 is not utf-8"),
        ("windows.jsonl", '{"problem": "a – b"}'.encode("cp1252"), "line 1 is not utf-8"),
        ("latin1.jsonl.gz", gzip.compress("für".encode("latin-1"), mtime=0), "line 1 is not utf-8"),
        ("odd.jsonl", LINES.encode("utf-16")[:-1], "line 2 is not utf-16"),
        ("workbook.jsonl", b"PK\x03\x04\x14\x00\x06\x00\x08\x00\x00\x00!\x00\xfe\xff", "line 1 is not"),
        ("torn.jsonl.gz", FILES["lines.jsonl.gz"][:-9], "can't be read .* is it whole"),
        ("damaged.jsonl.gz", FILES["lines.jsonl.gz"][:20] + b"xx" + FILES["lines.jsonl.gz"][22:], "can't be read"),
        ("torn.parquet", b"PAR1 and no more", "can't be read"),
        ("empty.parquet", b"", "is empty"),
    ],
)
def test_bytes_that_are_no_text(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"^problems: {path}.*{message}") as caught:
        load_problems(str(path))
    assert "\n" not in str(caught.value)


def test_a_file_of_someone_else(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    path = write(tmp_path / "mine.jsonl", ROWS)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(
        InputError, match="mine.jsonl can't be read .PermissionError: .*Permission denied.*yours to read"
    ):
        load_problems(path)


@pytest.mark.parametrize(
    ("source", "n", "message"),
    [
        ("nowhere.jsonl", 0, "there is no file nowhere.jsonl: give a file .* a hub id owner/name, tiny/test, tiny/dev"),
        ("mine/nowhere.jsonl.gz", 0, "there is no file mine/nowhere.jsonl.gz"),
        ("./nowhere", 0, "there is no file nowhere"),
        ("nonsense", 0, "there is no file nonsense"),
        ("a/b/c", 0, "there is no file a/b/c"),
        ("tiny/test", -1, "n_problems is -1: it must be a whole number, 0 or more"),
        ("tiny/test", 2.5, "n_problems is 2.5"),
        ("tiny/test", 10**6, "n_problems is 1000000, but tiny/test has"),
    ],
)
def test_bad_arguments(source, n, message):
    with pytest.raises(InputError, match=message):
        load_problems(source, n=n)
