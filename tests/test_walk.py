"""Problems and models of a reader's own, once through all notebooks: tiny random models, in one process.

One policy writes boxes that are hardly ever right, another never ends. Their problems have no level, no subject, no
worked solution and no checker of steps, so whatever needs those has to say that it is left out.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from random_models import save_all

from tts.analysis.failures import CAUSES

pytestmark = [pytest.mark.engine, pytest.mark.slow]
ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("0[1-8]_*.ipynb"))
QUIET = re.compile(r"it/s|s/it|Loading|stored,|^used:|^\s*$|\[A")  # the lines of a run in which nothing is wrong


@pytest.fixture(scope="module", params=[True, False], ids=["boxes that are wrong", "no answer at all"])
def seen(request, tmp_path_factory):
    """(notebook -> cells, captions by figure) of a walk."""
    folder = tmp_path_factory.mktemp("walk")
    save_all(folder, boxes=request.param)
    rows = [{"problem": f"What is ${i} \\cdot 7$?\n\nGive a number.", "answer": str(7 * i)} for i in range(3, 13)]
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    models = {name: str(folder / name) for name in ("policy", "second", "prm")}
    parameters = {
        "problems": str(folder / "problems.jsonl"),
        "n_problems": 10,
        "policy_model": models["policy"],
        "second_model": models["second"],
        "greedy_models": f"{models['policy']}, {models['second']}",
        "prm_model": models["prm"],
        "other_prms": "",
        "n_max": 16,
        "second_n_max": 4,
        "n_difficulty": 4,
        "verifier_problems": 5,
        "max_tokens": 24,
        "engine": "transformers",
        "prm_engine": "transformers",
    }
    places = {"TTS_FIGURES": str(folder / "figures"), "TTS_STORE": str(folder / "store"), "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "walk.py"), str(folder / "seen.json"), *NOTEBOOKS],
        input=json.dumps(parameters),
        env=os.environ | places | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"},
        cwd=ROOT / "notebooks",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    captions = {path.stem: json.loads(path.read_text())["caption"] for path in folder.glob("figures/local/*.json")}
    return json.loads((folder / "seen.json").read_text()), captions


def test_nothing_warns(seen):
    cells, _ = seen
    warned = [
        (name, line)
        for name, of_notebook in cells.items()
        for _, stderr, *_ in of_notebook
        for line in re.split(r"[\r\n]+", stderr)
        if not QUIET.search(line)
    ]
    assert warned == []


def test_no_table_says_nan(seen):
    cells, _ = seen
    shown = [(name, number, text) for name, of in cells.items() for number, cell in enumerate(of) for text in cell[2:]]
    shown = [
        (name, number, re.sub(r"<style.*?</style>|<[^>]+>", " ", text, flags=re.S)) for name, number, text in shown
    ]
    assert [one for one in shown if re.search(r"\bnan\b", one[2], re.I) and "def " not in one[2]] == []


def test_where_steps_cannot_be_checked_no_cause_is_named(seen):
    cells, captions = seen
    tables = "".join(text for cell in cells["04"] for text in cell[3:])
    assert "no right answer returned" in tables
    assert not [cause for cause in CAUSES[2:] if cause in tables]
    assert "Rings mark" not in captions["08_tree"] + captions["10_trees"]
    assert "of none is DVTS alone right" in captions["10_trees"] or "DVTS solves" in captions["10_trees"]
    assert captions["08_tree"].startswith(("A real search.", "Two real searches."))
    said = " ".join(cell[2] for cell in cells["02"])
    assert "These problems have no step labels" in said
