"""What a reader gets of a store: every field as a data set, and one line about a record that is none."""

import pytest

from tts.errors import InputError
from tts.results.store import Store


def test_a_data_set_has_the_fields_of_every_record(tmp_path):
    """Not those of the first alone: a failure has an error, a success has a text."""
    table = Store(tmp_path).table("samples", {})
    assert table.dataset().num_rows == 0
    table.append([{"key": ["a", 0], "text": "one"}, {"key": ["b", 0], "error": "engine died"}])
    assert table.dataset()[:] == {"key": ["a/0", "b/0"], "text": ["one", None], "error": [None, "engine died"]}


@pytest.mark.parametrize("line", ['{"text": "x"}', '{"key": 3}', "5", '["key"]', "null"])
def test_a_line_that_is_no_record_is_damage(tmp_path, line):
    table = Store(tmp_path).table("samples", {})
    table.append([{"key": ["a", 0]}])
    with table.path.open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(InputError, match="line 2 is damaged: remove that line"):
        table.read()
