"""Keys of answers that outlast a process: the same with and without them, whatever became of the table."""

import json
import subprocess
import sys

import pytest

import tts.answers
from tts.answers import Canonical, canonical_keys, remember
from tts.results.keys import KeptKeys
from tts.results.store import Store

ANSWERS = ["1/2", r"\frac{2}{4}", r"\sqrt{2}", "x+1", "", "1, 2", "(3, 4]", "e^-2x", r"\int x", "β", "\ud800", None]


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    """A process that has read nothing yet."""

    def start():
        monkeypatch.setattr(tts.answers, "_cache", {})
        monkeypatch.setattr(tts.answers, "_memory", None)

    start()
    return start


@pytest.fixture
def plain(forget):
    found = canonical_keys(ANSWERS)
    forget()
    return found


def test_a_second_process_parses_nothing(tmp_path, plain, forget, monkeypatch):
    remember(KeptKeys(Store(tmp_path)))
    assert canonical_keys(ANSWERS) == plain
    forget()
    monkeypatch.setattr(tts.answers, "POOL", None)
    monkeypatch.setattr(tts.answers, "normalise", None)
    remember(KeptKeys(Store(tmp_path)))
    assert canonical_keys(ANSWERS) == plain
    assert all(isinstance(hash(found.key), int) for found in canonical_keys(ANSWERS))
    lines = KeptKeys(Store(tmp_path)).table.path.read_text().splitlines()
    assert len(lines) == len(ANSWERS) - 2, "what is known is not kept twice; no surrogate, no missing answer"


def test_a_timeout_is_tried_again(tmp_path, monkeypatch, forget):
    remember(KeptKeys(Store(tmp_path)))
    with monkeypatch.context() as late:
        late.setattr(tts.answers.POOL, "read", lambda texts, **_: [None] * len(texts))
        assert canonical_keys(["x+1", "7"])[0].status == "timeout"
    forget()
    remember(KeptKeys(Store(tmp_path)))
    assert canonical_keys(["x+1"])[0].status == "parsed"
    assert list(KeptKeys(Store(tmp_path)).read()) == ["7", "x+1"]


def test_other_policies_or_another_parser_have_a_table_of_their_own(tmp_path, monkeypatch):
    KeptKeys(Store(tmp_path)).append({"5": Canonical(("rational", "6"), "parsed")})
    assert KeptKeys(Store(tmp_path)).read() == {"5": Canonical(["rational", "6"], "parsed")}
    monkeypatch.setattr("tts.results.keys.VERSION", -1)
    assert KeptKeys(Store(tmp_path)).read() == {}
    monkeypatch.undo()
    monkeypatch.setattr("tts.results.keys.version", lambda name: "2.0")
    assert KeptKeys(Store(tmp_path)).read() == {}


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        '{"key": ["5"]}',
        '{"key": [5], "canonical": ["rational", "5"], "status": "parsed"}',
        '{"key": ["5"], "canonical": "five", "status": "parsed"}',
        '{"key": ["5"], "canonical": [], "status": "parsed"}',
        '{"key": ["5"], "canonical": ["rational", "5"], "status": "timeout"}',
    ],
)
def test_a_damaged_table_is_made_anew(tmp_path, plain, forget, capsys, line):
    path = KeptKeys(Store(tmp_path)).table.path
    remember(KeptKeys(Store(tmp_path)))
    canonical_keys(ANSWERS[:2])
    with path.open("a") as file:
        file.write(f"{line}\n")
    forget()
    remember(KeptKeys(Store(tmp_path)))
    [said] = capsys.readouterr().err.splitlines()
    assert "are made anew" in said
    assert canonical_keys(ANSWERS) == plain
    assert len(KeptKeys(Store(tmp_path)).read()) == len(ANSWERS) - 2
    assert capsys.readouterr().err == ""


def test_what_is_in_the_way_is_said_in_a_line_and_left(tmp_path, plain, capsys):
    KeptKeys(Store(tmp_path)).table.path.mkdir(parents=True)
    remember(KeptKeys(Store(tmp_path)))
    assert len(capsys.readouterr().err.splitlines()) == 2  # can't be read, can't be removed
    assert canonical_keys(ANSWERS) == plain
    [said] = capsys.readouterr().err.splitlines()
    assert "are not kept" in said


WRITER = """
import sys
from tts.answers import canonical_keys, remember
from tts.results.keys import KeptKeys
from tts.results.store import Store
remember(KeptKeys(Store(sys.argv[1])))
for i in range(40):
    canonical_keys([f"{i}/7", f"{i}, {i + 1}", f"x+{i}"])
"""


def test_two_processes_that_write_at_once(tmp_path, forget):
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, tmp_path]) for _ in range(2)]
    assert [writer.wait() for writer in writers] == [0, 0]
    asked = [answer for i in range(40) for answer in (f"{i}/7", f"{i}, {i + 1}", f"x+{i}")]
    plain = canonical_keys(asked)
    forget()
    table = KeptKeys(Store(tmp_path)).table
    assert {json.loads(line)["key"][0] for line in table.path.read_text().splitlines()} == set(asked)
    remember(KeptKeys(Store(tmp_path)))
    assert canonical_keys(asked) == plain
