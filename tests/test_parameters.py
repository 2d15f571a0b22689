"""Parameters against the default profile, and the folders that follow from them."""

from pathlib import Path

import pandas as pd
import pytest

from tts.companion import parameters
from tts.companion.plan import read_parameters
from tts.errors import InputError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path):
    default = "n: 64\ntemperature: 0.8\nname: xs\nn_max: 4\n"
    (tmp_path / "default.yaml").write_text(default)
    (tmp_path / "full.yaml").write_text("n: 256\nn_max: 16\n")
    (tmp_path / "n256.yaml").write_text("n: 128\nn_max: 256\n")
    (tmp_path / "empty.yaml").write_text("# nothing changes\n")
    (tmp_path / "broken.yaml").write_text("n: [1\n")
    (tmp_path / "list.yaml").write_text("- n\n")
    (tmp_path / "latin.yaml").write_bytes("name: Größe".encode("latin-1"))
    return tmp_path


def test_load(folder):
    assert parameters.load_profile("full", folder=folder) == {"n": 256, "n_max": 16}
    assert parameters.load_profile("empty", folder=folder) == {}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fulll", "profile 'fulll' is not known: choose one of broken, default, empty, full, latin, list, n256"),
        ("../full", "choose one of broken"),
        ("broken", "is not valid YAML"),
        ("latin", "is not valid YAML"),
        ("list", "is not a mapping"),
    ],
)
def test_a_profile_that_can_not_be_read(folder, name, message):
    with pytest.raises(InputError, match=message) as caught:
        parameters.load_profile(name, folder=folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "subfolder"),
    [
        ({"n": 64, "temperature": 0.8, "name": "xs"}, ""),
        ({"n": 64, "another": 1}, ""),
        ({}, ""),
        ({"n": 256, "temperature": 0.8}, "full"),
        ({"n": 256, "temperature": 0.8, "name": "xs", "n_max": 16}, "full"),
        ({"n_max": 16}, "full"),  # a notebook that has no other parameter
        ({"n": 128, "n_max": 256}, "n256"),
        ({"n": 128, "name": "xs"}, "n256"),
        ({"n": 128, "n_max": 16}, "local"),  # one value of each
        ({"n": 256, "n_max": 4}, "local"),  # a part of a profile is another run
        ({"n_max": 8}, "local"),
        ({"n": 32}, "local"),
        ({"n": 256, "temperature": 1.0}, "local"),
    ],
)
def test_only_the_committed_parameters_write_the_committed_figures(folder, tmp_path, monkeypatch, given, subfolder):
    monkeypatch.setenv("TTS_FIGURES", str(tmp_path / "base"))
    assert parameters.figures_folder(given, profiles=folder) == tmp_path / "base" / subfolder


def test_a_name_that_is_nearly_a_parameters_is_refused():
    with pytest.raises(InputError, match=r"n_maxx = 16: there is no parameter n_maxx, did you mean n_max\?"):
        parameters.check_parameters({"n_max": 8, "n_maxx": 16})
    with pytest.raises(InputError, match="did you mean gpus"):
        parameters.check_parameters({"gpuss": "0"})
    parameters.check_parameters({"n_max": 8, "n": 16, "says": "N", "seeds": {0: 4}, "_n_max": 3, "budgets": [4]})


def test_without_other_profiles_every_change_is_local(folder):
    for name in parameters.COMMITTED:
        (folder / f"{name}.yaml").unlink()
    assert parameters.figures_subfolder({"n": 256}, profiles=folder) == "local"


def test_folders_are_the_repositorys_whatever_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TTS_FIGURES")
    monkeypatch.delenv("TTS_STORE")
    assert parameters.figures_folder({}) == ROOT / "figures"
    assert parameters.store_folder() == ROOT / "store"
    assert parameters.store_folder("other/place") == ROOT / "other" / "place"
    assert parameters.store_folder(str(tmp_path)) == tmp_path
    monkeypatch.setenv("TTS_STORE", str(tmp_path / "named"))
    assert parameters.store_folder() == tmp_path / "named"


@pytest.mark.parametrize(
    ("value", "expected", "answer"),
    [
        (3, "int", True),
        (3, "float", True),
        (3.0, "int", False),
        (True, "int", False),
        (True, "bool", True),
        ("3", "int", False),
        (None, "str", False),
        ([1, 2], "list[int]", True),
        ([1, 2.5], "list[float]", True),
        ([1, "a"], "list[int]", False),
        ([], "list[int]", True),
        ([1, "a"], "list", True),
        ({"a": 1}, "dict", True),
    ],
)
def test_fits(value, expected, answer):
    assert parameters.fits(value, expected) is answer


def test_wrong_type_names_the_parameter_and_what_to_give():
    parameters.check_parameters({"n_max": 8, "temperature": 1, "unknown": object()})
    with pytest.raises(InputError, match="n_max = '8' has type str: its type is int, as in 64"):
        parameters.check_parameters({"n_max": "8"})


def test_lists_to_choose_from():
    assert parameters.widths_of(4, "") == [4]
    assert parameters.widths_of(4, " 2,8 ") == [4, 2, 8]
    assert parameters.widths_of(4, "2, 4") == [4, 2]  # the width itself may be named too
    assert parameters.lookaheads_of("") == [0]
    assert parameters.lookaheads_of("1, 2") == [0, 1, 2]
    assert parameters.prms_of("prm", "") == ["prm"]
    assert parameters.prms_of("prm", "exact,  owner/name@main, prm") == ["prm", "exact", "owner/name@main"]
    assert parameters.reductions_of("last", "") == ["last"]
    assert parameters.reductions_of("min", "min, prod, mean") == ["min", "prod", "mean"]


@pytest.mark.parametrize(
    ("read", "first", "text", "message"),
    [
        (parameters.widths_of, 4, "2, x", 'other_widths is "2, x": give whole numbers'),
        (parameters.widths_of, 4, "2, 0", "of 1 or more"),
        (parameters.widths_of, 4, "2.5", "whole numbers"),
        (parameters.widths_of, 4, "-2", "whole numbers"),
        (parameters.widths_of, 4, "2,", "nothing between two commas"),
        (parameters.widths_of, 4, "2, 8, 2", "other_widths has 2 twice"),
        (lambda _, text: parameters.lookaheads_of(text), 0, "0", 'lookaheads is "0": give whole numbers of 1 or more'),
        (parameters.reductions_of, "last", "min, max", "other_reductions has 'max': choose from last, min"),
        (parameters.reductions_of, "last", "min, min", "other_reductions has min twice"),
        (parameters.prms_of, "prm", "exact, exact", "other_prms has exact twice"),
        (parameters.prms_of, "prm", "exact,", "nothing between two commas"),
        (parameters.reductions_of, "last", ",", "nothing between two commas"),
    ],
)
def test_bad_lists_end_in_one_line(read, first, text, message):
    with pytest.raises(InputError, match=message) as caught:
        read(first, text)
    assert "\n" not in str(caught.value)


def test_a_home_that_is_not_known_is_one_line(monkeypatch):
    monkeypatch.delenv("TTS_STORE")
    with pytest.raises(InputError, match="store: ~nobody-here/x begins with a home folder that is not known"):
        parameters.store_folder("~nobody-here/x")


@pytest.mark.parametrize("run", parameters.COMMITTED)
def test_every_notebook_of_a_committed_run_ran_with_the_profile_as_it_is(run):
    default, profile = parameters.load_profile("default"), parameters.load_profile(run)
    changed = {name: str(value) for name, value in profile.items() if value != default[name]}
    runs = pd.read_csv(ROOT / "figures" / run / "runs.csv").set_index("notebook").parameters
    assert [name[:2] for name in runs.index][:8] == [f"{number:02}" for number in range(1, 9)]
    for notebook, said in runs.items():
        its = read_parameters(ROOT / "notebooks" / f"{notebook}.ipynb")
        assert dict(pair.split("=", 1) for pair in said.split(", ")) == {k: v for k, v in changed.items() if k in its}
