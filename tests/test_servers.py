"""Engines behind URLs: what goes wrong between here and there, with stand-ins for vLLM's server (no model, no vLLM)."""

from __future__ import annotations

import asyncio
import json
import socket

import prm_models
import pytest
from fake_server import TOKENS, FakeServer, running, until

from tts.errors import EngineError, InputError
from tts.models import engines, server
from tts.models.open import open_policy, open_prm
from tts.policy import Sampling
from tts.problems import load_problems
from tts.results import collect
from tts.results.store import Store

PROBLEMS = load_problems("tiny/dev", n=12)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(engines, "PAUSE", 0.01)
    monkeypatch.setattr(server, "CONNECT", 0.5)


def open_(*servers, **settings):
    return open_policy("policy-xs", server=", ".join(one.url for one in servers), **settings)


async def draw(policy, problems=PROBLEMS, n=1, **settings):
    """One sample or more of each problem, as (problem, seed) -> tokens."""
    keys = [(problem, seed) for problem in problems for seed in range(n)]
    asked = (policy.sample(policy.prompt(p.text), Sampling(seed=seed, max_tokens=20)) for p, seed in keys)
    try:
        return dict(zip(((p.id, seed) for p, seed in keys), await asyncio.gather(*asked, **settings), strict=True))
    finally:
        await policy.close()


def problem_of(body):
    """Which problem a request was for."""
    policy = open_policy("policy-xs", engine="transformers")
    [found] = [p for p in PROBLEMS if tuple(body["token_ids"])[: len(policy.prompt(p.text))] == policy.prompt(p.text)]
    return found.id


def test_what_is_sent_and_what_comes_back():
    async def main():
        async with running(fake := FakeServer()):
            policy = open_(fake)
            prompt = policy.prompt("What is 1 + 1?")
            found = await policy.sample(prompt, Sampling(temperature=0.7, top_p=0.9, max_tokens=9, seed=5), stop="\n\n")
            await policy.close()
            return prompt, found, fake.requests, policy

    prompt, found, [body], policy = asyncio.run(main())
    assert found.token_ids == (*TOKENS, 7)
    assert (found.finish, found.logprob) == ("end", -2.5)
    assert (body["model"], tuple(body["token_ids"])) == ("policy-xs", prompt)
    sent = body["sampling_params"]
    assert {name: sent[name] for name in ("seed", "temperature", "top_p", "max_tokens", "logprobs")} == {
        "seed": 5, "temperature": 0.7, "top_p": 0.9, "max_tokens": 9, "logprobs": 0,
    }  # fmt: skip
    ends, blank = policy.checkpoint.ends, policy.checkpoint.stop_ids("\n\n")[0]
    assert sent["stop_token_ids"] == sorted({*ends, *blank})
    assert sent["stop"] is None
    assert policy.provenance == {"engine": "vllm", "device": "server", "dtype": "the server's", "version": "0.0"}


def test_scores_of_all_steps_are_asked_for_at_once_in_ascending_order():
    async def main():
        async with running(fake := FakeServer("prm", hold=asyncio.Event())):
            prm = open_prm("prm", server=fake.url)
            task = asyncio.ensure_future(prm.score("1 + 1?", ["1 + 1 = 2", "so 2", "2"]))
            await until(lambda: fake.running == 3, task)  # a request that waited for another's answer would never come
            fake.hold.set()
            scores = await task
            await prm.close()
            return scores, [body["token_ids"] for body in fake.requests]

    scores, sent = asyncio.run(main())
    assert len(set(scores)) == 1  # the stand-in's: the larger token is the less likely
    assert 0 < scores[0] < 1
    assert sorted(map(len, sent)) == list(map(len, sorted(sent, key=len)))
    longest = max(sent, key=len)
    assert all(longest[: len(ids)] == ids for ids in sent)


@pytest.mark.parametrize("faults", [[500], [503, 503], ["reset"], [429, "reset"], [502]])
def test_a_request_that_fails_is_sent_again(faults, capfd):
    async def main():
        async with running(fake := FakeServer(faults=faults), plain := FakeServer()):
            return await draw(open_(fake)), await draw(open_(plain)), len(fake.requests)

    found, expected, answered = asyncio.run(main())
    assert found == expected
    assert answered == len(PROBLEMS)


def test_an_idle_connection_that_was_closed_is_no_fault(capfd):
    async def main():
        async with running(fake := FakeServer()):
            fake.drops_reused = True
            policy = open_(fake)
            for seed in range(4):
                await policy.sample((5, 6, 7), Sampling(seed=seed, max_tokens=9))
            await policy.close()
            return len(fake.requests)

    assert asyncio.run(main()) == 4
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("engine_is_well", [True, False])
def test_a_request_that_always_fails_is_one_line_and_harms_no_other(engine_is_well):
    async def main():
        async with running(fake := FakeServer(poison=150)):
            fake.is_well = engine_is_well
            policy = open_(fake, patience=0.5)
            bad = policy.sample((5, 150), Sampling(max_tokens=9))
            good = [policy.sample((5, 6), Sampling(seed=seed, max_tokens=9)) for seed in range(20)]
            done = await asyncio.gather(bad, *good, return_exceptions=True)
            await policy.close()
            return done

    bad, *good = asyncio.run(main())
    assert isinstance(bad, EngineError)
    assert "answers 500 (EngineCore encountered an issue.)" in str(bad)
    assert "\n" not in str(bad)
    assert all(found.finish == "end" for found in good)


def no_server():
    """A port at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        ({"model": "other"}, {}, r"serves other, not policy_model=policy-xs: start it with this model"),
        ({"context": 128}, {}, r"serves policy-xs with a context of 128 tokens, and 512 are .* --max-model-len 512"),
        ({}, {"tokens_only": False}, r"takes no token ids \(403: .*\): start it with --tokens-only"),
        ({}, {"key": "secret"}, r"wants a key: set VLLM_API_KEY"),
    ],
)
def test_a_server_that_does_not_fit_is_one_line_before_anything_is_sampled(settings, changes, message, tmp_path):
    async def main():
        async with running(fake := FakeServer(**settings), good := FakeServer()):
            vars(fake).update(changes)
            policy = open_(good, fake)
            try:
                await collect.sample(PROBLEMS, policy, Store(tmp_path), n=1, sampling=Sampling(max_tokens=9))
            finally:
                await policy.close()

    with pytest.raises(InputError, match=rf"^policy_server=http://127.0.0.1:\d+ {message}") as found:
        asyncio.run(main())
    assert "\n" not in str(found.value)


def test_a_key_is_sent(monkeypatch):
    async def main():
        async with running(fake := FakeServer()):
            fake.key = "secret"
            return await draw(open_(fake))

    monkeypatch.setenv("VLLM_API_KEY", "secret")
    assert len(asyncio.run(main())) == len(PROBLEMS)


def test_a_server_that_is_not_there_or_sleeps_is_one_line():
    async def main():
        async def sleep(reader, writer):
            await asleep.wait()
            writer.close()

        asleep = asyncio.Event()
        sleeper = await asyncio.start_server(sleep, "127.0.0.1", 0)
        sleeping = f"http://127.0.0.1:{sleeper.sockets[0].getsockname()[1]}"
        for url, reason in ((no_server(), "Connect"), (sleeping, "no answer in 0.5 s")):
            policy = open_policy("policy-xs", server=url)
            with pytest.raises(InputError, match=rf"^policy_server={url} can't be reached \(.*{reason}.*\): start it"):
                await policy.sample((5, 6), Sampling(max_tokens=9))
            await policy.close()
        asleep.set()
        sleeper.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("urls", "message"),
    [
        ("localhost:8000", "'localhost:8000' is no server: give URLs such as http://node1:8000"),
        ("http://a:1/v1", "'http://a:1/v1' is no server"),
        ("http://a:1, http://a:1/", "http://a:1 stands there twice"),
    ],
)
def test_a_url_that_is_none(urls, message):
    with pytest.raises(InputError, match=f"^policy_server: {message}"):
        open_policy("policy-xs", server=urls)
    with pytest.raises(InputError, match=f"^prm_server: {message}"):
        open_prm("prm", server=urls)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_in_flight": -1}, "max_in_flight is -1"),
        ({"patience": 0}, "patience=0: give seconds, more than 0"),
        ({"server": "http://a:1", "engine": "transformers"}, "server names vLLM's servers, but engine='transformers'"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    for opened, model in ((open_policy, "policy-xs"), (open_prm, "prm")):
        with pytest.raises(InputError, match=message):
            opened(model, **settings)


def test_a_head_with_classes_is_not_for_servers(tmp_path):
    with pytest.raises(InputError, match=r"^prm_server: format qwen2.5-math-prm is not read through servers"):
        open_prm(str(prm_models.qwen(tmp_path / "qwen")), server="http://a:1")


def test_a_problem_stays_with_its_replica():
    async def main():
        async with running(one := FakeServer(), other := FakeServer()):
            policy = open_(one, other)
            for problem in PROBLEMS:
                prompt = policy.prompt(problem.text)
                asked = (policy.sample((*prompt, *range(20, 20 + i)), Sampling(max_tokens=9)) for i in range(5))
                await asyncio.gather(*asked)
            await policy.close()
            return [{problem_of(body) for body in fake.requests} for fake in (one, other)]

    first, second = asyncio.run(main())
    assert first
    assert second
    assert not first & second
    assert first | second == {problem.id for problem in PROBLEMS}


def test_problems_of_a_replica_that_dies_go_on_elsewhere_and_nothing_is_stored_twice(tmp_path, capfd):
    async def main():
        hold = asyncio.Event()
        async with running(lost := FakeServer(hold=hold), left := FakeServer()):
            policy = open_(lost, left)
            task = asyncio.ensure_future(collect.sample(PROBLEMS, policy, store, n=6, sampling=Sampling(max_tokens=9)))
            await until(lambda: lost.running and left.requests, task)
            cut = lost.running
            await lost.stop()
            found = await task
            await policy.close()
            plain = open_(left)
            expected = await collect.sample(
                PROBLEMS, plain, Store(tmp_path / "plain"), n=6, sampling=Sampling(max_tokens=9)
            )
            await plain.close()
            return cut, found, expected

    store = Store(tmp_path / "store")
    cut, found, expected = asyncio.run(main())
    assert cut
    assert found.equals(expected)
    [file] = (tmp_path / "store").glob("samples/*/records.jsonl")
    keys = [tuple(json.loads(line)["key"]) for line in file.read_text().splitlines()]
    assert len(keys) == len(set(keys)) == len(PROBLEMS) * 6
    assert "its problems go on at 1 other(s)" in capfd.readouterr().err


def test_a_server_that_comes_back_is_used_again_and_one_that_does_not_is_an_error(capfd):
    async def main():
        async with running(fake := FakeServer()):
            policy = open_(fake, patience=60.0)
            await policy.sample((5, 6), Sampling(max_tokens=9))
            await fake.stop()
            task = asyncio.ensure_future(policy.sample((5, 7), Sampling(max_tokens=9)))
            said = []
            await until(lambda: said.append(capfd.readouterr().err) or "can't be reached" in said[-1], task)
            await fake.start()
            assert (await task).finish == "end"
            await policy.close()
            policy = open_(fake, patience=0.3)
            await policy.sample((5, 6), Sampling(max_tokens=9))
            await fake.stop()
            with pytest.raises(EngineError, match=r"^no engine for 0.3 s: policy_server=.* can't be reached \(.*\)$"):
                await policy.sample((5, 7), Sampling(max_tokens=9))
            await policy.close()
            await fake.start()
            return said

    assert "trying again" in "".join(asyncio.run(main()))


@pytest.mark.parametrize("max_in_flight", [1, 4])
def test_requests_in_flight_are_bounded(max_in_flight):
    async def main():
        async with running(fake := FakeServer(hold=asyncio.Event())):
            policy = open_(fake, max_in_flight=max_in_flight)
            task = asyncio.ensure_future(draw(policy, n=5))
            await until(lambda: fake.running == max_in_flight, task)
            await asyncio.sleep(0.05)  # whoever else wanted to come
            fake.hold.set()
            return len(await task), fake.most

    assert asyncio.run(main()) == (60, max_in_flight)


def test_cancelled_requests_leave_room_and_are_cut_at_the_server():
    async def main():
        async with running(fake := FakeServer(hold=asyncio.Event())):
            policy = open_(fake, max_in_flight=3)
            tasks = [asyncio.ensure_future(policy.sample((5, i), Sampling(max_tokens=9))) for i in range(2, 40)]
            await until(lambda: fake.running == 3, tasks[0])
            for task in tasks[::2]:  # of those at the server and of those that wait
                task.cancel()
            await until(lambda: fake.cut == 2, tasks[1])
            fake.hold.set()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            await policy.close()
            return [isinstance(one, asyncio.CancelledError) for one in done], fake

    cancelled, fake = asyncio.run(main())
    assert cancelled == [i % 2 == 0 for i in range(38)]
    assert fake.most == 3


def test_without_a_token_for_as_long_as_patience_allows_a_request_fails():
    async def main():
        async with running(fake := FakeServer(faults=["hang"])):
            policy = open_(fake, patience=0.3)
            with pytest.raises(EngineError, match=r"^policy_server=.*: no answer and no token for 0.3 s$"):
                await policy.sample((5, 6), Sampling(max_tokens=9))
            await policy.close()

    asyncio.run(main())


def test_a_slow_engine_that_decodes_is_waited_for():
    """It answers after many times its patience, in which its counters go on."""

    async def main():
        async with running(fake := FakeServer(faults=["hang"])):
            policy = open_(fake, patience=0.3)
            task = asyncio.ensure_future(policy.sample((5, 6), Sampling(max_tokens=9)))
            progress = set()
            for _ in range(60):
                fake.steps += 1
                progress.add(policy.progress)
                await asyncio.sleep(0.02)
            fake.let_go.set()
            found = await task
            await policy.close()
            return found, progress

    found, progress = asyncio.run(main())
    assert found.finish == "end"
    assert len(progress) > 2, "what collect looks at goes on too"


def test_problems_of_a_replica_that_hangs_go_on_elsewhere():
    async def main():
        async with running(hung := FakeServer(faults=["hang"] * 99, metrics=False), good := FakeServer()):
            found = await draw(open_(hung, good, patience=0.3))
            return found, await draw(open_(good))

    found, expected = asyncio.run(main())
    assert found == expected


class Silent:
    """A replica without a process: it takes long to start, or answers nothing."""

    provenance: dict = {}

    def __init__(self, label, *, start=0.0, hangs=False):
        self.label, self.start, self.hangs = label, start, hangs
        self.asked = 0

    async def open(self):
        await asyncio.sleep(self.start)
        self.start = 0.0

    async def send(self, kind, arguments):
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        return [self.label]

    async def mark(self):
        return None

    async def close(self):
        """Nothing to close."""


class Looking(Silent):
    """A replica whose counters take for ever, and which answers while somebody looks at them."""

    def __init__(self):
        super().__init__("looking")
        self.looks, self.looked_at_the_end = asyncio.Event(), None

    async def send(self, kind, arguments):
        await self.looks.wait()
        return [self.label]

    async def mark(self):
        self.looks.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.looks.clear()

    async def close(self):
        self.looked_at_the_end = self.looks.is_set()


def test_closing_ends_the_look_that_is_under_way():
    """It would ask an engine whose connections are closed, or open another one."""

    async def main():
        replica = Looking()
        watched = engines.Engines([replica], patience=0.05)
        assert await watched.request("sample", 1) == ["looking"]
        assert replica.looks.is_set()
        await watched.close()
        assert replica.looked_at_the_end is False
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


@pytest.mark.parametrize(
    ("replicas", "found"),
    [
        ([Silent("slow", start=1.5)], ["slow"]),
        ([Silent("hung", hangs=True), Silent("well")], ["well"]),
        ([Silent("hung", hangs=True)], "hung: no answer and no token for 0.4 s"),
    ],
    ids=["a start is not counted", "elsewhere first", "then it fails"],
)
def test_patience_is_the_same_for_engines_and_for_collect(replicas, found):
    """One request is in flight, so nothing else goes on: the engine decides, before collect gives the problem up."""

    async def main():
        both = engines.Engines(replicas, patience=0.4)
        problem = next(i for i in range(99) if both._rank(repr((i,)).encode())[0].engine is replicas[0])
        work = both.request("sample", problem=(problem,))
        try:
            return await collect._while_it_goes_on(work, lambda: both.progress, 0.4)
        except EngineError as error:
            return str(error)

    assert asyncio.run(main()) == found
    assert replicas[0].asked
