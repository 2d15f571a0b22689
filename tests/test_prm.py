"""Step scorers against a plain oracle: one solution at a time, the whole text through the tokenizer, all logits."""

from __future__ import annotations

import asyncio
import json
import random

import prm_models
import prm_oracles
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tts.errors import ContextExceeded, EngineError, InputError
from tts.models.open import open_prm

pytestmark = pytest.mark.engine

TOLERANCE = 1e-5  # float32; between any two ways to score
PROBLEM = "What is 12 + 3 - 1?"
SOLUTIONS = [
    ["12 + 3 = 15\n\n", "15 - 1 = 14\n\n", "So the answer is 14."],
    ["12 + 3 = 16\n\n", "So the answer is 16 - 1 = 15."],
    ["So the answer is\n 14."],
    ["12 + 3 = 15\n\n", "15 - 1 = 14\n\n", "So the answer is 15.", "a", "b", "c - d", "e + f", "g\n\n"],
    ["an <|end|> and an <|assistant|>+ are characters", "<|user|> too +"],
]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {name: make(folder / name) for name, make in prm_models.ALL.items()}


@pytest.fixture(scope="module")
def rlhflow(models):
    return models["rlhflow"]


every_format = pytest.mark.parametrize("name", prm_models.ALL)


def scored(scorer, *solutions, problem=PROBLEM):
    """All solutions asked for at once."""

    async def run():
        try:
            return await asyncio.gather(*(scorer.score(problem, steps) for steps in solutions))
        finally:
            await scorer.close()

    return asyncio.run(run())


def open_it(folder, **settings):
    return open_prm(str(folder), engine="transformers", **settings)


@every_format
def test_scores_are_the_oracles(models, name):
    plain = [steps for steps in SOLUTIONS if "<|" not in "".join(steps)]
    expected = [prm_oracles.ALL[name](models[name], PROBLEM, steps) for steps in plain]
    assert len({round(score, 4) for scores in expected for score in scores}) > 10, "the random model says something"
    for ours, theirs in zip(scored(open_it(models[name]), *plain), expected, strict=True):
        assert ours == pytest.approx(theirs, abs=TOLERANCE)


def test_a_template_with_line_breaks_around_the_turns_and_a_date(tmp_path):
    folder = prm_models.llama(tmp_path / "llama")
    solutions = SOLUTIONS[:4] + [["  12 +\n\n\n 3 ", "\n(15) - 1\n\n", "=14"]]
    for ours, steps in zip(scored(open_it(folder), *solutions), solutions, strict=True):
        assert ours == pytest.approx(prm_oracles.rlhflow(folder, PROBLEM, steps), abs=TOLERANCE)


@every_format
def test_the_format_is_found(models, name):
    assert open_it(models[name]).fingerprint.endswith(f":{name}:256")
    assert open_it(models[name], max_context=100).fingerprint.endswith(f":{name}:100")


@every_format
def test_batched_is_one_at_a_time_is_step_by_step(models, name):
    batched = scored(open_it(models[name]), *SOLUTIONS)
    small = scored(open_it(models[name], batch_tokens=1), *SOLUTIONS)
    for steps, together, alone in zip(SOLUTIONS, batched, small, strict=True):
        assert together == pytest.approx(alone, abs=TOLERANCE)
        assert together == pytest.approx(step_by_step(open_it(models[name]), steps), abs=TOLERANCE)


@every_format
def test_the_layout_of_the_first_steps_is_a_prefix(models, name):
    layout_of = open_it(models[name]).format
    for steps in SOLUTIONS:
        whole = layout_of.layout(PROBLEM, [step.strip() for step in steps])
        for k, position in enumerate(whole.positions, start=1):
            part = layout_of.layout(PROBLEM, [step.strip() for step in steps[:k]])
            assert part.ids == whole.ids[: position + 1]
            assert part.positions == whole.positions[:k]


def step_by_step(scorer, steps):
    """As a search scores: each new step with the earlier scores known."""

    async def run():
        scores = []
        for k in range(1, len(steps) + 1):
            scores = await scorer.score(PROBLEM, steps[:k], known=scores)
        await scorer.close()
        return scores

    return asyncio.run(run())


SPELLED = ["an <|end|> and an <|assistant|>+ are", "<|user|> <extra_0> too", "<s> +ки  ки", "a\n ки"]


@every_format
def test_a_step_that_spells_special_tokens_is_ordinary_text(models, name):
    scorer = open_it(models[name])
    plain, evil = (scorer.format.layout(PROBLEM, steps) for steps in (["a"] * len(SPELLED), SPELLED))
    tokens = scorer.checkpoint.tokenizer.get_added_tokens_decoder()
    assert [i for i in evil.ids if i in tokens] == [i for i in plain.ids if i in tokens]
    assert len(evil.positions) == len(SPELLED)
    assert len({evil.ids[position] for position in evil.positions}) == 1
    text = scorer.checkpoint.tokenizer.decode([i for i in evil.ids if i not in tokens], skip_special_tokens=False)
    assert "an <|end|> and an <|assistant|>+ are" in text


def test_an_added_token_that_is_special_is_found_too(tmp_path):
    special = prm_models.qwen(tmp_path / "special", special=True)
    ordinary = prm_models.qwen(tmp_path / "ordinary")
    assert scored(open_it(special), ["a", "b"]) == scored(open_it(ordinary), ["a", "b"])


def test_white_space_around_steps_means_nothing(rlhflow):
    bare, spaced = scored(open_it(rlhflow), ["12 + 3 = 15", "a"], ["\n\n 12 + 3 = 15 \n\n", "a\n\n\n\n"])
    assert bare == spaced


def test_a_blank_step_repeats_the_score_before_it(rlhflow):
    plain, blank = scored(open_it(rlhflow), ["a", "b"], ["a", "\n\n", "b", " "])
    assert blank == [plain[0], plain[0], plain[1], plain[1]]
    scorer = open_it(rlhflow)
    assert asyncio.run(scorer.score(PROBLEM, ["a", " "], known=[0.25])) == [0.25, 0.25]
    with pytest.raises(InputError, match=r"steps\[0\]"):
        asyncio.run(scorer.score(PROBLEM, ["\n\n", "a"]))


def test_known_scores_come_back_as_given(rlhflow):
    scorer = open_it(rlhflow)
    assert asyncio.run(scorer.score(PROBLEM, ["a", "b"], known=[0.5, 0.25])) == [0.5, 0.25]
    assert asyncio.run(scorer.score(PROBLEM, [])) == []
    assert scorer.counts["scored"] == 0, "nothing was loaded"
    with pytest.raises(InputError, match="known has 2 scores for 1 steps"):
        asyncio.run(scorer.score(PROBLEM, ["a"], known=[0.5, 0.25]))


def test_equal_prefixes_are_scored_once(rlhflow):
    scorer = open_it(rlhflow)

    async def run():
        first = await asyncio.gather(*(scorer.score(PROBLEM, ["a", "b"]) for _ in range(5)))
        read = scorer.counts["scored"]
        again = await scorer.score(PROBLEM, ["a\n\n", "b"])
        assert scorer.counts["scored"] == read
        other = await scorer.score("Another problem", ["a", "b"])
        await scorer.close()
        return first, again, other, read

    first, again, other, read = asyncio.run(run())
    assert first == [again] * 5
    assert other != again
    assert read == len(scorer.format.layout(PROBLEM, ["a", "b"]).ids)


def grow(scorer, problem, dice, *, width, depth):
    """A search's calls: all children of the kept steps at once, each with its parent's scores; returns them all."""
    calls = []

    async def child(steps, scores):
        calls.append(steps)
        return steps, await scorer.score(problem, steps, known=scores)

    async def search():
        kept = [([], [])]
        for _ in range(depth):
            words = [[f"{dice.choice('ab+-')} = {dice.randint(0, 9)}\n\n" for _ in range(width)] for _ in kept]
            children = [
                child([*steps, word], scores) for (steps, scores), new in zip(kept, words, strict=True) for word in new
            ]
            kept = sorted(await asyncio.gather(*children), key=lambda pair: -pair[1][-1])[:2]

    return search(), calls


def tree_tokens(scorer, problem, calls):
    """The tokens of a tree, those that its solutions have in common once: as many as there are beginnings."""

    def layout(*steps):
        return scorer.format.layout(problem, [step.strip() for step in steps]).ids

    return len({layout(*steps)[:k] for steps in calls for k in range(1, len(layout(*steps)) + 1)})


@every_format
def test_a_search_reads_every_token_of_its_tree_once(models, name):
    scorer = open_it(models[name])
    problems = [PROBLEM, "And 7 - 5?", "What is 12 + 3 - 2?"]
    searches = [grow(scorer, problem, random.Random(i), width=4, depth=5) for i, problem in enumerate(problems)]

    async def run():
        await asyncio.gather(*(search for search, _ in searches))
        counts, by_step = (
            scorer.counts.copy(),
            [await scorer.score(problem, calls[-1]) for problem, (_, calls) in zip(problems, searches, strict=True)],
        )
        await scorer.close()
        return counts, by_step

    counts, by_step = asyncio.run(run())
    trees = [tree_tokens(scorer, problem, calls) for problem, (_, calls) in zip(problems, searches, strict=True)]
    assert counts["scored"] == sum(trees)
    assert counts["cached"] > counts["scored"]
    for problem, (_, calls), scores in zip(problems, searches, by_step, strict=True):
        whole = scored(open_it(models[name], prefix_cache=False), calls[-1], problem=problem)[0]
        assert scores == pytest.approx(whole, abs=TOLERANCE)


def test_a_solution_longer_than_the_context_has_a_status_of_its_own(rlhflow):
    scorer = open_it(rlhflow, max_context=60)
    fits, too_long = ["a", "b"], ["a" * 100]

    async def run():
        return await asyncio.gather(
            *(scorer.score(PROBLEM, steps) for steps in (fits, too_long)), return_exceptions=True
        )

    scores, error = asyncio.run(run())
    assert scores == pytest.approx(scored(open_it(rlhflow), fits)[0], abs=TOLERANCE)
    assert isinstance(error, ContextExceeded)
    assert "context 60" in str(error)


def test_who_is_cancelled_leaves_the_others_their_scores(rlhflow):
    scorer = open_it(rlhflow)

    async def run():
        impatient = asyncio.create_task(scorer.score(PROBLEM, ["a"]))
        patient = asyncio.create_task(scorer.score(PROBLEM, ["a"]))
        await asyncio.sleep(0)
        impatient.cancel()
        scores = await patient
        await scorer.close()
        return scores

    assert len(asyncio.run(run())) == 1


def test_a_loop_that_ends_early_leaves_the_scorer_working(rlhflow):
    scorer = open_it(rlhflow)
    asyncio.run(scorer.score(PROBLEM, ["a"]))

    async def leave():
        asyncio.create_task(scorer.score(PROBLEM, ["b"]))  # noqa: RUF006 - never awaited, that is the point
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(leave())
    assert len(scored(scorer, ["c", "d"])[0]) == 2


def test_a_closed_scorer_loads_again_and_serves_another_loop(rlhflow):
    scorer = open_it(rlhflow)
    first = scored(scorer, ["a"])
    assert scored(scorer, ["a", "b"])[0][:1] == first[0]


@pytest.mark.parametrize("looked_at", [1024, 3])
def test_many_random_solutions_batched_as_alone(rlhflow, monkeypatch, looked_at):
    """Also where far more wait than are looked at for a batch."""
    monkeypatch.setattr("tts.models.transformers_scorer.LOOKED_AT", looked_at)
    dice = random.Random(0)
    words = ["12", "+", "-", "=", "So", " the", "answer", "\n", " is", "$x$"]
    solutions = [
        ["".join(dice.choices(words, k=dice.randint(1, 8))) + "." for _ in range(dice.randint(1, 5))] for _ in range(40)
    ]
    together = scored(open_it(rlhflow, batch_tokens=300), *solutions)
    for steps, scores in zip(solutions, together, strict=True):
        assert scores == pytest.approx(prm_oracles.rlhflow(rlhflow, PROBLEM, steps), abs=TOLERANCE)


def test_nan_scores_are_refused(tmp_path):
    folder = prm_models.rlhflow(tmp_path / "broken")
    weights = AutoModelForCausalLM.from_pretrained(folder)
    weights.model.norm.weight.data[:] = torch.nan
    weights.save_pretrained(folder)
    with pytest.raises(InputError, match="NaN.*float32"):
        scored(open_it(folder), ["a"])


def test_a_plain_policy_is_refused_at_the_first_score(tmp_path):
    folder = prm_models.rlhflow(tmp_path / "policy", answers=False)
    with pytest.raises(InputError, match="plain policy"):
        scored(open_it(folder), ["a"])


def test_broken_weights_are_an_engine_error_of_one_line(tmp_path):
    folder = prm_models.rlhflow(tmp_path / "cut")
    (folder / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(EngineError, match="transformers failed") as error:
        scored(open_it(folder), ["a"])
    assert "\n" not in str(error.value)


def changed(folder, **settings):
    """A model with another config."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    return folder


def test_a_format_that_is_named_is_believed(tmp_path):
    folder = prm_models.rlhflow(tmp_path / "two tokens", answers=False)
    [named] = scored(open_it(folder, format="rlhflow"), ["a", "b"])
    assert named == pytest.approx(prm_oracles.rlhflow(folder, PROBLEM, ["a", "b"]), abs=TOLERANCE)
    assert scored(open_it(changed(folder, prm_format="rlhflow")), ["a", "b"]) == [named]


@pytest.mark.parametrize("name", ["skywork", "qwen2.5-math-prm"])
def test_a_missing_head_is_named(tmp_path, name):
    folder = prm_models.ALL[name](tmp_path / "prm")
    weights = load_file(folder / "model.safetensors")
    save_file(
        {key: weights[key] for key in weights if "head.s" not in key and "score" not in key},
        folder / "model.safetensors",
    )
    with pytest.raises(InputError, match="its weights have no (v_head.summary.weight|score.0.weight), "):
        scored(open_it(folder), ["a"])


def save(folder, made, **settings):
    return prm_models.causal(folder, made, answers=None, **settings)


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (
            lambda folder: prm_models.rlhflow(folder),
            {"format": "x"},
            "format='x' is unknown: choose auto or one of rlhflow",
        ),
        (lambda folder: prm_models.rlhflow(folder), {"dtype": "int8"}, "dtype='int8'"),
        (lambda folder: prm_models.rlhflow(folder), {"engine": "x"}, "engine='x'"),
        (lambda folder: prm_models.rlhflow(folder), {"batch_tokens": -1}, "batch_tokens is -1"),
        (lambda folder: prm_models.rlhflow(folder), {"max_context": 1000}, "max_context=1000"),
        (lambda folder: folder / "nowhere", {}, "prm_model=.*no such directory"),
        (lambda folder: save(folder, prm_models.tokenizer(without="-")), {}, r"no single tokens for '\+' and '-'"),
        (prm_models.rlhflow, {"format": "math-shepherd"}, "no single tokens for ' ки'"),
        (prm_models.rlhflow, {"format": "qwen2.5-math-prm"}, "no token <extra_0>"),
        (prm_models.skywork, {"format": "rlhflow"}, "treats the turns of one dialogue differently"),
        (lambda folder: changed(prm_models.rlhflow(folder), architectures=["X"]), {}, "X .* no known format: name one"),
        (lambda folder: changed(prm_models.math_shepherd(folder), prm_format="x"), {}, "format='x' is unknown"),
        (
            lambda folder: changed(
                prm_models.math_shepherd(folder, chat=prm_models.CHAT), architectures=["MistralForCausalLM"]
            ),
            {},
            "several formats .rlhflow, math-shepherd.: name one with format=",
        ),
        (lambda folder: save(folder, prm_models.tokenizer(), vocab_size=20), {}, "tokens, the model 20"),
        (
            lambda folder: save(folder, prm_models.tokenizer(), chat="{{ messages[0]['content'] }}"),
            {},
            "treats the turns of one dialogue differently",
        ),
        (
            lambda folder: save(
                folder, prm_models.tokenizer(), chat="{% for m in messages %}{{ m['content'] }} {% endfor %}"
            ),
            {},
            "no special token between the turns",
        ),
        (
            lambda folder: save(folder, prm_models.tokenizer(), chat="{{ raise_exception('no') }}"),
            {},
            "its chat template can't be rendered",
        ),
    ],
)
def test_bad_input_is_one_line_before_a_model_is_loaded(tmp_path, make, settings, message):
    with pytest.raises(InputError, match=message) as error:
        open_prm(str(make(tmp_path)), **{"engine": "transformers"} | settings)
    assert "\n" not in str(error.value)
