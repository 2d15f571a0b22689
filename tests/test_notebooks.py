"""The real notebooks, run end to end: small in the smoke profile, and notebook 01 once through vLLM."""

import asyncio
import json
import os
import re
from collections import Counter
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest

from tts.companion import ledger, ledger_table
from tts.companion.estimate import missing
from tts.companion.kernels import environment
from tts.companion.parameters import load_profile, notebooks
from tts.companion.plan import plan, read_parameters
from tts.companion.runner import canonical
from tts.plots.style import LABELS

ROOT = Path(__file__).parents[1]
NOTEBOOKS = notebooks()


def run(notebook, folder, **changes):
    """Execute a notebook with changed parameters; its figures and its store lie in folder."""
    with pytest.MonkeyPatch.context() as patch, environment(ROOT):
        patch.setenv("TTS_FIGURES", str(folder / "figures"))
        patch.setenv("TTS_STORE", str(folder / "store"))
        mine = {name: value for name, value in changes.items() if name in read_parameters(notebook)}
        built = folder / notebook.name
        folder.mkdir(exist_ok=True)
        papermill.execute_notebook(
            notebook, built, parameters=mine, kernel_name="python3", cwd=ROOT / "notebooks", progress_bar=False
        )
    return nbformat.read(built, as_version=4)


def outputs_of(built):
    """What the cells show, as it would be committed: an injected cell has a new id every time, so not the whole."""
    return [cell.get("outputs") for cell in json.loads(canonical(built))["cells"]]


def stderr_of(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.text for output in outputs if output.get("name") == "stderr")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """One folder for all notebooks: each finds what the ones before it stored."""
    return tmp_path_factory.mktemp("smoke")


INTERNAL = re.compile("|".join(name for name in LABELS if "_" in name))  # what a method is called in the code alone


def tables_of(notebook):
    """The HTML of the tables that a notebook shows."""
    shown = [
        output.get("data", {}).get("text/html", "") for cell in notebook.cells for output in cell.get("outputs", [])
    ]
    return [html for html in shown if "<table" in html]


@pytest.mark.kernel
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_smoke_profile(notebook, kept):
    built = run(notebook, kept, **load_profile("smoke"))
    assert not [html for html in tables_of(built) if INTERNAL.search(html)], "a table without the legend's labels"
    figures = {path.suffix for path in (kept / "figures" / "local").iterdir()}
    assert {".png", ".svg", ".json"} <= figures
    assert not (kept / "figures" / "README.md").exists()


@pytest.mark.kernel
def test_the_smoke_profile_asks_every_claim(kept):
    """Runs after the notebooks (in the order of this file)."""
    assert set(ledger_table.read(kept / "figures" / "local").claim) == set(ledger.CLAIMS)


@pytest.mark.kernel
def test_the_smoke_profiles_figures_have_words_for_readers(kept):
    """Runs after the notebooks too."""
    words = {path.stem: json.loads(path.read_text()) for path in (kept / "figures" / "local").glob("*.json")}
    assert not [name for name, said in words.items() if INTERNAL.search("".join(said.values()))]
    assert not [name for name, said in words.items() if re.search(r"quintile \d\.", said["alt"])]
    run_of = {name: said["caption"].partition("Run: ")[2] for name, said in words.items()}
    assert run_of["08_toy"] == run_of["10_toy"] == "", "no model drew a step of the toys"
    assert run_of["13_second_policy"].startswith("policy-s on 10 problems")
    for name in ("09_difficulty_bars", "10_cost", "08_collapse"):
        assert ("interval" in words[name]["caption"]) == (name == "08_collapse"), name
    assert "greedy" not in words["12_compute_optimal"]["caption"]


def counts(store):
    """How many records each table of samples, scores and searches has."""
    tables = [path for path in store.glob("*/*/records.jsonl") if path.parts[-3] not in ("usage", "answers")]
    return Counter({path.parent.name: len(path.read_bytes().splitlines()) for path in tables})


def estimated(lacks):
    """The same that an estimate says, without the scores whose number it can only guess."""
    known = Counter()
    for lack in lacks:
        known[lack.gap.table.folder.name] += 0 if lack.unsampled else lack.records
    return known


@pytest.mark.kernel
def test_the_estimate_knows_what_the_notebooks_collect(kept, monkeypatch):
    """From nothing, and for the parameters that add to the smoke profile. Runs after the notebooks too."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("TTS_STORE", str(kept / "nothing"))
    lacks = asyncio.run(missing(plan(profile="smoke", with_apart=True)))
    guessed = {lack.gap.table.folder.name for lack in lacks if lack.unsampled}
    made = counts(kept / "store")
    assert guessed <= made.keys()
    assert estimated(lacks) == Counter({name: count for name, count in made.items() if name not in guessed})

    more = {"other_widths": "2, 8", "n_seeds": 2, "seeds_n_max": 4, "n_max": 16}
    monkeypatch.setenv("TTS_STORE", str(kept / "store"))
    lacks = asyncio.run(missing(plan(profile="smoke", only="07", changes=[f"{k}={v}" for k, v in more.items()])))
    run(NOTEBOOKS[6], kept, **load_profile("smoke") | more)
    gained = counts(kept / "store") - made
    guessed = {lack.gap.table.folder.name for lack in lacks if lack.unsampled}
    assert +estimated(lacks) == Counter({name: count for name, count in gained.items() if name not in guessed})
    assert len(gained) >= 2 + 2 * 2, "a second seed and two other widths"


@pytest.mark.kernel
@pytest.mark.vllm
def test_majority_voting_through_vllm_then_from_the_store_alone(tmp_path):
    """Other samples than the local engine's, from the same distribution."""
    notebook = ROOT / "notebooks" / "01_majority_voting.ipynb"
    changes = load_profile("smoke") | {"n_problems": 60, "n_max": 16}
    first = run(notebook, tmp_path / "vllm", **changes | {"engine": "vllm"})
    outputs = outputs_of(tmp_path / "vllm" / notebook.name)
    assert "policy-xs: 0 samples stored, 960 to make" in stderr_of(first)
    again = run(notebook, tmp_path / "vllm", **changes | {"engine": "vllm"})
    assert "policy-xs: 960 samples stored, 0 to make" in stderr_of(again)
    assert "vLLM" not in stderr_of(again)  # no engine was started
    assert outputs_of(tmp_path / "vllm" / notebook.name) == outputs

    local = run(notebook, tmp_path / "local", **changes)
    assert "policy-xs: 0 samples stored, 960 to make" in stderr_of(local)
    one, other = (
        pd.read_csv(tmp_path / engine / "figures" / "local" / "05_majority_voting.csv")
        .query("source.isna()")  # without the writeup's numbers
        .set_index(["method", "n"])
        for engine in ("vllm", "local")
    )
    assert ((one.low <= other.high) & (other.low <= one.high)).all(), "the intervals of every point overlap"
    made = [samples_by_problem(tmp_path / engine / "store") for engine in ("vllm", "local")]
    assert made[0].keys() == made[1].keys()
    assert made[0] != made[1], "the engines have different generators"
    # The mean tokens of a problem's samples: a paired difference, whose mean is 0 within four standard errors.
    apart = np.array([np.mean(made[0][p]) - np.mean(made[1][p]) for p in made[0]])
    assert abs(apart.mean()) < 4 * apart.std(ddof=1) / len(apart) ** 0.5


def samples_by_problem(store):
    """The tokens of each sample that was drawn with a temperature, by problem."""
    found = {}
    for settings in store.glob("samples/*/settings.json"):
        if json.loads(settings.read_text())["temperature"]:
            for line in (settings.parent / "records.jsonl").read_text().splitlines():
                record = json.loads(line)
                found.setdefault(record["problem"], []).append(record["tokens"])
    return found


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_max": 0}, "n_max is 0"),
        ({"engine": "vlllm"}, "vlllm"),
        ({"policy_model": "no/where/at-all"}, "no/where/at-all"),
        ({"problems": "missing.jsonl"}, "there is no file missing.jsonl"),
        ({"temperature": "hot"}, "temperature = 'hot' has type str"),
    ],
    ids=lambda value: next(iter(value), "") if isinstance(value, dict) else "",
)
def test_a_wrong_parameter_ends_in_one_line_before_anything_is_made(tmp_path, change, message):
    notebook = ROOT / "notebooks" / "01_majority_voting.ipynb"
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        run(notebook, tmp_path, **load_profile("smoke") | change)
    assert caught.value.ename == "InputError"
    assert message in caught.value.evalue
    assert "\n" not in caught.value.evalue
    assert sorted(os.listdir(tmp_path)) == ["01_majority_voting.ipynb"]


def test_committed_notebooks_are_whole():
    """Executed from top to bottom, with one parameters cell, and no cell that overrides a reader's edit."""
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        tags = [tag for cell in notebook.cells for tag in cell.metadata.get("tags", [])]
        assert tags.count("parameters") == 1, path.name
        assert "injected-parameters" not in tags, path.name
        code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
        assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), path.name
        assert not [out for cell in code for out in cell.outputs if out.output_type == "error"], path.name


def test_the_default_profile_is_what_the_cells_say():
    profile, seen = load_profile("default"), set()
    for path in NOTEBOOKS:
        for name, parameter in read_parameters(path).items():
            assert parameter.value == profile[name], f"{path.name}: {name}"
            seen.add(name)
    assert seen == set(profile)
