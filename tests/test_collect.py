"""Collecting: what is stored is not made again, what fails is tried again, what was finished stays."""

import asyncio
import errno
import fcntl
import json
import os
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from fakes import with_sampling
from processes import started

from tts.analysis.cost import Usage
from tts.errors import ContextExceeded, EngineError, InputError
from tts.policy import Completion, Sampling
from tts.problems import Problem
from tts.results import collect
from tts.results.store import Store, settings_hash
from tts.strategies import beam_search, best_of_n, dvts, majority

TESTS = Path(__file__).parent
PROBLEMS = [Problem(id=f"p{i}", text=f"{i} + 1?", answer=str(i + 1)) for i in range(6)]


class Scripted:
    """Answers with its seed; counts its calls; fails for the problems and as often as it is told (problem -> times)."""

    name, fingerprint, context = "scripted", "f00d", 1000

    def __init__(self, fail=None, engine="scripted"):
        self.calls, self.fail, self.prompt_settings = [], dict(fail or {}), {"system": ""}
        self.provenance = {"engine": engine}

    def prompt(self, problem):
        return (int(problem[0]),)

    async def sample(self, prefix, sampling, *, stop=None):
        await asyncio.sleep(0)
        self.calls.append((prefix[0], sampling.seed))
        if self.fail.get(prefix[0], 0) > 0:
            self.fail[prefix[0]] -= 1
            raise EngineError("the engine died")
        return Completion((1, 2, 3), f"seed {sampling.seed}", -0.5, "end" if sampling.seed % 2 else "length")


def sample(policy, folder, problems=PROBLEMS, *, n=3, **settings):
    settings = with_sampling(max_tokens=8, **settings)
    return asyncio.run(collect.sample(problems, policy, Store(folder), n=n, **settings))


def test_one_row_a_sample_in_order(tmp_path):
    samples = sample(Scripted(), tmp_path)
    assert samples[["problem", "index"]].values.tolist() == [[p.id, i] for p in PROBLEMS for i in range(3)]
    assert samples.text.nunique() == 18
    ended = samples.finish == "end"
    assert (samples.tokens[ended] == 4).all()  # the end-of-turn token was decoded too
    assert (samples.tokens[~ended] == 3).all()


def test_a_second_run_makes_no_call(tmp_path):
    first = sample(Scripted(), tmp_path)
    policy = Scripted()
    assert sample(policy, tmp_path).equals(first)
    assert policy.calls == []


def test_a_larger_n_makes_only_what_is_missing(tmp_path):
    small = sample(Scripted(), tmp_path, n=3)
    policy = Scripted()
    large = sample(policy, tmp_path, n=7)
    assert len(policy.calls) == 6 * 4
    assert large[large["index"] < 3].reset_index(drop=True).equals(small)


def test_more_problems_and_fewer_problems(tmp_path):
    sample(Scripted(), tmp_path, PROBLEMS[:2])
    policy = Scripted()
    sample(policy, tmp_path, PROBLEMS[1:])
    assert len(policy.calls) == 4 * 3


@pytest.mark.parametrize("change", [{"seed": 1}, {"temperature": 0.7}, {"top_p": 0.9}])
def test_a_changed_setting_samples_anew(tmp_path, change):
    sample(Scripted(), tmp_path)
    policy = Scripted()
    sample(policy, tmp_path, **change)
    assert len(policy.calls) == 18


def test_results_do_not_depend_on_concurrency(tmp_path):
    one = sample(Scripted(), tmp_path / "one", concurrency=1)
    assert sample(Scripted(), tmp_path / "many", concurrency=100).equals(one)


class Roomy(Scripted):
    """Has room for so many requests; notes how many problems were in flight at most."""

    def __init__(self, room):
        super().__init__()
        self.room, self.in_flight, self.most = room, [], 0

    async def sample(self, prefix, sampling, *, stop=None):
        self.in_flight.append(prefix[0])
        self.most = max(self.most, len(set(self.in_flight)))
        for _ in range(20):
            await asyncio.sleep(0)
        self.in_flight.remove(prefix[0])
        return await super().sample(prefix, sampling, stop=stop)


@pytest.mark.parametrize(
    ("n", "concurrency", "problems"), [(1, 0, 6), (2, 0, 6), (3, 0, 4), (5, 0, 2), (50, 0, 2), (1, 3, 3), (5, 6, 6)]
)
def test_problems_in_flight_follow_from_the_room_for_requests(tmp_path, n, concurrency, problems):
    policy = Roomy(room=12)
    sample(policy, tmp_path, n=n, concurrency=concurrency)
    assert policy.most == problems


def test_a_search_counts_its_n_and_the_engine_with_less_room():
    policy, prm, other = Roomy(2048), Roomy(1024), Scripted()  # the last is in-process: it does not say
    assert [collect.problems_at_once(n, policy, prm) for n in (4, 16, 64, 256, 1024)] == [256, 64, 16, 4, 2]
    assert collect.problems_at_once(256, policy, other) == 8
    assert collect.problems_at_once(256, other) == collect.USUAL == 64


def test_greedy_has_no_seed(tmp_path):
    sample(Scripted(), tmp_path, n=1, temperature=0.0, seed=1)
    policy = Scripted()
    sample(policy, tmp_path, n=1, temperature=0.0, seed=2)
    assert policy.calls == []


def test_a_failed_request_is_tried_once_more(tmp_path):
    samples = sample(Scripted(fail={2: 1}), tmp_path)
    assert set(samples.finish) <= {"end", "length"}
    assert samples.equals(sample(Scripted(), tmp_path / "undisturbed"))


def test_a_problem_that_fails_twice_stays_in_the_table_and_is_tried_by_the_next_run(tmp_path):
    samples = sample(Scripted(fail={2: 99}), tmp_path)
    failed = samples[samples.finish == "failed"]
    assert len(samples) == 18
    assert failed.problem.tolist() == ["p2"] * 3
    assert failed.error.tolist() == ["the engine died"] * 3
    policy = Scripted()
    again = sample(policy, tmp_path)
    assert len(policy.calls) == 3
    assert again.equals(sample(Scripted(), tmp_path / "undisturbed"))


def test_samples_are_those_of_majority(tmp_path):
    """Drawn in two runs, the second from where the first has ended: what strategies.majority draws in one."""
    sample(Scripted(), tmp_path, n=2, seed=7)
    stored = sample(Scripted(), tmp_path, n=5, seed=7)
    for problem in PROBLEMS:
        whole = asyncio.run(majority(problem, Scripted(), n=5, sampling=Sampling(max_tokens=8, seed=7)))
        rows = stored[stored.problem == problem.id]
        for name in ("text", "tokens", "logprob", "finish"):
            assert rows[name].tolist() == [getattr(found, name) for found in whole.solutions]


def test_a_hole_is_filled_and_nothing_stored_is_lost(tmp_path):
    """Of problem 0 sample 1 has failed and sample 2 is stored: all from 1 on is drawn, and the stored 2 stays."""
    sample(Scripted(), tmp_path, PROBLEMS[:1], n=1)
    [path] = tmp_path.glob("samples/*/records.jsonl")
    kept, settings = path.read_bytes(), json.loads((path.parent / "settings.json").read_text())
    table = Store(tmp_path).table("samples", settings)
    first = table.read()[PROBLEMS[0].hash, 0]
    failed = {"key": [PROBLEMS[0].hash, 1], "problem": "p0", "finish": "failed", "error": "the engine died"}
    table.append([failed, first | {"key": [PROBLEMS[0].hash, 2], "text": "kept"}])
    stored = path.read_bytes()

    policy = Scripted()
    found = sample(policy, tmp_path, PROBLEMS[:1], n=4)
    undisturbed = sample(Scripted(), tmp_path / "undisturbed", PROBLEMS[:1], n=4)
    assert found.text.tolist() == [*undisturbed.text[:2], "kept", undisturbed.text[3]]
    assert found.error.isna().all()
    assert path.read_bytes().startswith(stored)
    assert stored.startswith(kept)
    assert sample(policy, tmp_path, PROBLEMS[:1], n=4).equals(found)
    assert len(policy.calls) == 3, "the next run finds all of them"


def test_a_failure_while_samples_are_added_leaves_the_first_ones(tmp_path):
    small = sample(Scripted(), tmp_path, n=2)
    more = sample(Scripted(fail={2: 99}), tmp_path, n=4)
    first = more[more["index"] < 2]
    assert first.text.tolist() == small.text.tolist()
    assert first.error.isna().all()
    assert more[more.finish == "failed"][["problem", "index"]].values.tolist() == [["p2", 2], ["p2", 3]]
    policy = Scripted()
    assert sample(policy, tmp_path, n=4).equals(sample(Scripted(), tmp_path / "undisturbed", n=4))
    assert [problem for problem, _ in policy.calls] == [2, 2]


def test_an_engine_that_fails_from_the_start_stops_the_run(tmp_path):
    policy = Scripted(fail=dict.fromkeys(range(6), 99))
    with pytest.raises(EngineError, match=r"first 3 problems failed \(the engine died\); what is stored is kept"):
        sample(policy, tmp_path, concurrency=1)
    assert len({problem for problem, _ in policy.calls}) == 3


def test_an_interrupted_run_keeps_what_was_finished_and_says_so(tmp_path, capsys):
    class Slow(Scripted):
        hangs = False

        async def sample(self, prefix, sampling, *, stop=None):
            if prefix[0] == 4:
                self.hangs = True
                await asyncio.sleep(3600)
            return await super().sample(prefix, sampling)

    async def interrupted():
        task = asyncio.create_task(
            collect.sample(PROBLEMS, slow, Store(tmp_path), n=3, sampling=Sampling(max_tokens=8), concurrency=1)
        )
        while not slow.hangs:
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    slow = Slow()
    asyncio.run(interrupted())
    assert "scripted: interrupted; finished samples are stored, run it again to go on" in capsys.readouterr().err
    policy = Scripted()
    assert sample(policy, tmp_path).equals(sample(Scripted(), tmp_path / "undisturbed"))
    assert sorted({problem for problem, _ in policy.calls}) == [4, 5]


def test_mixed_engines_are_said(tmp_path, capsys):
    sample(Scripted(engine="vllm"), tmp_path, n=2)
    assert "different ways" not in capsys.readouterr().err
    sample(Scripted(engine="transformers"), tmp_path, n=3)
    assert "made in different ways: engine transformers; engine vllm" in capsys.readouterr().err


def test_what_there_is_to_do_is_said_before(tmp_path, capsys):
    sample(Scripted(), tmp_path, n=2)
    sample(Scripted(), tmp_path, n=5)
    assert "scripted: 12 samples stored, 18 to make" in capsys.readouterr().err


class Scorer:
    name, fingerprint, provenance = "scorer", "beef", {"engine": "scripted"}

    def __init__(self, too_long=(), fail=0):
        self.calls, self.too_long, self.fail = [], too_long, fail

    async def score(self, problem, steps, *, known=()):
        self.calls.append((problem, tuple(steps)))
        if steps[0] in self.too_long:
            raise ContextExceeded("too long")
        if self.fail:
            self.fail -= 1
            raise EngineError("the scorer died")
        return [*known, *(len(step) % 7 / 7 for step in steps[len(known) :])]


def samples_of(*texts):
    rows = [(problem.id, i, text) for problem in PROBLEMS[:2] for i, text in enumerate(texts)]
    return pd.DataFrame(rows, columns=["problem", "index", "text"])


def score(samples, scorer, folder):
    return asyncio.run(collect.score(PROBLEMS[:2], samples, scorer, Store(folder)))


def test_equal_solutions_are_scored_once_and_every_sample_gets_its_scores(tmp_path):
    scorer = Scorer()
    scored = score(samples_of("a\n\nbb", "a\n\nbb", "ccc", ""), scorer, tmp_path)
    assert scored.scores.tolist() == [[3 / 7, 2 / 7], [3 / 7, 2 / 7], [3 / 7], []] * 2
    assert (scored.unscored == "").all()
    assert len(scorer.calls) == 2 * 2
    again = Scorer()
    assert score(samples_of("a\n\nbb", "a\n\nbb", "ccc", ""), again, tmp_path).equals(scored)
    assert again.calls == []
    score(samples_of("ccc", "new"), again, tmp_path)
    assert [steps for _, steps in again.calls] == [("new",)] * 2


def test_scores_are_those_of_best_of_n(tmp_path):
    samples = sample(Scripted(), tmp_path)
    scored = asyncio.run(collect.score(PROBLEMS, samples, Scorer(), Store(tmp_path)))
    for problem in PROBLEMS:
        whole = asyncio.run(best_of_n(problem, Scripted(), Scorer(), n=3, sampling=Sampling(max_tokens=8)))
        rows = scored[scored.problem == problem.id]
        assert rows.scores.tolist() == [found.scores for found in whole.solutions]


def test_what_has_no_score_says_why(tmp_path):
    scored = score(samples_of("a", "too much", None), Scorer(too_long=["too much"]), tmp_path)
    assert scored.unscored.tolist() == ["", "too long", "failed"] * 2
    assert scored.scores.tolist() == [[1 / 7], [], []] * 2


def test_a_scorer_that_fails_is_asked_again(tmp_path):
    assert score(samples_of("a"), Scorer(fail=1), tmp_path).unscored.tolist() == ["", ""]
    failed = score(samples_of("b"), Scorer(fail=3), tmp_path)
    assert sorted(failed.unscored) == ["", "failed"]
    assert score(samples_of("b"), Scorer(), tmp_path).unscored.tolist() == ["", ""]


def search(policy, folder, strategy=beam_search, **settings):
    """Settings that are the strategy's own are bound to it."""
    names = ("beam_width", "lookahead", "drop_duplicates")
    own = {name: settings.pop(name) for name in names if name in settings}
    strategy = partial(strategy, depth=3, **own)
    settings = with_sampling(max_tokens=99, **settings)
    return asyncio.run(collect.search(PROBLEMS, strategy, policy, Scorer(), Store(folder), **settings))


@pytest.mark.parametrize("strategy", [beam_search, dvts])
def test_searches_are_stored_whole_and_made_once(tmp_path, strategy):
    first = search(Scripted(), tmp_path, strategy, n=4, beam_width=2)
    assert [found.problem for found in first] == [problem.id for problem in PROBLEMS]
    assert all(found.nodes for found in first)
    policy = Scripted()
    assert search(policy, tmp_path, strategy, n=4, beam_width=2) == first
    assert policy.calls == []


def test_the_key_of_a_sample_is_for_ever(tmp_path):
    """If this fails, stored samples are no longer found: change the code back, not the numbers."""
    sample(Scripted(), tmp_path)
    assert [path.name for path in tmp_path.glob("samples/*")] == ["d31ba0c0a569c2d7"]


KEY = {"n": 4, "beam_width": 2}


def tables(folder):
    """The settings of all tables of searches by their hash."""
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("searches/*/settings.json")}


def test_the_key_of_a_search_is_for_ever(tmp_path):
    """If this fails, stored searches are no longer found: change the code back, not the numbers."""
    search(Scripted(), tmp_path, **KEY)
    search(Scripted(), tmp_path, **KEY, lookahead=0, drop_duplicates=False)  # the defaults have no place in it
    [(name, settings)] = tables(tmp_path).items()
    assert settings == {
        "policy": "f00d",
        "prompt": {"system": ""},
        "temperature": 0.8,
        "top_p": 1.0,
        "max_tokens": 99,
        "seed": 0,
        "strategy": "beam_search",
        "prm": "beef",
        "n": 4,
        "width": 2,  # the beam width, as it was called then
        "depth": 3,
    }
    assert name == settings_hash(settings) == "968f42aa4b517626"


@pytest.mark.parametrize("change", [{"lookahead": 1}, {"lookahead": 2}, {"drop_duplicates": True}])
def test_other_settings_of_a_search_are_in_its_key(tmp_path, change):
    search(Scripted(), tmp_path, **KEY)
    [plain] = tables(tmp_path)
    search(Scripted(), tmp_path, **KEY, **change)
    [(_, settings)] = ((name, found) for name, found in tables(tmp_path).items() if name != plain)
    assert settings == tables(tmp_path)[plain] | change
    policy = Scripted()
    search(policy, tmp_path, **KEY, **change)
    assert policy.calls == []


@pytest.mark.parametrize("change", [{"n": 8}, {"beam_width": 4}, {"strategy": dvts}, {"seed": 1}, {"temperature": 0.5}])
def test_a_changed_search_is_another(tmp_path, change):
    search(Scripted(), tmp_path, n=4, beam_width=2)
    policy = Scripted()
    search(policy, tmp_path, **{"n": 4, "beam_width": 2} | change)
    assert policy.calls


def test_a_failed_search_stays_in_its_place(tmp_path):
    found = search(Scripted(fail={2: 99}), tmp_path, n=4)
    assert [item is None for item in found] == [False, False, True, False, False, False]
    assert None not in search(Scripted(), tmp_path, n=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 0}, "n is 0: it must be a whole number, 1 or more"),
        ({"concurrency": -1}, "concurrency is -1: it must be a whole number, 0 or more"),
    ],
)
def test_bad_settings_before_any_call(tmp_path, change, message):
    policy = Scripted()
    with pytest.raises(InputError, match=message):
        sample(policy, tmp_path, **change)
    assert policy.calls == []
    assert list(tmp_path.iterdir()) == []


class Hanging(Scripted):
    """Never answers the first `hangs` requests of problem 2."""

    def __init__(self, hangs):
        super().__init__()
        self.hangs = hangs

    async def sample(self, prefix, sampling, *, stop=None):
        if prefix[0] == 2 and self.hangs:
            self.hangs -= 1
            await asyncio.Event().wait()
        return await super().sample(prefix, sampling)


def test_a_request_that_hangs_is_tried_again(tmp_path):
    whole = sample(Scripted(), tmp_path / "a")
    assert sample(Hanging(1), tmp_path / "b", patience=0.2).equals(whole)


def test_a_request_that_hangs_again_is_a_failure_that_a_rerun_mends(tmp_path):
    samples = sample(Hanging(100), tmp_path, patience=0.2)
    failed = samples[samples.finish == "failed"]
    assert set(failed.problem) == {"p2"}
    assert failed.error.str.contains("no progress for 0.2 s").all()
    assert sample(Scripted(), tmp_path).equals(sample(Scripted(), tmp_path / "b"))


def test_what_a_run_used_is_stored(tmp_path):
    policy = Scripted()
    sample(policy, tmp_path)
    sample(policy, tmp_path)  # makes nothing: no record
    [record] = Store(tmp_path).table("usage", {}).read().values()
    assert record["key"][0].startswith("samples/")
    assert record["usage"] == Usage().to_dict()  # a scripted policy counts nothing
    assert record["seconds"] >= 0


# --- Several processes at once --------------------------------------------------------------------

# Collects n samples of each problem. With a gate its engine says "making" at the first call and waits for a line.
COLLECTOR = """
import sys
from test_collect import Scripted, sample

class Gated(Scripted):
    async def sample(self, prefix, sampling, *, stop=None):
        global gate
        if gate == "gate":
            gate = "open"
            print("making", flush=True)
            sys.stdin.readline()
        return await super().sample(prefix, sampling)

folder, n, gate = sys.argv[1:]
policy = Gated()
found = sample(policy, folder, n=int(n))
assert found.text.notna().all()
print(len(policy.calls))
"""


def collector(folder, *, n, gate="no"):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (TESTS, TESTS.parent)))}
    return started("-c", COLLECTOR, str(folder), str(n), gate, env=environment)


def stored_keys(folder):
    """The key of every record in the one table of samples, in the order of the file."""
    [path] = folder.glob("samples/*/records.jsonl")
    return [tuple(json.loads(line)["key"]) for line in path.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("end", ["done", "killed"])
def test_who_comes_second_waits_and_makes_only_what_the_first_did_not(tmp_path, end):
    """A holder that is killed leaves all to the one that waits."""
    with collector(tmp_path, n=3, gate="gate") as first:
        assert first.stdout.readline() == "making\n"
        with collector(tmp_path, n=5) as second:
            while "another process makes these samples, waiting for it" not in second.stderr.readline():
                assert second.poll() is None
            if end == "killed":
                first.kill()
            else:
                first.stdin.write("\n")
                first.stdin.flush()
                assert int(first.stdout.readline()) == 6 * 3
            calls, said = second.communicate(timeout=600)
            assert int(calls) == 6 * (2 if end == "done" else 5), said
    keys = stored_keys(tmp_path)
    assert len(keys) == len(set(keys)) == 6 * 5


@pytest.mark.slow
def test_processes_that_start_together_make_each_sample_once(tmp_path):
    with collector(tmp_path, n=3) as one, collector(tmp_path, n=5) as other, collector(tmp_path, n=5) as third:
        calls = [int(process.communicate(timeout=600)[0]) for process in (one, other, third)]
    assert sum(calls) == 6 * 5
    keys = stored_keys(tmp_path)
    assert len(keys) == len(set(keys)) == 6 * 5


def test_tasks_of_one_process_make_each_sample_once(tmp_path):
    async def both():
        settings = {"sampling": Sampling(max_tokens=8)}
        await asyncio.gather(*(collect.sample(PROBLEMS, policy, Store(tmp_path), n=n, **settings) for n in (5, 3)))

    policy = Scripted()
    asyncio.run(both())
    assert len(policy.calls) == len(set(stored_keys(tmp_path))) == 6 * 5


def test_waiting_leaves_the_loop_to_others_and_ends_with_an_interrupt(tmp_path, capsys):
    sample(Scripted(), tmp_path, n=1)
    [folder] = tmp_path.glob("samples/*")

    async def interrupted():
        task = asyncio.create_task(
            collect.sample(PROBLEMS, policy, Store(tmp_path), n=2, sampling=Sampling(max_tokens=8))
        )
        while "waiting" not in capsys.readouterr().err:
            await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    policy = Scripted()
    with (folder / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        asyncio.run(interrupted())
    assert policy.calls == []
    sample(policy, tmp_path, n=2)
    assert len(policy.calls) == 6


def test_a_file_system_without_locks_is_said_and_used(tmp_path, capsys, monkeypatch):
    def refuse(_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(collect, "_lock", refuse)
    assert len(sample(Scripted(), tmp_path)) == 18
    assert "(No locks available): a run that goes on beside this one may make the same samples" in (
        capsys.readouterr().err
    )


# --- Looking only ---------------------------------------------------------------------------------


def test_a_dry_store_says_what_is_missing_once_and_makes_nothing(tmp_path):
    """Half of it is stored; what it says is what a real run then makes."""
    score(sample(Scripted(), tmp_path, PROBLEMS[:2], n=1), Scorer(), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    dry, policy, scorer = collect.DryStore(tmp_path), Scripted(), Scorer()

    async def collect_all(store):
        settings = {"sampling": Sampling(max_tokens=99)}
        drawn = await collect.sample(PROBLEMS, policy, store, n=3, sampling=Sampling(max_tokens=8))
        await collect.score(PROBLEMS, drawn, scorer, store)
        return await collect.search(PROBLEMS, beam_search, policy, scorer, store, n=4, **settings)

    found = asyncio.run(collect_all(dry))
    asyncio.run(collect_all(dry))
    assert found == [None] * 6
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert policy.calls == scorer.calls == []
    counts = {gap.table.folder.parent.name: sum(map(len, gap.missing.values())) for gap in dry.gaps}
    assert len(dry.gaps) == 3, "what was noted is not noted again"
    assert counts == {"samples": 16, "scores": 16, "searches": 6}
    tables = {gap.table.folder.parent.name: gap.table for gap in dry.gaps}
    stored = {kind: len(table.read()) for kind, table in tables.items()}
    asyncio.run(collect_all(Store(tmp_path)))
    assert {kind: len(table.read()) - stored[kind] for kind, table in tables.items()} == counts
