"""The embedded world: frozen data, exact step checking, training that learns and resumes, models that load."""

from __future__ import annotations

import asyncio
import json
import re
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer

from tts.errors import ContextExceeded, InputError
from tts.models.open import open_prm
from tts.policy import Sampling
from tts.problems import Problem, load_problems
from tts.strategies import dvts
from tts.tiny import DATA, MODELS, base_of, heads, prm_training, self_training
from tts.tiny.batches import gather
from tts.tiny.checker import check, content, possible, solved, steps_of
from tts.tiny.evaluate import auc, prm_table, voted
from tts.tiny.hub import export, load
from tts.tiny.loop import fit
from tts.tiny.mirror import coded, policy_rows, prm_rows, worst_share
from tts.tiny.model import Shape, TinyLlama, rotate
from tts.tiny.policy_training import example, policy_examples, policy_loss
from tts.tiny.prm_training import (
    RIGHT,
    UNKNOWN,
    WRONG,
    RewardModel,
    corrupt,
    dialogue,
    grown,
    labelled,
    made_examples,
    prm_loss,
    rollout_labels,
    score,
)
from tts.tiny.problems import LEVELS, SIZES, SPLITS, SUBJECTS, Instance, benchmark, draw, split_of, write
from tts.tiny.sampling import sample
from tts.tiny.tokenizer import Codec, train_tokenizer
from tts.tiny.work import Both, Chain, Sum

torch.set_num_threads(1)
SMALL = Shape(width=32, layers=2, heads=1, hidden=64)
FOLDERS = sorted(MODELS.glob("*/config.json"))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(DATA / "tokenizer.json"))


@pytest.fixture(scope="module")
def codec(tokenizer: Tokenizer) -> Codec:
    return Codec(tokenizer)


def rows(split: str) -> list[dict]:
    return [json.loads(line) for line in (DATA / f"{split}.jsonl").read_text().splitlines()]


# --- data ---


@pytest.mark.parametrize("split", ["dev", "test"])
def test_rebuilding_gives_identical_files(split: str, tmp_path: Path) -> None:
    write(split, tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == (DATA / f"{split}.jsonl").read_bytes()


@pytest.mark.slow
def test_rebuilding_the_tokenizer_gives_the_same_vocabulary(tokenizer: Tokenizer) -> None:
    assert train_tokenizer().get_vocab() == tokenizer.get_vocab()


@pytest.mark.parametrize("split", ["dev", "test"])
def test_frozen_problems_have_the_columns_of_math_500_and_right_solutions(split: str) -> None:
    frozen = rows(split)
    assert len(frozen) == SIZES[split]
    assert all(len({row[column] for row in frozen}) == len(frozen) for column in ("unique_id", "problem"))
    assert {row["subject"] for row in frozen} == set(SUBJECTS)
    assert {row["level"] for row in frozen} == set(LEVELS)
    for row, (problem, _) in zip(frozen, benchmark(split)):
        assert list(row) == ["problem", "solution", "answer", "subject", "level", "unique_id"]
        steps = steps_of(row["solution"])
        assert all(check(problem, steps))
        assert solved(problem, steps)
        assert f"\\boxed{{{row['answer']}}}" in steps[-1]


def test_splits_share_neither_numbers_nor_texts() -> None:
    frozen = {split: [problem for problem, _ in benchmark(split)] for split in ("dev", "test")}
    frozen["train"] = [draw("train", 0, i) for i in range(5000)]
    for split, problems in frozen.items():
        assert all(split_of(problem.key) == split for problem in problems)
    keys = {split: {problem.key for problem in problems} for split, problems in frozen.items()}
    texts = {split: {problem.text for problem in problems} for split, problems in frozen.items()}
    for a, b in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert not keys[a] & keys[b]
        assert not texts[a] & texts[b]


def test_a_key_ignores_order_and_sign_and_every_hash_has_one_split() -> None:
    assert sorted(share for shares in SPLITS.values() for share in shares) == list(range(100))
    seen: dict[str, set[str]] = {}
    for i in range(3000):
        problem = draw("train", 1, i)
        assert problem.key.split(":")[1] == ",".join(map(str, sorted(map(int, problem.key.split(":")[1].split(",")))))
        seen.setdefault(problem.key, set()).add(problem.text)
    assert any(len(same) > 1 for same in seen.values())  # rewordings and reorderings do share a key


def test_higher_levels_take_more_steps_with_larger_numbers() -> None:
    solutions = [(p.level, p.solution(Random(0))) for p in (draw("train", 2, i) for i in range(2000))]
    steps = {level: np.mean([len(s) for at, s in solutions if at == level]) for level in LEVELS}
    assert steps[1] < steps[3] < steps[5]
    numbers = [(level, int(n)) for level, s in solutions for step in s for n in re.findall(r"\d+", step)]
    means = [np.mean([n for at, n in numbers if at == level]) for level in LEVELS]
    assert means == sorted(means)


# --- checking ---


def test_every_example_and_form_is_right_and_a_corrupted_step_is_wrong_where_it_stands() -> None:
    for i in range(500):
        problem, rng = draw("train", 3, i), Random(i)
        steps = problem.solution(rng)
        for answer in problem.answers:
            assert all(check(problem, [*steps[:-1], f"So $\\boxed{{{answer}}}$."]))
        changed = corrupt(rng, steps)
        at = next(k for k, (a, b) in enumerate(zip(steps, changed)) if a != b)
        assert check(problem, changed) == [True] * at + [False] * (len(steps) - at)


def test_a_chain_is_right_one_step_at_a_time() -> None:
    problem = next(p for p in (draw("train", 4, i) for i in range(999)) if p.key.startswith("running_total"))
    steps = problem.solution(Random(0))
    assert check(problem, steps[1:]) == [False] * (len(steps) - 1)  # a step left out
    assert check(problem, [*steps, steps[-1]]) == [True] * len(steps) + [False]  # nothing comes after the answer
    assert check(problem, ["The words are free: " + steps[0], *steps[1:]]) == [True] * len(steps)
    assert check(problem, [steps[-1]]) == [False]
    assert solved(problem, [steps[-1]])
    assert check(problem, []) == []
    assert not solved(problem, [])


def test_the_parts_of_a_sum_may_be_taken_in_any_order_but_each_once() -> None:
    work = Sum((5, (2, 3), 4), modulus=7)  # 5 + 2 * 3 + 4, modulo 7
    assert set(work.moves(work.start)) == {"5+4=9", "4+5=9", "2\\cdot3=6"}
    problem = Instance("Number Theory", 1, "by hand", "Find $5+2\\cdot3+4$ modulo $7$.", work, ("1",))
    right = ["$2\\cdot3=6$", "$4+6=10$", "$10-7=3$", "$5+3=8$", "$8-7=1$", "$\\boxed{1}$"]
    assert check(problem, right) == [True] * 6
    assert check(problem, ["$5+4=9$", "$2\\cdot3=6$", "$9+6=15$", "$15-7=8$", "$8-7=1$", right[-1]]) == [True] * 6
    assert check(problem, [*right[:3], "$4+3=7$"]) == [True] * 3 + [False]  # 4 is used
    assert check(problem, [*right[:4], "$\\boxed{8}$"]) == [True] * 4 + [False]  # not reduced
    assert check(problem, [*right[:2], right[-1]]) == [True, True, False]  # not added up
    for seed in range(50):
        steps = problem.solution(Random(seed))
        assert all(check(problem, steps))
        assert all(step in possible(problem, steps[:i]) for i, step in enumerate(steps))


def test_the_second_calculation_comes_after_the_first() -> None:
    work = Both(Sum((1, 2, 3)), Chain(("4\\cdot5=20", "20-1=19")))
    problem = Instance("Algebra", 1, "by hand", "", work, ("(6,19)",))
    right = ["$2+3=5$", "$1+5=6$", "$4\\cdot5=20$", "$20-1=19$", "$\\boxed{(6,19)}$"]
    assert check(problem, right) == [True] * 5
    assert check(problem, [*right[:1], *right[2:]]) == [True] + [False] * 3  # the first is not done
    assert check(problem, [*right[:3], right[4]]) == [True] * 3 + [False]  # the second is not done
    assert check(problem, [*right[:4], "$\\boxed{(19,6)}$"]) == [True] * 4 + [False]  # the order counts


def test_content_needs_exactly_one_formula() -> None:
    assert content("So $1+1=2$.") == "1+1=2"
    assert content("none") is None
    assert content("$1$ and $2$") is None


# --- tokens ---


def test_digits_signs_and_the_blank_line_are_tokens_of_their_own(tokenizer: Tokenizer, codec: Codec) -> None:
    assert tokenizer.encode("12+3\n\n-4").tokens == ["1", "2", "+", "3", "\n\n", "-", "4"]
    assert tokenizer.encode("<|user|>").ids == [codec.user]


def test_the_codec_is_the_tokenizer(tokenizer: Tokenizer, codec: Codec) -> None:
    for i in range(300):
        problem = draw("train", 5, i)
        text = problem.text + "\n\n".join(problem.solution(Random(i)))
        assert codec.encode(text) == tokenizer.encode(text).ids
        assert codec.decode(codec.encode(text)) == text == tokenizer.decode(codec.encode(text))


def test_solutions_are_short(codec: Codec) -> None:
    lengths = [len(codec.encode(row["solution"])) for row in rows("dev")]
    assert 60 < np.mean(lengths) < 80


# --- training ---


@pytest.mark.slow
def test_a_short_run_lowers_the_loss_and_a_resumed_one_ends_the_same(codec: Codec, tmp_path: Path) -> None:
    data = policy_examples(codec, tokens=20_000, seed=0)

    def run(folder: str, stop_after: int | None = None) -> TinyLlama:
        model = TinyLlama(SMALL, seed=1)
        settings = {"tokens": 20_000, "batch": 1024, "learning_rate": 5e-3, "warm": 2_000, "seed": 3, "every": 3}
        fit(model, policy_loss(model), data, folder=tmp_path / folder, stop_after=stop_after, **settings)
        return model

    whole = run("whole")
    losses = [json.loads(line)["loss"] for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.75 * losses[0]
    run("cut", stop_after=9)
    resumed = run("cut")
    for a, b in zip(whole.parameters(), resumed.parameters()):
        assert torch.equal(a, b)


def test_the_first_new_layer_looks_at_the_token_before() -> None:
    policy, codec = load(MODELS / "policy-l")
    seen, fresh = (
        torch.from_numpy(next(made_examples(codec, count=100, seed=seed).batches(tokens=2048, seed=0))["tokens"])
        for seed in (1, 2)
    )
    model = grown(policy, layers=2, context=512, seed=0, seen=seen)
    block, stream = model.blocks[policy.shape.layers], []
    with torch.no_grad():
        last = model(fresh, stream=stream)
        inputs = block.before_attention(stream[policy.shape.layers - 1])
        batch, time, width = inputs.shape
        heads = block.attention.heads
        q, k, _ = block.attention.qkv(inputs).view(batch, time, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        q, k = (rotate(x, model.cos[:time], model.sin[:time]) for x in (q, k))
        mask = torch.full((time, time), float("-inf")).triu(1)
        weights = torch.softmax(q @ k.transpose(2, 3) * (width // heads) ** -0.5 + mask, dim=-1)
    before = weights.diagonal(-1, 2, 3).permute(0, 2, 1)[fresh[:, 1:] != 0]
    assert before.mean() > 0.9
    assert torch.isfinite(last).all()
    plain = []
    with torch.no_grad():
        policy(fresh, stream=plain)
    assert torch.equal(plain[-1], stream[policy.shape.layers - 1])  # the policy below is as it was


@pytest.mark.slow
def test_a_reward_model_learns_from_a_few_examples(codec: Codec, tmp_path: Path) -> None:
    model = RewardModel(grown(TinyLlama(SMALL), layers=1, context=256, seed=0), base=SMALL.layers)
    data = made_examples(codec, count=300, seed=0)
    means = fit(
        model,
        prm_loss(model, codec),
        data,
        tokens=80_000,
        batch=1024,
        learning_rate=5e-3,
        seed=0,
        folder=tmp_path,
        every=35,
    )
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert means["prefix"] < lines[0]["prefix"]
    assert means["language"] < lines[0]["language"]


def test_batches_hold_every_example_once() -> None:
    data = gather([([i] * (1 + i % 7), {"mark": [1] * (1 + i % 7)}) for i in range(1, 100)])
    seen = []
    for batch in data.batches(tokens=30, seed=0):
        assert batch["tokens"].size <= 30
        assert ((batch["tokens"] > 0) == (batch["mark"] == 1)).all()
        seen += [int(row[0]) for row in batch["tokens"]]
    assert sorted(seen) == list(range(1, 100))


# --- labels of the reward model ---


def test_dialogue_is_what_the_chat_template_writes(codec: Codec, tokenizer: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    export(TinyLlama(SMALL), tokenizer, tmp_path)
    hub = AutoTokenizer.from_pretrained(tmp_path)
    steps = ["$1+2=3$", "So $\\boxed{3}$."]
    ids, verdicts = dialogue(codec, "Compute $1+2$.", steps)
    messages = [
        {"role": "user", "content": "Compute $1+2$. $1+2=3$"},
        {"role": "assistant", "content": "+"},
        {"role": "user", "content": "So $\\boxed{3}$."},
    ]
    assert ids == hub.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert [ids[at] for at in verdicts] == [codec.assistant] * 2


def test_labels_say_which_token_went_wrong(codec: Codec) -> None:
    problem = next(p for p in (draw("train", 6, i) for i in range(999)) if p.key.startswith("running_total"))
    steps = problem.solution(Random(0))
    wrong = steps[0][:-3] + str((int(steps[0][-3]) + 1) % 10) + "$."
    ids, targets = labelled(codec, problem, [wrong, steps[1]])
    at = targets["prefix"].index(WRONG)
    assert codec.decode(ids[at : at + 2]).strip() == wrong[-3:]
    assert RIGHT not in targets["prefix"][at:]
    assert 1 not in targets["language"]
    assert [v for v in targets["verdict"] if v] == [WRONG, WRONG]
    ids, targets = labelled(codec, problem, steps)
    assert [v for v in targets["verdict"] if v] == [RIGHT] * len(steps)
    assert WRONG not in targets["prefix"]


def test_other_labels_say_nothing_about_a_token_but_that_it_is_part_of_a_step(codec: Codec) -> None:
    problem = draw("train", 13, 0)
    steps = problem.solution(Random(0))
    _, exact = labelled(codec, problem, steps)
    _, told = labelled(codec, problem, steps, [True] + [False] * (len(steps) - 1))
    assert [v for v in told["verdict"] if v] == [RIGHT] + [WRONG] * (len(steps) - 1)
    assert [v == UNKNOWN for v in told["prefix"]] == [v == RIGHT for v in exact["prefix"]]
    model = RewardModel(grown(TinyLlama(SMALL), layers=1, context=256, seed=0), base=SMALL.layers)
    of_both = []
    for targets in (exact, told):
        batch = {k: torch.tensor([v]) for k, v in (targets | {"tokens": labelled(codec, problem, steps)[0]}).items()}
        of_both.append(prm_loss(model, codec)(batch)[1])
    assert of_both[1]["prefix"] == 0 < of_both[0]["prefix"]
    assert of_both[1]["surprise"] == of_both[0]["surprise"] > 0  # it needs no label


@pytest.mark.parametrize("reached", range(6))
def test_rollouts_find_the_last_step_that_can_be_finished(
    reached: int, codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A policy that finishes from `reached` steps or fewer, one time in two; a solved solution is not asked about."""
    problem = next(p for p in (draw("train", 14, i) for i in range(999)) if len(p.solution(Random(0))) > 6)
    right = problem.solution(Random(0))
    wrong, asked = [*right[:-1], "So $\\boxed{0}$."], []

    def fake(model: object, prompts: list, **settings: object) -> list:
        """Every second roll-out is solved where it can be; each has as many tokens as its last step."""
        texts = [codec.decode(ids) for ids in prompts]
        asked.extend(texts)
        done = [sum(step in text for step in right[:-1]) for text in texts]
        ends = [right[-1] if i % 2 and at <= reached else wrong[-1] for i, at in enumerate(done)]
        return [(codec.encode(end), True) for end in ends]

    monkeypatch.setattr(prm_training, "sample", fake)
    labels, spent = rollout_labels(codec, None, [(problem, wrong), (problem, right), (problem, [])], rollouts=2, seed=0)
    assert labels == [[k < reached for k in range(len(wrong))], [True] * len(right), []]
    assert spent > 0
    assert len(asked) <= 2 * 3  # two a probe, and three probes of at most seven places


# --- verifier heads ---


def test_what_a_head_reads_by_hand(codec: Codec) -> None:
    """Of a solution of two steps: the state after each, and likelihoods of the policy's own forward pass."""
    policy, _ = load(MODELS / "policy-xs")
    steps = draw("train", 16, 0).solution(Random(0))[:2]
    text = draw("train", 16, 0).text
    other = draw("train", 16, 1)  # longer ones in the same batch change nothing
    read, _ = heads.readings(policy, codec, [(text, steps), (other.text, other.solution(Random(0)))])
    ids = codec.prompt(text) + codec.encode(f"{steps[0]}\n\n{steps[1]}\n\n")
    with torch.inference_mode():
        hidden = policy(torch.tensor([ids]))[0]
        logs = torch.log_softmax(policy.logits(hidden), dim=-1)
    first = len(codec.prompt(text))
    second = first + len(codec.encode(steps[0])) + 1
    places = [at for at in range(first, len(ids) - 1) if at != second - 1]
    likely = [float(logs[at - 1, ids[at]]) for at in places]
    behind = [
        float(logs[at - 1].max() - logs[at - 1, ids[at]]) for at in range(first, len(ids) - 1) if at != second - 1
    ]
    cut = second - 1 - first
    assert read.shape == (2, policy.shape.width + 7)
    assert read[:, : policy.shape.width] == pytest.approx(hidden[[second - 1, len(ids) - 1]].numpy(), abs=1e-4)
    expected = [
        [sum(likely[:cut]), sum(behind[:cut]), max(behind[:cut])] * 2 + [0],
        [sum(likely[cut:]), sum(behind[cut:]), max(behind[cut:]), sum(likely), sum(behind), max(behind), 1],
    ]
    [whole] = heads.readings_of([(text, "\n\n".join(steps))])
    assert whole == pytest.approx(read, abs=1e-3)
    assert read[:, policy.shape.width :] == pytest.approx(np.array(expected), abs=1e-3)


def test_a_head_learns_what_can_be_read() -> None:
    rng = np.random.default_rng(0)
    read = [rng.normal(size=(4, 5)).astype(np.float32) for _ in range(200)]
    labels = [[bool(row[2] > 0) for row in one] for one in read]
    head, loss = heads.train_head(read, labels, seed=0)
    assert loss < 0.2
    assert [score > 0.5 for score in head.scores(np.array([[0, 0, 2, 0, 0], [0, 0, -2, 0, 0]], np.float32))] == [
        True,
        False,
    ]
    assert head.scores(read[0][:0]) == []
    assert heads.agreement([[True, False], []], [[True, True], []]) == 0.5


@pytest.mark.slow
def test_heads_are_trained_once(tmp_path: Path) -> None:
    found = heads.own_heads(tmp_path, solutions=24)
    assert list(found) == ["own-rollouts", "own-exact"]
    facts = {name: known for name, (_, known) in found.items()}
    assert facts["own-rollouts"]["label_tokens"] > 0 == facts["own-exact"]["label_tokens"]
    assert facts["own-exact"]["agreement"] == 1 > facts["own-rollouts"]["agreement"] > 0.5
    assert facts["own-exact"]["solution_tokens"] == facts["own-rollouts"]["solution_tokens"]
    made = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = heads.own_heads(tmp_path, solutions=24)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == made
    for name, (head, known) in again.items():
        assert known == facts[name]
        assert all(torch.equal(a, b) for a, b in zip(head.state_dict().values(), found[name][0].state_dict().values()))


def test_a_head_is_a_step_scorer(codec: Codec) -> None:
    policy, _ = load(MODELS / "policy-xs")
    problem = draw("train", 17, 0)
    steps = [step + "\n\n" for step in problem.solution(Random(0))]
    head = heads.Head(policy.shape.width + 7, seed=1)
    scorer = heads.HeadScorer("mine", head)
    whole = asyncio.run(scorer.score(problem.text, steps))
    assert whole == pytest.approx(head.scores(heads.readings(policy, codec, [(problem.text, steps)])[0]))
    assert asyncio.run(scorer.score(problem.text, steps, known=[0.5])) == [0.5, *whole[1:]]
    blank = asyncio.run(scorer.score(problem.text, [steps[0], "\n\n", *steps[1:]]))
    assert blank == pytest.approx([whole[0], whole[0], *whole[1:]])
    assert scorer.fingerprint == heads.HeadScorer("other", head).fingerprint
    assert scorer.fingerprint != heads.HeadScorer("mine", heads.Head(policy.shape.width + 7, seed=2)).fingerprint
    assert scorer.size.weights > 0
    with pytest.raises(ContextExceeded):
        asyncio.run(scorer.score(problem.text, steps * 20))


# --- figures of the cards ---


def test_auc_against_brute_force() -> None:
    rng = np.random.default_rng(0)
    right, wrong = rng.integers(0, 6, 40), rng.integers(0, 5, 30)
    pairs = [(r > w) + 0.5 * (r == w) for r in right for w in wrong]
    assert auc(right, wrong) == pytest.approx(np.mean(pairs))
    assert np.isnan(auc([], [1.0]))


def test_a_perfect_reward_model_has_a_perfect_table() -> None:
    problems = [draw("train", 8, i) for i in range(30)]
    solutions = [[p.solution(Random(0)), corrupt(Random(1), p.solution(Random(0)))[:-1] + ["$?$"]] for p in problems]
    scores = [[[float(ok) for ok in check(p, s)] for s in many] for p, many in zip(problems, solutions)]
    row = prm_table(problems, solutions, scores)
    assert row["step AUC"] == row["within last"] == row["within min"] == 1.0
    assert row["first error"] == row["vanilla prod"] == 100.0
    assert row["calibration"] == 0.0


def test_votes_join_the_forms_of_the_right_answer() -> None:
    problem = next(p for p in (draw("train", 9, i) for i in range(999)) if len(p.answers) == 2)
    said = [*problem.answers, "0", "1"]
    assert voted(problem, [[f"So $\\boxed{{{a}}}$."] for a in said])


# --- the mirror's table ---


def test_the_inputs_by_hand() -> None:
    """A chain of four steps and the box; of eight samples four are right, two fail at step 2, two end without a box."""
    problem = next(p for p in (draw("train", 12, i) for i in range(999)) if p.key.startswith("running_total"))
    right = problem.solution(Random(0))
    wrong = [right[0], "Then $0=1$.", "So $\\boxed{-1}$."]
    solutions = [[right] * 4 + [wrong] * 2 + [right[:-1]] * 2]
    codes, gold = coded([problem], solutions)
    assert gold.tolist() == [0]
    assert codes[0, :6].tolist() == [0] * 4 + [1] * 2
    assert (codes[0, 6:] > 1).all()  # the last formula of a cut solution is taken for its answer, and is no right one
    # Step 2 is right in 6 of 8, all others always, so it has all of -log pass@1.
    assert worst_share([problem], solutions) == pytest.approx(1.0)
    row = policy_rows([problem], solutions)
    assert row["pass@1"] == "50.0"
    scores = [[[1.0] * len(steps) if steps is right else [0.5] * len(steps) for steps in solutions[0]]]
    assert prm_rows([problem], solutions, scores)["AUC within problems"] == "1.00"


# --- models ---


def test_the_cached_sampler_agrees_with_whole_passes(codec: Codec) -> None:
    model = TinyLlama(SMALL, seed=2)
    prompts = [codec.prompt(draw("train", 10, i).text) for i in range(5)]
    drawn = sample(model, prompts, codec=codec, temperature=0.0, seed=0, most=8)
    for prompt, (ids, _) in zip(prompts, drawn):
        for k in range(len(ids)):
            with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model.logits(model(torch.tensor([prompt + ids[:k]]))[0, -1]).float()
            assert logits[ids[k]] >= logits.max() - 0.05  # bfloat16 may turn a near tie
    assert drawn == sample(model, prompts, codec=codec, temperature=0.0, seed=1, most=8)


@pytest.mark.skipif(not FOLDERS, reason="no trained models in tts/tiny/models: python -m tts.tiny.train makes them")
@pytest.mark.parametrize("folder", [f.parent for f in FOLDERS], ids=lambda f: f.name)
def test_models_load_in_transformers_and_say_the_same(folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    hub, tokens = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        AutoTokenizer.from_pretrained(folder),
    )
    own, codec = load(folder)
    assert hub.config.head_dim in (32, 64)
    assert hub.config.eos_token_id == tokens.eos_token_id == codec.end
    assert hub.generation_config.eos_token_id == codec.end
    problem = rows("dev")[0]
    messages = [{"role": "user", "content": problem["problem"]}]
    ids = tokens.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert ids == codec.prompt(problem["problem"])
    with torch.inference_mode():
        batch = torch.tensor([ids])
        torch.testing.assert_close(hub(batch).logits, own.logits(own(batch)), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(not (MODELS / "prm").exists(), reason="no trained reward model in tts/tiny/models")
def test_the_reward_model_likes_right_steps_better(codec: Codec) -> None:
    model, codec = load(MODELS / "prm")
    pairs = []
    for i, (problem, _) in zip(range(60), benchmark("dev")):
        steps = problem.solution(Random(i))
        right, wrong = score(model, codec, [(problem.text, steps), (problem.text, corrupt(Random(i), steps))])
        assert len(right) == len(wrong) == len(steps)
        assert all(0 <= v <= 1 for v in right + wrong)
        pairs.append(min(right) > min(wrong))
    assert np.mean(pairs) > 0.7


def test_a_batch_without_a_right_step_has_a_finite_loss(codec: Codec) -> None:
    problem = draw("train", 11, 0)
    ids, targets = labelled(codec, problem, ["$0=1$"])
    batch = {k: torch.from_numpy(v) for k, v in gather([(ids, targets)]).pad([0]).items()}
    assert torch.isfinite(prm_loss(RewardModel(TinyLlama(SMALL), base=SMALL.layers - 1), codec)(batch)[0])


# --- self-training ---


def test_training_problems_are_new_in_each_round_and_seed():
    drawn = [self_training.training_problems(20, seed=seed, round_=round_) for seed in (0, 1) for round_ in (1, 2)]
    assert [problem.id for problem in drawn[1]] == [f"train/0/{index}" for index in range(20, 40)]
    texts = [{problem.text for problem in of} for of in drawn]
    assert all(len(of) == 20 for of in texts)
    assert not any(texts[i] & texts[j] for i in range(4) for j in range(i))
    held_out = {problem.text for name in ("tiny/dev", "tiny/test") for problem in load_problems(name)}
    assert not held_out & set.union(*texts)
    with pytest.raises(InputError, match="^train_problems is 0"):
        self_training.training_problems(0, seed=0, round_=1)


def test_what_can_be_trained_is_an_embedded_policy():
    assert base_of("policy-s") == MODELS / "policy-s"
    for name in ("prm", "meta-llama/Llama-3.2-1B-Instruct", ""):
        with pytest.raises(InputError, match=f"^policy_model is {name}: .* policy-l, policy-m, policy-s, policy-xs$"):
            base_of(name)


def test_right_solutions_are_different_ones_and_every_problem_has_a_turn():
    one, other, hopeless = (Problem(name, name, "1") for name in "abc")
    rows = [
        ("a", "x ", True),
        ("a", "x", True),
        ("a", "y", True),
        ("a", "z", True),
        ("b", "u", False),
        ("b", "v", True),
    ]
    graded = pd.DataFrame(rows, columns=["problem", "text", "correct"])
    found = self_training.right_solutions(graded, [one, other, hopeless], most=2)
    assert found == [(one, "x"), (other, "v"), (one, "y")]


def test_a_solution_is_learnt_from_behind_its_prompt(codec: Codec):
    problem, text = "Compute $2 \\cdot 3$.", "So $\\boxed{6}$."
    tokens, targets = example(codec, problem, text)
    prompt = codec.prompt(problem)
    assert tokens == [*prompt, *codec.encode(text), codec.end]
    assert targets["answer"] == [0] * len(prompt) + [1] * (len(tokens) - len(prompt))


@pytest.mark.slow
def test_self_training_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch):
    """Stopped before the second round's last training, it draws and trains nothing again; the same seed trains the same
    weights, and training makes what it learns from more likely."""
    settings = {"problems": 8, "n": 4, "search": partial(dvts, beam_width=2)}
    settings["drawing"] = {"sampling": Sampling(max_tokens=256)}
    trained, train = [], self_training.fine_tuned  # trained: (data, folder) of each training

    def stops(folder, name, data, **others):
        if len(trained) == 5:
            raise KeyboardInterrupt
        trained.append((data, train(folder, name, data, **others)))
        return trained[-1][1]

    monkeypatch.setattr(self_training, "fine_tuned", stops)
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(self_training.self_trained(tmp_path, open_prm("prm"), **settings))
    monkeypatch.undo()
    made = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*-*-*/*")}
    stored = {
        path: path.stat().st_size
        for table in ("samples", "searches")
        for path in (tmp_path / "results" / table).iterdir()
    }
    for data, folder in trained:
        batch = {name: torch.from_numpy(of) for name, of in data.pad(range(len(data))).items()}
        before, after = (policy_loss(load(of)[0])(batch)[0] for of in (MODELS / "policy-xs", folder))
        assert after < before
    policies, facts, kept = asyncio.run(self_training.self_trained(tmp_path, open_prm("prm"), **settings))
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert stored
    assert {path: path.stat().st_size for path in stored} == stored
    assert list(policies) == [(r, s) for r in (1, 2) for s in ("search", "samples", "original")]
    alike = facts[facts.source != "original"].groupby("round").solutions.nunique()
    assert (alike == 1).all()
    rows = facts[facts.source != "original"].set_index(["round", "source"])
    assert {key: len(solutions) for key, solutions in kept.items()} == rows.solutions.to_dict()
    assert rows.right.groupby("round").min().equals(rows.solutions.groupby("round").first())
    assert (facts[facts.source == "search"].flops > facts[facts.source == "samples"].flops.values).all()
    again = tmp_path / "again"
    asyncio.run(self_training.self_trained(again, open_prm("prm"), rounds=1, **settings))
    for source in self_training.SOURCES:
        names = [next(folder.glob(f"{source}-0-1-*")) / "model.safetensors" for folder in (tmp_path, again)]
        assert names[0].parent.name == names[1].parent.name
        assert names[0].read_bytes() == names[1].read_bytes()


def test_nothing_right_is_said_in_a_line(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(self_training, "right_solutions", lambda graded, problems: [])
    settings = {"problems": 1, "n": 2, "search": partial(dvts, beam_width=2)}
    with pytest.raises(InputError, match="^train_problems: nothing right was found on 1 problems"):
        asyncio.run(self_training.self_trained(tmp_path, open_prm("prm"), **settings))


def test_a_wrong_number_on_the_command_line_is_one_line(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["self_training", str(tmp_path / "none"), "--problems", "0"])
    with pytest.raises(SystemExit) as left:
        self_training.main()
    assert left.value.code == 2
    assert capsys.readouterr().err.endswith("error: train_problems is 0: it must be a whole number, 1 or more\n")
    assert not (tmp_path / "none").exists()
