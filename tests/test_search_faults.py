"""Searches through what goes wrong: a problem is tried again or named, what was finished stays, a rerun resumes.

Each case ends with the table of an undisturbed run. The last three interrupt a kernel and kill processes for real.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from engine_kernel import reply, run
from fakes import ScriptedPolicy, ScriptedScorer, by_hash, dice
from jupyter_client.manager import start_new_kernel

from tts.errors import EngineError
from tts.models.host import running_hosts, stop_hosts
from tts.models.open import open_policy, open_prm
from tts.policy import Completion, Sampling
from tts.problems import Problem, load_problems
from tts.results import collect
from tts.results.store import Store
from tts.strategies import beam_search, dvts

PROBLEMS = [Problem(id=f"p{i}", text=f"Q{i}", answer="1") for i in range(6)]
BROKEN = PROBLEMS[2]
ALWAYS = 10**6


class Fault:
    """What goes wrong with a problem's requests: from the third one on, so many times."""

    def __init__(self, what="", times=0, problems=(BROKEN,)):
        self.what, self.times, self.texts = what, times, {problem.text for problem in problems}
        self.requests = Counter()  # of each problem

    def strikes(self, problem):
        self.requests[problem] += 1
        if problem not in self.texts or self.requests[problem] < 3 or not self.times:
            return False
        self.times -= 1
        return True

    async def __call__(self, problem, _):
        """As the gate of a fake."""
        if self.strikes(problem):
            if self.what == "raises":
                raise EngineError("out of memory")
            await asyncio.Event().wait()  # it hangs


class Policy(ScriptedPolicy):
    prompt_settings, provenance = {}, {"engine": "scripted"}

    def __init__(self, fault=None):
        empty = getattr(fault, "what", "") == "is empty"
        super().__init__(
            dice("a\n\n", "b\n\n", "cc\n\n", "d$", "ee$"), **({} if empty or not fault else {"gate": fault})
        )
        self.empty = fault if empty else None

    async def sample(self, prefix, sampling, *, stop=None):
        drawn = await super().sample(prefix, sampling, stop=stop)
        if self.empty and self.empty.strikes(self.requests[-1][0]):
            return Completion((), "", 0.0, "stop")
        return drawn


class Scorer(ScriptedScorer):
    provenance = {"engine": "scripted"}

    def __init__(self, fault=None):
        super().__init__(by_hash, **({"gate": fault} if fault else {}))


def search(folder, strategy=beam_search, *, policy=None, prm=None, **settings):
    """The run's searches; none of its tasks is left behind."""

    async def main():
        settings_ = {"n": 8, "patience": 60.0, **settings}
        try:
            return await collect.search(
                PROBLEMS, partial(strategy, depth=8), policy or Policy(), prm or Scorer(), Store(folder), **settings_
            )
        finally:
            assert asyncio.all_tasks() == {asyncio.current_task()}

    return asyncio.run(main())


def records(folder):
    """What is stored of searches, line by line, without a line that is being written."""
    lines = [line for path in folder.glob("searches/*/records.jsonl") for line in path.read_bytes().splitlines(True)]
    return [line for line in lines if line.endswith(b"\n")]


def errors(folder):
    """Problem -> why it failed, of the records that say so."""
    return {line["problem"]: line["error"] for line in map(json.loads, records(folder)) if line.get("error")}


FAULTS = [("policy", "raises"), ("policy", "hangs"), ("policy", "is empty"), ("scorer", "raises"), ("scorer", "hangs")]
REASONS = {"raises": "out of memory", "hangs": "no progress for 1 s", "is empty": "stopped without a token"}


def broken(engine, fault):
    return {"policy": Policy(fault)} if engine == "policy" else {"prm": Scorer(fault)}


@pytest.mark.parametrize(("engine", "what"), FAULTS)
@pytest.mark.parametrize("strategy", [beam_search, dvts])
def test_a_problem_is_tried_again(tmp_path, strategy, engine, what):
    fault = Fault(what, times=1)
    found = search(tmp_path / "disturbed", strategy, **broken(engine, fault), patience=1.0)
    assert fault.times == 0, "it did go wrong"
    assert errors(tmp_path / "disturbed") == {}
    assert found == search(tmp_path / "undisturbed", strategy)


@pytest.mark.parametrize(("engine", "what"), FAULTS)
def test_a_problem_that_fails_again_is_named_and_the_next_run_makes_it(tmp_path, engine, what):
    undisturbed = search(tmp_path / "undisturbed")
    found = search(tmp_path / "disturbed", **broken(engine, Fault(what, times=ALWAYS)), patience=1.0)
    assert found == [None if problem is BROKEN else it for problem, it in zip(PROBLEMS, undisturbed, strict=True)]
    [(problem, reason)] = errors(tmp_path / "disturbed").items()
    assert problem == BROKEN.id
    assert REASONS[what] in reason
    policy = Policy()
    assert search(tmp_path / "disturbed", policy=policy) == undisturbed
    assert {problem for problem, *_ in policy.requests} == {BROKEN.text}, "what was finished stays"


@pytest.mark.parametrize("engine", ["policy", "scorer"])
def test_an_engine_that_hangs_for_all_stops_the_run_with_one_line(tmp_path, engine):
    fault = Fault("hangs", times=ALWAYS, problems=PROBLEMS)
    with pytest.raises(EngineError, match=r"^the first 3 problems failed \(no progress for 0\.3 s: .*a rerun resumes$"):
        search(tmp_path, **broken(engine, fault), patience=0.3, concurrency=3)
    assert search(tmp_path) == search(tmp_path / "undisturbed")


@pytest.mark.slow
def test_samples_and_scores_have_patience_too(tmp_path):
    def sample_and_score(folder, policy, prm):
        async def main():
            store = Store(folder)
            samples = await collect.sample(PROBLEMS, policy, store, n=4, patience=1.0)
            return await collect.score(PROBLEMS, samples, prm, store, patience=1.0)

        return asyncio.run(main())

    faults = Fault("hangs", times=1), Fault("hangs", times=2)
    scored = sample_and_score(tmp_path / "disturbed", Policy(faults[0]), Scorer(faults[1]))
    assert [fault.times for fault in faults] == [0, 0]
    assert set(scored[scored.unscored == "failed"].problem) <= {BROKEN.id}
    undisturbed = sample_and_score(tmp_path / "undisturbed", Policy(), Scorer())
    assert sample_and_score(tmp_path / "disturbed", Policy(), Scorer()).equals(undisturbed)


SEARCH = """
import asyncio, sys
from functools import partial
from fakes import ScriptedPolicy, ScriptedScorer, by_hash, dice
from tts.problems import Problem
from tts.results.collect import search
from tts.results.store import Store
from tts.strategies import beam_search

async def slowly(*_):
    await asyncio.sleep(0.01)

policy = ScriptedPolicy(dice("a\\n\\n", "b\\n\\n", "cc\\n\\n", "d$", "ee$"), gate=slowly)
scorer = ScriptedScorer(by_hash, gate=slowly)
policy.prompt_settings, policy.provenance = {}, {"engine": "scripted"}
problems = [Problem(id=f"p{i}", text=f"Q{i}", answer="1") for i in range(6)]
asyncio.run(search(problems, partial(beam_search, depth=8), policy, scorer, Store(sys.argv[1]), n=8, concurrency=1))
"""


@pytest.mark.slow
def test_a_search_whose_process_is_killed_goes_on(tmp_path):
    folder, stored, chance = tmp_path / "killed", [], random.Random(3)
    for _ in range(2):
        child = subprocess.Popen(
            [sys.executable, "-c", SEARCH, str(folder)], stderr=subprocess.DEVNULL, cwd=Path(__file__).parent
        )
        while len(records(folder)) <= len(stored):
            assert child.poll() is None, "it ended before it could be killed"
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.02))
        child.kill()
        child.wait()
        now = records(folder)
        assert now[: len(stored)] == stored, "nothing that was finished is touched"
        stored = now
    policy = Policy()
    assert search(folder, policy=policy) == search(tmp_path / "undisturbed")
    assert len({problem for problem, *_ in policy.requests}) == len(PROBLEMS) - len(stored) > 0


# --- Real engines ---------------------------------------------------------------------------------


def decided(searches):
    """What a search decided and drew, without the last digits, which depend on the batch."""
    return [
        ([s.text for s in found.solutions], [(n.path, n.text, n.finish, n.fate) for n in found.nodes], found.ended)
        for found in searches
    ]


CELLS = """
import asyncio
from functools import partial
from test_search_faults import beam_search, decided, load_problems, open_policy, open_prm, collect, Sampling, Store
problems = load_problems("tiny/dev", n=24)
policy, prm = open_policy("policy-xs", engine="transformers"), open_prm("prm", engine="transformers")
async def search(folder):
    settings = dict(n=8, sampling=Sampling(max_tokens=200), concurrency=2)
    return await collect.search(problems, partial(beam_search, depth=8), policy, prm, Store(folder), **settings)
"""


@pytest.mark.kernel
@pytest.mark.engine
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_an_interrupted_cell_runs_again_and_goes_on(tmp_path):
    folder = tmp_path / "interrupted"
    kernel, client = start_new_kernel(env=dict(os.environ), cwd=str(Path(__file__).parent))
    try:
        assert run(client, CELLS) == "ok"
        cell = f"found = await search({str(folder)!r})"
        # After an error a kernel aborts the cells that reach it too early, unless it is told not to.
        waiting = client.execute(cell, stop_on_error=False)
        end = time.monotonic() + 180
        while not records(folder):
            assert time.monotonic() < end, "nothing is ever stored"
            time.sleep(0.002)
        kernel.interrupt_kernel()
        assert reply(client, waiting) == "error"
        stored = records(folder)
        assert len(stored) < 24, "it was interrupted in the middle"
        assert run(client, cell) == "ok"
        assert records(folder)[: len(stored)] == stored
        assert len(records(folder)) == 24, "no search was made twice"
        undisturbed = str(tmp_path / "undisturbed")
        assert run(client, f"assert decided(found) == decided(await search({undisturbed!r}))") == "ok"
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)


@pytest.mark.vllm
def test_killed_engine_in_the_middle_of_a_search(tmp_path, monkeypatch):
    """The host is killed once something is stored; the searches in flight are tried again, with a new host."""
    engines = tempfile.mkdtemp(prefix="tts-test-")
    monkeypatch.setenv("TTS_ENGINES", engines)
    problems, killed = load_problems("tiny/dev", n=8), []

    async def kill_when_something_is_stored(folder):
        while not records(folder):
            await asyncio.sleep(0.002)
        [(_, pid)] = running_hosts()
        os.kill(pid, signal.SIGKILL)
        killed.extend([pid, records(folder)])

    async def main():
        policy, prm = open_policy("policy-xs", engine="vllm"), open_prm("prm", engine="transformers")

        async def search(folder):
            settings = {"n": 16, "sampling": Sampling(max_tokens=200), "concurrency": 4}
            return await collect.search(problems, partial(beam_search, depth=8), policy, prm, Store(folder), **settings)

        disturbed, undisturbed = tmp_path / "disturbed", tmp_path / "undisturbed"
        killer = asyncio.create_task(kill_when_something_is_stored(disturbed))
        found = await search(disturbed)
        await killer
        [(_, pid)] = running_hosts()
        assert pid != killed[0]
        assert len(killed[1]) < len(problems), "it was killed in the middle"
        assert records(disturbed)[: len(killed[1])] == killed[1]
        assert errors(disturbed) == {}
        assert decided(found) == decided(await search(undisturbed))
        await policy.close()
        await prm.close()

    try:
        asyncio.run(main())
    finally:
        stop_hosts()
        shutil.rmtree(engines)
