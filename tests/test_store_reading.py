"""What a reader gets of a store: every field as a data set, and one line about a record that is none."""

import pytest

from tts.errors import InputError
from tts.results.store import Store
from tts.tree import Node, Search, Solution


def test_a_data_set_has_the_fields_of_every_record(tmp_path):
    """Not those of the first alone: a failure has an error, a success has a text."""
    table = Store(tmp_path).table("samples", {})
    assert table.dataset().num_rows == 0
    table.append([{"key": ["a", 0], "text": "one"}, {"key": ["b", 0], "error": "engine died"}])
    assert table.dataset()[:] == {"key": ["a/0", "b/0"], "text": ["one", None], "error": [None, "engine died"]}


def test_a_tree_is_read_from_its_json(tmp_path):
    found = Search("dvts", "p", 4, [Solution("β", ["β"], [0.5], 3, -0.25, "end", (0, 0))], ["finished"], scored=7)
    found.nodes.append(Node((0, 0), "β", 3, -0.25, "end", 0.5, 0.5, fate="solution"))
    table = Store(tmp_path).table("searches", {})
    table.append([{"key": ["a"], "search": found.to_dict()}, {"key": ["b"], "error": "engine died"}])
    records = table.read()
    assert Search.from_dict(records["a",]["search"]) == Search.from_dict(found.to_dict()) == found
    assert records["b",] == {"key": ["b"], "error": "engine died"}
    assert table.dataset()["search"][0]["solutions"][0]["path"] == [0, 0]


@pytest.mark.parametrize(
    "line", ['{"text": "x"}', '{"key": 3}', "5", '["key"]', "null", '{"key": ["b"], "search": {]}']
)
def test_a_line_that_is_no_record_is_damage(tmp_path, line):
    table = Store(tmp_path).table("samples", {})
    table.append([{"key": ["a", 0]}])
    with table.path.open("a", encoding="latin-1") as file:
        file.write(f"{line}\n")
    with pytest.raises(InputError, match="line 2 is damaged: remove that line"):
        table.read()
