"""A run in shards: who makes what, stores of their own, and the one store of an undisturbed run made from them."""

import asyncio
import json
import shutil
from pathlib import Path

import msgspec
import pytest
from test_collect import PROBLEMS, Scripted
from test_collect import sample as sample_into
from toys import ROOT, make_repository, run

from tts.companion import shards
from tts.companion.estimate import COLLECTS
from tts.companion.plan import plan
from tts.companion.setup import set_up
from tts.errors import EngineError, InputError
from tts.policy import Sampling
from tts.results import collect
from tts.results.shards import Shard, ShardStore, _distance, merge
from tts.results.store import Store

KINDS = ("samples", "scores", "searches")


def sample(folder, shard, policy=None, n=3):
    """Samples of a shard's part of PROBLEMS; returns (the rows, the store)."""
    shard = Shard.read(shard, {})
    store = ShardStore(shard.folder(folder), beside=folder, problems=shard.of(PROBLEMS))
    drawing = {"n": n, "sampling": Sampling(max_tokens=8)}
    return asyncio.run(collect.sample(PROBLEMS, policy or Scripted(), store, **drawing)), store


def stores(folder):
    return sorted((folder / "shards").iterdir())


def contents(folder):
    """Every record of a store by table and key, without who made it."""
    found = {}
    for path in folder.glob("*/*/settings.json"):
        if path.parts[-3] in KINDS:
            table = Store(folder).table(path.parts[-3], json.loads(path.read_text()))
            for key, record in table.read().items():
                plain = {name: bytes(value) if name == "search" else value for name, value in record.items()}
                found[path.parts[-3], path.parts[-2], key] = plain
    return found


def decoded(record):
    return {name: msgspec.json.decode(value) if isinstance(value, bytes) else value for name, value in record.items()}


# --- Which part -----------------------------------------------------------------------------------


def test_the_parts_are_equally_large_and_a_longer_list_moves_nobody():
    parts = [Shard(i, 4).of(PROBLEMS) for i in range(1, 5)]
    assert [len(part) for part in parts] == [2, 2, 1, 1]
    assert sorted((p for part in parts for p in part), key=PROBLEMS.index) == PROBLEMS
    for i in range(4):
        assert set(Shard(i + 1, 4).of(PROBLEMS[:5])) == set(parts[i]) & set(PROBLEMS[:5])


@pytest.mark.parametrize("text", ["", "0/3", "4/3", "1", "1/0", "a/b", "1/3/5", "-1/3", "1.5/3", "SLURM"])
def test_a_part_that_does_not_exist_is_refused(text):
    with pytest.raises(InputError, match=r"^--shard .*: give i/N with i from 1 to N"):
        Shard.read(text, {})


def array(task, first, last, count):
    values = {"ID": task, "MIN": first, "MAX": last, "COUNT": count}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


@pytest.mark.parametrize(
    ("environment", "shard"),
    [(array(0, 0, 7, 8), Shard(1, 8)), (array(7, 0, 7, 8), Shard(8, 8)), (array(3, 1, 8, 8), Shard(3, 8))],
)
def test_the_place_in_a_job_array(environment, shard):
    assert Shard.read("slurm", environment) == shard


@pytest.mark.parametrize("environment", [array(3, 3, 3, 1), array(1, 1, 1, 1), array(5, 3, 5, 3), array(4, 0, 8, 3)])
def test_an_array_of_some_of_the_tasks_does_not_say_how_many_there_are(environment):
    """Of `sbatch --array=3` the count is 1: taken at its word that one task would make everything."""
    with pytest.raises(InputError, match=r'don\'t say how many shards .*"\$SLURM_ARRAY_TASK_ID/8"'):
        Shard.read("slurm", environment)


@pytest.mark.parametrize("environment", [{}, array(1, 1, 8, 8) | {"SLURM_ARRAY_TASK_ID": ""}])
def test_outside_a_job_array_there_is_no_place(environment):
    with pytest.raises(InputError, match="no task of a job array; give --shard i/N"):
        Shard.read("slurm", environment)


# --- A store of its own ---------------------------------------------------------------------------


def test_a_shard_makes_its_own_problems_and_writes_into_its_own_store(tmp_path):
    policy = Scripted()
    rows, store = sample(tmp_path, "2/3", policy)
    mine = [PROBLEMS[1].id, PROBLEMS[4].id]
    assert {call[0] for call in policy.calls} == {1, 4}, "their prompts"
    assert rows[rows.finish != "failed"].problem.unique().tolist() == mine
    assert len(rows) == 18, "the others are there as failed ones, so that everything after has all its rows"
    assert set(rows.error.dropna()) == {"another shard makes it"}
    assert store.failed == set()
    assert {path.relative_to(tmp_path).parts[:2] for path in tmp_path.rglob("*.json*")} == {("shards", "2-of-3")}


def test_a_second_run_of_a_shard_makes_nothing(tmp_path):
    first, _ = sample(tmp_path, "2/3")
    policy = Scripted()
    again, _ = sample(tmp_path, "2/3", policy)
    assert policy.calls == []
    assert again.equals(first)


def test_what_the_common_store_has_is_not_made_again(tmp_path):
    sample_into(Scripted(), tmp_path, n=2)
    policy = Scripted()
    rows, _ = sample(tmp_path, "1/3", policy, n=3)
    assert len(policy.calls) == 2, "the third sample of problems 0 and 3"
    assert (rows.finish == "failed").sum() == 4, "the third sample of the others"
    whole = sample_into(Scripted(), tmp_path / "undisturbed", n=3)
    made = rows.finish != "failed"
    assert rows[made].text.tolist() == whole[made].text.tolist()


def test_what_fails_is_counted_and_the_next_run_tries_it_again(tmp_path):
    _, store = sample(tmp_path, "1/3", Scripted(fail={0: 99}))
    assert {key for _, key in store.failed} == {(PROBLEMS[0].hash, i) for i in range(3)}
    _, store = sample(tmp_path, "1/3")
    assert store.failed == set()


# --- One store from several -----------------------------------------------------------------------


def test_three_shards_are_the_run(tmp_path):
    for i in (3, 1, 2):
        sample(tmp_path, f"{i}/3")
    found = merge(stores(tmp_path), tmp_path)
    assert (found.added, found.there, found.torn, found.conflicts) == (18 + 3, 0, [], []), "samples, and usage"
    sample_into(Scripted(), tmp_path / "undisturbed")
    assert contents(tmp_path) == contents(tmp_path / "undisturbed")
    policy = Scripted()
    sample_into(policy, tmp_path)
    assert policy.calls == []

    before = {path: path.read_bytes() for path in tmp_path.rglob("*.jsonl")}
    found = merge(stores(tmp_path), tmp_path)
    assert (found.added, found.there) == (0, 18 + 3)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.jsonl")} == before


def test_a_torn_record_is_said_left_out_and_made_again(tmp_path):
    for i in (1, 2):
        sample(tmp_path, f"{i}/2")
    [path] = tmp_path.glob("shards/2-of-2/samples/*/records.jsonl")
    path.write_bytes(path.read_bytes()[:-5])
    found = merge(stores(tmp_path), tmp_path)
    assert found.torn == [path]
    assert len(contents(tmp_path)) == 17
    sample(tmp_path, "2/2")
    found = merge(stores(tmp_path), tmp_path)
    assert (found.torn, found.conflicts) == ([], [])
    assert len(contents(tmp_path)) == 18


def test_a_conflict_keeps_both_and_is_said_every_time(tmp_path):
    """The same cut another way, on a machine that samples otherwise: nothing is dropped, the first is read."""
    for i in (1, 2):
        sample(tmp_path, f"{i}/2")
    first = contents(tmp_path / "shards" / "1-of-2") | contents(tmp_path / "shards" / "2-of-2")
    elsewhere = tmp_path / "elsewhere"
    sample(elsewhere, "1/3")
    [path] = elsewhere.glob("shards/1-of-3/samples/*/records.jsonl")
    path.write_text(path.read_text().replace('"seed ', '"other seed ', 1))
    found = merge([*stores(tmp_path), *stores(elsewhere)], tmp_path)
    assert len(found.conflicts) == 1
    assert found.there == 5, "five of six are the same"
    table = next(table for _, table, _ in first)
    assert found.conflicts[0] == f"samples/{table}, problem p0, key {PROBLEMS[0].hash}/0: 2 results"
    assert contents(tmp_path) == first
    lines = (tmp_path / "samples" / table / "records.jsonl").read_text().splitlines()
    assert sum("other seed" in line for line in lines) == 1
    assert len(lines) == 19
    again = merge([*stores(tmp_path), *stores(elsewhere)], tmp_path)
    assert again.added == 0
    assert len(again.conflicts) == 1
    assert len(merge([], tmp_path).conflicts) == 0, "no store, no table is looked at"


def test_numbers_that_differ_by_rounding_are_counted_apart(tmp_path):
    for name, logprob, scores in (("a", -1.25, [0.5, 1.0]), ("b", -1.25 + 1e-6, [0.5, 0.999])):
        store = Store(tmp_path / name)
        store.table("samples", {}).append([{"key": ["p", 0], "text": "t", "tokens": 3, "logprob": logprob}])
        store.table("scores", {}).append(
            [{"key": ["p", "t"], "scores": scores}, {"key": ["p", "u"], "scores": scores[:1]}]
        )
    found = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "into")
    assert (found.conflicts, found.near, found.furthest) == ([], 2, pytest.approx(0.001))
    assert [record["scores"] for record in Store(tmp_path / "into").table("scores", {}).read().values()] == [
        [0.5, 1.0],
        [0.5],
    ]

    Store(tmp_path / "b").table("samples", {}).append([{"key": ["p", 1], "tokens": 3}])
    Store(tmp_path / "a").table("samples", {}).append([{"key": ["p", 1], "tokens": 4}])
    assert len(merge([tmp_path / "a", tmp_path / "b"], tmp_path / "into").conflicts) == 1, "a count is no rounding"


def test_other_engines_alone_are_no_conflict(tmp_path):
    sample(tmp_path, "1/2")
    sample(tmp_path / "elsewhere", "1/2", Scripted(engine="another"))
    found = merge([*stores(tmp_path), *stores(tmp_path / "elsewhere")], tmp_path)
    assert found.conflicts == []
    assert found.there == 9


def test_a_success_takes_the_place_of_a_failure_whichever_comes_first(tmp_path):
    sample(tmp_path, "1/3", Scripted(fail={0: 99}))
    sample(tmp_path / "elsewhere", "1/3")
    for order in (1, -1):
        into = tmp_path / f"into{order}"
        found = merge([*stores(tmp_path), *stores(tmp_path / "elsewhere")][::order], into)
        assert found.conflicts == []
        assert all("error" not in record for record in contents(into).values())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda store: (store / "schema.json").unlink(), "is no store"),
        (lambda store: (store / "schema.json").write_text('{"schema": 99}'), "has schema 99"),
        (lambda store: next(store.glob("samples/*/settings.json")).unlink(), "settings.json is missing, damaged"),
        (lambda store: next(store.glob("samples/*/settings.json")).write_text('{"a": 1}'), "settings.json is missing"),
        (
            lambda store: next(store.glob("samples/*/records.jsonl")).write_bytes(b'{"key"\n{"key": ["a"]}\n'),
            "has a damaged line",
        ),
    ],
)
def test_what_is_no_store_or_damaged_is_one_line(tmp_path, damage, message):
    sample(tmp_path, "1/3")
    damage(stores(tmp_path)[0])
    with pytest.raises(InputError, match=message) as error:
        merge(stores(tmp_path), tmp_path / "into")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "into" / "samples").exists()


def test_a_store_is_not_merged_into_itself(tmp_path):
    sample_into(Scripted(), tmp_path / "store")
    (tmp_path / "link").symlink_to(tmp_path / "store")
    with pytest.raises(InputError, match="is the store to merge into"):
        merge([tmp_path / "link"], tmp_path / "store")


# --- The notebooks' work in shards ----------------------------------------------------------------


@pytest.fixture
def smoke(monkeypatch, tmp_path):
    """The smoke profile at N = 16, its store in a folder below tmp_path."""
    monkeypatch.chdir(ROOT)

    def jobs(store, only):
        monkeypatch.setenv("TTS_STORE", str(tmp_path / store))
        return plan(profile="smoke", only=only, changes=["n_max=16", "verifier_problems=4", "other_prms=prm-weak"])

    return jobs


def test_what_a_notebook_trains_is_not_in_the_shards(smoke, tmp_path, monkeypatch):
    async def nothing(jobs):
        return []

    monkeypatch.setattr(shards, "missing", nothing)
    said, _ = shards.collect(smoke("whole", "01,10"), [])
    assert "not in the shards: 10_self_training, its rounds of training" in said


@pytest.mark.engine
def test_three_shards_of_the_notebooks_are_the_undisturbed_run(smoke, tmp_path):
    """Samples, scores and searches with the embedded models; verifier_problems are the first of all, not of a shard."""
    only = "03,04,06"
    for job in smoke("whole", only):
        asyncio.run(COLLECTS[job.name](set_up(job.parameters)))
    jobs = smoke("cut", only)
    for i in (2, 3):
        assert shards.make(jobs, Shard(i, 3)).startswith(f"shard {i}/3 is done after ")
    said, is_whole = shards.collect(jobs, [])
    assert not is_whole
    assert "missing:\n  03_best_of_n: policy-xs: samples: 64 records of 4 problems\n" in said
    assert "run again: --shard 1/3" in said.splitlines()
    assert "--shard 2/3" not in said
    shards.make(jobs, Shard(1, 3))
    said, is_whole = shards.collect(jobs, [])
    assert is_whole, said
    assert "complete: run the notebooks" in said
    assert "not in the shards" not in said
    whole, cut = contents(tmp_path / "whole"), contents(tmp_path / "cut")
    assert {kind for kind, *_ in whole} == set(KINDS)
    assert cut.keys() == whole.keys()
    for key, record in whole.items():  # other problems in a batch move a logit by 1e-6
        assert _distance(decoded(cut[key]), decoded(record)) < 1e-3, (record, cut[key])


def test_a_shard_with_failures_says_so(smoke, monkeypatch):
    async def fails(setup):
        setup.store.failed.add(("table", ("p", 1)))

    monkeypatch.setitem(COLLECTS, "01_majority_voting", fails)
    with pytest.raises(EngineError, match="1 records of shard 1/2 failed: run it again"):
        shards.make(smoke("store", "01"), Shard(1, 2))


def test_conflicts_are_listed_to_a_limit(smoke, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHOWN", 2)
    jobs = smoke("store", "01")
    for name, text in (("a", "one"), ("b", "another")):
        table = Store(tmp_path / name).table("samples", {"policy": "p"})
        table.append({"key": ["p", i], "text": text} for i in range(3))
    said, is_whole = shards.collect(jobs, [tmp_path / "a", tmp_path / "b"])
    assert not is_whole
    assert said.splitlines()[-4].startswith("in conflict, 3 keys (made twice and different")
    assert said.splitlines()[-1] == "  and 1 more"


# --- The command line -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shard", "9/8"], "run_all: --shard 9/8: give i/N"),
        (["--shard", "slurm"], "run_all: --shard slurm: SLURM_ARRAY_TASK_ID"),
        (["--shard", "1/2", "--estimate"], "not allowed with argument"),
        (["--collect", "nowhere"], "nowhere is no store (it has no schema.json)"),
    ],
)
def test_bad_usage_is_one_line(tmp_path, arguments, message):
    repository = make_repository(tmp_path / "repository")
    shutil.copytree(ROOT / "notebooks" / "profiles", repository / "notebooks" / "profiles", dirs_exist_ok=True)
    shutil.copy(ROOT / "notebooks" / "01_majority_voting.ipynb", repository / "notebooks")
    done = run(repository, *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(Path(repository).glob("store/*"))


@pytest.mark.slow
def test_a_relative_path_means_the_same_as_in_a_notebook(tmp_path):
    """Kernels run in notebooks/. The problems are found there; the models are not in this copy."""
    repository = make_repository(tmp_path / "repository")
    shutil.copytree(ROOT / "notebooks" / "profiles", repository / "notebooks" / "profiles", dirs_exist_ok=True)
    shutil.copy(ROOT / "notebooks" / "01_majority_voting.ipynb", repository / "notebooks")
    (repository / "notebooks" / "mine.jsonl").write_text('{"problem": "1 + 1?", "answer": "2"}\n')
    for command in (["--shard", "1/2"], ["--estimate"], ["--collect"]):
        done = run(repository, *command, "--set", "problems=mine.jsonl", "--set", "n_problems=1")
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].startswith("run_all: policy_model='policy-xs' is unknown")
