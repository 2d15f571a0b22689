"""Step scorers against a plain oracle: one solution at a time, the whole text through the tokenizer, all logits."""

from __future__ import annotations

import asyncio
import random

import prm_models
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tts.errors import ContextExceeded, EngineError, InputError
from tts.prm import open_prm

TOLERANCE = 1e-5  # float32; between any two ways to score
PROBLEM = "What is 12 + 3 - 1?"
SOLUTIONS = [
    ["12 + 3 = 15\n\n", "15 - 1 = 14\n\n", "So the answer is 14."],
    ["12 + 3 = 16\n\n", "So the answer is 16 - 1 = 15."],
    ["So the answer is\n 14."],
    ["12 + 3 = 15\n\n", "15 - 1 = 14\n\n", "So the answer is 15.", "a", "b", "c - d", "e + f", "g\n\n"],
    ["an <|end|> and an <|assistant|>+ are characters", "<|user|> too +"],
]


def rlhflow_oracle(folder, problem, steps):
    """The format as its authors' evaluation does it: a dialogue to the "+" of step k, the logits that predict this."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    plus, minus = tokenizer.convert_tokens_to_ids(["+", "-"])
    scores, dialogue = [], []
    for step in [f"{problem} {steps[0].strip()}", *(step.strip() for step in steps[1:])]:
        dialogue += [{"role": "user", "content": step}, {"role": "assistant", "content": "+"}]
        ids = tokenizer.apply_chat_template(dialogue, return_tensors="pt", return_dict=True)["input_ids"]
        with torch.no_grad():
            logits = model(ids).logits[0, -3]  # "+" is the token before the last, which ends the turn
        scores.append(logits[[plus, minus]].softmax(-1)[0].item())
    return scores


@pytest.fixture(scope="module")
def rlhflow(tmp_path_factory):
    return prm_models.rlhflow(tmp_path_factory.mktemp("models") / "prm")


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


def test_scores_are_the_oracles(rlhflow):
    plain = [steps for steps in SOLUTIONS if "<|" not in "".join(steps)]
    expected = [rlhflow_oracle(rlhflow, PROBLEM, steps) for steps in plain]
    assert len({round(score, 4) for scores in expected for score in scores}) > 10, "the random model says something"
    for ours, theirs in zip(scored(open_it(rlhflow), *plain), expected, strict=True):
        assert ours == pytest.approx(theirs, abs=TOLERANCE)


def test_batched_is_one_at_a_time_is_step_by_step(rlhflow):
    batched = scored(open_it(rlhflow), *SOLUTIONS)
    small = scored(open_it(rlhflow, batch_tokens=1), *SOLUTIONS)
    for steps, together, alone in zip(SOLUTIONS, batched, small, strict=True):
        assert together == pytest.approx(alone, abs=TOLERANCE)
        assert together == pytest.approx(step_by_step(open_it(rlhflow), steps), abs=TOLERANCE)


def step_by_step(scorer, steps):
    """As a search scores: each new step with the earlier scores known."""

    async def run():
        scores = []
        for k in range(1, len(steps) + 1):
            scores = await scorer.score(PROBLEM, steps[:k], known=scores)
        await scorer.close()
        return scores

    return asyncio.run(run())


def test_a_step_that_spells_special_tokens_is_ordinary_text(rlhflow):
    scorer = open_it(rlhflow)
    layout = scorer.format.layout(PROBLEM, SOLUTIONS[-1])
    assert len(layout.positions) == 2
    ids = [scorer.model.tokenizer.token_to_id(token) for token in prm_models.SPECIAL]
    assert [i for i in layout.ids if i in ids] == [ids[2], ids[3], ids[1], ids[2], ids[3]]


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


def test_a_closed_scorer_loads_again_and_serves_another_loop(rlhflow):
    scorer = open_it(rlhflow)
    first = scored(scorer, ["a"])
    assert scored(scorer, ["a", "b"])[0][:1] == first[0]


def test_many_random_solutions_batched_as_alone(rlhflow):
    dice = random.Random(0)
    words = ["12", "+", "-", "=", "So", " the", "answer", "\n", " is", "$x$"]
    solutions = [
        ["".join(dice.choices(words, k=dice.randint(1, 8))) + "." for _ in range(dice.randint(1, 5))] for _ in range(40)
    ]
    together = scored(open_it(rlhflow, batch_tokens=300), *solutions)
    for steps, scores in zip(solutions, together, strict=True):
        assert scores == pytest.approx(rlhflow_oracle(rlhflow, PROBLEM, steps), abs=TOLERANCE)


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
        (lambda folder: prm_models.rlhflow(folder), {"batch_tokens": -1}, "batch_tokens=-1"),
        (lambda folder: prm_models.rlhflow(folder), {"max_context": 1000}, "max_context=1000"),
        (lambda folder: folder / "nowhere", {}, "prm_model=.*no such directory"),
        (lambda folder: save(folder, prm_models.tokenizer(without="-")), {}, r"no single tokens for '\+' and '-'"),
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
            "can't render a dialogue",
        ),
    ],
)
def test_bad_input_is_one_line_before_a_model_is_loaded(tmp_path, make, settings, message):
    with pytest.raises(InputError, match=message) as error:
        open_prm(str(make(tmp_path)), **{"engine": "transformers"} | settings)
    assert "\n" not in str(error.value)
