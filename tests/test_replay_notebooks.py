"""All notebooks on a replay: a folder in the schema of the published completions, made from the embedded world."""

import asyncio
import shutil

import pyarrow.parquet
import pytest
from test_notebooks import NOTEBOOKS, run

from tts.companion import ledger, ledger_table
from tts.companion.parameters import load_profile
from tts.companion.plan import APART
from tts.experiment import sweep
from tts.models.open import open_policy, open_prm
from tts.policy import Sampling
from tts.problems import load_problems
from tts.results.export import export
from tts.results.store import Store

REPLAYED = [path for path in NOTEBOOKS if path.name[:2] not in APART]
PLAYS = {"policy-xs": "Llama-3.2-1B-Instruct", "policy-s": "Llama-3.2-3B-Instruct"}
SIZES = {"n_problems": 10, "n_max": 64, "seeds_n_max": 64, "n_seeds": 2, "n_difficulty": 4, "second_n_max": 4}


def published(folder):
    """Two policies, all strategies, two seeds, of which the second is a copy with some damage."""
    problems, store, made = load_problems("tiny/test", n=10), Store(folder / "store"), folder / "made"
    for name, n in (("policy-xs", 64), ("policy-s", 4)):
        policy, prm = open_policy(name, engine="transformers"), open_prm("prm", engine="transformers")
        drawing = {"n_difficulty": 4, "sampling": Sampling(max_tokens=256)}
        asyncio.run(sweep(problems, policy, prm, store, seeds={0: n}, **drawing))
        policy.name = PLAYS[name]
        for path in export(store, made, problems, policy, prm, source="tiny/test"):
            table = pyarrow.parquet.read_table(path).drop_columns(["finished"])  # which theirs do not have
            pyarrow.parquet.write_table(table, path)
            other = path.parents[1] / path.parent.name.replace("seed-0", "seed-1") / path.name
            other.parent.mkdir()
            pyarrow.parquet.write_table(table.select(table.column_names[::-1]), other)  # in another order
    [missing] = made.glob(f"{PLAYS['policy-xs']}-beam-search-completions/*--n-16--*seed-1*")
    shutil.rmtree(missing)
    [torn] = made.glob(f"{PLAYS['policy-xs']}-DVTS-completions/*--n-4--*seed-1*/*.parquet")
    torn.write_bytes(torn.read_bytes()[:-100])
    return made


@pytest.fixture(scope="module")
def replayed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("replay")
    named = {"replay": str(published(folder)), "problems": "tiny/test", "max_tokens": 256}
    return folder, load_profile("replay") | SIZES | named


@pytest.mark.kernel
@pytest.mark.engine
@pytest.mark.parametrize("notebook", REPLAYED, ids=lambda path: path.stem)
def test_a_notebook_replays(notebook, replayed):
    folder, parameters = replayed
    built = run(notebook, folder / "run", **parameters)
    texts = [text for cell in built.cells for output in cell.get("outputs", []) for text in said(output)]
    if "04" in notebook.stem or "06" in notebook.stem:
        assert any("neither the searches' trees nor their token counts" in text for text in texts)
    assert any("This run replays published completions of `Llama-3.2-1B-Instruct`" in text for text in texts)
    assert not list((folder / "run" / "store").glob("s*/*")), "no samples, scores or searches are kept"


def said(output):
    """The texts of an output."""
    return [output.get("text", ""), *map(str, output.get("data", {}).values())]


@pytest.mark.kernel
@pytest.mark.engine
def test_the_ledger_has_the_rows_of_a_replay(replayed):
    """Runs after the notebooks (in the order of this file)."""
    figures = replayed[0] / "run" / "figures"
    found = ledger_table.read(figures / "replay")
    assert set(found.claim) == {name for name, claim in ledger.CLAIMS.items() if not claim.beyond}
    assert (found.basis == "").all()
    assert any(found.part.str.contains(r"greedy Llama-3.1-8B-Instruct \(arXiv 2502.06703\)"))
    table = ledger_table.markdown(figures)
    assert "| replay run | verdict | default run | verdict |" in table
    assert "(replay/08_beam_search.png)" in table
